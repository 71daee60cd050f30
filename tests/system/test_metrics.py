"""System metrics, with real psutil and fake GPUs and control groups."""

import itertools
import os
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest
from cgroup_trees import GIB, LATER_V1, LATER_V2, V1, V2, below, make_tree
from hypothesis import given
from hypothesis import strategies as st

from sm_tblog import InvalidTypeError, InvalidValueError, SystemMetrics, Writer
from sm_tblog.system import gpu as gpus
from sm_tblog.system import metrics as module
from sm_tblog.system import rates
from sm_tblog.system.cgroup import Cgroup

psutil = pytest.importorskip("psutil", reason="needs psutil: pip install 'sm-tblog[system]'")

RANKS = ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID")


pytestmark = pytest.mark.usefixtures("without_gpus_and_ranks")


def work(seconds):
    """Use that much processor time, so that kernel counters move; return the actual amount."""
    before = time.process_time()
    while time.process_time() < before + seconds:
        pass
    return time.process_time() - before


# The machine and the process.


def test_every_sensor_of_the_machine_says_something_plausible(writer, clock):
    metrics = SystemMetrics(writer)
    metrics.sample()
    work(0.05)
    clock(10)
    values = metrics.sample()
    total = psutil.virtual_memory().total / GIB
    assert 0 <= values["system/cpu/percent"] <= values["system/cpu/busiest_core_percent"] <= 100.01
    assert 0 < values["system/memory/used_gib"] < total
    assert values["system/memory/percent"] == pytest.approx(
        100 * values["system/memory/used_gib"] / total
    )
    usage = psutil.disk_usage(writer.log_dir)
    assert values["system/disk/used_percent"] == pytest.approx(usage.percent, abs=5)
    assert values["system/disk/free_gib"] == pytest.approx(usage.free / GIB, rel=0.2)
    assert values["system/process/threads"] >= 1
    own = psutil.Process().memory_info().rss / GIB
    assert values["system/process/memory_gib"] >= 0.5 * own
    for name in ("sent", "received"):
        assert values[f"system/network/{name}_mb_per_s"] >= 0


def test_rates_begin_with_the_second_sample(writer, clock):
    metrics = SystemMetrics(writer)
    first = metrics.sample()
    assert "system/memory/percent" in first
    assert not any("per_s" in tag or "cpu" in tag for tag in first)
    work(0.05)
    clock(1)
    assert {"system/cpu/percent", "system/process/cpu_cores"} <= set(metrics.sample())


def test_processor_time_of_the_process_is_told_in_cores(writer, clock):
    metrics = SystemMetrics(writer)
    metrics.sample()
    used = work(0.2)
    clock(0.4)
    assert metrics.sample()["system/process/cpu_cores"] == pytest.approx(used / 0.4, abs=0.1)


WORKER = """
import subprocess, sys
grandchild = "import sys; held = b'x' * (64 << 20); print(flush=True); sys.stdin.read()"
with subprocess.Popen([sys.executable, "-c", grandchild], stdin=subprocess.PIPE):
    sys.stdin.read()
"""


