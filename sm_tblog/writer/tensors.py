"""Tensors: whole arrays that can be read back."""

from __future__ import annotations

from typing import Any

from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog.arrays.convert import snapshot
from sm_tblog.summary import builder
from sm_tblog.writer.arguments import check_tag
from sm_tblog.writer.base import BaseWriter

__all__ = ["TensorMethods"]

_KINDS = "biufcUS"
_SIZE_LIMIT = 1 << 31

_build_tensor = builder("tensor.tensor_value")


class TensorMethods(BaseWriter):
    """Methods that log tensors."""

    def add_tensor(
        self,
        tag: str,
        tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        *,
        plugin: str | None = None,
        content: bytes = b"",
    ) -> None:
        """Log a whole array.

        No TensorBoard tab shows it, unless you name a plugin. Read it back, for example with
        TensorBoard's ``EventAccumulator.Tensors`` and ``make_ndarray``.

        The call copies the array, on its own device; the worker thread encodes it.

        Args:
            tag: the tensor's name, used as is.
            tensor: bools, integers, real or complex numbers, or strings, of any shape, library and
                device. bfloat16 and float8 are written as float32, which represents them exactly.
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.
            plugin: the name of a TensorBoard plugin that shows such tensors.
            content: the data that this plugin requires beside the tensor, ``plugin_data.content``.

        Raises:
            InvalidTypeError: the tag, step, plugin or content has the wrong type, or ``tensor`` is
                not an array.
            InvalidValueError: the array has 2 GiB or more, which no event can contain.
        """
        if self._enabled:
            check_tag(tag)
            given: Any = content
            if not isinstance(given, bytes):
                message = f"{tag!r}: the plugin's content must be bytes, got {content!r:.60}"
                raise InvalidTypeError(message)
            if plugin is not None:
                check_tag(plugin)
            array = snapshot(tensor, tag, kinds=_KINDS)
            if array.nbytes >= _SIZE_LIMIT:
                message = f"{tag!r}: an event must be below 2 GiB, got {array.nbytes:,} bytes"
                raise InvalidValueError(message)
            args = (array, _KINDS, plugin, content)
            self._put(tag, _build_tensor, args, global_step, walltime, array.nbytes)
