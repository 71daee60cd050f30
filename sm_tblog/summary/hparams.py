"""Hyperparameters: what TensorBoard's HParams tab reads.

A *session* is a run with the tag ``_hparams_/session_start_info``. The message with that tag holds
the values, another message the session's end, and an optional ``Experiment`` declares the columns.
All three are stored in a tag's metadata, not in its points. The following was observed with
TensorBoard 2.21, with its data server (0.7.2) and with ``--load_fast=false``:

- **A loader keeps the first metadata of a tag** as long as TensorBoard runs, however often the tag
  is written again. When TensorBoard starts, it reads a run's files in the order of their names. So
  a session's complete data also goes into ``FIRST_FILE``, whose name sorts first. Each change
  rewrites that file from its previous content, so values accumulate over calls and processes. The
  ordinary event file has them too, for a TensorBoard that is already running, which keeps the first
  that it reads there. The data server finds a first file that is created late; the other loader
  ignores files that sort before its position, and logs that once.
- **Only one Experiment counts, for all runs.** If several runs have one, the data server chooses a
  different one at each start, and the other loader the one of the first run; columns that only the
  others declare are missing. Without any, the columns are all values of all sessions, and all
  scalars of the sessions' runs. So ``hparams`` writes none. Metrics are then sorted by name, and
  only the first five are shown until others are ticked. One flaw: the metrics of the run ``.``, the
  log directory that TensorBoard was started with, are empty.
- **None**, as JSON's null, makes sorting by its column fail (HTTP 500); if it is left out, its cell
  is empty, like those of NaN and infinities. A column with strings and numbers is shown, but cannot
  be sorted. A column with bools and numbers can.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from sm_tblog._errors import CorruptRecordError
from sm_tblog._types import as_utf8
from sm_tblog.format import schema
from sm_tblog.format.records import Unframer, frame

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sm_tblog.arrays.flatten import Plain

__all__ = [
    "FIRST_FILE",
    "encode_change",
    "end_value",
    "experiment_value",
    "start_value",
    "updated_file",
]

FIRST_FILE = "events.out.tfevents.0000000000.hparams"
"""The name of an event file with the earliest possible time."""


def start_value(values: Mapping[str, Plain], started: float = 0.0) -> Any:
    """Return a ``Summary.Value`` that makes its run a session.

    Args:
        values: values by name, as returned by ``flatten``; None is left out.
        started: seconds since the epoch, if known.
    """
    start = schema.SessionStartInfo(start_time_secs=started)
    _update(start, values)
    return _value("session_start_info", start)


def end_value(*, succeeded: bool, ended: float = 0.0) -> Any:
    """Return a ``Summary.Value`` that marks the end of its run's session.

    Args:
        succeeded: whether the session succeeded or failed.
        ended: seconds since the epoch, if known.
    """
    status = "STATUS_SUCCESS" if succeeded else "STATUS_FAILURE"
    return _value("session_end_info", schema.SessionEndInfo(status=status, end_time_secs=ended))


def experiment_value(
    values: Mapping[str, Plain], metrics: Sequence[str], domains: Mapping[str, Sequence[Plain]]
) -> Any:
    """Return a ``Summary.Value`` that declares the columns: one for each value and each metric.

    Args:
        values: as for ``start_value``.
        metrics: the tags of the metrics.
        domains: all possible values, by name, for any of the values.
    """
    experiment = schema.Experiment()
    for name, value in values.items():
        if value is None:
            continue
        info = experiment.hparam_infos.add(name=as_utf8(name), type=_data_type(value))
        if name in domains:
            info.domain_discrete.SetInParent()
            info.domain_discrete.values.extend(map(_json_value, domains[name]))
    for tag in metrics:
        experiment.metric_infos.add().name.tag = as_utf8(tag)
    return _value("experiment", experiment)


def encode_change(
    values: Mapping[str, Plain], now: float, *, succeeded: bool | None = None
) -> bytes:
    """Return a serialized change for ``updated_file`` to apply.

    Args:
        values: values to add or change; None removes a value.
        now: seconds since the epoch.
        succeeded: whether the session succeeded or failed; None while it is running.
    """
    return json.dumps({"values": values, "now": now, "succeeded": succeeded}).encode()


def updated_file(change: bytes, before: bytes | None) -> bytes:
    """Return the new content of ``FIRST_FILE``.

    Args:
        change: the result of ``encode_change``.
        before: the present content; None if there is no such file.
    """
    values, now, succeeded = json.loads(change).values()
    end = None if succeeded is None else end_value(succeeded=succeeded, ended=now)
    start = schema.SessionStartInfo(start_time_secs=now)
    has_ended = False
    for data in _plugin_data(before or b""):
        if data.HasField("session_start_info"):
            start.CopyFrom(data.session_start_info)
        has_ended |= data.HasField("session_end_info")
    _update(start, values)
    if end is None and has_ended:  # else the earlier end in the run's other files is shown
        end = _value("session_end_info", schema.SessionEndInfo(status="STATUS_RUNNING"))
    first = schema.Event(wall_time=start.start_time_secs, file_version=schema.FILE_VERSION)
    first.source_metadata.writer = "sm_tblog"
    second = schema.Event(wall_time=start.start_time_secs)
    second.summary.value.append(_value("session_start_info", start))
    if end is not None:
        second.summary.value.append(end)
    return frame(first.SerializeToString()) + frame(second.SerializeToString())


def _plugin_data(file: bytes) -> Iterator[Any]:
    """Yield the plugin's messages in an event file, up to the first damaged record."""
    records = Unframer()
    records.feed(file)
    try:
        for _, record in records:
            for value in schema.Event.FromString(record).summary.value:
                yield schema.HParamsPluginData.FromString(value.metadata.plugin_data.content)
    except (CorruptRecordError, DecodeError, UnicodeDecodeError):
        return


def _update(start: Any, values: Mapping[str, Plain]) -> None:
    for name, value in values.items():
        key = as_utf8(name)
        if value is not None:
            start.hparams[key].CopyFrom(_json_value(value))
        elif key in start.hparams:
            del start.hparams[key]


def _value(kind: str, message: Any) -> Any:
    value = schema.Value(tag=f"_hparams_/{kind}")
    data = schema.HParamsPluginData(**{kind: message})
    value.metadata.plugin_data.plugin_name = "hparams"
    value.metadata.plugin_data.content = data.SerializeToString()
    value.metadata.data_class = schema.DATA_CLASS_TENSOR
    value.tensor.dtype = schema.DT_FLOAT  # empty: only the metadata matters
    value.tensor.tensor_shape.dim.add(size=0)
    return value


def _json_value(value: Plain) -> Any:
    if isinstance(value, bool):
        return schema.JsonValue(bool_value=value)
    if isinstance(value, str):
        return schema.JsonValue(string_value=as_utf8(value))
    return schema.JsonValue(number_value=value)


def _data_type(value: Plain) -> str:
    if isinstance(value, bool):
        return "DATA_TYPE_BOOL"
    return "DATA_TYPE_STRING" if isinstance(value, str) else "DATA_TYPE_FLOAT64"
