"""Reads the files of one run, and later what they have grown by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sm_tblog._errors import CorruptRecordError
from sm_tblog.format import schema
from sm_tblog.format.crc32c import masked_crc32c
from sm_tblog.format.records import FOOTER
from sm_tblog.readers.columns import Columns
from sm_tblog.readers.event_stream import EventStream
from sm_tblog.readers.events import mapped_errors, read_file, reason_of

if TYPE_CHECKING:
    from typing import Any

    from sm_tblog.readers.content_index import Place
    from sm_tblog.readers.event_stream import Damage
    from sm_tblog.readers.events import EventFile, RunFiles
    from sm_tblog.readers.selection import Selection

__all__ = ["RunLoader"]


class RunLoader:
    """The columns of one run.

    Args:
        selection: which tags and points are kept.

    Attributes:
        columns: what has been read.
        errors: the paths of files that could not be opened at the last attempt, with the errors.
    """

    def __init__(self, selection: Selection) -> None:
        self.columns = Columns(selection)
        self.errors: list[tuple[str, OSError]] = []
        self._selection = selection
        self._files: list[EventFile] = []
        self._streams: list[EventStream] = []
        self._folder_damages: tuple[Damage, ...] = ()

    @property
    def damages(self) -> list[Damage]:
        """The bytes, files and folders that could not be read."""
        return [
            *self._folder_damages,
            *(damage for stream in self._streams for damage in stream.damages),
        ]

    def load(self, run: RunFiles) -> bool:
        """Read what is new.

        If files were removed, or replaced by shorter ones, or one is new whose name sorts before
        known ones, everything is read again.

        Returns:
            Whether the columns were extended; False if they were read again.
        """
        is_extended = self._is_extended(run)
        if not is_extended:
            self.columns = Columns(self._selection)
            self._streams = []
        self._files = run.files
        self._folder_damages = run.damages
        self.errors = []
        for number, file in enumerate(run.files):
            if number == len(self._streams):
                self._streams.append(EventStream(file.path, self.columns, number))
            self._read(file, self._streams[number])
        return is_extended

    def event_at(self, place: Place) -> Any:
        """Read an event again, ``schema.Event``.

        Raises:
            CorruptRecordError: other bytes are at this place now.
            StoreError: the file cannot be read.
        """
        file = self._files[place.file]
        with mapped_errors(file.path):
            data = file.source.read(place.offset, place.offset + place.length + FOOTER)
        content, stored = data[: place.length], data[place.length :]
        if len(stored) < FOOTER or masked_crc32c(content) != int.from_bytes(stored, "little"):
            message = (
                f"{file.path}: the record at byte {place.offset} has changed since it was read"
            )
            raise CorruptRecordError(message, place.offset)
        return schema.Event.FromString(content)

    def _is_extended(self, run: RunFiles) -> bool:
        """Return whether the files may have grown, and others were added after them."""
        if len(run.files) < len(self._streams):
            return False
        return all(
            file.path == stream.path
            and (file.source.size is None or file.source.size >= stream.offset)
            for file, stream in zip(run.files, self._streams, strict=False)
        )

    def _read(self, file: EventFile, stream: EventStream) -> None:
        if stream.offset and file.source.size == stream.offset and not stream.has_failed:
            return
        stream.reopen()
        try:
            with file.source.open(stream.offset) as content:
                read_file(content, stream)
        except OSError as error:
            self.errors.append((file.path, error))
            stream.fail(reason_of(error))
