"""Wall times: what stands for one, and what is refused."""

import datetime as dt
import math

import numpy as np
import pytest

from sm_tblog import InvalidTypeError, InvalidValueError, Writer
from sm_tblog.format import schema

UTC = dt.timezone.utc
MOMENT = dt.datetime(2026, 12, 1, 17, 30, 15, 250_000, UTC)
SECONDS = 1_796_146_215.25
TIMES = {
    "int": (1_796_146_215, SECONDS - 0.25),
    "zero": (0, 0.0),
    "numpy": (np.float64(SECONDS), SECONDS),
    "array": (np.array([SECONDS]), SECONDS),
    "datetime": (MOMENT, SECONDS),
    "zone": (MOMENT.astimezone(dt.timezone(dt.timedelta(hours=9))), SECONDS),
    "naive": (MOMENT.astimezone().replace(tzinfo=None), SECONDS),
    "ns": (np.datetime64("2026-12-01T17:30:15.250", "ns"), SECONDS),
    "ms": (np.datetime64("2026-12-01T17:30:15.250", "ms"), SECONDS),
    "day": (np.datetime64("1970-01-02"), 86_400.0),
    "array of one": (np.array(["2026-12-01T17:30:15.250"], "datetime64[ns]"), SECONDS),
    "0-d": (np.array("2026-12-01T17:30:15.250", "datetime64[us]"), SECONDS),
}


@pytest.mark.parametrize(("walltime", "seconds"), TIMES.values(), ids=TIMES)
def test_every_call_takes_moments(tmp_path, read_events, event_files, walltime, seconds):
    with Writer(tmp_path) as writer:
        writer.add_scalar("scalar", 1.0, 0, walltime)
        writer.log({"log": 1.0}, 0, walltime=walltime)
        writer.add_scalars("scalars", {"x": 1.0}, 0, walltime, layout=True)
        writer.add_text("text", "text", 0, walltime)
        message = schema.Summary(value=[schema.Value(tag="message", simple_value=1.0)])
        writer.file_writer.add_summary(message, 0, walltime)
        writer.file_writer.add_event(schema.Event(summary=message), 0, walltime)
        with writer.use_metadata(walltime=walltime):
            writer.add_histogram("histogram", [1.0])
    [path] = event_files(tmp_path)
    times = {e.wall_time for e in read_events(path)[1:] if e.summary.value[0].tag[0] != "c"}
    assert times == {seconds}


def test_pandas_timestamps(tmp_path):
    pd = pytest.importorskip("pandas")
    from sm_tblog.writer.arguments import as_wall_time

    assert as_wall_time(pd.Timestamp(MOMENT)) == SECONDS
    assert as_wall_time(pd.Timestamp("2026-12-01 17:30:15.25")) == SECONDS  # UTC, as pandas says
    with Writer(tmp_path) as writer, pytest.raises(InvalidValueError, match="walltime"):
        writer.add_scalar("a", 1.0, 0, pd.NaT)


@pytest.mark.parametrize(
    "walltime",
    [
        math.nan,
        math.inf,
        -math.inf,
        -1.0,
        1.7e12,  # milliseconds
        10**18,  # nanoseconds
        10**400,
        np.datetime64("NaT"),
        np.datetime64("1969-12-31"),
        np.array([1.0, 2.0]),
        np.array([], "datetime64[s]"),
        dt.datetime(1960, 1, 1, tzinfo=UTC),
    ],
    ids=repr,
)
def test_what_is_no_time_raises_at_the_call(tmp_path, walltime):
    with Writer(tmp_path) as writer:
        for log in (
            lambda: writer.add_scalar("a", 1.0, 0, walltime),
            lambda: writer.add_text("a", "text", 0, walltime),
            lambda: writer.use_metadata(walltime=walltime).__enter__(),
            lambda: writer.file_writer.add_summary(b"", 0, walltime),
        ):
            with pytest.raises(InvalidValueError, match="walltime must be seconds"):
                log()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "walltime",
    ["now", MOMENT.date(), MOMENT - MOMENT, np.timedelta64(5, "s"), [1.0], object(), 1j],
    ids=repr,
)
def test_other_types_raise_a_type_error(tmp_path, walltime):
    with Writer(tmp_path) as writer, pytest.raises(InvalidTypeError, match="walltime must be"):
        writer.add_scalar("a", 1.0, 0, walltime)


def test_milliseconds_are_named(tmp_path):
    with Writer(tmp_path) as writer, pytest.raises(InvalidValueError, match="divide milliseconds"):
        writer.add_scalar("a", 1.0, 0, 1.7e12)
