"""A writer in a SageMaker training job: its log directory, its messages, and restarts.

The job's processes are real processes, with a temporary directory in place of ``/opt/ml``.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagemaker_tree import BUCKET, JOB, S3_OUTPUT_PATH, Tree, clean_environment

from sm_tblog import InvalidTypeError, InvalidValueError, Writer
from sm_tblog.sagemaker import environment, logdir, s3_logdir, training_job

SCRIPT = """
import json, logging, sys
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
arguments = json.loads(sys.argv[1])
from sm_tblog import Writer
for _ in range(2):
    writer = Writer(*arguments)
    writer.add_scalar("loss", 0.5, 0)
    writer.close()
print(writer.log_dir)
"""


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path / "ml")


@pytest.fixture
def run_job(tree, tmp_path):
    """``run_job(*arguments, **variables)`` runs a script that creates a ``Writer``."""

    def run(*arguments, **variables):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, json.dumps(arguments)],
            cwd=tree.base / "code",
            env=clean_environment(tmp_path, **tree.environment(**variables)),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip(), done.stderr.strip()

    return run


@pytest.fixture
def in_job(tree, tmp_path, monkeypatch):
    """Make this process part of the job. Tests can still change the job's files."""
    for name in clean_environment(tmp_path).keys() ^ os.environ.keys():
        monkeypatch.delenv(name, raising=False)
    for name, value in tree.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(logdir, "_logged", set())
    return tree


# The log directory, in a process of the job.


def test_a_job_with_a_config_logs_to_its_local_path(tree, run_job, event_files):
    tree.write_tensorboard()
    folder, said = run_job()
    assert Path(folder) == tree.local_path
    assert {path.parent for path in event_files(tree.base)} == {tree.local_path}
    assert said == (
        f"INFO sm_tblog: SageMaker job {JOB}: logging to {tree.local_path}, which SageMaker "
        f"uploads to {S3_OUTPUT_PATH} while the job runs. To view it: sm-tblog open {JOB}"
    )


def test_a_job_without_a_config_says_that_the_app_does_not_list_it(tree, run_job, event_files):
    folder, said = run_job()
    assert Path(folder) == tree.base / "output" / "data" / "tensorboard"
    assert len(event_files(folder)) == 2
    assert said.startswith(f"WARNING sm_tblog: SageMaker job {JOB}: ")
    assert said.count("\n") == 0
    for words in ("at the end of the job", "no TensorBoardOutputConfig", "does not list it"):
        assert words in said
    assert "s3_logdir('s3://bucket/folder')" in said


def test_a_job_of_a_tuning_job_is_told_how_it_can_be_seen(tree, run_job):
    tree.write("hyperparameters", {"_tuning_objective_metric": "loss", "lr": "0.1"})
    _, said = run_job()
    assert said.startswith("WARNING")
    assert "tuning job" in said
    assert "s3_logdir" in said


def test_local_mode_uploads_nothing(tree, run_job):
    tree.write_hosts(instance="local_gpu")
    _, said = run_job()
    assert said.startswith("INFO")
    assert "In local mode SageMaker uploads nothing" in said
    assert "log to Writer(s3_logdir(" in said


def test_a_config_that_another_variable_names_goes_first(tree, run_job, tmp_path):
    tree.write_tensorboard()
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"LocalPath": str(tmp_path / "elsewhere")}), encoding="utf-8")
    folder, said = run_job(TENSORBOARD_CONFIG_FILE_PATH=str(other))
    assert Path(folder) == tmp_path / "elsewhere"
    assert "has no S3OutputPath: nothing is uploaded" in said


