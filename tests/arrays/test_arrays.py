"""Arrays of every library, dtype and layout: copied once, or refused by tag at the call."""

from __future__ import annotations

import array
import collections
import ctypes
import importlib.util
import os
import subprocess
import sys
import tracemalloc
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from sm_tblog import InvalidTypeError, InvalidValueError, Writer
from sm_tblog.arrays.convert import Deferred, as_number, check_kind, snapshot
from sm_tblog.arrays.sparse import stored_elements

MASKED = np.ma.masked_array([1, 2, 3], [0, 1, 0])


class OnlyDLPack:
    """An array of a library that NumPy does not know."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def __dlpack__(self, **options):
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


class OnlyInterface:
    """The interface of Pillow's images, for example."""

    def __init__(self, values):
        self.values = values
        self.__array_interface__ = values.__array_interface__


class OldArray:
    """An array-like from before NumPy 2: no ``copy`` argument, and ``__array__`` does not copy."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def __array__(self, dtype=None):
        return self.values


def resolve(values):
    """Return an array, waiting for it if it is deferred; check its announced shape and dtype."""
    if not isinstance(values, Deferred):
        return values
    found = values.array()
    assert (found.shape, found.ndim) == (values.shape, values.ndim)
    assert values.dtype is None or found.dtype == values.dtype
    return found


pytestmark = pytest.mark.filterwarnings(
    "ignore:Sparse:UserWarning",  # PyTorch's, when such a tensor is made
    "ignore:.*quantize:UserWarning",
)


# NumPy's, and what NumPy can read.


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.float32(2.5), 2.5),
        (np.array(2.5), 2.5),
        (np.zeros((0, 3)), np.zeros((0, 3))),
        (np.arange(6).reshape(2, 3)[:, ::-1], [[2, 1, 0], [5, 4, 3]]),
        (np.asfortranarray([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.broadcast_to(np.float32(1), (2, 2)), [[1, 1], [1, 1]]),
        (np.frombuffer(b"\1\2", np.uint8), [1, 2]),
        (np.array([True, False]), [True, False]),
        (np.array([1.5], np.longdouble), [1.5]),
        (np.array([Fraction(1, 2), Decimal(2), 3, None], object), [0.5, 2.0, 3.0, np.nan]),
        (MASKED, [1.0, np.nan, 3.0]),
        (MASKED[::2], [1, 3]),
        (np.ma.masked_array([1.5, 2.5], [1, 0], np.float32), [np.nan, 2.5]),
        (OnlyDLPack([1, 2]), [1, 2]),
        (OnlyInterface(np.array([1, 2])), [1, 2]),
        (OldArray([1, 2]), [1, 2]),
        (array.array("d", [1, 2]), [1, 2]),
        (memoryview(b"\1\2"), [1, 2]),
        (bytearray(b"\1\2"), [1, 2]),
        ((ctypes.c_float * 2)(1, 2), [1, 2]),
        (collections.deque([1, 2]), [1, 2]),
        ([1, 2.5, True], [1.0, 2.5, 1.0]),
        ([1.0, None], [1.0, np.nan]),
        ([2**70], [2.0**70]),
        ([], []),
        ([[1, 2], (3, 4)], [[1, 2], [3, 4]]),
        ([np.float32(1), np.float32(2)], [1, 2]),
        ([np.ones(2), np.zeros(2)], [[1, 1], [0, 0]]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_numpy_can_read_is_an_array(values, expected):
    np.testing.assert_array_equal(snapshot(values, "tag"), expected)


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i2", "<u4", "<f2"])
def test_an_array_has_native_byte_order(dtype):
    found = snapshot(np.arange(5).astype(dtype), "tag")
    assert found.dtype.isnative
    assert found.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "wrap", [np.asarray, OnlyDLPack, OnlyInterface, OldArray, np.ma.masked_array, lambda x: [x, x]]
)
def test_later_changes_reach_no_copy(wrap):
    values = np.zeros(4, np.float32)
    copy = snapshot(wrap(values), "tag")
    values[:] = 1
    assert not copy.any()


def peak_of(function):
    """Return the peak memory that NumPy allocated during a function call."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "prepare",
    [
        np.asarray,
        lambda x: x.astype(">f4"),
        lambda x: np.repeat(x, 2)[::2],
        lambda x: np.asfortranarray(x.reshape(1000, 1000)),
        OnlyDLPack,
        OnlyInterface,
        OldArray,
        lambda x: list(x.reshape(4, -1)),
        lambda x: pytest.importorskip("torch").from_numpy(x.reshape(1000, 1000)).T,
    ],
)
def test_an_array_is_copied_once(prepare):
    values = np.ones(1_000_000, np.float32)
    prepared = prepare(values)
    assert values.nbytes <= peak_of(lambda: snapshot(prepared, "tag")) < 1.1 * values.nbytes


