"""The store interface, the registry of stores by URL scheme, and the buffer in front of a store.

A store is one folder and one growing file in it. A table maps each URL scheme to
``"module:Class"``, imported at first use; ``register_store`` adds an entry. ``Appender`` sits
between a sink and its store: it opens the store at the first write and queues, in order, the bytes
that the store does not accept.
"""

from __future__ import annotations

import contextlib
import importlib
from collections import deque
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from sm_tblog._errors import InvalidValueError, MissingDependencyError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from sm_tblog._types import Bytes

    SideData: TypeAlias = Bytes | Callable[[bytes | None], bytes]

__all__ = [
    "Appender",
    "InvalidNameError",
    "NotUploadedError",
    "RefusedError",
    "RemoteStore",
    "Store",
    "StoreLostError",
    "UnreachableError",
    "open_store",
    "register_store",
    "scheme_of",
    "side_file_path",
    "store_class",
]


@runtime_checkable
class Store(Protocol):
    """One growing file in one folder, and side files beside it.

    ``Class(folder, name, **storage_options)`` creates a store without touching disk or network;
    the first ``append`` does that. Only one thread uses a store at a time. Every failure is a
    ``StoreError``.

    If ``flush`` and ``close`` only start an upload and return before readers can see the data,
    the store is a ``RemoteStore``.
    """

    flush_secs: ClassVar[float]
    """Default interval between calls of ``flush``, in seconds."""

    def append(self, data: Bytes) -> None:
        """Append all of ``data``, or nothing as far as readers can see after the next append.

        After a ``StoreError``, the caller retries the same bytes before it appends any others.
        """
        ...

    def put(self, name: str, data: SideData) -> None:
        """Write the side file ``name``, a relative path below the folder, replacing it completely.

        ``data`` is the new content, or a function that maps the current content, as returned by
        ``get``, to the new content.
        """
        ...

    def get(self, name: str) -> bytes | None:
        """Return the content of the side file ``name``, or None if it does not exist."""
        ...

    def flush(self) -> None:
        """Return once readers can see everything that was appended."""
        ...

    def close(self) -> None:
        """Flush and release every resource. Closing twice does nothing."""
        ...


@runtime_checkable
class RemoteStore(Store, Protocol):
    """A store that uploads on its own thread, which may take long.

    Attributes:
        is_full: whether the file is so large that a new one should be started.
        is_done: whether the store is closed and everything is uploaded.
        unacknowledged: bytes of the file and of side files that are not uploaded yet.
        spool_files: the local files that hold those bytes.
        error: why the last upload failed; None if it succeeded.
    """

    @property
    def is_full(self) -> bool: ...  # noqa: D102 - above

    @property
    def is_done(self) -> bool: ...  # noqa: D102 - above

    @property
    def unacknowledged(self) -> int: ...  # noqa: D102 - above

    @property
    def spool_files(self) -> list[str]: ...  # noqa: D102 - above

    @property
    def error(self) -> StoreError | None: ...  # noqa: D102 - above

    def wait(self, timeout: float, *, force: bool = False) -> bool:
        """Wait up to ``timeout`` seconds until everything is uploaded; return whether it is.

        Called by the thread that waits at a barrier. Without ``force``, ``wait`` may return before
        an upload that is due within a second if another upload has just finished.
        """
        ...


class NotUploadedError(StoreError):
    """A remote store's last upload failed. Its data is kept, and the upload is retried."""


class RefusedError(StoreError):
    """The store refuses every write until the user fixes something, such as a missing bucket."""


class UnreachableError(StoreError):
    """Nothing answers where the store should be: it is down, or its address is wrong."""


class InvalidNameError(StoreError):
    """The store cannot hold a file of this name, now or later. The data is given up."""


class StoreLostError(StoreError):
    """The file accepts no more data, or its data is gone, for example because it was deleted.

    The next append goes to a new store.

    Attributes:
        unsynced: the last bytes appended, if they may be missing in the file although the others
            are there. They are written to the new store.
    """

    unsynced: Sequence[Bytes] = ()


_STORES: dict[str, tuple[str, str]] = {
    "file": ("sm_tblog.storage.local:LocalStore", ""),
    "memory": ("sm_tblog.storage.memory:MemoryStore", "pip install fsspec"),
    **dict.fromkeys(
        ("s3", "s3a"),
        ("sm_tblog.storage.object_store:ObjectStore", "pip install 'sm-tblog[s3]'"),
    ),
}

_OBJECT_STORE = ("sm_tblog.storage.object_store:ObjectStore", "pip install fsspec")
"""The store for every other scheme that fsspec supports."""


def register_store(scheme: str, store: str, install: str = "") -> None:
    """Register the store for ``scheme://`` URLs.

    Args:
        scheme: the part before ``://``, in lower case.
        store: ``"package.module:Class"``, imported when a URL with this scheme is first used.
        install: the installation command that the error names if the import fails.
    """
    _STORES[scheme] = (store, install)


