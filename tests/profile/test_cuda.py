"""Sessions with a real GPU: they contain its work, and recording does not wait for it.

If the environment variable ``PROFILE_OUT`` is set to a folder, the sessions and the raw traces are
left there.
"""

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import profiles
import pytest

from sm_tblog import Schedule, Writer, import_trace, torch_trace_handler

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU"),
    pytest.mark.filterwarnings("ignore:Warning. Profiler clears events:UserWarning"),
]

GPU = "/device:GPU:0"
SIZE = 256


@pytest.fixture
def out(tmp_path, request):
    folder = os.environ.get("PROFILE_OUT")
    place = Path(folder, request.node.name) if folder else tmp_path
    place.mkdir(parents=True, exist_ok=True)
    return place


@pytest.fixture(scope="module", autouse=True)
def warm():
    """Load contexts, libraries and kernels before the tests measure anything."""
    train = make_training()
    for _ in range(3):
        train()
    with torch.profiler.profile(activities=list(torch.profiler.supported_activities())):
        train()
    torch.cuda.synchronize()


def make_training():
    """Return a training step that copies and computes without waiting for the GPU."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(SIZE, 4 * SIZE), torch.nn.GELU(), torch.nn.Linear(4 * SIZE, SIZE)
    ).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    batch = torch.randn(64, SIZE).pin_memory()

    def train():
        x = batch.to("cuda", non_blocking=True)
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    return train


def all_kinds_of_work():
    """Kernels on two streams, copies each way, fills, and a graph of kernels."""
    a = torch.randn(SIZE, SIZE).pin_memory().to("cuda", non_blocking=True)
    b = torch.empty_like(a).copy_(a)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side), torch.profiler.record_function("on the side"):
        c = a @ b
        d = torch.zeros(SIZE * SIZE, device="cuda", dtype=torch.uint8)
    torch.cuda.current_stream().wait_stream(side)
    return (c + b).cpu(), d


def gpu_sums(message):
    on_gpu = list(profiles.events_of(message, "/device:GPU:"))
    return on_gpu, profiles.sums((e.name, e.duration) for e in on_gpu)


def raw_sums(trace):
    raw = list(profiles.raw_events(trace, *profiles.KERNELS))
    return raw, profiles.sums((profiles.as_shown(e["name"]), e["duration"]) for e in raw)


def test_sums_of_kernels_copies_and_operators_are_the_raw_traces(out):
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    profile = torch.profiler.profile(
        activities=activities, record_shapes=True, profile_memory=True, with_stack=True
    )
    train = make_training()
    with profile:
        for step in range(4):
            with torch.profiler.record_function(f"ProfilerStep#{step}"):
                train()
                all_kinds_of_work()
    with Writer(out) as writer:
        torch_trace_handler(writer, keep_trace=True)(profile)
    message = profiles.only_session(out)
    [kept] = out.glob("plugins/profile/*/*.pt.trace.json.gz")
    trace = profiles.raw_trace(kept)
    on_gpu, found = gpu_sums(message)
    raw, expected = raw_sums(trace)
    assert found == expected
    assert len([e for e in raw if e["cat"] == "kernel"]) > 4 * 10
    # PyTorch's own view of the same results, which does not go through the file.
    results = [
        event
        for event in profile.profiler.kineto_results.events()
        if event.device_type() == torch.autograd.DeviceType.CUDA and not event.is_user_annotation()
    ]
    assert sum(event.duration_ns() for event in results) == sum(e.duration for e in on_gpu)
    host = list(profiles.events_of(message, "/host:CPU"))
    operators = [e for e in host if "tf_op" in e.stats]
    raw_operators = list(profiles.raw_events(trace, "cpu_op"))
    assert profiles.sums((e.name, e.duration) for e in operators) == profiles.sums(
        (e["name"], e["duration"]) for e in raw_operators
    )
    calls = list(profiles.raw_events(trace, "cuda_runtime", "cuda_driver"))
    names = {e["name"] for e in calls}
    assert profiles.sums((e.name, e.duration) for e in host if e.name in names) == profiles.sums(
        (e["name"], e["duration"]) for e in calls
    )
    assert sorted(e.stats["step_num"] for e in host if e.name == "step") == [0, 1, 2, 3]
    assert not message.warnings


def test_streams_launches_copies_and_the_device_are_described(out):
    with Writer(out) as writer:
        with torch.profiler.profile(
            on_trace_ready=torch_trace_handler(writer, keep_trace=True), profile_memory=True
        ):
            kept = [all_kinds_of_work() for _ in range(3)]
        del kept
    message = profiles.only_session(out)
    on_gpu = list(profiles.events_of(message, GPU))
    assert len({(e.line, e.line_id) for e in on_gpu if "kernel_details" in e.stats}) >= 2
    kinds = Counter(e.name[:10] for e in on_gpu if e.name.startswith("MEMCPY"))
    assert {"MEMCPYHtoD", "MEMCPYDtoH", "MEMCPYDtoD"} <= set(kinds)
    copied = [e.stats["memcpy_details"] for e in on_gpu if e.name.startswith("MEMCPYHtoD")]
    assert copied.count(f"num_bytes:{4 * SIZE * SIZE}") == 3
    launches = {
        e.stats["correlation_id"]: e
        for e in profiles.events_of(message, "/host:CPU")
        if "correlation_id" in e.stats
    }
    for event in on_gpu:
        assert event.stats["correlation_id"] in launches, event
    kernels = [e for e in on_gpu if "kernel_details" in e.stats]
    for event in kernels:  # the two clocks agree to a few microseconds
        assert event.begin > launches[event.stats["correlation_id"]].begin - 100_000
    assert any(e.stats.get("tf_op", "").endswith(":mm") for e in kernels)
    plane = profiles.plane_of(message, GPU)
    said = profiles.stats_of(plane, plane.stats)
    properties = torch.cuda.get_device_properties(0)
    assert said["gpu_device_name"] == properties.name
    assert said["core_count"] == properties.multi_processor_count
    assert said["memory_size"] == properties.total_memory
    assert (said["compute_cap_major"], said["compute_cap_minor"]) == (
        properties.major,
        properties.minor,
    )
    allocated = [
        e
        for e in profiles.events_of(message, "/host:CPU")
        if e.name == "MemoryAllocation" and e.stats["allocator_name"] == "cuda:0"
    ]
    assert sum(e.stats["allocation_bytes"] >= 4 * SIZE * SIZE for e in allocated) >= 9


def test_kernels_of_a_graph_are_all_there(out):
    static = torch.randn(SIZE, SIZE, device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        static @ static
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(5):
            static @ static
    profile = torch.profiler.profile()
    with profile:
        for _ in range(3):
            graph.replay()
    profile.export_chrome_trace(str(out / "raw.pt.trace.json"))
    session = import_trace(out / "session", out / "raw.pt.trace.json", keep_trace=True)
    message = profiles.only_session(out / "session")
    _, found = gpu_sums(message)
    raw, expected = raw_sums(profiles.raw_trace(out / "raw.pt.trace.json"))
    assert found == expected
    assert sum(e["cat"] == "kernel" for e in raw) >= 15
    assert session in profiles.sessions(out / "session")


def test_a_session_of_the_writer_has_steps_spans_and_kernels(out):
    train = make_training()
    torch.cuda.synchronize()
    with Writer(out) as writer, writer.profile("whole", torch={"keep_trace": True}, memory=True):
        for step in range(5):
            with writer.step_span(step), writer.span("training", "compute"):
                train()
    message = profiles.only_session(out)
    host = list(profiles.events_of(message, "/host:CPU"))
    steps = {e.stats["step_num"]: e for e in host if e.name == "step"}
    assert sorted(steps) == list(range(5))
    [kept] = out.glob("plugins/profile/whole/*.pt.trace.json.gz")
    trace = profiles.raw_trace(kept)
    _, found = gpu_sums(message)
    begin = min(e.begin for e in host if e.name == "step")
    late = [e for e in profiles.raw_events(trace, *profiles.KERNELS) if e["begin"] >= begin]
    expected = profiles.sums((profiles.as_shown(e["name"]), e["duration"]) for e in late)
    assert found == expected
    assert found
    # The clocks agree: each step's operators are inside it.
    operators = [e for e in host if e.name == "aten::linear"]
    assert len(operators) == 10
    for event in operators:
        assert any(s.begin <= event.begin and event.end <= s.end for s in steps.values())
    lines = {e.line_id for e in host if e.name in ("step", "training", "aten::linear")}
    assert len(lines) == 1, "operators stand inside the spans, on one line"


def busy(seconds=0.5):
    """Keep the GPU busy for about that long; return an event for the end of the work."""
    torch.cuda._sleep(int(seconds * 1.5e9))
    done = torch.cuda.Event()
    done.record()
    return done


def test_nothing_waits_for_the_device_outside_the_active_window(out):
    train = make_training()
    waited = []
    with Writer(out) as writer:
        schedule = Schedule(skip_first=1, wait=2, warmup=2, active=3, repeat=1)
        with writer.profiler(schedule, torch={"keep_trace": True}) as profiler:
            for number in range(10):
                done = busy() if number != 7 else None  # whose step() ends the session
                torch.cuda.set_sync_debug_mode("error")
                try:
                    with writer.step_span(number):
                        train()
                        writer.add_scalar("step", number, number)
                    if done is not None:
                        profiler.step()
                        if done.query():
                            waited.append(number)
                finally:
                    torch.cuda.set_sync_debug_mode("default")
                if done is None:
                    profiler.step()
                torch.cuda.synchronize()
        assert waited == []
        # Building the file in the background does not wait, either.
        done = busy(2)
        assert writer.flush()
        assert not done.query()
    message = profiles.only_session(out)
    host = list(profiles.events_of(message, "/host:CPU"))
    steps = sorted((e for e in host if e.name == "step"), key=lambda e: e.begin)
    assert [e.stats["step_num"] for e in steps] == [5, 6, 7]
    waits = [e for e in host if "Synchronize" in e.name]
    for event in waits:  # the test's own, between the steps
        assert not any(s.begin <= event.begin < s.end for s in steps), event


def test_what_a_session_costs_is_said(out):
    """Print the figures, without asserting bounds."""
    train = make_training()

    def measure(profiled):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        with Writer(out / "cost") as writer:
            if profiled:
                session = writer.profile(torch=True)
                session.__enter__()
                opened = time.perf_counter()
                for _ in range(200):
                    train()
                ended = time.perf_counter()
                session.__exit__(None, None, None)
                closed = time.perf_counter()
                assert writer.flush()
                written = time.perf_counter()
                return opened - begin, ended - opened, closed - ended, written - closed
            for _ in range(200):
                train()
            return (time.perf_counter() - begin,)

    plain = min(measure(profiled=False)[0] for _ in range(5))
    opened, ran, closed, written = min(
        (measure(profiled=True) for _ in range(5)), key=lambda m: m[1]
    )
    text = (
        f"200 steps: {plain * 1e3:.1f} ms, in a session {ran * 1e3:.1f} ms; it opened in "
        f"{opened * 1e3:.1f} ms, closed in {closed * 1e3:.1f} ms, and was written in "
        f"{written * 1e3:.1f} ms more ({torch.cuda.get_device_name()}, torch {torch.__version__})"
    )
    print(text)  # noqa: T201 - what the test is for
    (out / "cost.txt").write_text(text + "\n")


JAX = """
import sys
import jax, jax.numpy as jnp
from sm_tblog import Writer
if jax.default_backend() != "gpu":
    print("no GPU")
    sys.exit()
