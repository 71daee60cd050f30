"""Histograms of arrays with each option, as read by TensorBoard's own code."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sm_tblog import InvalidTypeError, InvalidValueError, Writer
from sm_tblog.arrays.buckets import default_edges
from sm_tblog.summary import histogram as module
from sm_tblog.summary.histogram import check_bins, count, histogram_value

RANDOM = np.random.default_rng(0).standard_normal(500)
NAMES = ["auto", "fd", "doane", "scott", "stone", "rice", "sturges", "sqrt"]


@pytest.fixture
def shown(tmp_path):
    """``shown(values, **options)``: what TensorBoard's plugin draws, rows of left, right, count."""
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.context import RequestContext

    def show(values, **options):
        logdir = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        with Writer(logdir / "run") as writer:
            writer.add_histogram("tag", values, 3, **options)
        multiplexer = plugin_event_multiplexer.EventMultiplexer()
        multiplexer.AddRunsFromDirectory(str(logdir))
        multiplexer.Reload()
        provider = data_provider.MultiplexerDataProvider(multiplexer, str(logdir))
        found = provider.read_tensors(
            RequestContext(), experiment_id="", plugin_name="histograms", downsample=100
        )
        [datum] = found["run"]["tag"]
        assert datum.step == 3
        return datum.numpy

    return show


def buckets(values, **options):
    message, _ = histogram_value("tag", np.asarray(values), **options)
    return list(message.histo.bucket_limit), list(message.histo.bucket)


# TensorBoard's own buckets.


def test_tensorboard_shows_every_value_within_its_bucket(shown):
    rows = shown(RANDOM.astype(np.float32))
    assert rows[:, 2].sum() == 500
    for left, right, held in rows:
        inside = (left <= RANDOM) & (right >= RANDOM)  # edges are float32, and so is the maximum
        assert inside.sum() == pytest.approx(held, abs=1)


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, -3.5, 1e-20, 1e30, -1e30])
def test_a_constant_is_one_bucket_that_holds_it(shown, value):
    rows = shown(np.full(10, value))
    assert rows[:, 2].sum() == 10
    [(left, right, _)] = rows
    assert left == right == np.float32(value)  # TensorBoard ends the outermost at min and max
    limits, counts = buckets(np.full(10, value))
    assert counts[-1] == 10
    assert limits[-1] > value
    assert counts == [10] or limits[-2] <= value


@pytest.mark.parametrize("values", [[], np.zeros((0, 3)), [math.nan, math.inf, -math.inf]])
def test_nothing_finite_is_an_empty_histogram(shown, values):
    assert shown(values)[:, 2].sum() == 0


def test_large_integers_and_bools_are_counted():
    limits, counts = buckets([2**53 + 1, 2**62, -(2**63)])
    assert sum(counts) == 3
    assert limits[-1] > 2**62
    assert sum(buckets([True, False, True])[1]) == 3


def test_what_was_transposed_or_is_large_in_parts_is_counted_once():
    values = np.asfortranarray(RANDOM.reshape(20, 25))
    assert count(values).counts.tolist() == count(RANDOM).counts.tolist()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_signalling_nan_is_one(dtype):
    bits = {"f4": (0x7F800001, np.uint32), "f8": (0x7FF0000000000001, np.uint64)}[dtype]
    values = np.append(np.ones(3, dtype), np.array(bits[0], bits[1]).view(dtype))
    assert count(values)[3:] == (1.0, 3, 3.0, 3.0, 1, 0)


# NumPy's.


@pytest.mark.filterwarnings("ignore:The number of bins estimated:RuntimeWarning")
@pytest.mark.parametrize("bins", [*NAMES, 1, 30, [-1.0, 0.0, 0.5], np.linspace(-3, 3, 9)])
@pytest.mark.parametrize("values", [RANDOM, (RANDOM * 9).astype(np.int64)], ids=["float", "int"])
def test_bins_are_numpys_for_every_name(bins, values):
    counts, edges = np.histogram(values, bins)
    limits, found = buckets(values, bins=bins)
    assert limits == edges.tolist()
    assert found == [0, *counts]


def test_tensorboard_shows_numpys_bins(shown):
    counts, edges = np.histogram(RANDOM, 7)
    rows = shown(RANDOM, bins=7)
    assert rows[-7:, 0] == pytest.approx(edges[:-1])
    assert rows[-7:, 1] == pytest.approx(edges[1:])
    assert rows[-7:, 2].tolist() == counts.tolist()


@pytest.mark.parametrize("name", ["auto", "fd"])
def test_an_outlier_does_not_make_billions_of_bins(name):
    values = np.append(RANDOM * 1e-9, 1e6)
    _, counts = buckets(values, bins=name)
    assert len(counts) == module._MAX_BINS + 1
    assert sum(counts) == 501


def test_bins_that_change_later_are_those_of_the_call(tmp_path, read_events, event_files):
    bins = [0.0, 1.0, 2.0]
    edges = np.array(bins)
    with Writer(tmp_path) as writer:
        writer.add_histogram("tag", [0.5, 1.5], bins=bins)
        writer.add_histogram("tag", [0.5, 1.5], bins=edges)
        bins[:], edges[:] = [7.0, 8.0, 9.0], 7
    [path] = event_files(tmp_path)
    values = [value for event in read_events(path) for value in event.summary.value]
    assert [list(value.histo.bucket_limit) for value in values] == [[0, 1, 2]] * 2


