"""Many runs: which are found, how they are read, and what is reported."""

import threading
from itertools import count

import numpy as np
import pytest

import sm_tblog
from sm_tblog import InvalidTypeError, InvalidValueError, Writer, read_many
from sm_tblog.readers import Run, event_source, read_all, runs
from sm_tblog.readers.globs import split_glob

NAMES = [".", "a", "a/b", "exp-1/train", "exp-2/train", "exp-2/val"]


def log(folder, value=1.0, **options):
    with Writer(folder, **options) as writer:
        writer.log({"loss": value, "eval/loss": -value}, 3)


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for number, name in enumerate(NAMES):
        log(folder / name, number)
    return folder


def test_a_log_directory_is_all_its_runs(logdir):
    runs = sm_tblog.read_many(logdir)
    assert list(runs) == NAMES
    assert len(runs) == 6
    assert "a" in runs
    assert "b" not in runs
    assert repr(runs) == f"<Runs {str(logdir)!r}: 6 runs>"
    assert runs.load().keys() == read_all(logdir).keys()
    for name, run in read_all(logdir).items():
        np.testing.assert_equal(runs[name].scalars, run.scalars)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("**", NAMES),
        ("*", ["a"]),
        ("exp-*/**", NAMES[3:]),
        ("exp-?/train", NAMES[3:5]),
        ("exp-[2-9]/*", NAMES[4:]),
        ("**/train", NAMES[3:5]),
        ("**/b", ["a/b"]),
        ("**/*tfevents*", NAMES),
        ("*/*tfevents*", ["a"]),
        ("none-*", []),
    ],
)
def test_patterns_select_runs(logdir, pattern, names):
    assert list(read_many(f"{logdir}/{pattern}")) == names


def test_names_are_relative_to_the_folder_before_the_pattern(logdir, monkeypatch):
    assert list(read_many(f"{logdir}/exp-2/*")) == ["train", "val"]
    monkeypatch.chdir(logdir)
    assert list(read_many("*/train")) == ["exp-1/train", "exp-2/train"]


@pytest.mark.parametrize(
    ("url", "base", "pattern"),
    [
        ("s3://bucket/exp/**", "s3://bucket/exp", ["**"]),
        ("s3://bucket/**", "s3://bucket", ["**"]),
        ("s3://bucket/a*/x", "s3://bucket", ["a*", "x"]),
        ("s3://bucket/exp", "s3://bucket/exp", None),
        ("/*", "/", ["*"]),
        ("*", ".", ["*"]),
        ("memory://logs/x/*", "memory://logs/x", ["*"]),
    ],
)
def test_a_url_is_split_before_its_first_pattern(url, base, pattern):
    assert split_glob(url) == (base, pattern)


def test_a_folder_that_looks_like_a_pattern_is_a_folder(tmp_path):
    log(tmp_path / "lr=[0.1]" / "x")
    assert list(read_many(tmp_path / "lr=[0.1]")) == ["x"]


def test_arguments_select_what_is_read(logdir):
    found = read_many(logdir, tags="eval/*")
    assert [list(run.scalars) for run in found.values()] == [["eval/loss"]] * 6
    with pytest.raises(InvalidValueError, match="restarts must be"):
        read_many(logdir, restarts="none")
    with pytest.raises(InvalidValueError, match="workers must be at least 1, got 0"):
        read_many(logdir, workers=0)
    with pytest.raises(InvalidTypeError, match="workers must be an int, got '4'"):
        read_many(logdir, workers="4")
    with pytest.raises(InvalidValueError, match="no file or folder"):
        read_many(logdir / "none")


def test_an_unknown_name_suggests_known_ones(logdir):
    found = read_many(logdir)
    with pytest.raises(KeyError, match="no such run: 'exp-3/train'; did you mean 'exp-"):
        found["exp-3/train"]
    with pytest.raises(KeyError, match="no such run"):
        found.load(["a", "none"])
    assert list(found.load(["exp-1/train", "a"])) == ["exp-1/train", "a"]


def test_nothing_is_read_before_it_is_asked_for(logdir, monkeypatch):
    read = []
    load_run = event_source.load_run
    monkeypatch.setattr(
        event_source,
        "load_run",
        lambda files, **more: read.append(files.name) or load_run(files, **more),
    )
    found = read_many(logdir)
    assert read == []
    assert found["a"] is found["a"]
    assert read == ["a"]


def test_progress_is_reported(logdir):
    reports = []
    found = read_many(logdir, progress=lambda *numbers: reports.append(numbers))
    list(found.values())
    assert reports == [(done, 6) for done in range(1, 7)]


