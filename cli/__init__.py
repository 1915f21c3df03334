"""The command `vcp-cluster`: parse, call the client, print. Only `output.py` prints."""