@pytest.mark.parametrize("bins", ["tensorflow", "auto", 40])
@pytest.mark.parametrize("max_bins", [1, 2, 7, 10**6, np.int64(3)])
def test_neighbours_are_merged_whatever_the_bins(bins, max_bins):
    all_limits, all_counts = buckets(RANDOM, bins=bins)
    limits, counts = buckets(RANDOM, bins=bins, max_bins=max_bins)
    assert len(counts) - 1 <= max_bins
    assert sum(counts) == 500
    assert (limits[0], limits[-1]) == (all_limits[0], all_limits[-1])
    cumulated = dict(zip(all_limits, np.cumsum(all_counts), strict=True))
    assert [cumulated[limit] for limit in limits] == np.cumsum(counts).tolist()


def test_the_lowest_bucket_is_merged_too():
    _, counts = buckets([-1e30, -1.0, 1.0], max_bins=2)
    assert sum(counts) == 3
    assert len(counts) == 2


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"max_bins": 0}, InvalidValueError, "max_bins must be at least 1, got 0"),
        ({"max_bins": 2.5}, InvalidTypeError, "max_bins must be an integer, got 2.5"),
        ({"max_bins": "3"}, InvalidTypeError, "max_bins must be an integer"),
        ({"bins": 0}, InvalidValueError, "invalid bins"),
        ({"bins": 2.5}, InvalidTypeError, "invalid bins"),
        ({"bins": None}, InvalidTypeError, "invalid bins"),
        ({"bins": [3.0, 1.0]}, InvalidValueError, "invalid bins"),
        ({"bins": "no such"}, InvalidValueError, "invalid bins"),
    ],
)
def test_bad_options_are_refused_at_the_call(tmp_path, options, error, says):
    with Writer(tmp_path) as writer, pytest.raises(error, match=f"'my/tag': {says}"):
        writer.add_histogram("my/tag", [1.0], **options)


# What is left out, and what is not stored.


@pytest.mark.parametrize("bins", ["tensorflow", 3])
@pytest.mark.parametrize(
    "values",
    [
        np.ma.masked_array([1, 2, 3], [0, 1, 0]),
        [1.0, None, 3.0],
        [1.0, math.nan, 3.0],
        np.array([1.0, math.nan, 3.0], np.float16),
    ],
    ids=["masked", "None", "nan", "half"],
)
def test_what_is_missing_is_left_out_and_said_once(tmp_path, caplog, bins, values):
    with Writer(tmp_path) as writer:
        for step in range(3):
            writer.add_histogram("tag", values, step, bins=bins)
    [message] = [record.getMessage() for record in caplog.records]
    assert "'tag': the histogram leaves out 1 NaN and 0 infinite of 3 values" in message


@pytest.mark.parametrize("bins", ["tensorflow", 4, [-1.0, 0.0, 1.0, 9.0]])
def test_zeros_that_a_sparse_array_does_not_store_are_counted(shown, bins):
    sparse = pytest.importorskip("scipy.sparse")
    values = sparse.random(40, 50, density=0.1, random_state=0)
    rows = shown(values, bins=bins)
    dense = shown(values.toarray(), bins=bins)
    assert rows.tolist() == dense.tolist()
    assert rows[:, 2].sum() == 2000


def test_a_sparse_array_is_not_made_dense(tmp_path, read_events, event_files):
    sparse = pytest.importorskip("scipy.sparse")
    values = sparse.coo_array(([5.0, -2.0], ([3, 10**6], [3, 10**6])), (10**7, 10**7))
    with Writer(tmp_path) as writer:
        writer.add_histogram("tag", values)
        writer.add_histogram("tag", values, bins=3)
        with pytest.raises(InvalidValueError, match=r"'tag': .*'auto'.* sparse; make it dense"):
            writer.add_histogram("tag", values, bins="auto")
    [path] = event_files(tmp_path)
    for histo in (value.histo for event in read_events(path) for value in event.summary.value):
        assert (histo.min, histo.max, histo.num) == (-2, 5, 10**14)
        assert (histo.sum, histo.sum_squares) == (3, 29)
        assert sum(histo.bucket) == 10**14


def test_a_sparse_array_without_elements_is_all_zeros():
    limits, counts = buckets([], size=7)
    assert counts[-1] == sum(counts) == 7
    assert (limits[-2], limits[-1]) == (0, default_edges()[default_edges() > 0][0])
    assert sum(buckets([], bins=3, size=7)[1]) == 7


def test_edges_are_taken_once():
    edges = np.array([0.0, 1.0])
    assert check_bins(edges, "tag") is not edges


# Counted elsewhere.


@pytest.mark.parametrize(
    ("limits", "counts"),
    [
        ([1.0, 2.0], [1]),
        ([[1.0]], [[1]]),
        ([1.0, math.nan], [1, 1]),
        ([math.nan], [1]),
    ],
)
def test_raw_buckets_that_are_none_are_refused(tmp_path, limits, counts):
    with Writer(tmp_path) as writer, pytest.raises(InvalidValueError, match=r"'my/tag': .*limit"):
        writer.add_histogram_raw("my/tag", 0, 1, 2, 1, 1, limits, counts)


def test_a_disabled_writer_looks_at_nothing(tmp_path):
    writer = Writer(tmp_path, enabled=False)
    writer.add_histogram("tag", object(), bins="no such")
    writer.add_histogram_raw("tag", 0, 0, 0, 0, 0, object(), object())
