"""Builders: numbers and arrays of any library, histograms, texts, layouts."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from sm_tblog import InvalidTypeError, InvalidValueError
from sm_tblog.arrays.convert import Deferred, as_number, as_step, snapshot
from sm_tblog.summary.histogram import (
    check_bins,
    count,
    default_edges,
    histogram_value,
    raw_histogram_value,
)
from sm_tblog.summary.layout import layout_value
from sm_tblog.summary.text import text_value


class Index:
    def __index__(self):
        return 7


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.5, 1.5),
        (3, 3.0),
        (True, 1.0),
        (2**80, 2.0**80),
        (np.float16(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.int8(-3), -3.0),
        (np.uint64(2**63), 2.0**63),
        (np.bool_(True), 1.0),
        (np.array(2.5), 2.5),
        (np.array([2.5]), 2.5),
        (np.array([[[4]]], np.uint8), 4.0),
        (Decimal("0.1"), 0.1),
        (Fraction(1, 4), 0.25),
        (Index(), 7.0),
    ],
)
def test_anything_like_a_number_is_one(value, expected):
    number = as_number(value, "tag")
    assert type(number) is float
    assert number == expected


@pytest.mark.parametrize("value", [float("nan"), np.float32("nan"), Decimal("NaN")])
def test_nan_is_a_number(value):
    assert math.isnan(as_number(value, "tag"))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("0.5", r"'my/tag'.*got str '0.5'; use add_text"),
        (b"1", "got bytes"),
        (None, "got NoneType"),
        ([1.0], "got list"),
        (1j, "got complex"),
        (np.complex64(1), "'my/tag'.*complex"),
        (np.array(["a"]), "'my/tag'.*'a'; use add_text"),
        (np.datetime64("2020-01-01"), "'my/tag'"),
        (object(), "got object"),
    ],
)
def test_what_is_no_number_is_refused_by_tag(value, says):
    with pytest.raises(InvalidTypeError, match=says):
        as_number(value, "my/tag")


@pytest.mark.parametrize("value", [np.zeros(2), np.zeros((0, 3))])
def test_more_or_fewer_numbers_than_one_are_refused_with_their_shape(value):
    with pytest.raises(InvalidValueError, match=rf"'my/tag'.*\({value.shape[0]},"):
        as_number(value, "my/tag")


def test_a_number_beyond_float64_is_refused():
    with pytest.raises(InvalidValueError, match=r"'my/tag'.*too large"):
        as_number(10**400, "my/tag")


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        *[(3, 3), (np.int32(3), 3), (np.uint8(3), 3), (True, 1), (3.0, 3), (3.9, 3), (-2.5, -2)],
        *[(np.array(5), 5), (np.float32(5), 5), (Index(), 7), (-(2**63), -(2**63))],
        *[(np.array(5.9), 5), (np.array([5]), 5), (np.bool_(1), 1), (Fraction(11, 2), 5)],
    ],
)
def test_a_step_is_any_integer_and_floats_are_cut(step, expected):
    number = as_step(step, "tag")
    assert type(number) is int
    assert number == expected


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("three", InvalidTypeError),
        ([3], InvalidTypeError),
        (2**63, InvalidValueError),
        (float("nan"), InvalidValueError),
        (float("inf"), InvalidValueError),
        (np.arange(2), InvalidValueError),
    ],
)
def test_a_bad_step_is_refused_by_tag(step, error):
    with pytest.raises(error, match="'my/tag'"):
        as_step(step, "my/tag")


class DeviceArray:
    """The interface of a JAX array."""

    def __init__(self, value, failure=None):
        self._value = np.asarray(value)
        self._failure = failure
        self.shape = self._value.shape
        self.nbytes = self._value.nbytes
        self.copies = 0
        self.reads = 0

    def copy_to_host_async(self):
        self.copies += 1

    def __array__(self, dtype=None, copy=None):
        self.reads += 1
        if self._failure:
            raise self._failure
        return self._value

    def __float__(self):
        raise AssertionError("the caller must not wait for the device")


def test_a_number_on_a_device_is_copied_now_and_read_later():
    value = DeviceArray(0.5)
    deferred = as_number(value, "tag")
    assert isinstance(deferred, Deferred)
    assert (value.copies, value.reads) == (1, 0)
    assert float(deferred) == 0.5


def test_an_array_on_a_device_is_copied_now_and_read_later():
    value = DeviceArray([[1.0, 2.0]])
    deferred = snapshot(value, "tag")
    assert (value.copies, value.reads, deferred.nbytes) == (1, 0, 16)
    assert deferred.array().tolist() == [[1.0, 2.0]]


class CudaArray:
    """The interface of CuPy's arrays."""

    __cuda_array_interface__ = {}  # noqa: RUF012 - the protocol's name and type
    shape = (1,)
    nbytes = 8

    def __init__(self, value):
        self.value = value

    def copy(self):
        return CudaArray(self.value)

    def get(self):
        return np.array([self.value])


def test_a_cuda_array_is_copied_on_its_device():
    array = CudaArray(3.0)
    deferred = as_number(array, "tag")
    array.value = 4.0
    assert float(deferred) == 3.0