def test_an_array_that_cannot_be_written_to_is_copied_too():
    values = np.zeros(3)
    frozen = values[:]
    frozen.flags.writeable = False
    copy = snapshot(frozen, "tag")
    values[:] = 1
    assert not copy.any()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ("text", r"real numbers, got dtype <U4 and shape \(\); use add_text"),
        (b"bytes", "got dtype |S5"),
        (["1.5"], "got dtype <U3"),
        (np.array(["1.5", 2], object), r"got dtype object and shape \(2,\)"),
        (np.zeros(2, complex), "got dtype complex128 .* take its real part or its abs"),
        (np.zeros(2, "M8[s]"), "got dtype datetime64"),
        (np.zeros(2, "m8[s]"), "got dtype timedelta64"),
        (np.zeros(2, [("x", "f4")]), r"got dtype .*'x'.* take one of its fields"),
        (np.zeros(2, "V4"), "got dtype |V4"),
        ([10**400], "got dtype object"),
        ((i for i in range(3)), "from generator: it is not an array; convert .* to a list"),
        (map(int, "12"), "from map: .* to a list"),
        ({1, 2}, "from set: .* to a list"),
        ({1: 2}.values(), "from dict_values: .* to a list"),
        (None, "from NoneType"),
        (object(), "from object"),
        ([[1], [2, 3]], "from list"),
        ([np.ones(2), np.ones(3)], "from list: all input arrays must have the same shape"),
    ],
    ids=str,
)
def test_what_is_no_array_of_numbers_is_refused_by_tag(tmp_path, values, says):
    with pytest.raises(InvalidTypeError, match=f"^'my/tag': .*{says}"):
        snapshot(values, "my/tag")
    with Writer(tmp_path) as writer, pytest.raises(InvalidTypeError, match="'my/tag'"):
        writer.add_histogram("my/tag", values)


def test_other_kinds_of_numbers_are_taken_where_they_are_wanted():
    assert snapshot([1j], "tag", kinds="biufc").tolist() == [1j]
    assert snapshot(["a"], "tag", kinds="biufU").tolist() == ["a"]
    assert check_kind(np.array([1j]), "tag", "c").tolist() == [1j]
    with pytest.raises(InvalidTypeError, match="'tag': expected an array of dtype kinds 'U'"):
        snapshot([1], "tag", kinds="U")


@pytest.mark.parametrize("masked", [np.ma.masked, MASKED[1:2], MASKED[1]])
def test_a_masked_number_is_nan(masked):
    assert np.isnan(as_number(masked, "tag"))


# PyTorch.


