"""Metrics of the machine: the host, the container's limits, the GPUs."""
