"""The common part of all sensors: one reading that fails does not affect the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    Readers: TypeAlias = Mapping[str, Callable[[], Mapping[str, Any]]]

__all__ = ["Sensor"]


class Sensor:
    """Returns readings by name, from several readers that can fail independently.

    A reader returns ``{}`` for something that this machine does not have, and raises an exception
    for something that cannot be read. It is called again at the next ``read``.

    Args:
        readers: the readers by name, called in this order. The name is for messages; ``""`` stands
            for the sensor itself.

    Attributes:
        errors: the exceptions that readers raised at the last ``read``, by the reader's name.
    """

    def __init__(self, readers: Readers) -> None:
        self._readers = dict(readers)
        self.errors: dict[str, Exception] = {}

    def read(self) -> dict[str, float]:
        """Return the readings by name, without those of readers that fail. Never raises."""
        self.errors = {}
        readings: dict[str, float] = {}
        for name, reader in self._readers.items():
            try:
                readings |= {key: float(value) for key, value in reader().items()}
            except Exception as error:  # noqa: BLE001, PERF203 - the others are read
                self.errors[name] = error
        return readings
