"""Contents are read on access: in few requests, after changes of the run, and from S3."""

import shutil
from itertools import count

import numpy as np
import pytest

import sm_tblog
from sm_tblog import CorruptRecordError, InvalidValueError, StoreError, Writer
from sm_tblog.format import schema
from sm_tblog.format.records import FOOTER, frame
from sm_tblog.readers import event_reader, local_tree, read, read_all
from sm_tblog.summary.hparams import FIRST_FILE
from tests.support import contents

NAME = "events.out.tfevents.1.host"
folders = (f"s3://bucket/contents-{i}" for i in count())


def event(step, *values):
    return schema.Event(step=step, wall_time=step, summary={"value": values})


def text(tag, content, **fields):
    tensor = {"dtype": schema.DT_STRING, "string_val": [content], **fields}
    metadata = {"plugin_data": {"plugin_name": "text"}}
    return {"tag": tag, "tensor": tensor, "metadata": metadata}


def stream_of(events):
    return b"".join(frame(each.SerializeToString()) for each in events)


def write(folder, events, name=NAME):
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(stream_of(events))


@pytest.fixture
def requests(monkeypatch):
    """Every range of a local file that is read again: first and last offset."""
    made = []

    def read_file(path, start, end):
        made.append((start, end))
        return original(path, start, end)

    original = local_tree._read_file
    monkeypatch.setattr(local_tree, "_read_file", read_file)
    return made


def texts_run(folder, size, steps=10):
    write(folder, [event(step, text("a", b"%d" % step * size)) for step in range(steps)])
    return read(folder).texts["a"]


def test_nothing_is_read_before_it_is_asked_for(tmp_path, requests):
    found = texts_run(tmp_path, 1)
    values = found.value[3:]
    assert (len(found.value), len(values), len(found.value[found.step > 7])) == (10, 7, 2)
    assert (repr(found.value), requests) == ("<10 values, read on access>", [])
    assert values[0] == "3"
    assert requests[0][1] - requests[0][0] < 60


def test_neighbours_are_read_in_one_request(tmp_path, requests):
    values = texts_run(tmp_path, 1).value
    assert list(values) == list("0123456789")
    assert len(requests) == 1
    assert list(reversed(values)) == list("9876543210")
    assert values[[1, 3]][-1] == "3"
    assert (values.index("7"), values.count("7")) == (7, 1)
    assert len(requests) == 1


def test_large_values_are_read_one_by_one(tmp_path, requests, monkeypatch):
    monkeypatch.setattr(event_reader, "MAX_REQUEST", 1000)
    monkeypatch.setattr(event_reader, "MAX_KEPT", 3000)
    values = texts_run(tmp_path, 900).value
    assert [value[0] for value in values] == list("0123456789")
    assert len(requests) == 10
    assert values[-1][0] + values[-3][0] == "97"
    assert len(requests) == 10  # the last ones are kept
    assert values[0][0] == "0"
    assert len(requests) == 11


def test_values_far_apart_are_not_read_in_one_request(tmp_path, requests):
    events = [
        event(step, text(tag, b"x" * size))
        for step in range(3)
        for tag, size in (("a", 10), ("b", event_reader.MAX_GAP))
    ]
    write(tmp_path, events)
    assert list(read(tmp_path).texts["a"].value) == ["x" * 10] * 3
    assert sum(end - start for start, end in requests) < 300


def test_values_of_one_event_are_read_once(tmp_path, requests):
    write(tmp_path, [event(1, text("a", b"x"), text("b", b"y"), text("a", b"z"))])
    run = read(tmp_path)
    assert [list(run.texts[tag].value) for tag in "ab"] == [["x", "z"], ["y"]]
    assert len(requests) == 1


def test_several_files_are_read(tmp_path):
    for number in range(3):
        write(tmp_path, [event(number, text("a", b"%d" % number))], f"{NAME}.{number}")
    assert list(read(tmp_path).texts["a"].value) == ["0", "1", "2"]


