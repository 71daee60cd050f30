"""Profilers of frameworks, which a session starts, stops and exports."""
