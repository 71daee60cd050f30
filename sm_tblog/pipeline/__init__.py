"""From the calling thread to the sinks: buffer, batches, worker thread and its lifecycle."""
