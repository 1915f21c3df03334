"""Lean clients and the closed loop that drives them, on one event loop of one process."""
