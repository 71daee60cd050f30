"""One reading that fails does not take its neighbours along."""

import itertools
import sys
import types
from typing import NamedTuple

import cgroup_trees
import pytest
from cgroup_trees import GIB, V1, V2, make_tree

from sm_tblog import SystemMetrics
from sm_tblog.system import metrics as module
from sm_tblog.system.cgroup import Cgroup

psutil = pytest.importorskip("psutil", reason="needs psutil: pip install 'sm-tblog[system]'")

pytestmark = pytest.mark.usefixtures("without_gpus_and_ranks")


def part_of(values, group):
    prefix = f"system/{group}/"
    return {tag.removeprefix(prefix): v for tag, v in values.items() if tag.startswith(prefix)}


# Control groups: the readings of a tree in which some files are missing.

FULL = {
    "memory_used_gib": 4.0,
    "memory_limit_gib": 8.0,
    "memory_percent": 50.0,
    "cpu_limit_cores": 1.5,
    "cpu_percent": pytest.approx(100.0),
    "cpu_throttled_percent": pytest.approx(25.0),
}
WITH_CACHE = {"memory_used_gib": 5.0, "memory_percent": 62.5}
USAGE = ("memory_used_gib", "memory_percent")
MEMORY = (*USAGE, "memory_limit_gib")
PROCESSOR = ("cpu_limit_cores", "cpu_percent", "cpu_throttled_percent")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("gone", "changed", "without"),
    [
        (("memory.stat",), WITH_CACHE, ()),
        (("memory.usage_in_bytes", "memory.current"), {}, USAGE),
        (("memory.limit_in_bytes", "memory.max"), {}, MEMORY),
        (("nr_periods",), {}, ("cpu_throttled_percent",)),
        (("nr_throttled",), {}, ("cpu_throttled_percent",)),
        (("usage_usec", "cpuacct.usage"), {}, ("cpu_percent",)),
        (("cpu.cfs_period_us", "cpu.max"), {}, PROCESSOR),
        (("cpu.cfs_quota_us", "cpu.max"), {}, PROCESSOR),
    ],
    ids=lambda value: value[0] if value and isinstance(value, tuple) else "",
)
def test_a_file_or_entry_that_is_missing_takes_its_reading_alone(
    version, gone, changed, without, tmp_path, clock
):
    def write(tree):
        tree = {path: text for path, text in tree.items() if not path.endswith(gone)}
        for path, text in tree.items():
            lines = [line for line in text.splitlines() if line.split(" ")[0] not in gone]
            make_tree(tmp_path, {path: "\n".join(lines)})

    write(V1 if version == 1 else V2)
    group = Cgroup(tmp_path)
    group.read()
    write(cgroup_trees.LATER_V1 if version == 1 else cgroup_trees.LATER_V2)
    clock(2)
    expected = {**FULL, **changed}
    assert group.read() == {k: v for k, v in expected.items() if k not in without}
    assert group.errors == {}


def test_a_sandbox_with_few_files_has_their_readings(tmp_path, clock):
    files = {
        "proc/self/cgroup": "6:memory:/\n5:job:/\n4:cpuset:/\n3:cpuacct:/\n2:cpu:/",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2 * GIB),
        "sys/fs/cgroup/memory/memory.usage_in_bytes": str(GIB),
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/cpuacct/cpuacct.usage": "0",
    }
    make_tree(tmp_path, files)
    group = Cgroup(tmp_path)
    group.read()
    make_tree(tmp_path, {"sys/fs/cgroup/cpuacct/cpuacct.usage": "1000000000"})
    clock(2)
    assert group.read() == {
        "memory_limit_gib": 2.0,
        "memory_used_gib": 1.0,
        "memory_percent": 50.0,
        "cpu_limit_cores": 2.0,
        "cpu_percent": pytest.approx(25.0),
    }


def test_processor_time_may_be_in_the_folder_of_the_quota(tmp_path, clock):
    tree = {path.replace("/cpuacct/", "/cpu/"): text for path, text in V1.items()}
    make_tree(tmp_path, tree)
    group = Cgroup(tmp_path)
    group.read()
    clock(2)
    assert group.read()["cpu_percent"] == 0


