"""Reads the files of one run, and later what they have grown by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sm_tblog.readers.columns import Columns
from sm_tblog.readers.event_reader import EventReader
from sm_tblog.readers.event_stream import EventStream
from sm_tblog.readers.events import read_file, reason_of
from sm_tblog.summary.hparams import FIRST_FILE

if TYPE_CHECKING:
    from collections.abc import Callable

    from sm_tblog.readers.event_stream import Damage
    from sm_tblog.readers.events import EventFile, RunFiles
    from sm_tblog.readers.selection import Selection

__all__ = ["RunLoader"]


class RunLoader:
    """The columns of one run.

    The file in which our writer keeps hyperparameters contains nothing else, and is rewritten at
    each change. So it is read on its own: again if its size or other hyperparameters have changed.

    Args:
        selection: which tags and points are kept.

    Attributes:
        columns: what has been read.
        hparams: the columns of the file with the hyperparameters, if the run has one.
        events: reads events of ``columns`` again.
        read_side: returns the content of another file in the run's folder.
        errors: the paths of files that could not be opened at the last attempt, with the errors.
    """

    read_side: Callable[[str], bytes]

    def __init__(self, selection: Selection) -> None:
        self.columns = Columns(selection)
        self.hparams = Columns(selection)
        self.events = EventReader()
        self.errors: list[tuple[str, OSError]] = []
        self._selection = selection
        self._streams: list[EventStream] = []
        self._hparams_stream: EventStream | None = None
        self._hparams_seen: object = None
        self._folder_damages: tuple[Damage, ...] = ()

    @property
    def tags(self) -> dict[str, str]:
        """The plugin that shows each tag."""
        return {**self.hparams.tags, **self.columns.tags}

    @property
    def damages(self) -> list[Damage]:
        """The bytes, files and folders that could not be read."""
        streams = list(self._streams)
        if self._hparams_stream is not None:
            streams.insert(0, self._hparams_stream)
        return [
            *self._folder_damages,
            *(damage for stream in streams for damage in stream.damages),
        ]

    def load(self, run: RunFiles) -> bool:
        """Read what is new.

        If files were removed, or replaced by shorter ones, or one is new whose name sorts before
        known ones, everything is read again; also if one has grown whose last record was cut short
        and seemed to contain others.

        Returns:
            Whether the columns were extended; False if they were read again.
        """
        files = [file for file in run.files if not _contains_hparams(file)]
        is_extended = self._is_extended(files)
        if not is_extended:
            self.columns = Columns(self._selection)
            self.events = EventReader()
            self._streams = []
        self.events.files = files
        self.read_side = run.read_side
        self._folder_damages = run.damages
        self.errors = []
        for number, file in enumerate(files):
            if number == len(self._streams):
                self._streams.append(EventStream(file.path, self.columns, number))
            self._read(file, self._streams[number])
        self._load_hparams([file for file in run.files if _contains_hparams(file)])
        return is_extended

    def _load_hparams(self, files: list[EventFile]) -> None:
        seen = [(file.path, file.source.size) for file in files], list(self.columns.hparams)
        if seen == self._hparams_seen and not (
            self._hparams_stream is not None and self._hparams_stream.has_failed
        ):
            return
        self.hparams = Columns(self._selection)
        self._hparams_stream = None
        for file in files:
            self._hparams_stream = EventStream(file.path, self.hparams)
            self._read(file, self._hparams_stream)
        self._hparams_seen = seen

    def _is_extended(self, files: list[EventFile]) -> bool:
        """Return whether the files may have grown, and others were added after them."""
        if len(files) < len(self._streams):
            return False
        return all(map(_may_continue, files, self._streams))

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


def _may_continue(file: EventFile, stream: EventStream) -> bool:
    """Return whether what a stream has decoded is the beginning of a file."""
    if file.path != stream.path:
        return False
    size = file.source.size
    if stream.is_doubtful:
        return size == stream.offset
    return size is None or size >= stream.offset


def _contains_hparams(file: EventFile) -> bool:
    return file.path.replace("\\", "/").rpartition("/")[2] == FIRST_FILE