class Source:
    """Runs that are loaded when the test releases them."""

    def __init__(self, names, size=1):
        self.names = names
        self.damages = {}
        self.size = size
        self.active = self.most = self.started = 0
        self.lock = threading.Lock()
        self.two_at_once = threading.Event()

    def jobs(self, names):
        for name in names:
            yield runs.Job([name], self.size, self.load)

    def load(self):
        with self.lock:
            self.active += 1
            self.started += 1
            self.most = max(self.most, self.active)
            if self.active == 2:
                self.two_at_once.set()
        self.two_at_once.wait(30)
        with self.lock:
            self.active -= 1
        run = Run.__new__(Run)
        run._loader = type("Loader", (), {"damages": ()})
        return [run]


def test_runs_are_read_in_parallel_and_no_more_than_allowed():
    source = Source([str(i) for i in range(100)])
    found = iter(runs.Runs("x", source, workers=4).items())
    assert next(found)[0] == "0"
    assert source.two_at_once.is_set()
    assert source.started <= 1 + 8
    assert [name for name, _ in found] == source.names[1:]
    assert source.most <= 4


def test_runs_that_are_read_ahead_are_not_too_large():
    source = Source([str(i) for i in range(10)], size=runs.MAX_BYTES)
    source.two_at_once.set()
    found = iter(runs.Runs("x", source, workers=4).values())
    next(found)
    assert source.started == 1
    assert len(list(found)) == 9


def test_runs_that_were_accessed_are_forgotten_when_they_are_too_large():
    source = Source(["a", "b", "c"], size=runs.MAX_BYTES // 2)
    source.two_at_once.set()
    found = runs.Runs("x", source)
    for name in [*"abc", *"cb"]:
        assert found[name] is found[name]
    assert source.started == 3
    assert found["a"] is not None
    assert source.started == 4


# What cannot be read.


def test_damages_are_reported_and_not_raised(tmp_path):
    for name in "abc":
        log(tmp_path / name)
    (damaged,) = (tmp_path / "a").iterdir()
    with damaged.open("ab") as file:
        file.write(b"half a rec")
    (gone,) = (tmp_path / "b").iterdir()
    found = read_many(tmp_path)
    gone.unlink()
    assert found.errors == {}
    values = [run.scalars for run in found.values()]
    assert [len(scalars) for scalars in values] == [2, 0, 2]
    assert {name: damages[0].path for name, damages in found.errors.items()} == {
        "a": str(damaged),
        "b": str(gone),
    }
    assert found.errors["a"] == found["a"].damages


# On S3.

folders = (f"s3://bucket/many-{i}" for i in count())


@pytest.fixture
def moto(moto_server, fault_proxies, tmp_path, monkeypatch):
    pytest.importorskip("botocore")
    monkeypatch.setenv("SM_TBLOG_SPOOL", str(tmp_path / "spool"))
    proxy = fault_proxies(moto_server)
    proxy.server.make_bucket()
    return proxy


@pytest.fixture
def folder(moto):
    url = next(folders)
    for name in ("a", "exp-1/x", "exp-2/x"):
        log(f"{url}/{name}", storage_options=moto.options)
    moto.requests.clear()
    return url


@pytest.mark.parametrize("pattern", ["", "/", "/**", "/**/x"])
def test_one_request_lists_everything(moto, folder, pattern):
    found = read_many(folder + pattern, storage_options=moto.options)
    assert moto.count("ListObjectsV2") == 1
    assert moto.count("GetObject") == 1  # of an index, which there is not
    moto.requests.clear()
    assert list(found)[-2:] == ["exp-1/x", "exp-2/x"]
    assert {len(run.scalars) for run in found.load().values()} == {2}
    assert moto.count("GetObject") == len(found)
    assert len(moto.requests) == len(found)


def test_only_what_may_match_is_listed(moto, folder):
    found = read_many(f"{folder}/exp-*/x", storage_options=moto.options)
    assert list(found) == ["exp-1/x", "exp-2/x"]
    (request,) = (one for one in moto.requests if one.operation == "ListObjectsV2")
    assert request.query["prefix"] == [f"{folder.removeprefix('s3://bucket/')}/exp-"]
    assert list(read_many(f"{folder}/none-*", storage_options=moto.options)) == []


def test_an_object_that_cannot_be_read_is_reported(moto, folder):
    found = read_many(folder, storage_options=moto.options, workers=1)
    moto.fail("GetObject", None, "403")
    assert [len(run.scalars) for run in found.values()] == [2, 0, 2]
    ((name, (damage,)),) = found.errors.items()
    assert name == "exp-1/x"
    assert "grant s3:GetObject" in damage.reason
