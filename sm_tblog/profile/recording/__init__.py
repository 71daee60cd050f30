"""What a session records by itself: spans, steps, counters, Python calls, memory."""