def test_a_snapshot_is_not_reached_by_later_changes():
    array = np.zeros(3, np.float32)
    copy = snapshot(array, "tag")
    array[:] = 1
    assert copy.tolist() == [0, 0, 0]
    assert copy.dtype == np.float32


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 3], [1, 2, 3]),
        (range(3), [0, 1, 2]),
        ([[True], [False]], [[True], [False]]),
        ([Fraction(1, 2), Decimal(2)], [0.5, 2.0]),
        (np.arange(4)[::2], [0, 2]),
    ],
)
def test_anything_like_an_array_is_one(values, expected):
    assert snapshot(values, "tag").tolist() == expected


@pytest.mark.parametrize("values", ["text", ["a"], [1j], [[1], [2, 3]], object()])
def test_what_is_no_array_of_numbers_is_refused_by_tag(values):
    with pytest.raises(InvalidTypeError, match="'my/tag'"):
        snapshot(values, "my/tag")


class TestTorch:
    @pytest.fixture(autouse=True)
    def _torch(self):
        self.torch = pytest.importorskip("torch")

    @pytest.mark.parametrize(
        "dtype",
        ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int8"],
    )
    def test_tensors_of_any_dtype_are_numbers_and_arrays(self, dtype):
        tensor = self.torch.tensor([2.0]).to(getattr(self.torch, dtype))
        assert as_number(tensor, "tag") == 2.0
        assert snapshot(tensor, "tag").tolist() == [2.0]
        assert snapshot([tensor[0], tensor[0]], "tag").tolist() == [2.0, 2.0]

    def test_tensors_that_require_gradients_or_are_sparse(self):
        weight = self.torch.nn.Parameter(self.torch.eye(2))
        assert as_number(weight.sum(), "tag") == 2.0
        assert snapshot(weight, "tag").tolist() == [[1, 0], [0, 1]]
        assert snapshot(weight.detach().to_sparse(), "tag").tolist() == [[1, 0], [0, 1]]

    def test_a_snapshot_of_a_tensor_is_a_copy(self):
        tensor = self.torch.zeros(3)
        copy = snapshot(tensor, "tag")
        tensor += 1
        assert copy.tolist() == [0, 0, 0]

    def test_a_tensor_without_data_is_refused_when_read(self):
        with pytest.raises(Exception, match=r"(?i)meta"):
            float(as_number(self.torch.zeros((), device="meta"), "tag"))

    @pytest.mark.parametrize("step", [5, 5.9, [5], [5.9]])
    def test_a_step_may_be_a_tensor(self, step):
        assert as_step(self.torch.tensor(step), "tag") == 5


def test_bfloat16_of_ml_dtypes():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = np.array([1.5, 2.0]).astype(ml_dtypes.bfloat16)
    assert as_number(array[0], "tag") == 1.5
    assert count(snapshot(array, "tag")).num == 2


# Histograms.


def check_histogram(values):
    """Compare with NumPy's histogram over the same edges."""
    exact = values.astype(np.float64).ravel()
    finite = exact[np.isfinite(exact)]
    histogram = count(values)
    assert histogram.num == len(finite)
    assert histogram.nan == np.isnan(exact).sum()
    assert histogram.inf == np.isinf(exact).sum()
    if not len(finite):
        assert len(histogram.limits) == 0
        return
    edges = default_edges()
    expected, _ = np.histogram(finite, edges)
    found = dict(zip(histogram.limits.tolist(), histogram.counts.tolist(), strict=True))
    nonzero = {e: int(n) for e, n in zip(edges[1:], expected, strict=True) if n}
    assert {limit: n for limit, n in found.items() if n} == nonzero
    assert (histogram.min, histogram.max) == (finite.min(), finite.max())
    with np.errstate(over="ignore"):
        assert histogram.sum == pytest.approx(finite.sum(), nan_ok=True)
        assert histogram.sum_squares == pytest.approx(np.square(finite).sum())


FLOAT32_MAX = float(np.finfo(np.float32).max)
FLOATS = (
    st.floats(width=32, allow_subnormal=False)
    | st.sampled_from(np.float32(default_edges()[1:-1]).tolist())
    | st.sampled_from([0.0, -0.0, FLOAT32_MAX, -FLOAT32_MAX])
)


@given(npst.arrays(np.float32, st.integers(0, 60), elements=FLOATS))
def test_histograms_of_float32_are_numpys(values):
    check_histogram(values)


@given(npst.arrays(np.float64, st.integers(0, 60), elements=st.floats() | FLOATS))
def test_histograms_of_float64_are_numpys(values):
    edges = default_edges()[1:-1]
    check_histogram(values)
    check_histogram(np.concatenate([values, np.nextafter(edges[::40], 0), edges[::37]]))


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i4", "i8", "f2", "f4", "f8", ">f4", ">f8"])
def test_histograms_of_every_dtype_are_numpys(dtype):
    values = (np.random.default_rng(0).standard_normal((30, 7, 5)) * 50).astype(dtype)
    check_histogram(values)
    check_histogram(values[::2, ::-1])
    check_histogram(np.zeros(5, dtype))
    check_histogram(np.ones(0, dtype))


