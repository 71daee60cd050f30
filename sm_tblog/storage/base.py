"""What a store is, how one is found by its URL, and how bytes wait for one that refuses them.

A store is one folder and one growing file in it. Stores are found in a table from a URL's scheme
to ``"module:Class"``, imported when first used; ``register_store`` adds a row. ``Appender`` stands
between a sink and its store: it opens the store when there is something to write, and keeps, in
order, what the store does not take.
"""

from __future__ import annotations

import importlib
from collections import deque
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from sm_tblog._errors import InvalidValueError, MissingDependencyError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from sm_tblog._types import Bytes

    SideData: TypeAlias = Bytes | Callable[[bytes | None], bytes]

__all__ = [
    "Appender",
    "NotUploadedError",
    "RefusedError",
    "RemoteStore",
    "Store",
    "StoreLostError",
    "open_store",
    "register_store",
    "scheme_of",
    "side_file_path",
    "store_class",
]


@runtime_checkable
class Store(Protocol):
    """One growing file in one folder, and side files beside it.

    A store is made by ``Class(folder, name, **storage_options)``. That touches neither disk nor
    network; the first ``append`` does. It is used by one thread at a time. Every failure is a
    ``StoreError``.

    A store whose ``flush`` and ``close`` only begin to make visible what was appended is a
    ``RemoteStore``.
    """

    flush_secs: ClassVar[float]
    """How often ``flush`` is called if the user does not say, in seconds."""

    def append(self, data: Bytes) -> None:
        """Append ``data``, all of it or, as a reader sees it after the next append, nothing.

        After a ``StoreError`` the caller offers the same bytes again before any others.
        """
        ...

    def put(self, name: str, data: SideData) -> None:
        """Write the side file ``name``, a relative path below the folder, replacing it whole.

        ``data`` is what it is to hold, or a function from what it holds, as ``get`` returns it, to
        that.
        """
        ...

    def get(self, name: str) -> bytes | None:
        """Return what the side file ``name`` holds, None where there is none."""
        ...

    def flush(self) -> None:
        """Return when everything appended is where a reader can see it."""
        ...

    def close(self) -> None:
        """Flush and let go of every resource. Closing twice does nothing."""
        ...


@runtime_checkable
class RemoteStore(Store, Protocol):
    """A store that delivers on a thread of its own, which may take long.

    Attributes:
        is_full: the file is so long that another had better follow.
        is_done: it is closed, and everything is delivered.
        unacknowledged: bytes of the file and of side files that are not delivered.
        spool_files: the local files that hold what is not delivered.
        error: why the last delivery failed; None if it did not.
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
        """Wait for so many seconds until all is delivered; return whether it is.

        Called by the thread that waits at a barrier. Without ``force`` a delivery that is due
        within a second need not be waited for, if another one has just been made.
        """
        ...


class NotUploadedError(StoreError):
    """A remote store's last delivery failed. What it was to bring is kept, and tried again."""


class RefusedError(StoreError):
    """A store refuses, and will until something is changed: there is no such bucket, say."""


class StoreLostError(StoreError):
    """What was appended is gone, a deleted file say. The next append goes to a new store."""


_STORES: dict[str, tuple[str, str]] = {
    "file": ("sm_tblog.storage.local:LocalStore", ""),
    "memory": ("sm_tblog.storage.memory:MemoryStore", "pip install fsspec"),
    **dict.fromkeys(
        ("s3", "s3a"),
        ("sm_tblog.storage.object_store:ObjectStore", "pip install 'sm-tblog[s3]'"),
    ),
}

_OBJECT_STORE = ("sm_tblog.storage.object_store:ObjectStore", "pip install fsspec")
"""The store of every other scheme that fsspec knows."""


def register_store(scheme: str, store: str, install: str = "") -> None:
    """Make ``scheme://`` URLs go to a store.

    Args:
        scheme: what stands before ``://``, in lower case.
        store: ``"package.module:Class"``, imported when a URL of the scheme is first used.
        install: the command that an error names where the import fails.
    """
    _STORES[scheme] = (store, install)


def scheme_of(url: str) -> str:
    """Return the scheme of a URL, ``"file"`` for a plain path."""
    scheme, separator, _ = url.partition("://")
    return scheme.lower() if separator else "file"


def store_class(url: str) -> Callable[..., Store]:
    """Return the class of store that ``url`` asks for.

    Raises:
        InvalidValueError: no store is registered for the scheme.
        MissingDependencyError: the store's package is not installed.
    """
    scheme = scheme_of(url)
    if scheme not in _STORES and not _is_known_to_fsspec(scheme):
        message = (
            f"no store for {url!r}: the scheme {scheme!r} is not one of {', '.join(_STORES)}; "
            "sm_tblog.storage.register_store adds one"
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
    """Return the store for the file ``name`` in the folder ``url``, a path or a URL.

    Raises:
        InvalidValueError: no store is registered for the scheme.
        MissingDependencyError: the store's package is not installed.
    """
    return store_class(url)(url, name, **storage_options)


def side_file_path(name: str) -> PurePosixPath:
    """Return a side file's name as a path below the folder.

    Raises:
        InvalidValueError: it is empty or absolute, or leaves the folder.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        message = f"a side file's name is a relative path below the log folder, not {name!r}"
        raise InvalidValueError(message)
    return path


class Appender:
    """Appends to a store that may fail, in order, losing nothing.

    Args:
        open_store: makes the store, and again after a ``StoreLostError``.
        preamble: returns what a new file begins with.

    Attributes:
        pending: bytes taken and not stored yet.
        stored: bytes stored.
    """

    def __init__(
        self, open_store: Callable[[], Store], preamble: Callable[[], bytes] = bytes
    ) -> None:
        self._open = open_store
        self._preamble = preamble
        self._store: Store | None = None
        self._waiting: deque[Bytes] = deque()
        self.pending = 0
        self.stored = 0

    def append(self, data: Bytes) -> None:
        """Take ``data`` and deliver it, after what waits already.

        Raises:
            StoreError: the store did not accept it. It stays queued for the next ``append`` or
                ``write_pending``.
        """
        self._enqueue(data)
        self.write_pending()

    def write_pending(self) -> None:
        """Offer the store what waits.

        Raises:
            StoreError: the store did not take all of it.
        """
        while self._waiting:
            if getattr(self._store, "is_full", False):
                self._close_store()
            if self._store is None:
                self._store = self._open()
                if preamble := self._preamble():
                    self._waiting.appendleft(preamble)
                    self.pending += len(preamble)
            data = self._waiting[0]
            try:
                self._store.append(data)
            except StoreLostError:
                self._close_store()
                raise
            self._waiting.popleft()
            self.pending -= len(data)
            self.stored += len(data)

    def flush(self) -> None:
        """Deliver what waits and flush the store.

        Raises:
            StoreError: as for ``write_pending``, or from the store's own ``flush``.
        """
        self.write_pending()
        if self._store is not None:
            try:
                self._store.flush()
            except StoreLostError:
                self._close_store()
                raise

    def release(self) -> None:
        """Let go of the store's open file until the next ``append``, if it has one.

        Raises:
            StoreError: closing it failed.
        """
        release = getattr(self._store, "release", None)
        if release is not None:
            release()

    def close(self) -> None:
        """Deliver what waits, once more, and close the store, whatever happens.

        Raises:
            StoreError: not everything was stored; what waits is lost.
        """
        try:
            self.flush()
        finally:
            self._waiting.clear()
            self.pending = 0
            self._close_store()

    def _enqueue(self, data: Bytes) -> None:
        self._waiting.append(data)
        self.pending += len(data)

    def _close_store(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()
