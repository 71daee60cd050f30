"""tensorboardX: this library's stores for its writers.

::

    from tensorboardX import SummaryWriter
    from sm_tblog.adapters.tensorboardx import register

    register("s3")
    writer = SummaryWriter("s3://bucket/run")

By itself, tensorboardX uploads its whole file at each flush. If an upload fails, its thread ends
and logging blocks forever. With these stores, about as many bytes are uploaded as are logged, data
that is not yet acknowledged waits on the local disk and survives the process, and no error reaches
tensorboardX's thread. tensorboardX writes additional files, such as those for embeddings, to the
local disk, whatever the log directory is.
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

CLOSE_TIMEOUT = 30.0
"""The maximum time, in seconds, that closing waits for a remote store to acknowledge data."""

MAX_PENDING = 64 << 20
"""The maximum number of bytes kept for a store that does not accept them."""


def register(*schemes: str, **storage_options: Any) -> None:
    """Make tensorboardX use this library's stores for log directories that are URLs.

    Args:
        schemes: the URL schemes: ``"s3"``, ``"gs"``, ``"az"``, …; by default only ``"s3"``.
        storage_options: options of the stores.

    Raises:
        InvalidValueError: a scheme contains ``:``, or there is no store for it.
        MissingDependencyError: a store's package is not installed.
    """
    for scheme in schemes or ("s3",):
        if ":" in scheme:
            message = f"pass a scheme without ://, here {scheme.partition(':')[0]!r}"
            raise InvalidValueError(message)
        open_store(f"{scheme}://bucket", "", **storage_options)  # fails if there is none
        register_writer_factory(scheme, StoreFactory(**storage_options))


class StoreFactory:
    """The factory through which tensorboardX opens the file of a writer.

    Args:
        storage_options: options of the stores.
    """

    def __init__(self, **storage_options: Any) -> None:
        self._storage_options = storage_options

    def directory_check(self, path: str) -> None:
        """Do nothing: a store creates the directory along with its file."""

    def open(self, path: str) -> RecordFile:
        """Open a file.

        Args:
            path: the URL of the file.
        """
        return RecordFile(path, **self._storage_options)


class RecordFile:
    """A file of records in a store.

    Data is buffered until ``flush``, which tensorboardX calls between two records. If the store
    fails, the file warns once, and the next flush retries what the store has not accepted.

    Args:
        path: the URL of the file. A unique part is added to its name, because the names of
            tensorboardX contain only the second and the host.
        storage_options: options of the store.
    """

    def __init__(self, path: str, **storage_options: Any) -> None:
        self._buffer: list[bytes] = []
        self._output = _StoreOutput(path, storage_options)
        self._close = weakref.finalize(self, _StoreOutput.close, self._output, self._buffer)

    def write(self, data: bytes) -> None:
        """Buffer a part of a record."""
        self._buffer.append(bytes(data))

    def flush(self) -> None:
        """Pass the buffered data to the store. Does not wait for the network."""
        self._output.write(self._buffer)

    def close(self) -> None:
        """Store everything and close the file. Waits for a remote store."""
        self._close()


class _StoreOutput:
    """Passes data to a store. It outlives the file, so that it can close the store at the end."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self._url = url
        self._options = options
        self._store: Store | None = None
        self._appender = Appender(self._open)
        self._failed = False
        self._dropped = 0

    def write(self, buffer: list[bytes]) -> None:
        data = b"".join(buffer)
        buffer.clear()
        if self._appender.pending + len(data) > MAX_PENDING:
            self._dropped += len(data)
            data = b""
        try:
            if data:
                self._appender.append(data)
            self._appender.flush()
        except StoreError as error:
            if not self._failed:
                logger.warning("%s: not stored, will be retried: %s", self._url, error)
            self._failed = True
        else:
            self._failed = False

    def close(self, buffer: list[bytes]) -> None:
        self.write(buffer)
        if self._store is None:
            return
        unsaved = self._appender.pending + self._dropped
        with contextlib.suppress(StoreError):  # already logged
            self._appender.close()
        if unsaved:
            logger.warning(
                "%s: %d bytes are lost because the store did not accept them", self._url, unsaved
            )
        wait = getattr(self._store, "wait", None)
        if wait is not None and not wait(CLOSE_TIMEOUT, force=True):
            logger.warning(
                "%s: not everything was uploaded in time. The rest is on the local disk, until the "
                "next writer for that directory or `sm-tblog upload` uploads it",
                self._url,
            )

    def _open(self) -> Store:
        folder, _, name = self._url.rpartition("/")
        unique = f"{os.getpid()}.{os.urandom(4).hex()}"
        name = re.sub(r"(tfevents\.\d+)", rf"\1.{unique}", name)
        self._store = open_store(folder, name, **self._options)
        return self._store
