"""Upload the spooled data of one remote folder, in order, on another thread.

The logging thread only appends to a spool file; all network traffic runs on a thread of an
``UploadPool``. Each remote folder has one queue. A closed object is finished before a later one
begins, because a reader such as TensorBoard moves on to the later one as soon as it exists and
never goes back. A failed attempt is repeated with growing pauses for as long as the process lives.

``RemoteFolder`` and ``AppendableObject`` are the interfaces that a queue requires; ``s3`` and
``fsspec_folder`` implement them.
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
from sm_tblog.storage.base import RefusedError, UnreachableError
from sm_tblog.storage.file_names import is_timed, later_name
from sm_tblog.storage.side_spool import is_side, restore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sm_tblog.storage.remote import AppendableObject, RemoteFolder
    from sm_tblog.storage.side_spool import SideFileJob
    from sm_tblog.storage.spool import SpoolFile
    from sm_tblog.storage.upload_pool import UploadPool

__all__ = ["UploadJob", "UploadQueue"]

logger = logging.getLogger("sm_tblog")

MIN_UPLOAD_INTERVAL = 1.0
"""Minimum seconds between two uploads of one queue, unless one is forced."""

MAX_UNSTARTED_SIZE = 64 << 20
"""Size in bytes at which a new object is started if nothing of this one is uploaded yet."""

BACKOFF = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Maximum pauses in seconds after 1, 2, … failures; a forced attempt waits for the first."""

MAX_FAILURES = 3
"""Failures in a row after which a barrier considers the remote folder down."""

HANG_TIMEOUT = 10.0
"""Seconds without success after which a barrier does the same."""

DOWN_TIMEOUT = 1.0
"""Seconds that a barrier waits for a remote folder that is down."""


