"""A job's TensorBoardOutputConfig, and the URL of the hosted app.

Results are validated against the API's own model, which is part of botocore, and against the
classes of SageMaker's SDKs if one is installed. No test sends a request to a server.
"""

import base64
import json
import logging
import os
import sys
import webbrowser
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sagemaker_tree import JOB, Tree, clean_environment

from sm_tblog import InvalidTypeError, InvalidValueError, MissingDependencyError, TBLogError
from sm_tblog.sagemaker import (
    TensorBoardOutputConfig,
    app,
    config,
    open_tensorboard,
    tensorboard_url,
)

PATH = "s3://my-bucket/logs"


@pytest.fixture(scope="module")
def api():
    """The model of SageMaker's API."""
    pytest.importorskip("botocore", reason="needs botocore: pip install 'sm-tblog[s3]'")
    import botocore.session

    return botocore.session.Session().get_service_model("sagemaker")


def problems(api, operation, request):
    """Return botocore's validation report of a request."""
    from botocore.validate import ParamValidator

    return ParamValidator().validate(request, api.operation_model(operation).input_shape)


@pytest.fixture(autouse=True)
def outside(monkeypatch, tmp_path):
    """Run outside a job and outside Studio, without an AWS configuration."""
    kept = clean_environment(tmp_path)
    for name in set(os.environ) - set(kept):
        monkeypatch.delenv(name)
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path / "ml"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(webbrowser, "open", lambda url: pytest.fail("opens a browser"))


# The configuration.


def training_job_request(tensorboard):
    return {
        "TrainingJobName": JOB,
        "RoleArn": "arn:aws:iam::123456789012:role/SageMakerRole",
        "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
        "OutputDataConfig": {"S3OutputPath": "s3://my-bucket/out"},
        "ResourceConfig": {
            "InstanceType": "ml.g5.xlarge",
            "InstanceCount": 1,
            "VolumeSizeInGB": 30,
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        "TensorBoardOutputConfig": tensorboard,
    }


def test_the_api_takes_the_configuration(api):
    made = TensorBoardOutputConfig(PATH).for_boto3()
    assert made == {"S3OutputPath": PATH, "LocalPath": "/opt/ml/output/tensorboard"}
    assert not problems(api, "CreateTrainingJob", training_job_request(made)).has_errors()


def test_the_api_would_not_take_what_is_refused_here(api):
    report = problems(api, "CreateTrainingJob", training_job_request({"LocalPath": "/x"}))
    assert "S3OutputPath" in report.generate_report()


def test_the_limits_are_the_apis(api):
    shape = api.operation_model("CreateTrainingJob").input_shape.members["TensorBoardOutputConfig"]
    s3_path = shape.members["S3OutputPath"].metadata
    assert s3_path["pattern"] == config.PATTERN.pattern
    assert s3_path["max"] == config.MAX_S3_LENGTH
    assert shape.members["LocalPath"].metadata["max"] == config.MAX_LOCAL_LENGTH
    job = api.operation_model("CreateTrainingJob").input_shape.members["TrainingJobName"]
    assert job.metadata["pattern"] == app.JOB.pattern


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("", "missing"),
        ("my-bucket/logs", "s3://bucket/folder"),
        ("s3://", "s3://bucket/folder"),
        ("s3:///logs", "s3://bucket/folder"),
        ("http://bucket/logs", "s3://bucket/folder"),
        ("s3://bucket/" + "x" * 1013, "1,025 characters"),
    ],
)
def test_an_s3_path_that_sagemaker_does_not_take_is_refused(path, word):
    with pytest.raises(InvalidValueError, match=word) as caught:
        TensorBoardOutputConfig(path)
    assert "s3_output_path" in str(caught.value)


def test_the_longest_paths_are_taken():
    s3_path, local_path = "s3://bucket/" + "x" * 1012, "/" + "x" * 4095
    assert TensorBoardOutputConfig(s3_path, local_path).local_path == local_path
    with pytest.raises(InvalidValueError, match="4,097 characters"):
        TensorBoardOutputConfig(s3_path, local_path + "x")