@pytest.mark.parametrize("index", [10, -11])
def test_an_index_out_of_range_is_an_index_error(tmp_path, index):
    values = texts_run(tmp_path, 1).value
    with pytest.raises(IndexError, match=f"index {index} is out of range for 10 values"):
        values[index]
    with pytest.raises(AttributeError):
        values["a"]


def test_selected_values_are_listed(tmp_path):
    events = [event(step, text("a", b"x"), text("b", b"y")) for step in range(5)]
    write(tmp_path, events)
    run = read(tmp_path, tags="a", steps=range(1, 3))
    assert (list(run.texts), run.texts["a"].step.tolist()) == (["a"], [1, 2])
    assert list(read(tmp_path, steps=range(9, 10)).texts) == []


def test_restarts_supersede_values(tmp_path):
    start = schema.Event(step=1, session_log={"status": "START"})
    events = [event(step, text("a", b"%d" % step)) for step in range(3)]
    write(tmp_path, [*events, start, event(1, text("a", b"new"))])
    assert list(read(tmp_path).texts["a"].value) == ["0", "new"]
    assert list(read(tmp_path, restarts="steps").texts["a"].value) == ["0", "new"]
    assert list(read(tmp_path, restarts="raw").texts["a"].value) == ["0", "1", "2", "new"]


# Errors.


def test_iteration_goes_on_after_an_error(tmp_path):
    texts = [text("a", b"0"), text("a", b"1", dtype=1), text("a", b"2")]
    write(tmp_path, [event(step, value) for step, value in enumerate(texts)])
    values = read(tmp_path).texts["a"].value
    items = iter(values)
    assert next(items) == "0"
    with pytest.raises(InvalidValueError, match=r"'a' at step 1: .* strings"):
        next(items)
    assert (next(items), next(items, None)) == ("2", None)
    assert [values[0], values[2]] == ["0", "2"]


def test_a_file_that_changes_is_an_error_that_names_the_value(tmp_path):
    values = texts_run(tmp_path, 1).value
    events = [event(step, text("a", b"%d" % step)) for step in range(10)]
    data = bytearray(stream_of(events))
    data[data.index(b"5", 200)] ^= 1
    (tmp_path / NAME).write_bytes(data)
    items = iter(values)
    found = []
    for step in range(10):
        if step == 5:
            with pytest.raises(CorruptRecordError, match=r"'a' at step 5: .*has changed") as caught:
                next(items)
            assert caught.value.offset == len(stream_of(events[:5]))
        else:
            found.append(next(items))
    assert found == list("012346789")


@pytest.mark.parametrize(
    "events",
    [
        [],
        [event(step, text("b", b"%d" % step)) for step in range(10)],
        [event(step + 1, text("a", b"%d" % step)) for step in range(10)],
    ],
)
def test_another_file_of_the_same_name_is_an_error(tmp_path, events):
    values = texts_run(tmp_path, 1).value
    write(tmp_path, events)
    with pytest.raises(CorruptRecordError, match="'a' at step 9: "):
        values[9]


def test_other_bytes_with_a_right_checksum_are_an_error(tmp_path):
    values = texts_run(tmp_path, 1).value
    size = (tmp_path / NAME).stat().st_size // 10
    (tmp_path / NAME).write_bytes(frame(b"\xff" * (size - 12 - FOOTER)) * 10)
    with pytest.raises(CorruptRecordError, match="'a' at step 9: "):
        values[9]


def test_a_file_that_is_gone_is_a_store_error(tmp_path):
    values = texts_run(tmp_path, 1).value
    (tmp_path / NAME).unlink()
    with pytest.raises(StoreError, match=f"cannot read .*{NAME}: No such file"):
        values[0]


# Refresh.


