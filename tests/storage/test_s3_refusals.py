"""S3 servers that refuse to append: objects are uploaded whole; nothing is lost or doubled."""

import itertools
import logging
import tracemalloc
from random import Random

import fake_s3
import pytest
from fake_s3 import FakeS3, Refusal
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sm_tblog import StoreError, Writer
from sm_tblog.format.records import padding
from sm_tblog.storage import object_store, s3, s3_bucket, s3_parts, spool, upload_queue
from sm_tblog.storage.object_store import open_folder
from sm_tblog.storage.spool import SpoolFile, create

MIN_PART_SIZE = 4096
ATTEMPTS = 3 + 1
"""Attempts after which an append is given up and the whole object is uploaded."""

NOT_IMPLEMENTED = Refusal(501, "NotImplemented")

METHODS = ("CreateMultipartUpload", "UploadPartCopy", "UploadPart", "CompleteMultipartUpload")

REFUSALS = [
    Refusal(400, "InvalidPart"),
    Refusal(400, "InvalidPartOrder"),
    Refusal(400, "EntityTooSmall"),
    Refusal(400, "InvalidArgument"),
    Refusal(400, "InvalidRequest"),
    Refusal(400, "NotSupported"),
    Refusal(400, "UnsupportedOperation"),
    Refusal(400, "MalformedXML"),
    Refusal(403, "AccessDenied"),
    Refusal(403, "InvalidObjectState"),
    Refusal(403, "SignatureDoesNotMatch"),
    Refusal(404, "NoSuchKey"),
    Refusal(404, "NoSuchUpload"),
    Refusal(405, "MethodNotAllowed"),
    Refusal(411, "MissingContentLength"),
    Refusal(501, "NotImplemented"),
    Refusal(501, "Unsupported"),
    Refusal(200, "InvalidPart"),  # with status 200, as a completed upload or a copy may end
    Refusal(200, "NotImplemented"),
    Refusal(500, "InternalError"),  # not a refusal, but each time
    Refusal(503, "SlowDown"),
    Refusal(409, "OperationAborted"),
    Refusal(412, "PreconditionFailed"),
    "reset",
]


@pytest.fixture(autouse=True)
def _small(tmp_path, monkeypatch):
    """Objects are padded at their second upload, to a small size; the third is a copy."""
    monkeypatch.setenv("SM_TBLOG_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setattr(s3, "MAX_REPEATED_BYTES", 0)
    monkeypatch.setattr(s3, "MIN_PART_SIZE", MIN_PART_SIZE)
    monkeypatch.setattr(object_store, "_refusals", {})
    spool._warn_spooling_in_memory.cache_clear()


@pytest.fixture
def fakes(monkeypatch):
    """``fakes()``: a new ``FakeS3``, about which nothing is known."""
    shared = fake_s3.client()
    monkeypatch.setattr(s3_bucket, "make_client", lambda options: shared)

    def start():
        object_store._refusals.clear()
        return FakeS3(MIN_PART_SIZE)

    return start


@pytest.fixture
def fake(fakes):
    return fakes()


class Growing:
    """An object and its spool file."""

    def __init__(self, fake, name="tfevents", folder=None):
        self.fake = fake
        self.key = f"run/{name}"
        self.file = SpoolFile("s3://bucket/run", name)
        self.folder = folder or open_folder("s3://bucket/run", fake.options)
        self.remote = self.folder.open_object(name, is_new=True)
        self.random = Random(1)

    def append(self, size):
        self.file.append(self.random.randbytes(size))
        return self.upload()

    def upload(self):
        if missing := self.remote.padding(self.file.size):
            self.file.append(padding(missing))
        try:
            self.remote.commit(self.file, self.file.size)
        except StoreError:
            return False
        return True

    def begin(self):
        """Let the object become large enough to be copied."""
        assert all(self.append(100) for _ in range(2))
        assert self.remote.committed >= MIN_PART_SIZE
        return self

    def check(self):
        assert self.fake.objects[self.key] == self.file.read(0, self.file.size)
        assert self.remote.committed == self.file.size
        assert self.fake.sizes[self.key] == sorted(self.fake.sizes[self.key])


def refuse(fake, operation, refusal):
    """Refuse every request for an operation; "reset" is no reply."""
    if refusal == "reset":
        fake.drops.add(operation)
    else:
        fake.refusals[operation] = refusal


@pytest.mark.parametrize("operation", METHODS)
@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda one: "-".join(map(str, one)))
def test_after_a_refused_append_the_object_is_uploaded_whole(fake, caplog, operation, refusal):
    growing = Growing(fake).begin()
    refuse(fake, operation, refusal)
    growing.file.append(b"tail")
    attempts = next(n for n in range(1, ATTEMPTS + 1) if growing.upload())
    growing.check()
    assert attempts <= ATTEMPTS
    assert growing.remote.max_size == s3.MAX_REWRITTEN_SIZE
    begun = len(fake.requests)
    assert growing.append(10)
    assert [name for name, _ in fake.requests[begun:]] == ["PutObject"]
    growing.check()


