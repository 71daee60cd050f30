"""Stores that wrap a working store and fail or hang on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from sm_tblog._errors import StoreError

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable

    from sm_tblog._types import Bytes
    from sm_tblog.storage.base import SideData, Store

__all__ = ["FlakyStore", "SlowStore"]


class FlakyStore:
    """A store whose calls fail according to a plan.

    Args:
        store: the store that receives the calls that do not fail.
        plan: an entry for each successive call of ``append``, ``put``, ``get`` and ``flush``:
            ``None`` to let the call pass, an exception to raise, or ``True`` to raise a plain
            ``StoreError``. After the last entry, every call passes.

    Attributes:
        failed: the number of calls that have failed.
    """

    flush_secs: ClassVar[float] = 1.0

    def __init__(self, store: Store, plan: Iterable[Exception | bool | None]) -> None:
        self._store = store
        self._plan = iter(plan)
        self.failed = 0

    def __str__(self) -> str:
        """Return the destination of the store."""
        return f"flaky {self._store}"

    def append(self, data: Bytes) -> None:
        """Append, or fail."""
        self._follow_plan("append")
        self._store.append(data)

    def put(self, name: str, data: SideData) -> None:
        """Write a side file, or fail."""
        self._follow_plan("put")
        self._store.put(name, data)

    def get(self, name: str) -> bytes | None:
        """Read a side file, or fail."""
        self._follow_plan("get")
        return self._store.get(name)

    def flush(self) -> None:
        """Flush, or fail."""
        self._follow_plan("flush")
        self._store.flush()

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def _follow_plan(self, call: str) -> None:
        fault = next(self._plan, None)
        if fault:
            self.failed += 1
            raise StoreError(f"{self}: {call} failed by plan") if fault is True else fault


class SlowStore:
    """A store whose ``append`` hangs until an event is set.

    Args:
        store: the store that receives all calls.
        gate: the event that ``append`` waits for.
        entered: an event that is set when an ``append`` starts to wait.
    """

    flush_secs: ClassVar[float] = 1.0

    def __init__(
        self, store: Store, gate: threading.Event, entered: threading.Event | None = None
    ) -> None:
        self._store = store
        self._gate = gate
        self._entered = entered

    def __str__(self) -> str:
        """Return the destination of the store."""
        return f"slow {self._store}"

    def append(self, data: Bytes) -> None:
        """Wait for the gate, then append."""
        if self._entered is not None:
            self._entered.set()
        self._gate.wait()
        self._store.append(data)

    def put(self, name: str, data: SideData) -> None:
        """Write a side file."""
        self._store.put(name, data)

    def get(self, name: str) -> bytes | None:
        """Read a side file."""
        return self._store.get(name)

    def flush(self) -> None:
        """Flush the store."""
        self._store.flush()

    def close(self) -> None:
        """Close the store."""
        self._store.close()
