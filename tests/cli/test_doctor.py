"""``sm-tblog doctor`` and ``sm-tblog open``, run against real processes and servers.

Each command runs in a separate process, with a tree of files that stands in for ``/opt/ml`` and
moto for AWS.
"""

import os
import re
import subprocess
import sys

import pytest
from s3_servers import KEY, SECRET
from sagemaker_tree import BUCKET, JOB, S3_OUTPUT_PATH, Tree, clean_environment

pytest.importorskip("typer")
pytest.importorskip("botocore", reason="needs botocore: pip install 'sm-tblog[s3]'")

TOKEN = "a-session-token-that-nobody-may-see"
WITHOUT_NETWORK = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("asks the network")
socket.socket.connect = socket.getaddrinfo = refuse
from sm_tblog.cli import main
main()
"""


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path / "ml")


@pytest.fixture
def command(tmp_path):
    """``command(*arguments, **variables)``: run ``sm-tblog`` on a laptop."""

    def run(*arguments, network=True, **variables):
        program = ["-m", "sm_tblog"] if network else ["-c", WITHOUT_NETWORK]
        base = {"SAGEMAKER_BASE_DIR": str(tmp_path / "none"), "TERM": "dumb"}
        (tmp_path / "work").mkdir(exist_ok=True)
        return subprocess.run(
            [sys.executable, *program, *arguments],
            cwd=tmp_path / "work",
            env=clean_environment(tmp_path, **{**base, **variables}),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
def doctor(command):
    """``doctor(*arguments, code=0, **variables)``: the lines that it prints."""

    def run(*arguments, code=0, **variables):
        done = command("doctor", *arguments, **variables)
        assert done.stderr == ""
        assert done.returncode == code, done.stdout
        return done.stdout

    return run


@pytest.fixture
def aws(moto_server):
    """What makes moto's server AWS, with a bucket, for a process."""
    moto_server.make_bucket(BUCKET)
    return {
        "AWS_ENDPOINT_URL": moto_server.url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }


def line(said, word, level=""):
    """Return the one line that has a word, and check its level."""
    (found,) = [text for text in said.splitlines() if word in text]
    assert found.strip().startswith(level)
    return found


# A laptop.


def test_a_laptop_asks_no_server_and_nothing_is_wrong(doctor):
    said = doctor(network=False)
    line(said, "neither a SageMaker training job nor Studio", "note")
    line(said, "Writer() logs to runs/", "note")
    line(said, "the log directory is writable", "ok")
    line(said, "no credentials in the environment or in files; no servers were queried", "note")
    line(said, "no bucket given, so none was checked", "note")
    line(said, "sm-tblog doctor --job NAME")
    assert said.rstrip().endswith("No problems found.")


