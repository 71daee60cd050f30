"""Processes that end in the middle of an upload, which a later process finishes.

Each script runs in its own process, logs through a proxy, and is killed when the proxy lets a
request hang.
"""

import json
import os
import signal
import subprocess
import sys
from itertools import count, repeat

import numpy as np
import pytest

from sm_tblog import Writer
from sm_tblog.pipeline import barriers
from sm_tblog.storage import object_store, open_store, s3, side_spool, spool

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")

runs = (f"killed-{i}" for i in count())

BEGIN = """
import os, select, sys
from sm_tblog import Writer
from sm_tblog.pipeline import barriers
from sm_tblog.pipeline import lifecycle
from sm_tblog.storage import s3
from sm_tblog.storage import upload_queue

s3.MAX_REPEATED_BYTES, s3.MIN_PART_SIZE = 0, 4096
lifecycle.EXIT_TIMEOUT = 0.5
folder, endpoint = sys.argv[1:]
options = {"endpoint_url": endpoint, "key": "testkey", "secret": "testsecret"}
writer = Writer(folder, storage_options=options)

def log(begin, end):
    for step in range(begin, end):
        writer.add_scalar("loss", step / 8, step)
"""

LOG_IN_PARTS = """
for part in range(5):
    log(part * 50, part * 50 + 50)
    while writer.stats().rows_written < part * 50 + 50:
        writer.flush(timeout=0.1)
    os.write(1, b"logged\\n")
    writer.flush(timeout=5, force=True)
select.select([sys.stdin], [], [])  # readable when the test is over
"""


@pytest.fixture(autouse=True)
def spool_folder(tmp_path, monkeypatch):
    folder = tmp_path / "spool"
    monkeypatch.setenv("SM_TBLOG_SPOOL", str(folder))
    monkeypatch.setattr(object_store, "_refusals", {})
    spool._warn_spooling_in_memory.cache_clear()
    return folder


@pytest.fixture(autouse=True)
def _copying(monkeypatch):
    monkeypatch.setattr(s3, "MAX_REPEATED_BYTES", 0)
    monkeypatch.setattr(s3, "MIN_PART_SIZE", 4096)


@pytest.fixture
def folder():
    return f"s3://bucket/{next(runs)}"


@pytest.fixture
def start(script, moto, folder):
    """``start(source)``: a process that logs to the folder through the proxy."""
    children = []

    def begin(source):
        command = script(BEGIN + source, folder, moto.url)
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        children.append(subprocess.Popen(command, text=True, **pipes))
        return children[-1]

    yield begin
    for child in children:
        child.kill()
        if not child.stdin.closed:
            child.communicate()


