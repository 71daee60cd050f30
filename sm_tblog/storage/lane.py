"""Brings what is spooled for one folder to its place, in order, on a thread of its own.

The thread that logs only appends to a spool file and goes on: whatever the network does, it does
to this thread. There is one lane a folder. Its objects are finished one after the other: a reader
such as TensorBoard moves on to a later object as soon as there is one, and never looks back. An
attempt that fails is repeated, ever less often, for as long as the process lives.

What a lane needs to know of a place is ``Place`` and ``Growing``; ``s3`` and ``fsspec_place`` have
them.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from sm_tblog._errors import StoreError
from sm_tblog.storage.base import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sm_tblog.storage.base import SideData
    from sm_tblog.storage.spool import SpoolFile

__all__ = ["Growing", "Job", "Lane", "Place", "SideJob"]

logger = logging.getLogger("sm_tblog")

COALESCE = 1.0
"""Seconds between two uploads of one lane, at least, unless one is forced."""

LONGEST = 64 << 20
"""Bytes after which another object follows one of which nothing has been uploaded yet."""

BACKOFF = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before the attempt that follows so many failures."""

ATTEMPTS = 3
"""Failures in a row after which a barrier takes a place to be down."""

DOWN_PATIENCE = 1.0
"""Seconds that a barrier waits for a place that does not answer any more."""


class Growing(Protocol):
    """One object of a place, while it grows.

    Attributes:
        committed: how many bytes of it the place has acknowledged.
        roll_bytes: an object with more than this is better followed by another.
    """

    committed: int
    roll_bytes: int

    def padding(self, size: int) -> int:
        """Return by how many bytes an object of this size should be padded before it is stored."""
        ...

    def commit(self, file: SpoolFile, size: int) -> None:
        """Make the object hold the first ``size`` bytes of ``file``; it never becomes shorter."""
        ...

    def close(self) -> None:
        """Let go of what a failure may have left at the place."""
        ...


class Place(Protocol):
    """A folder somewhere else. Every failure is a ``StoreError``."""

    def grow(self, name: str) -> Growing:
        """Return the object of this name, which nobody else writes."""
        ...

    def put(self, name: str, data: bytes) -> None:
        """Write an object whole."""
        ...

    def get(self, name: str) -> bytes | None:
        """Return what an object holds, None where there is none."""
        ...


class Job:
    """One object on its way.

    Attributes:
        file: what it is to hold.
        closed: nothing will be appended any more.
    """

    def __init__(self, file: SpoolFile) -> None:
        self.file = file
        self.closed = False
        self.growing: Growing | None = None

    @property
    def committed(self) -> int:
        """How many bytes the place has acknowledged."""
        return 0 if self.growing is None else self.growing.committed

    @property
    def is_full(self) -> bool:
        """Whether another object had better follow."""
        most = LONGEST if self.growing is None else self.growing.roll_bytes
        return self.file.size >= most

    @property
    def waiting(self) -> int:
        """How many bytes the place has not acknowledged."""
        return self.file.size - self.committed


class SideJob:
    """A side file on its way.

    Attributes:
        name: the file's.
        data: see ``Store.put``.
        done: whether it is written, or given up.
    """

    def __init__(self, name: str, data: SideData) -> None:
        self.name = name
        self.data = data
        self.done = False

    @property
    def waiting(self) -> int:
        """How many bytes are not written, as far as that is known."""
        return 0 if self.done or callable(self.data) else len(self.data)


