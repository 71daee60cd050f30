"""From the caller to the sinks: the buffer, batches, the worker thread and its lifecycle."""
