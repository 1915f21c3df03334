"""Signatures inside operations, remembered: the same ones come again and again.

Members attest to a module once, and every task that uses it carries their attestations. Whoever
fills a transaction with one of them many times makes nobody work more than once.
"""

from __future__ import annotations

from vcp_cluster.ledger.encoding import encode
from vcp_cluster.ledger.keys import hash_content, is_signed

REMEMBERED_MAX = 65_536


class Claims:
    """What was found true, by hash; all of it is forgotten when there is too much. Thread-safe."""

    def __init__(self) -> None:
        self._true: set[bytes] = set()

    def is_true(self, key: bytes, domain: bytes, message: bytes, signature: bytes) -> bool:
        """`is_signed`, once for each claim that is true."""
        claim = hash_content(encode((key, domain, message, signature)))
        if claim in self._true:
            return True
        if not is_signed(key, domain, message, signature):
            return False
        if len(self._true) >= REMEMBERED_MAX:
            self._true.clear()
        self._true.add(claim)
        return True
