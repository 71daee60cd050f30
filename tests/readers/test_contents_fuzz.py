"""Damaged and malicious contents: only this library's errors, and bounded memory."""

import tempfile
import warnings
from functools import cache
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sm_tblog import TBLogError
from sm_tblog.format import schema
from sm_tblog.format.records import Unframer, frame
from sm_tblog.readers import Audio, DamagedFileWarning, Image, read
from sm_tblog.summary.embedding import CONFIG
from tests.support import contents

KINDS = (
    "histograms",
    "images",
    "audio",
    "texts",
    "tensors",
    "pr_curves",
    "meshes",
    "layouts",
    "graphs",
)
MAX_BYTES = 1 << 28

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

numbers = st.sampled_from([0, 1, -1, 2, 3, 255, 1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1])
places = st.integers(0, 1 << 20)


@cache
def records():
    """Return the records of real files of our writer and of TensorBoard's."""
    found = []
    for write in (contents.write_ours, contents.write_tensorboard):
        with tempfile.TemporaryDirectory() as folder:
            write(folder)
            for path in sorted(Path(folder).glob("events*")):
                unframer = Unframer()
                unframer.feed(path.read_bytes())
                found += [record.data for record in unframer]
    event = schema.Event(graph_def=schema.GraphDef(node=[{"name": "n"}]).SerializeToString())
    meta = schema.Event(meta_graph_def=b"\x12" + bytes([len(event.graph_def)]) + event.graph_def)
    return (*found, event.SerializeToString(), meta.SerializeToString())


@cache
def side_files():
    with tempfile.TemporaryDirectory() as folder:
        contents.write_ours(folder)
        paths = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in paths
            if "tfevents" not in path.name
        }


def mutated(data, mutations):
    """Return bytes with some replaced, removed or repeated."""
    for kind, place, number in mutations:
        at = place % (len(data) + 1)
        if kind == "replace":
            data = data[:at] + bytes([number % 256]) + data[at + 1 :]
        elif kind == "remove":
            data = data[:at] + data[at + 1 + number % 50 :]
        else:
            data = data[:at] + data[at : at + number % 50] + data[at:]
    return data


mutations = st.lists(
    st.tuples(st.sampled_from(["replace", "remove", "repeat"]), places, st.integers(0, 1 << 16)),
    min_size=1,
    max_size=4,
)


def attempt(action, *args):
    """Return the result, None after an error of this library."""
    try:
        return action(*args)
    except TBLogError:
        return None


def check(found):
    if isinstance(found, np.ndarray):
        assert found.nbytes < MAX_BYTES
    if isinstance(found, tuple):
        for part in found:
            check(part)
    if isinstance(found, (Image, Audio)):
        check(attempt(found.to_numpy))


def read_everything(folder):
    """Read all contents, by index and by iteration."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamagedFileWarning)
        run = attempt(read, folder)
    if run is None:
        return
    for kind in KINDS:
        for found in (attempt(getattr, run, kind) or {}).values():
            items = iter(found.value)
            for row in range(len(found.value)):
                by_index = attempt(found.value.__getitem__, row)
                check(by_index)
                assert type(attempt(next, items)) is type(by_index)
            assert next(items, None) is None
    attempt(getattr, run, "hparams")
    for embedding in (attempt(getattr, run, "embeddings") or {}).values():
        for name in ("vectors", "metadata", "header", "sprite"):
            check(attempt(getattr, embedding, name))


def read_stream(data):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "events.out.tfevents.1.host").write_bytes(data)
        read_everything(folder)


@SETTINGS
@given(mutations)
def test_damaged_files(changes):
    read_stream(mutated(b"".join(map(frame, records())), changes))


@SETTINGS
@given(st.dictionaries(st.integers(0, 60), mutations, min_size=1, max_size=8))
def test_damaged_events_with_right_checksums(changes):
    read_stream(
        b"".join(
            frame(mutated(data, changes.get(number, ()))) for number, data in enumerate(records())
        )
    )


def change_value(value, data):
    """Change a value in place, leaving it a message."""
    tensor = value.tensor if value.WhichOneof("value") == "tensor" else schema.TensorProto()
    for dim in tensor.tensor_shape.dim:
        if data.draw(st.booleans()):
            dim.size = data.draw(numbers)
    if data.draw(st.booleans()):
        tensor.dtype = data.draw(st.integers(0, 30))
    for number, item in enumerate(tensor.string_val):
        tensor.string_val[number] = mutated(item, data.draw(mutations))
    if value.WhichOneof("value") == "image":
        encoded = value.image.encoded_image_string
        value.image.encoded_image_string = mutated(encoded, data.draw(mutations))
    if value.HasField("metadata") and data.draw(st.booleans()):
        about = value.metadata.plugin_data
        about.content = mutated(about.content, data.draw(mutations))


@SETTINGS
@given(st.data())
def test_damaged_values_with_right_checksums(data):
    changed = data.draw(st.sets(st.integers(0, len(records()) - 1), max_size=8))
    events = list(map(schema.Event.FromString, records()))
    for number in changed:
        for value in events[number].summary.value:
            change_value(value, data)
    read_stream(b"".join(frame(event.SerializeToString()) for event in events))


@SETTINGS
@given(st.dictionaries(st.integers(0, 5), mutations, min_size=1))
def test_damaged_side_files(changes):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "events.out.tfevents.1.host").write_bytes(frame(records()[0]))
        for number, (name, data) in enumerate(sorted(side_files().items())):
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(mutated(data, changes.get(number, ())))
        assert Path(folder, CONFIG).exists()
        read_everything(folder)