@pytest.mark.parametrize("path", ["/opt/ml/checkpoints", "/tmp", "/usr/local/nvidia"])
@pytest.mark.parametrize("more", ["", "/", "/logs", "/../" + "{name}"])
def test_reserved_folders_are_refused(path, more):
    path += more.format(name=path.rsplit("/", 1)[1])
    with pytest.raises(InvalidValueError, match="reserved"):
        TensorBoardOutputConfig(PATH, path)


@pytest.mark.parametrize("path", ["", "logs", "s3://bucket", "./opt/ml/output"])
def test_a_local_path_is_absolute(path):
    with pytest.raises(InvalidValueError, match="absolute"):
        TensorBoardOutputConfig(PATH, path)


@pytest.mark.parametrize("path", ["/opt/ml/output/tensorboard", "/tmpfs", "/opt/ml/checkpoints2"])
def test_what_only_looks_reserved_is_taken(path):
    assert TensorBoardOutputConfig(PATH, path).for_boto3()["LocalPath"] == path


@pytest.mark.parametrize("arguments", [(None,), (b"s3://bucket",), (PATH, None), (PATH, 3)])
def test_paths_are_texts(arguments):
    with pytest.raises(InvalidTypeError, match=r"_path must be a str"):
        TensorBoardOutputConfig(*arguments)


@given(st.text(), st.text())
def test_whatever_the_paths_the_api_or_an_error_of_ours(s3_path, local_path):
    try:
        made = TensorBoardOutputConfig(s3_path, local_path).for_boto3()
    except InvalidValueError:
        return
    assert config.PATTERN.fullmatch(made["S3OutputPath"])
    assert made["LocalPath"].startswith("/")


def test_the_object_for_sdk_v2_makes_the_same_request():
    debugger = pytest.importorskip("sagemaker.debugger", reason="needs SageMaker's SDK v2")
    ours = TensorBoardOutputConfig(PATH, "/opt/ml/output/logs")
    made = ours.for_sdk_v2()
    assert type(made) is debugger.TensorBoardOutputConfig
    assert made._to_request_dict() == ours.for_boto3()


def test_the_object_for_sdk_v3_is_of_its_class():
    configs = pytest.importorskip(
        "sagemaker.core.training.configs", reason="needs SageMaker's SDK v3"
    )
    made = TensorBoardOutputConfig(PATH, "/opt/ml/output/logs").for_sdk_v3()
    assert type(made) is configs.TensorBoardOutputConfig
    assert (made.s3_output_path, made.local_path) == (PATH, "/opt/ml/output/logs")


@pytest.mark.parametrize("version", [2, 3])
def test_without_an_sdk_it_is_said_what_to_install(version, monkeypatch):
    for name in ("sagemaker", "sagemaker.debugger", "sagemaker.core.training"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=rf"pip install 'sagemaker>={version}"):
        getattr(TensorBoardOutputConfig(PATH), f"for_sdk_v{version}")()


# The URL.

CONSOLE = "https://eu-west-1.console.aws.amazon.com/sagemaker/home?region=eu-west-1"
ADD = "data/plugin/sagemaker_data_manager/add_folder_or_job?Redirect=True&Name="


@pytest.fixture
def studio(tmp_path):
    """Run in Studio."""
    folder = Tree(tmp_path / "ml").base / "metadata"
    folder.mkdir()
    (folder / "resource-metadata.json").write_text(
        json.dumps(
            {
                "AppType": "JupyterLab",
                "DomainId": "d-abcdefgh1234",
                "UserProfileName": "alice",
                "ResourceArn": "arn:aws:sagemaker:us-west-2:123456789012:app/x",
            }
        ),
        encoding="utf-8",
    )


