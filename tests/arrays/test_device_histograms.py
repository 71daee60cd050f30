"""Histograms counted on devices: equal to NumPy's, without waiting, in little memory.

The same operations run on the host, and also on a GPU if there is one.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from sm_tblog import Writer
from sm_tblog.arrays import device_histogram
from sm_tblog.arrays.buckets import default_edges
from sm_tblog.arrays.deferred import Deferred
from sm_tblog.arrays.device_histogram import DeviceTally, count_jax, count_tensor, maybe_tally
from sm_tblog.summary.histogram import count, histogram_value

torch = pytest.importorskip("torch")

SPECIAL = [0.0, -0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 3e38, -3e38, 1e-30, -1e-30]
FLOAT32 = (
    st.floats(width=32)
    | st.sampled_from(np.float32(default_edges()[1:-1]).tolist())
    | st.sampled_from(np.float32(SPECIAL).tolist())
)
FLOAT64 = st.floats() | FLOAT32 | st.sampled_from(default_edges()[1:-1].tolist())


def tally_of(vector, size):
    """Return a device's counts, as the worker thread reads them."""
    return DeviceTally([Deferred(lambda: np.asarray(vector))], size)


def check_tally(tally, values, digits=12):
    """Compare with counts in host memory: exactly, except for the sums."""
    found = tally.tally()
    with np.errstate(invalid="ignore"):  # PyTorch makes signalling NaN of float8's
        exact = values.astype(np.float64).ravel()
    finite = exact[np.isfinite(exact)]
    expected = count(values)
    histogram, _ = histogram_value("tag", tally)
    assert list(histogram.histo.bucket) == expected.counts.tolist()
    assert list(histogram.histo.bucket_limit) == expected.limits.tolist()
    assert (found.nan, found.inf) == (expected.nan, expected.inf)
    assert found.counts.sum() == len(finite)
    assert (histogram.histo.min, histogram.histo.max) == (expected.min, expected.max)
    with np.errstate(over="ignore", under="ignore"):
        room = 10.0**-digits * np.abs(finite).sum()
        squares = np.square(finite).sum()
    if math.isfinite(room):
        assert abs(histogram.histo.sum - expected.sum) <= room
    if math.isfinite(squares):
        assert histogram.histo.sum_squares == pytest.approx(squares, rel=10.0**-digits, abs=1e-300)


def check_tensor(tensor, digits=12):
    values = tensor.detach()
    values = values.numpy() if values.dtype != torch.bfloat16 else values.float().numpy()
    check_tally(tally_of(count_tensor(tensor.detach()), tensor.numel()), values, digits)


@pytest.fixture
def narrow(monkeypatch):
    """A device without float64, like Apple's."""
    monkeypatch.setattr(device_histogram, "has_float64", lambda device: False)


@settings(deadline=None)
@given(npst.arrays(np.float32, st.integers(1, 60), elements=FLOAT32))
def test_float32_is_counted_as_in_host_memory(values):
    check_tensor(torch.from_numpy(values))


@settings(deadline=None)
@given(npst.arrays(np.float64, st.integers(1, 60), elements=FLOAT64))
def test_float64_is_counted_as_in_host_memory(values):
    check_tensor(torch.from_numpy(values))


def test_every_edge_and_its_neighbours_are_counted_as_in_host_memory():
    edges = default_edges()[1:-1]
    for dtype in (np.float32, np.float64):
        exact = edges.astype(dtype)
        near = [np.nextafter(exact, dtype(side)) for side in (-np.inf, np.inf)]
        check_tensor(torch.from_numpy(np.concatenate([exact, *near])))


@pytest.mark.parametrize(
    "dtype",
    [
        *["bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"],
        *["float16", "bfloat16", "float32", "float64"],
    ],
)
@pytest.mark.parametrize(
    "shape", [(), (1,), (7, 5, 3), (2000,)], ids=["scalar", "one", "three", "many"]
)
def test_every_dtype_is_counted_as_in_host_memory(dtype, shape):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(shape, generator=generator) * 300
    if dtype.startswith("u"):
        values = values.abs() % 200
    if dtype == "int8":
        values %= 100
    tensor = values.to(getattr(torch, dtype))
    check_tensor(tensor)
    check_tensor(torch.full(shape, 3).to(tensor.dtype))
    check_tensor(torch.zeros(shape).to(tensor.dtype))


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz"])
def test_float8_is_counted_as_in_host_memory(dtype):
    every = torch.arange(256, dtype=torch.uint8).view(getattr(torch, dtype))
    check_tally(tally_of(count_tensor(every), 256), every.float().numpy())


