"""Reading what a run has grown by."""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sm_tblog
from sm_tblog import InvalidTypeError, InvalidValueError, StoreError, Writer
from sm_tblog._types import Series
from sm_tblog.format import schema
from sm_tblog.format.records import frame
from sm_tblog.format.scalars import encode_scalar
from sm_tblog.readers import DamagedFileWarning, reading
from sm_tblog.readers.event_stream import EventStream


def records(first, last, tag="loss"):
    return [encode_scalar(Series(tag), step, 1e9 + step, step / 2) for step in range(first, last)]


def points(scalars):
    return {tag: points.step.tolist() for tag, points in scalars.items()}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.out.tfevents.1.host"


def test_only_new_points_are_returned(path):
    path.write_bytes(b"".join(records(0, 50)))
    run = sm_tblog.read(path.parent)
    assert run.refresh() == {}
    with path.open("ab") as file:
        file.write(b"".join([*records(50, 60), *records(0, 2, "new")]))
    assert points(run.refresh()) == {"loss": [*range(50, 60)], "new": [0, 1]}
    assert points(run.scalars) == {"loss": [*range(60)], "new": [0, 1]}
    assert run.tags == {"loss": "scalars", "new": "scalars"}
    path.with_name("events.out.tfevents.2.host").write_bytes(b"".join(records(60, 62)))
    assert points(run.refresh()) == {"loss": [60, 61]}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 900), max_size=8), st.booleans())
def test_a_torn_tail_is_read_once_it_is_whole(tmp_path_factory, cuts, has_text):
    folder = tmp_path_factory.mktemp("run")
    text = schema.Event(summary={"value": [{"tag": "t", "tensor": {"string_val": [b"x" * 90]}}]})
    middle = [frame(text.SerializeToString())] if has_text else []
    data = b"".join([*records(0, 5), *middle, *records(5, 12)])
    path = folder / "events.out.tfevents.1.host"
    cuts = sorted(min(cut, len(data)) for cut in cuts)
    path.write_bytes(data[: cuts[0]] if cuts else b"")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = sm_tblog.readers.read_all(folder)["."]
    seen = loaded.scalars["loss"].step.tolist() if "loss" in loaded.scalars else []
    for cut in [*cuts, len(data)]:
        path.write_bytes(data[:cut])
        seen += points(loaded.refresh()).get("loss", [])
    assert seen == [*range(12)]
    assert loaded.damages == ()
    assert loaded.scalars["loss"].step.tolist() == seen


@pytest.mark.parametrize("size", [5_000, 50_000, 500_000])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_an_image_that_was_being_written_is_read_once_it_is_whole(path, size, share):
    picture = {"tag": "i", "image": {"encoded_image_string": np.random.default_rng(0).bytes(size)}}
    image = frame(schema.Event(step=5, summary={"value": [picture]}).SerializeToString())
    before = b"".join(records(0, 20))
    path.write_bytes(before + image[: int(share * len(image))])
    with pytest.warns(DamagedFileWarning, match="cut short"):
        run = sm_tblog.read(path.parent)
    path.write_bytes(b"".join([before, image, *records(20, 40)]))
    assert points(run.refresh()) == {"loss": [*range(20, 40)]}
    assert run.damages == ()
    assert run.images["i"].value[0][0].encoded == picture["image"]["encoded_image_string"]


def test_events_within_a_text_that_was_being_written_are_no_points(path):
    inside = b"".join(records(90, 95))
    tensor = {"dtype": "DT_STRING", "string_val": [inside]}
    text = frame(
        schema.Event(summary={"value": [{"tag": "t", "tensor": tensor}]}).SerializeToString()
    )
    before = b"".join(records(0, 20))
    path.write_bytes(before + text[:-10])
    with pytest.warns(DamagedFileWarning):
        run = sm_tblog.read(path.parent)
    path.write_bytes(b"".join([before, text, *records(20, 22)]))
    run.refresh()
    assert points(run.scalars) == {"loss": [*range(22)]}
    assert run.damages == ()
    with path.open("ab") as file:
        file.write(b"".join(records(22, 23)))
    assert points(run.refresh()) == {"loss": [22]}


def test_bytes_that_were_read_are_not_read_again(path, monkeypatch):
    path.write_bytes(b"".join(records(0, 100)))
    run = sm_tblog.read(path.parent)
    read = []
    feed = EventStream.feed
    monkeypatch.setattr(
        EventStream, "feed", lambda s, data: (read.append(len(data)), feed(s, data))
    )
    run.refresh()
    assert read == []
    more = b"".join(records(100, 103))
    with path.open("ab") as file:
        file.write(more)
    run.refresh()
    assert read == [len(more)]


def test_a_file_that_was_truncated_or_removed_is_read_anew(path):
    path.write_bytes(b"".join(records(0, 50)))
    run = sm_tblog.read(path.parent)
    path.write_bytes(b"".join(records(0, 20)))
    assert points(run.refresh()) == {"loss": [*range(20)]}
    assert points(run.scalars) == {"loss": [*range(20)]}
    path.with_name("events.out.tfevents.0.host").write_bytes(b"".join(records(90, 92)))
    assert points(run.refresh()) == {"loss": [90, 91, *range(20)]}
    path.unlink()
    assert points(run.refresh()) == {"loss": [90, 91]}


def test_a_run_that_is_gone_is_said_to_be(path):
    path.write_bytes(b"".join(records(0, 3)))
    run = sm_tblog.read(path.parent)
    path.unlink()
    with pytest.raises(InvalidValueError, match="no event files"):
        run.refresh()
    assert points(run.scalars) == {"loss": [0, 1, 2]}