def scheme_of(url: str) -> str:
    """Return the scheme of a URL, or ``"file"`` for a plain path."""
    scheme, separator, _ = url.partition("://")
    return scheme.lower() if separator else "file"


def store_class(url: str) -> Callable[..., Store]:
    """Return the store class for ``url``.

    Raises:
        InvalidValueError: no store is registered for the scheme.
        MissingDependencyError: the store's package is not installed.
    """
    scheme = scheme_of(url)
    if scheme not in _STORES and not _is_known_to_fsspec(scheme):
        message = (
            f"no store for {url!r}: the scheme {scheme!r} is not one of {', '.join(_STORES)}; "
            "add one with sm_tblog.storage.register_store"
        )
        raise InvalidValueError(message)
    path, install = _STORES.get(scheme, _OBJECT_STORE)
    module, _, name = path.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module), name)
    except ImportError as error:
        hint = f"; {install}" if install else ""
        message = f"{scheme}:// needs a package that is not installed ({error}){hint}"
        raise MissingDependencyError(message) from error
    return found  # type: ignore[no-any-return]


def _is_known_to_fsspec(scheme: str) -> bool:
    from fsspec import available_protocols, registry

    return scheme in registry or scheme in available_protocols()


def open_store(url: str, name: str, **storage_options: object) -> Store:
    """Return a store for the file ``name`` in the folder ``url``, a path or a URL.

    Raises:
        InvalidValueError: no store is registered for the scheme.
        MissingDependencyError: the store's package is not installed.
    """
    return store_class(url)(url, name, **storage_options)


def side_file_path(name: str) -> PurePosixPath:
    """Return a side file's name as a path below the folder.

    Raises:
        InvalidValueError: the name is empty or absolute, or it leaves the folder.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        message = (
            f"a side file's name must be a relative path below the log directory, not {name!r}"
        )
        raise InvalidValueError(message)
    return path


class Appender:
    """Appends to a store that may fail, in order and without losing data.

    Args:
        open_store: creates the store; called again after a ``StoreLostError``.
        preamble: returns the first bytes of a new file.

    Attributes:
        pending: number of bytes queued and not stored yet.
        stored: number of bytes stored.
    """

    def __init__(
        self, open_store: Callable[[], Store], preamble: Callable[[], bytes] = bytes
    ) -> None:
        self._open = open_store
        self._preamble = preamble
        self._store: Store | None = None
        self._queue: deque[Bytes] = deque()
        self.pending = 0
        self.stored = 0

    def append(self, data: Bytes) -> None:
        """Queue ``data`` and write everything queued to the store.

        Raises:
            StoreError: the store did not accept all of it. The rest stays queued for the next
                ``append`` or ``write_pending``.
        """
        self._enqueue(data)
        self.write_pending()

    def write_pending(self) -> None:
        """Write the queued bytes to the store.

        Raises:
            StoreError: the store did not accept all of them.
        """
        while self._queue:
            if getattr(self._store, "is_full", False):
                self._close_store()
            if self._store is None:
                self._store = self._open()
                if preamble := self._preamble():
                    self._queue.appendleft(preamble)
                    self.pending += len(preamble)
            data = self._queue[0]
            try:
                self._store.append(data)
            except StoreLostError as error:
                self._drop_store(error)
                raise
            self._queue.popleft()
            self.pending -= len(data)
            self.stored += len(data)

    def flush(self) -> None:
        """Write the queued bytes and flush the store.

        Raises:
            StoreError: as for ``write_pending``, or from the store's own ``flush``.
        """
        self.write_pending()
        if self._store is not None:
            try:
                self._store.flush()
            except StoreLostError as error:
                self._drop_store(error)
                raise

    def discard(self) -> None:
        """Drop the queued bytes, which the store will never accept."""
        self._queue.clear()
        self.pending = 0

    def release(self) -> None:
        """Close the store's open file, if it has one, until the next ``append``.

        Raises:
            StoreError: closing it failed.
        """
        release = getattr(self._store, "release", None)
        if release is not None:
            release()

    def close(self) -> None:
        """Try once more to write the queued bytes, and close the store in any case.

        Raises:
            StoreError: not everything was stored; the bytes still queued are lost.
        """
        try:
            self.flush()
        finally:
            self._queue.clear()
            self.pending = 0
            self._close_store()

    def _enqueue(self, data: Bytes) -> None:
        self._queue.append(data)
        self.pending += len(data)

    def _drop_store(self, error: StoreLostError) -> None:
        """Close a store that is lost. What closing it raises says less than why it is lost."""
        self._queue.extendleft(reversed(error.unsynced))
        unsynced = sum(map(len, error.unsynced))
        self.pending += unsynced
        self.stored -= unsynced
        with contextlib.suppress(StoreError):
            self._close_store()

    def _close_store(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()