def test_large_integers_are_counted_as_float64():
    values = torch.tensor([2**53 + 1, -(2**53) - 1, 2**62 + 1, -(2**63), 2**63 - 1])
    check_tensor(values)


@pytest.mark.parametrize("piece", [1, 7, 64, 10**6])
def test_pieces_add_up(monkeypatch, piece):
    monkeypatch.setattr(device_histogram, "_PIECE", piece)
    values = torch.randn(500, generator=torch.Generator().manual_seed(0))
    values[[3, 77, 78]] = torch.tensor([math.nan, math.inf, -math.inf])
    values[64:128] = math.nan
    check_tensor(values)
    check_tensor(torch.full((20,), math.nan))


def layouts():
    whole = torch.arange(-60.0, 60.0).reshape(2, 3, 4, 5)
    yield whole
    yield whole.permute(3, 1, 0, 2)
    yield whole[:, :, ::2, 1:]
    yield whole[0, 0].expand(6, 4, 5)
    yield whole.to(memory_format=torch.channels_last)
    yield torch.nn.Parameter(whole)
    yield torch.complex(whole, whole).conj().imag


@pytest.mark.parametrize("piece", [8, 10**6])
def test_every_layout_is_counted_as_in_host_memory(monkeypatch, piece):
    monkeypatch.setattr(device_histogram, "_PIECE", piece)
    for tensor in layouts():
        check_tensor(tensor.detach().resolve_neg() if tensor.is_neg() else tensor)
        tally = tally_of(count_tensor(tensor.detach()), tensor.numel())
        check_tally(tally, tensor.detach().resolve_neg().numpy())


# Without float64.


@settings(deadline=None)
@given(npst.arrays(np.float32, st.integers(1, 60), elements=FLOAT32))
def test_without_float64_counts_are_exact_and_sums_are_near(values):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_histogram, "has_float64", lambda device: False)
        check_tensor(torch.from_numpy(values), digits=5)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "float16", "bfloat16"])
@pytest.mark.usefixtures("narrow")
def test_without_float64_small_dtypes_are_counted(dtype):
    check_tensor((torch.randn(1000).abs() * 50).to(getattr(torch, dtype)), digits=5)


@pytest.mark.usefixtures("narrow")
def test_without_float64_a_million_values_sum_up():
    values = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0)) * 1e30
    vector = count_tensor(values)
    assert vector.dtype == torch.int32
    check_tally(tally_of(vector, len(values)), values.numpy(), digits=6)


@pytest.mark.usefixtures("narrow")
def test_without_float64_what_a_float32_does_not_hold_is_not_counted(monkeypatch):
    for dtype in (torch.int32, torch.int64, torch.float64):
        with pytest.raises(TypeError, match="wide enough"):
            count_tensor(torch.ones(3, dtype=dtype))
    monkeypatch.setattr(device_histogram, "_MAX_INT32", 2)
    with pytest.raises(TypeError, match="wide enough"):
        count_tensor(torch.ones(3))


# Nothing waits, and nothing is large.

WAITS = {
    *["_local_scalar_dense", "nonzero", "masked_select", "bincount", "unique_dim", "_unique2"],
    *["unique_consecutive", "equal", "repeat_interleave"],
}
"""Operations that need a result from the device to continue."""


