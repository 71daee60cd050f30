"""Trace formats: TensorBoard's XSpace, Kineto's JSON."""
