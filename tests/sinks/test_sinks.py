import io
import json
import subprocess
import sys
import threading
from importlib import metadata

import pytest

from sm_tblog import InvalidTypeError, InvalidValueError, MissingDependencyError
from sm_tblog._types import Series
from sm_tblog.sinks import open_sink
from sm_tblog.sinks.base import FunctionSink, as_sink
from sm_tblog.sinks.console import ConsoleSink
from sm_tblog.sinks.event_file import EventFileSink, event_file_name
from sm_tblog.sinks.json_lines import JsonLinesSink
from sm_tblog.testing import SinkTests, make_batch

LOSS = Series("loss")


class TestEventFileSink(SinkTests):
    @pytest.fixture(autouse=True)
    def _reader(self, read_scalars):
        self._read_scalars = read_scalars

    def make_sink(self, logdir):
        return EventFileSink(logdir)

    def read_back(self, logdir):
        runs = self._read_scalars(logdir)
        return {(run, tag): rows for run, tags in runs.items() for tag, rows in tags.items()}


class TestJsonLinesSink(SinkTests):
    def make_sink(self, logdir):
        return JsonLinesSink(logdir)

    def read_back(self, logdir):
        found = {}
        for line in read_lines(logdir):
            if "value" in line:
                row = line["step"], float(line["value"])
                found.setdefault((line["run"], line["tag"]), []).append(row)
        return found


class TestConsoleSink(SinkTests):
    def make_sink(self, logdir):
        return ConsoleSink(logdir)


def ignore(batch):
    pass


class TestFunctionSink(SinkTests):
    def make_sink(self, logdir):
        return as_sink(ignore)


def read_lines(logdir):
    from pathlib import Path

    paths = sorted(Path(logdir).glob("*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def test_names_and_functions_are_sinks(tmp_path):
    assert isinstance(open_sink("events", str(tmp_path)), EventFileSink)
    assert isinstance(open_sink("jsonl", str(tmp_path)), JsonLinesSink)
    assert isinstance(open_sink("console", str(tmp_path)), ConsoleSink)
    given = []
    sink = as_sink(given.append)
    assert isinstance(sink, FunctionSink)
    batch = make_batch([(LOSS, 1, 2.0, 3.0)])
    sink.write(batch)
    assert given == [batch]


@pytest.mark.parametrize("wrong", [3, None, EventFileSink])
def test_what_is_no_sink_is_refused(wrong):
    with pytest.raises(InvalidTypeError, match="a sink must be"):
        as_sink(wrong)


def test_an_unknown_name_is_refused_with_those_known(tmp_path):
    with pytest.raises(InvalidValueError, match=r"'nope'.*console, events, jsonl"):
        open_sink("nope", str(tmp_path))


def test_other_packages_register_sinks_by_entry_point(tmp_path, monkeypatch):
    points = [
        metadata.EntryPoint("mine", "sm_tblog.sinks.json_lines:JsonLinesSink", "sm_tblog.sinks"),
        metadata.EntryPoint("broken", "no_such_package:Sink", "sm_tblog.sinks"),
    ]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points)
    assert isinstance(open_sink("mine", str(tmp_path)), JsonLinesSink)
    with pytest.raises(MissingDependencyError, match="broken"):
        open_sink("broken", str(tmp_path))


def test_event_file_names_never_collide():
    names = []

    def make():
        names.extend(event_file_name() for _ in range(500))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(names)) == 2000
    assert all(name.startswith("events.out.tfevents.") for name in names)


def test_event_file_names_sort_in_the_order_made():
    names = [event_file_name() for _ in range(300)]
    assert names == sorted(names)


def test_a_batch_of_one_series_keeps_the_order_logged(tmp_path, read_scalars):
    sink = EventFileSink(str(tmp_path))
    steps = [5, 300, 2, -7, 10**12, 0, 129] * 30  # steps of every width, mixed
    sink.write(make_batch([(LOSS, step, 1e9, i) for i, step in enumerate(steps)]))
    sink.close()
    assert read_scalars(tmp_path)[""]["loss"] == [(s, float(i)) for i, s in enumerate(steps)]


