"""Object stores: a growing object in a bucket, and side files beside it.

``append`` writes to a spool file on the local disk and returns; an ``UploadQueue`` uploads it.
So an object store that is slow, down or refuses writes does not slow down the training loop, and
data that it has not acknowledged survives the process. Side files are uploaded in the same way.
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
from sm_tblog.storage import s3_options, side_spool, spool, urls
from sm_tblog.storage.base import InvalidNameError, NotUploadedError, side_file_path
from sm_tblog.storage.upload_pool import UploadPool
from sm_tblog.storage.upload_queue import UploadJob, UploadQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sm_tblog._types import Bytes
    from sm_tblog.storage.base import SideData
    from sm_tblog.storage.remote import RemoteFolder
    from sm_tblog.storage.side_spool import SideFileJob
    from sm_tblog.storage.spool import SpoolFile

__all__ = ["ObjectStore", "open_folder", "upload_orphans"]

MAX_KEY_SIZE = 1024
"""Maximum size of an object's key in UTF-8, in bytes, on S3 and Google Cloud Storage."""

_queues: WeakValueDictionary[tuple[str, str, Path], UploadQueue] = WeakValueDictionary()
_pools: dict[tuple[str, str], UploadPool] = {}
_refusals: dict[tuple[str, str], str] = {}
"""Why appends do not work, by bucket; see ``s3.S3Folder``."""

_lock = threading.Lock()


