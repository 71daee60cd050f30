"""Object stores: a growing object in a bucket, and side files beside it.

``append`` writes to a spool file on the local disk and returns; an ``UploadQueue`` uploads it.
So a store that is slow, down or refuses costs the training loop nothing, and what it has not
acknowledged survives the process. Side files go the same way.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakValueDictionary

from sm_tblog._errors import StoreError
from sm_tblog.format.records import padding
from sm_tblog.storage import s3_options, side_spool, spool
from sm_tblog.storage.base import NotUploadedError, scheme_of, side_file_path
from sm_tblog.storage.upload_pool import UploadPool
from sm_tblog.storage.upload_queue import UploadJob, UploadQueue

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sm_tblog._types import Bytes
    from sm_tblog.storage.base import SideData
    from sm_tblog.storage.remote import RemoteFolder
    from sm_tblog.storage.side_spool import SideFileJob
    from sm_tblog.storage.spool import SpoolFile

__all__ = ["ObjectStore", "open_folder", "upload_orphans"]

S3_SCHEMES = ("s3", "s3a")

_queues: WeakValueDictionary[tuple[str, str, Path], UploadQueue] = WeakValueDictionary()
_pools: dict[tuple[str, str], UploadPool] = {}
_lock = threading.Lock()


class ObjectStore:
    """Appends to an object, by way of the spool.

    Args:
        folder: the URL of a folder in a bucket.
        name: the growing object's name in it.
        spool: the folder for spool files, see ``spool.default_folder``.
        stretch: let uploads become rarer as the run goes on: at most this share of its age passes
            between two, 0.01 say.
        storage_options: passed to the place; see ``s3_options`` and ``fsspec_place``.

    Raises:
        MissingDependencyError: a package is not installed.
        InvalidValueError: there is no such option.
    """

    flush_secs: ClassVar[float] = 10.0

    def __init__(
        self,
        folder: str,
        name: str,
        *,
        spool: str | os.PathLike[str] | None = None,
        stretch: float = 0.0,
        **storage_options: Any,
    ) -> None:
        self._folder = folder.rstrip("/")
        self._name = name
        self._spool = spool
        self._options = storage_options
        self._stretch = stretch
        self._began = self._asked = time.monotonic()
        check_options(folder, storage_options)
        self._job: UploadJob | None = None
        self._side: list[SideFileJob] = []
        self._closed = False
        self._queue: UploadQueue | None = None

    def __str__(self) -> str:
        """Return the URL of the growing object."""
        return f"{self._folder}/{self._name}"

    def append(self, data: Bytes) -> None:
        """Append ``data`` to the spool file.

        Raises:
            StoreError: the spool is full.
        """
        in_memory = self._job is not None and not self._job.file.is_on_disk
        self._check_room(len(data), in_memory=in_memory)
        if self._job is None:
            file = spool.create(_folder_of(self._spool), name=self._name, **self._notes())
            self._job = UploadJob(file)
            self._find_queue().add(self._job)
        self._job.file.append(data)

    def put(self, name: str, data: SideData) -> None:
        """Have the side file ``name`` written.

        Raises:
            InvalidValueError: ``name`` is absolute or leaves the folder.
            StoreError: the spool is full.
        """
        path = str(side_file_path(name))
        more = len(side_spool.content_of(data))
        self._check_room(more, in_memory=False)
        self._check_room(more, in_memory=True)  # where it goes if the disk does not take it
        job = side_spool.create(_folder_of(self._spool), name=path, data=data, **self._notes())
        self._side = [one for one in self._side if not one.done]
        self._side.append(job)
        self._find_queue().put(job)

    def get(self, name: str) -> bytes | None:
        """Return what the side file ``name`` holds at its place, None where there is none.

        Raises:
            InvalidValueError: ``name`` is absolute or leaves the folder.
            StoreError: the place cannot be read.
        """
        return open_folder(self._folder, self._options).get(str(side_file_path(name)))

    def flush(self) -> None:
        """Have what was appended uploaded. ``wait`` waits for it.

        Raises:
            NotUploadedError: the last attempt to upload failed. What it was to bring is in the
                spool, and is tried again.
        """
        if self._queue is None:
            return
        now = time.monotonic()
        if now - self._asked >= self._stretch * (now - self._began):
            self._asked = now
            self._queue.request_upload()
        if error := self.error:
            raise NotUploadedError(str(error)) from error

    def wait(self, timeout: float, *, force: bool = False) -> bool:
        """Wait until everything is acknowledged; return whether it is.

        Args:
            timeout: seconds.
            force: also if an upload has just been made, and the next one is due within a second.
        """
        if self._queue is None:
            return True
        return self._queue.wait(timeout, force=force)

    def close(self) -> None:
        """Have the object finished. ``wait`` waits for it."""
        self._closed = True
        if self._job is not None:
            self._job.closed = True
        if self._queue is not None:
            self._queue.request_upload(force=True)

    @property
    def is_full(self) -> bool:
        """Whether another object had better follow, for this one's size or to free its memory."""
        return self._job is not None and self._job.is_full

    @property
    def unacknowledged(self) -> int:
        """Bytes of the object, and of side files, that their place has not acknowledged."""
        sides = sum(job.waiting for job in self._side)
        return sides if self._job is None else sides + self._job.waiting

    @property
    def is_done(self) -> bool:
        """Whether the store is closed, and its place has everything."""
        side = all(job.done for job in self._side)
        return self._closed and side and (self._job is None or self._job.done)

    @property
    def spool_files(self) -> list[str]:
        """The spool files of this folder that hold what is not acknowledged."""
        return [] if self._queue is None else list(map(str, self._queue.files(waiting=True)))

    @property
    def error(self) -> StoreError | None:
        """Why the last attempt to upload failed; None if it did not."""
        return None if self._queue is None else self._queue.error

    def _notes(self) -> dict[str, Any]:
        return notes_of(self._folder, self._options)

    def _find_queue(self) -> UploadQueue:
        if self._queue is None:
            self._queue = _queue(self._folder, self._options, _folder_of(self._spool))
        return self._queue

    def _check_room(self, more: int, *, in_memory: bool) -> None:
        """Raise if the spool has no room for so many bytes more. Alone, they may be as many.

        Raises:
            StoreError: it has not. If this object's own room would do, and is not needed any more,
                ``is_full`` asks for another object, which will find it.
        """

        def taken(file: SpoolFile) -> int:
            return file.in_memory if in_memory else file.size - file.in_memory

        used = sum(taken(file) for queue in _all_queues() for file in queue.files())
        limit = spool.MEMORY_LIMIT if in_memory else spool.LIMIT
        if used + more <= limit or not (used and more):
            return
        if self._job is not None and not self._job.waiting:
            self._job.must_roll = used - taken(self._job.file) + more <= limit
        message = f"{self}: the spool is full: it has {used:,} bytes, and may have {limit:,}"
        raise StoreError(errno.ENOSPC, message)