@pytest.mark.parametrize(
    ("path", "text", "kept", "said"),
    [
        ("job/memory.max", "plenty", ("cpu_limit_cores",), "container memory limit"),
        ("job/memory.current", "much", ("memory_limit_gib", "cpu_limit_cores"), "container memory"),
        ("job/step/cpu.max", "", ("memory_limit_gib", "memory_percent"), "processor"),
    ],
)
def test_contents_that_are_wrong_are_said_once_and_read_again(
    path, text, kept, said, tmp_path, writer, monkeypatch, caplog
):
    make_tree(tmp_path, {**V2, f"sys/fs/cgroup/{path}": text})
    monkeypatch.setattr(module, "Cgroup", lambda: Cgroup(tmp_path))
    metrics = SystemMetrics(writer)
    for _ in range(3):
        values = part_of(metrics.sample(), "container")
        assert set(kept) <= set(values)
    assert len(caplog.messages) == 1
    assert said in caplog.text
    make_tree(tmp_path, {f"sys/fs/cgroup/{path}": V2[f"sys/fs/cgroup/{path}"]})
    values = part_of(metrics.sample(), "container")
    assert {"cpu_limit_cores", "memory_limit_gib", "memory_percent"} <= set(values)


def test_lines_without_a_number_do_not_spoil_the_others(tmp_path):
    stat = f"anon much\nempty\na b c\ninactive_file {GIB}"
    make_tree(tmp_path, {**V2, "sys/fs/cgroup/job/memory.stat": stat})
    group = Cgroup(tmp_path)
    assert group.read()["memory_used_gib"] == 4.0
    assert group.errors == {}


# psutil: a call that fails, returns nothing, or lacks a field.


def fails(*_args, **_options):
    raise RuntimeError("not in this sandbox")


def returns(value):
    return lambda *_args, **_options: value


one = types.SimpleNamespace
ALL = {
    "cpu": {"percent", "busiest_core_percent"},
    "memory": {"used_gib", "percent", "swap_used_gib"},
    "disk": {"used_percent", "free_gib", "read_mb_per_s", "write_mb_per_s"},
    "network": {"sent_mb_per_s", "received_mb_per_s"},
    "process": {"cpu_cores", "memory_gib", "threads", "children"},
}


@pytest.fixture
def machine(monkeypatch):
    """A machine on which everything can be read."""
    memory = one(total=8 * GIB, available=6 * GIB)
    used = itertools.count()
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: [Times(next(used))])
    monkeypatch.setattr(psutil, "virtual_memory", returns(memory))
    monkeypatch.setattr(psutil, "swap_memory", returns(one(total=GIB, used=GIB)))
    monkeypatch.setattr(psutil, "disk_io_counters", returns(one(read_bytes=1, write_bytes=1)))
    counters = {"eth0": one(bytes_sent=1, bytes_recv=1)}
    monkeypatch.setattr(psutil, "net_io_counters", returns(counters))


class Times(NamedTuple):
    """Processor times of one core, as psutil returns them."""

    busy: float
    idle: float = 0.0


TRAFFIC, SPACE = {"read_mb_per_s", "write_mb_per_s"}, {"used_percent", "free_gib"}
USED = {"used_gib", "percent"}
NO_MEMORY = one(total=0, available=0)
NO_PERCENTAGE = one(percent=None, free=1)


