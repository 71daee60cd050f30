"""Custom scalars: how TensorBoard's plugin interprets a writer's layout."""

import json
import logging
import pickle
import threading
import types
from collections import UserList

import numpy as np
import pytest
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins import base_plugin
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin
from tensorboard.plugins.scalar.scalars_plugin import ScalarsPlugin

from sm_tblog import InvalidTypeError, InvalidValueError, Writer
from sm_tblog.summary.layout import layout_value


@pytest.fixture
def writer(tmp_path):
    with Writer(tmp_path / "run", on_error="raise") as writer:
        yield writer


@pytest.fixture
def plugin(tmp_path):
    """``plugin()``: TensorBoard's plugin over what has been logged."""

    def load():
        multiplexer = plugin_event_multiplexer.EventMultiplexer()
        multiplexer.AddRunsFromDirectory(str(tmp_path))
        multiplexer.Reload()
        plugins = {}
        provider = data_provider.MultiplexerDataProvider(multiplexer, str(tmp_path))
        context = base_plugin.TBContext(
            data_provider=provider,
            logdir=str(tmp_path),
            multiplexer=multiplexer,
            plugin_name_to_instance=plugins,
        )
        plugins["scalars"] = ScalarsPlugin(context)
        return CustomScalarsPlugin(context)

    return load


@pytest.fixture
def shown(writer, plugin):
    """``shown()``: the charts of the tab, ``{category: {title: patterns or margin}}``."""

    def read():
        assert writer.flush()
        layout = json.loads(plugin().layout_impl(RequestContext(), ""))
        return {
            category["title"]: {
                chart["title"]: chart["multiline"]["tag"]
                if "multiline" in chart
                else chart["margin"]["series"]
                for chart in category["chart"]
            }
            for category in layout["category"]
            if "chart" in category
        }

    return read


MARGIN = [{"value": "acc/mean", "lower": "acc/min", "upper": "acc/max"}]


def test_all_calls_make_one_layout(writer, shown):
    writer.add_custom_scalars(
        {"losses": {"both": ["Multiline", ["loss/train", "loss/val"]]}, "none": {}}
    )
    writer.add_scalars("losses/parts", {"a": 1.0}, 0, layout=True)
    writer.add_custom_scalars_marginchart(["acc/mean", "acc/min", "acc/max"], title="accuracy")
    writer.add_custom_scalars_multilinechart(("lr/.*",), "rates", "all")
    writer.add_scalars("losses/parts", {"a": 0.5, "b": 2.0}, 1, layout=True)
    assert shown() == {
        "losses": {
            "both": ["loss/train", "loss/val"],
            "losses/parts": ["^losses/parts/a$", "^losses/parts/b$"],
        },
        "default": {"accuracy": MARGIN},
        "rates": {"all": ["lr/.*"]},
    }


def test_a_chart_laid_out_again_is_replaced(writer, shown):
    writer.add_custom_scalars_multilinechart(["a", "b"])
    writer.add_custom_scalars_marginchart(["acc/mean", "acc/min", "acc/max"])
    assert shown() == {"default": {"untitled": MARGIN}}
    writer.add_custom_scalars({"default": {"untitled": ("multiline", ("c",))}})
    assert shown() == {"default": {"untitled": ["c"]}}


def test_curves_leave_a_chart_as_the_user_has_laid_it_out(writer, shown):
    writer.add_scalars("loss", {"train": 1.0}, 0, layout=True)
    writer.add_custom_scalars({"loss": {"loss": ["Multiline", ["loss/.*"]]}})
    writer.add_scalars("loss", {"train": 0.5, "val": 1.0}, 1, layout=True)
    assert shown() == {"loss": {"loss": ["loss/.*"]}}


@pytest.mark.parametrize(
    ("given", "matched"),
    [
        ("loss", {"loss", "loss/train", "loss[0]", "loss(a)"}),
        ("^loss$", {"loss"}),
        ("loss/.*", {"loss/train"}),
        ("loss[0]", {"loss[0]"}),
        ("loss(a)", {"loss(a)"}),
        ("c++", {"c++"}),
        ("*", {"*"}),
        ("loss|acc", {"loss", "loss/train", "loss[0]", "loss(a)", "acc"}),
        ("(", {"("}),
    ],
)
def test_a_tag_of_a_multiline_chart_is_a_pattern_and_a_name(writer, plugin, shown, given, matched):
    for tag in ("loss", "loss/train", "loss[0]", "loss(a)", "acc", "c++", "*", "("):
        writer.add_scalar(tag, 1.0, 0)
    writer.add_custom_scalars_multilinechart([given])
    writer.flush()
    tab = plugin()
    ((patterns,),) = (titles.values() for titles in shown().values())
    # As the tab asks for several: tf-custom-scalar-multi-line-chart-card.
    pattern = patterns[0] if len(patterns) == 1 else "|".join(f"({one})" for one in patterns)
    found = tab.scalars_impl(RequestContext(), "run", pattern, "")
    assert found["regex_valid"]
    assert set(found["tag_to_events"]) == matched


