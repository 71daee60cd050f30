"""Bytes to values and back: no input or output, no clock, no thread."""
