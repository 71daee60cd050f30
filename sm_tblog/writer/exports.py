"""Exports of logged data to other formats."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog.writer.base import BaseWriter

if TYPE_CHECKING:
    from sm_tblog._types import PathLike

__all__ = ["ExportMethods"]


class ExportMethods(BaseWriter):
    """Methods that export logged data."""

    def export_scalars_to_json(self, path: PathLike) -> None:
        """Write all scalars of this log directory to a JSON file, as tensorboardX does.

        The file contains an object. Its keys are ``<log_dir>/<tag>``, or
        ``<log_dir>/<main_tag>/<curve>`` for data logged with ``add_scalars``. Its values are lists
        of ``[wall time, step, value]``, in the order logged.

        The scalars are not kept in memory; they are flushed and read back from the event files.
        Numbers therefore have the 24 bits of a float32, unless they were logged in double
        precision. Data that earlier writers logged to the same directory is included, and each call
        writes everything again.

        Args:
            path: the file to write, a local path.

        Raises:
            InvalidTypeError: ``path`` is neither a str nor a path.
            InvalidValueError: the writer's sinks write no event files, or the files cannot be read
                from their location.
            OSError: the file cannot be written.
        """
        if self._enabled:
            try:
                target = Path(path)
            except TypeError as error:
                message = f"export_scalars_to_json: path must be a path, got {path!r:.60}"
                raise InvalidTypeError(message) from error
            self.flush(force=True)
            target.write_text(json.dumps(self._read_scalars()), encoding="utf-8")

    def _read_scalars(self) -> dict[str, list[tuple[float, int, float]]]:
        """Return the points of every curve, by its key in the JSON file."""
        # This imports protobuf, which otherwise only the worker thread does.
        from sm_tblog.readers import read_all

        try:
            runs = read_all(self._location, storage_options=self._config["storage_options"])
        except InvalidValueError:
            if self.stats().rows_written:
                raise
            runs = {}  # nothing has been logged, so the directory may not exist
        if not runs and self.stats().rows_written:
            message = f"scalars are exported from event files, but {self._log_dir!r} contains none"
            raise InvalidValueError(message)
        curves: dict[str, list[tuple[float, int, float]]] = {}
        for run, data in runs.items():
            for tag, (step, wall_time, value) in data.scalars.items():
                points = zip(wall_time.tolist(), step.tolist(), value.tolist(), strict=True)
                curves.setdefault(f"{self._log_dir}/{_curve_key(run, tag)}", []).extend(points)
        return curves


def _curve_key(run: str, tag: str) -> str:
    """Return a curve's key; ``add_scalars`` names its runs ``<main tag>_<curve>``."""
    if run == ".":
        return tag
    chart = re.sub(r"[/\\]", "_", tag) + "_"
    return f"{tag}/{run[len(chart) :]}" if run.startswith(chart) else f"{run}/{tag}"
