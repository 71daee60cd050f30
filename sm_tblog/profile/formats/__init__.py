"""Trace formats: TensorBoard's ``XSpace`` and the JSON of kineto."""
