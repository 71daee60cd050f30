"""Steps that fit no int64 and tags of absurd length: one message, whichever call finds them."""

import decimal
import fractions
import re

import numpy as np
import pytest

from sm_tblog import InvalidTypeError, InvalidValueError, Writer
from sm_tblog._types import MAX_TAG_LENGTH

STEPS = {
    "int": 5,
    "bool": True,
    "float": 5.9,
    "numpy": np.int8(5),
    "numpy float": np.float32(5.9),
    "numpy bool": np.bool_(1),
    "0-d": np.array(5),
    "0-d float": np.array(5.9),
    "one element": np.array([[5]]),
    "decimal": decimal.Decimal("5.9"),
    "fraction": fractions.Fraction(11, 2),
}
LOG = {
    "add_scalar": lambda writer, step: writer.add_scalar("tag", 1.0, step),
    "integer": lambda writer, step: writer.add_scalar("tag", 1, step),
    "log": lambda writer, step: writer.log({"tag": 1.0}, step),
    "add_scalars": lambda writer, step: writer.add_scalars("tag", {"tag": 1.0}, step, layout=True),
    "add_text": lambda writer, step: writer.add_text("tag", "text", step),
    "child": lambda writer, step: writer.child("run").add_scalar("tag", 1.0, step),
    "writer.step": lambda writer, step: setattr(writer, "step", step),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("log", LOG.values(), ids=LOG)
def test_steps_of_all_kinds_are_taken(tmp_path, log, step):
    with Writer(tmp_path, on_error="raise") as writer:
        log(writer, step)
    if log is LOG["writer.step"]:
        assert writer.step in (1, 5)


def test_steps_of_other_libraries(tmp_path, read_scalars):
    torch = pytest.importorskip("torch")
    steps = [torch.tensor(1), torch.tensor([2]), torch.tensor(3.9), torch.tensor(True)]
    with Writer(tmp_path, on_error="raise") as writer:
        for step in steps:
            writer.add_scalar("tag", 1.0, step)
    assert [step for step, _ in read_scalars(tmp_path)[""]["tag"]] == [1, 2, 3, 1]


@pytest.mark.parametrize(
    "step",
    [2**63, -(2**63) - 1, 2**70, 10**50, 10**5000, 1e30],
    ids=["above", "below", "2**70", "10**50", "10**5000", "float"],
)
@pytest.mark.parametrize("log", LOG.values(), ids=LOG)
def test_a_step_that_does_not_fit_has_one_message(tmp_path, log, step):
    faults = []
    with Writer(tmp_path, on_error=faults.append) as writer:
        try:
            log(writer, step)
        except InvalidValueError as error:
            faults.append(error)
        writer.add_scalar("fine", 1.0, 0)
        writer.flush()
        stats = writer.stats()
    [fault] = faults
    assert isinstance(fault, InvalidValueError)
    assert re.match("'(tag|tag/tag|writer.step)': a step must be an integer that fits", str(fault))
    assert stats.rows_dropped == stats.errors <= 1
    assert stats.rows_written == 1


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        ("five", InvalidTypeError),
        ([5], InvalidTypeError),
        (1j, InvalidTypeError),
        (np.datetime64("2026-12-01", "ns"), InvalidTypeError),
        (np.timedelta64(5, "ns"), InvalidTypeError),
        (np.array(["2026-12-01"], "datetime64[ns]"), InvalidTypeError),
        (float("nan"), InvalidValueError),
        (float("inf"), InvalidValueError),
        (np.array([1, 2]), InvalidValueError),
        (np.array([]), InvalidValueError),
    ],
    ids=repr,
)
@pytest.mark.parametrize("log", LOG.values(), ids=LOG)
def test_what_is_no_step_has_one_message(tmp_path, log, step, kind):
    with Writer(tmp_path) as writer, pytest.raises(kind, match="': a step must be an integer"):
        log(writer, step)


@pytest.mark.parametrize("value", [np.datetime64(5, "ns"), np.timedelta64(5, "ns")], ids=repr)
def test_a_time_is_no_number(tmp_path, value):
    with Writer(tmp_path) as writer:
        for one in (value, np.array([value])):
            with pytest.raises(InvalidTypeError, match="a scalar must be a number"):
                writer.add_scalar("tag", one, 0)


LONG = "x" * (MAX_TAG_LENGTH + 1)
ADD = {
    "integer": lambda writer: writer.add_scalar(LONG, 1, 0),
    "add_text": lambda writer: writer.add_text(LONG, "text"),
    "add_histogram": lambda writer: writer.add_histogram(LONG, [1.0]),
    "add_scalars": lambda writer: writer.add_scalars(LONG, {"x": 1.0}, 0),
    "nested": lambda writer: writer.log({"a": {LONG[:-1]: 1.0}}, 0),
    "add_scalar": lambda writer: writer.add_scalar(LONG, 1.0, 0),
    "log": lambda writer: writer.log({LONG: 1.0}, 0),
    "child": lambda writer: writer.child("run").add_scalar(LONG, 1.0, 0),
}


@pytest.mark.parametrize("add", ADD.values(), ids=ADD)
def test_a_tag_of_absurd_length_is_refused(tmp_path, read_scalars, add):
    faults = []
    with Writer(tmp_path, on_error=faults.append) as writer:
        writer.add_scalar("fine", 1.0, 0)
        try:
            add(writer)
        except InvalidValueError as error:
            faults.append(error)
        writer.add_scalar("fine", 2.0, 1)
        writer.flush()
        stats = writer.stats()
    [fault] = faults
    assert isinstance(fault, InvalidValueError)
    assert "a tag must have at most 1,048,576 characters, got 1,048,57" in str(fault)
    assert len(str(fault)) < 300
    assert stats.rows_dropped == stats.errors <= 1
    assert read_scalars(tmp_path) == {"": {"fine": [(0, 1.0), (1, 2.0)]}}


def test_the_longest_tag_is_logged(tmp_path):
    from sm_tblog.readers import read_all

    with Writer(tmp_path, on_error="raise") as writer:
        writer.add_scalar(LONG[:-1], 1.0, 0)
        writer.add_text(LONG[1:-1], "text")
    assert sorted(map(len, read_all(tmp_path)["."].tags)) == [MAX_TAG_LENGTH - 1, MAX_TAG_LENGTH]