class ObjectStore:
    """Appends to an object through the spool.

    Args:
        folder: the URL of a folder in a bucket.
        name: the growing object's name in the folder.
        spool: the folder for spool files; default ``spool.default_folder()``.
        stretch: makes uploads rarer as the run goes on: the interval between two uploads grows up
            to this fraction of the run's age, for example 0.01. 0, the default, disables it.
        storage_options: passed to the remote folder; see ``s3_options`` and ``fsspec_folder``.

    Raises:
        MissingDependencyError: a package is not installed.
        InvalidValueError: an option is unknown.
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
        self._started_at = self._requested_at = time.monotonic()
        check_options(folder, storage_options)
        self._job: UploadJob | None = None
        self._side: list[SideFileJob] = []
        self._closed = False
        self._queue: UploadQueue | None = None

    def __str__(self) -> str:
        """Return the URL of the growing object."""
        return f"{self._folder}/{self._name if self._job is None else self._job.file.name}"

    def append(self, data: Bytes) -> None:
        """Append ``data`` to the spool file.

        Raises:
            StoreError: the spool is full.
        """
        in_memory = self._job is not None and not self._job.file.is_on_disk
        self._check_room(len(data), in_memory=in_memory)
        if self._job is None:
            self._check_name(self._name)
            file = spool.create(_spool_folder(self._spool), name=self._name, **self._notes())
            self._job = UploadJob(file)
            self._get_queue().add(self._job)
        self._job.file.append(data)

    def put(self, name: str, data: SideData) -> None:
        """Queue the side file ``name`` for upload.

        Raises:
            InvalidValueError: ``name`` is absolute or leaves the folder.
            StoreError: the spool is full.
        """
        path = str(side_file_path(name))
        self._check_name(path)
        size = len(side_spool.content_of(data))
        self._check_room(size, in_memory=False)
        self._check_room(size, in_memory=True)  # the fallback if the disk is full
        job = side_spool.create(_spool_folder(self._spool), name=path, data=data, **self._notes())
        self._side = [one for one in self._side if not one.done]
        self._side.append(job)
        self._get_queue().put(job)

    def get(self, name: str) -> bytes | None:
        """Return the content of the side file ``name``, or None if the remote folder has none.

        Raises:
            InvalidValueError: ``name`` is absolute or leaves the folder.
            StoreError: the remote folder cannot be read.
        """
        return open_folder(self._folder, self._options).get(str(side_file_path(name)))

    def flush(self) -> None:
        """Request an upload of the appended bytes. ``wait`` waits for it.

        Raises:
            NotUploadedError: the last attempt to upload failed. Its data is in the spool, and the
                upload is retried.
        """
        if self._queue is None:
            return
        now = time.monotonic()
        if now - self._requested_at >= self._stretch * (now - self._started_at):
            self._requested_at = now
            self._queue.request_upload()
        if error := self.error:
            raise NotUploadedError(str(error)) from error

    def wait(self, timeout: float, *, force: bool = False) -> bool:
        """Wait until everything is acknowledged; return whether it is.

        Args:
            timeout: seconds.
            force: also wait if an upload has just finished and the next is due within a second.
        """
        if self._queue is None:
            return True
        return self._queue.wait(timeout, force=force)

    def close(self) -> None:
        """Request the final upload of the object. ``wait`` waits for it."""
        self._closed = True
        if self._job is not None:
            self._job.closed = True
        if self._queue is not None:
            self._queue.request_upload(force=True)

    @property
    def is_full(self) -> bool:
        """Whether to start a new object, because of this one's size or to free its memory."""
        return self._job is not None and self._job.is_full

    @property
    def unacknowledged(self) -> int:
        """Bytes of the object and of side files that the remote folder has not acknowledged."""
        sides = sum(job.unacknowledged for job in self._side)
        return sides if self._job is None else sides + self._job.unacknowledged

    @property
    def is_done(self) -> bool:
        """Whether the store is closed and everything is uploaded."""
        side = all(job.done for job in self._side)
        return self._closed and side and (self._job is None or self._job.done)

    @property
    def spool_files(self) -> list[str]:
        """The spool files of this folder that hold bytes not acknowledged yet."""
        return [] if self._queue is None else list(map(str, self._queue.files(unacknowledged=True)))

    @property
    def error(self) -> StoreError | None:
        """Why the last attempt to upload failed; None if it succeeded."""
        return None if self._queue is None else self._queue.error

    def _notes(self) -> dict[str, Any]:
        return notes_of(self._folder, self._options)

    def _get_queue(self) -> UploadQueue:
        if self._queue is None:
            self._queue = _queue(self._folder, self._options, _spool_folder(self._spool))
        return self._queue

    def _check_name(self, name: str) -> None:
        """Raise if an object cannot have this name.

        Raises:
            InvalidNameError: its key is not text, or longer than S3 and Google's store allow.
        """
        key = urls.key_of(self._folder, name)
        try:
            size = len(key.encode())
        except UnicodeEncodeError as error:
            message = f"{self._folder!r:.200}/{name}: not a name of an object: {error}"
            raise InvalidNameError(errno.EINVAL, message) from error
        if size > MAX_KEY_SIZE:
            message = (
                f"{self._folder:.200}/{name}: the key has {size:,} bytes, and may have "
                f"{MAX_KEY_SIZE:,}; what was to go there is dropped: choose a shorter name"
            )
            raise InvalidNameError(errno.ENAMETOOLONG, message)

    def _check_room(self, size: int, *, in_memory: bool) -> None:
        """Raise an error if the spool has no room for ``size`` more bytes.

        An empty spool accepts any size.

        Raises:
            StoreError: there is no room. If everything in this object's spool file is uploaded and
                freeing the file would make enough room, ``is_full`` requests a new object.
        """

        def usage(file: SpoolFile) -> int:
            return file.in_memory if in_memory else file.size - file.in_memory

        used = sum(usage(file) for queue in _all_queues() for file in queue.files())
        limit = spool.MEMORY_LIMIT if in_memory else spool.LIMIT
        if used + size <= limit or not (used and size):
            return
        if self._job is not None and not self._job.unacknowledged:
            self._job.must_roll = used - usage(self._job.file) + size <= limit
        message = f"{self}: the spool is full: it holds {used:,} bytes, and the limit is {limit:,}"
        raise StoreError(errno.ENOSPC, message)


