"""What ``add_text`` accepts: no text is dropped, and what is none raises one clear exception."""

import json

import numpy as np
import pytest

from sm_tblog import InvalidTypeError, InvalidValueError, Writer

MANY = {
    "str": ("a", (), ["a"]),
    "empty": ("", (), [""]),
    "bytes": (b"caf\xe9", (), ["caf\ufffd"]),
    "bytearray": (bytearray(b"a"), (), ["a"]),
    "numpy str": (np.str_("a"), (), ["a"]),
    "numpy bytes": (np.bytes_(b"a"), (), ["a"]),
    "0-d": (np.array("a"), (), ["a"]),
    "0-d bytes": (np.array(b"a"), (), ["a"]),
    "0-d object": (np.array("a", object), (), ["a"]),
    "list of bytes": ([b"a", "b", bytearray(b"c")], (3,), ["a", "b", "c"]),
    "array of bytes": (np.array([b"a", b"bc"]), (2,), ["a", "bc"]),
    "array of str": (np.array([["a", "b"]]), (1, 2), ["a", "b"]),
    "array of numbers": (np.array([1, 2]), (2,), ["1", "2"]),
    "numbers": ([1, 2.5, None, True], (4,), ["1", "2.5", "None", "True"]),
    "numpy numbers": ([np.float32(0.5), np.array(2)], (2,), ["0.5", "2"]),
    "rows": ([["a", b"b"], ["c", 1]], (2, 2), ["a", "b", "c", "1"]),
    "ragged": ([["a", "b"], ["c"]], (2, 2), ["a", "b", "c", ""]),
    "mixed": (["a", ["b", "c"]], (2, 2), ["a", "", "b", "c"]),
    "deep": ([[["a", b"b"], "c"]], (1, 2), ["[a, b]", "c"]),
    "deeper": ([[[["a"]]]], (1, 1), ["[[a]]"]),
    "array in a list": ([np.array(["a", "b"]), ["c", "d"]], (2, 2), ["a", "b", "c", "d"]),
    "generator": ((text for text in "ab"), (2,), ["a", "b"]),
    "set": ({"a"}, (1,), ["a"]),
    "keys": ({"a": 1}.keys(), (1,), ["a"]),
    "nothing": ([], (0,), []),
}


@pytest.fixture
def texts(read_events, event_files):
    def read(logdir):
        [path] = event_files(logdir)
        [value] = [value for event in read_events(path) for value in event.summary.value]
        shape = tuple(dim.size for dim in value.tensor.tensor_shape.dim)
        return shape, [text.decode() for text in value.tensor.string_val]

    return read


@pytest.mark.parametrize(("text", "shape", "strings"), MANY.values(), ids=MANY)
def test_texts_of_every_kind_are_logged(tmp_path, texts, text, shape, strings):
    with Writer(tmp_path, on_error="raise") as writer:
        writer.add_text("note", text)
    assert texts(tmp_path) == (shape, strings)


def test_tensors_and_series(tmp_path, texts):
    torch = pytest.importorskip("torch")
    pd = pytest.importorskip("pandas")
    for name, given, expected in (
        ("tensor", torch.tensor([[1, 2], [3, 4]]), ((2, 2), ["1", "2", "3", "4"])),
        ("tensors", [torch.tensor(1.5), torch.tensor(2)], ((2,), ["1.5", "2"])),
        ("series", pd.Series(["a", "b"]), ((2,), ["a", "b"])),
        ("index", pd.Index(["a", "b"]), ((2,), ["a", "b"])),
    ):
        with Writer(tmp_path / name, on_error="raise") as writer:
            writer.add_text("note", given)
        assert texts(tmp_path / name) == expected


def frame():
    return pytest.importorskip("pandas").DataFrame({"a": ["x"]})


def tensor():
    return pytest.importorskip("torch").tensor(5.0)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: {"lr": 0.1}, "use add_table"),
        (lambda: [{"lr": 0.1}], "use add_table"),
        (lambda: [["a", {"lr": 0.1}]], "use add_table"),
        (frame, "use add_table"),
        (lambda: [frame()], "use add_table"),
        (lambda: None, "a text must be a str.*None"),
        (lambda: 5.0, "a text must be a str.*5.0"),
        (lambda: np.array(5.0), "a text must be a str.*ndarray"),
        (lambda: np.float32(5), "a text must be a str.*float32"),
        (tensor, "a text must be a str.*Tensor"),
        (object, "a text must be a str.*object"),
    ],
)
def test_what_is_no_text_raises_at_the_call(tmp_path, make, says):
    with Writer(tmp_path) as writer, pytest.raises(InvalidTypeError, match=f"'note': .*{says}"):
        writer.add_text("note", make())


def test_a_text_that_contains_itself_is_refused(tmp_path):
    text = ["a"]
    text.append(text)
    with Writer(tmp_path) as writer, pytest.raises(InvalidValueError, match="contain itself"):
        writer.add_text("note", text)


def test_a_disabled_writer_reads_nothing(tmp_path):
    with Writer(tmp_path, enabled=False) as writer:
        writer.add_text("note", (1 / 0 for _ in range(1)))


def test_the_size_of_all_texts_counts(tmp_path):
    from sm_tblog.writer.texts import _size_of

    assert _size_of(("x" * 1000, "y" * 1000)) >= 2000
    assert _size_of((("x" * 1000, "y"), ("", "z" * 1000))) >= 2000


def test_json_is_a_way_to_log_a_mapping(tmp_path, texts):
    with Writer(tmp_path) as writer:
        writer.add_text("config", json.dumps({"lr": 0.1}))
    assert texts(tmp_path) == ((), ['{"lr": 0.1}'])