@pytest.mark.parametrize("refusal", REFUSALS[:19], ids=lambda one: "-".join(map(str, one)))
def test_a_refusal_is_told_once_and_remembered_for_the_bucket(fake, caplog, refusal):
    growing = Growing(fake).begin()
    earlier = Growing(fake, "tfevents.earlier", open_folder("s3://bucket/a", fake.options))
    earlier.key = "a/tfevents.earlier"
    earlier.begin()
    refuse(fake, "UploadPartCopy", refusal)
    while not growing.append(10):
        pass
    [message] = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert f"{refusal.code} at UploadPartCopy" in message
    assert "uploaded whole" in message
    begun = len(fake.requests)
    later = Growing(fake, "tfevents.later", open_folder("s3://bucket/b", fake.options))
    later.key = "b/tfevents.later"
    assert all(one.append(100) for one in (later, later, later, earlier))
    assert {name for name, _ in fake.requests[begun:]} == {"PutObject"}
    assert later.file.size == 300  # it is not padded
    for one in (growing, later, earlier):
        one.check()
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(403, "AccessDenied"),
        Refusal(404, "NoSuchBucket"),
        Refusal(400, "ExpiredToken"),
        Refusal(403, "InvalidAccessKeyId"),
        Refusal(403, "SignatureDoesNotMatch"),
        Refusal(503, "SlowDown"),
    ],
    ids=lambda one: one.code,
)
def test_a_refusal_of_every_request_does_not_end_appends(fake, caplog, refusal):
    growing = Growing(fake).begin()
    for operation in (*METHODS, "PutObject"):
        fake.refusals[operation] = refusal
    assert not any(growing.append(10) for _ in range(7))
    fake.refusals.clear()
    copies = fake.count("UploadPartCopy")
    assert growing.upload()
    assert fake.count("UploadPartCopy") == copies + 1
    growing.check()
    assert growing.remote.max_size == s3.MAX_OBJECT_SIZE
    assert caplog.records == []


def test_a_passing_fault_does_not_end_appends(fake):
    growing = Growing(fake).begin()
    for fault in ("reset", "lost", Refusal(500, "InternalError"), Refusal(404, "NoSuchUpload")):
        for skipped in range(4):
            fake.plan = iter([None] * skipped + [fault])
            growing.append(10)
            assert growing.upload()
    growing.check()
    assert growing.remote.max_size == s3.MAX_OBJECT_SIZE


# Servers with rules of their own.


def test_a_backlog_is_appended_in_parts_of_equal_size(fake):
    fake.equal_parts = True
    growing = Growing(fake).begin()
    for size in (10, 3 * MIN_PART_SIZE, 20 * MIN_PART_SIZE + 7, 1, 5 * MIN_PART_SIZE):
        before = fake.uploaded
        assert growing.append(size)
        growing.check()
        completed = 1000  # the list of parts
        assert fake.uploaded - before < size + 25 * completed
    assert growing.remote.max_size == s3.MAX_OBJECT_SIZE
    assert fake.count("CompleteMultipartUpload") == 5