@pytest.mark.parametrize("listed", [True, False], ids=["kernel's list", "all processes"])
def test_children_and_theirs_are_part_of_the_process(writer, monkeypatch, listed):
    if not listed:
        real = Path.exists
        monkeypatch.setattr(Path, "exists", lambda path: path.name != "children" and real(path))
    metrics = SystemMetrics(writer)
    alone = metrics.sample()
    with subprocess.Popen(
        [sys.executable, "-c", WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        worker.stdout.readline()  # the grandchild has allocated its memory
        values = metrics.sample()
        worker.communicate()
    more = values["system/process/memory_gib"] - alone["system/process/memory_gib"]
    assert values["system/process/children"] == alone["system/process/children"] + 2
    assert more > (64 << 20) / GIB
    assert metrics.sample()["system/process/children"] == alone["system/process/children"]


def test_what_leads_back_to_this_machine_is_no_network(writer, clock, monkeypatch):
    counts = itertools.count(0, 5_000_000)
    one = types.SimpleNamespace

    def counters(pernic):
        assert pernic
        sent = next(counts)
        return {
            "lo": one(bytes_sent=77 * sent, bytes_recv=77 * sent),
            "eth0": one(bytes_sent=sent, bytes_recv=2 * sent),
            "eth1": one(bytes_sent=sent, bytes_recv=0),
        }

    monkeypatch.setattr(psutil, "net_io_counters", counters)
    metrics = SystemMetrics(writer)
    metrics.sample()
    clock(2)
    values = metrics.sample()
    assert values["system/network/sent_mb_per_s"] == pytest.approx(5)
    assert values["system/network/received_mb_per_s"] == pytest.approx(5)


def test_a_machine_that_tells_of_no_disk_has_no_rates(writer, clock, monkeypatch):
    monkeypatch.setattr(psutil, "disk_io_counters", lambda: None)
    metrics = SystemMetrics(writer)
    metrics.sample()
    clock(1)
    assert {tag for tag in metrics.sample() if "/disk/" in tag} == {
        "system/disk/used_percent",
        "system/disk/free_gib",
    }


# Rates.


@given(st.lists(st.tuples(st.floats(0.1, 1e3), st.integers(0, 1 << 50)), min_size=1, max_size=9))
def test_rates_add_up_to_what_was_counted(turns):
    now = [0.0]
    counted = rates.Rates()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rates, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
        assert counted.of({"bytes": 0}) == {}
        total = found = 0
        for seconds, more in turns:
            before = now[0]
            now[0] += seconds + 1e-9
            total += more
            found += counted.of({"bytes": total})["bytes"] * (now[0] - before)
    assert found == pytest.approx(total, rel=1e-6)


def test_a_counter_that_begins_anew_is_no_negative_rate(clock):
    counted = rates.Rates()
    counted.of({"a": 100.0, "b": 1.0})
    clock(2)
    assert counted.of({"a": 10.0, "c": 5.0}) == {"a": 0.0}


def test_two_looks_at_once_make_no_rate_and_lose_nothing(clock):
    counted = rates.Rates()
    counted.of({"a": 0.0})
    clock(0.01)
    assert counted.of({"a": 1.0}) == {}
    clock(0.99)
    assert counted.of({"a": 3.0}) == {"a": pytest.approx(3.0)}


# Containers.


NESTED_V1 = {
    **below("docker/1a", V1),
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
}


@pytest.mark.parametrize(
    ("version", "tree"), [(1, V1), (1, NESTED_V1), (2, V2)], ids=["1", "1 seen by the host", "2"]
)
def test_a_containers_limits_bind_at_their_level(version, tree, tmp_path, clock):
    make_tree(tmp_path, tree)
    group = Cgroup(tmp_path)
    memory = {"memory_used_gib": 4.0, "memory_limit_gib": 8.0, "memory_percent": 50.0}
    assert group.read() == {**memory, "cpu_limit_cores": 1.5}
    later = LATER_V2 if version == 2 else LATER_V1
    later = below("docker/1a", later) if tree is NESTED_V1 else later
    make_tree(tmp_path, later)
    clock(2)
    assert group.read() == {
        **memory,
        "cpu_limit_cores": 1.5,
        "cpu_percent": pytest.approx(100.0),  # 3 s of the available 2 x 1.5 s
        "cpu_throttled_percent": pytest.approx(25.0),
    }


UNLIMITED_V1 = {
    **V1,
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
}
UNLIMITED_V2 = {
    "proc/self/cgroup": "0::/",
    "sys/fs/cgroup/memory.max": "max",
    "sys/fs/cgroup/cpu.max": "max 100000",
}


@pytest.mark.parametrize("tree", [UNLIMITED_V1, UNLIMITED_V2, {}], ids=["1", "2", "none"])
def test_where_nothing_is_limited_there_is_nothing_to_say(tree, tmp_path):
    make_tree(tmp_path, tree)
    assert Cgroup(tmp_path).read() == {}


def test_a_limit_that_is_lifted_is_no_fault(tmp_path):
    make_tree(tmp_path, V2)
    group = Cgroup(tmp_path)
    make_tree(
        tmp_path, {"sys/fs/cgroup/job/memory.max": "max", "sys/fs/cgroup/job/step/cpu.max": "max 1"}
    )
    assert group.read() == {}


def test_the_containers_curves_have_its_name(writer, tmp_path, monkeypatch):
    make_tree(tmp_path, V2)
    monkeypatch.setattr(module, "Cgroup", lambda: Cgroup(tmp_path))
    values = SystemMetrics(writer).sample()
    assert values["system/container/memory_percent"] == 50.0


# GPUs.


def of_gpu(values):
    prefix = "system/gpu/"
    return {tag.removeprefix(prefix): v for tag, v in values.items() if tag.startswith(prefix)}


COMMON = {
    "memory_bandwidth_percent": 40.0,
    "memory_used_gib": 20.0,
    "memory_percent": 25.0,
    "power_watts": 350.5,
    "temperature_celsius": 61.0,
}


def test_every_gpu_has_its_curves(nvml, writer):
    assert of_gpu(SystemMetrics(writer).sample()) == {
        **{f"{index}/{name}": value for index in (0, 1) for name, value in COMMON.items()},
        "0/utilization_percent": 90.0,
        "1/utilization_percent": 91.0,
        "0/process_memory_gib": 1.0,
    }


def test_gpus_can_be_chosen(nvml, writer):
    found = of_gpu(SystemMetrics(writer, gpus=(1,)).sample())
    assert {tag.partition("/")[0] for tag in found} == {"1"}
    assert of_gpu(SystemMetrics(writer, gpus=()).sample()) == {}


def test_what_a_gpu_does_not_support_is_left_out_in_silence(nvml, writer, caplog):
    nvml.faults["nvmlDeviceGetPowerUsage", 0] = 3
    found = of_gpu(SystemMetrics(writer).sample())
    assert "0/power_watts" not in found
    assert found["1/power_watts"] == 350.5
    assert found["0/temperature_celsius"] == 61.0
    assert caplog.messages == []


def test_a_gpu_that_is_lost_is_said_once_and_the_rest_is_read(nvml, writer, caplog):
    metrics = SystemMetrics(writer)
    metrics.sample()
    nvml.faults["nvmlDeviceGetUtilizationRates", 0] = 15
    for _ in range(3):
        found = of_gpu(metrics.sample())
        assert "0/utilization_percent" not in found
        assert found["1/utilization_percent"] == 91.0
    (message,) = caplog.messages
    assert "gpu/0" in message
    assert "GPU is lost" in message
    nvml.faults.clear()
    assert of_gpu(metrics.sample())["0/utilization_percent"] == 90.0


def test_a_gpu_that_cannot_be_opened_is_said(nvml, writer, caplog):
    nvml.faults["nvmlDeviceGetHandleByIndex", 0] = 15
    found = of_gpu(SystemMetrics(writer).sample())
    assert {tag.partition("/")[0] for tag in found} == {"1"}
    assert "GPU 0 of 2" in caplog.text


@pytest.mark.parametrize("has_driver", [True, False])
def test_a_driver_that_does_not_answer_is_said_where_there_is_one(
    nvml, writer, caplog, monkeypatch, has_driver
):
    nvml.faults["nvmlInit"] = 9
    if not has_driver:
        monkeypatch.setattr(gpus, "DRIVER", Path("/nowhere"))
    assert of_gpu(SystemMetrics(writer).sample()) == {}
    assert ("Driver Not Loaded" in caplog.text) is has_driver


def test_a_gpu_without_what_reads_it_is_said_with_what_to_install(writer, caplog, monkeypatch):
    monkeypatch.setattr(gpus, "DRIVER", Path("/"))
    assert of_gpu(SystemMetrics(writer).sample()) == {}
    assert "pip install 'sm-tblog[system]'" in caplog.text


# The thread.


def wait_for(condition):
    """Wait until another thread makes the condition true."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def test_tensorboard_shows_the_first_and_the_last_sample(tmp_path, read_scalars):
    with Writer(tmp_path) as writer, SystemMetrics(writer) as metrics:
        assert metrics.is_running
    assert not metrics.is_running
    curves = read_scalars(tmp_path)[""]
    assert [step for step, _ in curves["system/memory/percent"]] == [0, 0]
    assert "system/process/memory_gib" in curves


def test_samples_follow_each_other_in_the_thread_given(writer):
    taken = []
    metrics = SystemMetrics(writer, every=0.001, step=lambda: taken.append(0) or len(taken))
    with metrics:
        wait_for(lambda: len(taken) >= 3)
        names = [thread.name for thread in threading.enumerate() if thread.daemon]
        assert "sm_tblog.system" in names
    assert not any(thread.name == "sm_tblog.system" for thread in threading.enumerate())


def pauses(metrics, monkeypatch, seconds):
    """Return the thread's pauses if a sample takes that much processor time."""
    made = []
    times = itertools.cycle((0.0, seconds))
    fake = types.SimpleNamespace(**{**vars(time), "thread_time": lambda: next(times)})
    monkeypatch.setattr(module, "time", fake)

    class End:
        def wait(self, pause):
            made.append(pause)
            return len(made) > 2

    metrics._run(End())
    return made


@pytest.mark.parametrize(("cost", "pause"), [(0.001, 15.0), (0.015, 15.0), (0.1, 100.0)])
def test_samples_take_a_thousandth_of_a_core_at_most(writer, monkeypatch, cost, pause):
    assert pauses(SystemMetrics(writer), monkeypatch, cost) == [0.0, pause, pause]


def test_who_says_how_often_is_obeyed(writer, monkeypatch):
    assert pauses(SystemMetrics(writer, every=2), monkeypatch, 0.1) == [0.0, 2, 2]


def test_steps_are_seconds_and_a_second_start_goes_on_counting(tmp_path, read_scalars, clock):
    with Writer(tmp_path) as writer:
        metrics = SystemMetrics(writer)
        metrics.sample()
        clock(15.4)
        metrics.sample()
        clock(15.4)
        SystemMetrics(writer).sample()
    assert [step for step, _ in read_scalars(tmp_path)[""]["system/memory/percent"]] == [0, 15, 30]


def test_steps_may_be_those_of_the_training(tmp_path, read_scalars):
    with Writer(tmp_path) as writer:
        metrics = SystemMetrics(writer, step=lambda: writer.step, prefix="host 1")
        for writer.step in (7, 900):
            metrics.sample()
    assert [step for step, _ in read_scalars(tmp_path)[""]["host 1/memory/percent"]] == [7, 900]


def test_stopping_twice_or_before_the_start_does_nothing(writer):
    metrics = SystemMetrics(writer)
    metrics.stop()
    assert metrics.start() is metrics
    thread = metrics._thread
    assert metrics.start()._thread is thread
    metrics.stop()
    metrics.stop()
    assert not metrics.is_running
    with metrics:
        assert metrics.is_running


def test_it_may_be_stopped_from_its_own_thread(writer, caplog):
    metrics = SystemMetrics(writer, every=0.001, step=lambda: metrics.stop() or 7)
    metrics.start()
    wait_for(lambda: not any(t.name == "sm_tblog.system" for t in threading.enumerate()))
    assert caplog.messages == []


def test_a_sensor_that_fails_is_said_once_and_again_after_it_has_worked(
    writer, caplog, monkeypatch
):
    real = psutil.virtual_memory

    def broken():
        raise OSError("no such file: /proc/meminfo")

    metrics = SystemMetrics(writer)
    for function, said in ((broken, 1), (broken, 1), (real, 1), (broken, 2)):
        monkeypatch.setattr(psutil, "virtual_memory", function)
        values = metrics.sample()
        assert "system/disk/used_percent" in values
        assert ("system/memory/percent" in values) is (function is real)
        assert caplog.text.count("memory failed") == said


@pytest.mark.parametrize("step", [lambda: 1 / 0, lambda: "nine"], ids=["raises", "no int"])
def test_a_step_that_fails_costs_the_sample_alone(writer, caplog, step):
    metrics = SystemMetrics(writer, step=step)
    for _ in range(2):
        metrics.sample()
    assert len(caplog.messages) == 1
    assert writer.flush()
    assert writer.stats().rows_written == 0


def test_a_writer_that_fails_does_not_end_the_thread(tmp_path, caplog):
    calls = []

    class Broken:
        enabled = True
        log_dir = str(tmp_path)

        def log(self, values, step, walltime):
            calls.append(step)
            raise RuntimeError("closed")

    with SystemMetrics(Broken(), every=0.001):
        wait_for(lambda: len(calls) >= 3)
    assert caplog.text.count("closed") == 1


def test_an_interrupt_while_sampling_starts_leaves_one_thread(writer, monkeypatch):
    start = threading.Thread.start
    started = []

    def start_and_interrupt(thread):
        start(thread)
        if thread.name == "sm_tblog.system":  # not the writer's, which the sample starts
            started.append(thread)
            raise KeyboardInterrupt

    metrics = SystemMetrics(writer, every=0.001)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            metrics.start()
    started[0].join()
    assert not metrics.is_running
    with metrics.start():
        assert metrics.is_running
    assert not metrics.is_running


def test_a_driver_that_hangs_does_not_hang_the_script(writer, monkeypatch):
    hangs = threading.Event()
    monkeypatch.setattr(module, "STOP_TIMEOUT", 0.01)
    monkeypatch.setattr(psutil, "virtual_memory", hangs.wait)
    metrics = SystemMetrics(writer).start()
    thread = metrics._thread
    metrics.stop()
    assert thread.is_alive()
    hangs.set()
    thread.join()


# Once for each host, and processes.


@pytest.mark.parametrize("name", RANKS)
def test_a_host_is_read_by_its_first_process_alone(writer, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    with SystemMetrics(writer) as metrics:
        assert not metrics.is_running
        assert metrics.sample() == {}
    monkeypatch.setenv(name, "0")
    with SystemMetrics(writer) as metrics:
        assert metrics.is_running


def test_a_writer_that_is_not_enabled_has_no_thread(tmp_path):
    with Writer(tmp_path / "none", enabled=False) as writer, SystemMetrics(writer) as metrics:
        assert not metrics.is_running
        assert metrics.sample() == {}
    assert not (tmp_path / "none").exists()


AT_EXIT = """
import sys
from sm_tblog import SystemMetrics, Writer
writer = Writer(sys.argv[1])
SystemMetrics(writer, gpus=()).start()
"""


def test_the_end_of_a_script_ends_it_with_a_last_sample(
    run_script, tmp_path, read_scalars, event_files
):
    done = run_script(AT_EXIT, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(event_files(tmp_path)) == 1
    assert len(read_scalars(tmp_path)[""]["system/memory/percent"]) == 2


FORK = """
import os, sys, warnings
warnings.simplefilter("ignore")  # about forking with threads, which is tested here
from sm_tblog import SystemMetrics, Writer
writer = Writer(sys.argv[1])
metrics = SystemMetrics(writer, gpus=(), every=0.001).start()
metrics._lock.acquire()  # as if the thread were taking a sample
pid = os.fork()
if pid == 0:
    assert not metrics.is_running
    metrics.stop()
    metrics.start()
    assert metrics.is_running
    metrics.stop()
    os._exit(7 if metrics._sensors["process"].pids[0] == os.getpid() else 1)
metrics._lock.release()
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
metrics.stop()
writer.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_go_on_but_may_begin(run_script, tmp_path):
    done = run_script(FORK, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


# Arguments.


@pytest.mark.parametrize(
    ("arguments", "error", "word"),
    [
        ({"every": "often"}, InvalidTypeError, "every"),
        ({"every": True}, InvalidTypeError, "every"),
        ({"every": 0}, InvalidValueError, "every"),
        ({"every": -1.0}, InvalidValueError, "every"),
        ({"every": float("nan")}, InvalidValueError, "every"),
        ({"every": float("inf")}, InvalidValueError, "every"),
        ({"step": 3}, InvalidTypeError, "step"),
        ({"prefix": None}, InvalidTypeError, "prefix"),
        ({"gpus": ["0"]}, InvalidTypeError, "gpus"),
        ({"gpus": 0}, InvalidTypeError, "gpus"),
    ],
)
def test_arguments_that_cannot_be_right_are_refused(writer, arguments, error, word):
    with pytest.raises(error, match=word):
        SystemMetrics(writer, **arguments)


def test_a_path_is_no_writer(tmp_path):
    with pytest.raises(InvalidTypeError, match="writer"):
        SystemMetrics(tmp_path)


def test_without_psutil_it_is_said_what_to_install(writer, monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(ImportError, match=r"pip install 'sm-tblog\[system\]'"):
        SystemMetrics(writer)


def test_a_log_folder_may_be_a_url(tmp_path):
    with Writer(tmp_path.as_uri()) as writer:
        values = SystemMetrics(writer).sample()
    used = psutil.disk_usage(str(tmp_path)).percent
    assert values["system/disk/used_percent"] == pytest.approx(used, abs=5)


def test_a_log_folder_that_is_on_no_disk_has_the_working_directorys(clock):
    with Writer("memory://somewhere/run") as writer:
        values = SystemMetrics(writer).sample()
    assert values["system/disk/used_percent"] == pytest.approx(
        psutil.disk_usage(".").percent, abs=5
    )
