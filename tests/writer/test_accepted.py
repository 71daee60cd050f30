"""What torch's and tensorboardX's writers accept: each is accepted here too, or refused on purpose.

The migration page names what is refused.
"""

import numpy as np
import pytest

from sm_tblog import InvalidTypeError, InvalidValueError, SummaryWriter, Writer
from sm_tblog.arrays.deferred import Deferred

torch = pytest.importorskip("torch")
pytest.importorskip("torch.utils.tensorboard")
tensorboardx = pytest.importorskip("tensorboardX")

WRITERS = {
    "torch": torch.utils.tensorboard.SummaryWriter,
    "tensorboardX": tensorboardx.SummaryWriter,
    "ours": SummaryWriter,
}

PIXELS = np.zeros((3, 12, 12), np.uint8)
BOXES = np.array([[1.0, 1, 9, 9, 0.9, 3], [2, 2, 5, 5, 0.1, 7]])
POINTS = np.eye(2, 3)
COUNTS = np.arange(30.0).reshape(6, 5)


def accepted(call, name, **options):
    """Return whether a writer accepts a call, on its worker thread too."""
    faults = []
    if name == "ours":
        options["on_error"] = faults.append
    with WRITERS[name](**options) as writer:
        try:
            call(writer)
        except Exception:  # noqa: BLE001 - theirs raise anything
            return False
    return not faults