def test_contents_are_valid_after_a_refresh(tmp_path):
    with Writer(tmp_path) as writer:
        writer.add_text("a", "zero", 0)
        writer.flush()
        run = read(tmp_path)
        before = run.texts["a"]
        assert before.value[0] == "zero"
        assert list(run.images) == []
        for step in range(1, 4):
            writer.add_text("a", str(step), step)
        writer.add_image("i", contents.PIXELS, 0, dataformats="HWC")
        writer.add_mesh("m", contents.VERTICES)
        writer.flush()
        assert run.refresh() == {}
    assert list(before.value) == ["zero"]
    assert list(run.texts["a"].value) == ["zero", "1", "2", "3"]
    assert list(run.images) == ["i"]
    assert list(run.meshes) == ["m"]
    assert run.images["i"].value[-1][0].to_numpy().shape == (4, 6, 3)


def test_contents_are_valid_after_a_file_was_added_before(tmp_path):
    write(tmp_path, [event(1, text("a", b"one"))], f"{NAME}.2")
    run = read(tmp_path)
    before = run.texts["a"].value
    write(tmp_path, [event(0, text("a", b"zero"))], f"{NAME}.1")
    run.refresh()
    assert list(before) == ["one"]
    assert list(run.texts["a"].value) == ["zero", "one"]


@pytest.mark.parametrize("keep", [0, 2, 9])
def test_discarded_values_are_forgotten(tmp_path, keep):
    events = [event(step, text("a", b"%d" % step)) for step in range(5)]
    start = schema.Event(step=1, session_log={"status": "START"})
    write(tmp_path, [*events, event(9, text("b", b"b")), start, *events[1:4]])
    run = read(tmp_path)
    before = run.texts["a"].value
    run.discard(keep)
    found = {tag: list(texts.value) for tag, texts in run.texts.items()}
    assert found == ({"a": list("0123")[-keep:]} if keep else {})
    with (tmp_path / NAME).open("ab") as file:
        file.write(stream_of(events[4:]))
    run.refresh()
    assert list(run.texts["a"].value) == [*found.get("a", ()), "4"]
    assert list(before) == list("0123")


def test_hyperparameters_and_embeddings_are_current_after_a_refresh(tmp_path):
    with Writer(tmp_path) as writer:
        writer.add_scalar("loss", 1, 0)
        writer.flush()
        run = read(tmp_path)
        assert (run.hparams, run.embeddings) == (({}, {}), {})
        writer.hparams({"lr": 0.5, "gone": True})
        writer.add_scalar("loss", 2, 1)
        writer.add_embedding(np.eye(3), tag="e", global_step=1)
        writer.flush()
        new = run.refresh()
        assert new["loss"].step.tolist() == [1]  # a new file of hyperparameters is no restart
        assert run.hparams == ({"lr": 0.5, "gone": True}, {"loss": 2.0})
        assert list(run.embeddings) == ["e:00001"]
        writer.hparams({"lr": 0.25, "gone": None})
        writer.flush()
        assert run.refresh() == {}
        assert run.hparams.values == {"lr": 0.25}
    assert run.refresh() == {}
    assert run.damages == ()
    assert run.hparams.values == {"lr": 0.25}
    assert run.tags["_hparams_/session_start_info"] == "hparams"


def test_a_file_of_hyperparameters_alone_is_a_run(tmp_path):
    with Writer(tmp_path / "all") as writer:
        writer.hparams({"lr": 0.5})
    (tmp_path / "alone").mkdir()
    shutil.copy(tmp_path / "all" / FIRST_FILE, tmp_path / "alone")
    for path in (tmp_path / "alone", tmp_path / "alone" / FIRST_FILE):
        run = read(path)
        assert (run.hparams.values, run.damages) == ({"lr": 0.5}, ())
    (tmp_path / "alone" / FIRST_FILE).unlink()
    (tmp_path / "alone" / FIRST_FILE).mkdir()
    with Writer(tmp_path / "alone") as writer:
        writer.add_scalar("a", 1, 0)
    assert read(tmp_path / "alone").hparams == ({}, {})


