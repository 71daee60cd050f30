"""A hand-made kineto trace like those of PyTorch on a machine with a GPU, with known sums."""

import json
import re
from decimal import Decimal

BASE = 1_790_857_026_000_000_000
START = 4_869_972_046_414_084  # nanoseconds behind it
STEPS = 4
KERNEL_NS = 17_001
LAUNCHES = [
    (100, "aten::linear"), (100, "aten::addmm"), (100, "aten::mm"),
    (101, "autograd::engine::evaluate_function: MmBackward0"), (101, "aten::mm"),
]  # fmt: skip
"""The threads and operators of each step. Each operator launches a kernel."""

DEVICE = {
    "id": 0, "name": "NVIDIA A100-SXM4-40GB", "totalGlobalMem": 42505273344, "computeMajor": 8,
    "computeMinor": 0, "maxThreadsPerBlock": 1024, "maxThreadsPerMultiprocessor": 2048,
    "regsPerBlock": 65536, "warpSize": 32, "sharedMemPerBlock": 49152, "numSms": 108,
    "regsPerMultiprocessor": 65536,
}  # fmt: skip


class _Maker:
    """Makes events, with the same numbering as kineto."""

    def __init__(self):
        self.host, self.device = [], []
        self.external = self.correlation = 1000

    def add(self, to, category, name, place, begin, duration, **args):
        pid, tid = place
        to.append({
            "ph": "X", "cat": category, "name": name, "pid": pid, "tid": tid,
            "ts": microseconds(begin), "dur": microseconds(duration), "args": args,
        })  # fmt: skip

    def launch(self, call, begin, thread, category, name, stream, duration, **args):
        self.correlation += 1
        ids = {"External id": self.external, "correlation": self.correlation}
        self.add(self.host, "cuda_runtime", call, (100, thread), begin, 6_125, cbid=211, **ids)
        place = 0, stream
        args |= {**ids, "device": 0, "context": 1, "stream": stream}
        self.add(self.device, category, name, place, begin + 7_000, duration, **args)


def microseconds(nanoseconds):
    return Decimal(nanoseconds) / 1000


def gpu_trace(steps=STEPS):
    """Return the trace. Step ``n`` has number ``5 + n``; its kernels take ``n`` µs longer each."""
    make = _Maker()
    names = {100: "thread 100 (python)", 101: "thread 101 (pt_autograd_0)"}
    for thread, name in names.items():
        make.host.append({
            "ph": "M", "name": "thread_name", "ts": microseconds(START), "pid": 100, "tid": thread,
            "args": {"name": name},
        })  # fmt: skip
    sizes = {"grid": [16, 2, 1], "block": [128, 1, 1]}
    shape = {"registers per thread": 64, "shared memory": 1024, "est. achieved occupancy %": 37}
    now = START
    for step in range(steps):
        begun = now
        for thread, name in LAUNCHES:
            make.external += 1
            make.add(
                make.host, "cpu_op", name, (100, thread), now, 20_500,
                **{"External id": make.external, "Ev Idx": 3, "Input Dims": [[32, 64], [64, 8]]},
            )  # fmt: skip
            make.launch(
                "cudaLaunchKernel", now + 5_000, thread, "kernel", f"gemm_{name.split(':')[-1]}",
                7 if thread == 100 else 20, KERNEL_NS + 1000 * step, **sizes, **shape,
            )  # fmt: skip
            now += 30_000
        make.external += 1
        make.launch(
            "cudaMemcpyAsync", now + 1_000, 100, "gpu_memcpy", "Memcpy HtoD (Pinned -> Device)",
            7, 8_250, bytes=8192,
        )  # fmt: skip
        make.launch(
            "cudaMemsetAsync",
            now + 12_000,
            100,
            "gpu_memset",
            "Memset (Device)",
            7,
            1_500,
            bytes=64,
        )
        make.launch(
            "cudaLaunchKernel", now + 20_000, 100, "kernel", "ncclDevKernel_AllReduce_Sum_f32",
            21, 9_500, grid=[2, 1, 1], block=[544, 1, 1],
        )  # fmt: skip
        name = f"ProfilerStep#{5 + step}"
        make.add(
            make.host, "user_annotation", name, (100, 100), begun - 2_000, now - begun + 42_000
        )
        make.add(
            make.device, "gpu_user_annotation", name, (0, 7), begun + 12_000, now - begun,
            device=0, stream=7,
        )  # fmt: skip
        now += 60_000
    span = ("Spans", "PyTorch Profiler")
    make.add(make.device, "Trace", "PyTorch Profiler (0)", span, START - 5_000, now - START)
    instant = {"ph": "i", "s": "g", "name": "Record Window End", "pid": "", "tid": "", "ts": 1}
    arrow = {"ph": "s", "cat": "ac2g", "name": "ac2g", "id": 1, "pid": 0, "tid": 7, "ts": 1}
    return {
        "schemaVersion": 1,
        "deviceProperties": [DEVICE],
        "host_name": "node-7",
        "baseTimeNanoseconds": BASE,
        "traceEvents": [*make.host, *make.device, instant, arrow],
        "traceName": "made by hand",
    }


def kernels_ns(steps=STEPS):
    """Return the total kernel time, calculated without the trace."""
    return sum(len(LAUNCHES) * (KERNEL_NS + 1000 * step) + 9_500 for step in range(steps))


def dumps(trace):
    """Return the trace as JSON, with three decimals in times, as kineto writes them."""
    text = json.dumps(trace, default=lambda number: f"\0{number:.3f}", indent=1)
    return re.sub(r'"\\u0000(-?[\d.]+)"', r"\1", text)
