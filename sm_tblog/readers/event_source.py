"""Many runs that are read from their event files."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sm_tblog.readers.reading import load_run
from sm_tblog.readers.runs import Job

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sm_tblog.readers.event_stream import Damage
    from sm_tblog.readers.events import RunFiles
    from sm_tblog.readers.run import Run
    from sm_tblog.readers.selection import Selection

__all__ = ["EventSource"]


class EventSource:
    """Runs that are read from their event files, one at a time.

    Args:
        runs: the runs, sorted by name.
        selection: which tags and points are kept.
        storage_options: as for ``read``.
    """

    def __init__(
        self,
        runs: Sequence[RunFiles],
        selection: Selection,
        storage_options: Mapping[str, Any] | None,
    ) -> None:
        self.files = {run.name: run for run in runs}
        self._load = partial(load_run, selection=selection, storage_options=storage_options)

    @property
    def names(self) -> Sequence[str]:
        """The names of all runs, in order."""
        return list(self.files)

    @property
    def damages(self) -> Mapping[str, tuple[Damage, ...]]:
        """What could not be listed, by run."""
        return {name: run.damages for name, run in self.files.items() if run.damages}

    def jobs(self, names: Iterable[str]) -> Iterator[Job]:
        """Iterate over jobs that each read one run."""
        for name in names:
            files = self.files[name]
            size = sum(file.source.size or 0 for file in files.files)
            yield Job([name], size, partial(self._load_one, files))

    def _load_one(self, files: RunFiles) -> list[Run]:
        return [self._load(files)]
