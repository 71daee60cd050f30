"""Upload what is spooled for one remote folder, in order, on another thread.

The logging thread only appends to a spool file; all network traffic runs on a thread of an
``UploadPool``. Each folder has one queue. A closed object is finished before a later one begins,
because a reader such as TensorBoard moves on to the later one as soon as it exists and never goes
back. A failed attempt is repeated with growing pauses for as long as the process lives.

``RemoteFolder`` and ``AppendableObject`` say what a queue needs; ``s3`` and ``fsspec_folder``
implement them.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from sm_tblog._errors import StoreError
from sm_tblog.storage.base import RefusedError
from sm_tblog.storage.side_spool import is_side, restore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sm_tblog.storage.remote import AppendableObject, RemoteFolder
    from sm_tblog.storage.side_spool import SideFileJob
    from sm_tblog.storage.spool import SpoolFile
    from sm_tblog.storage.upload_pool import UploadPool

__all__ = ["UploadJob", "UploadQueue"]

logger = logging.getLogger("sm_tblog")

COALESCE = 1.0
"""Seconds between two uploads of one queue, at least, unless one is forced."""

LONGEST = 64 << 20
"""Bytes after which another object follows one of which nothing has been uploaded yet."""

BACKOFF = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before the attempt that follows so many failures; one that is forced waits the first."""

ATTEMPTS = 3
"""Failures in a row after which a barrier takes a place to be down."""

SLOW = 10.0
"""Seconds of waiting in vain after which it does the same."""

DOWN_PATIENCE = 1.0
"""Seconds that a barrier waits for a place that is down."""


class UploadJob:
    """One object on its way.

    Attributes:
        file: what it is to hold.
        is_new: whether this process has begun it.
        must_roll: whether another object had better follow, whatever the size of this one.
        closed: nothing will be appended any more.
        done: it is closed, the place has acknowledged all, and the spool file is gone.
    """

    def __init__(self, file: SpoolFile, *, is_new: bool = True) -> None:
        self.file = file
        self.is_new = is_new
        self.must_roll = False
        self.closed = not is_new
        self.done = False
        self.remote_object: AppendableObject | None = None

    @property
    def committed(self) -> int:
        """How many bytes the place has acknowledged."""
        return (
            0 if self.remote_object is None else min(self.remote_object.committed, self.file.size)
        )

    @property
    def is_full(self) -> bool:
        """Whether another object had better follow."""
        most = LONGEST if self.remote_object is None else self.remote_object.roll_bytes
        return self.must_roll or self.file.size >= most

    @property
    def waiting(self) -> int:
        """How many bytes the place has not acknowledged."""
        return self.file.size - self.committed


