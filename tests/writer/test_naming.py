"""The methods' public names in Python's own messages, and the two names of the step."""

import inspect
import pickle
import re

import numpy as np
import pytest

from sm_tblog import InvalidTypeError, SummaryWriter, Writer
from sm_tblog.writer.file_writer import FileWriter

METHODS = [
    (kind, name)
    for kind in (Writer, FileWriter)
    for name, _ in inspect.getmembers(kind, inspect.isfunction)
    if not name.startswith("_") or name in {"__init__", "_get_file_writer"}
]


def message_of(call, *args, **options):
    with pytest.raises(TypeError) as raised:
        call(*args, **options)
    return str(raised.value)


@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_pythons_messages_name_the_public_method(tmp_path, kind, name):
    with Writer(tmp_path) as writer:
        target = writer if kind is Writer else writer.file_writer
        method = getattr(target, name)
        messages = [
            message_of(method, nonsense=1),
            message_of(method, *[None] * 40),
            message_of(getattr(kind, name)),
        ]
    for message in messages:
        if "from_callable" not in message:
            assert message.startswith(f"{kind.__name__}.{name}() "), message


def test_a_subclass_sees_the_public_name_too(tmp_path):
    class Mine(SummaryWriter):
        def add_scalar(self, *args, **options):
            super().add_scalar(*args, **options)

    with Mine(tmp_path) as writer:
        assert message_of(writer.add_scalar).startswith("Writer.add_scalar() missing 2 required")
        assert message_of(Mine, logs="x").startswith("Writer.__init__() got an unexpected")


def test_methods_can_be_pickled(tmp_path):
    with Writer(tmp_path) as writer:
        for function in (Writer.add_scalar, Writer.add_image, Writer.use_metadata):
            assert pickle.loads(pickle.dumps(function)) is function
        pickle.loads(pickle.dumps(writer.add_image))


def test_signatures_are_those_of_the_methods():
    assert list(inspect.signature(Writer.add_text).parameters)[:4] == [
        "self",
        "tag",
        "text_string",
        "global_step",
    ]
    assert "Markdown" in inspect.getdoc(Writer.add_text)


PIXELS = np.zeros((3, 4, 4), np.uint8)
CALLS = {
    "add_audio": ("x", np.zeros(9, np.float32)),
    "add_confusion_matrix": ("x", [0, 1], [0, 1]),
    "add_confusion_matrix_raw": ("x", [[1, 0], [0, 1]]),
    "add_embedding": (np.eye(3),),
    "add_figure": ("x", None),
    "add_histogram": ("x", [1.0]),
    "add_histogram_raw": ("x", 0.0, 1.0, 1.0, 1.0, 1.0, [1.0], [1]),
    "add_hparams": ({"lr": 0.1}, {"x": 1.0}),
    "add_image": ("x", PIXELS),
    "add_image_with_boxes": ("x", PIXELS, [[0, 0, 1, 1]]),
    "add_images": ("x", PIXELS[None]),
    "add_mesh": ("x", np.eye(3)),
    "add_pr_curve": ("x", [0, 1], [0.1, 0.9]),
    "add_pr_curve_raw": ("x", [1, 1], [1, 0], [1, 0], [0, 1], [0.5, 1], [1, 0.5]),
    "add_scalar": ("x", 1.0),
    "add_scalars": ("x", {"a": 1.0}),
    "add_table": ("x", {"a": [1]}),
    "add_tensor": ("x", [1.0]),
    "add_text": ("x", "text"),
    "add_video": ("x", np.zeros((1, 2, 3, 4, 4), np.uint8)),
    "log": ({"x": 1.0},),
    "use_metadata": (),
    "step_span": (),
    "watch": None,
    "watch_tree": None,
    "watch_layers": None,
}
"""The arguments before the step of every method that has one; None if it is a function there."""


def test_the_table_is_complete():
    names = {
        name
        for kind, name in METHODS
        if kind is Writer
        and {"step", "global_step"} & set(inspect.signature(getattr(Writer, name)).parameters)
    }
    assert names == set(CALLS)


