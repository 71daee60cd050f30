"""The spool: files that survive a process, their locks, and operation without a disk."""

import errno
import io
import logging
import multiprocessing
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sm_tblog import StoreError
from sm_tblog.format.records import frame, padding
from sm_tblog.storage import spool
from sm_tblog.storage.spool import SpoolFile, create, default_folder, orphans

URL = "s3://bucket/run"


@pytest.fixture(autouse=True)
def _say_everything_again():
    spool._warn_spooling_in_memory.cache_clear()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, check=False).returncode:
        pytest.skip("needs the right to mount a disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def warnings(caplog):
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


def left(folder, **notes):
    """Return the orphans found, released again."""
    found = []
    for file in orphans(folder, **notes):
        found.append((file.url, file.name, file.read(0, file.size), file.notes))
        file.release()
    return found


def abandon(folder, name="tfevents", content=b"", url=URL, **notes):
    """Create an orphaned file, as a process that is killed does."""
    file = create(folder, url, name, **notes)
    file.append(content)
    file.release()
    [path] = [path for path in folder.iterdir() if str(path) == str(file)]
    return path


# A file.


def test_what_is_appended_is_read_in_any_piece(tmp_path):
    file = create(tmp_path, URL, "name")
    for piece in (b"abc", bytearray(b"de"), memoryview(b"fghi"), b""):
        file.append(piece)
    assert file.size == 9
    assert [file.read(i, j) for i, j in ((0, 9), (2, 4), (8, 9), (3, 3))] == [
        b"abcdefghi",
        b"cd",
        b"i",
        b"",
    ]
    file.delete()
    assert list(tmp_path.iterdir()) == []


def test_a_long_body_is_read_in_pieces(tmp_path):
    file = create(tmp_path, URL, "name")
    content = os.urandom(2 << 20)
    file.append(content)
    assert file.body(5, 100) == content[5:100]
    body = file.body(5, len(content))
    assert not isinstance(body, bytes)
    assert len(body) == len(content) - 5
    assert body.read(10) == content[5:15]
    assert (body.seek(-3, io.SEEK_END), body.read(), body.read()) == (
        len(content) - 8,
        content[-3:],
        b"",
    )
    assert (body.seek(0), body.seek(4, io.SEEK_CUR), body.tell()) == (0, 4, 4)
    assert body.read() == content[9:]
    file.delete()


def test_a_file_that_was_cut_by_somebody_is_an_error(tmp_path):
    file = create(tmp_path, URL, "name")
    file.append(b"0123456789")
    os.truncate(str(file), Path(str(file)).stat().st_size - 4)
    with pytest.raises(StoreError, match="was truncated: 6 of 10 bytes are left"):
        file.read(0, 10)
    file.delete()


def test_files_and_a_new_folder_are_nobody_elses_to_read(tmp_path):
    os.umask(os.umask(0o022))
    folder = tmp_path / "a" / "spool"
    path = abandon(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_folder_that_is_there_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o755)
    abandon(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_the_folder_is_the_users_cache_or_what_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("SM_TBLOG_SPOOL", raising=False)
    assert default_folder() == tmp_path / ".cache" / "sm_tblog" / "spool"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert default_folder() == Path("/x/sm_tblog/spool")
    monkeypatch.setenv("SM_TBLOG_SPOOL", "/y")
    assert default_folder() == Path("/y")


# Orphaned files.


def test_what_was_left_behind_is_found_with_its_notes(tmp_path):
    abandon(tmp_path, "a", b"1", endpoint_url="http://x", more={"k": [1]})
    abandon(tmp_path, "b", b"2", url="s3://other")
    expected = (URL, "a", b"1", {"endpoint_url": "http://x", "more": {"k": [1]}})
    assert sorted(found[1] for found in left(tmp_path)) == ["a", "b"]
    assert left(tmp_path, url=URL) == left(tmp_path, more={"k": [1]}) == [expected]
    assert left(tmp_path, url=URL, endpoint_url=None) == []
    assert [found[1] for found in left(tmp_path, endpoint_url=None)] == ["b"]


def test_one_file_may_be_named(tmp_path):
    path = abandon(tmp_path, "a", b"1")
    abandon(tmp_path, "b", b"2")
    assert [found[1] for found in left(path)] == ["a"]


def test_a_file_that_is_written_is_not_taken_nor_one_that_is_being_finished(tmp_path):
    file = create(tmp_path, URL, "name")
    assert left(tmp_path) == []
    file.release()
    [taken] = orphans(tmp_path)
    assert left(tmp_path) == []
    taken.delete()
    assert left(tmp_path) == []


def test_a_look_at_others_files_does_not_keep_them_from_anybody(tmp_path, monkeypatch):
    abandon(tmp_path, "name", url="s3://theirs")
    look = spool._is_orphan
    monkeypatch.setattr(spool, "_is_orphan", lambda file: locked.append(file) or look(file))
    locked = []
    assert left(tmp_path, url="s3://mine") == []
    assert locked == []
    assert len(left(tmp_path, url="s3://theirs")) == len(locked) == 1


def test_a_file_is_not_taken_before_it_says_where_it_belongs(tmp_path, monkeypatch):
    write = spool._write
    seen = []

    def look_first(file, data):
        seen.append(left(tmp_path))
        write(file, data)
        seen.append(left(tmp_path))

    monkeypatch.setattr(spool, "_write", look_first)
    create(tmp_path, URL, "name").release()
    assert seen == [[], []]


def test_a_file_that_is_finished_while_it_is_looked_at_is_not_taken(tmp_path, monkeypatch):
    file = create(tmp_path, URL, "name")
    notes_of = spool._notes_of

    def finish_then_read(other):
        file.delete()
        return notes_of(other)

    monkeypatch.setattr(spool, "_notes_of", finish_then_read)
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no JSON\n",
        b"[]\n",
        b'{"url": 1, "name": "x"}\n',
        b'{"url": "s3://x"}\n',
        b'{"url": "',
    ],
)
def test_a_file_that_is_none_of_ours_is_left_alone(tmp_path, content):
    path = tmp_path / f"x{spool.SUFFIX}"
    path.write_bytes(content)
    assert left(tmp_path) == []
    assert path.read_bytes() == content


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs chown")
def test_another_users_file_is_left_alone(tmp_path):
    os.chown(abandon(tmp_path), 12345, -1)
    assert left(tmp_path) == []


