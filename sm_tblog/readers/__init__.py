"""Readers that return the values of event files."""

from sm_tblog.readers.columns import Scalars
from sm_tblog.readers.event_stream import Damage
from sm_tblog.readers.run import DamagedFileWarning, Run, read, read_all

__all__ = ["Damage", "DamagedFileWarning", "Run", "Scalars", "read", "read_all"]
