"""Configurations of every kind as plain values by name."""

import argparse
import datetime as dt
import json
import math
from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field
from enum import Enum, Flag, IntEnum
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sm_tblog import InvalidTypeError, InvalidValueError
from sm_tblog.arrays.flatten import flatten


class Color(Enum):
    RED = 1


class Precision(IntEnum):
    HALF = 16


class Optimizer(str, Enum):
    ADAM = "adam"


@dataclass
class Model:
    width: int = 8
    layers: list = field(default_factory=lambda: [1, 2])


Point = namedtuple("Point", "x y")  # noqa: PYI024 - what the standard library calls a named tuple


class Configuration:
    """The common interface of OmegaConf and ml_collections: keys and items, no base class."""

    def __init__(self, **values):
        self._values = values

    def keys(self):
        return self._values.keys()

    def __getitem__(self, key):
        return self._values[key]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {}),
        ({"a": None, "b": True, "c": 3, "d": 0.5, "e": "x"}, {"b": True, "c": 3, "d": 0.5}),
        ({"a": {"b": {"c": 1}, "d": 2}, "e": {}}, {"a/b/c": 1, "a/d": 2}),
        ({1: {True: 2}, None: 3, Color.RED: 4}, {"1/True": 2, "None": 3, "RED": 4}),
        ({"a": np.float32(0.5), "b": np.bool_(True), "c": np.array([[3]])}, {"a": 0.5, "b": True}),
        ({"a": Color.RED, "b": Precision.HALF}, {"a": "RED", "b": "HALF"}),
        ({"a": Optimizer.ADAM, "b": np.str_("x")}, {"a": "adam", "b": "x"}),
        ({"a": [1, 2.5, None, "x"], "b": (0.9, 0.999)}, {"a": "[1, 2.5, None, x]"}),
        ({"a": {"z", "y"}, "b": range(3)}, {"a": "[y, z]", "b": "[0, 1, 2]"}),
        ({"a": [{"b": 1}, Model()]}, {"a": "[{b: 1}, {width: 8, layers: [1, 2]}]"}),
        ({"a": []}, {"a": "[]"}),
        ({"a": Path("x") / "y"}, {"a": str(Path("x") / "y")}),
        ({"a": dt.date(2024, 1, 2)}, {"a": "2024-01-02"}),
        ({"a": dt.timedelta(hours=1)}, {"a": "1:00:00"}),
        ({"a": math.sqrt, "b": Model, "c": b"x"}, {"a": "sqrt", "b": "Model", "c": "b'x'"}),
        ({"a": Model(), "b": Point(1, 2)}, {"a/width": 8, "a/layers": "[1, 2]", "b/x": 1}),
        (Model(), {"width": 8, "layers": "[1, 2]"}),
        (Point(1, 2), {"x": 1, "y": 2}),
        (SimpleNamespace(a=1), {"a": 1}),
        (argparse.Namespace(a=1, b=SimpleNamespace(c=2)), {"a": 1, "b/c": 2}),
        (OrderedDict(a=1), {"a": 1}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (Configuration(a=Configuration(b=1)), {"a/b": 1}),
    ],
)
def test_configurations_are_flattened(values, expected):
    flat = flatten(values, "hparams")
    assert {name: flat[name] for name in expected} == expected
    assert all(type(value) in {bool, int, float, str, type(None)} for value in flat.values())
    assert len(json.dumps(flat)) > 1


def test_configurations_of_other_libraries_are_flattened():
    attr = pytest.importorskip("attr")
    pydantic = pytest.importorskip("pydantic")
    ours = attr.make_class("Ours", ["a"])
    theirs = pydantic.create_model("Theirs", b=(int, 2))
    assert flatten(ours(theirs()), "hparams") == {"a/b": 2}
    assert flatten(theirs(), "hparams") == {"b": 2}


def test_what_torch_has_is_flattened():
    torch = pytest.importorskip("torch")
    values = {
        "dtype": torch.bfloat16,
        "device": torch.device("cuda", 0),
        "number": torch.tensor([0.5], requires_grad=True),
        "bool": torch.tensor(True),
        "size": torch.Size([2, 3]),
        "layer": torch.nn.ReLU(),
        "activation": torch.nn.functional.relu,
    }
    assert flatten(values, "hparams") == {
        "dtype": "torch.bfloat16",
        "device": "cuda:0",
        "number": 0.5,
        "bool": True,
        "size": "[2, 3]",
        "layer": "ReLU()",
        "activation": "relu",
    }


PLAIN = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text()
NAMES = st.text(st.characters(exclude_characters="/", codec="utf-8"), min_size=1)


@settings(deadline=None)  # it is not about time
@given(st.dictionaries(NAMES, PLAIN | st.dictionaries(NAMES, PLAIN, max_size=3), max_size=5))
def test_plain_values_stay_what_they_are(values):
    expected = {}
    for name, value in values.items():
        part = {f"{name}/{key}": v for key, v in value.items()} if isinstance(value, dict) else None
        expected.update({name: value} if part is None else part)
    assert repr(flatten(values, "hparams")) == repr(expected)