def test_a_variable_that_names_no_config_is_said_and_passed_over(tree, run_job):
    tree.write_tensorboard()
    folder, said = run_job(TENSORBOARD_CONFIG_FILE_PATH="/nowhere.json")
    assert Path(folder) == tree.local_path
    assert said.startswith("INFO")
    tree.write("tensorboardoutputconfig", None)
    folder, said = run_job(TENSORBOARD_CONFIG_FILE_PATH="/nowhere.json")
    assert Path(folder) == tree.base / "output" / "data" / "tensorboard"
    assert "WARNING sm_tblog: TENSORBOARD_CONFIG_FILE_PATH names /nowhere.json" in said


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"LocalPath": 3}', "null", "\x00"])
def test_a_damaged_config_never_stops_the_script(tree, run_job, damage):
    for name in ("tensorboardoutputconfig", "resourceconfig", "checkpointconfig"):
        tree.write(name, damage)
    folder, said = run_job()
    assert Path(folder).is_relative_to(tree.base / "output")
    assert "WARNING" in said


def test_an_argument_goes_before_all(tree, run_job, tmp_path):
    tree.write_tensorboard()
    assert run_job(str(tree.local_path / "mine")) == (str(tree.local_path / "mine"), "")
    folder, said = run_job("runs/mine")
    assert folder == "runs/mine"
    assert said.count("WARNING") == 1
    assert "runs/mine, which is never uploaded" in said
    assert f"logs to {tree.local_path}, which is uploaded" in said
    assert run_job(str(tree.base / "input" / "data" / "shared" / "x"))[1] == ""
    assert run_job("memory://here")[1] == ""


def test_a_folder_among_the_checkpoints_is_uploaded_with_them(tree, run_job):
    folder = tree.write_checkpoints() / "logs"
    assert run_job(str(folder)) == (str(folder), "")


@pytest.mark.parametrize(
    ("hosts", "variables", "comment", "run"),
    [
        (1, {}, "", ""),
        (1, {}, "_eval", "eval"),
        (2, {}, "", "algo-2"),
        (2, {}, "_eval", "algo-2_eval"),
        (1, {"RANK": "0", "WORLD_SIZE": "1"}, "", ""),
        (1, {"RANK": "3", "LOCAL_RANK": "3", "WORLD_SIZE": "8"}, "", "algo-2-rank-3"),
        (2, {"RANK": "9", "LOCAL_RANK": "1", "WORLD_SIZE": "16"}, "_x", "algo-2-rank-9_x"),
        (2, {"OMPI_COMM_WORLD_RANK": "9", "OMPI_COMM_WORLD_SIZE": "16"}, "", "algo-2-rank-9"),
    ],
)
def test_every_process_has_a_run_of_its_own(tree, run_job, hosts, variables, comment, run):
    tree.write_hosts(current="algo-2", count=hosts)
    tree.write_tensorboard()
    folder, _ = run_job(None, comment, **variables)
    assert Path(folder) == tree.local_path / run


