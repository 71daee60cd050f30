"""Precision-recall curves: equal to other writers' and TensorBoard's, and read by its plugin."""

import inspect
import sys
import types

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.compat.proto import summary_pb2
from tensorboard.context import RequestContext
from tensorboard.plugins import base_plugin
from tensorboard.plugins.pr_curve import metadata, summary
from tensorboard.plugins.pr_curve.pr_curves_plugin import PrCurvesPlugin
from tensorboard.util.tensor_util import make_ndarray, make_tensor_proto

from sm_tblog import InvalidTypeError, InvalidValueError, Writer
from sm_tblog.arrays.convert import Deferred
from sm_tblog.summary.pr_curve import counts_at_thresholds, pr_curve_value, raw_pr_curve_value

unhurried = settings(deadline=None)  # how long an example takes is not what is tested

LABELS = np.array([0, 1, 1, 0, 1])
PREDICTIONS = np.array([0.1, 0.9, 0.4, 0.6, 1.0], np.float32)
RAW = [[3, 2, 1], [2, 1, 0], [0, 1, 2], [0, 1, 2], [0.6, 2 / 3, 1.0], [1.0, 2 / 3, 1 / 3]]


@pytest.fixture
def curves_at(tmp_path):
    """``curves_at(tag)``: what TensorBoard's plugin sends to the browser."""

    def read(tag):
        multiplexer = EventMultiplexer({".": str(tmp_path)}, {"tensors": 0}).Reload()
        provider = MultiplexerDataProvider(multiplexer, str(tmp_path))
        plugin = PrCurvesPlugin(base_plugin.TBContext(data_provider=provider))
        return plugin.pr_curves_impl(RequestContext(), "", ["."], tag)["."]

    return read


@pytest.fixture
def writer(tmp_path):
    with Writer(tmp_path, on_error="raise") as writer:
        yield writer


@pytest.fixture
def tensorboards_own(monkeypatch):
    """``tensorboard.plugins.pr_curve.summary.pb``, with TensorBoard's messages for TensorFlow's."""
    v1 = types.ModuleType("tensorflow.compat.v1")
    v1.Summary = summary_pb2.Summary
    v1.SummaryMetadata = summary_pb2.SummaryMetadata
    v1.make_tensor_proto = make_tensor_proto
    v1.float32 = np.float32
    for name in ("tensorflow", "tensorflow.compat"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["tensorflow"].compat = sys.modules["tensorflow.compat"]
    sys.modules["tensorflow.compat"].v1 = v1
    monkeypatch.setitem(sys.modules, "tensorflow.compat.v1", v1)
    return summary.pb


def samples(max_size=60):
    """Labels, predictions and weights of one shape."""
    return npst.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=max_size).flatmap(
        lambda shape: st.tuples(
            npst.arrays(st.sampled_from([np.bool_, np.int64]), shape, elements=st.integers(0, 1)),
            npst.arrays(
                st.sampled_from([np.float32, np.float64]), shape, elements=st.floats(0, 1, width=32)
            ),
            st.none()
            | st.floats(0, 10)
            | npst.arrays(np.float32, shape, elements=st.floats(0, 10, width=32)),
        )
    )


@pytest.fixture(scope="module", params=["torch.utils.tensorboard.summary", "tensorboardX.summary"])
def peers_counts(request):
    return pytest.importorskip(request.param).compute_curve