def holds_itself():
    values = {}
    values["inner"] = values
    return values


def list_that_holds_itself():
    values = []
    values.append(values)
    return {"a": values}


class Unreadable(Configuration):
    def __getitem__(self, key):
        raise KeyError(f"{key} is mandatory")


@pytest.mark.parametrize(
    ("values", "error", "says"),
    [
        (None, InvalidTypeError, "hparams: expected a mapping.*got None"),
        ([("a", 1)], InvalidTypeError, "hparams: expected a mapping.*list"),
        ("lr=1", InvalidTypeError, "hparams: expected a mapping.*'lr=1'"),
        (Model, InvalidTypeError, "hparams: expected a mapping"),
        ({"a": {"b": object()}}, InvalidTypeError, "'a/b': a value of type object.*no stable text"),
        ({"a": [object()]}, InvalidTypeError, "'a': a value of type object"),
        ({"a": np.zeros(3)}, InvalidValueError, r"'a'.*shape \(3,\).*tolist"),
        ({"a": np.zeros(0)}, InvalidValueError, r"'a'.*shape \(0,\)"),
        ({"a": 10**400}, InvalidValueError, "'a'.*too large.*as a str"),
        ({"a/b": 1, "a": {"b": 2}}, InvalidValueError, "two values are named 'a/b'"),
        ({1: 1, "1": 2}, InvalidValueError, "two values are named '1'"),
        ({"": 1}, InvalidValueError, "the name of the value 1 is empty"),
        ({"a": {"": 1}}, InvalidValueError, "the name of the value 1 is empty"),
        ({object(): 1}, InvalidTypeError, "the key <object"),
        (holds_itself(), InvalidValueError, "'inner'.*does it contain itself"),
        (list_that_holds_itself(), InvalidValueError, "'a': nested.*does it contain itself"),
        ({"a": Unreadable(b=1)}, InvalidTypeError, "'a': cannot read.*mandatory"),
    ],
)
def test_what_is_not_plain_and_has_no_text_is_refused_by_name(values, error, says):
    with pytest.raises(error, match=says):
        flatten(values, "hparams")


def nested(levels):
    value = [1]
    for _ in range(levels):
        value = [value]
    return value


def branching():
    tree = []
    tree += [tree, tree, {"again": tree}]
    return tree


def branching_mapping():
    tree = {}
    tree.update(left=tree, right={"inner": tree})
    return tree


def object_array():
    array = np.empty((), object)
    array[()] = array
    return array


def array_in_list():
    array = np.empty(1, object)
    array[0] = [array]
    return array


def namespace():
    tree = SimpleNamespace()
    tree.left = tree.right = tree
    return tree


@pytest.mark.parametrize(
    "make",
    [branching, branching_mapping, object_array, array_in_list, namespace, lambda: nested(40)],
)
def test_nothing_recurses_for_ever(make):
    with pytest.raises(InvalidValueError, match="does it contain itself"):
        flatten({"a": make()}, "hparams")


def test_equal_parts_may_be_repeated():
    part = {"b": [1, 2]}
    shared = [part, part]
    assert flatten({"a": shared, "c": part}, "hparams") == {
        "a": "[{b: [1, 2]}, {b: [1, 2]}]",
        "c/b": "[1, 2]",
    }
    assert flatten({"a": nested(20)}, "hparams") == {"a": "[" * 21 + "1" + "]" * 21}


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.longdouble(4), 4.0),
        (np.array([np.longdouble(4)]), 4.0),
        (np.clongdouble(1 + 2j), "(1+2j)"),
        (np.complex64(1 + 2j), "(1+2j)"),
        (np.float16(0.5), 0.5),
        (np.datetime64("2026-12-01T01:02:03", "ns"), "2026-12-01T01:02:03.000000000"),
        (np.datetime64("2026-12-01"), "2026-12-01"),
        (np.array(["2026-12-01"], "datetime64[D]"), "2026-12-01"),
        (np.timedelta64(5, "ns"), "5 nanoseconds"),
        (np.array([["x"]], object), "x"),
        (np.void(b"ab"), "b'ab'"),
        (np.str_("x"), "x"),
        (np.bool_(1), True),
    ],
    ids=repr,
)
def test_odd_scalars_of_numpy(value, plain):
    found = flatten({"a": value}, "hparams")["a"]
    assert (found, type(found)) == (plain, type(plain))


def test_combinations_of_flags_have_a_name():
    class Color(Flag):
        RED = 1
        BLUE = 2

    found = flatten({"none": Color(0), "both": Color.RED | Color.BLUE, "one": Color.RED}, "hparams")
    assert found["one"] == "RED"
    assert "RED" in found["both"]
    assert found["none"]
