"""Readers that return the values of event files."""

from sm_tblog.readers.event_stream import Damage
from sm_tblog.readers.point_table import Scalars
from sm_tblog.readers.reading import follow, read, read_all
from sm_tblog.readers.run import DamagedFileWarning, Run

__all__ = ["Damage", "DamagedFileWarning", "Run", "Scalars", "follow", "read", "read_all"]
