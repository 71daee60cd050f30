"""Kineto's traces in TensorBoard's Profile tab, as reported by its server."""

import csv
import gzip
import io
import json
import re
import urllib.parse
import urllib.request

import kineto_traces
import profiles
import pytest
from browser import tensorboard

from sm_tblog import Writer, import_trace, torch_trace_handler

pytestmark = pytest.mark.slow

pytest.importorskip("xprof", reason="the plugin of the Profile tab: pip install xprof")
torch = pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("viewer")
    trace = folder / "made.pt.trace.json"
    trace.write_text(kineto_traces.dumps(kineto_traces.gpu_trace()))
    import_trace(folder / "gpu", trace, "made")
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))
    with (
        Writer(folder / "cpu") as writer,
        torch.profiler.profile(
            schedule=torch.profiler.schedule(wait=1, warmup=1, active=4, repeat=1),
            on_trace_ready=torch_trace_handler(writer, keep_trace=True),
            profile_memory=True,
        ) as profile,
    ):
        writer.add_scalar("loss", 1, 0)
        for _ in range(6):
            model(torch.ones(32, 64)).sum().backward()
            profile.step()
    return folder


@pytest.fixture(scope="module")
def ask(logdir):
    """``ask(run, tool, route="data")`` returns the response of the plugin as text."""

    def is_ready(address):
        with urllib.request.urlopen(f"{address}data/plugin/scalars/tags") as answer:
            return "cpu" in json.load(answer)

    def get(address, path, **query):
        url = f"{address}data/plugin/profile/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url) as answer:
            data = answer.read()
        return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()

    with tensorboard(logdir, is_ready) as address:

        def ask(run, tool, route="data"):
            [session] = profiles.sessions(logdir / run)
            name = f"{run}/{session}"
            assert tool in json.loads(get(address, "run_tools", run=name))
            [host] = json.loads(get(address, "hosts", run=name, tag=tool))
            return get(address, route, run=name, tag=tool, host=host["hostname"])

        yield ask


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_the_kernel_table_sums_to_the_kernels(ask):
    rows = rows_of(ask("gpu", "kernel_stats", "data_csv"))
    total = sum(float(row["Total Duration (μs)"]) for row in rows)
    assert total == pytest.approx(kineto_traces.kernels_ns() / 1000, abs=1e-6)
    by_name = {row["Kernel Name"]: row for row in rows}
    kernel = by_name["gemm_mm"]
    assert float(kernel["Occurrences"]) == 2 * kineto_traces.STEPS
    assert kernel["Op Name"] == "aten__mm"
    assert (kernel["Block dim"], kernel["Grid dim"]) == ("128,1,1", "16,2,1")
    assert float(kernel["Registers per thread"]) == 64
    assert float(kernel["Shared Mem bytes"]) == 1024


def test_operators_sum_to_what_they_and_their_kernels_took(ask):
    rows = rows_of(ask("gpu", "framework_op_stats", "data_csv"))
    shown = {
        (row["Host/device"], row["Operation Name"]): float(row["Total time (us)"]) for row in rows
    }
    steps = kineto_traces.STEPS
    assert shown["Host", "aten__mm"] == pytest.approx(2 * steps * 20.5)
    device = 2 * sum(kineto_traces.KERNEL_NS + 1000 * step for step in range(steps)) / 1000
    assert shown["Device", "aten__mm"] == pytest.approx(device)


def test_the_steps_of_a_gpu_have_their_kernels_copies_and_collectives(ask):
    tables = json.loads(ask("gpu", "overview_page"))
    table = next(one for one in tables if "deviceComputeTimeMs" in str(one.get("cols")))
    columns = [one["id"] for one in table["cols"]]
    found = [
        dict(zip(columns, (cell["v"] for cell in row["c"]), strict=True)) for row in table["rows"]
    ]
    computing = [
        len(kineto_traces.LAUNCHES) * (kineto_traces.KERNEL_NS + 1000 * step) / 1e6
        for step in range(kineto_traces.STEPS)
    ]
    assert [row["deviceComputeTimeMs"] for row in found] == pytest.approx(computing, abs=2e-3)
    collective = [9.5e-3] * kineto_traces.STEPS
    assert [row["deviceCollectivesTimeMs"] for row in found] == pytest.approx(collective)
    assert [row["infeedTimeMs"] for row in found] == pytest.approx([8.25e-3] * len(found))
    assert "A100" in json.dumps(tables) or "Ampere" in json.dumps(tables)