# Other stores.


def test_everything_is_read_from_memory():
    contents.write_ours("memory://lazy/contents")
    for run in (
        sm_tblog.read("memory://lazy/contents"),
        read_all("memory://lazy")["contents"],
    ):
        assert run.texts["notes"].value[-1] == "step 1: *ü*"
        assert run.hparams.values["name"] == "a"
        assert run.embeddings["words:00001"].metadata.tolist() == list("abcd")
        assert run.meshes["shape"].value[-1].faces.tolist() == contents.FACES.tolist()


@pytest.mark.parametrize("parent", ["", "/runs"])
def test_everything_is_read_from_an_archive(tmp_path, parent):
    contents.write_ours(tmp_path / f"with{parent}")
    with Writer(tmp_path / f"without{parent}") as writer:
        writer.add_text("notes", "a", 0)
    for name in ("with", "without"):
        shutil.make_archive(str(tmp_path / name), "zip", tmp_path / name)
    run, other = (
        sm_tblog.read(f"zip://{parent[1:]}::file://{tmp_path / name}.zip")
        for name in ("with", "without")
    )
    assert run.texts["notes"].value[-1] == "step 1: *ü*"
    assert list(run.embeddings) == ["words:00001"]
    assert run.embeddings["words:00001"].vectors.shape == (4, 3)
    assert other.texts["notes"].value[-1] == "a"
    assert other.embeddings == {}


def test_only_the_ranges_asked_for_are_fetched_from_s3(moto_server, fault_proxies, tmp_path):
    moto = fault_proxies(moto_server)
    moto.server.make_bucket()
    url = next(folders)
    options = {**moto.options, "spool": str(tmp_path)}
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with Writer(url, storage_options=options) as writer:
        writer.hparams({"lr": 0.5})
        for step in range(5):
            writer.add_image("image", noise + np.uint8(step), step, dataformats="HWC")
            writer.add_text("notes", str(step), step)
        writer.add_embedding(np.eye(3), tag="e", global_step=1)
    run = read(url, storage_options=options)

    def ranges():
        asked = [request.headers.get("range") for request in moto.requests]
        assert {request.operation for request in moto.requests} <= {"GetObject"}
        moto.requests.clear()
        return asked

    moto.requests.clear()
    images = run.images["image"]
    assert run.hparams.values == {"lr": 0.5}
    assert ranges() == []
    (image,) = images.value[-1]
    np.testing.assert_array_equal(image.to_numpy(), noise + np.uint8(4))
    (asked,) = ranges()
    start, end = map(int, asked.removeprefix("bytes=").split("-"))
    assert len(image.encoded) < end + 1 - start < len(image.encoded) + 100
    assert len(list(images.value)) == 5
    assert len(ranges()) == 1  # without the one that was kept
    assert run.texts["notes"].value[2] == "2"
    (asked,) = ranges()
    start, end = map(int, asked.removeprefix("bytes=").split("-"))
    assert end - start < 100
    assert run.embeddings["e:00001"].vectors.tolist() == np.eye(3).tolist()
    assert ranges() == [None, None]
    assert list(read(url, storage_options=options).embeddings) == ["e:00001"]


def test_a_run_without_embeddings_has_none_on_s3(moto_server, fault_proxies, tmp_path):
    moto = fault_proxies(moto_server)
    moto.server.make_bucket()
    url = next(folders)
    with Writer(url, storage_options={**moto.options, "spool": str(tmp_path)}) as writer:
        writer.add_text("a", "b", 0)
    (key,) = [
        entry["Key"]
        for entry in moto.server.client().list_objects_v2(
            Bucket="bucket", Prefix=url.removeprefix("s3://bucket/")
        )["Contents"]
    ]
    for path in (url, f"s3://bucket/{key}"):
        run = read(path, storage_options=moto.options)
        assert run.embeddings == {}
        assert run.texts["a"].value[0] == "b"
