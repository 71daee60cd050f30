"""The benchmarks run, with sizes so small that their figures say nothing."""

import importlib
import json
import math
import struct
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytest.importorskip("torch")
pytest.importorskip("tensorboardX")

ROOT = Path(__file__).parent.parent
NAMES = (
    *("caller", "processor", "rate", "histogram", "image", "video", "figure", "embedding"),
    *("adapters", "span", "session", "handler", "conversion", "import", "memory"),
    *("read", "read-tags", "read-memory", "read-images", "s3"),
    *("system", "training", "watch"),
)


@pytest.fixture(autouse=True)
def _found(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


def benchmark_module(name):
    return importlib.import_module(f"benchmarks.{name}")


def a_figure(result, interval, **changes):
    measure = benchmark_module("_measure")
    made = measure.Figure("name", "µs", {"ours": 1.0, "theirs": 3.0}, result, "x", interval)
    return made._replace(**changes)


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_runs_and_says_something(name):
    if name == "system":
        pytest.importorskip("psutil")
    benchmark = benchmark_module("suite").BENCHMARKS[name]
    figures = benchmark.run(**benchmark.tiny)
    assert any(figure.target for figure in figures)
    for figure in figures:
        assert math.isfinite(figure.result)
        assert all(map(math.isfinite, figure.medians.values()))
        assert figure.interval[0] <= figure.result <= figure.interval[1]


def test_every_benchmark_is_run_above():
    assert tuple(benchmark_module("suite").BENCHMARKS) == NAMES


@pytest.mark.parametrize("name", ["sm_tblog", "torch", "tensorboardX"])
def test_every_writer_writes_what_the_benchmarks_log(name, tmp_path):
    writers = benchmark_module("_writers")
    rows = writers.make_rows(120, 50)
    writer = writers.open_writer(name, str(tmp_path))
    writers.log_rows(writer, rows)
    writer.close()
    writers.check_records(str(tmp_path), 120)
    read = EventAccumulator(str(tmp_path), {"scalars": 0}).Reload()
    assert sorted(
        (tag, event.step, event.value)
        for tag in read.Tags()["scalars"]
        for event in read.Scalars(tag)
    ) == sorted(
        (tag, step, struct.unpack("<f", struct.pack("<f", value))[0]) for tag, value, step in rows
    )


def test_a_writer_that_loses_a_record_is_found_out(tmp_path):
    writers = benchmark_module("_writers")
    writer = writers.open_writer("sm_tblog", str(tmp_path))
    writers.log_rows(writer, writers.make_rows(10, 1))
    writer.close()
    with pytest.raises(ValueError, match="holds 10 records instead of 11"):
        writers.check_records(str(tmp_path), 11)


def test_a_file_that_ends_in_a_record_is_found_out(tmp_path):
    writers = benchmark_module("_writers")
    writer = writers.open_writer("sm_tblog", str(tmp_path))
    writers.log_rows(writer, writers.make_rows(10, 1))
    writer.close()
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="ends in the middle of a record"):
        writers.check_records(str(tmp_path), 10)


def test_contestants_take_turns_and_each_begins_a_round():
    turns = []
    contestants = {name: lambda name=name: turns.append(name) or len(turns) for name in "abc"}
    samples = benchmark_module("_measure").interleave(contestants, 3)
    assert "".join(turns) == "abc" + "bca" + "cab"
    assert samples == {"a": [1, 6, 8], "b": [2, 4, 9], "c": [3, 5, 7]}


def test_the_interval_of_a_median_is_that_of_the_tables():
    interval = benchmark_module("_measure").interval_of_median
    assert interval([5.0]) == (5.0, 5.0)
    assert interval([3.0, 1.0, 2.0]) == (1.0, 3.0)
    # The ranks for 20 observations are 6 and 15 (binomial distribution, 95.9 %).
    assert interval(range(1, 21)) == (6, 15)


def test_a_ratio_is_taken_of_neighbours_and_of_the_better_peer():
    samples = {"ours": [1.0, 2.0, 4.0], "slow": [9.0, 9.0, 9.0], "fast": [2.0, 6.0, 8.0]}
    figure = benchmark_module("_measure").less_than_the_best("name", samples, "µs", "ours")
    assert figure.result == 2.0  # of 2, 3 and 2
    assert figure.interval == (2.0, 3.0)


@pytest.mark.parametrize(
    ("at_least", "interval", "verdict"),
    [
        (True, (11.0, 13.0), "met"),
        (True, (9.0, 13.0), "unclear"),
        (True, (7.0, 9.0), "MISSED"),
        (False, (7.0, 9.0), "met"),
        (False, (9.0, 13.0), "unclear"),
        (False, (11.0, 13.0), "MISSED"),
    ],
)
def test_a_verdict_is_given_only_where_the_interval_allows_it(at_least, interval, verdict):
    target = benchmark_module("_measure").Target(10, at_least=at_least)
    figure = a_figure(10.0, interval, target=target)
    report = benchmark_module("_report")
    assert json.loads(report.as_json([figure], {}))["figures"][0]["verdict"] == verdict


@pytest.mark.parametrize("rich", [True, False])
def test_the_table_holds_what_was_measured(rich, capsys, monkeypatch):
    if not rich:
        monkeypatch.setitem(sys.modules, "rich.console", None)
    report = benchmark_module("_report")
    figure = a_figure(12345.6, (0.123456, 99.9), note="a warning")
    report.print_figures([figure], report.machine_facts())
    printed = capsys.readouterr().out
    for text in ("ours 1 µs, theirs 3 µs", "12,346 x", "0.123 to 99.9", "a warning", "numpy: "):
        assert text in printed


def test_the_command_line_saves_what_it_measured(tmp_path, monkeypatch, capsys):
    main = benchmark_module("__main__")
    suite = benchmark_module("suite")
    quick = suite.BENCHMARKS["rate"]._replace(quick=suite.BENCHMARKS["rate"].tiny)
    monkeypatch.setitem(suite.BENCHMARKS, "rate", quick)
    path = tmp_path / "figures.json"
    monkeypatch.setattr(
        sys, "argv", ["benchmarks", "--only", "rate", "--quick", "--json", str(path)]
    )
    main.main()
    assert "sustained rate" in capsys.readouterr().out
    saved = json.loads(path.read_text(encoding="utf-8"))
    assert saved["figures"][0]["medians"]["sm_tblog"] > 0
    assert {"processor", "numpy", "torch"} <= saved["machine"].keys()