@pytest.mark.parametrize(
    ("function", "replacement", "lost", "said"),
    [
        ("disk_io_counters", fails, {"disk": TRAFFIC}, 1),
        ("disk_io_counters", returns(None), {"disk": TRAFFIC}, 0),
        ("disk_io_counters", returns(one(read_bytes=3)), {"disk": {"write_mb_per_s"}}, 0),
        ("disk_io_counters", returns(one(write_bytes=3)), {"disk": {"read_mb_per_s"}}, 0),
        ("disk_usage", fails, {"disk": SPACE}, 1),
        (
            "disk_usage",
            returns(one(percent=None, free=1)),
            {"disk": SPACE},
            1,
        ),
        ("swap_memory", fails, {"memory": {"swap_used_gib"}}, 1),
        ("swap_memory", returns(None), {"memory": {"swap_used_gib"}}, 0),
        ("swap_memory", returns(one(total=None)), {"memory": {"swap_used_gib"}}, 0),
        ("swap_memory", returns(one(total=5)), {"memory": {"swap_used_gib"}}, 1),
        ("virtual_memory", fails, {"memory": USED}, 1),
        (
            "virtual_memory",
            returns(one(total=0, available=0)),
            {"memory": USED},
            0,
        ),
        ("virtual_memory", returns(one(total=1)), {"memory": USED}, 1),
        ("net_io_counters", fails, {"network": ALL["network"]}, 1),
        ("net_io_counters", returns(None), {"network": ALL["network"]}, 0),
        ("net_io_counters", returns({"e": one(bytes_recv=1)}), {"network": {"sent_mb_per_s"}}, 0),
        ("cpu_times", fails, {"cpu": ALL["cpu"]}, 1),
        ("Process.num_threads", fails, {"process": {"threads"}}, 1),
        ("Process.memory_info", fails, {"process": {"memory_gib"}}, 1),
        ("Process.cpu_times", fails, {"process": {"cpu_cores"}}, 1),
    ],
)
def test_what_psutil_cannot_read_is_left_out_alone(
    function, replacement, lost, said, machine, writer, clock, monkeypatch, caplog
):
    owner, _, name = function.rpartition(".")
    monkeypatch.setattr(getattr(psutil, owner) if owner else psutil, name, replacement)
    metrics = SystemMetrics(writer)
    for _ in range(3):
        values = metrics.sample()
        clock(10)
    for group, names in ALL.items():
        assert set(part_of(values, group)) == names - lost.get(group, set())
    assert len(caplog.messages) == said
    assert (
        all("not in this sandbox" in text for text in caplog.messages) or replacement is not fails
    )


def test_children_that_cannot_be_listed_leave_the_process_itself(
    machine, writer, clock, monkeypatch, caplog
):
    monkeypatch.setattr(module.Process, "_find_children", fails)
    metrics = SystemMetrics(writer)
    metrics.sample()
    clock(10)
    assert set(part_of(metrics.sample(), "process")) == ALL["process"] - {"children"}
    assert len(caplog.messages) == 1


def test_a_machine_without_processes_has_the_other_curves(machine, writer, monkeypatch, caplog):
    monkeypatch.setattr(psutil, "Process", fails)
    values = SystemMetrics(writer).sample()
    assert part_of(values, "memory")
    assert not part_of(values, "process").keys() & {"cpu_cores", "memory_gib", "threads"}
    assert len(caplog.messages) == 1


# GPUs.

READINGS = {
    "utilization_percent": 90.0,
    "memory_bandwidth_percent": 40.0,
    "memory_used_gib": 20.0,
    "memory_percent": 25.0,
    "power_watts": 350.5,
    "temperature_celsius": 61.0,
    "process_memory_gib": 1.0,
}
FUNCTIONS = {
    "nvmlDeviceGetUtilizationRates": {"utilization_percent", "memory_bandwidth_percent"},
    "nvmlDeviceGetMemoryInfo": {"memory_used_gib", "memory_percent"},
    "nvmlDeviceGetPowerUsage": {"power_watts"},
    "nvmlDeviceGetTemperature": {"temperature_celsius"},
    "nvmlDeviceGetComputeRunningProcesses": {"process_memory_gib"},
}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    "fault", [3, 4, 13, 10, 999, AttributeError("no such function"), OSError("no device")]
)
def test_any_fault_of_nvml_takes_its_reading_alone(nvml, writer, caplog, function, fault):
    nvml.faults[function, 0] = fault
    metrics = SystemMetrics(writer)
    for _ in range(3):
        values = metrics.sample()
        expected = {k: v for k, v in READINGS.items() if k not in FUNCTIONS[function]}
        assert part_of(values, "gpu/0") == expected
        assert len(part_of(values, "gpu/1")) == 6
    assert len(caplog.messages) == (0 if fault in (3, 4, 13) else 1)
    nvml.faults.clear()
    assert part_of(metrics.sample(), "gpu/0") == READINGS


def test_a_lost_gpu_is_one_warning(nvml, writer, caplog):
    metrics = SystemMetrics(writer)
    metrics.sample()
    nvml.faults.update({(function, 0): 15 for function in FUNCTIONS})
    for _ in range(3):
        assert part_of(metrics.sample(), "gpu/0") == {}
    (message,) = caplog.messages
    for name in ("utilization", "memory", "power", "temperature", "process memory"):
        assert f"gpu/0 {name}" in message
    assert "left out until they work: NVMLError: GPU is lost" in message


