"""Destinations of batches: event files, JSON lines, the terminal, and registered sinks."""

from sm_tblog._types import Series, Value
from sm_tblog.sinks.base import Batch, Event, File, Sink, open_sink

__all__ = ["Batch", "Event", "File", "Series", "Sink", "Value", "open_sink"]
