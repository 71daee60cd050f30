"""The estimated cost of logging to S3, and that it matches the requests a server sees."""

from collections import Counter

import pytest
from s3_servers import FaultProxy
from typer.testing import CliRunner

from sm_tblog.cli import make_app
from sm_tblog.format.records import frame, padding
from sm_tblog.storage.estimate import READ_PRICE, WRITE_PRICE, estimate
from sm_tblog.storage.s3 import MAX_OBJECT_SIZE, MAX_REWRITTEN_SIZE, S3Folder
from sm_tblog.storage.spool import SpoolFile

DAY = 86_400.0


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *args: CliRunner().invoke(make_app(), ["estimate", *map(str, args)])


def test_a_day_of_a_hundred_megabytes():
    cost = estimate(DAY, 100e6 / DAY, 10.0)
    assert cost.logged == 100_000_000
    assert 100e6 < cost.uploaded < 113e6
    assert 34_000 < sum(cost.requests.values()) < 35_000
    assert cost.objects == 2
    assert cost.writing_usd == pytest.approx(0.172, abs=0.001)
    assert cost.watching_usd == 0


def test_a_bucket_that_keeps_versions_costs_bytes_and_objects():
    cost = estimate(DAY, 100e6 / DAY, 10.0, copies=False)
    assert cost.requests == {"PutObject": 8640}
    assert cost.writing_usd == pytest.approx(8640 * WRITE_PRICE)
    assert cost.objects == pytest.approx(100e6 / (MAX_REWRITTEN_SIZE + 1e6 / 86.4), rel=0.05)
    assert 1e9 < cost.uploaded < 1.3e9


def test_whoever_looks_on_costs_more_than_writing():
    cost = estimate(DAY, 1000.0, 10.0, watchers=2)
    assert cost.watching_usd == pytest.approx(2 * DAY / 5 * (4 * WRITE_PRICE + 2 * READ_PRICE))
    assert cost.watching_usd > cost.writing_usd


@pytest.mark.parametrize("rate", [0.0, 1e-6])
def test_a_run_that_logs_nothing_costs_nothing(rate):
    assert estimate(100.0, rate, 10.0) == (0, 0, {}, 0, 0.0, 0.0)


def test_a_last_upload_may_be_smaller():
    assert estimate(25.0, 100.0, 10.0).logged == 2500


def test_a_run_is_in_as_many_objects_as_it_has_64_mib():
    rates = [n * MAX_OBJECT_SIZE / 100 for n in (0.5, 1.5, 2.5)]
    assert [estimate(100.0, rate, 1.0).objects for rate in rates] == [1, 2, 3]


@pytest.mark.parametrize("flushes", [1, 5, 40])
def test_a_server_sees_what_was_said(moto_server, flushes):
    moto_server.make_bucket()
    record = frame(bytes(30_000))
    file = SpoolFile("s3://bucket", "tfevents")
    with FaultProxy(moto_server) as proxy:
        growing = S3Folder("s3://bucket", proxy.options).open_object(f"cost-{flushes}", is_new=True)
        for _ in range(flushes):
            file.append(record)
            if missing := growing.padding(file.size):
                file.append(padding(missing))
            growing.commit(file, file.size)
    said = estimate(flushes, len(record), 1.0)
    assert Counter(request.operation for request in proxy.requests) == said.requests
    bodies = (r.uploaded for r in proxy.requests if r.operation != "CompleteMultipartUpload")
    assert sum(bodies) == said.uploaded


def test_the_command_prints_bytes_requests_and_dollars(run):
    done = run("--scalars", 0, "--kilobytes", 100e3 / DAY)
    assert done.exit_code == 0
    lines = dict(line.rsplit("  ", 1) for line in done.output.splitlines()[1:])
    table = {name.strip(): value.strip() for name, value in lines.items()}
    assert table["logged"] == "100.0 MB"
    assert table["uploaded"] == "112.3 MB"
    assert table["objects"] == "2"
    assert table["PutObject"] == "28"
    assert table["writing"] == "0.17 USD"
    assert table["viewing (1 TensorBoard)"] == "0.36 USD"


def test_the_command_takes_what_a_run_is_like(run):
    done = run("--hours", 1, "--flush-secs", 60, "--versioned", "--watchers", 0)
    assert done.output.startswith("1 hour, one upload every 60 s:")
    assert "CreateMultipartUpload" not in done.output
    assert "viewing (0 TensorBoards)" in done.output


@pytest.mark.parametrize("option", ["--hours", "--flush-secs"])
def test_a_bad_number_is_refused(run, option):
    assert run(option, 0).exit_code == 2