def test_a_process_that_was_not_told_the_job_finds_it_in_the_files(tree, tmp_path):
    tree.write_tensorboard()
    done = subprocess.run(
        [sys.executable, "-c", "from sm_tblog.sagemaker import *; print(training_job().name)"],
        env=clean_environment(tmp_path, SAGEMAKER_BASE_DIR=str(tree.base)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == JOB


def test_all_processes_of_a_host_say_it_and_one_of_them_warns(tree, run_job):
    _, first = run_job(RANK="8", LOCAL_RANK="0", WORLD_SIZE="16")
    _, second = run_job(RANK="9", LOCAL_RANK="1", WORLD_SIZE="16")
    assert first.startswith("WARNING")
    assert second.startswith("INFO")


OUTSIDE = """
import sys
opened = []
sys.addaudithook(lambda event, args: event == "open" and opened.append(str(args[0])))
from sm_tblog import Writer
writer = Writer()
assert not [name for name in sys.modules if name.startswith("sm_tblog.sagemaker")]
assert not [path for path in opened if path.startswith("/opt/ml")]
print(writer.log_dir)
"""


def test_outside_of_a_job_nothing_changes_and_nothing_is_imported(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", OUTSIDE],
        cwd=tmp_path,
        env=clean_environment(tmp_path, SAGEMAKER_BASE_DIR=str(tmp_path / "none")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("runs")


@pytest.mark.parametrize("arguments", [(), ("runs/never",)])
def test_a_writer_that_is_not_enabled_says_nothing(in_job, caplog, arguments):
    caplog.set_level(logging.INFO)
    Writer(*arguments, enabled=False)
    assert caplog.messages == []


# Information from the container.


def test_what_the_files_say(in_job):
    in_job.write_hosts(current="algo-2", count=2)
    in_job.write_tensorboard()
    folder = in_job.write_checkpoints()
    job = training_job()
    assert job == environment.TrainingJob(
        name=JOB,
        base=in_job.base,
        region="us-east-1",
        host="algo-2",
        hosts=("algo-1", "algo-2"),
        has_config=True,
        local_path=in_job.local_path,
        s3_output_path=S3_OUTPUT_PATH,
        checkpoint_path=folder,
        is_tuning=False,
        is_local_mode=False,
        warnings=(),
    )


def test_without_a_local_path_it_is_the_services_own(in_job):
    in_job.write_tensorboard(LocalPath=None)
    assert training_job().local_path == in_job.base / "output" / "tensorboard"


def test_outside_of_a_job_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("TRAINING_JOB_NAME", JOB)
    assert training_job() is None
    with pytest.raises(InvalidValueError, match="not a SageMaker training job"):
        s3_logdir()


@pytest.fixture(scope="module")
def a_tree(tmp_path_factory):
    return Tree(tmp_path_factory.mktemp("ml"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
NAMES = ("LocalPath", "S3OutputPath", "current_host", "hosts", "current_instance_type")


@given(content=st.dictionaries(st.sampled_from(NAMES), json_values))
def test_whatever_the_files_hold_a_folder_is_found(a_tree, content):
    for name in ("tensorboardoutputconfig", "resourceconfig", "checkpointconfig"):
        a_tree.write(name, content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logdir, "_logged", set())
        patch.setenv("SAGEMAKER_BASE_DIR", str(a_tree.base))
        found = logdir.default_logdir()
        assert found
        logdir.report_logdir(found, is_given=False)


# Uploads directly to S3.


def test_a_job_can_upload_by_itself_to_where_the_config_says(in_job):
    in_job.write_tensorboard()
    assert s3_logdir() == S3_OUTPUT_PATH
    in_job.write_hosts(current="algo-2", count=2)
    assert s3_logdir(comment="_eval") == f"{S3_OUTPUT_PATH}/algo-2_eval"


def test_a_job_without_a_config_can_upload_to_a_folder_of_its_own(in_job):
    assert s3_logdir("s3://bucket/tuning/") == f"s3://bucket/tuning/{JOB}/tensorboard-output"
    with pytest.raises(InvalidValueError, match=r"s3_logdir\('s3://bucket/folder'\)"):
        s3_logdir()


def test_a_process_that_does_not_know_the_job_is_told(in_job, monkeypatch):
    monkeypatch.delenv("TRAINING_JOB_NAME")
    with pytest.raises(InvalidValueError, match="TRAINING_JOB_NAME"):
        s3_logdir("s3://bucket/tuning")


ACCESS_POINT = "arn:aws:s3:us-west-2:123456789012:accesspoint/mine"


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("s3://bucket", "s3://bucket"),
        ("https://bucket.s3.us-east-1.amazonaws.com/a/b", "s3://bucket/a/b"),
        ("https://bucket.s3.amazonaws.com/a/", "s3://bucket/a"),
        ("https://my.bucket.s3-eu-west-1.amazonaws.com", "s3://my.bucket"),
        ("https://s3.eu-west-1.amazonaws.com/bucket/a", "s3://bucket/a"),
        ("https://s3.cn-north-1.amazonaws.com.cn/bucket/a", "s3://bucket/a"),
        ("https://s3-mine.s3.amazonaws.com/a", "s3://s3-mine/a"),
        (
            "https://logs--usw2-az1--x-s3.s3express-usw2-az1.us-west-2.amazonaws.com/a",
            "s3://logs--usw2-az1--x-s3/a",
        ),
        (f"s3://{ACCESS_POINT}/a", f"s3://{ACCESS_POINT}/a"),
        (
            "https://mine-123456789012.s3-accesspoint.us-west-2.amazonaws.com/a",
            f"s3://{ACCESS_POINT}/a",
        ),
        (
            "https://mine-123456789012.s3-accesspoint.dualstack.us-gov-west-1.amazonaws.com/",
            "s3://arn:aws-us-gov:s3:us-gov-west-1:123456789012:accesspoint/mine",
        ),
    ],
)
def test_the_forms_of_an_s3_path(path, url):
    assert logdir.as_s3_url(path) == url


@pytest.mark.parametrize("path", ["", "s3://", "bucket/a", "/opt/ml", "https://example.com/a"])
def test_what_is_no_s3_path_is_refused(path):
    with pytest.raises(InvalidValueError, match="s3://bucket/folder"):
        logdir.as_s3_url(path)
    with pytest.raises(InvalidTypeError):
        logdir.as_s3_url(Path("s3://bucket"))


DIRECT = """
from sm_tblog import Writer
from sm_tblog.sagemaker import s3_logdir
for writer in (Writer(s3_logdir(), flush_secs=0.1), Writer()):
    with writer:
        writer.add_scalar("loss", 0.5, 0)
"""


def test_what_a_job_uploads_by_itself_lands_beside_what_sagemaker_uploads(
    tree, tmp_path, moto_server, event_files
):
    pytest.importorskip("botocore")
    tree.write_tensorboard()
    client = moto_server.make_bucket(BUCKET)
    access = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    variables = tree.environment(AWS_ENDPOINT_URL=moto_server.url, **access)
    subprocess.run(
        [sys.executable, "-c", DIRECT], env=clean_environment(tmp_path, **variables), check=True
    )
    prefix = S3_OUTPUT_PATH.removeprefix(f"s3://{BUCKET}/")
    found = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]
    (local,) = event_files(tree.local_path)
    (remote,) = (entry["Key"] for entry in found)
    assert remote.startswith(f"{prefix}/events.out.tfevents.")
    assert not remote.endswith(local.name)  # each file is uploaded once, by one of the two


# Restarts after an interruption.

LIFE = """
import json, os, signal, sys
from pathlib import Path
from sm_tblog import Writer
from sm_tblog.sagemaker import training_job

life, ends_at = int(sys.argv[1]), int(sys.argv[2])
saved = training_job().checkpoint_path / "step.json"
step = json.loads(saved.read_text()) if saved.exists() else 0
writer = Writer(resume=step)
while step < 100:
    writer.add_scalar("loss", life + step / 1000, step)
    writer.add_text("note", f"life {life}", step) if step % 20 == 0 else None
    step += 1
    if step % 25 == 0:
        saved.write_text(json.dumps(step))
    if step == ends_at:
        writer.flush()
        os.kill(os.getpid(), signal.SIGKILL)
writer.close()
"""


def test_a_job_that_was_interrupted_twice_has_one_curve(
    tree, tmp_path, read_scalars, event_files, monkeypatch
):
    bucket = tmp_path / "bucket"
    tree.write_tensorboard()
    tree.write_checkpoints()
    for life, (ends_at, code) in enumerate([(60, -9), (80, -9), (-1, 0)], 1):
        done = subprocess.run(
            [sys.executable, "-c", LIFE, str(life), str(ends_at)],
            env=clean_environment(tmp_path, **tree.environment()),
            check=False,
        )
        assert done.returncode == code
        # Uploaded logs stay. A new container has the checkpoints and nothing else.
        shutil.copytree(tree.local_path, bucket, dirs_exist_ok=True)
        shutil.rmtree(tree.local_path)
    assert len(event_files(bucket)) == 3
    curve = read_scalars(bucket)[""]["loss"]
    assert [step for step, _ in curve] == list(range(100))
    lives = [int(value) for _, value in curve]
    assert lives == [1] * 50 + [2] * 25 + [3] * 25
