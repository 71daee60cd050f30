"""Hyperparameters: what TensorBoard's HParams tab reads.

A *session* is a run with the tag ``_hparams_/session_start_info``. The message with that tag holds
the values, another says how the session has ended, and an ``Experiment`` may say which columns
there are. All three stand in a tag's metadata, not in its points. What follows was tried with
TensorBoard 2.21, with its data server (0.7.2) and with ``--load_fast=false``:

- **The first metadata that a loader meets for a tag stay**, however often the tag comes again, as
  long as TensorBoard runs. When it starts, it reads a run's files in the order of their names. So
  what a session knows also goes, whole, into a file whose name comes first, ``FIRST_FILE``. Each
  change writes that anew, on the ground of what it held before: values grow from call to call, and
  from process to process. The ordinary event file has them too, for a TensorBoard that runs: it
  keeps the first that it sees there. The data server finds a first file that comes late; the
  other loader reads nothing that comes before where it is, and says once that it does not.
- **One Experiment counts, for all runs.** If several runs have one, the data server's is another
  one after each start and the other loader's is that of the first run; a column that only the
  others name is missing. Without any, the columns are every value of every session, and every
  scalar of a session's run. So ``hparams`` writes none. Metrics are then sorted by name, and the
  first five are shown until others are ticked. One flaw: the metrics of the run ``.``, the log
  folder that TensorBoard was started with, are empty.
- **None**, as JSON's null, makes sorting by its column fail (HTTP 500); left out, its cell is
  empty. So are the cells of NaN and infinities. A column with strings and numbers is shown, but
  sorting by it fails. A column with bools and numbers is sorted.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from sm_tblog._errors import CorruptRecordError
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
"""An event file of the earliest time there is."""


def start_value(values: Mapping[str, Plain], started: float = 0.0) -> Any:
    """Return a ``Summary.Value`` that makes its run a session.

    Args:
        values: by name, as ``flatten`` returns them; what is None is left out.
        started: seconds since the epoch, if known.
    """
    start = schema.SessionStartInfo(start_time_secs=started)
    _update(start, values)
    return _value("session_start_info", start)


def end_value(*, succeeded: bool, ended: float = 0.0) -> Any:
    """Return a ``Summary.Value`` that says how its run's session has ended.

    Args:
        succeeded: or failed.
        ended: seconds since the epoch, if known.
    """
    status = "STATUS_SUCCESS" if succeeded else "STATUS_FAILURE"
    return _value("session_end_info", schema.SessionEndInfo(status=status, end_time_secs=ended))


def experiment_value(
    values: Mapping[str, Plain], metrics: Sequence[str], domains: Mapping[str, Sequence[Plain]]
) -> Any:
    """Return a ``Summary.Value`` that names the columns: each value, and each metric by its tag.

    Args:
        values: as in ``start_value``.
        metrics: tags.
        domains: all that some of the values may be.
    """
    experiment = schema.Experiment()
    for name, value in values.items():
        if value is None:
            continue
        info = experiment.hparam_infos.add(name=_utf8(name), type=_data_type(value))
        if name in domains:
            info.domain_discrete.SetInParent()
            info.domain_discrete.values.extend(map(_json_value, domains[name]))
    for tag in metrics:
        experiment.metric_infos.add().name.tag = _utf8(tag)
    return _value("experiment", experiment)


def encode_change(
    values: Mapping[str, Plain], now: float, *, succeeded: bool | None = None
) -> bytes:
    """Return what ``updated_file`` is to do.

    Args:
        values: to add, to change and, where None, to remove.
        now: seconds since the epoch.
        succeeded: how the session has ended; None while it goes on.
    """
    return json.dumps({"values": values, "now": now, "succeeded": succeeded}).encode()


def updated_file(change: bytes, before: bytes | None) -> bytes:
    """Return what ``FIRST_FILE`` is to hold.

    Args:
        change: what ``encode_change`` returned.
        before: what the file holds; None if there is no such file.
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
    if end is None and has_ended:  # else the earlier end, in the run's other files, would be shown
        end = _value("session_end_info", schema.SessionEndInfo(status="STATUS_RUNNING"))
    first = schema.Event(wall_time=start.start_time_secs, file_version=schema.FILE_VERSION)
    first.source_metadata.writer = "sm_tblog"
    second = schema.Event(wall_time=start.start_time_secs)
    second.summary.value.append(_value("session_start_info", start))
    if end is not None:
        second.summary.value.append(end)
    return frame(first.SerializeToString()) + frame(second.SerializeToString())


def _plugin_data(file: bytes) -> Iterator[Any]:
    """Iterate over the plugin's messages in an event file, up to what is damaged."""
    records = Unframer()
    records.feed(file)
    try:
        for _, record in records:
            for value in schema.Event.FromString(record).summary.value:
                yield schema.HParamsPluginData.FromString(value.metadata.plugin_data.content)
    except (CorruptRecordError, DecodeError):
        return


def _update(start: Any, values: Mapping[str, Plain]) -> None:
    for name, value in values.items():
        key = _utf8(name)
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
    value.tensor.dtype = schema.DT_FLOAT  # no number at all: it is the metadata that count
    value.tensor.tensor_shape.dim.add(size=0)
    return value


def _json_value(value: Plain) -> Any:
    if isinstance(value, bool):
        return schema.JsonValue(bool_value=value)
    if isinstance(value, str):
        return schema.JsonValue(string_value=_utf8(value))
    return schema.JsonValue(number_value=value)


def _data_type(value: Plain) -> str:
    if isinstance(value, bool):
        return "DATA_TYPE_BOOL"
    return "DATA_TYPE_STRING" if isinstance(value, str) else "DATA_TYPE_FLOAT64"


def _utf8(text: str) -> str:
    """Return text that protobuf takes: without halves of surrogate pairs."""
    return text.encode(errors="replace").decode()