@pytest.mark.parametrize(
    ("layout", "error", "says"),
    [
        (None, InvalidTypeError, "a layout must map categories to charts, got None"),
        ([], InvalidTypeError, "a layout must map"),
        ({"a": ["Multiline", ["x"]]}, InvalidTypeError, "'a' must map titles to charts"),
        (
            {"a": {"b": ["x", "y", "z"]}},
            InvalidTypeError,
            "chart 'b' in category 'a' must be a list",
        ),
        ({"a": {"b": "xy"}}, InvalidTypeError, "must be a list of its kind and its tags, got 'xy'"),
        ({"a": {"b": ["Bars", ["x"]]}}, InvalidValueError, "'Multiline' or 'Margin', got 'Bars'"),
        ({"a": {"b": [3, ["x"]]}}, InvalidValueError, "'Multiline' or 'Margin', got 3"),
        ({"a": {"b": ["Multiline", "xy"]}}, InvalidTypeError, "must be a list of str, got 'xy'"),
        ({"a": {"b": ["Multiline", [1]]}}, InvalidTypeError, r"must be a list of str, got \[1\]"),
        ({"a": {"b": ["Multiline", []]}}, InvalidValueError, "'b' in category 'a' has no tags"),
        ({"a": {"b": ["Margin", ["x", "y"]]}}, InvalidValueError, "expected three tags"),
        ({"a": {"b": ["Margin", ["x"] * 4]}}, InvalidValueError, "expected three tags"),
        ({1: {"b": ["Multiline", ["x"]]}}, InvalidTypeError, "the title must be str"),
        ({"a": {None: ["Multiline", ["x"]]}}, InvalidTypeError, "the title must be str"),
    ],
)
def test_a_bad_layout_is_refused_at_the_call(writer, layout, error, says):
    writer.add_custom_scalars_multilinechart(["x"])
    with pytest.raises(error, match=says):
        writer.add_custom_scalars(layout)
    writer.flush()
    assert writer.stats().values_written == 1


def test_a_bad_chart_is_refused_at_the_call(writer):
    with pytest.raises(InvalidTypeError, match="must be a list of str"):
        writer.add_custom_scalars_multilinechart("loss")
    with pytest.raises(InvalidValueError, match="expected three tags"):
        writer.add_custom_scalars_marginchart(["loss"])
    with pytest.raises(InvalidTypeError, match="str"):
        writer.add_custom_scalars_multilinechart(["loss"], 3)


def test_the_parts_of_a_layout_may_be_of_any_such_type(writer, shown):
    tags = {"a": 1, "b": 2}
    layout = types.MappingProxyType(
        {"x": types.MappingProxyType({"y": ("multiline", tags.keys())})}
    )
    writer.add_custom_scalars(layout)
    writer.add_custom_scalars_multilinechart(np.array(["a", "b"]))
    writer.add_custom_scalars_marginchart(UserList("abc"), "x")
    assert shown() == {
        "x": {"y": ["a", "b"], "untitled": [{"value": "a", "lower": "b", "upper": "c"}]},
        "default": {"untitled": ["a", "b"]},
    }


def test_a_layout_may_change_after_the_call(writer, shown):
    tags = ["a"]
    layout = {"x": {"y": ["Multiline", tags]}}
    writer.add_custom_scalars(layout)
    tags.append("b")
    layout["z"] = None
    assert shown() == {"x": {"y": ["a"]}}


def test_threads_lose_no_chart(writer, shown):
    def log(thread):
        for i in range(20):
            writer.add_custom_scalars_multilinechart(["x"], f"of {thread}", str(i))
            writer.add_scalars("all", {f"{thread} {i}": 1.0}, i, layout=True)

    threads = [threading.Thread(target=log, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    charts = shown()
    assert all(len(charts[f"of {thread}"]) == 20 for thread in range(4))
    assert len(charts["all"]["all"]) == 80


def test_a_copied_writer_knows_the_charts(writer, shown):
    writer.add_custom_scalars_multilinechart(["x"], title="first")
    writer.add_scalars("all", {"a": 1.0}, 0, layout=True)
    writer.flush()
    with pickle.loads(pickle.dumps(writer)) as copy:
        copy.add_custom_scalars_multilinechart(["x"], title="second")
    assert shown() == {"default": {"first": ["x"], "second": ["x"]}, "all": {"all": ["^all/a$"]}}


def test_a_layout_names_cleaned_tags_as_they_are_written(tmp_path, shown, read_scalars):
    with Writer(tmp_path / "run", clean_tags=True, on_error="raise") as writer:
        writer.add_scalars("loss, all", {"a b": 1.0}, 0, layout=True)
        writer.add_custom_scalars_marginchart(["x y", "/l", "u!"], "c")
        writer.add_custom_scalars_multilinechart(["x y", "x.*"], "c", "lines")
    assert list(read_scalars(tmp_path)["run"]) == ["loss__all/a_b"]
    assert shown() == {
        "loss, all": {"loss, all": ["^loss__all/a_b$"]},
        "c": {
            "untitled": [{"value": "x_y", "lower": "l", "upper": "u_"}],
            "lines": ["x y", "^x_y$", "x.*"],
        },
    }


def test_what_tensorboard_fails_to_draw_is_said(writer, caplog):
    with caplog.at_level(logging.WARNING, "sm_tblog"):
        writer.add_scalars("loss", {"all (raw)": 1.0}, 0, layout=True)
        writer.flush()
    assert "cannot draw the chart 'loss': a tag contains a parenthesis" in caplog.text


def test_a_disabled_writer_lays_out_nothing(tmp_path):
    writer = Writer(tmp_path / "run", enabled=False)
    writer.add_custom_scalars({"a": {"b": ["Multiline", ["x"]]}})
    writer.add_scalars("loss", {"a": 1.0}, 0, layout=True)
    assert not (tmp_path / "run").exists()


def test_an_empty_layout_is_one():
    value, warning = layout_value("custom_scalars__config__", ())
    assert layout_pb2.Layout.FromString(value.tensor.string_val[0]) == layout_pb2.Layout()
    assert not warning
