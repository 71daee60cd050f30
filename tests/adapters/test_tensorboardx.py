"""The tensorboardX adapter: this library's stores for tensorboardX's writers."""

import pytest

from sm_tblog import InvalidValueError, StoreError
from sm_tblog.storage.local import LocalStore

tbx = pytest.importorskip("tensorboardX")
record_writer = pytest.importorskip("tensorboardX.record_writer")

from sm_tblog.adapters import tensorboardx  # noqa: E402 - it needs tensorboardX
from sm_tblog.adapters.tensorboardx import RecordFile, register  # noqa: E402 - it too


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """A copy of tensorboardX's registered factories, for one test to change."""
    factories = dict(record_writer.REGISTERED_FACTORIES)
    monkeypatch.setattr(record_writer, "REGISTERED_FACTORIES", factories)
    return factories


def log(url, steps=5):
    with tbx.SummaryWriter(url, flush_secs=1) as writer:
        for step in range(steps):
            writer.add_scalar("loss", 1.0 / (step + 1), step)
            writer.add_scalars("pair", {"a": step, "b": 2 * step}, step)
        writer.add_text("note", "fine", steps)


def test_its_files_are_the_same_on_a_store(tmp_path, store_at, read_scalars, load_run):
    url = store_at(tmp_path / "ours")
    register(url.partition("://")[0])
    log(url)
    log(str(tmp_path / "theirs"))
    ours = read_scalars(tmp_path / "ours")
    assert ours == read_scalars(tmp_path / "theirs")
    assert [step for step, _ in ours[""]["loss"]] == [0, 1, 2, 3, 4]
    assert load_run(tmp_path / "ours").Tags()["tensors"] == ["note/text_summary"]


def test_two_writers_of_one_second_have_files_of_their_own(tmp_path, store_at, event_files):
    url = store_at(tmp_path)
    register(url.partition("://")[0])
    for _ in range(2):
        tbx.SummaryWriter(url, filename_suffix=".mine").close()
    names = [path.name for path in event_files(tmp_path)]
    assert len(names) == 2
    assert all(name.startswith("events.out.tfevents.") for name in names)
    assert all(name.endswith(".mine") for name in names)


def test_what_is_flushed_is_stored(tmp_path, store_at, read_scalars):
    url = store_at(tmp_path)
    register(url.partition("://")[0])
    file = tbx.event_file_writer.EventsWriter(f"{url}/events")
    event = tbx.proto.event_pb2.Event(step=3, wall_time=1.0)
    event.summary.value.add(tag="a", simple_value=2.0)
    file.write_event(event)
    file.flush()
    assert read_scalars(tmp_path)[""] == {"a": [(3, 2.0)]}
    file.close()


def test_a_store_that_fails_for_a_while_loses_nothing(tmp_path, store_at, read_scalars, caplog):
    refusing = [True]

    def append(store, data):
        if refusing[0]:
            raise StoreError("no more room")
        LocalStore.append(store, data)

    url = store_at(tmp_path, append=append)
    register(url.partition("://")[0])
    file = tbx.event_file_writer.EventsWriter(f"{url}/events")
    for step in range(4):
        event = tbx.proto.event_pb2.Event(step=step, wall_time=1.0)
        event.summary.value.add(tag="a", simple_value=step)
        file.write_event(event)
        refusing[0] = step < 2
        file.flush()
    file.close()
    assert read_scalars(tmp_path)[""] == {"a": [(step, float(step)) for step in range(4)]}
    assert len([r for r in caplog.records if "will be retried" in r.message]) == 1


def test_what_a_store_never_takes_is_said(tmp_path, store_at, caplog, monkeypatch):
    def append(store, data):
        raise StoreError("no more room")

    monkeypatch.setattr(tensorboardx, "MAX_PENDING", 10)
    url = store_at(tmp_path, append=append)
    file = RecordFile(f"{url}/events.out.tfevents.1")
    file.write(b"12345678")
    file.flush()
    file.write(b"12345678")
    file.flush()
    file.close()
    assert "16 bytes are lost" in caplog.text


def test_writing_after_closing_begins_another_file(tmp_path, store_at, event_files):
    url = store_at(tmp_path)
    file = RecordFile(f"{url}/events.out.tfevents.1.host")
    file.write(b"one")
    file.close()
    file.write(b"two")
    file.flush()
    assert sorted(path.read_bytes() for path in event_files(tmp_path)) == [b"one", b"two"]


def test_a_file_that_nobody_closes_is_stored_all_the_same(tmp_path, store_at, event_files):
    file = RecordFile(f"{store_at(tmp_path)}/events.out.tfevents.1.host")
    file.write(b"one")
    del file
    assert [path.read_bytes() for path in event_files(tmp_path)] == [b"one"]


def test_a_scheme_has_no_slashes_and_a_store():
    with pytest.raises(InvalidValueError, match="here 's3'"):
        register("s3://")
    with pytest.raises(InvalidValueError, match="no store for 'nowhere://bucket'"):
        register("nowhere")


def test_to_s3(moto_server, tmp_path, read_scalars, monkeypatch):
    monkeypatch.setenv("SM_TBLOG_SPOOL", str(tmp_path / "spool"))
    client = moto_server.make_bucket()
    register(**moto_server.options)
    log("s3://bucket/of-tensorboardx")
    log(str(tmp_path / "theirs"))
    found = client.list_objects_v2(Bucket="bucket", Prefix="of-tensorboardx/")["Contents"]
    for one in found:
        path = tmp_path / "ours" / one["Key"].removeprefix("of-tensorboardx/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(client.get_object(Bucket="bucket", Key=one["Key"])["Body"].read())
    assert read_scalars(tmp_path / "ours") == read_scalars(tmp_path / "theirs")
    assert [*(tmp_path / "spool").rglob("*events*")] == []
