"""Engines that run the profilers of frameworks, and the choice of engines for a session."""
