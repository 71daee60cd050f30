"""Event files back to values."""
