"""Encoders and decoders between values and bytes, without I/O, clocks or threads."""
