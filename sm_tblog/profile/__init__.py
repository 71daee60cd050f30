"""Profiles: what ran when, on which thread and device, for TensorBoard's Profile tab."""
