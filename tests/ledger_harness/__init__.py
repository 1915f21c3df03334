"""What the tests of the ledger share: a cast of keys, a ledger in memory, and its invariants."""