class UploadQueue:
    """The objects of one folder, on their way to it.

    Args:
        url: the folder, for messages.
        open_folder: makes the place; called with the first attempt, and again after a failure.
        encode_padding: returns a record of so many bytes that readers pass over.
        pool: has the threads.
        find_orphans: returns files of the folder that earlier processes have left behind, in order.

    Attributes:
        error: why the last attempt failed; None if it did not.
    """

    def __init__(
        self,
        url: str,
        open_folder: Callable[[], RemoteFolder],
        encode_padding: Callable[[int], bytes],
        pool: UploadPool,
        find_orphans: Callable[[], Sequence[SpoolFile]] = tuple,
    ) -> None:
        self._url = url
        self._open_folder = open_folder
        self._encode_padding = encode_padding
        self._pool = pool
        self._condition = pool.condition
        self._find_orphans = find_orphans
        self._folder: RemoteFolder | None = None
        self._jobs: deque[UploadJob] = deque()
        self._side: deque[SideFileJob] = deque()
        self._others: list[SideFileJob] = []  # which earlier processes have left
        self._stepping = threading.Lock()
        self._asked = False
        self._forced_at = math.inf  # when somebody first asked for an attempt at once
        self._failures = 0  # in a row
        self._failed_at = 0.0
        self._rest_until = 0.0
        self._last_success = 0.0
        self.error: StoreError | None = None

    def __str__(self) -> str:
        """Return the folder."""
        return self._url

    # The side of the thread that logs.

    def add(self, job: UploadJob) -> None:
        """Take a job, which comes after all that were added before."""
        with self._condition:
            self._jobs.append(job)

    def put(self, job: SideFileJob) -> None:
        """Take a side file, to be written after those before it."""
        with self._condition:
            self._side.append(job)
        self.request_upload()

    def resume(self, files: Sequence[SpoolFile]) -> None:
        """Take what earlier processes have left, to be finished before what this one has."""
        restored = [restore(file) for file in files if is_side(file)]
        jobs = [UploadJob(file, is_new=False) for file in files if not is_side(file)]
        with self._condition:
            self._others = [side for side in restored if side is not None]
            self._side.extendleft(reversed(self._others))
            self._jobs.extendleft(reversed(jobs))

    def request_upload(self, *, force: bool = False) -> None:
        """Have what was appended uploaded, soon or, if forced, at once."""
        with self._condition:
            if self.is_empty:
                return
            self._asked = True
            if force:
                self._forced_at = min(self._forced_at, time.monotonic())
            has_thread = self._pool.schedule(self)
        if not has_thread:
            self.step()

    def wait(self, timeout: float, *, force: bool = False) -> bool:
        """Wait until everything taken so far is acknowledged; return whether it is.

        What is not acknowledged is in the spool; so, unless all jobs are closed, a place that is
        known to be down or to refuse is waited for only if forced, and then not long.

        Args:
            timeout: seconds.
            force: do not leave it to an upload that is due within ``COALESCE``, or to the next
                attempt at a place that is down.
        """
        with self._condition:
            marks = [(job, job.file.size) for job in self._jobs]
            sides = list(self._side)
            patient = all(job.closed for job, _ in marks)
            refuses = isinstance(self.error, RefusedError)
            is_known_to_be_down = refuses or self._failures >= ATTEMPTS or self._pool.is_down
            may_leave_it = not force and not patient
            enough = max(ATTEMPTS, self._failures + 1)  # failures: a place that was down is tried

        def stored() -> bool:
            jobs = all(job.done or (not job.closed and job.committed >= n) for job, n in marks)
            return jobs and all(side.done for side in (*sides, *self._others))

        def ended() -> bool:
            is_down = not patient or isinstance(self.error, RefusedError)
            return stored() or (is_down and self._failures >= enough)

        if stored():
            return True
        if may_leave_it and is_known_to_be_down:
            self.request_upload()
            return False
        since = time.monotonic() - self._last_success
        if may_leave_it and not self._failures and since < COALESCE:
            self.request_upload()
            return True
        self.request_upload(force=True)
        with self._condition:
            if (self._failures or self._pool.is_down) and not patient:
                now = time.monotonic()
                timeout = min(timeout, max(self._forced_at + DOWN_PATIENCE - now, 0.0))
            self._condition.wait_for(ended, timeout)
            self._pool.is_down |= timeout >= SLOW and not stored()
            return stored()

    def jobs(self) -> list[UploadJob]:
        """Return what is on its way."""
        with self._condition:
            return list(self._jobs)

    def files(self, *, waiting: bool = False) -> list[SpoolFile]:
        """Return the spool files of what is on its way, or only of what is not acknowledged."""
        with self._condition:
            jobs: list[UploadJob | SideFileJob] = [*self._jobs, *self._side]
        return [job.file for job in jobs if job.waiting or not waiting]

    def release(self) -> None:
        """Let go of the spool files in a forked child, whatever was held when it was made."""
        jobs: list[UploadJob | SideFileJob] = [*self._jobs, *self._side]
        for job in jobs:
            job.file.release()

    # The side of the pool.

    @property
    def is_empty(self) -> bool:
        """Whether nothing is on its way."""
        return not self._jobs and not self._side

    @property
    def due(self) -> float:
        """When the next attempt is to begin, by the monotonic clock."""
        if self._forced_at < math.inf:
            return min(self._failed_at + BACKOFF[0], self._rest_until) if self._failures else 0.0
        return self._rest_until if self._asked or self._failures else math.inf

    def step(self) -> None:
        """Bring everything that waits to its place, as far as it gets."""
        with self._stepping:
            with self._condition:
                self._asked, self._forced_at = False, math.inf
            begun = time.monotonic()
            try:
                self._upload()
            except Exception as error:  # noqa: BLE001 - whatever it is, the thread goes on
                with self._condition:
                    pause = BACKOFF[min(self._failures, len(BACKOFF) - 1)]
                    self._failures += 1
                    self._failed_at = time.monotonic()
                    spread = random.uniform(0.5, 1)  # noqa: S311 - against retries in step
                    self._rest_until = self._failed_at + pause * spread
                    self.error = _as_store_error(error, self._url)
            else:
                with self._condition:
                    self._failures, self._pool.is_down = 0, False
                    self._last_success = time.monotonic()
                    self._rest_until = begun + COALESCE
                    self.error = None
            self._notify()

    def _upload(self) -> None:
        if self._folder is None:
            self._folder = self._open_folder()
            self._finish_others(self._find_orphans())
        with self._condition:
            jobs, sides = list(self._jobs), list(self._side)
        for job in jobs:
            if job.remote_object is None:
                job.remote_object = self._folder.open_object(job.file.name, is_new=job.is_new)
            self._upload_job(job, job.remote_object)
        for side in sides:
            self._upload_side(self._folder, side)

    def _finish_others(self, files: Sequence[SpoolFile]) -> None:
        if files:
            logger.info("%s: files that earlier processes left to upload: %d", self, len(files))
            self.resume(files)

    def _upload_job(self, job: UploadJob, remote_object: AppendableObject) -> None:
        closed, size = job.closed, job.file.size  # in this order: a closed one does not grow
        if size > remote_object.committed:
            missing = 0 if closed else remote_object.padding(size)
            if missing and not job.file.holds_records:
                job.must_roll = True  # what cannot be padded
            elif missing:
                job.file.append(self._encode_padding(missing))
                size = job.file.size
            remote_object.commit(job.file, size)
            self._notify()
        if closed:
            job.file.delete()
            with self._condition:
                job.done = True
                self._jobs.remove(job)
            self._notify()
            remote_object.close()

    def _upload_side(self, place: RemoteFolder, job: SideFileJob) -> None:
        try:
            job.upload(place)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - anyone's function; it would fail for ever
            logger.warning("%s: the side file %s is not written: %s", self, job.file.name, error)
        job.file.delete()
        with self._condition:
            job.done = True
            self._side.remove(job)
        self._notify()

    def _notify(self) -> None:
        with self._condition:
            self._condition.notify_all()


def _as_store_error(error: Exception, url: str) -> StoreError:
    if isinstance(error, StoreError):
        return error
    ours = StoreError(f"{url}: {type(error).__name__}: {error}")
    ours.__cause__ = error
    return ours
