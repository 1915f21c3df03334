"""What is done to the systems. `table.py` lists it all, with what is absent and why."""