def watched(values, *, largest):
    """Return a mode that checks each operation: it waits for nothing, and is small."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    given = values.untyped_storage().data_ptr()

    class Watched(TorchDispatchMode):
        operations = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            name = function._schema.name.partition("::")[2]
            assert name not in WAITS
            if name.startswith("index"):
                places = [leaf for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)]
                assert not any(place.dtype is torch.bool for place in places), "waits for a mask"
            if name in {"_to_copy", "copy_"}:
                assert not (kwargs or {}).get("device")
            made = function(*args, **(kwargs or {}))
            for leaf in tree_leaves(made):
                if isinstance(leaf, torch.Tensor):
                    shared = leaf.untyped_storage().data_ptr() == given
                    assert shared or leaf.numel() <= largest
            self.operations += 1
            return made

    return Watched()


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x.masked_select(x > 0),
        torch.nonzero,
        torch.unique,
        lambda x: torch.bincount(x.int()),
        lambda x: bool(x.any()),
        lambda x: x.repeat(11),
    ],
)
def test_what_waits_or_is_large_would_be_noticed(operation):
    values = torch.ones(10)
    with watched(values, largest=100), pytest.raises(AssertionError):
        operation(values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
def test_no_operation_waits_or_takes_more_memory_than_a_piece(monkeypatch, dtype):
    monkeypatch.setattr(device_histogram, "_PIECE", 1 << 17)
    values = torch.ones(2, 5, 1 << 17, dtype=dtype).transpose(0, 2)
    with watched(values, largest=1 << 17) as mode:
        count_tensor(values)
    assert mode.operations > 20


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8])
def test_no_operation_needs_a_number_to_go_on(monkeypatch, wide, dtype):
    """The meta device has no results: an operation that depends on one raises an error."""
    monkeypatch.setattr(device_histogram, "has_float64", lambda device: wide)
    vector = count_tensor(torch.empty(10_000_000, dtype=dtype, device="meta"))
    pieces = 3
    integers = len(default_edges()) - 1 + 7 * pieces
    assert vector.shape == (integers,)
    assert vector.dtype == (torch.int64 if wide else torch.int32)


@pytest.mark.parametrize(
    "context",
    [
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        torch.inference_mode,
        torch.no_grad,
    ],
)
def test_what_the_caller_has_switched_on_changes_nothing(context):
    values = torch.randn(1000, dtype=torch.bfloat16)
    with context():
        vector = count_tensor(values)
    check_tally(tally_of(vector, 1000), values.float().numpy())


def test_other_defaults_change_nothing():
    values = torch.randn(1000)
    try:
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True)
        check_tensor(values)
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_default_dtype(torch.float32)


# Through the writer, on a device that is the host in disguise.


class OnDevice(torch.Tensor):
    """A tensor on the host that claims to be elsewhere."""

    is_cpu = False

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return super().__torch_function__(function, types, args, kwargs)


@pytest.fixture
def on_device(monkeypatch):
    """``on_device(tensor)``: a tensor that claims not to be on the host."""
    monkeypatch.setattr(torch.cpu.Stream, "record_event", lambda stream: torch.cpu.Event())
    return lambda tensor: tensor.as_subclass(OnDevice)


@pytest.fixture
def logged(tmp_path, read_events, event_files):
    """``logged(*values, **options)``: the histograms of values, read by TensorBoard's reader."""

    def log(*values, **options):
        with Writer(tmp_path) as writer:
            for step, one in enumerate(values):
                writer.add_histogram("tag", one, step, **options)
            assert writer.flush()
        [path] = event_files(tmp_path)
        return [value.histo for event in read_events(path) for value in event.summary.value]

    return log


def test_a_device_array_is_logged_as_one_in_host_memory(on_device, logged):
    values = torch.randn(100_000)
    values[0] = math.nan
    counted, copied = logged(on_device(values), values)
    assert counted.bucket == copied.bucket
    assert counted.bucket_limit == copied.bucket_limit
    assert (counted.min, counted.max, counted.num) == (copied.min, copied.max, 99_999)
    assert counted.sum == pytest.approx(copied.sum, abs=1e-8)
    assert counted.sum_squares == pytest.approx(copied.sum_squares)


def test_what_is_counted_is_a_few_kilobytes(on_device):
    values = on_device(torch.randn(1_000_000))
    tally = maybe_tally(values)
    assert tally.size == 1_000_000
    assert tally.nbytes < 16_000
    values.zero_()
    assert tally.tally().max > 3, "what is changed later is not what was counted"


def test_small_arrays_other_bins_and_host_memory_travel(on_device, logged, monkeypatch):
    monkeypatch.setattr(device_histogram, "count_tensor", pytest.fail)
    assert maybe_tally(np.zeros(100_000)) is None
    assert maybe_tally(torch.zeros(100_000)) is None
    assert maybe_tally([torch.zeros(100_000)]) is None
    small, large = (on_device(torch.ones(size)) for size in (100, 100_000))
    assert maybe_tally(small) is None
    [histo] = logged(large, bins=2)
    assert list(histo.bucket) == [0, 0, 100_000]


