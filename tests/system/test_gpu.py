"""System metrics of real GPUs, compared with NVML."""

import time

import pytest

from sm_tblog import SystemMetrics, Writer
from sm_tblog.system import gpu as gpus

pytest.importorskip("psutil")
pynvml = pytest.importorskip("pynvml", reason="needs nvidia-ml-py")

GIB = 1 << 30


@pytest.fixture(scope="module")
def nvml():
    """NVML, initialized; skips without a GPU."""
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as error:
        pytest.skip(f"NVML cannot be used: {error}")
    if not count:
        pytest.skip("there is no NVIDIA GPU")
    yield pynvml
    pynvml.nvmlShutdown()


@pytest.fixture
def handle(nvml):
    return nvml.nvmlDeviceGetHandleByIndex(0)


@pytest.fixture
def torch(nvml):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch has no CUDA")
    return torch


def test_every_gpu_is_found_and_nothing_is_remarked(nvml):
    found, warnings = gpus.find_gpus()
    assert [gpu.index for gpu in found] == list(range(nvml.nvmlDeviceGetCount()))
    assert warnings == []


def test_readings_are_those_of_nvml(nvml, handle):
    (gpu,), _ = gpus.find_gpus((0,))
    readings = gpu.read()
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    assert 0 <= readings["utilization_percent"] <= 100
    assert 0 <= readings["memory_bandwidth_percent"] <= 100
    assert readings["memory_used_gib"] == pytest.approx(memory.used / GIB, abs=1)
    assert readings["memory_percent"] == pytest.approx(100 * memory.used / memory.total, abs=2)
    power_limit = nvml.nvmlDeviceGetPowerManagementLimit(handle) / 1000
    assert 0 < readings["power_watts"] < 1.5 * power_limit
    temperature = nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
    assert readings["temperature_celsius"] == pytest.approx(temperature, abs=10)


def test_a_gpu_that_there_is_not_is_said_and_the_others_are_read(nvml):
    found, (warning,) = gpus.find_gpus((0, 99))
    assert [gpu.index for gpu in found] == [0]
    assert "GPU 99" in warning


def test_tensorboard_reads_the_curves_of_each_gpu(nvml, tmp_path, read_scalars):
    with Writer(tmp_path) as writer, SystemMetrics(writer):
        pass
    curves = read_scalars(tmp_path)[""]
    for index in range(nvml.nvmlDeviceGetCount()):
        for what in ("utilization_percent", "memory_used_gib", "power_watts"):
            assert curves[f"system/gpu/{index}/{what}"]


def test_a_busy_gpu_is_seen_to_be_busy_and_what_it_holds_to_be_held(torch, tmp_path):
    with Writer(tmp_path) as writer:
        metrics = SystemMetrics(writer, gpus=(0,))
        before = metrics.sample()["system/gpu/0/memory_used_gib"]
        held = torch.empty(2 * GIB, dtype=torch.uint8, device="cuda:0")
        matrix = torch.randn(4096, 4096, device="cuda:0")
        deadline = time.monotonic() + 5  # NVML reports on the last second, or a sixth of it
        busiest = 0.0
        while busiest < 50 and time.monotonic() < deadline:
            for _ in range(20):
                matrix = (matrix @ matrix).clamp_(-1, 1)
            torch.cuda.synchronize()
            readings = metrics.sample()
            busiest = max(busiest, readings["system/gpu/0/utilization_percent"])
        assert readings["system/gpu/0/memory_used_gib"] > before + held.numel() / GIB
        assert busiest >= 50


def test_what_a_sample_costs(nvml, tmp_path):
    with Writer(tmp_path) as writer:
        metrics = SystemMetrics(writer)
        metrics.sample()
        begun, cpu_begun = time.perf_counter(), time.thread_time()
        for _ in range(20):
            metrics.sample()
        cost = (time.thread_time() - cpu_begun) / 20
        wall = (time.perf_counter() - begun) / 20
    # No bound is asserted because the cost depends on the machine; if it is high, the thread
    # samples less often. Use -s to see it.
    print(f"a sample takes {cost * 1e3:.2f} ms of processor time, {wall * 1e3:.2f} ms")  # noqa: T201
    assert cost > 0