def test_purging_marks_the_first_file_of_each_run_once(tmp_path, read_events, event_files):
    sink = EventFileSink(str(tmp_path), purge_step=7)
    rows = [(LOSS, 1, 1e9, 1.0), (Series("loss", "sub"), 1, 1e9, 1.0)]
    sink.write(make_batch(rows))
    sink.close()
    sink.write(make_batch(rows))
    sink.close()
    marks = {}
    for path in event_files(tmp_path):
        steps = [e.step for e in read_events(path) if e.WhichOneof("what") == "session_log"]
        marks.setdefault(path.parent.name, []).append(steps)
    assert marks == {tmp_path.name: [[7, 7], []], "sub": [[7, 7], []]}


def test_every_file_begins_with_its_version(tmp_path, read_events, event_files):
    sink = EventFileSink(str(tmp_path), filename_suffix=".mine")
    sink.write(make_batch([(LOSS, 1, 1e9, 1.0)]))
    sink.close()
    (path,) = event_files(tmp_path)
    assert path.name.endswith(".mine")
    assert read_events(path)[0].file_version == "brain.Event:2"


def test_json_lines_are_json_in_every_case(tmp_path):
    sink = JsonLinesSink(str(tmp_path), filename_suffix=".x")
    values = [float("nan"), float("inf"), float("-inf"), 0.5]
    rows = [(Series("lo\nss ü", "run"), i, 1e9, value) for i, value in enumerate(values)]
    sink.write(make_batch(rows, [("note", 9, "two\nlines")]))
    sink.close()
    assert [path.name.endswith(".x.jsonl") for path in tmp_path.iterdir()] == [True]
    lines = read_lines(tmp_path)
    assert [line.get("value") for line in lines] == ["NaN", "Infinity", "-Infinity", 0.5, None]
    assert lines[0]["tag"] == "lo\nss ü"
    assert lines[0]["run"] == "run"
    note = {"run": "", "tag": "note", "step": 9, "wall_time": 1.0, "plugin": "text"}
    assert lines[-1] == {**note, "text": "two\nlines"}


def test_the_console_prints_last_values_now_and_then():
    from rich.console import Console

    screen, now = io.StringIO(), [100.0]
    console = Console(file=screen, width=200)
    sink = ConsoleSink(every=5.0, console=console, clock=lambda: now[0])
    sink.write(make_batch([(LOSS, 1, 1e9, 0.5), (LOSS, 2, 1e9, 0.25)]))
    sink.write(make_batch([(LOSS, 3, 1e9, 0.125)]))
    assert screen.getvalue() == "step 2  loss 0.25\n"
    now[0] += 5
    sink.write(make_batch([(Series("acc[x]", "val"), 4, 1e9, 1.0)]))
    assert screen.getvalue().splitlines()[1] == "step 4  loss 0.125  val/acc[x] 1"
    sink.write(make_batch([(LOSS, 5, 1e9, 7.0)]))
    sink.close()
    sink.close()
    assert screen.getvalue().splitlines()[2:] == ["step 5  loss 7"]


def test_the_console_says_what_to_install():
    source = (
        "import sys; sys.modules['rich.console'] = None\n"
        "from sm_tblog.sinks.console import ConsoleSink\n"
        "try: ConsoleSink()\n"
        "except ImportError as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert out.stdout == "the console sink needs Rich: pip install 'sm-tblog[console]'\n"


def test_counters_can_be_read_while_the_worker_thread_adds_a_run(tmp_path):
    sink = EventFileSink(str(tmp_path))

    class Files:
        @property
        def dropped(self):
            sink._side_files.setdefault("new", Files())
            return 1

    sink._side_files["old"] = Files()
    assert sink.dropped == 1