@pytest.mark.parametrize("error", [NotImplementedError, torch.OutOfMemoryError, TypeError])
def test_what_a_device_cannot_count_travels(on_device, logged, monkeypatch, error):
    def cannot(tensor):
        raise error("cannot count")

    monkeypatch.setattr(device_histogram, "count_tensor", cannot)
    [histo] = logged(on_device(torch.ones(100_000)))
    assert histo.num == histo.sum == 100_000


def test_what_holds_no_real_numbers_is_refused_at_the_call(on_device, tmp_path):
    values = on_device(torch.zeros(100_000, dtype=torch.complex64))
    with Writer(tmp_path) as writer:
        with pytest.raises(TypeError, match=r"'tag': .*real numbers.*complex64"):
            writer.add_histogram("tag", values)
        with pytest.raises(TypeError, match=r"'tag': .*meta device"):
            writer.add_histogram("tag", torch.zeros(100_000, device="meta"))


def test_buckets_that_a_device_has_counted_are_merged(on_device, logged):
    values = torch.randn(100_000)
    counted, copied = logged(on_device(values), values, max_bins=9)
    assert counted.bucket == copied.bucket
    assert len(counted.bucket) == 10
    assert sum(counted.bucket) == 100_000


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.parametrize("coalesced", [True, False])
def test_zeros_that_a_sparse_tensor_does_not_store_are_counted(logged, coalesced):
    places = torch.arange(20_000)[None] % (20_000 if coalesced else 10_000)
    tensor = torch.sparse_coo_tensor(places, torch.full((20_000,), 2.0), (50_000,))
    if coalesced:
        tensor = tensor.coalesce()
    stored, value = (20_000, 2) if coalesced else (10_000, 4)
    for histo in logged(tensor):
        assert (histo.num, histo.min, histo.max, histo.sum) == (50_000, 0, value, 40_000)
        assert sorted(n for n in histo.bucket if n) == [stored, 50_000 - stored]


def test_zeros_besides_what_a_device_has_counted_are_added():
    tally = tally_of(count_tensor(torch.tensor([2.0, 3.0])), 2)
    histo = histogram_value("tag", tally, size=10)[0].histo
    assert (histo.num, histo.min, histo.max, histo.sum) == (10, 0, 3, 5)
    assert sum(histo.bucket) == 10


# JAX, whose operations are compiled: without float64 unless it is told to have it.


class TestJAX:
    @pytest.fixture(autouse=True)
    def _jax(self):
        self.jax = pytest.importorskip("jax")

    def check(self, values, digits=5):
        vector = self.jax.jit(count_jax)(self.jax.numpy.asarray(values))
        check_tally(tally_of(vector, values.size), values, digits)

    def test_floats_are_counted_as_in_host_memory(self):
        edges = default_edges()[1:-1].astype(np.float32)
        near = [np.nextafter(edges, np.float32(side)) for side in (-np.inf, np.inf)]
        random = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
        self.check(np.concatenate([edges, *near, random, np.float32(SPECIAL)]))
        self.check(np.full((3, 4), np.nan, np.float32))
        self.check(np.zeros((), np.float32))

    @pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "float16", "bfloat16"])
    def test_small_dtypes_are_counted_as_in_host_memory(self, dtype):
        random = np.abs(np.random.default_rng(0).standard_normal((30, 5)) * 50)
        self.check(random.astype(self.jax.numpy.dtype(dtype)))

    def test_with_float64_everything_is(self):
        edges = default_edges()[1:-1]
        near = [np.nextafter(edges, side) for side in (-np.inf, np.inf)]
        config = self.jax.config
        config.update("jax_enable_x64", True)
        try:
            self.check(np.concatenate([edges, *near, [1e300, -1e300, np.nan]]), digits=12)
            self.check(np.array([2**53 + 1, -(2**62), 5]), digits=12)
        finally:
            config.update("jax_enable_x64", False)

    @pytest.mark.parametrize("piece", [64, 100, 10_000])
    def test_pieces_add_up(self, monkeypatch, piece):
        monkeypatch.setattr(device_histogram, "_PIECE", piece)
        values = np.random.default_rng(0).standard_normal((20, 10)).astype(np.float32)
        values[3, 4:6] = np.nan, np.inf
        vector = count_jax(self.jax.numpy.asarray(values))
        check_tally(tally_of(vector, values.size), values, digits=5)

    def test_what_a_float32_does_not_hold_is_not_counted(self, monkeypatch):
        with pytest.raises(TypeError, match="wide enough"):
            count_jax(self.jax.numpy.arange(3))
        monkeypatch.setattr(device_histogram, "_MAX_INT32", 2)
        with pytest.raises(TypeError, match="wide enough"):
            count_jax(self.jax.numpy.ones(3))

    def test_on_the_host_numpy_counts(self):
        with self.jax.default_device(self.jax.devices("cpu")[0]):
            assert maybe_tally(self.jax.numpy.zeros(100_000)) is None

    def test_a_donated_array_was_counted_before(self, monkeypatch, logged):
        monkeypatch.setattr(device_histogram, "is_on_accelerator", lambda array: True)
        values = self.jax.numpy.arange(100_000.0).astype(np.float32)
        tally = maybe_tally(values)
        assert tally.nbytes < 16_000
        self.jax.jit(lambda x: x * 0, donate_argnums=0)(values).block_until_ready()
        assert values.is_deleted()
        assert tally.tally().max == 99_999
        [histo] = logged(self.jax.numpy.ones(100_000))
        assert histo.num == histo.sum == 100_000


