"""The halves of anchor backends that do I/O; `ledger/anchors/` has the pure ones."""
