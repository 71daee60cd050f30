"""Many runs, read when they are asked for.

A source divides names into jobs. ``Runs`` executes jobs on a pool of threads, a bounded number of
jobs and bytes ahead of the caller, and returns their results in order.
"""

from __future__ import annotations

import difflib
import threading
from collections import OrderedDict, deque
from collections.abc import ItemsView, Mapping, ValuesView
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, Protocol

from sm_tblog.readers.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future
    from typing import TypeAlias

    from sm_tblog.readers.event_stream import Damage

    Progress: TypeAlias = Callable[[int, int], object] | None

__all__ = ["Job", "RunSource", "Runs"]

MAX_BYTES = 256 << 20
"""Bytes of runs that are read ahead at a time, and bytes of runs that stay in memory."""


class Job(NamedTuple):
    """Some runs that are read together.

    Attributes:
        names: the names of the runs.
        size: an estimate of the memory they need, in bytes.
        load: returns the runs, in the order of ``names``.
    """

    names: Sequence[str]
    size: int
    load: Callable[[], Sequence[Run]]


class RunSource(Protocol):
    """Where runs are read from.

    Attributes:
        names: the names of all runs, in order.
        damages: what could not be listed, by run.
    """

    @property
    def names(self) -> Sequence[str]: ...  # noqa: D102 - above

    @property
    def damages(self) -> Mapping[str, tuple[Damage, ...]]: ...  # noqa: D102 - above

    def jobs(self, names: Iterable[str]) -> Iterator[Job]:
        """Iterate over the jobs that read some runs, in the order of the names."""
        ...


class Runs(Mapping[str, Run]):
    """Runs by name, as returned by ``sm_tblog.read_many``.

    ``runs[name]`` reads one run. ``runs.items()`` and ``runs.values()`` read the runs in parallel,
    slightly ahead of the loop, and forget those that the loop no longer uses. ``runs.load()``
    returns a dictionary of all runs.

    Attributes:
        path: the path, URL or pattern that was given.
    """

    def __init__(
        self, path: str, source: RunSource, workers: int = 16, progress: Progress = None
    ) -> None:
        self.path = path
        self._source = source
        self._names = frozenset(source.names)
        self._workers = workers
        self._progress = progress
        self._errors = dict(source.damages)
        self._kept: OrderedDict[str, tuple[Run, int]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def errors(self) -> dict[str, tuple[Damage, ...]]:
        """What could not be read so far, by run: bytes, files and folders."""
        return dict(self._errors)

    def load(self, names: Iterable[str] | None = None) -> dict[str, Run]:
        """Read runs in parallel, and return them by name.

        Args:
            names: the runs to read, by default all.

        Raises:
            KeyError: there is no run of this name.
        """
        return dict(self._read(self if names is None else list(names)))

    def __getitem__(self, name: str) -> Run:
        """Return a run, which is read unless it was recently."""
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
                return self._kept[name][0]
        self._check(name)
        for job in self._source.jobs([name]):
            (run,) = job.load()
            self._note(name, run)
            self._keep(name, run, job.size)
        return run

    def __contains__(self, name: object) -> bool:
        """Return whether there is a run of this name."""
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._source.names)

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self._names)

    def items(self) -> ItemsView[str, Run]:
        """Return the names and runs; iterating over them reads the runs in parallel."""
        return _Items(self)

    def values(self) -> ValuesView[Run]:
        """Return the runs; iterating over them reads them in parallel."""
        return _Values(self)

    def __repr__(self) -> str:
        """Return the path and the number of runs."""
        return f"<Runs {self.path!r}: {len(self):,} runs>"

    def _check(self, name: str) -> None:
        if name not in self._names:
            near = difflib.get_close_matches(str(name), self._names, 3, 0.5)
            hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
            message = f"no such run: {name!r}{hint}"
            raise KeyError(message)

    def _note(self, name: str, run: Run) -> None:
        if damages := run.damages:
            self._errors[name] = damages

    def _keep(self, name: str, run: Run, size: int) -> None:
        """Keep a run in memory as long as the most recent runs are not too large."""
        with self._lock:
            self._kept[name] = run, size
            total = sum(one for _, one in self._kept.values())
            while total > MAX_BYTES and len(self._kept) > 1:
                total -= self._kept.popitem(last=False)[1][1]

    def _read(self, names: Iterable[str]) -> Iterator[tuple[str, Run]]:
        """Read runs in parallel, ahead of the caller."""
        wanted = list(names)
        for name in wanted:
            self._check(name)
        loaded = _ahead(self._source.jobs(wanted), self._workers)
        for done, (name, run) in enumerate(loaded, 1):
            self._note(name, run)
            if self._progress is not None:
                self._progress(done, len(wanted))
            yield name, run


class _Items(ItemsView[str, Run]):
    _mapping: Runs

    def __iter__(self) -> Iterator[tuple[str, Run]]:
        return self._mapping._read(self._mapping)  # noqa: SLF001 - a view of it


class _Values(ValuesView[Run]):
    _mapping: Runs

    def __iter__(self) -> Iterator[Run]:
        return (run for _, run in self._mapping._read(self._mapping))  # noqa: SLF001 - as above


def _ahead(jobs: Iterator[Job], workers: int) -> Iterator[tuple[str, Run]]:
    """Execute jobs on threads, a bounded number and size of them ahead of the caller."""
    pending: deque[tuple[Job, Future[Sequence[Run]]]] = deque()
    size = 0
    job = next(jobs, None)
    with ThreadPoolExecutor(workers, thread_name_prefix="sm_tblog-read") as pool:
        try:
            while pending or job is not None:
                while job is not None and (
                    not pending or (len(pending) < 2 * workers and size + job.size <= MAX_BYTES)
                ):
                    pending.append((job, pool.submit(job.load)))
                    size += job.size
                    job = next(jobs, None)
                first, future = pending.popleft()
                runs = future.result()
                size -= first.size
                yield from zip(first.names, runs, strict=True)
        finally:
            for _, future in pending:
                future.cancel()