def test_each_shard_of_a_jax_array_is_counted_where_it_is(run_script):
    pytest.importorskip("jax")
    done = run_script(
        """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
import jax, numpy as np
from sm_tblog.arrays import device_histogram

mesh = jax.sharding.Mesh(np.array(jax.devices("cpu")).reshape(2, 2), ("x", "y"))
device_histogram.is_on_accelerator = lambda array: True
values = np.arange(40_000, dtype=np.float32)
for spec, parts in ((("x", "y"),), 4), (("y",), 2), ((), 1):
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
    tally = device_histogram.maybe_tally(jax.device_put(values, spread))
    found = tally.tally()
    print(len(tally.vectors) == parts, tally.size, found.counts.sum(), found.min, found.max)
"""
    )
    assert done.stdout == "True 40000 40000 0.0 39999.0\n" * 3, done.stderr


# On a GPU.


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that PyTorch can use")
class TestGPU:
    @pytest.fixture(autouse=True)
    def _waiting_is_an_error(self):
        torch.cuda.set_sync_debug_mode("error")
        yield
        torch.cuda.set_sync_debug_mode("default")

    @pytest.mark.parametrize(
        "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool]
    )
    def test_a_gpu_counts_as_the_host_does(self, logged, dtype):
        generator = torch.Generator().manual_seed(0)
        values = (torch.randn(1_000_000, generator=generator) * 30).to(dtype)
        torch.cuda.set_sync_debug_mode("default")
        on_gpu = values.pin_memory().to("cuda", non_blocking=True)
        torch.cuda.set_sync_debug_mode("error")
        counted, copied = logged(on_gpu, values)
        assert counted.bucket == copied.bucket
        assert (counted.min, counted.max, counted.num) == (copied.min, copied.max, 1_000_000)
        assert counted.sum == pytest.approx(copied.sum)

    def test_what_travels_is_not_waited_for_either(self, logged):
        values = torch.ones(100_000, device="cuda")
        [histo] = logged(values, bins=3)
        assert histo.num == 100_000

    def test_what_is_changed_later_is_not_what_is_logged(self, tmp_path, read_events, event_files):
        values = torch.zeros(1_000_000, device="cuda")
        with Writer(tmp_path) as writer:
            for step in range(20):
                values.fill_(step)
                writer.add_histogram("counted", values, step)
                writer.add_histogram("travels", values[:1000], step)
            values.fill_(-1)
        [path] = event_files(tmp_path)
        for event in read_events(path)[1:]:
            for value in event.summary.value:
                assert value.histo.min == value.histo.max == event.step

    def test_jax_counts_as_the_host_does(self, logged):
        jax = pytest.importorskip("jax")
        if jax.default_backend() == "cpu":
            pytest.skip("needs a GPU that JAX can use")
        values = np.random.default_rng(0).standard_normal(1_000_000).astype(np.float32)
        counted, copied = logged(jax.numpy.asarray(values), values)
        assert counted.bucket == copied.bucket
        assert (counted.min, counted.max, counted.num) == (copied.min, copied.max, 1_000_000)
