"""TensorBoard's messages, from our own descriptor set in a private pool.

Generated ``_pb2`` modules work with one range of protobuf releases only. They also register in the
process-wide pool, where TensorFlow, tensorboard and tensorboardX register messages with the same
names. A descriptor set in a private pool has neither limitation: this module works with every
protobuf release from 3.20 to 7, and alongside all three packages.

The message classes are attributes of this module (``schema.Event``, ``schema.Summary``, …). They
are declared in ``tensorboard.proto``; ``make proto`` compiles it to ``tensorboard.binpb``.
"""

from __future__ import annotations

from typing import Any

from sm_tblog.format.descriptors import load_pool, message_class

__all__ = [
    "DATA_CLASS_BLOB_SEQUENCE",
    "DATA_CLASS_SCALAR",
    "DATA_CLASS_TENSOR",
    "DT_BFLOAT16",
    "DT_BOOL",
    "DT_COMPLEX64",
    "DT_COMPLEX128",
    "DT_DOUBLE",
    "DT_FLOAT",
    "DT_FLOAT8_E4M3FN",
    "DT_FLOAT8_E5M2",
    "DT_HALF",
    "DT_INT8",
    "DT_INT16",
    "DT_INT32",
    "DT_INT64",
    "DT_STRING",
    "DT_UINT8",
    "DT_UINT16",
    "DT_UINT32",
    "DT_UINT64",
    "FILE_VERSION",
    "PLUGINS",
    "AttrValue",
    "AudioPluginData",
    "EmbeddingInfo",
    "Event",
    "Experiment",
    "GraphDef",
    "HParamInfo",
    "HParamsPluginData",
    "HistogramPluginData",
    "HistogramProto",
    "ImagePluginData",
    "JsonList",
    "JsonValue",
    "Layout",
    "LogMessage",
    "MeshPluginData",
    "MetricInfo",
    "MetricName",
    "NodeDef",
    "PrCurvePluginData",
    "ProjectorConfig",
    "ScalarPluginData",
    "SessionEndInfo",
    "SessionLog",
    "SessionStartInfo",
    "Summary",
    "SummaryMetadata",
    "TaggedRunMetadata",
    "TensorProto",
    "TensorShapeProto",
    "TextPluginData",
    "Value",
    "maybe_plugin",
]

FILE_VERSION = "brain.Event:2"
"""The version in the first record of an event file. In version 2, a decreasing step is data, not a
restart; only an explicit ``SessionLog.START`` supersedes earlier points."""


_POOL = load_pool("tensorboard")


def _message(name: str) -> Any:
    return message_class(_POOL, f"tensorboard.{name}")


AttrValue = _message("AttrValue")
AudioPluginData = _message("AudioPluginData")
EmbeddingInfo = _message("EmbeddingInfo")
Event = _message("Event")
Experiment = _message("Experiment")
GraphDef = _message("GraphDef")
HParamInfo = _message("HParamInfo")
HParamsPluginData = _message("HParamsPluginData")
HistogramPluginData = _message("HistogramPluginData")
HistogramProto = _message("HistogramProto")
ImagePluginData = _message("ImagePluginData")
JsonList = _message("JsonList")
JsonValue = _message("JsonValue")
Layout = _message("Layout")
LogMessage = _message("LogMessage")
MeshPluginData = _message("MeshPluginData")
MetricInfo = _message("MetricInfo")
MetricName = _message("MetricName")
NodeDef = _message("NodeDef")
PrCurvePluginData = _message("PrCurvePluginData")
ProjectorConfig = _message("ProjectorConfig")
ScalarPluginData = _message("ScalarPluginData")
SessionEndInfo = _message("SessionEndInfo")
SessionLog = _message("SessionLog")
SessionStartInfo = _message("SessionStartInfo")
Summary = _message("Summary")
SummaryMetadata = _message("SummaryMetadata")
TaggedRunMetadata = _message("TaggedRunMetadata")
TensorProto = _message("TensorProto")
TensorShapeProto = _message("TensorShapeProto")
TextPluginData = _message("TextPluginData")
Value = _message("Summary.Value")

PLUGINS = {
    "simple_value": "scalars",
    "histo": "histograms",
    "image": "images",
    "audio": "audio",
}
"""The plugin that shows a value, by its field, if its metadata names none."""


def maybe_plugin(value: Any) -> str:
    """Return the plugin that shows a ``Summary.Value``, "" if it is unknown."""
    named: str = value.metadata.plugin_data.plugin_name
    return named or PLUGINS.get(value.WhichOneof("value"), "")


_DATA_TYPES = _POOL.FindEnumTypeByName("tensorboard.DataType").values_by_name
_DATA_CLASSES = _POOL.FindEnumTypeByName("tensorboard.DataClass").values_by_name

DT_BFLOAT16: int = _DATA_TYPES["DT_BFLOAT16"].number
DT_BOOL: int = _DATA_TYPES["DT_BOOL"].number
DT_COMPLEX128: int = _DATA_TYPES["DT_COMPLEX128"].number
DT_COMPLEX64: int = _DATA_TYPES["DT_COMPLEX64"].number
DT_DOUBLE: int = _DATA_TYPES["DT_DOUBLE"].number
DT_FLOAT: int = _DATA_TYPES["DT_FLOAT"].number
DT_FLOAT8_E4M3FN: int = _DATA_TYPES["DT_FLOAT8_E4M3FN"].number
DT_FLOAT8_E5M2: int = _DATA_TYPES["DT_FLOAT8_E5M2"].number
DT_HALF: int = _DATA_TYPES["DT_HALF"].number
DT_INT16: int = _DATA_TYPES["DT_INT16"].number
DT_INT32: int = _DATA_TYPES["DT_INT32"].number
DT_INT64: int = _DATA_TYPES["DT_INT64"].number
DT_INT8: int = _DATA_TYPES["DT_INT8"].number
DT_STRING: int = _DATA_TYPES["DT_STRING"].number
DT_UINT16: int = _DATA_TYPES["DT_UINT16"].number
DT_UINT32: int = _DATA_TYPES["DT_UINT32"].number
DT_UINT64: int = _DATA_TYPES["DT_UINT64"].number
DT_UINT8: int = _DATA_TYPES["DT_UINT8"].number
DATA_CLASS_SCALAR: int = _DATA_CLASSES["DATA_CLASS_SCALAR"].number
DATA_CLASS_TENSOR: int = _DATA_CLASSES["DATA_CLASS_TENSOR"].number
DATA_CLASS_BLOB_SEQUENCE: int = _DATA_CLASSES["DATA_CLASS_BLOB_SEQUENCE"].number
