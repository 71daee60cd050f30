"""System metrics: curves of the machine, this process, its container and its GPUs.

A daemon thread reads the sensors periodically and logs the readings. It does not interfere with
training. A reading that fails causes one warning, does not affect the others, and is tried again at
the next sample.

Steps are the seconds since the first sample, unless the caller passes a function that returns the
step: a script that passes the step to each call has no current step to read. Every point has a wall
time, so TensorBoard's *Relative* and *Wall* axes line these curves up with those of the training.

Each host is sampled once: nothing is read in a process whose local rank is not 0. A forked child
does not continue its parent's sampling.
"""

from __future__ import annotations

import atexit
import contextlib
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

    from sm_tblog.system.sensor import Sensor

__all__ = ["SystemMetrics"]

logger = logging.getLogger("sm_tblog")

DEFAULT_INTERVAL = 15.0
"""Seconds between two samples by default."""

MAX_CPU_SHARE = 0.001
"""The maximum share of a core's time that samples take with the default interval."""

STOP_TIMEOUT = 5.0
"""Seconds that ``stop`` waits for the last sample, so that a hung driver cannot hang the script."""


class _Writer(Protocol):
    @property
    def enabled(self) -> bool: ...
    @property
    def log_dir(self) -> Any: ...
    def log(
        self, values: Mapping[str, Any], step: Any = None, walltime: float | None = None
    ) -> None: ...


class SystemMetrics:
    """Logs metrics of the machine, the process, its container and its GPUs on a separate thread.

    ::

        with Writer("runs/first") as writer, SystemMetrics(writer):
            train(writer)

    Without a ``with`` block, call ``start`` and ``stop``. Call ``stop`` before closing the writer,
    because logging after ``close`` begins a new file. Sampling stops automatically at exit.

    Each host is sampled once: this does nothing in a process whose local rank is not 0
    (``LOCAL_RANK``, or its MPI or Slurm equivalent), or with a disabled writer.

    Args:
        writer: the writer that logs the metrics.
        every: the number of seconds between two samples. By default 15, or as many more as needed
            for samples to take at most a thousandth of one core.
        step: a function that returns the step of a sample as an int, for example
            ``lambda: trainer.global_step``. It is called on the sampling thread. By default the
            step is the number of whole seconds since the writer's first sample.
        prefix: the first part of the tags, before a slash.
        gpus: the indices of the GPUs to read, numbered as in ``nvidia-smi``; by default all. ``()``
            reads none.
        folder: a folder on the disk whose free space is logged. By default the log directory, or
            the working directory if the log directory is not on a disk.

    Raises:
        InvalidTypeError: an argument has the wrong type.
        InvalidValueError: ``every`` is not a positive number.
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
        url = os.fsdecode(writer.log_dir if folder is None else folder)
        self._folder = local_path(url) if scheme_of(url) == "file" else Path()
        with contextlib.suppress(OSError):  # the working directory has been deleted
            self._folder = self._folder.absolute()
        self._reset()
        _instances.add(self)

    def _reset(self) -> None:
        """Set the initial state: at first, before each start, and in a forked child."""
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._sensors: dict[str, Sensor] = {}
        self._failing: set[str] = set()

    @property
    def is_running(self) -> bool:
        """Whether the sampling thread is running."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> Self:
        """Start sampling at once and periodically, on a thread. Do nothing if it runs already."""
        if not self.is_running and self._is_sampled_here():
            self._reset()
            self._thread = threading.Thread(
                target=self._run, args=(self._stopping,), name="sm_tblog.system", daemon=True
            )
            try:
                atexit.register(self.stop)  # called before the writers are closed
                self._thread.start()
            except BaseException:  # an interrupt, maybe before the thread says that it runs
                self._stopping.set()
                self._thread = None
                raise
        return self

    def stop(self) -> None:
        """Take the last sample and stop. Do nothing if sampling is not running."""
        thread, self._thread = self._thread, None
        atexit.unregister(self.stop)
        self._stopping.set()
        if thread not in (None, threading.current_thread()):
            thread.join(STOP_TIMEOUT)

    def sample(self) -> dict[str, float]:
        """Log an additional sample, on the calling thread.

        Returns:
            The logged values by tag. Rates of processor time and of bytes cover the time since the
            previous sample. The first sample has no rates, and neither does one less than 0.1
            seconds after another.
        """
        if not self._is_sampled_here():
            return {}
        with self._lock:
            if not self._sensors:
                self._open_sensors()
            now = time.time()
            values: dict[str, float] = {}
            for name, sensor in self._sensors.items():
                for what, value in sensor.read().items():
                    values[f"{self._prefix}/{name}/{what}"] = value
                self._warn_of(name, sensor.errors)
            step = self._try("step", self._step or self._seconds, None)
            if step is not None and values:
                self._try("writer", partial(self._writer.log, values, step, now), None)
        return values

    def __enter__(self) -> Self:
        """Start sampling."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop sampling."""
        self.stop()

    def _seconds(self) -> int:
        return int(time.monotonic() - _first_sample.setdefault(self._writer, time.monotonic()))

    def _is_sampled_here(self) -> bool:
        return self._writer.enabled and ranks.local_rank() == 0

    def _run(self, stopping: threading.Event) -> None:
        """Sample until ``stop``, and once more after that."""
        pause = 0.0
        while not stopping.wait(pause):
            before = time.thread_time()
            self.sample()
            cost = time.thread_time() - before
            pause = (
                max(DEFAULT_INTERVAL, cost / MAX_CPU_SHARE) if self._every is None else self._every
            )
        self.sample()

    def _open_sensors(self) -> None:
        """Open the available sensors. This is slow: NVML alone may take seconds."""
        process = Process()
        self._sensors = {
            "process": process,
            "cpu": Cpu(),
            "memory": Memory(),
            "disk": Disk(self._folder),
            "network": Network(),
            "container": Cgroup(),
        }
        find = partial(find_gpus, self._gpus, lambda: process.pids)
        gpus, warnings = self._try("gpu", find, ([], []))
        for gpu in gpus:
            self._sensors[f"gpu/{gpu.index}"] = gpu
        for warning in warnings:
            logger.warning("system metrics: %s", warning)

    def _warn_of(self, name: str, errors: Mapping[str, Exception]) -> None:
        """Warn of each reader of a sensor that fails, once until it works again.

        Readers that begin to fail for the same reason, such as a lost GPU, cause one warning.
        """
        failing = {f"{name} {part}".rstrip(): error for part, error in errors.items()}
        reasons: dict[str, list[str]] = {}
        for reader, error in failing.items():
            if reader not in self._failing:
                reasons.setdefault(f"{type(error).__name__}: {error}", []).append(reader)
        for reason, readers in reasons.items():
            message = "system metrics: %s failed and is left out until it works: %s"
            if len(readers) > 1:
                message = "system metrics: %s failed and are left out until they work: %s"
            logger.warning(message, ", ".join(readers), reason)
        self._failing = {
            reader for reader in self._failing if reader.partition(" ")[0] != name
        } | set(failing)

    def _try(self, name: str, action: Callable[[], Any], otherwise: Any) -> Any:
        """Return the result of an action. If it fails, warn once until it succeeds again."""
        try:
            result = action()
        except Exception as error:  # noqa: BLE001 - must not interrupt training
            if name not in self._failing:
                self._failing.add(name)
                message = "system metrics: %s failed and is left out until it works: %s: %s"
                logger.warning(message, name, type(error).__name__, error)
            return otherwise
        self._failing.discard(name)
        return result


