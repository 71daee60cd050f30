"""What a user reads when something goes wrong."""

from __future__ import annotations

import errno
import subprocess
import sys

import numpy as np
import pytest

import sm_tblog
from sm_tblog import InvalidTypeError, InvalidValueError, StoreError, Writer
from sm_tblog.pipeline.faults import FaultLog
from sm_tblog.storage import StoreLostError

SCRIPT = """
import sys
from sm_tblog import Writer

writer = Writer(sys.argv[1])
writer.add_scalar("loss", 1.0, 0)
print(writer.flush())
"""


def test_a_script_that_does_not_configure_logging_reads_who_complains_and_what_to_do(tmp_path):
    (tmp_path / "file").write_text("in the way")
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "file" / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    first = done.stderr.splitlines()[0]
    assert first.startswith(f"sm_tblog: cannot write {tmp_path}")
    assert "training continues, and the data is kept" in first
    assert "remove the file that is in the way" in first


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.EACCES, "make the folder writable"),
        (errno.EROFS, "make the folder writable"),
        (errno.ENOSPC, "free some space"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ESTALE, "the mount"),
        (errno.ENOENT, "check the path"),
    ],
)
def test_the_remedy_follows_from_the_systems_error(caplog, code, remedy):
    FaultLog("warn").report("a sink", StoreError(code, "cannot write runs/x: it failed"))
    (message,) = caplog.messages
    assert message.startswith("sm_tblog: cannot write runs/x: it failed; training continues")
    assert remedy in message
    assert "Errno" not in message


def test_a_file_that_is_lost_is_not_said_to_be_kept(caplog):
    FaultLog("warn").report("a sink", StoreLostError("runs/x was deleted"))
    assert "in a new file" in caplog.text
    assert "kept" not in caplog.text


def test_every_message_of_the_library_begins_with_its_name(caplog):
    FaultLog("warn").warn_once("key", "100 % of it")
    assert caplog.messages == ["sm_tblog: 100 % of it"]


@pytest.mark.parametrize(
    ("log", "hint"),
    [
        (lambda w: w.add_audio("a", np.zeros(9), 0, sample_rate="44100"), "sample_rate must be"),
        (lambda w: w.add_audio("a", np.zeros(9), 0, sample_rate=[1, 2]), "sample_rate must"),
        (lambda w: w.add_video("a", np.zeros((1, 2, 3, 4, 4)), 0, fps="4"), "fps must be a number"),
        (lambda w: w.add_histogram("a", None, 0), "got None|from NoneType: there is no array"),
        (lambda w: w.add_histogram("a", {"x": 1}, 0), "log its values one by one"),
        (lambda w: w.add_histogram("a", iter([1, 2]), 0), "convert it to a list"),
        (lambda w: w.add_scalar("a", [1, 2], 0), "log its mean, add_scalars .* or add_histogram"),
        (lambda w: w.add_scalar("a", {"x": 1}, 0), "use log or add_scalars"),
        (lambda w: w.add_image("a", "cat.png", 0), "open an image or sound file before you log it"),
    ],
)
def test_a_hint_fits_the_argument_that_is_wrong(tmp_path, log, hint):
    with Writer(tmp_path) as writer, pytest.raises((InvalidTypeError, InvalidValueError)) as caught:
        log(writer)
    assert caught.match(f"^'a': .*({hint})")
    assert "add_text" not in str(caught.value) or "cat" in hint or "open" in hint


def test_the_readers_that_a_message_names_are_there(tmp_path):
    with Writer(tmp_path / "logs" / "run") as writer:
        writer.add_scalar("loss", 1.0, 0)
    with pytest.raises(InvalidValueError, match=r"sm_tblog\.read_many\(\)"):
        sm_tblog.read(tmp_path / "logs")
    assert list(sm_tblog.read_many(tmp_path / "logs")) == ["run"]
    assert list(sm_tblog.readers.read_all(tmp_path / "logs")) == ["run"]
