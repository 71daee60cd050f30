"""Readers that return the values of event files."""

from sm_tblog.readers.contents.embeddings import Embedding
from sm_tblog.readers.contents.hparams import HParams
from sm_tblog.readers.contents.lazy import Contents, LazyValues
from sm_tblog.readers.contents.media import Audio, Image
from sm_tblog.readers.contents.meshes import Mesh
from sm_tblog.readers.contents.values import Histogram
from sm_tblog.readers.event_stream import Damage
from sm_tblog.readers.point_table import Scalars
from sm_tblog.readers.reading import follow, read, read_all
from sm_tblog.readers.run import DamagedFileWarning, Run
from sm_tblog.readers.runs import Runs

__all__ = [
    "Audio",
    "Contents",
    "Damage",
    "DamagedFileWarning",
    "Embedding",
    "HParams",
    "Histogram",
    "Image",
    "LazyValues",
    "Mesh",
    "Run",
    "Runs",
    "Scalars",
    "follow",
    "read",
    "read_all",
]
