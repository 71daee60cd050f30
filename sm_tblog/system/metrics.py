"""System metrics: the machine, this process, its container and its GPUs, beside the curves.

A daemon thread reads the sensors every so many seconds and logs what they say. It touches nothing
of the training, and a sensor that fails is said once and read again at the next turn.

Steps are seconds since the first sample, unless the caller has a function for them: a script that
names the step at each call has no other that could be looked up. Every point has its time, so that
TensorBoard's *Relative* and *Wall* axes put training curves and these side by side.

They are logged once for each host: in a process whose local rank is not 0 nothing is read. A forked
child does not go on with its parent's.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sm_tblog import ranks
from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog.storage.base import scheme_of
from sm_tblog.storage.local import local_path
from sm_tblog.system.cgroup import Cgroup
from sm_tblog.system.gpu import find_gpus
from sm_tblog.system.host import Cpu, Disk, Memory, Network, Process, import_psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from sm_tblog.system.gpu import Gpu

__all__ = ["SystemMetrics"]

logger = logging.getLogger("sm_tblog")

EVERY = 15.0
"""Seconds between two samples if the user does not say."""

SHARE = 0.001
"""Of a core's time that samples may take if the user does not say how often they are."""

PATIENCE = 5.0
"""Seconds that ``stop`` waits for the last sample: a driver that hangs must not hang the script."""


class _Writer(Protocol):
    @property
    def enabled(self) -> bool: ...
    @property
    def log_dir(self) -> str: ...
    def log(
        self, values: Mapping[str, Any], step: Any = None, walltime: float | None = None
    ) -> None: ...


