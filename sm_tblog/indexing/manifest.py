"""The manifest of an index: which files are its current generation.

The manifest is written last, in one piece. So a reader sees a complete generation, whatever a
writer does. The files of the generation before stay until the next one is complete, for those who
are still reading them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sm_tblog.indexing.entries import FORMAT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sm_tblog.indexing.folder import IndexFolder

__all__ = ["KINDS", "NAME", "Manifest", "maybe_read_manifest"]

NAME = "manifest.json"

KINDS = {
    "scalars": ".parquet",
    "summary": ".parquet",
    "hparams": ".parquet",
    "runs": ".json.gz",
}
"""The files of a generation, and how their names end."""


@dataclass(frozen=True)
class Manifest:
    """The current generation.

    Attributes:
        generation: its name, which depends on the runs and the states of their files.
        files: the name and the size of each file, by kind.
        previous: the names of the files of the generation before.
    """

    generation: str
    files: Mapping[str, tuple[str, int]]
    previous: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """The names of the files of the current generation."""
        return frozenset(name for name, _ in self.files.values())

    def encode(self) -> bytes:
        """Return the manifest as bytes."""
        data = {
            "format": FORMAT,
            "generation": self.generation,
            "files": self.files,
            "previous": sorted(self.previous),
        }
        return json.dumps(data, indent=1).encode()


def maybe_read_manifest(folder: IndexFolder) -> Manifest | None:
    """Return the manifest, None if there is none of this format.

    Raises:
        StoreError: it cannot be read.
    """
    data = folder.get(NAME)
    if data is None:
        return None
    try:
        found = json.loads(data)
        if found["format"] != FORMAT:
            return None
        files = {
            kind: (str(found["files"][kind][0]), int(found["files"][kind][1])) for kind in KINDS
        }
        return Manifest(str(found["generation"]), files, tuple(map(str, found["previous"])))
    except (ValueError, LookupError, TypeError):
        return None