@pytest.fixture
def uploaded(moto, tmp_path, read_scalars):
    """``uploaded(folder)``: what TensorBoard reads there."""
    copies = count()

    def read(folder):
        client = moto.server.client()
        prefix = folder.removeprefix("s3://bucket/")
        local = tmp_path / f"copy-{next(copies)}"
        for one in client.list_objects_v2(Bucket="bucket", Prefix=prefix).get("Contents", []):
            path = local / one["Key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(client.get_object(Bucket="bucket", Key=one["Key"])["Body"].read())
        return read_scalars(local / prefix).get("", {}) if local.exists() else {}

    return read


def sm_tblog(*args):
    command = [sys.executable, "-m", "sm_tblog", *map(str, args)]
    secrets = {"AWS_ACCESS_KEY_ID": "testkey", "AWS_SECRET_ACCESS_KEY": "testsecret"}
    plain = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    return subprocess.run(
        command,
        env={**os.environ, **secrets, **plain},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def kill(child):
    """Kill a process; return the numbers of rows logged and spooled by then."""
    child.kill()
    output, _ = child.communicate()
    return output.count("logged") * 50


def points(number):
    return [(step, step / 8) for step in range(number)]


def finish_by_writer(moto, folder):
    """Let the folder's next writer finish orphaned uploads; return what it logs itself."""
    with Writer(folder, storage_options=moto.options) as writer:
        writer.add_scalar("next", 1.0, 0)
    return {"next": [(0, 1.0)]}


def finish_by_command(moto, folder):
    done = sm_tblog("upload", "--endpoint-url", moto.server.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(f"{folder}/events.out") == done.stdout.count("uploaded") == 1
    return {}


@pytest.mark.parametrize(
    ("operation", "finish"),
    [
        ("PutObject", finish_by_command),
        ("PutObject", finish_by_writer),
        ("CreateMultipartUpload", finish_by_writer),
        ("UploadPartCopy", finish_by_writer),
        ("UploadPart", finish_by_writer),
        ("CompleteMultipartUpload", finish_by_writer),
        ("CompleteMultipartUpload", finish_by_command),
    ],
)
def test_what_a_killed_process_logged_is_finished(
    moto, folder, start, uploaded, spool_folder, operation, finish
):
    moto.fail(operation, None, "hang")
    child = start(LOG_IN_PARTS)
    moto.arrived.wait()
    logged = kill(child)
    before = len(uploaded(folder).get("loss", []))
    assert 0 < before < logged
    moto.begin()
    more = finish(moto, folder)
    after = uploaded(folder)
    assert len(after["loss"]) >= logged
    assert after == {"loss": points(len(after["loss"])), **more}
    assert list(spool_folder.iterdir()) == []
    listed = moto.server.client().list_multipart_uploads(Bucket="bucket", Prefix=folder[12:])
    assert not listed.get("Uploads")


def test_a_living_processs_file_is_left_to_it(moto, folder, start, uploaded):
    moto.fail("PutObject", "hang")
    child = start(LOG_IN_PARTS)
    moto.arrived.wait()
    nothing = sm_tblog("upload")
    assert nothing.returncode == 0
    assert "Nothing to upload in" in nothing.stdout
    finish_by_writer(moto, folder)
    assert "loss" not in uploaded(folder)
    kill(child)


LOG_AND_FORK = """
log(0, 100)
while writer.stats().rows_written < 100:
    writer.flush(timeout=0.1)
if os.fork() == 0:
    os.write(1, b"forked\\n")  # it has let go of the parent's file by now
select.select([sys.stdin], [], [])  # readable when the test is over
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_outlives_its_parent_does_not_keep_its_file(moto, folder, start, uploaded):
    moto.plan = repeat("hang")
    child = start(LOG_AND_FORK)
    child.stdout.readline()
    child.kill()
    child.wait()
    moto.begin()
    assert finish_by_writer(moto, folder) == {"next": [(0, 1.0)]}
    assert uploaded(folder)["loss"] == points(100)


def test_what_cannot_be_uploaded_is_said_and_kept(moto, folder, start, spool_folder):
    moto.fail("PutObject", "hang")
    child = start(LOG_IN_PARTS)
    moto.arrived.wait()
    kill(child)
    [path] = spool_folder.iterdir()
    moto.begin()
    moto.plan = repeat("403")
    done = sm_tblog("upload", path)
    assert done.returncode == 1
    assert "not uploaded" in done.stdout
    assert "do not allow writing there" in done.stdout
    assert "testsecret" not in done.stdout + done.stderr
    assert path.exists()
    moto.begin()
    assert sm_tblog("upload", path).returncode == 0  # the endpoint is that of the spool file
    assert not path.exists()


@pytest.mark.parametrize("end", ["", "writer.close(timeout=0.5)", "sys.exit(3)", "1 / 0"])
def test_a_script_ends_although_the_network_hangs(moto, folder, start, spool_folder, end):
    moto.plan = repeat("hang")
    child = start(f"log(0, 100)\n{end}")
    _, errors = child.communicate(timeout=60)
    assert child.returncode == {"sys.exit(3)": 3, "1 / 0": 1}.get(end, 0)
    [path] = spool_folder.iterdir()
    assert "The rest is kept and uploaded later by this process, the next writer" in errors
    assert str(path) in errors
    moto.begin()


def test_a_script_that_just_ends_has_uploaded_all(moto, folder, start, uploaded, spool_folder):
    child = start("lifecycle.EXIT_TIMEOUT = 30.0\nlog(0, 100)")
    _, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (0, "")
    assert uploaded(folder) == {"loss": points(100)}
    assert list(spool_folder.iterdir()) == []


def test_a_network_that_is_gone_at_the_end_leaves_the_spool_file(
    moto, folder, spool_folder, caplog, monkeypatch, uploaded
):
    monkeypatch.setattr(barriers, "CLOSE_TIMEOUT", 0.2)
    moto.plan = repeat("hang")
    writer = Writer(folder, storage_options=moto.options)
    writer.add_scalar("loss", 0.0, 0)
    assert not writer.close()
    [path] = spool_folder.iterdir()
    assert str(path) in caplog.text
    content = path.read_bytes()
    assert b"testsecret" not in content
    notes = json.loads(content.partition(b"\n")[0])
    assert (notes["url"], notes["endpoint_url"]) == (folder, moto.url)
    moto.begin()
    writer.add_scalar("loss", 1 / 8, 1)
    monkeypatch.setattr(barriers, "CLOSE_TIMEOUT", 60)
    assert writer.close()
    assert uploaded(folder) == {"loss": points(2)}


def test_the_same_folder_on_another_server_is_another_folder(moto, folder, spool_folder):
    spool.create(spool_folder, folder, "tfevents", endpoint_url="http://elsewhere").release()
    finish_by_writer(moto, folder)
    assert len(list(spool_folder.iterdir())) == 1


LOG_AN_EMBEDDING = """
import numpy as np

writer.add_embedding(np.eye(4), metadata=list("abcd"), tag="points")
writer.hparams({"lr": 0.5})
writer.add_scalar("loss", 0.0, 0)
while writer.stats().rows_written < 1:  # until all is in the spool
    writer.flush(timeout=0.1)
os.write(1, b"logged\\n")
select.select([sys.stdin], [], [])
"""


def objects(moto, folder):
    """Return the contents of the folder's objects by name."""
    client = moto.server.client()
    prefix = folder.removeprefix("s3://bucket/") + "/"
    listed = client.list_objects_v2(Bucket="bucket", Prefix=prefix).get("Contents", [])
    keys = [one["Key"] for one in listed]
    bodies = (client.get_object(Bucket="bucket", Key=key)["Body"].read() for key in keys)
    return {key.removeprefix(prefix): body for key, body in zip(keys, bodies, strict=True)}


def upload_by_command(moto, folder):
    done = sm_tblog("upload", "--endpoint-url", moto.server.url)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("tensors.bytes", "metadata.tsv", "projector_config.pbtxt", "tfevents"):
        assert name in done.stdout


@pytest.mark.parametrize("finish", [upload_by_command, finish_by_writer])
def test_side_files_of_a_killed_process_are_finished(moto, folder, start, spool_folder, finish):
    moto.plan = repeat("hang")
    child = start(LOG_AN_EMBEDDING)
    child.stdout.readline()
    kill(child)
    assert objects(moto, folder) == {}
    moto.begin()
    # Another process has listed an embedding of its own in the meantime.
    config = f"{folder.removeprefix('s3://bucket/')}/projector_config.pbtxt"
    theirs = b'embeddings {\n  tensor_name: "theirs"\n}\n'
    moto.server.client().put_object(Bucket="bucket", Key=config, Body=theirs)
    finish(moto, folder)
    found = objects(moto, folder)
    matrix = np.frombuffer(found["embeddings/points/00000/tensors.bytes"], "<f4")
    np.testing.assert_array_equal(matrix.reshape(4, 4), np.eye(4))
    assert found["embeddings/points/00000/metadata.tsv"] == b"a\nb\nc\nd\n"
    text = found["projector_config.pbtxt"].decode()
    assert text.startswith(theirs.decode())
    assert 'tensor_name: "points:00000"' in text
    assert b"session_start_info" in found["events.out.tfevents.0000000000.hparams"]
    assert list(spool_folder.iterdir()) == []


def leave_side_file(spool_folder, moto, folder, data, **note):
    """Create an orphaned side file, as a process that is killed does."""
    notes = {"endpoint_url": moto.url}
    job = side_spool.create(spool_folder, folder, "side", data, **notes)
    job.file.release()
    [path] = spool_folder.iterdir()
    first, _, rest = path.read_bytes().partition(b"\n")
    changed = json.loads(first)
    changed["side"].update(note)
    path.write_bytes(json.dumps(changed).encode() + b"\n" + rest)
    return path


def test_side_files_are_finished_in_the_order_in_which_they_came(moto, folder, spool_folder):
    for data in (b"first", b"second"):
        side_spool.create(spool_folder, folder, "side", data, endpoint_url=moto.url).file.release()
    assert len(list(spool_folder.iterdir())) == 2
    finish_by_writer(moto, folder)
    assert objects(moto, folder)["side"] == b"second"


def test_a_side_file_that_is_not_whole_is_not_uploaded(moto, folder, spool_folder, caplog):
    path = leave_side_file(spool_folder, moto, folder, b"some of it", size=1000)
    finish_by_writer(moto, folder)
    assert "side" not in objects(moto, folder)
    assert f"{folder}/side: the side file is incomplete" in caplog.text
    assert not path.exists()


@pytest.mark.parametrize("function", ["os:system", "sm_tblog.nothing:here", "nothing"])
def test_only_functions_of_this_library_change_side_files(
    moto, folder, spool_folder, caplog, function
):
    path = leave_side_file(spool_folder, moto, folder, b"true", change=function)
    finish_by_writer(moto, folder)
    assert "side" not in objects(moto, folder)
    assert f"{path} is skipped: this release of sm_tblog has no function {function}" in caplog.text
    done = sm_tblog("upload")
    assert done.returncode == 1
    assert f"not uploaded: {path} was written by another release" in done.stdout
    assert path.exists()


def test_a_change_of_somebody_elses_is_made_and_not_spooled(moto, folder, spool_folder):
    store = open_store(folder, "", **moto.options)
    store.put("side", lambda before: (before or b"") + b"more")
    assert not spool_folder.exists()
    store.close()
    assert store.wait(60)
    assert objects(moto, folder) == {"side": b"more"}


def test_side_files_go_by_memory_where_there_is_no_spool(moto, folder, monkeypatch, caplog):
    monkeypatch.setenv("SM_TBLOG_SPOOL", os.devnull)
    store = open_store(folder, "", **moto.options)
    store.put("side", b"content")
    store.close()
    assert store.wait(60)
    assert objects(moto, folder) == {"side": b"content"}
    assert "cannot write to the spool folder" in caplog.text
