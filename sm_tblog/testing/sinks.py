"""Conformance tests that every sink must pass."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sm_tblog._types import Series, Value
from sm_tblog.sinks.base import Batch, Sink
from sm_tblog.summary.text import text_value

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import TypeAlias

    Row: TypeAlias = tuple[Series, int, float, float]

__all__ = ["SinkTests", "make_batch"]


def make_batch(rows: Sequence[Row] = (), texts: Sequence[tuple[str, int, str]] = ()) -> Batch:
    """Return a batch of scalars and texts.

    Args:
        rows: scalars as tuples of series, step, wall time and value.
        texts: texts as tuples of tag, step and text.
    """
    series = list(dict.fromkeys(row[0] for row in rows))
    values = [
        Value("", step, 1.0, text_value(tag, text).SerializeToString(), tag, "text")
        for tag, step, text in texts
    ]
    return Batch(
        series,
        np.array([series.index(row[0]) for row in rows], np.intp),
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.float64),
        np.array([row[3] for row in rows], np.float64),
        values,
    )


class SinkTests:
    """Tests for a sink. Define ``make_sink``, and ``read_back`` if the sink stores data.

    ``read_back`` must not use the sink.
    """

    SERIES = Series("loss"), Series("accuracy/väl 1"), Series("loss", "run_a")

    def make_sink(self, logdir: str) -> Sink:
        """Return a new sink."""
        raise NotImplementedError

    def read_back(self, logdir: str) -> dict[tuple[str, str], list[tuple[int, float]]] | None:
        """Return steps and values by run and tag, None if the sink stores nothing."""
        del logdir
        return None

    @pytest.fixture
    def logdir(self, tmp_path: Path) -> str:
        """Return a log directory."""
        return str(tmp_path / "run")

    @pytest.fixture
    def sink(self, logdir: str) -> Any:
        """Return a new sink."""
        return self.make_sink(logdir)

    def rows(self, start: int = 0) -> list[Row]:
        """Return 40 rows of each series, with steps from ``start``."""
        return [(s, start + i, 1e9 + i, i / 4) for i in range(40) for s in self.SERIES]

    def check(self, logdir: str, rows: Sequence[Row]) -> None:
        """Check that the sink has stored exactly these rows, in order within each series."""
        expected: dict[tuple[str, str], list[tuple[int, float]]] = {}
        for series, step, _, value in rows:
            expected.setdefault((series.run, series.tag), []).append((step, value))
        found = self.read_back(logdir)
        if found is not None:
            assert found == expected

    def test_is_a_sink_that_says_where(self, sink: Any) -> None:
        assert isinstance(sink, Sink)
        assert str(sink)

    def test_what_is_flushed_can_be_read(self, sink: Any, logdir: str) -> None:
        sink.write(make_batch(self.rows(), [("note", 3, "some *text*")]))
        sink.flush()
        self.check(logdir, self.rows())
        sink.write(make_batch(self.rows(40)))
        sink.flush()
        self.check(logdir, self.rows() + self.rows(40))
        sink.close()
        self.check(logdir, self.rows() + self.rows(40))

    def test_closing_stores_everything_and_twice_is_harmless(self, sink: Any, logdir: str) -> None:
        sink.write(make_batch(self.rows()))
        sink.close()
        sink.close()
        self.check(logdir, self.rows())

    def test_writing_after_close_begins_anew(self, sink: Any, logdir: str) -> None:
        sink.write(make_batch(self.rows()))
        sink.close()
        sink.write(make_batch(self.rows(40)))
        sink.close()
        self.check(logdir, self.rows() + self.rows(40))

    def test_takes_batches_of_nothing_and_of_texts_alone(self, sink: Any, logdir: str) -> None:
        sink.write(make_batch())
        sink.write(make_batch(texts=[("note", 0, "text")]))
        sink.flush()
        sink.close()
        self.check(logdir, [])

    def test_takes_numbers_that_are_not_finite(self, sink: Any, logdir: str) -> None:
        inf = float("inf")
        rows = [(self.SERIES[0], i, 1.0, value) for i, value in enumerate((inf, -inf, 1.0))]
        sink.write(make_batch([*rows, (self.SERIES[1], 0, 1.0, float("nan"))]))
        sink.close()
        found = self.read_back(logdir)
        if found is not None:
            ((step, value),) = found.pop(("", self.SERIES[1].tag))
            assert step == 0
            assert np.isnan(value)
            assert found == {("", "loss"): [(0, inf), (1, -inf), (2, 1.0)]}

    @pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
    def test_a_copy_keeps_apart(self, sink: Any, logdir: str, duplicate: Any) -> None:
        sink.write(make_batch(self.rows()))
        other = duplicate(sink)
        other.write(make_batch(self.rows(40)))
        other.close()
        sink.write(make_batch(self.rows(80)))
        sink.close()
        found = self.read_back(logdir)
        if found is not None:
            rows = self.rows() + self.rows(40) + self.rows(80)
            steps = sorted(step for series, step, *_ in rows if series == self.SERIES[0])
            assert sorted(step for step, _ in found["", "loss"]) == steps
