"""Exports: what was logged, in other formats."""

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
    """What writes down anew what was logged."""

    def export_scalars_to_json(self, path: PathLike) -> None:
        """Write every scalar of this log folder into a JSON file, as tensorboardX does.

        The file is an object. Its keys are ``<log_dir>/<tag>``, and for what ``add_scalars`` has
        logged ``<log_dir>/<main_tag>/<curve>``. Its values are lists of
        ``[wall time, step, value]``, in the order logged.

        The scalars are not kept in memory but flushed and read back from the event files. So a
        number has the 24 bits of a float32, unless it was logged in double precision; what
        earlier writers have logged into the same folder is there as well; and a further call
        writes everything again.

        Args:
            path: the file to write; a local path.

        Raises:
            InvalidTypeError: ``path`` is neither a string nor a path.
            InvalidValueError: the writer's sinks make no event files, or they cannot be read from
                where they are.
            OSError: the file cannot be written.
        """
        if self._enabled:
            try:
                target = Path(path)
            except TypeError as error:
                message = f"export_scalars_to_json: a path is needed, got {path!r:.60}"
                raise InvalidTypeError(message) from error
            self.flush(force=True)
            target.write_text(json.dumps(self._read_scalars()), encoding="utf-8")

    def _read_scalars(self) -> dict[str, list[tuple[float, int, float]]]:
        """Return the points of every curve, by its key in the JSON file."""
        from sm_tblog.readers import read_all  # needs protobuf, as only the worker does otherwise

        try:
            runs = read_all(self._log_dir, storage_options=self._config["storage_options"])
        except InvalidValueError:
            if self.stats().rows_written:
                raise
            runs = {}  # nothing has been logged, so there may be no folder
        if not runs and self.stats().rows_written:
            message = f"scalars are exported from event files; there are none in {self._log_dir!r}"
            raise InvalidValueError(message)
        curves: dict[str, list[tuple[float, int, float]]] = {}
        for run, held in runs.items():
            for tag, (step, wall_time, value) in held.scalars.items():
                points = zip(wall_time.tolist(), step.tolist(), value.tolist(), strict=True)
                curves.setdefault(f"{self._log_dir}/{_as_key(run, tag)}", []).extend(points)
        return curves


def _as_key(run: str, tag: str) -> str:
    """Return the name of a curve; ``add_scalars`` makes each a run, ``<main tag>_<curve>``."""
    if run == ".":
        return tag
    chart = re.sub(r"[/\\]", "_", tag) + "_"
    return f"{tag}/{run[len(chart) :]}" if run.startswith(chart) else f"{run}/{tag}"