@unhurried
@given(data=samples(), thresholds=st.integers(2, 300))
def test_counts_equal_the_peers(peers_counts, data, thresholds):
    labels, predictions, weights = data
    theirs = peers_counts(labels, predictions, thresholds, weights)
    ours = counts_at_thresholds(
        labels, predictions, thresholds, None if weights is None else np.asarray(weights)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@unhurried
@given(data=samples(20), thresholds=st.integers(2, 40))
def test_counts_are_what_comparing_with_each_threshold_gives(data, thresholds):
    labels, predictions, _ = data
    predictions = predictions.astype(np.float64)
    exact = np.arange(thresholds) / (thresholds - 1)
    # A prediction within rounding of a threshold may fall on either side of it.
    assume((np.abs(predictions[..., None] - exact) > 1e-12).all() or thresholds in (2, 3, 5, 9))
    reached = predictions.reshape(-1, 1) >= exact
    truth = labels.reshape(-1, 1) == 1
    tp, fp, tn, fn, *_ = counts_at_thresholds(labels, predictions, thresholds)
    assert tp.tolist() == (reached & truth).sum(0).tolist()
    assert fp.tolist() == (reached & ~truth).sum(0).tolist()
    assert tn.tolist() == (~reached & ~truth).sum(0).tolist()
    assert fn.tolist() == (~reached & truth).sum(0).tolist()


@pytest.mark.parametrize("weights", [None, 2.5, np.linspace(0, 1, 5, dtype=np.float32)])
def test_the_message_equals_tensorboards_own(tensorboards_own, weights):
    (theirs,) = tensorboards_own("tag", LABELS, PREDICTIONS, 201, weights).value
    array = None if weights is None else np.asarray(weights)
    value, warning = pr_curve_value("tag", LABELS, PREDICTIONS, 201, array)
    ours = summary_pb2.Summary.Value.FromString(value.SerializeToString())
    np.testing.assert_array_equal(make_ndarray(ours.tensor), make_ndarray(theirs.tensor))
    assert ours.metadata.plugin_data == theirs.metadata.plugin_data
    assert metadata.parse_plugin_metadata(ours.metadata.plugin_data.content).num_thresholds == 201
    assert not warning


def test_tensorboards_plugin_reads_a_curve(writer, curves_at):
    writer.add_pr_curve("curve", LABELS, PREDICTIONS, 3, num_thresholds=3, walltime=12.5)
    writer.flush()
    (curve,) = curves_at("curve")
    assert curve == {
        "wall_time": 12.5,
        "step": 3,
        "thresholds": [0.0, 0.5, 1.0],
        "true_positives": [3, 2, 1],
        "false_positives": [2, 1, 0],
        "true_negatives": [0, 1, 2],
        "false_negatives": [0, 1, 2],
        "precision": pytest.approx([0.6, 2 / 3, 1.0]),
        "recall": pytest.approx([1.0, 2 / 3, 1 / 3]),
    }


def test_tensorboards_plugin_reads_a_raw_curve(writer, curves_at):
    writer.add_pr_curve_raw("raw", *RAW, 3, walltime=12.5)
    writer.add_pr_curve("counted", LABELS, PREDICTIONS, 3, num_thresholds=3, walltime=12.5)
    writer.flush()
    assert curves_at("raw") == curves_at("counted")


def test_a_curve_may_have_more_thresholds_than_the_peers_write(writer, curves_at):
    writer.add_pr_curve("fine", LABELS, PREDICTIONS, num_thresholds=1001)
    writer.add_pr_curve("default", LABELS, PREDICTIONS)
    writer.flush()
    # The last thresholds, 1 alone here, are reached by a prediction of 1.
    assert len(curves_at("fine")[0]["thresholds"]) == 1001
    assert len(curves_at("default")[0]["thresholds"]) == 127


@pytest.mark.parametrize("weights", [2, [0, 1, 1, 0, 4], np.array([2.0])])
def test_weights_count_samples_several_times(writer, curves_at, weights):
    writer.add_pr_curve("weighted", LABELS, PREDICTIONS, 0, 3, weights, 1.0)
    repeats = np.broadcast_to(weights, 5).astype(int)
    repeated = LABELS.repeat(repeats), PREDICTIONS.repeat(repeats)
    writer.add_pr_curve("repeated", *repeated, 0, 3, walltime=1.0)
    writer.flush()
    assert curves_at("weighted") == curves_at("repeated")


@pytest.mark.parametrize("weights", [2, [2, 2, 2]])
def test_weights_multiply_raw_counts(writer, curves_at, weights):
    writer.add_pr_curve_raw("weighted", *RAW, 0, 3, weights, 1.0)
    doubled = [[2 * count for count in row] for row in RAW[:4]]
    writer.add_pr_curve_raw("doubled", *doubled, *RAW[4:], 0, 3, None, 1.0)
    writer.flush()
    assert curves_at("weighted") == curves_at("doubled")


PEERS = ["torch.utils.tensorboard", "tensorboardX"]


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("method", ["add_pr_curve", "add_pr_curve_raw"])
def test_arguments_are_the_peers(peer, method):
    theirs = inspect.signature(getattr(pytest.importorskip(peer).SummaryWriter, method))
    assert list(inspect.signature(getattr(Writer, method)).parameters) == list(theirs.parameters)


@pytest.mark.parametrize("peer", PEERS)
def test_tensorboard_reads_from_both_writers_the_same(peer, writer, curves_at):
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 2, 500), rng.random(500)
    calls = [("curve", labels, predictions, 1, 99, 2.0, 7.0), ("few", labels > 0, predictions, 2)]
    raw = ("raw", *map(np.array, RAW), 3, 3, None, 7.0)
    read = []
    for one in (writer, pytest.importorskip(peer).SummaryWriter(writer.log_dir)):
        for call in calls:
            one.add_pr_curve(*call)
        one.add_pr_curve_raw(*raw)
        one.flush()
        curves = [curves_at(tag)[-1] for tag in ("curve", "few", "raw")]
        del curves[1]["wall_time"]
        read.append(curves)
        writer.close()
    one.close()
    assert read[0] == read[1]