def test_anywhere_it_is_the_consoles_page(monkeypatch):
    assert (
        tensorboard_url("my-job", region="eu-west-1") == f"{CONSOLE}#/tensor-board-landing/my-job"
    )
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert tensorboard_url() == f"{CONSOLE}#/tensor-board-landing"


def test_in_studio_it_is_the_domains_app(studio):
    tensorboard = "https://d-abcdefgh1234.studio.us-west-2.sagemaker.aws/tensorboard/default/"
    assert tensorboard_url("my-job") == f"{tensorboard}{ADD}my-job"
    assert tensorboard_url() == f"{tensorboard}#sagemaker_data_manager"


def test_an_arn_tells_the_region():
    arn = "arn:aws:sagemaker:eu-west-1:123456789012:training-job/my-job"
    assert tensorboard_url(arn) == f"{CONSOLE}#/tensor-board-landing/my-job"


def test_the_region_is_the_configurations(tmp_path):
    pytest.importorskip("botocore")
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text("[default]\nregion = eu-west-1\n", encoding="utf-8")
    assert tensorboard_url() == f"{CONSOLE}#/tensor-board-landing"


def test_without_a_region_it_is_said_how_to_name_one():
    with pytest.raises(InvalidValueError, match="AWS_REGION"):
        tensorboard_url("my-job")


def test_a_region_without_the_app_is_said(caplog):
    assert "ap-south-1" in tensorboard_url("my-job", region="ap-south-1")
    (message,) = caplog.messages
    assert "us-east-1" in message
    assert "not in ap-south-1" in message


@pytest.mark.parametrize("name", ["", "-x", "x-", "a_b", "a/b", "x" * 64, "s3://bucket/my-job"])
def test_what_is_no_jobs_name_is_refused(name):
    with pytest.raises(InvalidValueError, match="not a valid name of a training job") as caught:
        tensorboard_url(name, region="eu-west-1")
    assert ("not the location of its logs" in str(caught.value)) is ("://" in name)
    with pytest.raises(InvalidTypeError):
        tensorboard_url(3, region="eu-west-1")


