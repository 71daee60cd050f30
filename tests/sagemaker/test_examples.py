"""The SageMaker examples: scripts in jobs, and launchers up to their requests.

A launcher's request is validated against the API's model in botocore, and against the installed
SDK.
"""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sagemaker_tree import Tree, clean_environment

import sm_tblog

FOLDER = Path(__file__).parents[2] / "examples" / "sagemaker"
ROLE = "arn:aws:iam::123456789012:role/SageMakerRole"
EXPECTED = {"S3OutputPath": "s3://my-bucket/logs", "LocalPath": "/opt/ml/output/tensorboard"}


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def launch():
    return load("launch")


@pytest.fixture
def options(launch):
    return launch.parse_options(["--role", ROLE, "--bucket", "my-bucket", "--image", "an-image"])


# The script.

INTERRUPT = """
import os, runpy, signal, sys
from sm_tblog import Writer
add_scalar = Writer.add_scalar
def interrupted(writer, tag, *args):
    add_scalar(writer, tag, *args)
    if writer.step == 130:
        writer.flush()
        os.kill(os.getpid(), signal.SIGKILL)
Writer.add_scalar = interrupted
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_script_goes_on_after_an_interruption(tmp_path, read_scalars, event_files):
    for package in ("torch", "sklearn", "psutil"):
        pytest.importorskip(package)
    tree = Tree(tmp_path / "ml")
    tree.write_tensorboard()
    checkpoints = tree.write_checkpoints()
    bucket = tmp_path / "bucket"
    model = str(tree.base / "model")
    for program, code in ((["-c", INTERRUPT], -9), ([], 0)):
        done = subprocess.run(
            [sys.executable, *program, str(FOLDER / "train.py"), "--steps", "200"],
            cwd=tree.base / "code",
            env=clean_environment(tmp_path, **tree.environment(SM_MODEL_DIR=model)),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done.stderr
        # Uploaded logs stay. A new container has the checkpoints and nothing else.
        shutil.copytree(tree.local_path, bucket, dirs_exist_ok=True)
        shutil.rmtree(tree.local_path)
    assert [path.name for path in checkpoints.iterdir()] == ["last.pt"]
    assert (tree.base / "model" / "model.pt").exists()
    assert len([path for path in event_files(bucket) if ".hparams" not in path.name]) == 2
    curves = read_scalars(bucket)[""]
    assert [step for step, _ in curves["loss/train"]] == list(range(200))
    assert [step for step, _ in curves["accuracy/validation"]] == [49, 99, 149, 199]
    assert curves["accuracy/validation"][-1][1] > 0.9
    steps = [step for step, _ in curves["system/memory/percent"]]
    assert steps == sorted(steps)


def test_the_script_runs_on_a_laptop(tmp_path, read_scalars):
    for package in ("torch", "sklearn", "psutil"):
        pytest.importorskip(package)
    subprocess.run(
        [sys.executable, str(FOLDER / "train.py"), "--steps", "60"],
        cwd=tmp_path,
        env=clean_environment(tmp_path, SAGEMAKER_BASE_DIR=str(tmp_path / "none")),
        timeout=120,
        check=True,
    )
    (curves,) = read_scalars(tmp_path / "runs").values()
    assert len(curves["loss/train"]) == 60
    assert (tmp_path / "model" / "model.pt").exists()


# The launcher.


def test_the_request_for_boto3_is_one_that_the_api_takes(launch, options):
    pytest.importorskip("botocore")
    import botocore.session
    from botocore.validate import ParamValidator

    request = launch.make_request(options)
    model = botocore.session.Session().get_service_model("sagemaker")
    shape = model.operation_model("CreateTrainingJob").input_shape
    assert ParamValidator().validate(request, shape).generate_report() == ""
    assert request["TensorBoardOutputConfig"] == EXPECTED


@pytest.fixture
def boto_session(monkeypatch):
    boto3 = pytest.importorskip("boto3")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return boto3.Session("testing", "testing", region_name="us-east-1")


@pytest.mark.filterwarnings("ignore")  # of its own end, and of its own insides
def test_sdk_v2_sends_the_configuration(launch, options, boto_session, monkeypatch):
    pytest.importorskip("sagemaker.debugger", reason="needs SageMaker's SDK v2")
    import sagemaker
    from botocore.stub import Stubber
    from sagemaker import fw_utils
    from sagemaker.estimator import Framework

    def uploaded(*args, **kwargs):
        return fw_utils.UploadedCode("s3://my-bucket/code.tar.gz", "train.py")

    monkeypatch.setattr(Framework, "_stage_user_code_in_s3", uploaded)
    client = boto_session.client("sagemaker")
    session = sagemaker.Session(boto_session, sagemaker_client=client)
    sent = []
    client.meta.events.register(
        "provide-client-params.sagemaker.CreateTrainingJob",
        lambda params, **_: sent.append(dict(params)),
    )
    with Stubber(client) as stubber:  # which checks the request by the API's model
        stubber.add_response("create_training_job", {"TrainingJobArn": f"arn:{'x' * 20}"})
        launch.make_estimator(options, session).fit(wait=False)
    (request,) = sent
    assert request["TensorBoardOutputConfig"] == EXPECTED
    assert request["CheckpointConfig"]["S3Uri"].startswith("s3://my-bucket/checkpoints/digits-")
    assert request["EnableManagedSpotTraining"] is True


@pytest.mark.filterwarnings("ignore")  # of its own insides
def test_sdk_v3_sends_the_configuration(launch, options, boto_session, monkeypatch):
    pytest.importorskip("sagemaker.core.training.configs", reason="needs SageMaker's SDK v3")
    pytest.importorskip("sagemaker.train", reason="needs SageMaker's SDK v3")
    from botocore.validate import ParamValidator
    from sagemaker.core.helper.session_helper import Session
    from sagemaker.train import ModelTrainer, defaults

    # The SDK would check the role's permissions with IAM.
    monkeypatch.setattr(defaults.TrainDefaults, "get_role", lambda role, **_: role)
    session = Session(boto_session)
    monkeypatch.setattr(session, "default_bucket", lambda: "my-bucket")
    monkeypatch.setattr(session, "upload_data", lambda *args, **kwargs: "s3://my-bucket/code")
    trainer = launch.make_trainer(options, session, "us-east-1")
    request = trainer._create_training_job_args(boto3=True)
    assert isinstance(trainer, ModelTrainer)
    assert request["TensorBoardOutputConfig"] == EXPECTED
    shape = boto_session.client("sagemaker").meta.service_model.operation_model("CreateTrainingJob")
    assert ParamValidator().validate(request, shape.input_shape).generate_report() == ""


# The index of many runs, in a Processing job.


def test_the_request_of_the_processing_job_is_one_that_the_api_takes():
    pytest.importorskip("botocore")
    import botocore.session
    from botocore.validate import ParamValidator

    index = load("index")
    arguments = ["--logdir", "s3://my-bucket/logs", "--to", "s3://my-bucket/index"]
    arguments += ["--role", ROLE, "--image", "an-image", "--instances", "8"]
    request = index.make_request(index.parse_options(arguments))
    model = botocore.session.Session().get_service_model("sagemaker")
    shape = model.operation_model("CreateProcessingJob").input_shape
    assert ParamValidator().validate(request, shape).generate_report() == ""
    entrypoint = request["AppSpecification"]["ContainerEntrypoint"]
    assert entrypoint[2:] == arguments[:4]


def test_the_instances_of_a_processing_job_read_all_runs(tmp_path, capsys):
    pytest.importorskip("pyarrow")
    for name in "abcd":
        with sm_tblog.Writer(tmp_path / "runs" / name) as writer:
            writer.add_scalar("loss", 1.0, 0)
    script = (FOLDER / "index.py").read_text(encoding="utf-8")
    path = tmp_path / "resourceconfig.json"
    script = script.replace("/opt/ml/config/resourceconfig.json", path.as_posix())
    (tmp_path / "index.py").write_text(script, encoding="utf-8")
    hosts = ["algo-1", "algo-2"]
    for number, host in enumerate(hosts, 1):
        path.write_text(json.dumps({"current_host": host, "hosts": hosts[::-1]}))
        done = subprocess.run(
            [sys.executable, "index.py", "--logdir", "runs"],
            cwd=tmp_path,
            env=clean_environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"shard {number} of 2: 0 runs could not be read\n"
    reports = []
    index = sm_tblog.index(tmp_path / "runs", progress=lambda *numbers: reports.append(numbers))
    assert (len(index), reports) == (4, [])
