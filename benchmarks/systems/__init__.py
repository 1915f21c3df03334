"""The systems that are measured, each behind one interface (`base.py`)."""