def test_a_server_that_takes_a_copy_for_nothing_gets_whole_objects(fake, caplog):
    fake.ignores_copies = True
    growing = Growing(fake).begin()
    assert growing.append(10)
    growing.check()
    assert growing.remote.max_size == s3.MAX_REWRITTEN_SIZE
    assert "UploadPartCopy copies nothing" in caplog.text
    assert fake.uploads == {}


@pytest.mark.parametrize("refusal", [Refusal(405, "MethodNotAllowed"), NOT_IMPLEMENTED])
@pytest.mark.parametrize("operation", ["AbortMultipartUpload", "ListMultipartUploads"])
def test_a_server_that_does_not_abort_uploads_is_written_to(fake, operation, refusal):
    growing = Growing(fake).begin()
    fake.plan = iter([None, None, None, "reset"])  # before it is completed
    assert not growing.append(10)
    fake.refusals[operation] = refusal
    growing.remote = growing.folder.open_object("tfevents", is_new=False)
    assert growing.append(10)
    growing.check()


def test_an_upload_that_cannot_be_aborted_does_not_block_others_for_good(fake):
    growing = Growing(fake).begin()
    fake.plan = iter([None, None, None, "reset"])
    assert not growing.append(10)
    fake.refusals["AbortMultipartUpload"] = Refusal(500, "InternalError")
    attempts = next(n for n in itertools.count(1) if growing.upload())
    assert attempts == s3_parts.MAX_FAILED_ABORTS
    growing.check()


@pytest.mark.parametrize("is_new", [True, False])
def test_an_empty_object_is_written_to(fake, is_new):
    fake.objects["run/tfevents"] = b""
    growing = Growing(fake)
    growing.remote = growing.folder.open_object("tfevents", is_new=is_new)
    assert growing.append(100)
    growing.check()
    assert growing.begin().append(10)
    growing.check()
    assert fake.count("UploadPartCopy") > 0
    assert growing.folder.condition("PutObject", '"tag"')


@pytest.mark.parametrize(
    "refusal", [Refusal(403, "InvalidObjectState"), Refusal(501, "NotImplemented")]
)
def test_an_object_that_cannot_be_read_is_written_to(fake, refusal):
    growing = Growing(fake).begin()
    fake.refusals["GetObject"] = refusal  # of an archived object: HEAD still works
    fake.refusals["UploadPartCopy"] = refusal
    fake.plan = iter([None, "reset"])
    assert not growing.append(10)
    assert growing.upload()
    growing.check()
    assert growing.folder.condition("PutObject", '"tag"')


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(400, "InvalidArgument"),
        Refusal(400, "InvalidRequest"),
        Refusal(405, "MethodNotAllowed"),
        Refusal(403, "SignatureDoesNotMatch"),
        Refusal(501, "NotImplemented"),
    ],
    ids=lambda one: one.code,
)
def test_a_server_that_refuses_conditions_is_written_to_without(fake, refusal):
    fake.refuses_conditions = refusal
    growing = Growing(fake).begin()
    assert growing.append(10)
    growing.check()
    assert growing.remote.max_size == s3.MAX_OBJECT_SIZE
    fake.objects["run/side"] = b"theirs "
    open_folder("s3://bucket/run", fake.options).update("side", lambda before: before + b"mine")
    assert fake.objects["run/side"] == b"theirs mine"


def test_a_refused_request_is_no_reason_to_give_conditions_up(fake):
    growing = Growing(fake).begin()
    fake.refusals["PutObject"] = Refusal(400, "InvalidArgument")
    fake.refusals["UploadPartCopy"] = Refusal(501, "NotImplemented")
    assert not growing.append(10)
    fake.refusals.pop("PutObject")
    assert growing.upload()
    assert growing.folder.condition("PutObject", '"tag"')


def test_a_whole_object_replaces_only_what_is_known(fake):
    growing = Growing(fake).begin()
    fake.refusals["UploadPartCopy"] = Refusal(501, "NotImplemented")
    conditions = []
    call = growing.folder.call

    def watch(operation, **parameters):
        if operation == "PutObject":
            conditions.append(parameters.get("IfMatch"))
        return call(operation, **parameters)

    growing.folder.call = watch
    tags = [growing.remote._tag]
    for _ in range(3):
        assert growing.append(10)
        tags.append(growing.remote._tag)
    assert conditions == tags[:-1]