class SystemMetrics:
    """Logs what the machine, the process, its container and its GPUs do, from a thread of its own.

    ::

        with Writer("runs/first") as writer, SystemMetrics(writer):
            train(writer)

    ``start`` and ``stop`` do the same without a ``with`` block; ``stop`` before the writer is
    closed, since logging after ``close`` begins a new file. It ends by itself with the script.

    Nothing is done in a process whose local rank is not 0 (``LOCAL_RANK`` and what MPI and Slurm
    have for it), nor with a writer that is not enabled: a host is read once.

    Args:
        writer: what logs.
        every: seconds between two samples. By default 15, or so many more that the samples take
            at most a thousandth of one core.
        step: returns the step of a sample, an int; ``lambda: trainer.global_step``, say. It is
            called in the thread. By default the whole seconds since the writer's first sample.
        prefix: what the tags begin with, before a slash.
        gpus: which GPUs are read, as ``nvidia-smi`` counts; by default all that there are. ``()``
            for none.
        folder: the disk that holds it is watched for room; by default the log folder, or the
            working directory where that is not on a disk.

    Raises:
        InvalidTypeError: an argument is of the wrong kind.
        InvalidValueError: ``every`` is not more than 0.
        MissingDependencyError: psutil is not installed.
    """

    def __init__(
        self,
        writer: _Writer,
        *,
        every: float | None = None,
        step: Callable[[], int] | None = None,
        prefix: str = "system",
        gpus: Sequence[int] | None = None,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        _check(writer, every, step, prefix, gpus)
        import_psutil()
        self._writer = writer
        self._every = every
        self._step = step
        self._prefix = prefix
        self._gpus = None if gpus is None else tuple(gpus)
        url = writer.log_dir if folder is None else os.fspath(folder)
        self._folder = local_path(url) if scheme_of(url) == "file" else Path()
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        """Begin with nothing running: at first, after ``stop``, and in a forked child."""
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._sensors: dict[str, Callable[[], Mapping[str, float]]] = {}
        self._failing: set[str] = set()

    @property
    def is_running(self) -> bool:
        """Whether samples are taken."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> Self:
        """Take the first sample and go on, in a thread; do nothing where that runs already."""
        if not self.is_running and self._is_wanted():
            self._begin()
            self._thread = threading.Thread(
                target=self._run, args=(self._end,), name="sm_tblog.system", daemon=True
            )
            atexit.register(self.stop)  # called before the writers are closed
            self._thread.start()
        return self

    def stop(self) -> None:
        """Take the last sample and end; do nothing where it does not run."""
        thread, self._thread = self._thread, None
        atexit.unregister(self.stop)
        self._end.set()
        if thread not in (None, threading.current_thread()):
            thread.join(PATIENCE)

    def sample(self) -> dict[str, float]:
        """Log one more sample, from the thread that calls.

        Returns:
            What was logged, by tag. Rates, of the processor's time and of bytes, are those since
            the sample before; the first has none, nor has one less than a tenth of a second after
            another.
        """
        if not self._is_wanted():
            return {}
        with self._lock:
            if not self._sensors:
                self._open()
            now = time.time()
            values = {
                f"{self._prefix}/{name}/{what}": float(value)
                for name, read in self._sensors.items()
                for what, value in self._try(name, read, {}).items()
            }
            step = self._try("step", self._step or self._seconds, None)
            if step is not None and values:
                self._try("writer", partial(self._writer.log, values, step, now), None)
        return values

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    def _seconds(self) -> int:
        return int(time.monotonic() - _begun.setdefault(self._writer, time.monotonic()))

    def _is_wanted(self) -> bool:
        return self._writer.enabled and ranks.local_rank() == 0

    def _run(self, end: threading.Event) -> None:
        """Sample until the end, and once more then."""
        pause = 0.0
        while not end.wait(pause):
            begun = time.thread_time()
            self.sample()
            cost = time.thread_time() - begun
            pause = max(EVERY, cost / SHARE) if self._every is None else self._every
        self.sample()

    def _open(self) -> None:
        """Find the sensors that there are. Takes its time: NVML alone up to seconds."""
        process = Process()
        makers: dict[str, Callable[[], Any]] = {
            "cpu": Cpu,
            "memory": Memory,
            "disk": partial(Disk, self._folder),
            "network": Network,
            "container": Cgroup,
        }
        self._sensors = {"process": process.read}
        for name, make in makers.items():
            sensor = self._try(name, make, None)
            if sensor is not None:
                self._sensors[name] = sensor.read
        gpus, remarks = self._try("gpu", partial(find_gpus, self._gpus), ([], []))
        for gpu in gpus:
            self._sensors[f"gpu/{gpu.index}"] = partial(_read_gpu, gpu, process)
        for remark in remarks:
            logger.warning("system metrics: %s", remark)

    def _try(self, name: str, action: Callable[[], Any], otherwise: Any) -> Any:
        """Return what an action returns; where it fails, say so once, until it works again."""
        try:
            result = action()
        except Exception as error:  # noqa: BLE001 - a driver's, the user's: training goes on
            if name not in self._failing:
                self._failing.add(name)
                message = "system metrics: %s failed, and is left out until it works: %s: %s"
                logger.warning(message, name, type(error).__name__, error)
            return otherwise
        self._failing.discard(name)
        return result


def _read_gpu(gpu: Gpu, process: Process) -> dict[str, float]:
    return gpu.read(process.pids)


def _check(writer: Any, every: Any, step: Any, prefix: Any, gpus: Any) -> None:
    """Raise if an argument cannot be used."""
    if not all(hasattr(writer, name) for name in ("log", "enabled", "log_dir")):
        message = f"SystemMetrics: writer is an sm_tblog.Writer, got {writer!r:.60}"
        raise InvalidTypeError(message)
    if every is not None and (isinstance(every, bool) or not isinstance(every, (int, float))):
        message = f"SystemMetrics: every is a number of seconds, got {every!r:.60}"
        raise InvalidTypeError(message)
    if every is not None and not 0 < every < threading.TIMEOUT_MAX:
        message = f"SystemMetrics: every is more than 0 seconds, got {every!r}"
        raise InvalidValueError(message)
    if step is not None and not callable(step):
        message = f"SystemMetrics: step is a function that returns an int, got {step!r:.60}"
        raise InvalidTypeError(message)
    if not isinstance(prefix, str):
        message = f"SystemMetrics: prefix is a str, got {prefix!r:.60}"
        raise InvalidTypeError(message)
    if gpus is not None and not (
        hasattr(gpus, "__iter__") and all(type(index) is int for index in gpus)
    ):
        message = f"SystemMetrics: gpus is a sequence of int, got {gpus!r:.60}"
        raise InvalidTypeError(message)


_all: weakref.WeakSet[SystemMetrics] = weakref.WeakSet()
_begun: weakref.WeakKeyDictionary[_Writer, float] = weakref.WeakKeyDictionary()
"""When the first sample of a writer was taken: a second start goes on counting."""


def _reset_after_fork() -> None:
    """Leave the parent's samples to it: its threads are not in this process."""
    for metrics in list(_all):
        metrics._begin()  # noqa: SLF001 - of this module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