class TestTorch:
    @pytest.fixture(autouse=True)
    def _torch(self):
        self.torch = pytest.importorskip("torch")

    @pytest.mark.parametrize(
        "dtype",
        [
            *["bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"],
            *["float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2"],
            *["float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"],
        ],
    )
    def test_every_dtype_is_copied_without_loss(self, dtype):
        tensor = self.torch.tensor([1.0, 1.0, 1.0]).to(getattr(self.torch, dtype))
        copy = snapshot(tensor, "tag")
        assert copy.dtype.kind in "biuf"
        tensor.copy_(self.torch.tensor([2.0, 2.0, 2.0]))
        assert copy.tolist() == [1, 1, 1]

    def layouts(self):
        torch = self.torch
        whole = torch.arange(24.0).reshape(2, 3, 4)
        yield whole
        yield whole.transpose(0, 2)
        yield whole[:, ::2]
        yield whole[0].expand(5, 3, 4)
        yield torch.nn.Parameter(whole)
        yield (whole.requires_grad_(requires_grad=True) * 2)[0]
        yield torch.complex(whole.detach(), whole.detach()).conj().imag  # negated when read
        yield whole.detach().share_memory_()

    def test_every_layout_is_copied(self):
        for tensor in self.layouts():
            expected = tensor.detach().tolist()
            copy = snapshot(tensor, "tag")
            assert copy.tolist() == expected
            assert not np.shares_memory(copy, tensor.detach().resolve_neg().numpy())

    @pytest.mark.parametrize("layout", ["coo", "csr", "csc", "bsr", "bsc"])
    def test_sparse_tensors_are_made_dense(self, layout):
        tensor = self.torch.eye(4)
        block = ((2, 2),) if layout.startswith("bs") else ()
        make = tensor.to_sparse if layout == "coo" else getattr(tensor, f"to_sparse_{layout}")
        assert snapshot(make(*block), "tag").tolist() == tensor.tolist()

    def test_quantized_tensors_are_what_they_stand_for(self):
        tensor = self.torch.quantize_per_tensor(self.torch.arange(4.0), 0.5, 0, self.torch.qint8)
        assert snapshot(tensor, "tag").tolist() == [0, 1, 2, 3]
        assert as_number(tensor[3], "tag") == 3

    def test_nested_lists_of_tensors_are_stacked(self):
        one = self.torch.ones(2, requires_grad=True)
        values = [[one, one * 0], (one, one)]
        assert snapshot(values, "tag").tolist() == [[[1, 1], [0, 0]], [[1, 1], [1, 1]]]
        assert snapshot([1.0, one[0].detach()], "tag").tolist() == [1, 1]

    def test_tensors_without_numbers_are_refused(self):
        meta = self.torch.zeros(1, device="meta")
        lazy = self.torch.nn.LazyLinear(3).weight
        complex_ = self.torch.zeros(1, dtype=self.torch.complex64)
        for tensor, says in [
            (meta, "dtype torch.float32 and shape .* meta device"),
            (lazy, "UninitializedParameter"),
            (complex_, "complex"),
        ]:
            for read in (snapshot, as_number):
                with pytest.raises(InvalidTypeError, match=f"'my/tag'.*{says}"):
                    read(tensor, "my/tag")

    def test_a_tensor_that_other_processes_share_is_refused(self):
        torch = self.torch

        class Distributed(torch.Tensor):
            def to_local(self):
                return self

        with pytest.raises(InvalidTypeError, match=r"'my/tag'.*log its to_local\(\)"):
            snapshot(torch.zeros(2).as_subclass(Distributed), "my/tag")

    def test_a_tensor_that_is_being_transformed_is_refused(self):
        torch = self.torch
        refused = []

        def logged(row):
            for read in (snapshot, as_number):
                with pytest.raises(InvalidTypeError, match=r"'my/tag'.*vmap") as caught:
                    read(row if read is snapshot else row.sum(), "my/tag")
                refused.append(caught.value)
            return row.sum()

        torch.vmap(logged)(torch.ones(3, 2))
        assert len(refused) == 2

        def differentiated(row):
            with pytest.raises(InvalidTypeError, match=r"'my/tag'.*log outside vmap and grad"):
                snapshot(row, "my/tag")
            return row.sum()

        torch.func.grad(differentiated)(torch.ones(2))

    def test_a_fake_tensor_is_refused(self):
        fake_tensor = pytest.importorskip("torch._subclasses.fake_tensor")
        with fake_tensor.FakeTensorMode(), pytest.raises(InvalidTypeError, match="'my/tag'"):
            snapshot(self.torch.ones(3), "my/tag")


# JAX.


