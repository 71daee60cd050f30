"""What an index knows about each run besides its points, as compressed JSON.

Many runs have the same tags, so these are stored once.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from sm_tblog.readers.event_stream import Damage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sm_tblog.readers.events import RunFiles

__all__ = ["Contents", "FileState", "RunEntry", "fingerprint", "states_of"]

FORMAT = 1
"""The version of everything that an index consists of."""


class FileState(NamedTuple):
    """An event file as it was listed: its name in the run's folder, size and version."""

    name: str
    size: int
    version: str


@dataclass(frozen=True)
class RunEntry:
    """A run.

    Attributes:
        name: the run's folder below the log directory, "." for the log directory itself.
        files: its event files, sorted by name.
        tags: the plugin of each tag, in the order in which the tags first appear.
        scalars: the tags that have scalars, in the order of ``Run.scalars``.
        hparams: the hyperparameters, by name.
        damages: the bytes that are not part of a complete event.
        is_in_order: whether the steps of each tag never decrease, so that sorting by step keeps the
            order in which the points were written.
    """

    name: str
    files: tuple[FileState, ...]
    tags: Mapping[str, str]
    scalars: Sequence[str]
    hparams: Mapping[str, bool | float | str]
    damages: tuple[Damage, ...]
    is_in_order: bool


def states_of(run: RunFiles) -> tuple[FileState, ...] | None:
    """Return the state of each file of a run, None if one is unknown."""
    states = []
    for file in run.files:
        if file.source.size is None:
            return None
        states.append(FileState(file.name, file.source.size, file.source.version))
    return tuple(states)


def fingerprint(runs: Mapping[str, tuple[FileState, ...]]) -> str:
    """Return a name for a set of runs and the states of their files."""
    text = json.dumps([FORMAT, sorted(runs.items())])
    return hashlib.sha256(text.encode()).hexdigest()[:20]


class Contents(NamedTuple):
    """The runs in a file of points, and the tag of each of its row groups."""

    entries: Mapping[str, RunEntry]
    groups: Sequence[str]

    def encode(self) -> bytes:
        """Return the contents as bytes, which depend on nothing else."""
        sets: dict[str, int] = {}
        runs = []
        for name in sorted(self.entries):
            entry = self.entries[name]
            text = json.dumps([entry.tags, list(entry.scalars)])
            number = sets.setdefault(text, len(sets))
            runs.append(
                [
                    *(name, entry.files, number, entry.hparams, entry.damages),
                    entry.is_in_order,
                ]
            )
        tag_sets = [json.loads(text) for text in sets]
        data = {"format": FORMAT, "tags": tag_sets, "runs": runs, "groups": list(self.groups)}
        return gzip.compress(json.dumps(data, separators=(",", ":")).encode(), 6, mtime=0)

    @classmethod
    def decode(cls, data: bytes) -> Contents | None:
        """Return the contents, None if the bytes are of another format or incomplete."""
        try:
            found: dict[str, Any] = json.loads(gzip.decompress(data))
            if found["format"] != FORMAT:
                return None
            entries = {}
            for name, files, number, hparams, damages, is_in_order in found["runs"]:
                tags, scalars = found["tags"][number]
                entries[name] = RunEntry(
                    name,
                    tuple(FileState(*file) for file in files),
                    tags,
                    scalars,
                    hparams,
                    tuple(Damage(*damage) for damage in damages),
                    is_in_order,
                )
            return cls(entries, found["groups"])
        except (OSError, EOFError, ValueError, LookupError, TypeError):
            return None
