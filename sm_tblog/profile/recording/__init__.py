"""The built-in recorders: spans, steps, counters, Python calls and memory."""