def test_a_folder_that_is_not_there_holds_nothing(tmp_path):
    assert left(tmp_path / "nothing") == []


HOLD = """
import sys
from pathlib import Path
from sm_tblog.storage.spool import create

file = create(Path(sys.argv[1]), "s3://bucket/run", "name")
file.append(b"x")
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_living_processs_file_is_not_taken_and_a_killed_ones_is(tmp_path, script):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(script(HOLD, tmp_path), **pipes) as child:
        child.stdout.readline()
        assert left(tmp_path) == []
        child.kill()
        child.wait()
        assert [found[2] for found in left(tmp_path)] == [b"x"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_that_lets_go_does_not_let_go_for_its_parent(tmp_path):
    file = create(tmp_path, URL, "name")
    child = multiprocessing.get_context("fork").Process(target=file.release)
    child.start()
    child.join()
    assert left(tmp_path) == []
    file.delete()


# Torn ends.


@pytest.mark.parametrize("cut", [0, 1, 11, 12, 20, 40])
def test_a_torn_record_is_dropped(tmp_path, cut):
    whole = frame(b"first") + padding(3 << 20) + frame(b"second")
    path = abandon(tmp_path, "tfevents", whole + frame(b"a torn record of 31 bytes..")[:cut])
    [file] = orphans(path)
    file.drop_torn_end()
    assert file.read(0, file.size) == whole
    file.delete()


def test_what_stands_behind_a_damaged_record_is_dropped(tmp_path):
    path = abandon(tmp_path, "tfevents", frame(b"first") + frame(b"second")[:-1] + b"!" * 50)
    [file] = orphans(path)
    file.drop_torn_end()
    assert file.read(0, file.size) == frame(b"first")
    file.delete()


@pytest.mark.parametrize(
    ("content", "whole"),
    [
        (b'{"a": 1}\n{"b"', b'{"a": 1}\n'),
        (b"one\ntwo\n", b"one\ntwo\n"),
        (b"torn", b""),
        (b"", b""),
    ],
)
def test_a_torn_line_is_dropped(tmp_path, content, whole):
    path = abandon(tmp_path, "metrics.jsonl", content)
    [file] = orphans(path)
    file.drop_torn_end()
    assert file.read(0, file.size) == whole
    file.delete()


# Without a disk.


def assert_keeps_in_memory(file):
    file.append(b"abc")
    file.append(b"def")
    assert (file.size, file.in_memory, str(file)) == (6, 6, "memory")
    assert file.read(1, 5) == b"bcde"
    file.delete()


def test_without_a_folder_everything_is_kept_in_memory_and_said_once(tmp_path, caplog):
    obstacle = tmp_path / "obstacle"
    obstacle.touch()
    for _ in range(3):
        assert_keeps_in_memory(create(obstacle / "spool", URL, "name"))
    [message] = warnings(caplog)
    assert f"{obstacle}/spool: Not a directory" in message
    assert "SM_TBLOG_SPOOL" in message


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs chown")
def test_another_users_folder_is_not_used(tmp_path, caplog):
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o777)
    os.chown(folder, 12345, -1)
    assert_keeps_in_memory(create(folder, URL, "name"))
    assert "it belongs to another user" in warnings(caplog)[0]
    assert list(folder.iterdir()) == []


def test_a_disk_that_cannot_lock_is_not_used(tmp_path, caplog, monkeypatch):
    def fail(file):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(spool, "_lock", fail)
    assert_keeps_in_memory(create(tmp_path, URL, "name"))
    assert len(warnings(caplog)) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_leaves_the_rest_in_memory(small_disk, caplog):
    file = create(small_disk, URL, "name")
    pieces = [bytes([i]) * 10_000 for i in range(12)]
    for piece in pieces:
        file.append(piece)
    content = b"".join(pieces)
    assert 0 < file.in_memory < file.size == len(content)
    on_disk = file.size - file.in_memory
    for begin, end in ((0, file.size), (on_disk - 5, on_disk + 5), (on_disk, file.size), (0, 9)):
        assert file.read(begin, end) == content[begin:end]
    body = file.body(0, file.size)
    assert body == content
    assert [str(small_disk) in message for message in warnings(caplog)] == [True]
    another = create(small_disk, URL, "name")
    another.append(b"x" * 10_000)
    assert another.in_memory == 10_000
    file.delete()
    another.delete()
    assert list(small_disk.iterdir()) == []
    once_more = create(small_disk, URL, "name")
    once_more.append(b"x" * 10_000)
    assert once_more.in_memory == 0
    once_more.delete()


@pytest.mark.skipif(sys.platform == "win32", reason="needs setrlimit")
def test_a_limit_on_the_size_of_files_leaves_the_rest_in_memory(tmp_path, run_script):
    source = """
