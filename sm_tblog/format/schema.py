"""TensorBoard's messages, from our own descriptor set in a pool of our own.

Generated ``_pb2`` modules work with one range of protobuf releases and register themselves in the
process-wide pool, where TensorFlow, tensorboard and tensorboardX register messages of the same
names. A descriptor set in a private pool has neither limit: this module loads under every protobuf
from 3.20 to 7, and beside all three.

The message classes are attributes of this module (``schema.Event``, ``schema.Summary``, …). They
are declared in ``tensorboard.proto``; ``make proto`` compiles it to ``tensorboard.binpb``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = [
    "DATA_CLASS_SCALAR",
    "DATA_CLASS_TENSOR",
    "DT_DOUBLE",
    "DT_FLOAT",
    "DT_STRING",
    "FILE_VERSION",
    "AttrValue",
    "Event",
    "GraphDef",
    "HistogramPluginData",
    "HistogramProto",
    "Layout",
    "LogMessage",
    "NodeDef",
    "ScalarPluginData",
    "SessionLog",
    "Summary",
    "SummaryMetadata",
    "TaggedRunMetadata",
    "TensorProto",
    "TensorShapeProto",
    "TextPluginData",
    "Value",
]

FILE_VERSION = "brain.Event:2"
"""What the first record of an event file says. Version 2 means that a step which goes back is
data, not a restart; only an explicit ``SessionLog.START`` supersedes earlier points."""


def _pool() -> descriptor_pool.DescriptorPool:
    files = descriptor_pb2.FileDescriptorSet()
    files.ParseFromString(Path(__file__).with_name("tensorboard.binpb").read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _pool()


def _message(name: str) -> Any:
    descriptor = _POOL.FindMessageTypeByName(f"tensorboard.{name}")
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory(_POOL).GetPrototype(descriptor)  # protobuf < 4.22


AttrValue = _message("AttrValue")
Event = _message("Event")
GraphDef = _message("GraphDef")
HistogramPluginData = _message("HistogramPluginData")
HistogramProto = _message("HistogramProto")
Layout = _message("Layout")
LogMessage = _message("LogMessage")
NodeDef = _message("NodeDef")
ScalarPluginData = _message("ScalarPluginData")
SessionLog = _message("SessionLog")
Summary = _message("Summary")
SummaryMetadata = _message("SummaryMetadata")
TaggedRunMetadata = _message("TaggedRunMetadata")
TensorProto = _message("TensorProto")
TensorShapeProto = _message("TensorShapeProto")
TextPluginData = _message("TextPluginData")
Value = _message("Summary.Value")

_DATA_TYPES = _POOL.FindEnumTypeByName("tensorboard.DataType").values_by_name
_DATA_CLASSES = _POOL.FindEnumTypeByName("tensorboard.DataClass").values_by_name

DT_FLOAT: int = _DATA_TYPES["DT_FLOAT"].number
DT_DOUBLE: int = _DATA_TYPES["DT_DOUBLE"].number
DT_STRING: int = _DATA_TYPES["DT_STRING"].number
DATA_CLASS_SCALAR: int = _DATA_CLASSES["DATA_CLASS_SCALAR"].number
DATA_CLASS_TENSOR: int = _DATA_CLASSES["DATA_CLASS_TENSOR"].number
