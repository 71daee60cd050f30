"""Statistics of arrays equal those of NumPy, wherever they are computed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from sm_tblog import InvalidTypeError
from sm_tblog.arrays import device_histogram
from sm_tblog.arrays.deferred import Deferred
from sm_tblog.watch import collector, statistics
from sm_tblog.watch.collector import StatisticsCollector
from sm_tblog.watch.statistics import (
    Statistics,
    as_statistics,
    as_update_statistics,
    change_row,
    rows_of,
)

SPECIAL = [0.0, -0.0, math.nan, math.inf, -math.inf, 3e38, -3e38, 1e-30]
FLOATS = st.floats(width=32) | st.sampled_from(np.float32(SPECIAL).tolist())
ARRAYS = npst.arrays(np.float32, npst.array_shapes(max_dims=3, max_side=9), elements=FLOATS)


def plain(array):
    """Return the statistics by their textbook formulas."""
    x = np.asarray(array, np.float64).ravel()
    with np.errstate(all="ignore"):
        return Statistics(
            len(x),
            x.mean(),
            x.std(),
            np.abs(x).mean(),
            np.linalg.norm(x),
            x.min(),
            x.max(),
            np.mean(x == 0),
            np.isnan(x).sum(),
            np.isinf(x).sum(),
        )


def check(found, array, rel=1e-9):
    expected = plain(array)
    scale = float(np.abs(np.nan_to_num(np.asarray(array, np.float64), posinf=0, neginf=0)).max())
    for name, value, wanted in zip(Statistics._fields, found, expected, strict=True):
        assert value == pytest.approx(wanted, rel=rel, abs=rel * scale, nan_ok=True), name


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(statistics, "PIECE", 7)
    monkeypatch.setattr(device_histogram, "_PIECE", 7)


def collect(values, **options):
    one = StatisticsCollector(**options)
    pending = one.collect(values, "values")
    one.send()
    return pending


@given(ARRAYS)
def test_rows_say_what_numpy_says(array):
    check(as_statistics(rows_of(array)), array)


@given(ARRAYS)
def test_pieces_say_together_what_the_whole_does(array):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "PIECE", 5)
        check(as_statistics(rows_of(array)), array)


def test_nothing_overflows_that_need_not():
    values = np.array([3e200, -4e200])
    found = as_statistics(np.concatenate([rows_of(values), rows_of(values)]))
    assert found.norm == pytest.approx(5e200 * math.sqrt(2))


def test_zeros_that_are_not_stored_count():
    check(as_statistics(rows_of(np.array([3.0, -1.0])), 4), np.array([3.0, -1.0, 0, 0, 0, 0]))
    empty = as_statistics(np.empty((0, statistics.ROW)))
    assert (empty.size, empty.norm, empty.nan) == (0, 0.0, 0)


@given(ARRAYS, st.sampled_from([0.0, 1e-9, 1e-6, 1e-4, 1.0]))
def test_a_change_is_what_allclose_takes_for_one(array, factor):
    array = np.nan_to_num(array, posinf=0, neginf=0)
    update = (array * factor).astype(np.float64)
    found = as_update_statistics(change_row(array, update))
    wide = array.astype(np.float64)
    with np.errstate(over="ignore"):
        changed = ~(np.abs(update) <= 1e-8 + 1e-5 * np.abs(wide))
    assert found.changed == pytest.approx(changed.mean())
    assert found.norm == pytest.approx(np.linalg.norm(update.ravel()))
    assert found.ratio == pytest.approx(found.norm / (np.linalg.norm(wide.ravel()) + 1e-9))
    assert (found.changed == 0) == np.allclose(wide + update, wide, rtol=1e-5, atol=1e-8)


def test_a_sample_is_evenly_spaced_and_not_in_step_with_rows():
    flat = np.arange(100_000)
    sample = statistics.evenly(flat, 1000)
    assert 900 <= len(sample) <= 1000
    assert len({int(x) % 64 for x in sample}) == 64
    assert statistics.evenly(flat, 100_000) is flat


@pytest.mark.parametrize(
    "values",
    [
        np.float32([[1, 2], [3, -4]]),
        [1, 2.5, -3],
        np.arange(6).reshape(2, 3)[:, ::2],
        np.array([True, False]),
        np.float64([1, 2, 3]).astype(">f8"),
    ],
)
def test_arrays_of_the_host_are_looked_at_by_the_worker(values):
    pending = collect(np.asarray(values), histograms=True)
    check(pending.statistics, values)
    assert np.asarray(pending.counted()).ravel().tolist() == np.asarray(values).ravel().tolist()


def test_an_array_may_change_when_the_call_returns():
    values = np.ones(5)
    one = StatisticsCollector()
    pending = one.collect(values, "values")
    values[:] = 7
    one.send()
    assert pending.statistics.max == 1


def test_complex_numbers_count_as_pairs_and_texts_not_at_all():
    check(collect(np.array([1 + 2j, 0 - 1j])).statistics, [1, 2, 0, -1])
    with pytest.raises(InvalidTypeError, match="'values'"):
        collect(np.array(["a"]))


class TestTorch:
    @pytest.fixture(autouse=True)
    def _torch(self):
        self.torch = pytest.importorskip("torch")

    @pytest.fixture(params=["travels", "looked at there", "without float64"])
    def way(self, request, monkeypatch):
        if request.param != "travels":
            monkeypatch.setattr(collector, "MAX_WHOLE_BYTES", 0)
        if request.param == "without float64":
            from sm_tblog.watch import torch_statistics

            monkeypatch.setattr(torch_statistics, "has_float64", lambda device: False)
        return 2e-6 if request.param == "without float64" else 1e-9

    @pytest.mark.parametrize(
        "dtype", ["float32", "float64", "float16", "bfloat16", "int64", "int8", "bool"]
    )
    def test_every_dtype(self, way, dtype):
        values = (self.torch.randn(3, 50, 7) * 3).to(getattr(self.torch, dtype))
        check(collect(values).statistics, values.double().numpy(), way)

    def test_numbers_of_every_size_and_of_none(self, way):
        values = self.torch.tensor([1e30, -1e30, 2e-30, 0, 0])
        check(collect(values).statistics, values.numpy(), max(way, 1e-6))
        values[1] = math.nan
        found = collect(values).statistics
        assert (found.nan, found.inf) == (1, 0)
        assert math.isnan(found.norm)
        values[1] = -math.inf
        assert collect(values).statistics.inf == 1

    @pytest.mark.usefixtures("small_pieces")
    def test_pieces_say_together_what_the_whole_does(self, way):
        values = self.torch.randn(100) + 5
        check(collect(values).statistics, values.numpy(), way)

    @pytest.mark.parametrize("coalesced", [True, False])
    @pytest.mark.filterwarnings("ignore:Sparse")
    def test_a_sparse_gradient_has_its_zeros(self, way, coalesced):
        places = self.torch.tensor([[0, 3, 3 if not coalesced else 4]])
        sparse = self.torch.sparse_coo_tensor(places, self.torch.tensor([1.0, 2, 4]), (10,))
        check(collect(sparse).statistics, sparse.to_dense().numpy(), way)

    def test_what_has_no_numbers_is_left_out(self, way):
        assert collect(self.torch.ones(3, device="meta")) is None
        assert collect(self.torch.ones(0)).statistics.size == 0
        check(collect(self.torch.tensor([1 + 2j])).statistics, [1, 2], way)

    def test_a_sample_is_there_if_it_is_wanted(self, way):
        values = self.torch.arange(5000.0)
        assert collect(values).sample is None
        assert 900 <= len(collect(values, spreads=True).sample()) <= 1024

    def test_a_change_is_that_of_numpy(self, way):
        before, update = self.torch.randn(40, 3), self.torch.randn(40, 3) * 1e-5
        one = StatisticsCollector()
        change = one.compare(before, update, "weight")
        one.send()
        expected = as_update_statistics(change_row(before.numpy(), update.numpy()))
        assert change() == pytest.approx(expected, rel=1e-5)
        with pytest.raises(InvalidTypeError, match="'weight': an update must have the shape"):
            StatisticsCollector().compare(before, update[0], "weight")

    def test_the_share_of_inactive_units(self):
        from sm_tblog.watch.torch_statistics import inactive_share

        active = self.torch.zeros(200, 4, dtype=self.torch.bool)
        active[:, 0] = True
        active[:3, 1] = True  # 1.5 %
        active[:1, 2] = True  # 0.5 %
        assert inactive_share(active, 1, 0.01).item() == 0.5
        assert inactive_share(active.T.reshape(1, 4, 20, 10), 1, 0.01).item() == 0.5
        assert inactive_share(active.reshape(20, 10, 4), -1, 0.01).item() == 0.5

    def test_all_of_a_step_is_one_copy(self, monkeypatch):
        from sm_tblog.watch import torch_statistics

        sent = []

        def defer(box):
            sent.append(box)
            return Deferred(box.numpy)

        monkeypatch.setattr(torch_statistics, "defer_tensor", defer)
        buffer = torch_statistics.TransferBuffer()
        tensors = [
            self.torch.randn(n).to(d)
            for n, d in ((3, self.torch.float64), (5, self.torch.float16), (2, self.torch.int32))
        ]
        takes = [buffer.put(tensor) for tensor in tensors[:2]]
        buffer.pack()
        kept = [tensor.clone() for tensor in tensors]
        for tensor in tensors[:2]:
            tensor.zero_()
        takes.append(buffer.put(tensors[2]))
        assert buffer.nbytes == 3 * 8 + 5 * 2 + 2 * 4
        monkeypatch.setattr(torch_statistics, "_is_host", lambda device: False)
        buffer.send()
        assert len(sent) == 1
        assert all((take() == one.numpy()).all() for take, one in zip(takes, kept, strict=True))

    def test_no_operation_needs_a_number_to_go_on(self):
        """On the meta device there are no values: an operation that depends on one fails."""
        from sm_tblog.watch.torch_statistics import (
            inactive_share,
            tensor_change,
            tensor_rows,
        )

        values = self.torch.empty(9_000_000, device="meta")
        assert tensor_rows(values).shape == (3 * statistics.ROW,)
        assert tensor_change(values, values).shape == (4,)
        assert inactive_share(values.reshape(3000, 3000) > 0, 1, 0.1).shape == (1,)


class TestJAX:
    @pytest.fixture(autouse=True)
    def _jax(self, monkeypatch):
        self.jax = pytest.importorskip("jax")
        monkeypatch.setattr(collector, "is_on_accelerator", lambda array: bool(array.devices()))

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int32", "bool"])
    def test_every_dtype_by_one_compiled_function(self, dtype):
        values = np.random.default_rng(0).normal(size=(30, 7)) * 3 + 1
        array = self.jax.numpy.asarray(values).astype(dtype)
        check(collect(array).statistics, np.asarray(array.astype(np.float32)), 2e-6)

    def test_all_arrays_and_changes_are_one_vector(self, monkeypatch):
        from sm_tblog.watch import jax_statistics

        sent = []
        defer = jax_statistics.defer_jax
        monkeypatch.setattr(jax_statistics, "defer_jax", lambda x: sent.append(x) or defer(x))
        arrays = [self.jax.numpy.arange(n, dtype=np.float32) for n in (3, 4, 5)]
        one = StatisticsCollector()
        readings = [one.collect(array, "array") for array in arrays]
        changes = [one.compare(array, array * 2, "array") for array in arrays]
        one.send()
        assert [x.shape for x in sent] == [(3 * statistics.ROW + 3 * 4,)]
        for pending, change, array in zip(readings, changes, arrays, strict=True):
            check(pending.statistics, np.asarray(array), 1e-6)
            assert change().ratio == pytest.approx(2)
            assert change().changed == pytest.approx(1 - 1 / array.size)

    def test_large_numbers_do_not_overflow(self):
        values = np.float32([1e30, -1e30, 0, 3e-20])
        check(collect(self.jax.numpy.asarray(values)).statistics, values, 1e-6)
        values[0] = np.nan
        found = collect(self.jax.numpy.asarray(values)).statistics
        assert (found.nan, found.inf) == (1, 0)

    def test_a_traced_array_is_refused(self):
        with pytest.raises(InvalidTypeError, match=r"'values'.*traced"):
            self.jax.jit(collect)(self.jax.numpy.ones(3))
