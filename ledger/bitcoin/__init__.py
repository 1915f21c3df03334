"""Bitcoin's own formats, as far as anchors need them: hashlib and nothing else.

Everything here reads hostile bytes: bounded, strict, one error (`BitcoinInvalid`). Hashes are kept in
the order in which they are computed; `to_display` gives the reversed hex that nodes print.
"""
