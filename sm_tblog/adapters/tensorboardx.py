"""tensorboardX: its writers on this library's stores.

::

    from tensorboardX import SummaryWriter
    from sm_tblog.adapters.tensorboardx import register

    register("s3")
    writer = SummaryWriter("s3://bucket/run")

tensorboardX uploads an object whole at each flush, and its thread dies of a failed upload, after
which logging waits for ever. On these stores about as many bytes are uploaded as are logged, what
is not acknowledged waits on the local disk and survives the process, and no fault reaches the
thread. Files that tensorboardX writes beside the events, as those of embeddings, it writes to the
local disk, wherever the log folder is.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import weakref
from typing import TYPE_CHECKING, Any

from sm_tblog import InvalidValueError, StoreError
from sm_tblog.adapters._target import missing
from sm_tblog.storage import Appender, open_store

try:
    from tensorboardX.record_writer import register_writer_factory
except ImportError as error:
    raise missing(package="tensorboardX", error=error) from error

if TYPE_CHECKING:
    from sm_tblog.storage import Store

__all__ = ["RecordFile", "StoreFactory", "register"]

logger = logging.getLogger("sm_tblog")

WAIT = 30.0
"""Seconds that closing waits for what a remote store has not acknowledged."""

KEPT = 64 << 20
"""Bytes that are kept, at most, of what a store does not take."""


def register(*schemes: str, **storage_options: Any) -> None:
    """Have tensorboardX write to this library's stores, where a log folder is a URL.

    Args:
        schemes: of which URLs: ``"s3"``, ``"gs"``, ``"az"``, …; by default ``"s3"`` alone.
        storage_options: passed to the stores.

    Raises:
        InvalidValueError: a scheme has ``://`` in it.
        MissingDependencyError: a store's package is not installed.
    """
    for scheme in schemes or ("s3",):
        if ":" in scheme:
            message = f"a scheme is what stands before ://, {scheme.partition(':')[0]!r} here"
            raise InvalidValueError(message)
        open_store(f"{scheme}://bucket", "", **storage_options)  # raises what is wrong with it
        register_writer_factory(scheme, StoreFactory(**storage_options))


class StoreFactory:
    """What tensorboardX asks for the file of a writer.

    Args:
        storage_options: passed to the stores.
    """

    def __init__(self, **storage_options: Any) -> None:
        self._storage_options = storage_options

    def directory_check(self, path: str) -> None:
        """Do nothing: a store makes its folder with its file."""

    def open(self, path: str) -> RecordFile:
        """Return the file.

        Args:
            path: its URL.
        """
        return RecordFile(path, **self._storage_options)


class RecordFile:
    """A file of records on a store.

    What is written waits for ``flush``, which tensorboardX calls between two records. A fault of
    the store is said once, and what it did not take is offered again by the next flush.

    Args:
        path: the file's URL. Into its name comes what makes it the only one: tensorboardX's has
            the second and the host.
        storage_options: passed to the store.
    """

    def __init__(self, path: str, **storage_options: Any) -> None:
        self._written: list[bytes] = []
        self._delivery = _Delivery(path, storage_options)
        self._close = weakref.finalize(self, _Delivery.close, self._delivery, self._written)

    def write(self, data: bytes) -> None:
        """Take a part of a record."""
        self._written.append(bytes(data))

    def flush(self) -> None:
        """Have what was written stored. Of a remote store it does not wait for the network."""
        self._delivery.take(self._written)

    def close(self) -> None:
        """Have everything stored, and close the file; a remote store is waited for."""
        self._close()


class _Delivery:
    """Brings what was written to a store; outlives the file, to close the store in the end."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self._url = url
        self._options = options
        self._store: Store | None = None
        self._appender = Appender(self._opened)
        self._failed = False
        self._dropped = 0

    def take(self, written: list[bytes]) -> None:
        data = b"".join(written)
        written.clear()
        if self._appender.pending + len(data) > KEPT:
            self._dropped += len(data)
            data = b""
        try:
            if data:
                self._appender.append(data)
            self._appender.flush()
        except StoreError as error:
            if not self._failed:
                logger.warning("%s: not stored, will be tried again: %s", self._url, error)
            self._failed = True
        else:
            self._failed = False

    def close(self, written: list[bytes]) -> None:
        self.take(written)
        if self._store is None:
            return
        unsaved = self._appender.pending + self._dropped
        with contextlib.suppress(StoreError):  # it was said
            self._appender.close()
        if unsaved:
            logger.warning(
                "%s: %d bytes are lost, which the store did not take", self._url, unsaved
            )
        wait = getattr(self._store, "wait", None)
        if wait is not None and not wait(WAIT, force=True):
            logger.warning(
                "%s: not everything could be uploaded in time; it waits on the local disk, for the "
                "next writer to that folder or sm-tblog upload",
                self._url,
            )

    def _opened(self) -> Store:
        folder, _, name = self._url.rpartition("/")
        unique = f"{os.getpid()}.{os.urandom(4).hex()}"
        name = re.sub(r"(tfevents\.\d+)", rf"\1.{unique}", name)
        self._store = open_store(folder, name, **self._options)
        return self._store