class UploadJob:
    """The upload of one object.

    Attributes:
        file: the spool file with the object's content.
        is_new: whether this process created the object.
        must_roll: whether a new object should be started regardless of this one's size.
        closed: whether nothing more will be appended.
        done: whether the object is closed, everything is acknowledged, and the spool file is
            deleted.
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
        """Number of bytes that the remote folder has acknowledged."""
        return (
            0 if self.remote_object is None else min(self.remote_object.committed, self.file.size)
        )

    @property
    def is_full(self) -> bool:
        """Whether a new object should be started."""
        max_size = MAX_UNSTARTED_SIZE if self.remote_object is None else self.remote_object.max_size
        return self.must_roll or self.file.size >= max_size

    @property
    def unacknowledged(self) -> int:
        """Number of bytes that the remote folder has not acknowledged."""
        return self.file.size - self.committed


class UploadQueue:
    """The uploads to one remote folder, in order.

    Args:
        url: the remote folder's URL, for messages.
        open_folder: opens the remote folder; called at the first attempt, and again if it fails.
        encode_padding: returns a record of the given size in bytes that readers skip.
        pool: provides the threads.
        find_orphans: returns the orphaned spool files of the folder, in order.

    Attributes:
        error: why the last attempt failed; None if it succeeded.
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
        self._orphaned_sides: list[SideFileJob] = []  # of earlier processes
        self._step_lock = threading.Lock()
        self._requested = False
        self._forced_at = math.inf  # when a forced attempt was first requested
        self._failures = 0  # in a row
        self._is_attempting = False
        self._failed_at = 0.0
        self._not_before = 0.0
        self._last_success = 0.0
        self.error: StoreError | None = None

    def __str__(self) -> str:
        """Return the remote folder's URL."""
        return self._url

    # Called by the logging thread.

    def add(self, job: UploadJob) -> None:
        """Queue a job after all jobs added before."""
        with self._condition:
            self._jobs.append(job)

    def put(self, job: SideFileJob) -> None:
        """Queue a side file after all side files added before."""
        with self._condition:
            self._side.append(job)
        self.request_upload()

    def resume(self, files: Sequence[SpoolFile]) -> None:
        """Queue orphaned spool files before the jobs of this process."""
        restored = [restore(file) for file in files if is_side(file)]
        jobs = [UploadJob(file, is_new=False) for file in files if not is_side(file)]
        with self._condition:
            self._orphaned_sides = [side for side in restored if side is not None]
            self._side.extendleft(reversed(self._orphaned_sides))
            self._jobs.extendleft(reversed(jobs))

    def request_upload(self, *, force: bool = False, retry: bool = True) -> None:
        """Request an upload of the appended bytes: soon or, if forced, at once.

        Where no thread can be started, as while the interpreter shuts down (from Python 3.12 on),
        the attempt is made here, unless one is under way.

        Args:
            force: do not wait until the next upload is due.
            retry: in that case, make an attempt here also after one has failed.
        """
        with self._condition:
            if self.is_empty:
                return
            self._requested = True
            if force:
                self._forced_at = min(self._forced_at, time.monotonic())
            has_thread = self._pool.schedule(self)
            is_needed = not self._is_attempting and (retry or not self._failures)
        if not has_thread and is_needed:
            self.step()

    def wait(self, timeout: float, *, force: bool = False) -> bool:
        """Wait until everything queued so far is acknowledged; return whether it is.

        Unacknowledged data is in the spool. So, unless all jobs are closed, ``wait`` waits for a
        remote folder that is down or refuses writes only if forced, and then only briefly.

        Args:
            timeout: seconds.
            force: do not rely on an upload that is due within ``MIN_UPLOAD_INTERVAL``, or on the
                next attempt at a remote folder that is down.
        """
        with self._condition:
            targets = [(job, job.file.size) for job in self._jobs]
            sides = list(self._side)
            all_closed = all(job.closed for job, _ in targets)
            refuses = isinstance(self.error, RefusedError)
            is_known_to_be_down = refuses or self._failures >= MAX_FAILURES or self._pool.is_down
            may_defer = not force and not all_closed
            # An attempt that is under way does not count: what it found may have changed since.
            ignored = self._failures + self._is_attempting
            max_failures = max(MAX_FAILURES, ignored + 1)  # try again even if it was down

        begun_at = time.monotonic()

        def stored() -> bool:
            jobs = all(job.done or (not job.closed and job.committed >= n) for job, n in targets)
            return jobs and all(side.done for side in (*sides, *self._orphaned_sides))

        def ended() -> bool:
            if stored():
                return True
            if all_closed and not self._needs_the_user:
                return False
            hangs = self._is_never_reached and time.monotonic() - begun_at >= HANG_TIMEOUT
            return self._failures >= (ignored + 1 if hangs else max_failures)

        if stored():
            return True
        if may_defer and is_known_to_be_down:
            self.request_upload()
            return False
        since = time.monotonic() - self._last_success
        if may_defer and not self._failures and since < MIN_UPLOAD_INTERVAL:
            self.request_upload()
            return True
        self.request_upload(force=True, retry=False)  # a retry would not keep to the timeout
        with self._condition:
            if (self._failures or self._pool.is_down) and not all_closed:
                now = time.monotonic()
                timeout = min(timeout, max(self._forced_at + DOWN_TIMEOUT - now, 0.0))
            self._condition.wait_for(ended, timeout)
            self._pool.is_down |= timeout >= HANG_TIMEOUT and not stored()
            return stored()

    def jobs(self) -> list[UploadJob]:
        """Return the jobs that are not done."""
        with self._condition:
            return list(self._jobs)

    def files(self, *, unacknowledged: bool = False) -> list[SpoolFile]:
        """Return the spool files of all jobs, or only of those with unacknowledged bytes."""
        with self._condition:
            jobs: list[UploadJob | SideFileJob] = [*self._jobs, *self._side]
        return [job.file for job in jobs if job.unacknowledged or not unacknowledged]

    def release(self) -> None:
        """Close the spool files in a forked child, without the lock, which the parent may hold."""
        jobs: list[UploadJob | SideFileJob] = [*self._jobs, *self._side]
        for job in jobs:
            job.file.release()

    @property
    def _needs_the_user(self) -> bool:
        """Whether the store refuses writes, or its address may be wrong."""
        return isinstance(self.error, RefusedError) or self._is_never_reached

    @property
    def _is_never_reached(self) -> bool:
        return isinstance(self.error, UnreachableError) and not self._last_success

    # Called by the pool.

    @property
    def is_empty(self) -> bool:
        """Whether all jobs are done."""
        return not self._jobs and not self._side

    @property
    def due(self) -> float:
        """When the next attempt is due, by the monotonic clock."""
        if self._forced_at < math.inf:
            return min(self._failed_at + BACKOFF[0], self._not_before) if self._failures else 0.0
        return self._not_before if self._requested or self._failures else math.inf

    def step(self) -> None:
        """Make one attempt to upload everything queued."""
        with self._step_lock:
            with self._condition:
                self._requested, self._forced_at = False, math.inf
                self._is_attempting = True
            started_at = time.monotonic()
            try:
                self._upload()
            except Exception as error:  # noqa: BLE001 - the thread must survive any error
                with self._condition:
                    pause = BACKOFF[min(self._failures, len(BACKOFF) - 1)]
                    self._is_attempting = False
                    self._failures += 1
                    self._failed_at = time.monotonic()
                    jitter = random.uniform(0.5, 1)  # noqa: S311 - no cryptography
                    self._not_before = self._failed_at + pause * jitter
                    self.error = _as_store_error(error, self._url)
            else:
                with self._condition:
                    self._is_attempting = False
                    self._failures, self._pool.is_down = 0, False
                    self._last_success = time.monotonic()
                    self._not_before = started_at + MIN_UPLOAD_INTERVAL
                    self.error = None
            self._notify()

    def _upload(self) -> None:
        if self._folder is None:
            self._folder = self._open_folder()
            self._resume_orphans(self._find_orphans())
        with self._condition:
            jobs, sides = list(self._jobs), list(self._side)
        for job in jobs:
            if job.remote_object is None:
                if job.is_new and is_timed(job.file.name):
                    names = self._folder.names_after(job.file.name)
                    job.file.rename(later_name(self._url, job.file.name, names))
                job.remote_object = self._folder.open_object(job.file.name, is_new=job.is_new)
            self._upload_job(job, job.remote_object)
        for side in sides:
            self._upload_side(self._folder, side)

    def _resume_orphans(self, files: Sequence[SpoolFile]) -> None:
        if files:
            logger.info("%s: orphaned spool files to upload: %d", self, len(files))
            self.resume(files)

    def _upload_job(self, job: UploadJob, remote_object: AppendableObject) -> None:
        closed, size = job.closed, job.file.size  # in this order: a closed file does not grow
        if size > remote_object.committed:
            missing = 0 if closed else remote_object.padding(size)
            if missing and not job.file.holds_records:
                job.must_roll = True  # text cannot be padded
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

    def _upload_side(self, folder: RemoteFolder, job: SideFileJob) -> None:
        try:
            job.upload(folder)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - a function that would fail again
            logger.warning("%s: the side file %s is given up: %s", self, job.file.name, error)
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
    store_error = StoreError(f"{url}: {type(error).__name__}: {error}")
    store_error.__cause__ = error
    return store_error
