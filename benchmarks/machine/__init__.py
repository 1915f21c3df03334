"""The machine: its limits, what the run really got of it, and what processes used."""