def _check(writer: Any, every: Any, step: Any, prefix: Any, gpus: Any) -> None:
    """Raise an error if an argument is invalid."""
    if not all(hasattr(writer, name) for name in ("log", "enabled", "log_dir")):
        message = f"SystemMetrics: writer must be an sm_tblog.Writer, got {writer!r:.60}"
        raise InvalidTypeError(message)
    if every is not None and (isinstance(every, bool) or not isinstance(every, (int, float))):
        message = f"SystemMetrics: every must be a number of seconds, got {every!r:.60}"
        raise InvalidTypeError(message)
    if every is not None and not 0 < every < threading.TIMEOUT_MAX:
        message = f"SystemMetrics: every must be more than 0 seconds, got {every!r}"
        raise InvalidValueError(message)
    if step is not None and not callable(step):
        message = f"SystemMetrics: step must be a function that returns an int, got {step!r:.60}"
        raise InvalidTypeError(message)
    if not isinstance(prefix, str):
        message = f"SystemMetrics: prefix must be a str, got {prefix!r:.60}"
        raise InvalidTypeError(message)
    if gpus is not None and not (
        hasattr(gpus, "__iter__") and all(type(index) is int for index in gpus)
    ):
        message = f"SystemMetrics: gpus must be a sequence of int, got {gpus!r:.60}"
        raise InvalidTypeError(message)


_instances: weakref.WeakSet[SystemMetrics] = weakref.WeakSet()
_first_sample: weakref.WeakKeyDictionary[_Writer, float] = weakref.WeakKeyDictionary()
"""The time of each writer's first sample, so that a second start continues the steps."""


def _reset_after_fork() -> None:
    """Reset all instances: the parent's sampling threads do not exist in this process."""
    for metrics in list(_instances):
        metrics._reset()  # noqa: SLF001 - of this module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