def test_versions_of_what_matters_are_told(doctor):
    import numpy as np

    said = doctor()
    assert f"numpy {np.__version__}" in line(said, "dependencies", "note")
    assert "protobuf" in line(said, "dependencies")
    assert "tensorboard " in line(said, "viewers", "note")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_a_problem(doctor, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    said = doctor(str(tmp_path / "closed"), code=1)
    line(said, "the log directory is not writable", "problem")


def test_a_file_in_the_way_of_the_folder_is_a_problem(doctor, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    said = doctor(str(tmp_path / "file" / "runs"), code=1)
    line(said, "the log directory is not writable", "problem")
    assert said.rstrip().endswith("1 problem")


def test_what_is_left_behind_in_the_spool_is_said(doctor, tmp_path):
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "x.spool").write_bytes(b"12345")
    said = doctor(SM_TBLOG_SPOOL=str(tmp_path / "spool"))
    line(said, "1 file (5 bytes) waiting to be uploaded", "warning")
    line(said, "sm-tblog upload")
    assert said.rstrip().endswith("1 warning")


@pytest.mark.parametrize("source", ["env", "file"])
def test_credentials_are_told_by_their_source_and_never_by_their_value(doctor, tmp_path, source):
    secrets = {
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY",
        "AWS_SESSION_TOKEN": TOKEN,
    }
    if source == "env":
        said = doctor(network=False, **secrets)
        line(said, "credentials from environment variables", "ok")
    else:
        (tmp_path / ".aws").mkdir()
        text = "\n".join(f"{name.lower()} = {value}" for name, value in secrets.items())
        (tmp_path / ".aws" / "credentials").write_text(f"[work]\n{text}\n", encoding="utf-8")
        said = doctor(network=False, AWS_PROFILE="work", AWS_REGION="eu-west-1")
        line(said, "credentials from the shared credentials file", "ok")
        assert "AWS_PROFILE" in line(said, "set in the environment", "note")
        line(said, "region eu-west-1", "ok")
    for secret in secrets.values():
        assert secret not in said


def test_a_profile_that_does_not_exist_is_a_problem(doctor):
    said = doctor(code=1, AWS_PROFILE="nobody")
    assert "nobody" in line(said, "credentials cannot be loaded", "problem")


# A bucket.


def test_a_bucket_is_written_read_and_left_as_it_was(doctor, aws, moto_server):
    said = doctor(f"s3://{BUCKET}/mine", **aws)
    line(said, f"s3://{BUCKET}/mine is writable; a write took", "ok")
    line(said, "reading back returned the same content", "ok")
    assert "arn:aws:sts::" in line(said, "identity", "ok")
    assert "AWS_ENDPOINT_URL" in line(said, "set in the environment", "note")
    assert moto_server.url not in said  # which may hold a password
    client = moto_server.client()
    assert "Contents" not in client.list_objects_v2(Bucket=BUCKET, Prefix="mine")
    assert "Uploads" not in client.list_multipart_uploads(Bucket=BUCKET)
    assert SECRET not in said


def test_a_bucket_that_keeps_versions_is_said_to_cost_more(doctor, aws, moto_server):
    client = moto_server.make_bucket("versioned")
    client.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    line(doctor("s3://versioned/mine", **aws), "the bucket has versioning enabled", "note")


def test_no_bucket_is_ever_made(doctor, aws, moto_server):
    said = doctor("s3://there-is-none/x", code=1, **aws)
    assert "there is no such bucket" in line(said, "writing failed", "problem")
    names = {bucket["Name"] for bucket in moto_server.client().list_buckets()["Buckets"]}
    assert "there-is-none" not in names


def test_a_refusal_says_what_to_allow(doctor, aws, moto_server, fault_proxies):
    proxy = fault_proxies(moto_server)
    proxy.fail("PutObject", "403")
    said = doctor(f"s3://{BUCKET}/mine", code=1, **{**aws, "AWS_ENDPOINT_URL_S3": proxy.url})
    assert "AccessDenied" in line(said, "writing failed", "problem")
    assert "s3:PutObject" in line(said, f"arn:aws:s3:::{BUCKET}/mine/*")


@pytest.mark.parametrize(
    ("operation", "level", "word"),
    [
        ("GetObject", "warning", "reading back failed"),
        ("CreateMultipartUpload", "warning", "aborting a multipart upload failed"),
    ],
)
def test_a_permission_that_helps_is_missed(
    doctor, aws, moto_server, fault_proxies, operation, level, word
):
    proxy = fault_proxies(moto_server)
    proxy.fail(operation, "403")
    said = doctor(f"s3://{BUCKET}/mine", **{**aws, "AWS_ENDPOINT_URL_S3": proxy.url})
    line(said, word, level)
    assert said.rstrip().endswith("1 warning")


def test_a_server_that_is_not_there_is_given_up(doctor, aws):
    variables = {**aws, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    said = doctor(f"s3://{BUCKET}/mine", "--timeout", "1", code=1, **variables)
    assert "cannot be reached" in line(said, "writing failed", "problem")
    line(said, "identity unknown", "note")


def test_without_credentials_a_bucket_is_a_problem(doctor):
    said = doctor(f"s3://{BUCKET}/mine", "--timeout", "1", code=1)
    line(said, "Set AWS_PROFILE, run aws sso login")
    assert "there are no credentials" in line(said, "writing failed", "problem")
    assert said.rstrip().endswith("2 problems")


def test_the_network_can_be_left_alone(doctor, aws):
    said = doctor(f"s3://{BUCKET}/mine", "--no-network", network=False, **aws)
    assert "Bucket" not in said


def test_another_store_is_written_and_read_as_well(doctor):
    said = doctor("memory://here/run")
    line(said, "memory://here/run is writable", "ok")


# A training job.


def test_a_healthy_job(doctor, tree, aws):
    tree.write_hosts(current="algo-2", count=2)
    tree.write_tensorboard()
    tree.write_checkpoints()
    ranks = {"RANK": "9", "LOCAL_RANK": "1", "WORLD_SIZE": "16"}
    said = doctor(**{**aws, **tree.environment(), **ranks})
    line(said, f"SageMaker training job: {JOB}", "ok")
    line(said, "host algo-2 of algo-1, algo-2", "note")
    line(said, "rank 9 of 16, local rank 1", "note")
    where = line(said, "which SageMaker uploads to", "ok")
    assert f"{tree.local_path}/algo-2-rank-9" in where
    line(said, "checkpoints in", "ok")
    line(said, f"{S3_OUTPUT_PATH} is writable", "ok")
    line(said, f"the app lists this job: sm-tblog open {JOB}", "ok")
    line(said, "sagemaker:CreateApp", "note")
    assert said.rstrip().endswith("No problems found.")


def test_a_job_without_a_config_is_warned(doctor, tree):
    said = doctor(network=False, **tree.environment())
    line(said, "at the end of the job", "warning")
    line(said, "the app does not list this job", "warning")
    line(said, "In the launcher: sm_tblog.sagemaker.TensorBoardOutputConfig(")
    line(said, "the job saves no checkpoints", "note")
    assert said.rstrip().endswith("2 warnings")


def test_jobs_that_the_app_does_not_list(doctor, tree):
    tree.write("hyperparameters", {"_tuning_objective_metric": "loss"})
    said = doctor(network=False, **tree.environment())
    line(said, "SageMaker training job of a hyperparameter tuning job", "ok")
    line(said, "the app does not list jobs of a hyperparameter tuning job", "warning")
    tree.write_hosts(instance="local")
    said = doctor(network=False, **tree.environment())
    line(said, "tuning job, in local mode", "ok")
    line(said, "the app does not list local-mode jobs", "note")


def test_a_region_without_the_app_is_a_warning(doctor, tree):
    tree.write_tensorboard()
    variables = tree.environment(AWS_REGION="sa-east-1")
    said = doctor("--no-network", network=False, **variables)
    line(said, "the app is not known to be available in sa-east-1", "warning")


def test_damaged_files_and_a_spool_in_the_uploaded_folder_are_warned_of(doctor, tree):
    tree.write_tensorboard()
    tree.write("resourceconfig", "{")
    variables = tree.environment(SM_TBLOG_SPOOL=str(tree.local_path / "spool"))
    said = doctor("--no-network", network=False, **variables)
    line(said, "resourceconfig.json cannot be read", "warning")
    line(said, "all processes log to the same run", "warning")
    line(said, "is inside the directory that SageMaker uploads", "warning")


def test_sagemaker_is_asked_about_a_job_that_is_named(doctor, aws, moto_server):
    import botocore.session

    client = botocore.session.Session().create_client(
        "sagemaker",
        region_name="us-east-1",
        endpoint_url=moto_server.url,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
    )
    for name, more in (
        ("seen", {"TensorBoardOutputConfig": {"S3OutputPath": "s3://my-bucket/logs/"}}),
        ("unseen", {}),
    ):
        client.create_training_job(
            TrainingJobName=name,
            RoleArn="arn:aws:iam::123456789012:role/SageMakerRole",
            AlgorithmSpecification={"TrainingImage": "image", "TrainingInputMode": "File"},
            OutputDataConfig={"S3OutputPath": "s3://my-bucket/out"},
            ResourceConfig={
                "InstanceType": "ml.m5.large",
                "InstanceCount": 1,
                "VolumeSizeInGB": 30,
            },
            StoppingCondition={"MaxRuntimeInSeconds": 60},
            **more,
        )
    said = doctor("--job", "seen", **aws)
    assert "tensor-board-landing/seen" in line(said, "the app lists seen", "ok")
    line(said, "its logs are in s3://my-bucket/logs/seen/tensorboard-output", "note")
    line(doctor("--job", "unseen", **aws), "the app does not list unseen", "warning")
    line(doctor("--job", "nobody", code=1, **aws), "cannot describe job nobody", "problem")
    line(doctor("--job", "a/b", code=1, **aws), "not a valid name of a training job", "problem")


def test_studio_is_known(doctor, tree):
    (tree.base / "input" / "config" / "resourceconfig.json").unlink()
    (tree.base / "metadata").mkdir()
    (tree.base / "metadata" / "resource-metadata.json").write_text(
        '{"DomainId": "d-abc", "UserProfileName": "alice"}', encoding="utf-8"
    )
    said = doctor(network=False, SAGEMAKER_BASE_DIR=str(tree.base))
    line(said, "SageMaker Studio: alice in d-abc", "ok")


# How it looks.


def test_colours_are_a_terminals_alone(doctor):
    assert "\x1b" not in doctor(network=False)
    said = doctor(network=False, FORCE_COLOR="1", TERM="xterm-256color", COLUMNS="60")
    assert "\x1b[32m" in said
    plain = re.sub(r"\x1b\[[0-9;]*m", "", said).splitlines()
    assert all(len(text) <= 60 for text in plain if len(text.split()) > 1)  # a path stays whole
    assert doctor(network=False, NO_COLOR="1", TERM="xterm").count("\x1b[3") == 0


# sm-tblog open.


def test_the_address_is_printed_and_opened(command, tmp_path):
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n', encoding="utf-8")
    browser.chmod(0o755)
    done = command("open", "my-job", "--region", "eu-west-1", BROWSER=f"{browser} %s")
    assert done.returncode == 0
    address = "https://eu-west-1.console.aws.amazon.com/sagemaker/home?region=eu-west-1"
    assert done.stdout.strip() == f"{address}#/tensor-board-landing/my-job"
    assert opened.read_text(encoding="utf-8") == done.stdout


def test_the_browser_can_be_left_alone(command, tmp_path):
    done = command("open", "--no-browser", AWS_REGION="eu-west-1", BROWSER="/no/such/program")
    assert done.stdout.strip().endswith("#/tensor-board-landing")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["s3://bucket/my-job"], "not the location of its logs"),
        (["my-job", "--presign"], "--domain-id and --user-profile"),
    ],
)
def test_what_cannot_be_opened_is_said_in_one_line(command, arguments, word):
    done = command("open", *arguments, AWS_REGION="eu-west-1")
    assert done.returncode == 1
    assert word in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_presigned_address_goes_to_the_browser_alone(monkeypatch):
    from typer.testing import CliRunner

    from sm_tblog.cli import make_app
    from sm_tblog.cli import open as command

    monkeypatch.setattr(command, "open_tensorboard", lambda *_, **options: f"https://{TOKEN}")
    run = CliRunner().invoke
    assert run(make_app(), ["open", "my-job", "--presign"]).output == ""
    assert TOKEN in run(make_app(), ["open", "my-job", "--presign", "--no-browser"]).output
