"""The I/O half of the Bitcoin backend: a node's RPC, fees, the key, and the steps of an anchor."""