class TestJAX:
    @pytest.fixture(autouse=True)
    def _jax(self):
        self.jax = pytest.importorskip("jax")
        self.np = pytest.importorskip("jax.numpy")

    @pytest.mark.parametrize(
        "dtype",
        ["bool", "int4", "int8", "uint16", "int32", "float16", "bfloat16", "float32"],
    )
    def test_every_dtype_is_read(self, dtype):
        values = self.np.ones(3, dtype)
        assert resolve(snapshot(values, "tag")).tolist() == [1, 1, 1]
        assert float(as_number(values[0], "tag")) == 1

    def test_an_array_in_host_memory_is_not_copied(self):
        values = self.np.arange(1000.0).block_until_ready()
        assert np.shares_memory(snapshot(values, "tag"), np.asarray(values))

    def test_a_donated_array_stays(self):
        consume = self.jax.jit(lambda x: x * 0 + 7, donate_argnums=0)
        values = self.np.arange(1000.0).block_until_ready()
        copy = snapshot(values, "tag")
        consume(values).block_until_ready()
        assert copy[:3].tolist() == [0, 1, 2]

    def test_an_array_that_is_still_computed_is_copied_where_it_is(self, monkeypatch):
        monkeypatch.setattr("sm_tblog.arrays.deferred._is_on_host", lambda array: False)
        consume = self.jax.jit(lambda x: x * 0 + 7, donate_argnums=0)
        values = self.np.arange(1000.0)
        deferred = snapshot(values, "tag")
        consume(values).block_until_ready()
        assert values.is_deleted()
        assert resolve(deferred)[:3].tolist() == [0, 1, 2]

    def test_lists_of_arrays_are_stacked(self):
        values = [self.np.ones(2), self.np.zeros(2)]
        assert resolve(snapshot(values, "tag")).tolist() == [[1, 1], [0, 0]]

    def test_traced_values_are_refused_and_told_where_to_go(self):
        refused = []

        @self.jax.jit
        def logged(x):
            for read in (
                lambda: snapshot(x, "my/tag"),
                lambda: snapshot([x, x], "my/tag"),
                lambda: as_number(x[0], "my/tag"),
                lambda: stored_elements(x, "my/tag") and snapshot(x, "my/tag"),
            ):
                with pytest.raises(InvalidTypeError, match=r"'my/tag'.*log outside jit") as caught:
                    read()
                refused.append(caught.value)
            return x

        logged(self.np.ones(2))
        assert len(refused) == 4

    def test_keys_of_random_numbers_are_refused(self):
        with pytest.raises(InvalidTypeError, match="'my/tag'"):
            snapshot(self.jax.random.key(0), "my/tag")

    def test_a_deleted_array_is_refused(self):
        values = self.np.ones(3)
        values.delete()
        with pytest.raises(InvalidTypeError, match=r"'my/tag'.*deleted"):
            snapshot(values, "my/tag")


def test_sharded_arrays_are_read_whole(run_script):
    pytest.importorskip("jax")
    done = run_script(
        """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
import jax, numpy as np
from sm_tblog.arrays.convert import snapshot

mesh = jax.sharding.Mesh(np.array(jax.devices()), ("x",))
spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
values = jax.device_put(np.arange(8.0), spread)
assert len(values.sharding.device_set) == 4
print(np.asarray(snapshot(values, "tag")).tolist())
"""
    )
    assert done.stdout == "[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]\n", done.stderr


class Spread:
    """A JAX array of which other processes hold parts."""

    shape = (4,)
    size = 4
    dtype = np.dtype(np.float32)
    nbytes = 16
    is_fully_addressable = False

    def __init__(self, *, replicated):
        self.is_fully_replicated = replicated

    def addressable_data(self, index):
        whole = Spread(replicated=True)
        whole.is_fully_addressable = True
        return whole

    def copy_to_host_async(self):
        assert self.is_fully_addressable

    def __array__(self, dtype=None, copy=None):
        return np.arange(4, dtype=np.float32)


def test_an_array_spread_over_processes_is_refused_but_for_one_that_each_holds():
    assert resolve(snapshot(Spread(replicated=True), "tag")).tolist() == [0, 1, 2, 3]
    with pytest.raises(InvalidTypeError, match=r"'my/tag'.*addressable_shards"):
        snapshot(Spread(replicated=False), "my/tag")


# Keras, TensorFlow, Flax: variables, and tensors that cannot change.