def test_the_browser_is_opened_unless_told_not_to(monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    url = open_tensorboard("my-job", region="eu-west-1")
    assert opened == [url]
    assert open_tensorboard("my-job", region="eu-west-1", open_browser=False) == url
    assert opened == [url]


@pytest.fixture
def stubbed(monkeypatch):
    """A botocore client that validates requests and returns responses from a list."""
    pytest.importorskip("botocore")
    import botocore.session
    from botocore.stub import Stubber

    made = botocore.session.Session().create_client(
        "sagemaker",
        region_name="eu-west-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    monkeypatch.setattr(app, "_client", lambda region: made)
    with Stubber(made) as stubber:
        yield stubber


WHO = {"domain_id": "d-abcdefgh1234", "user_profile_name": "alice", "region": "eu-west-1"}
SIGNED = "https://d-abcdefgh1234.studio.eu-west-1.sagemaker.aws/auth?token=eyJhbGciOi"


@pytest.mark.parametrize("job", ["my-job", None])
def test_a_presigned_address_leads_to_the_job(stubbed, caplog, job):
    caplog.set_level(logging.DEBUG, "sm_tblog")
    asked = {
        "DomainId": "d-abcdefgh1234",
        "UserProfileName": "alice",
        "ExpiresInSeconds": 60,
        "SessionExpirationDurationInSeconds": 3600,
    }
    stubbed.add_response("create_presigned_domain_url", {"AuthorizedUrl": SIGNED}, asked)
    url = tensorboard_url(job, presign=True, expires_in=60, session_seconds=3600, **WHO)
    query = parse_qs(urlsplit(url).query)
    assert url.startswith(SIGNED)
    assert query["redirect"] == ["TensorBoard"]
    states = [base64.b64decode(state).decode() for state in query.get("state", [])]
    assert states == ([f"/tensorboard/default/{ADD}my-job"] if job else [])
    assert caplog.messages == []  # whoever reads the log could come in


def test_the_api_takes_what_is_asked(api, stubbed, monkeypatch):
    asked = []
    monkeypatch.setattr(
        app._client("eu-west-1"),
        "create_presigned_domain_url",
        lambda **request: asked.append(request) or {"AuthorizedUrl": SIGNED},
    )
    tensorboard_url("my-job", presign=True, **WHO)
    assert not problems(api, "CreatePresignedDomainUrl", asked[0]).has_errors()


def test_studio_tells_whose_address_is_presigned(studio, stubbed):
    stubbed.add_response("create_presigned_domain_url", {"AuthorizedUrl": SIGNED})
    assert tensorboard_url("my-job", presign=True).startswith(SIGNED)


@pytest.mark.parametrize("missing", ["domain_id", "user_profile_name"])
def test_who_signs_in_is_needed(missing):
    with pytest.raises(InvalidValueError, match=missing):
        tensorboard_url("my-job", presign=True, **{**WHO, missing: None})


@pytest.mark.parametrize(
    "times", [{"expires_in": 4}, {"expires_in": 301}, {"session_seconds": 1_799}]
)
def test_times_that_the_api_does_not_take_are_refused(times):
    (name,) = times
    with pytest.raises(InvalidValueError, match=name):
        tensorboard_url("my-job", presign=True, **WHO, **times)


def test_the_times_bounds_are_the_apis(api):
    members = api.operation_model("CreatePresignedDomainUrl").input_shape.members
    assert members["ExpiresInSeconds"].metadata == {"min": 5, "max": 300}
    assert members["DomainId"].metadata["pattern"] == app.DOMAIN.pattern
    assert members["UserProfileName"].metadata["pattern"] == app.JOB.pattern
    bounds = members["SessionExpirationDurationInSeconds"].metadata
    assert bounds == {"min": 1_800, "max": 43_200}


@pytest.mark.parametrize(
    "wrong", [{"domain_id": 7}, {"domain_id": "abc"}, {"user_profile_name": "a/b"}]
)
def test_who_is_nobody_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(InvalidValueError, match=name):
        tensorboard_url("my-job", presign=True, **{**WHO, **wrong})


def test_a_refusal_says_what_it_takes_and_how_else_to_get_there(stubbed):
    stubbed.add_client_error("create_presigned_domain_url", "AccessDeniedException", "no", 403)
    with pytest.raises(TBLogError, match="sagemaker:CreatePresignedDomainUrl") as caught:
        tensorboard_url("my-job", presign=True, **WHO)
    assert "without presign" in str(caught.value)
    assert caught.value.__cause__ is not None


# The SDKs create the same URLs.


@pytest.fixture
def sdk(monkeypatch, tmp_path):
    """``sdk(job)`` returns the URL that the installed SageMaker SDK creates."""
    core = "sagemaker.core.interactive_apps"
    try:
        from importlib import import_module

        module = import_module(f"{core}.tensorboard")
        base = import_module(f"{core}.base_interactive_app")
    except ImportError:
        module = pytest.importorskip(
            "sagemaker.interactive_apps.tensorboard", reason="needs an SDK of SageMaker's"
        )
        base = import_module("sagemaker.interactive_apps.base_interactive_app")
    metadata = tmp_path / "ml" / "metadata" / "resource-metadata.json"
    monkeypatch.setattr(base, "NOTEBOOK_METADATA_FILE", str(metadata))
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    made = module.TensorBoardApp("us-west-2")
    return lambda job: made.get_app_url(job, open_in_default_web_browser=False)


@pytest.mark.parametrize("job", ["my-job", None])
def test_the_sdk_makes_the_same_address_in_the_console(sdk, job):
    assert tensorboard_url(job) == sdk(job)


@pytest.mark.parametrize("job", ["my-job", None])
def test_the_sdk_makes_the_same_address_in_studio(studio, sdk, job):
    assert tensorboard_url(job) == sdk(job)