@pytest.fixture
def logged_step(tmp_path, event_files, read_events):
    """``logged_step(method, **step)``: the step at which a method logs."""

    def log(method, **step):
        args = CALLS[method]
        folder = tmp_path / "-".join([method, *step])
        with Writer(folder, on_error="raise") as writer:
            if method == "add_figure":
                figures = pytest.importorskip("matplotlib.figure")
                args = ("x", figures.Figure(figsize=(1, 1)))
            if method == "use_metadata":
                with writer.use_metadata(**step):
                    writer.add_scalar("x", 1.0)
            elif method == "step_span":
                with writer.step_span(**step):
                    pass
            else:
                getattr(writer, method)(*args, **step)
        if method == "add_embedding":
            return {path.name for path in (folder / "embeddings/default").iterdir()}
        events = [event for path in event_files(folder) for event in read_events(path)]
        return {event.step for event in events if event.summary.value}

    return log


@pytest.mark.parametrize("method", [name for name, args in CALLS.items() if args is not None])
def test_a_step_may_have_either_name(logged_step, tmp_path, method):
    expected = logged_step(method, global_step=7)
    assert logged_step(method, step=7) == expected
    assert expected in ({7}, {"00007"}, {"7"})
    with Writer(tmp_path / "both") as writer:
        for both in ({"step": 1, "global_step": 2}, {"step": 0, "global_step": 0}):
            args = CALLS[method] if method != "add_figure" else ("x", object())
            with pytest.raises(InvalidTypeError, match=re.escape(f"{method}() got both")):
                getattr(writer, method)(*args, **both)


def test_an_alias_beside_the_position_of_the_step(tmp_path, read_scalars):
    with Writer(tmp_path) as writer:
        writer.add_scalar("x", 1.0, None, step=4)
        writer.add_scalar("x", 1.0, 5, step=None)
        writer.add_text("note", "text", None, step=4)
        writer.add_text("note", "text", 5, step=None)
        with pytest.raises(InvalidTypeError, match=r"add_text\(\) got both"):
            writer.add_text("note", "text", 5, step=5)
        with pytest.raises(InvalidTypeError, match=r"log\(\) got both"):
            writer.log({"x": 1.0}, 5, global_step=5)
        writer.log({"x": 1.0}, global_step=np.int64(6))
    assert read_scalars(tmp_path)[""]["x"] == [(4, 1.0), (5, 1.0), (6, 1.0)]


def test_a_file_writer_takes_both_names(tmp_path, read_scalars):
    event_pb2 = pytest.importorskip("tensorboard.compat.proto.event_pb2")
    event = event_pb2.Event()
    event.summary.value.add(tag="x", simple_value=0.5)
    with Writer(tmp_path) as writer:
        writer.file_writer.add_summary(event.summary, step=3)
        writer.file_writer.add_event(event, global_step=4)
    assert read_scalars(tmp_path)[""]["x"] == [(3, 0.5), (4, 0.5)]


class Thing:
    """Neither a number nor an array."""


@pytest.mark.parametrize("value", [None, [1.0, 2.0], {"a": 1}, {1.0}, Thing(), len, int], ids=repr)
def test_what_is_no_number_is_not_implemented_either(tmp_path, value):
    """Scripts catch what torch's writer raises, for example Composer's logger."""
    torch = pytest.importorskip("torch.utils.tensorboard")
    skipped = {}
    for kind in (torch.SummaryWriter, SummaryWriter):
        with kind(str(tmp_path)) as writer:
            for tag, data in {"bad": value, "good": 1.0}.items():
                try:
                    writer.add_scalar(tag, data, global_step=0)
                except NotImplementedError:  # noqa: PERF203 - one of two
                    skipped.setdefault(kind, []).append(tag)
    assert skipped == {torch.SummaryWriter: ["bad"], SummaryWriter: ["bad"]}


@pytest.mark.parametrize("value", [None, {"a": 1}, Thing(), len], ids=repr)
@pytest.mark.parametrize(
    "call",
    [
        lambda w, v: w.add_scalars("x", {"a": v}),
        lambda w, v: w.add_histogram("x", v),
        lambda w, v: w.add_image("x", v),
        lambda w, v: w.add_images("x", v),
        lambda w, v: w.add_image_with_boxes("x", PIXELS, v),
        lambda w, v: w.add_video("x", v),
        lambda w, v: w.add_audio("x", v),
        lambda w, v: w.add_embedding(v),
        lambda w, v: w.add_pr_curve("x", v, [0.5]),
        lambda w, v: w.add_hparams({"lr": 0.1}, {"x": v}),
    ],
)
def test_what_is_no_array_is_not_implemented_either(tmp_path, call, value):
    with Writer(tmp_path) as writer:
        with pytest.raises(NotImplementedError):
            call(writer, value)
        with pytest.raises(TypeError):
            call(writer, value)