KERAS = """
import keras, numpy as np, sys
from sm_tblog import InvalidTypeError
from sm_tblog.arrays.convert import as_number, snapshot
from sm_tblog.arrays.sparse import stored_elements

assert keras.backend.backend() == sys.argv[1]
for dtype in ("float32", "bfloat16"):
    variable = keras.Variable([1.0, 2.0], dtype=dtype)
    copy = snapshot(stored_elements(variable, "tag").elements, "tag")
    variable.assign([3.0, 4.0])
    assert np.asarray(copy).tolist() == [1, 2], copy
layer = keras.layers.Dense(3)
layer.build((None, 2))
assert snapshot(layer.kernel, "tag").shape == (2, 3)
assert float(as_number(keras.Variable(2.5), "tag")) == 2.5
try:
    snapshot(keras.KerasTensor((2,)), "my/tag")
except InvalidTypeError as error:
    print(str(error)[:34])
"""


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_variables_of_keras_are_what_they_hold(script, backend):
    for package in ("keras", backend):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    command = [sys.executable, "-W", "ignore", *script(KERAS, backend)[1:]]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "'my/tag': cannot read numbers from\n", done.stderr


class TensorFlowDType:
    def __init__(self, as_numpy_dtype):
        self.as_numpy_dtype = as_numpy_dtype


class EagerTensor:
    """The interface of TensorFlow's tensors: no assignment, and their own dtype and shape."""

    def __init__(self, values, dtype=np.float32):
        self._values = np.array(values, dtype)
        self.dtype = TensorFlowDType(dtype)
        self.reads = 0

    @property
    def shape(self):
        return list(self._values.shape)  # a TensorShape is a sequence, and no tuple

    def numpy(self):
        return self._values.copy()

    def __array__(self, dtype=None):
        self.reads += 1
        return self._values

    def __float__(self):
        raise AssertionError("the caller must not wait for the device")

    __len__ = __index__ = __float__


class Variable:
    """The interface of TensorFlow's variables, whose ``value`` is a method."""

    def __init__(self, values):
        self._values = np.array(values, np.float32)

    def value(self):
        return EagerTensor(self._values)

    def assign(self, values):
        self._values = np.array(values, np.float32)

    def numpy(self):
        raise AssertionError("the caller must not wait for the device")

    __array__ = numpy


class RaggedTensor:
    flat_values = EagerTensor([1, 2, 3])


class IndexedSlices:
    dense_shape = None

    def __init__(self, values, indices, shape=None):
        self.values, self.indices = EagerTensor(values), EagerTensor(indices, np.int32)
        if shape is not None:
            self.shape = shape
            self.dense_shape = EagerTensor(shape, np.int32)


class FlaxParam:
    def __init__(self, values):
        self.values = values

    def __jax_array__(self):
        return self.values


def test_a_tensor_that_cannot_change_is_read_by_the_worker():
    tensor = EagerTensor([[1, 2]])
    deferred = snapshot(tensor, "tag")
    assert (tensor.reads, deferred.shape, deferred.dtype, deferred.nbytes) == (0, (1, 2), "f4", 8)
    assert resolve(deferred).tolist() == [[1, 2]]
    assert float(as_number(EagerTensor(2.5), "tag")) == 2.5
    with pytest.raises(InvalidValueError, match="one element"):
        as_number(tensor, "tag")
    for tensor in (EagerTensor(["a"], object), EagerTensor([1], np.complex64)):
        for read in (snapshot, as_number):
            with pytest.raises(InvalidTypeError, match="'my/tag'"):
                read(tensor, "my/tag")


def test_a_variable_is_what_it_held():
    for variable in (Variable([1, 2]), FlaxParam(Variable([1, 2]))):
        deferred = snapshot(variable, "tag")
        getattr(variable, "values", variable).assign([3, 4])
        assert resolve(deferred).tolist() == [1, 2]
    assert float(as_number(Variable(2.5), "tag")) == 2.5


def test_ragged_and_sparse_tensors_of_tensorflow_are_what_they_store():
    elements, size = stored_elements(RaggedTensor(), "tag")
    assert (resolve(snapshot(elements, "tag")).tolist(), size) == ([1, 2, 3], None)
    slices = IndexedSlices([[1, 1], [2, 2], [3, 3]], [0, 2, 0], [4, 2])
    elements, size = stored_elements(slices, "tag")
    assert (elements.array().tolist(), size) == ([[4, 4], [2, 2]], 8)
    elements, size = stored_elements(IndexedSlices([[1, 1]], [0]), "tag")
    assert (elements.array().tolist(), size) == ([[1, 1]], None)


