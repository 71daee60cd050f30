"""The pipeline of a child run: a view of the pipeline of the log directory's writer.

Everything passed to the view goes to that pipeline, assigned to the child run. So all runs of a
writer share its worker thread, its sinks and its memory, and their data keeps its order.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sm_tblog._types import Series
from sm_tblog.pipeline.batching import ENTRIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sm_tblog._types import Stats
    from sm_tblog.pipeline.batching import Item
    from sm_tblog.pipeline.worker import Pipeline
    from sm_tblog.sinks.base import Batch

__all__ = ["RunView"]


MAX_CACHED_SERIES = 4096
"""The number of series that a view keeps, so that ever new tags take no memory."""


class RunView:
    """A view of a pipeline with the same interface.

    Args:
        pipeline: the pipeline that receives everything.
        run: the folder below the pipeline's log directory.
        owner: an object to keep alive as long as the view.
    """

    def __init__(self, pipeline: Pipeline, run: str, owner: object) -> None:
        self.pipeline = pipeline
        self.run = run
        self.owner = owner
        self._series: dict[str | Series, Series] = {}

    @property
    def rows(self) -> list[Any]:
        """The buffered rows of all runs."""
        return self.pipeline.rows

    @property
    def limit(self) -> int:
        """The pipeline's limit."""
        return self.pipeline.limit

    @property
    def processors(self) -> list[Callable[[Batch], Batch]]:
        """The pipeline's processors, which receive the batches of all runs."""
        return self.pipeline.processors

    def extend(self, rows: Iterable[Any]) -> None:
        """Add rows of this run and of its child runs."""
        cache = self._series
        in_run = list(rows)
        in_run[0::ENTRIES] = [cache.get(one) or self._in_run(one) for one in in_run[0::ENTRIES]]
        self.pipeline.extend(in_run)

    def put(self, item: Item) -> None:
        """Add an item of this run or of one of its child runs."""
        build = partial(_build, item.build, self.run)
        self.pipeline.put(item._replace(run=_join_runs(self.run, item.run), build=build))

    def on_limit(self) -> None:
        """Call the pipeline's ``on_limit``."""
        self.pipeline.on_limit()

    def flush(self, timeout: float | None = None, *, force: bool = False) -> bool:
        """Flush the pipeline, with all its runs."""
        return self.pipeline.flush(timeout, force=force)

    def close(self, timeout: float | None = None) -> bool:
        """Flush the pipeline, which keeps the files open until it is closed."""
        return self.pipeline.flush(timeout, force=True)

    def stats(self) -> Stats:
        """Return the pipeline's counters, which cover all runs."""
        return self.pipeline.stats()

    def _in_run(self, one: str | Series) -> Series:
        series = Series(one) if isinstance(one, str) else one
        in_run = series._replace(run=_join_runs(self.run, series.run))
        if len(self._series) >= MAX_CACHED_SERIES:
            self._series.clear()
        self._series[one] = in_run
        return in_run


def _join_runs(run: str, below: str) -> str:
    return f"{run}/{below}" if below else run


def _build(build: Any, run: str, tag: str, *args: Any) -> Any:
    """Build an item; move the parts that have a run below ``run``."""
    made = build(tag, *args)
    warning: list[str] = []
    if type(made) is tuple:
        made, *warning = made
    parts = made if isinstance(made, list) else [made]
    moved = [
        part._replace(run=_join_runs(run, part.run)) if hasattr(part, "run") else part
        for part in parts
    ]
    return (moved, *warning) if warning else moved
