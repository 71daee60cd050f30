"""An engine that runs PyTorch's own profiler, and the conversion of its results to a session.

The results are transferred through a trace file. Kineto, the recorder inside PyTorch, writes one in
2 µs per event. Reading the events from Python takes four times as long, and yields less data. The
file is temporary, and the worker thread creates it. Kineto holds the GIL while it writes.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidValueError, MissingDependencyError, SinkError
from sm_tblog.profile.formats.kineto import convert_trace
from sm_tblog.profile.traces import KEPT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sm_tblog.profile.engine import Engine
    from sm_tblog.profile.formats.xspace import Space

__all__ = ["add_results", "torch_engine"]


def torch_engine(
    *,
    cuda: bool | None = None,
    record_shapes: bool = False,
    memory: bool = False,
    with_stack: bool = False,
    keep_trace: bool = False,
) -> Engine:
    """Return an engine that records PyTorch with ``torch.profiler``.

    Only the end of the session waits for the device, because PyTorch's profiler has to.

    Args:
        cuda: whether to record kernels and copies; by default if PyTorch finds a GPU.
        record_shapes: whether to record the shapes and types of operators' inputs.
        memory: whether to record each allocation, for the viewer's memory profile.
        with_stack: whether to record each call of a Python function. This makes Python several
            times slower.
        keep_trace: whether to keep the trace of PyTorch's profiler beside the session, compressed.
            You can open it in Perfetto.

    Raises:
        MissingDependencyError: PyTorch is not installed.
        InvalidValueError: ``cuda`` is true, and PyTorch finds no GPU.
    """
    try:
        import torch
    except ImportError as error:
        message = "torch_engine needs PyTorch: python -m pip install torch"
        raise MissingDependencyError(message) from error
    available = torch.cuda.is_available()
    if cuda and not available:
        message = "torch_engine(cuda=True): PyTorch finds no GPU here; leave cuda out"
        raise InvalidValueError(message)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if available and cuda is not False:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    options = {
        "activities": activities,
        "record_shapes": record_shapes,
        "profile_memory": memory,
        "with_stack": with_stack,
    }
    return _TorchEngine(options, keep_trace=keep_trace)


class _TorchEngine:
    name = "PyTorch's profiler"
    warms_up = True
    """The first kernels after the start wait until CUPTI is initialized."""

    def __init__(self, options: Mapping[str, Any], *, keep_trace: bool) -> None:
        self._options = options
        self._keep_trace = keep_trace
        self._profile: Any = None

    def start(self) -> None:
        import torch

        if torch.autograd._profiler_enabled():  # noqa: SLF001 - both would end without results
            message = "profile: PyTorch's profiler is already running; stop it first"
            raise InvalidValueError(message)
        self._profile = torch.profiler.profile(**self._options)
        self._profile.start()

    def stop(self) -> None:
        self._profile.stop()

    def export(self, space: Space) -> Mapping[str, bytes] | None:
        results, self._profile = self._profile.profiler, None
        _, trace = add_results(results, space, since_ns=space.begin_ns, keep_trace=self._keep_trace)
        return None if trace is None else {f"{space.hostname}{KEPT}": trace}


def add_results(
    results: Any, space: Space, *, since_ns: int | None = None, keep_trace: bool = False
) -> tuple[int, bytes | None]:
    """Add the results of PyTorch's profiler and the properties of its devices to a session.

    Args:
        results: the ``profiler`` of a stopped ``torch.profiler.profile``.
        space: the session.
        since_ns: leave out events that begin before this time, in nanoseconds since the epoch; by
            default none.
        keep_trace: whether to return the trace.

    A kept trace does not depend on the conversion: if that fails, the session gets a warning.

    Raises:
        InvalidValueError: the trace cannot be converted, and is not kept.
        SinkError: the results have already been written to a file; kineto writes them only once.

    Returns:
        The start of the first event, in nanoseconds since the epoch, and the trace, compressed with
        gzip, or None if it is not kept.
    """
    with tempfile.TemporaryDirectory(prefix="sm_tblog-") as folder:
        path = Path(folder, "torch.pt.trace.json")
        try:
            results.export_chrome_trace(str(path))
        except RuntimeError as error:
            message = f"PyTorch's profiler cannot write its trace: {error}"
            raise SinkError(message) from error
        kept = _compress(path) if keep_trace else None
        begin_ns = space.begin_ns
        try:
            with path.open("rb") as file:
                begin_ns = convert_trace(file, path.name, space, since_ns).begin_ns
        except Exception as error:
            if kept is None:
                raise
            space.warnings.append(f"PyTorch's trace is kept, but cannot be converted: {error}")
        _add_devices(space)
        return begin_ns, kept


def _compress(path: Path) -> bytes:
    """Return the contents of a file, compressed with gzip, without reading it into memory."""
    packed = path.with_suffix(".gz")
    with path.open("rb") as source, gzip.open(packed, "wb", compresslevel=6) as target:
        shutil.copyfileobj(source, target, 1 << 20)
    return packed.read_bytes()


def _add_devices(space: Space) -> None:
    """Add the peak speeds of each GPU in a session, which the trace does not contain."""
    import torch

    for plane in space.planes():
        prefix, _, number = plane.name.rpartition(":")
        if prefix == "/device:GPU" and number.isdecimal() and torch.cuda.is_available():
            properties = torch.cuda.get_device_properties(int(number))
            clock = getattr(properties, "clock_rate", 0)  # kHz
            memory_clock = getattr(properties, "memory_clock_rate", 0)  # kHz
            width = getattr(properties, "memory_bus_width", 0)  # bits
            if clock:
                plane.stat("clock_rate", clock)
            if memory_clock and width:  # two transfers per clock cycle
                plane.stat("memory_bandwidth", 2 * memory_clock * 1000 * width // 8)