f = jax.jit(lambda x: jnp.tanh(x @ x).sum())
x = jnp.ones((512, 512))
f(x).block_until_ready()
with Writer(sys.argv[1]) as writer:
    with writer.profile("jax", jax=True):
        for step in range(5):
            with writer.step_span(step):
                f(x).block_until_ready()
"""


def test_a_session_of_jax_has_kernels(out):
    pytest.importorskip("jax", reason="JAX is not installed")
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    # In a separate process: only one subscriber can get a GPU's activities.
    run = subprocess.run(
        [sys.executable, "-c", JAX, str(out)],
        check=True, env=environment, capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    if run.stdout.startswith("no GPU"):
        pytest.skip("JAX finds no GPU")
    events = [
        e
        for files in profiles.sessions(out).values()
        for file in files
        for e in profiles.events_of(profiles.XSpace.FromString(file.read_bytes()))
    ]
    assert sum(e.plane.startswith("/device:GPU") and e.duration > 0 for e in events) >= 5
    assert sum(e.name == "step" for e in events) == 5


def test_the_viewers_kernel_table_sums_to_the_raw_traces_kernels(out):
    pytest.importorskip("xprof", reason="xprof is not installed")
    from xprof.convert import raw_to_tool_data

    train = make_training()
    profile = torch.profiler.profile()
    with profile:
        for step in range(4):
            with torch.profiler.record_function(f"ProfilerStep#{step}"):
                train()
    profile.export_chrome_trace(str(out / "raw.pt.trace.json"))
    import_trace(out / "session", out / "raw.pt.trace.json")
    [[file]] = profiles.sessions(out / "session").values()
    data, _ = raw_to_tool_data.xspace_to_tool_data([str(file)], "kernel_stats", {})
    found = profiles.table_sum(data, "total_duration_us")
    raw = profiles.raw_events(profiles.raw_trace(out / "raw.pt.trace.json"), "kernel")
    assert found == pytest.approx(sum(e["duration"] for e in raw) / 1000, abs=0.01)
