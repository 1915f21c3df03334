"""The pure core: types, codes, state, transition, encoding, keys, Merkle trees, receipts.

Nothing here reads a clock, draws a random number, opens a file or a socket. The one way in which
the state of a cluster changes is `vcp_cluster.ledger.transition.apply`.
"""