def test_float_labels_and_any_shape_are_taken(writer, curves_at):
    writer.add_pr_curve("flat", LABELS, PREDICTIONS, 0, walltime=1.0)
    shaped = LABELS.astype(np.float16).reshape(5, 1), PREDICTIONS.tolist()
    writer.add_pr_curve("shaped", shaped[0], np.reshape(shaped[1], (5, 1)), 0, walltime=1.0)
    writer.add_pr_curve("lists", LABELS.tolist(), PREDICTIONS.tolist(), 0, walltime=1.0)
    writer.flush()
    assert curves_at("flat") == curves_at("shaped") == curves_at("lists")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_tensors_of_torch_and_jax_are_taken(writer, curves_at, dtype):
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    values = [0.125, 0.875, 0.375, 0.625, 1.0]  # exact in every dtype
    made = torch.tensor(values, dtype=getattr(torch, dtype), requires_grad=True)
    writer.add_pr_curve("torch", torch.tensor(LABELS), made, 0, walltime=1.0)
    made = jax.numpy.array(values, dtype)
    writer.add_pr_curve("jax", jax.numpy.array(LABELS), made, 0, walltime=1.0)
    writer.add_pr_curve("mixed", LABELS > 0, made, 0, walltime=1.0)
    writer.add_pr_curve("numpy", LABELS, np.array(values), 0, walltime=1.0)
    writer.flush()
    assert curves_at("torch") == curves_at("jax") == curves_at("mixed") == curves_at("numpy")


def test_the_arrays_may_change_after_the_call(writer, curves_at):
    labels, predictions = LABELS.copy(), PREDICTIONS.copy()
    writer.add_pr_curve("kept", labels, predictions, 0, walltime=1.0)
    labels[:], predictions[:] = 0, 0
    writer.add_pr_curve("meant", LABELS, PREDICTIONS, 0, walltime=1.0)
    writer.flush()
    assert curves_at("kept") == curves_at("meant")


@pytest.mark.parametrize("weights", [None, 2.0, np.ones(5)])
def test_nan_predictions_are_left_out_and_said(weights):
    predictions = np.append(PREDICTIONS, np.nan)
    if isinstance(weights, np.ndarray):
        weights = np.append(weights, 1.0)
    array = None if weights is None else np.asarray(weights)
    value, warning = pr_curve_value("tag", np.append(LABELS, 1), predictions, 9, array)
    kept = None if array is None else np.broadcast_to(array, 6)[:5]
    assert value == pr_curve_value("tag", LABELS, PREDICTIONS, 9, kept)[0]
    assert warning == "the curve leaves out 1 of 6 predictions because they are NaN"


@pytest.mark.parametrize("predictions", [np.full(5, np.nan), np.zeros(0)])
def test_a_curve_of_nothing_is_zeros(writer, curves_at, predictions):
    writer.add_pr_curve("nothing", np.zeros(len(predictions)), predictions)
    writer.flush()
    assert curves_at("nothing")[0]["recall"] == [0.0]


