"""Where batches go: event files, JSON lines, the terminal, or anything registered."""

from sm_tblog.sinks.base import Batch, Event, Sink, open_sink

__all__ = ["Batch", "Event", "Sink", "open_sink"]