# pandas, SciPy, and what PyTorch has of the kind.


def test_series_and_frames_of_pandas():
    pd = pytest.importorskip("pandas")
    for values, expected in [
        (pd.Series([1, 2]), [1, 2]),
        (pd.Series([1, None], dtype="Int64"), [1, np.nan]),
        (pd.Series([True, None], dtype="boolean"), [1, np.nan]),
        (pd.DataFrame({"a": [1, 2], "b": [0.5, 1]}), [[1, 0.5], [2, 1]]),
        (pd.Index([1, 2]), [1, 2]),
    ]:
        np.testing.assert_array_equal(snapshot(values, "tag"), expected)
    for values in (pd.Series(["1", "2"]), pd.Series(["a"], dtype="category")):
        with pytest.raises(InvalidTypeError, match="'my/tag'"):
            snapshot(values, "my/tag")


@pytest.mark.parametrize("layout", ["csr", "csc", "coo", "dok", "lil", "dia", "bsr"])
@pytest.mark.parametrize("kind", ["array", "matrix"])
def test_sparse_arrays_of_scipy(layout, kind):
    sparse = pytest.importorskip("scipy.sparse")
    values = getattr(sparse, f"{layout}_{kind}")(np.eye(4) * 3)
    assert snapshot(values, "tag").tolist() == (np.eye(4) * 3).tolist()
    elements, size = stored_elements(values, "tag")
    stored = resolve(snapshot(elements, "tag")).ravel()
    assert (sorted(stored[stored != 0].tolist()), size) == ([3, 3, 3, 3], 16)


def test_elements_stored_in_parts_are_added_up():
    sparse = pytest.importorskip("scipy.sparse")
    torch = pytest.importorskip("torch")
    places = [[0, 2, 0], [1, 1, 1]]
    expected = [[3.0], [4.0]]
    coo = sparse.coo_matrix(([1.0, 4.0, 2.0], places), (3, 3))
    tensor = torch.sparse_coo_tensor(places, [[1.0], [4.0], [2.0]], (3, 3, 1))
    for values in (coo, tensor, tensor.coalesce()):
        elements, size = stored_elements(values, "tag")
        found = snapshot(elements, "tag")
        found = found.array() if isinstance(found, Deferred) else found
        assert (found.reshape(-1, 1).tolist(), size) == (expected, 9)
    elements, size = stored_elements(IndexedSlices(np.zeros((0, 2)), [], [4, 2]), "tag")
    assert (elements.array().shape, size) == ((0, 2), 8)


def test_elements_of_a_sparse_tensor_are_copied():
    torch = pytest.importorskip("torch")
    values = torch.sparse_coo_tensor([[0, 0]], torch.tensor([1.0, 2.0]), (3,))
    deferred = snapshot(stored_elements(values, "tag").elements, "tag")
    values._values().zero_()
    assert deferred.array().tolist() == [3]


def test_nested_tensors_are_what_they_store():
    torch = pytest.importorskip("torch")
    rows = [torch.ones(2), torch.zeros(3)]
    ragged = torch.nested.nested_tensor(rows, layout=torch.jagged)
    elements, size = stored_elements(ragged, "tag")
    assert (snapshot(elements, "tag").tolist(), size) == ([1, 1, 0, 0, 0], None)
    with pytest.raises(InvalidTypeError, match="'my/tag'"):
        snapshot(ragged, "my/tag")


def test_a_list_that_contains_itself_is_refused():
    holds_itself = []
    holds_itself += [holds_itself, 1.0]
    deep = [1.0]
    for _ in range(70):
        deep = [deep]
    for values in (holds_itself, deep):
        with pytest.raises(InvalidTypeError, match="does it contain itself"):
            snapshot(values, "tag")


def test_a_variable_that_returns_itself_is_no_endless_loop():
    class Variable:
        assign = None

        @property
        def value(self):
            return self

    with pytest.raises(InvalidTypeError):
        as_number(Variable(), "tag")