ACCEPTED = {
    "boxes with more columns": lambda w: w.add_image_with_boxes("a", PIXELS, BOXES, 1),
    "boxes from torch": lambda w: w.add_image_with_boxes("a", PIXELS, torch.tensor(BOXES), 1),
    "no boxes of five": lambda w: w.add_image_with_boxes("a", PIXELS, np.zeros((0, 5)), 1),
    "equal limits": lambda w: w.add_histogram_raw("a", 0, 1, 2, 1, 1, [1, 1], [1, 1]),
    "descending limits": lambda w: w.add_histogram_raw("a", 0, 3, 6, 1, 1, [3, 1, 2], [1, 2, 3]),
    "infinite limits": lambda w: w.add_histogram_raw("a", 0, 3, 2, 1, 1, [1, np.inf], [1, 1]),
    "no buckets": lambda w: w.add_histogram_raw("a", 0, 0, 0, 0, 0, [], []),
    "127 thresholds": lambda w: w.add_pr_curve_raw("a", *COUNTS, num_thresholds=127),
    "127 by position": lambda w: w.add_pr_curve_raw("a", *COUNTS, 0, 127),
    "fewer thresholds": lambda w: w.add_pr_curve_raw("a", *COUNTS, 0, 3),
    "a header alone": lambda w: w.add_embedding(POINTS, metadata_header=["a", "b"]),
    "an empty header": lambda w: w.add_embedding(POINTS, ["a", "b"], metadata_header=[]),
    "a vocabulary": lambda w: w.add_embedding(POINTS, {"a": 0, "b": 1}),
    "labels by number": lambda w: w.add_embedding(POINTS, {0: "a", 1: "b"}),
    "keys": lambda w: w.add_embedding(POINTS, {"a": 0, "b": 1}.keys()),
    "a step as text": lambda w: w.add_scalar("a", 1.0, "5"),
    "a step as spaced text": lambda w: w.add_text("a", "x", " 5 "),
    "a step as bytes": lambda w: w.add_histogram("a", np.ones(3), b"5"),
    "a step of a text as text": lambda w: w.add_scalars("a", {"b": 1.0}, "5"),
    "a step of an embedding": lambda w: w.add_embedding(POINTS, global_step="5"),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("case", ACCEPTED)
def test_what_theirs_accept_is_accepted(tmp_path, case, name):
    assert accepted(ACCEPTED[case], name, log_dir=str(tmp_path))


REFUSED = {
    "not a label for each box": lambda w: w.add_image_with_boxes(
        "a", PIXELS, BOXES[:, :4], labels=["one"]
    ),
    "a corner that is NaN": lambda w: w.add_image_with_boxes(
        "a", PIXELS, np.array([[1, 1, np.nan, 2]])
    ),
    "a limit that is NaN": lambda w: w.add_histogram_raw("a", 0, 1, 2, 1, 1, [1, np.nan], [1, 1]),
    "a single threshold": lambda w: w.add_pr_curve_raw("a", *COUNTS[:, :1]),
    "labels that are classes": lambda w: w.add_pr_curve("a", np.arange(3), np.ones(3)),
    "logits": lambda w: w.add_pr_curve("a", np.ones(2), np.array([-3.0, 2.0])),
    "no points": lambda w: w.add_embedding(np.zeros((0, 3))),
    "a text as labels": lambda w: w.add_embedding(POINTS, "ab"),
    "rows of different lengths": lambda w: w.add_embedding(
        POINTS, [["a", "b"], ["c"]], metadata_header=["x", "y"]
    ),
    "a word as step": lambda w: w.add_embedding(POINTS, global_step="final"),
    "no tag": lambda w: w.add_scalar(None, 1.0),
    "a color for another vertex": lambda w: w.add_mesh(
        "a", torch.zeros(1, 2, 3), torch.zeros(1, 3, 3)
    ),
    "four coordinates": lambda w: w.add_mesh("a", torch.zeros(1, 2, 4)),
    "an unknown chart": lambda w: w.add_custom_scalars({"a": {"b": ["Pie", ["x"]]}}),
    "a chart without tags": lambda w: w.add_custom_scalars_multilinechart([]),
    "tags as a text": lambda w: w.add_custom_scalars_multilinechart("loss"),
    "a hyperparameter without a name": lambda w: w.add_hparams({"": 1}, {"m": 1.0}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_on_purpose(tmp_path, case):
    assert accepted(REFUSED[case], "torch", log_dir=str(tmp_path / "torch"))
    with pytest.raises((InvalidTypeError, InvalidValueError, RuntimeError)):  # noqa: SIM117
        with Writer(tmp_path / "ours", on_error="raise") as writer:
            REFUSED[case](writer)


def test_one_list_and_one_text_are_not_numbers(tmp_path):
    with Writer(tmp_path) as writer:
        for value in ([1.0], "1.5"):  # tensorboardX takes the first, torch the second
            with pytest.raises(InvalidTypeError):
                writer.add_scalar("a", value)


@pytest.mark.parametrize(
    "as_boxes",
    [
        np.asarray,
        np.ndarray.tolist,
        torch.tensor,
        lambda boxes: Deferred(lambda: boxes, boxes.shape, boxes.dtype),
    ],
)
def test_further_columns_of_boxes_change_nothing(tmp_path, load_run, as_boxes):
    with Writer(tmp_path, on_error="raise") as writer:
        writer.add_image_with_boxes("plain", PIXELS, BOXES[:, :4], labels=["a", "b"])
        writer.add_image_with_boxes("scored", PIXELS, as_boxes(BOXES), labels=["a", "b"])
    run = load_run(tmp_path)
    plain, scored = (run.Images(tag)[0].encoded_image_string for tag in ("plain", "scored"))
    assert plain == scored


@pytest.mark.parametrize("shape", [(3,), (5,), (8,), (2, 3), (1, 2, 4), ()])
def test_boxes_of_other_shapes_are_refused(tmp_path, shape):
    with Writer(tmp_path) as writer, pytest.raises(InvalidValueError, match="boxes must have"):
        writer.add_image_with_boxes("a", PIXELS, np.zeros(shape))


@pytest.mark.parametrize(
    ("limits", "counts", "expected"),
    [
        ([3.0, 1.0, 2.0], [1, 2, 3], [(1.0, 2), (2.0, 3), (3.0, 1)]),
        ([1.0, 1.0, 2.0], [1, 2, 3], [(1.0, 1), (1.0, 2), (2.0, 3)]),
        ([1.0, 2.0], [0, 4], [(1.0, 0), (2.0, 4)]),
    ],
)
def test_buckets_are_sorted_by_their_limits(tmp_path, load_run, limits, counts, expected):
    with Writer(tmp_path) as writer:
        writer.add_histogram_raw("host", 0, 3, 6, 1, 1, limits, counts)
        arrays = [np.array(limits), np.array(counts)]
        deferred = [Deferred(lambda a=a: a, a.shape, a.dtype) for a in arrays]
        writer.add_histogram_raw("device", 0, 3, 6, 1, 1, *deferred)
    run = load_run(tmp_path)
    for tag in ("host", "device"):
        histogram = run.Histograms(tag)[0].histogram_value
        assert list(zip(histogram.bucket_limit, histogram.bucket, strict=True)) == expected


@pytest.mark.parametrize(("given", "warnings"), [(None, 0), (5, 0), (127, 1), (3, 1)])
def test_a_raw_curve_has_as_many_thresholds_as_counts(tmp_path, load_run, caplog, given, warnings):
    from tensorboard.plugins.pr_curve.metadata import parse_plugin_metadata
    from tensorboard.util.tensor_util import make_ndarray

    with Writer(tmp_path, on_error="raise") as writer:
        for step in range(2):
            writer.add_pr_curve_raw("curve", *COUNTS, step, given)
    run = load_run(tmp_path)
    content = run.SummaryMetadata("curve").plugin_data.content
    assert parse_plugin_metadata(content).num_thresholds == 5
    np.testing.assert_array_equal(make_ndarray(run.Tensors("curve")[0].tensor_proto), COUNTS)
    assert len([one for one in caplog.messages if "5 thresholds" in one]) == warnings


@pytest.mark.parametrize(
    ("metadata", "header", "table"),
    [
        ({"cat": 0, "dog": 1}, None, "cat\ndog\n"),
        ({"cat": "animal", "dog": "animal"}, None, "cat\ndog\n"),
        ({0: np.float32(1), 1: np.array(2)}, None, "0\n1\n"),
        ({"cat": 0, "dog": 1}, ["name"], "cat\ndog\n"),
        ({"name": ["cat", "dog"], "legs": (4, 4)}, None, "name\tlegs\ncat\t4\ndog\t4\n"),
        ({"name": ["cat", "dog"]}, None, "cat\ndog\n"),
        (None, ["name", "legs"], None),
    ],
)
def test_mappings_as_metadata(tmp_path, metadata, header, table):
    with Writer(tmp_path, on_error="raise") as writer:
        writer.add_embedding(POINTS, metadata, metadata_header=header)
    files = list(tmp_path.rglob("metadata.tsv"))
    assert [path.read_text() for path in files] == ([] if table is None else [table])


@pytest.mark.parametrize(
    ("metadata", "error", "says"),
    [
        ({"cat": 0, "dog": 1, "cow": 2}, InvalidTypeError, "one label per point, got 0 for 'cat'"),
        ({"name": ["cat"]}, InvalidValueError, "2 points and 1 labels in column 'name'"),
        ({"name": ["cat", "dog"], "legs": 4}, InvalidTypeError, "got 4 for 'legs'"),
        ({}, InvalidValueError, "2 points"),
    ],
)
def test_mappings_that_are_no_metadata(tmp_path, metadata, error, says):
    with Writer(tmp_path) as writer, pytest.raises(error, match=says):
        writer.add_embedding(POINTS, metadata)


@pytest.mark.parametrize("step", ["5", b"5", " 5\n", "+5", np.str_("5"), np.bytes_(b"5")])
def test_a_step_may_be_the_text_of_an_integer(tmp_path, read_scalars, step):
    with Writer(tmp_path) as writer:
        writer.add_scalar("a", 1.0, step)
        writer.log({"b": 1.0}, step)
        writer.step = step
        writer.add_scalar("c", 1.0)
    assert read_scalars(tmp_path)[""] == {tag: [(5, 1.0)] for tag in "abc"}


@pytest.mark.parametrize("step", ["five", "5.5", "", b"x", "0x5"])
def test_another_text_is_no_step(tmp_path, step):
    with Writer(tmp_path) as writer, pytest.raises(InvalidTypeError, match="must be an integer"):
        writer.add_scalar("a", 1.0, step)


@pytest.mark.parametrize("option", ["purge_step", "resume"])
def test_a_first_step_is_no_text(tmp_path, option):
    with pytest.raises(InvalidTypeError):
        Writer(tmp_path, **{option: "5"})