def test_operators_of_pytorch_sum_to_their_trace(ask, logdir):
    [kept] = logdir.glob("cpu/plugins/profile/*/*.pt.trace.json.gz")
    raw = profiles.sums(
        (re.sub(r"[^\w.-]+", "__", e["name"]), e["duration"])
        for e in profiles.raw_events(profiles.raw_trace(kept), "cpu_op")
    )
    rows = rows_of(ask("cpu", "framework_op_stats", "data_csv"))
    shown = {
        row["Operation Name"]: (float(row["#Occurrences"]), float(row["Total time (us)"]))
        for row in rows
        if row["Operation Name"] != "IDLE"
    }
    assert set(shown) == {name for name, _ in raw}
    for name, (number, total) in shown.items():
        assert number == raw[name, "count"]
        assert total == pytest.approx(raw[name, "ns"] / 1000, abs=1e-6)


def test_the_steps_of_pytorchs_schedule_are_the_viewers(ask, logdir):
    host = list(profiles.events_of(profiles.only_session(logdir / "cpu"), "/host:CPU"))
    steps = {e.stats["step_num"]: e.duration / 1e6 for e in host if e.name == "step"}
    tables = json.loads(ask("cpu", "overview_page"))
    table = next(one for one in tables if "steptime" in str(one.get("cols")).lower())
    shown = {}
    for row in table["rows"]:
        text = next(str(cell["v"]) for cell in row["c"] if "duration" in str(cell["v"]))
        shown[int(re.match(r"Step step (\d+)", text)[1])] = row["c"][-1]["v"]
    assert list(shown) == [2, 3, 4, 5]
    assert shown == pytest.approx(steps, abs=1e-6)


def test_the_memory_profile_has_every_allocation(ask, logdir):
    host = list(profiles.events_of(profiles.only_session(logdir / "cpu"), "/host:CPU"))
    allocated = [e for e in host if e.name == "MemoryAllocation"]
    freed = [e for e in host if e.name == "MemoryDeallocation"]
    memory = json.loads(ask("cpu", "memory_profile"))["memoryProfilePerAllocator"]["cpu"]
    summary = memory["profileSummary"]
    peak = max(e.stats["bytes_allocated"] for e in allocated)
    assert int(summary["peakStats"]["heapAllocatedBytes"]) == peak
    shown = [one["activityMetadata"] for one in memory["sampledTimelineSnapshots"]]
    activities = [one["memoryActivity"] for one in shown]
    assert activities.count("ALLOCATION") == len(allocated)
    assert activities.count("DEALLOCATION") == len(freed)


def test_the_trace_viewer_has_threads_streams_and_every_event(ask, logdir):
    trace = json.loads(ask("gpu", "trace_viewer@"))
    lines = {e["args"]["name"] for e in trace["traceEvents"] if e.get("name") == "thread_name"}
    assert {"Stream #7", "Stream #20", "Stream #21"} <= {line.partition("(")[0] for line in lines}
    assert {"thread 100 (python)", "thread 101 (pt_autograd_0)"} <= lines
    shown = [e for e in trace["traceEvents"] if e.get("ph") == "X"]
    events = list(profiles.events_of(profiles.only_session(logdir / "gpu")))
    for name in ("gemm_mm", "aten::mm", "cudaLaunchKernel", "Memset (Device)", "ProfilerStep#5"):
        number = sum(e.name == name for e in events)
        assert sum(e["name"] == name for e in shown) >= number > 0
