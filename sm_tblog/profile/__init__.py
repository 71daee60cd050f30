"""Profiles for TensorBoard's Profile tab: what ran when, on which thread and device."""