@pytest.mark.parametrize("fault", [15, RuntimeError("broken")])
def test_a_gpu_that_cannot_be_opened_leaves_the_others(nvml, writer, caplog, fault):
    nvml.faults["nvmlDeviceGetHandleByIndex", 0] = fault
    values = SystemMetrics(writer).sample()
    assert part_of(values, "gpu/1")
    assert not part_of(values, "gpu/0")
    assert "GPU 0 of 2" in caplog.text


def test_a_gpu_that_reports_no_memory_in_all_has_no_percentage(nvml, writer, caplog, monkeypatch):
    empty = returns(one(used=GIB, total=0))
    monkeypatch.setattr(type(nvml), "nvmlDeviceGetMemoryInfo", lambda *_: empty())
    found = part_of(SystemMetrics(writer).sample(), "gpu/0")
    assert found["memory_used_gib"] == 1.0
    assert "memory_percent" not in found
    assert found["power_watts"] == 350.5
    assert caplog.messages == []


# Partitioned GPUs: an instance "MIG-<n>" uses n of 10 GiB.


@pytest.mark.parametrize(
    ("visible", "used"),
    [
        (None, 2),
        ("MIG-7", 7),
        ("MIG-4,MIG-7", 4),
        ("GPU-1, MIG-7", 7),
        ("MIG-9", 2),  # of another GPU
        ("0", 2),
        ("", 2),
    ],
)
def test_a_partitioned_gpus_memory_is_that_of_the_instance(
    nvml, writer, caplog, monkeypatch, visible, used
):
    nvml.instances[0] = {1: "MIG-2", 3: "MIG-4", 5: "MIG-7"}
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    values = SystemMetrics(writer).sample()
    found = part_of(values, "gpu/0")
    assert found["memory_used_gib"] == used
    assert found["memory_percent"] == 10 * used
    assert found["power_watts"] == 350.5
    assert "utilization_percent" not in found
    assert part_of(values, "gpu/1")["memory_percent"] == 25.0
    assert caplog.messages == []


def test_a_partitioned_gpu_without_an_instance_has_no_memory(nvml, writer, caplog):
    nvml.instances[0] = {}
    found = part_of(SystemMetrics(writer).sample(), "gpu/0")
    assert set(found) == {"power_watts", "temperature_celsius"}
    assert caplog.messages == []


def test_a_gpu_may_be_partitioned_between_two_samples(nvml, writer):
    metrics = SystemMetrics(writer)
    assert part_of(metrics.sample(), "gpu/0")["memory_percent"] == 25.0
    nvml.instances[0] = {0: "MIG-3"}
    assert part_of(metrics.sample(), "gpu/0")["memory_percent"] == 30.0
    del nvml.instances[0]
    assert part_of(metrics.sample(), "gpu/0")["memory_percent"] == 25.0


@pytest.mark.parametrize("fault", [3, 13, AttributeError("an older pynvml")])
def test_a_driver_that_knows_no_partitions_has_whole_gpus(nvml, writer, caplog, fault):
    nvml.faults["nvmlDeviceGetMigMode"] = fault
    assert part_of(SystemMetrics(writer).sample(), "gpu/0") == READINGS
    assert caplog.messages == []


def test_nvml_that_cannot_be_imported_leaves_the_machine(writer, monkeypatch, caplog):
    class Broken(types.ModuleType):
        nvmlInit = staticmethod(fails)  # noqa: N815 - the name is pynvml's
        NVMLError = KeyError

    monkeypatch.setitem(sys.modules, "pynvml", Broken("pynvml"))
    assert part_of(SystemMetrics(writer).sample(), "memory")
    assert "not in this sandbox" in caplog.text


def test_a_working_directory_that_is_gone_leaves_the_other_curves(
    writer, tmp_path, monkeypatch, caplog
):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    values = SystemMetrics(writer, folder="data").sample()
    assert part_of(values, "memory")
    assert not part_of(values, "disk").keys() & {"used_percent"}
    assert "disk failed" in caplog.text