def open_folder(url: str, options: dict[str, Any]) -> RemoteFolder:
    """Return the remote folder of a URL. Accesses the network.

    Raises:
        StoreError: the remote folder cannot be reached, or its options are invalid.
    """
    if urls.is_s3(url):
        from sm_tblog.storage.s3 import S3Folder

        return S3Folder(url, options, _refusals)
    from sm_tblog.storage.fsspec_folder import FsspecFolder

    return FsspecFolder(url, options)


def check_options(url: str, options: dict[str, Any]) -> None:
    """Raise an error if a package for a remote folder is missing or an option is unknown.

    Raises:
        MissingDependencyError: a package is not installed.
        InvalidValueError: an option is unknown.
    """
    if urls.is_s3(url):
        s3_options.check(url, options)
    else:
        from sm_tblog.storage import fsspec_folder

        fsspec_folder.check(url)


def notes_of(url: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the notes on a folder, ``url`` included, for a later upload; never a secret."""
    return {
        "url": urls.without_password(url),
        **(s3_options.public(options) if urls.is_s3(url) else {}),
    }


def upload_orphans(
    folder: Path, options: Callable[[str], dict[str, Any]], timeout: float
) -> Iterator[tuple[SpoolFile, StoreError | None]]:
    """Upload the orphaned spool files; yield each with its error, or None if it was uploaded.

    Args:
        folder: a spool folder, or one spool file.
        options: returns the ``storage_options`` for a URL; they precede those that the process
            had which left the file.
        timeout: seconds for each file.
    """
    for file in _without_torn_ends(spool.orphans(folder)):
        recorded = side_spool.folder_options(file)
        opener = partial(open_folder, file.url, s3_options.merged(recorded, options(file.url)))
        queue = UploadQueue(file.url, opener, padding, UploadPool())
        queue.resume([file])
        if queue.is_empty:  # a side file that cannot be restored; a warning is logged already
            if Path(str(file)).exists():
                yield file, StoreError(f"{file} was written by another release of sm_tblog")
            continue
        uploaded = queue.wait(timeout, force=True)
        timeout_error = StoreError(f"{file.url}: not uploaded within {timeout:.0f} s")
        yield file, None if uploaded else queue.error or timeout_error


def _queue(url: str, options: dict[str, Any], spool_folder: Path) -> UploadQueue:
    """Return this process's upload queue for a folder."""
    options_key = repr(sorted(options.items()))
    destination = urls.server_of(url)
    with _lock:
        queue = _queues.get((url, options_key, spool_folder))
        if queue is None:
            pool = _pools.setdefault((destination, options_key), UploadPool())
            find_orphans = partial(_find_orphans, spool_folder, notes_of(url, options))
            queue = UploadQueue(
                url, partial(open_folder, url, options), padding, pool, find_orphans
            )
            _queues[url, options_key, spool_folder] = queue
    return queue


def _all_queues() -> list[UploadQueue]:
    with _lock:
        return list(_queues.values())


def _find_orphans(folder: Path, notes: dict[str, Any]) -> list[SpoolFile]:
    """Return the orphaned spool files of a folder in order, without torn ends."""
    where = {key: notes.get(key) for key in ("url", "endpoint_url")}
    return sorted(_without_torn_ends(spool.orphans(folder, **where)), key=side_spool.order)


def _without_torn_ends(files: Iterable[SpoolFile]) -> Iterator[SpoolFile]:
    """Drop the torn ends of files and yield them; side files are either complete or unusable."""
    for file in files:
        if not side_spool.is_side(file):
            file.drop_torn_end()
        yield file


def _spool_folder(folder: str | os.PathLike[str] | None) -> Path:
    return spool.default_folder() if folder is None else Path(folder).expanduser()


def _reset_after_fork() -> None:
    """Release the queues of the parent process: their threads do not exist in this one."""
    global _lock  # noqa: PLW0603 - a fork may have happened while it was held
    _lock = threading.Lock()
    for queue in _all_queues():
        queue.release()
    _queues.clear()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
