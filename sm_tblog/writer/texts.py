"""Texts and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidTypeError
from sm_tblog.summary import builder
from sm_tblog.writer.base import BaseWriter

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["TextMethods"]

_build_text = builder("text.text_value")


class TextMethods(BaseWriter):
    """What logs text."""

    def add_text(
        self,
        tag: str,
        text_string: str | Sequence[Any],
        global_step: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Log Markdown text.

        Args:
            tag: the text's name, taken as it is.
            text_string: Markdown; a sequence of strings, or of rows of strings, makes a table.
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.

        Raises:
            InvalidTypeError: the tag, text or step is of the wrong kind.
        """
        if isinstance(text_string, bytes):
            text_string = text_string.decode(errors="replace")
        if not hasattr(text_string, "__iter__"):
            message = f"{tag!r}: a text is a str or a sequence of str, got {text_string!r:.60}"
            raise InvalidTypeError(message)
        text = _frozen(text_string)
        self._put(tag, _build_text, (text,), global_step, walltime, len(text))


def _frozen(text: Any) -> Any:
    """Return nested sequences of strings as tuples."""
    return (
        text
        if isinstance(text, str) or not hasattr(text, "__iter__")
        else tuple(map(_frozen, text))
    )