def test_histograms_of_numbers_next_to_zero():
    # Written as bits: a library built for speed may have the processor take them for zero.
    bits = np.array([0, 1, 0x7FFFFF, 0x80000000, 0x80000001, 0x807FFFFF], np.uint32)
    for values in (bits.view(np.float32), bits.view(np.float32).astype(np.float64)):
        histogram = count(values)
        limits = dict(zip(histogram.limits.tolist(), histogram.counts.tolist(), strict=True))
        smallest = default_edges()[default_edges() > 0][0]
        assert limits[smallest] + limits[0.0] == sum(limits.values()) == 6
        assert limits[smallest] >= 4


def test_histograms_of_more_values_than_one_chunk(monkeypatch):
    monkeypatch.setattr("sm_tblog.summary.histogram._CHUNK", 64)
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    values[[5, 500, 501]] = np.nan, np.inf, -np.inf
    values[64:128] = np.nan
    check_histogram(values)


def test_the_default_edges_are_tensorboards_but_for_rounding():
    edges = default_edges()
    positive = edges[(edges > 0) & (edges < 1e300)]
    assert positive == pytest.approx(1e-12 * 1.1 ** np.arange(len(positive)), rel=0.004)
    assert positive[-1] >= 1e20
    assert (np.diff(edges) > 0).all()
    assert (edges == -edges[::-1]).all()


def test_a_histogram_names_what_it_leaves_out():
    values = np.array([1.0, np.nan, np.inf, -np.inf, np.nan])
    for bins in ("tensorflow", 3):
        message, warning = histogram_value("h", values, bins)
        assert message.histo.num == 1
        assert warning == "the histogram leaves out 2 NaN and 2 infinite of 5 values"


@pytest.mark.parametrize("bins", ["auto", "fd", "sturges", 7, [0.0, 0.5, 1.0]])
def test_histograms_with_numpys_bins_are_numpys(bins):
    values = np.random.default_rng(0).random(500)
    message, warning = histogram_value("h", values, bins)
    counts, edges = np.histogram(values, bins)
    assert list(message.histo.bucket) == [0, *counts]
    assert list(message.histo.bucket_limit) == list(edges)
    assert warning == ""


@pytest.mark.parametrize("bins", ["no such", -1, [3.0, 1.0]])
def test_bins_that_numpy_cannot_make_are_refused(bins):
    with pytest.raises(InvalidValueError, match="'h': invalid bins"):
        check_bins(bins, "h")


@given(st.integers(1, 40), st.integers(1, 50))
def test_at_most_so_many_bins_that_hold_as_much(bins, max_bins):
    values = np.random.default_rng(0).random(200)
    message, _ = histogram_value("h", values, bins, max_bins)
    assert len(message.histo.bucket) - 1 <= max_bins
    assert sum(message.histo.bucket) == 200
    edges = np.array(message.histo.bucket_limit)
    counts, _ = np.histogram(values, edges)
    assert counts.tolist() == list(message.histo.bucket)[1:]


def test_a_raw_histogram_is_taken_as_it_is():
    limits, counts = np.array([1.0, 2.0]), np.array([3, 4])
    histo = raw_histogram_value("h", limits, counts, 0.5, 1.5, 7, 6.0, 9.0).histo
    assert (histo.min, histo.max, histo.num, histo.sum, histo.sum_squares) == (0.5, 1.5, 7, 6, 9)
    assert list(histo.bucket_limit) == [1, 2]
    assert list(histo.bucket) == [3, 4]


# Texts and layouts.


@pytest.mark.parametrize(
    ("text", "shape", "strings"),
    [
        ("**x**", [], [b"**x**"]),
        ("", [], [b""]),
        ("\udcff", [], [b"?"]),
        (("a", "b"), [2], [b"a", b"b"]),
        ((("a", 1), ("b", 2.5)), [2, 2], [b"a", b"1", b"b", b"2.5"]),
    ],
)
def test_texts(text, shape, strings):
    value = text_value("note", text)
    assert value.tag == "note"
    assert value.metadata.plugin_data.plugin_name == "text"
    assert [dim.size for dim in value.tensor.tensor_shape.dim] == shape
    assert list(value.tensor.string_val) == strings


def test_layouts_are_tensorboards():
    layout_pb2 = pytest.importorskip("tensorboard.plugins.custom_scalar.layout_pb2")
    charts = [
        ("loss", "loss/all", "Curves", ("loss/all/a", "loss/all/b(c)")),
        ("acc", "acc", "Curves", ("acc/x",)),
    ]
    value, warning = layout_value("custom_scalars__config__", charts)
    assert warning == "TensorBoard cannot draw the chart 'loss/all': a tag contains a parenthesis"
    assert value.tag == "custom_scalars__config__"
    layout = layout_pb2.Layout.FromString(value.tensor.string_val[0])
    assert [category.title for category in layout.category] == ["loss", "acc"]
    chart = layout.category[0].chart[0]
    assert chart.title == "loss/all"
    assert list(chart.multiline.tag) == ["^loss/all/a$", r"^loss/all/b\(c\)$"]