def test_a_restart_supersedes_what_was_read_before(tmp_path):
    with Writer(tmp_path) as writer:
        for step in range(10):
            writer.add_scalar("loss", 1.0, step)
    run = sm_tblog.read(tmp_path)
    with Writer(tmp_path, purge_step=4) as writer:
        writer.add_scalar("loss", 2.0, 4)
    assert points(run.refresh()) == {"loss": [4]}
    assert points(run.scalars) == {"loss": [0, 1, 2, 3, 4]}


def test_memory_is_limited_on_request(path):
    path.write_bytes(b"".join([*records(0, 50), *records(0, 3, "other")]))
    run = sm_tblog.read(path.parent)
    run.discard(5)
    assert points(run.scalars) == {"loss": [*range(45, 50)], "other": [0, 1, 2]}
    with path.open("ab") as file:
        file.write(b"".join(records(50, 52)))
    assert points(run.refresh()) == {"loss": [50, 51]}
    run.discard(0)
    assert points(run.scalars) == {"loss": [], "other": []}
    for keep, error in ((-1, InvalidValueError), (1.5, InvalidTypeError), (True, InvalidTypeError)):
        with pytest.raises(error, match="keep"):
            run.discard(keep)


# Following.


class Clock:
    """Calls what happens next instead of waiting."""

    def __init__(self, *happenings):
        self.happenings = list(happenings)
        self.ended = False

    def is_set(self):
        return self.ended

    def wait(self, seconds):
        if self.happenings:
            self.happenings.pop(0)()
        else:
            self.ended = True


def appending(path, data):
    def append():
        path.parent.mkdir(exist_ok=True)
        with path.open("ab") as file:
            file.write(b"".join(data))

    return append


def test_a_run_is_followed_from_before_it_exists(tmp_path):
    path = tmp_path / "run" / "events.out.tfevents.1.host"
    clock = Clock(
        appending(path, records(0, 3)),
        lambda: None,
        appending(path, records(3, 4)),
        appending(path, [records(4, 5)[0][:10]]),
        appending(path, [records(4, 5)[0][10:]]),
    )
    items = list(sm_tblog.follow(path.parent, stop=clock))
    assert [points(item)["loss"] for item in items] == [[0, 1, 2], [3], [4]]


def test_a_callback_gets_each_item(path):
    path.write_bytes(b"".join(records(0, 3)))
    got = []
    rest = sm_tblog.follow(path, got.append, stop=Clock(appending(path, records(3, 5))), keep=1)
    assert list(rest) == []
    assert [points(item) for item in got] == [{"loss": [0, 1, 2]}, {"loss": [3, 4]}]


def test_a_store_out_of_reach_is_asked_again_with_one_warning(path, monkeypatch, caplog):
    path.write_bytes(b"".join(records(0, 3)))
    find = reading.find_runs
    failures = [False, True, True, False]

    def sometimes(*args):
        if failures and failures.pop(0):
            raise StoreError(5, "cannot read the bucket")
        return find(*args)

    monkeypatch.setattr(reading, "find_runs", sometimes)
    nothing = [lambda: None] * 3
    clock = Clock(*nothing, appending(path, records(3, 4)))
    items = list(sm_tblog.follow(path, stop=clock))
    assert [points(item)["loss"] for item in items] == [[0, 1, 2], [3]]
    assert len(caplog.messages) == 1
    assert "cannot read the bucket; reading is retried" in caplog.text


def test_following_ends_after_a_time_without_points(path):
    path.write_bytes(b"".join(records(0, 3)))
    assert len(list(sm_tblog.follow(path, timeout=0.01, interval=0.005))) == 1


def test_following_ends_when_it_is_told_to(path):
    stop = threading.Event()
    stop.set()
    assert list(sm_tblog.follow(path, stop=stop)) == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"interval": 0}, InvalidValueError),
        ({"interval": float("nan")}, InvalidValueError),
        ({"timeout": -1}, InvalidValueError),
        ({"timeout": "1"}, InvalidTypeError),
        ({"interval": True}, InvalidTypeError),
        ({"keep": -1}, InvalidValueError),
        ({"restarts": "x"}, InvalidValueError),
    ],
)
def test_wrong_options_are_refused_at_once(path, options, error):
    with pytest.raises(error, match=next(iter(options))):
        sm_tblog.follow(path, **options)


def test_an_unknown_scheme_is_refused(tmp_path):
    with pytest.raises(InvalidValueError):
        list(sm_tblog.follow("nonsense://bucket/run", stop=Clock()))


def test_a_wrong_tag_suggests_the_right_one(path):
    path.write_bytes(b"".join(records(0, 3)))
    run = sm_tblog.read(path)
    with pytest.raises(KeyError, match="no such tag: 'los'; did you mean 'loss'"):
        run.scalars["los"]
    with pytest.raises(KeyError, match="no such tag"):
        run.tags["accuracy"]
    assert run.scalars.get("los") is None


def test_a_tables_wide_form_has_the_last_point_of_a_step(path):
    data = [*records(0, 3), encode_scalar(Series("loss"), 1, 2e9, 9.0), *records(2, 4, "b")]
    path.write_bytes(b"".join(data))
    table = sm_tblog.read(path).to_pandas(wide=True)
    assert table.index.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(table["loss"], [0, 9, 1, np.nan])
    np.testing.assert_array_equal(table["b"], [np.nan, np.nan, 1, 1.5])
