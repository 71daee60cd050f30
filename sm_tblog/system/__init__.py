"""System metrics: the host, the limits of the container, and the GPUs."""