import resource, signal, sys
from pathlib import Path
from sm_tblog.storage.spool import create

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
file = create(Path(sys.argv[1]), "s3://bucket", "name")
pieces = [bytes([i]) * 999 for i in range(20)]
for piece in pieces:
    file.append(piece)
assert file.read(0, file.size) == b"".join(pieces)
print(0 < file.in_memory < file.size)
"""
    done = run_script(source, tmp_path)
    assert done.stdout == "True\n"
    assert done.stderr.count("File too large") == 1


def test_memory_alone_needs_no_file():
    file = SpoolFile(URL, "name")
    assert_keeps_in_memory(file)
    assert not file.is_on_disk


def test_a_renamed_object_keeps_its_name_when_its_process_ends(tmp_path):
    file = create(tmp_path, URL, "events.out.tfevents.9999999999.x", region_name="somewhere")
    file.append(frame(b"record"))
    file.rename("events.out.tfevents.99999999990.x")
    file.append(frame(b"more"))
    file.release()
    (found,) = orphans(tmp_path, url=URL, region_name="somewhere")
    assert found.name == "events.out.tfevents.99999999990.x"
    assert found.read(0, found.size) == frame(b"record") + frame(b"more")
    found.release()


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_name_that_its_header_has_no_room_for_is_not_taken(tmp_path, in_memory):
    file = create(Path(os.devnull) if in_memory else tmp_path, URL, "name")
    file.append(b"x")
    file.rename("n" * 100)
    assert file.name == ("n" * 100 if in_memory else "name")
    assert file.read(0, 1) == b"x"
    file.release()