# Limits.


def test_an_object_that_is_too_large_for_one_request_is_uploaded_in_parts(fake, monkeypatch):
    monkeypatch.setattr(s3, "MAX_PART_SIZE", 3 * MIN_PART_SIZE)
    monkeypatch.setattr(s3_parts, "PART_SIZE", 2 * MIN_PART_SIZE)
    fake.equal_parts = True
    growing = Growing(fake)
    assert growing.append(9 * MIN_PART_SIZE)
    growing.check()
    assert fake.count("UploadPart") == 5
    assert growing.append(9 * MIN_PART_SIZE)  # too large for a copied part
    growing.check()
    assert fake.count("UploadPartCopy") == 0


def test_a_backlog_that_would_have_too_many_parts_is_uploaded_whole(fake, monkeypatch):
    monkeypatch.setattr(s3, "MAX_PARTS", 3)
    growing = Growing(fake).begin()
    assert growing.append(2 * MIN_PART_SIZE)
    assert fake.count("UploadPartCopy") == 1
    assert growing.append(12 * MIN_PART_SIZE)
    assert fake.count("UploadPartCopy") == 1
    growing.check()
    assert growing.append(10)
    assert fake.count("UploadPartCopy") == 2


def test_the_whole_object_is_not_read_into_memory(fake, tmp_path):
    growing = Growing(fake)
    growing.file = create(tmp_path, "s3://bucket/run", "tfevents")
    growing.begin()
    growing.file.append(bytes(24 << 20))
    fake.refusals["UploadPartCopy"] = Refusal(501, "NotImplemented")
    tracemalloc.start()
    try:
        assert growing.upload()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    growing.check()
    assert peak < 64 << 20  # the server's copies, in this process: the body and its pieces
    growing.file.delete()


# Any sequence.


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    steps=st.lists(
        st.tuples(
            st.integers(1, 5 * MIN_PART_SIZE),
            st.dictionaries(
                st.sampled_from([*METHODS, "AbortMultipartUpload"]),
                st.sampled_from(REFUSALS[:-1]),
                max_size=2,
            ),
            st.lists(st.sampled_from([None, "reset", "lost", *REFUSALS[:-2]]), max_size=4),
        ),
        min_size=1,
        max_size=8,
    ),
    equal_parts=st.booleans(),
    reopened=st.integers(0, 8),
    begun_empty=st.booleans(),
)
@example(
    steps=[(5000, {}, []), (9, {}, ["lost"]), (9, {}, [])],
    equal_parts=True,
    reopened=9,
    begun_empty=True,
)
def test_the_object_is_what_was_logged_whatever_is_refused(
    fakes, steps, equal_parts, reopened, begun_empty
):
    fake = fakes()
    fake.equal_parts = equal_parts
    if begun_empty:
        fake.objects["run/tfevents"] = b""
    growing = Growing(fake)
    for number, (size, refusals, plan) in enumerate(steps):
        fake.refusals, fake.plan = refusals, iter(plan)
        if number == reopened:
            growing.remote = growing.folder.open_object("tfevents", is_new=False)
        growing.append(size)
        attempts = itertools.count()
        while not growing.upload():
            assert next(attempts) < len(plan) + ATTEMPTS + s3_parts.MAX_FAILED_ABORTS
        growing.check()


# Writers.


def test_a_writer_closes_soon_after_a_refusal(fake, caplog, monkeypatch, read_scalars, tmp_path):
    monkeypatch.setattr(upload_queue, "BACKOFF", (0.0,))
    fake.refusals["CompleteMultipartUpload"] = Refusal(400, "InvalidPart")
    with Writer("s3://bucket/run", storage_options=fake.options) as writer:
        for part in range(4):
            for step in range(part * 50, part * 50 + 50):
                writer.add_scalar("loss", step / 8, step)
            assert writer.flush(force=True)
        assert writer.stats().bytes_pending == 0
    assert caplog.text.count("InvalidPart at CompleteMultipartUpload") == 1
    for key, content in fake.objects.items():
        path = tmp_path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert read_scalars(tmp_path / "run") == {"": {"loss": [(n, n / 8) for n in range(200)]}}
