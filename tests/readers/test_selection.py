"""Which tags and points are read, and which a restart supersedes."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sm_tblog
from sm_tblog import InvalidTypeError, InvalidValueError, Writer
from sm_tblog.readers.restarts import order_by_tag, rows_kept
from sm_tblog.readers.selection import Selection


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with Writer(folder) as writer:
        for step in range(100):
            writer.add_scalar("train/loss", step / 2, step, walltime=1e9 + step)
            writer.add_scalar("train/accuracy", step, step, walltime=1e9 + step)
            writer.add_scalar("eval/loss", -step, step, walltime=1e9 + step)
        writer.add_text("train/notes", "text", 3)
    return folder


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("train/*", ["train/loss", "train/accuracy", "train/notes"]),
        (["*/loss"], ["train/loss", "eval/loss"]),
        (("eval/loss", "nothing"), ["eval/loss"]),
        (lambda tag: tag.endswith("accuracy"), ["train/accuracy"]),
        ([], []),
        ("TRAIN/*", []),
    ],
)
def test_tags_are_chosen_by_patterns_or_a_function(logdir, tags, expected):
    run = sm_tblog.read(logdir, tags=tags)
    assert list(run.tags) == expected
    assert list(run.scalars) == [tag for tag in expected if tag != "train/notes"]
    everything = sm_tblog.read(logdir)
    for tag, points in run.scalars.items():
        np.testing.assert_array_equal(points, everything.scalars[tag])


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (range(10, 13), [10, 11, 12]),
        (range(90, 1000, 5), [90, 95]),
        (slice(97, None), [97, 98, 99]),
        (slice(None, 2), [0, 1]),
        (slice(None, None, 50), [0, 50]),
        (range(-(2**63), 2, 2**62), [0]),
        (range(0), []),
    ],
)
@pytest.mark.parametrize("restarts", ["marks", "steps", "raw"])
def test_steps_are_chosen_by_a_range_or_a_slice(logdir, steps, expected, restarts):
    run = sm_tblog.read(logdir, steps=steps, restarts=restarts)
    assert run.scalars["eval/loss"].step.tolist() == expected
    assert run.scalars["eval/loss"].value.tolist() == [-step for step in expected]


@pytest.mark.parametrize(
    "since",
    [1e9 + 98, dt.datetime.fromtimestamp(1e9 + 98, dt.timezone.utc)],
)
def test_points_since_a_time(logdir, since):
    assert sm_tblog.read(logdir, since=since).scalars["train/loss"].step.tolist() == [98, 99]


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"tags": 5}, InvalidTypeError, "tags must be patterns or a function, got 5"),
        ({"tags": [b"a"]}, InvalidTypeError, "tags must be"),
        ({"steps": 5}, InvalidTypeError, r"such as range\(1000, 2000\)"),
        ({"steps": slice(0.5, 2)}, InvalidTypeError, "integer bounds"),
        ({"steps": slice(True, 2)}, InvalidTypeError, "integer bounds"),
        ({"steps": range(5, 0, -1)}, InvalidValueError, "ascending"),
        ({"steps": slice(0, 2**64)}, InvalidValueError, "int64"),
        ({"since": "yesterday"}, InvalidTypeError, "since must be"),
        ({"since": True}, InvalidTypeError, "since must be"),
        ({"restarts": "none"}, InvalidValueError, "'marks', 'steps' or 'raw'"),
    ],
)
def test_other_choices_are_refused(logdir, options, error, match):
    with pytest.raises(error, match=match):
        sm_tblog.read(logdir, **options)


# Restarts.


def test_the_three_rules(tmp_path):
    with Writer(tmp_path) as writer:
        for step in range(6):
            writer.add_scalar("loss", step, step)
        writer.add_scalar("once", 1.0, 4)
        writer.add_text("notes", "old", 4)
    with Writer(tmp_path, purge_step=3) as writer:
        writer.add_scalar("loss", 30, 3)
        writer.add_scalar("loss", 20, 2)
        writer.add_text("notes", "new", 5)

    def read(restarts):
        run = sm_tblog.read(tmp_path, restarts=restarts)
        return {
            tag: list(zip(*map(np.ndarray.tolist, points[::2]), strict=True))
            for tag, points in run.scalars.items()
        }

    old = [(step, step) for step in range(6)]
    assert read("marks") == {"loss": [*old[:3], (3, 30), (2, 20)], "once": []}
    assert read("steps") == {"loss": [*old[:2], (2, 20)], "once": [(4, 1)]}
    assert read("raw") == {"loss": [*old, (3, 30), (2, 20)], "once": [(4, 1)]}


rows = st.lists(st.tuples(st.integers(0, 3), st.integers(-3, 9)), max_size=40)


@given(rows, st.lists(st.tuples(st.integers(0, 40), st.integers(-3, 9)), max_size=3))
def test_rows_are_kept_by_the_definition(points, starts):
    tags = np.array([tag for tag, _ in points], np.int32)
    steps = np.array([step for _, step in points], np.int64)
    starts = [(min(before, len(points)), step) for before, step in starts]
    marks = rows_kept(tags, steps, starts, "marks")
    expected = [
        not any(i < before and step >= start for before, start in starts)
        for i, (_, step) in enumerate(points)
    ]
    assert (expected if marks is None else marks.tolist()) == expected
    expected = [
        not any(later == tag and at <= step for later, at in points[i + 1 :])
        for i, (tag, step) in enumerate(points)
    ]
    assert rows_kept(tags, steps, starts, "steps").tolist() == expected
    assert rows_kept(tags, steps, starts, "raw") is None


@given(st.lists(st.sampled_from([0, 1, 65_535, 65_536, 65_537, 200_000]), max_size=30))
def test_more_than_65536_tags_are_sorted_in_order(numbers):
    tags = np.array(numbers, np.int32)
    order, ends = order_by_tag(tags)
    np.testing.assert_array_equal(order, np.argsort(tags, kind="stable"))
    assert (int(ends[-1]) if len(ends) else 0) == len(numbers)


@given(rows, st.integers(-4, 4), st.integers(0, 6), st.integers(1, 3))
def test_steps_of_a_selection_are_those_of_the_range(points, start, length, stride):
    steps = np.array([step for _, step in points], np.int64)
    chosen = range(start, start + length, stride)
    keep = Selection(steps=chosen).points(steps, steps.astype(float))
    assert keep.tolist() == [step in chosen for step in steps.tolist()]