def open_folder(url: str, options: dict[str, Any]) -> RemoteFolder:
    """Return the place of a folder's objects. Touches the network.

    Raises:
        StoreError: it cannot be reached, or its options do not fit.
    """
    if scheme_of(url) in S3_SCHEMES:
        from sm_tblog.storage.s3 import S3Folder

        return S3Folder(url, options)
    from sm_tblog.storage.fsspec_folder import FsspecFolder

    return FsspecFolder(url, options)


def check_options(url: str, options: dict[str, Any]) -> None:
    """Raise if a place cannot be opened for want of a package, or of an option's name.

    Raises:
        MissingDependencyError: a package is not installed.
        InvalidValueError: there is no such option.
    """
    if scheme_of(url) in S3_SCHEMES:
        s3_options.check(url, options)
    else:
        from sm_tblog.storage import fsspec_folder

        fsspec_folder.check(url)


def notes_of(url: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return what a later upload needs to know of a folder, ``url`` among it; no secrets."""
    is_s3 = scheme_of(url) in S3_SCHEMES
    return {
        "url": s3_options.without_password(url),
        **(s3_options.public(options) if is_s3 else {}),
    }


def upload_orphans(
    folder: Path, options: dict[str, Any], timeout: float
) -> Iterator[tuple[SpoolFile, StoreError | None]]:
    """Upload the spool files that no process holds; iterate over them, with what went wrong.

    Args:
        folder: a spool folder, or one spool file.
        options: as for ``ObjectStore``, for all of them.
        timeout: seconds for each.
    """
    for file in _whole(spool.orphans(folder)):
        place = partial(open_folder, file.url, {**side_spool.folder_options(file), **options})
        queue = UploadQueue(file.url, place, padding, UploadPool())
        queue.resume([file])
        if queue.is_empty:  # a side file with which nothing can be done, which has been said
            if Path(str(file)).exists():
                yield file, StoreError(f"{file} was written by another release of sm_tblog")
            continue
        stored = queue.wait(timeout, force=True)
        late = StoreError(f"{file.url}: not uploaded within {timeout:.0f} s")
        yield file, None if stored else queue.error or late


def _queue(url: str, options: dict[str, Any], spool_folder: Path) -> UploadQueue:
    """Return this process's queue of a folder."""
    given = repr(sorted(options.items()))
    destination = "/".join(url.split("/")[:3])
    with _lock:
        queue = _queues.get((url, given, spool_folder))
        if queue is None:
            pool = _pools.setdefault((destination, given), UploadPool())
            find_orphans = partial(_find_orphans, spool_folder, notes_of(url, options))
            queue = UploadQueue(
                url, partial(open_folder, url, options), padding, pool, find_orphans
            )
            _queues[url, given, spool_folder] = queue
    return queue


def _all_queues() -> list[UploadQueue]:
    with _lock:
        return list(_queues.values())


def _find_orphans(folder: Path, notes: dict[str, Any]) -> list[SpoolFile]:
    """Return the files that an earlier process has left behind, their torn ends dropped."""
    where = {key: notes.get(key) for key in ("url", "endpoint_url")}
    return sorted(_whole(spool.orphans(folder, **where)), key=side_spool.order)


def _whole(files: Iterable[SpoolFile]) -> Iterator[SpoolFile]:
    """Iterate over files whose torn ends are dropped; a side file is whole or nothing."""
    for file in files:
        if not side_spool.is_side(file):
            file.drop_torn_end()
        yield file


def _folder_of(folder: str | os.PathLike[str] | None) -> Path:
    return spool.default_folder() if folder is None else Path(folder).expanduser()


def _reset_after_fork() -> None:
    """Leave the parent's queues to it: their threads are not in this process."""
    global _lock  # noqa: PLW0603 - a fork may have happened while it was held
    _lock = threading.Lock()
    for queue in _all_queues():
        queue.release()
    _queues.clear()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
