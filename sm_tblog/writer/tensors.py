"""Tensors: whole arrays, to be read back."""

from __future__ import annotations

from typing import Any

from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog.arrays.convert import snapshot
from sm_tblog.summary import builder
from sm_tblog.writer.arguments import check_tag
from sm_tblog.writer.base import BaseWriter

__all__ = ["TensorMethods"]

_KINDS = "biufcUS"
_TOO_LARGE = 1 << 31

_build_tensor = builder("tensor.tensor_value")


class TensorMethods(BaseWriter):
    """What logs tensors."""

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

        TensorBoard has no dashboard for it, unless a plugin is named: it is there to be read back,
        for example by TensorBoard's ``EventAccumulator.Tensors`` and ``make_ndarray``.

        The array is copied, on its own device; encoding is the worker's.

        Args:
            tag: the tensor's name, taken as it is.
            tensor: bools, integers, real or complex numbers, or strings, of any shape, library
                and device. bfloat16 and float8 are written as float32, which holds them exactly.
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.
            plugin: the name of a TensorBoard plugin that shows such tensors.
            content: what that plugin asks for beside the tensor, ``plugin_data.content``.

        Raises:
            InvalidTypeError: the tag, step, plugin or content is of the wrong kind, or ``tensor``
                not an array.
            InvalidValueError: it takes 2 GiB or more, which no event can hold.
        """
        if self._enabled:
            check_tag(tag)
            given: Any = content
            if not isinstance(given, bytes):
                message = f"{tag!r}: the content of a plugin's data is bytes, got {content!r:.60}"
                raise InvalidTypeError(message)
            if plugin is not None:
                check_tag(plugin)
            array = snapshot(tensor, tag, kinds=_KINDS)
            if array.nbytes >= _TOO_LARGE:
                message = f"{tag!r}: an event holds less than 2 GiB, got {array.nbytes:,} bytes"
                raise InvalidValueError(message)
            args = (array, _KINDS, plugin, content)
            self._put(tag, _build_tensor, args, global_step, walltime, array.nbytes)
