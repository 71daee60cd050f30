"""A pipeline as the writer of one run below the log folder sees it.

Whatever it is given goes to the pipeline, as of that run; so the runs of one writer share its
worker, its sinks and its memory, and keep their order.
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


class RunView:
    """Stands in for a pipeline.

    Args:
        pipeline: where everything goes.
        run: the folder below the pipeline's log folder.
        owner: kept alive as long as this is.
    """

    def __init__(self, pipeline: Pipeline, run: str, owner: object) -> None:
        self.pipeline = pipeline
        self.run = run
        self.owner = owner
        self._series: dict[str | Series, Series] = {}

    @property
    def rows(self) -> list[Any]:
        """The rows that wait, of all runs."""
        return self.pipeline.rows

    @property
    def limit(self) -> int:
        """As of the pipeline."""
        return self.pipeline.limit

    @property
    def processors(self) -> list[Callable[[Batch], Batch]]:
        """As of the pipeline: they look at batches of all runs."""
        return self.pipeline.processors

    def extend(self, rows: Iterable[Any]) -> None:
        """Add rows of this run and of those below it."""
        known = self._series
        of_run = list(rows)
        of_run[0::ENTRIES] = [known.get(one) or self._of_run(one) for one in of_run[0::ENTRIES]]
        self.pipeline.extend(of_run)

    def put(self, item: Item) -> None:
        """Take an item of this run or of one below it."""
        build = partial(_build, item.build, self.run)
        self.pipeline.put(item._replace(run=_joined(self.run, item.run), build=build))

    def on_limit(self) -> None:
        """As of the pipeline."""
        self.pipeline.on_limit()

    def flush(self, timeout: float | None = None, *, force: bool = False) -> bool:
        """As of the pipeline: of all runs."""
        return self.pipeline.flush(timeout, force=force)

    def close(self, timeout: float | None = None) -> bool:
        """Flush. The files are closed with the pipeline."""
        return self.pipeline.flush(timeout, force=True)

    def stats(self) -> Stats:
        """As of the pipeline: of all runs."""
        return self.pipeline.stats()

    def _of_run(self, one: str | Series) -> Series:
        series = Series(one) if isinstance(one, str) else one
        self._series[one] = series._replace(run=_joined(self.run, series.run))
        return self._series[one]


def _joined(run: str, below: str) -> str:
    return f"{run}/{below}" if below else run


def _build(build: Any, run: str, tag: str, *args: Any) -> Any:
    """Build an item; move the parts that know their run below this one."""
    made = build(tag, *args)
    remark: list[str] = []
    if type(made) is tuple:
        made, *remark = made
    parts = made if isinstance(made, list) else [made]
    moved = [
        part._replace(run=_joined(run, part.run)) if hasattr(part, "run") else part
        for part in parts
    ]
    return (moved, *remark) if remark else moved