@pytest.mark.parametrize("off", [1 + 1e-6, -1e-6])
def test_rounding_beyond_the_range_is_taken_for_its_end(writer, curves_at, off):
    writer.add_pr_curve("off", [1], [off], 0, walltime=1.0)
    writer.add_pr_curve("end", [1], [round(off)], 0, walltime=1.0)
    writer.flush()
    assert curves_at("off") == curves_at("end")


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"predictions": np.zeros((5, 2))}, InvalidValueError, r"\(5,\).*\(5, 2\).*labels == k"),
        ({"predictions": [0.1] * 4}, InvalidValueError, r"\(5,\).*\(4,\)"),
        ({"predictions": LABELS * 4 - 2.5}, InvalidValueError, "not logits; got.* -2.5 to 1.5"),
        ({"predictions": [0.1, 0.2, 0.3, 0.4, np.inf]}, InvalidValueError, "to inf"),
        ({"predictions": list("abcde")}, InvalidTypeError, "real numbers"),
        ({"predictions": None}, InvalidTypeError, "NoneType"),
        ({"labels": np.arange(5)}, InvalidValueError, "0 or 1.* 0 to 4"),
        ({"labels": [0, 1, np.nan, 0, 1]}, InvalidValueError, "0 or 1"),
        ({"labels": LABELS * 2 - 1}, InvalidValueError, "-1 to 1"),
        ({"weights": np.ones(4)}, InvalidValueError, r"\(4,\).*\(5,\)"),
        ({"weights": np.ones((2, 5))}, InvalidValueError, r"\(2, 5\).*\(5,\)"),
        ({"weights": -1.0}, InvalidValueError, "not negative"),
        ({"weights": [1, 1, 1, 1, np.nan]}, InvalidValueError, "finite"),
        ({"weights": float("inf")}, InvalidValueError, "finite"),
        ({"weights": "heavy"}, InvalidTypeError, "real numbers"),
        ({"num_thresholds": 1}, InvalidValueError, "two thresholds.*got 1"),
        ({"num_thresholds": 2.5}, InvalidTypeError, "integer, got 2.5"),
        ({"num_thresholds": None}, InvalidTypeError, "integer, got None"),
    ],
)
def test_bad_samples_are_refused_at_the_call(writer, changes, error, says):
    arguments = {"labels": LABELS, "predictions": PREDICTIONS, **changes}
    with pytest.raises(error, match=f"'my/tag'.*{says}"):
        writer.add_pr_curve("my/tag", **arguments)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({0: [1, 2]}, InvalidValueError, r"got shapes \(2,\), \(3,\)"),
        ({5: np.ones((1, 3))}, InvalidValueError, r"\(1, 3\)"),
        ({row: [1] for row in range(6)}, InvalidValueError, "at least two thresholds"),
        (dict.fromkeys(range(6), 1), InvalidValueError, "one dimension"),
        ({0: ["a", "b", "c"]}, InvalidTypeError, "real numbers"),
        ({7: "3"}, InvalidTypeError, "integer"),
        ({8: [1, 2]}, InvalidValueError, r"weights .*3 thresholds, got shape \(2,\)"),
    ],
)
def test_bad_raw_curves_are_refused_at_the_call(writer, changes, error, says):
    arguments = [*RAW, 0, None, None]
    for position, changed in changes.items():
        arguments[position] = changed
    with pytest.raises(error, match=f"'my/tag'.*{says}"):
        writer.add_pr_curve_raw("my/tag", *arguments)


@pytest.mark.parametrize(
    ("labels", "predictions"), [(np.arange(5), PREDICTIONS), (LABELS, LABELS * 9.0)]
)
def test_what_is_on_a_device_is_checked_by_the_worker(labels, predictions):
    deferred = [Deferred(lambda a=a: a, a.shape, a.dtype) for a in (labels, predictions)]
    with pytest.raises(InvalidValueError, match="'my/tag'"):
        pr_curve_value("my/tag", *deferred, 9)


def test_a_raw_curve_may_come_from_a_device():
    rows = [Deferred(lambda row=row: np.array(row), (3,)) for row in RAW]
    host = [np.array(row) for row in RAW]
    assert raw_pr_curve_value("tag", rows) == raw_pr_curve_value("tag", host)


def test_a_disabled_writer_looks_at_nothing(tmp_path):
    silent = Writer(tmp_path / "none", enabled=False)
    silent.add_pr_curve("tag", None, None)
    silent.add_pr_curve_raw("tag", *[None] * 6)
    assert not (tmp_path / "none").exists()