class Lane:
    """The objects of one folder, on their way to it.

    Args:
        url: the folder, for messages.
        open_place: makes the place; called on the lane's thread, and again after a failure.
        encode_padding: returns a record of so many bytes that readers pass over.
        adopt: returns files of the folder that earlier processes have left behind, in order.
    """

    def __init__(
        self,
        url: str,
        open_place: Callable[[], Place],
        encode_padding: Callable[[int], bytes],
        adopt: Callable[[], Sequence[SpoolFile]] = tuple,
    ) -> None:
        self._url = url
        self._open_place = open_place
        self._encode_padding = encode_padding
        self._adopt = adopt
        self._place: Place | None = None
        self._jobs: deque[Job] = deque()
        self._side: deque[SideJob] = deque()
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._asked = False
        self._forced = False
        self._failures = 0  # in a row
        self._last_attempt = 0.0
        self._last_success = 0.0
        self.error: StoreError | None = None

    def __str__(self) -> str:
        """Return the folder."""
        return self._url

    # The side of the thread that logs.

    def add(self, file: SpoolFile) -> Job:
        """Take a file, whose object comes after all that were added before."""
        job = Job(file)
        with self._condition:
            self._jobs.append(job)
            self._start()
        return job

    def put(self, name: str, data: SideData) -> SideJob:
        """Take a side file, to be written after those before it."""
        job = SideJob(name, data)
        with self._condition:
            self._side.append(job)
        self.ask()
        return job

    def ask(self, *, force: bool = False) -> None:
        """Have what was appended uploaded, soon or, if forced, at once."""
        with self._condition:
            self._asked = True
            self._forced |= force
            self._start()
            self._condition.notify_all()

    def wait(self, timeout: float, *, force: bool = False, patient: bool = False) -> bool:
        """Wait until everything taken so far is acknowledged; return whether it is.

        A place that has not answered lately is not waited for long, unless ``patient``: what it is
        to have is in the spool.

        Args:
            timeout: seconds.
            force: do not leave it to an upload that is due within ``COALESCE``.
            patient: wait for a place that is down, though not for one that refuses.
        """
        with self._condition:
            marks = [(job, job.file.size) for job in self._jobs]
            sides = list(self._side)

            def stored() -> bool:
                sizes = all(job.committed >= size for job, size in marks)
                return sizes and all(side.done for side in sides)

            def ended() -> bool:
                is_down = not patient or isinstance(self.error, RefusedError)
                return stored() or (is_down and self._failures >= ATTEMPTS)

            if not force and not self._failures and self._recent():
                self.ask()
                return True
            self.ask(force=True)
            if self._failures and not patient:
                timeout = min(timeout, DOWN_PATIENCE)
            self._condition.wait_for(ended, timeout)
            return stored()

    def jobs(self) -> list[Job]:
        """Return what is on its way."""
        return list(self._jobs)

    @property
    def files(self) -> list[str]:
        """The spool files of what is not acknowledged."""
        return [str(job.file) for job in list(self._jobs) if job.waiting]

    def _recent(self) -> bool:
        return time.monotonic() - self._last_success < COALESCE

    def _start(self) -> None:
        if self._thread is None and (self._jobs or self._side):
            self._thread = threading.Thread(target=self._run, name="sm_tblog upload", daemon=True)
            self._thread.start()

    # The lane's own thread.

    def _run(self) -> None:
        while self._wait_for_work():
            self.step()

    def _wait_for_work(self) -> bool:
        """Wait until an attempt is due; False when there is nothing left to wait for."""
        with self._condition:
            while True:
                if not self._jobs and not self._side:
                    self._thread = None
                    self._condition.notify_all()
                    return False
                now = time.monotonic()
                if self._forced:
                    break
                pause = COALESCE
                if self._failures:
                    pause = BACKOFF[min(self._failures, len(BACKOFF)) - 1] * random.uniform(0.5, 1)  # noqa: S311 - spreads retries
                    self._asked = True
                rest = self._last_attempt + pause - now
                if self._asked and rest <= 0:
                    break
                self._condition.wait(rest if self._asked else None)
            self._asked = self._forced = False
        return True

    def step(self) -> None:
        """Bring everything that waits to its place, as far as it gets."""
        self._last_attempt = time.monotonic()
        try:
            self._upload()
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread goes on
            with self._condition:
                self._failures += 1
                self.error = _as_store_error(error, self._url)
                self._condition.notify_all()
        else:
            with self._condition:
                self._failures = 0
                self._last_success = time.monotonic()
                self.error = None
                self._condition.notify_all()

    def _upload(self) -> None:
        if self._place is None:
            self._place = self._open_place()
            self._finish_adopted()
        while self._jobs:
            job = self._jobs[0]
            if job.growing is None:
                job.growing = self._place.grow(job.file.name)
            closed, size = job.closed, job.file.size
            if size > job.growing.committed:
                size = self._padded(job, job.growing, size)
                job.growing.commit(job.file, size)
            with self._condition:
                self._condition.notify_all()
                if not closed or job.waiting:
                    break
                self._jobs.popleft()
            job.growing.close()
            job.file.delete()
        while self._side:
            self._upload_side(self._place, self._side[0])
            with self._condition:
                self._side.popleft().done = True
                self._condition.notify_all()

    def _finish_adopted(self) -> None:
        jobs = [Job(file) for file in self._adopt()]
        for job in jobs:
            job.closed = True
        with self._condition:
            self._jobs.extendleft(reversed(jobs))

    def _upload_side(self, place: Place, job: SideJob) -> None:
        data = job.data
        if callable(data):
            before = place.get(job.name)
            try:
                data = data(before)
            except Exception as error:  # noqa: BLE001 - anyone's function; it would fail for ever
                logger.warning("%s: the side file %s is not written: %s", self, job.name, error)
                return
        place.put(job.name, bytes(data))

    def _padded(self, job: Job, growing: Growing, size: int) -> int:
        """Return how much of a job's file is to be stored, after padding it if that is wanted."""
        missing = growing.padding(size)
        if not missing:
            return size
        job.file.append(self._encode_padding(missing))
        return job.file.size


def _as_store_error(error: Exception, url: str) -> StoreError:
    if isinstance(error, StoreError):
        return error
    ours = StoreError(f"{url}: {type(error).__name__}: {error}")
    ours.__cause__ = error
    return ours
