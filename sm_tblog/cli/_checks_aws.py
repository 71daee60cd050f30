"""What ``sm-tblog doctor`` looks at that concerns AWS: credentials, bucket, the hosted app.

Credentials are told by where they come from, never by what they are. A server is asked only about
what the user has named, or the job itself uploads to, and with a timeout.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sm_tblog import MissingDependencyError, StoreError, TBLogError
from sm_tblog.cli._checks import Finding, version_of
from sm_tblog.sagemaker import app, tensorboard_url, training_job
from sm_tblog.storage.base import scheme_of
from sm_tblog.storage.object_store import S3_SCHEMES, open_folder
from sm_tblog.storage.s3_bucket import DENIED, code_of
from sm_tblog.storage.s3_options import bucket_and_prefix

if TYPE_CHECKING:
    from sm_tblog.sagemaker import TrainingJob

__all__ = ["check_app", "check_bucket", "check_credentials"]

NAME = "sm-tblog-doctor.txt"
TEXT = b"Written, read and removed by sm-tblog doctor.\n"

SOURCES = {
    "assume-role": "a role that the profile assumes",
    "assume-role-with-web-identity": "a role assumed with a web identity",
    "config-file": "the configuration file",
    "container-role": "the container's role",
    "custom-process": "a process that the profile names",
    "env": "variables of the environment",
    "iam-role": "the instance's role",
    "login": "a login of the AWS command line",
    "shared-credentials-file": "the shared credentials file",
    "sso": "IAM Identity Center",
}
"""By botocore's names of the methods."""

VARIABLES = (
    *("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"),
    *("AWS_ENDPOINT_URL_S3", "S3_ENDPOINT", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"),
)
"""That hold no secret, and change where requests go. A URL may hold one, and is not shown."""

APP_ACTIONS = (
    "sagemaker:CreateApp, DeleteApp, DescribeTrainingJob, Search; s3:GetObject, ListBucket"
)


def check_credentials(*, ask: bool, timeout: float) -> list[Finding]:
    """Say where credentials come from, and which region and variables count.

    Args:
        ask: look for them where a server must be asked, and ask who they are.
        timeout: seconds.
    """
    region = app.find_region()
    findings = [
        Finding("ok", f"region {region}")
        if region
        else Finding("note", "no region is configured", "Set AWS_REGION")
    ]
    named = [name for name in VARIABLES if os.environ.get(name)]
    if named:
        findings.append(Finding("note", f"set in the environment: {', '.join(named)}"))
    if not version_of("botocore"):
        return findings
    import botocore.session

    session = botocore.session.Session()
    try:
        found = session.get_credentials() if ask else _without_asking(session)
    except Exception as error:  # noqa: BLE001 - botocore's are of many kinds; all are findings
        advice = "Correct the shared configuration, or AWS_PROFILE"
        return [*findings, Finding("problem", f"credentials cannot be loaded: {error}", advice)]
    if found is not None:
        source = SOURCES.get(found.method, found.method)
        findings.append(Finding("ok", f"credentials from {source}"))
        if ask:
            findings.append(_who(session, region, timeout))
    elif ask:
        advice = "Set AWS_PROFILE, run aws sso login, or give the job a role"
        findings.append(Finding("problem", "there are no credentials", advice))
    else:
        text = "no credentials in the environment or in files; servers were not asked"
        findings.append(Finding("note", text))
    return findings


def _without_asking(session: Any) -> Any:
    """Return credentials that are at hand; no server is asked, and no process started."""
    chain = session.get_component("credential_provider").providers
    for provider in chain:
        if provider.METHOD in ("env", "shared-credentials-file", "config-file"):
            found = provider.load()
            if found is not None:
                return found
    return None


def _who(session: Any, region: str | None, timeout: float) -> Finding:
    """Say whose the credentials are; every identity may ask that."""
    from botocore.config import Config

    config = Config(
        connect_timeout=timeout, read_timeout=timeout, retries={"total_max_attempts": 1}
    )
    try:
        client = session.create_client("sts", region_name=region or "us-east-1", config=config)
        return Finding("ok", f"they are those of {client.get_caller_identity()['Arn']}")
    except Exception as error:  # noqa: BLE001 - as above
        return Finding("note", f"whose they are is not known: {type(error).__name__}: {error}")


def check_bucket(url: str, timeout: float) -> list[Finding]:
    """Write, read and remove a small object where logs are to go.

    Args:
        url: the folder.
        timeout: seconds for each request.
    """
    options: dict[str, Any] = {}
    if scheme_of(url) in S3_SCHEMES:
        options["config_kwargs"] = {
            "connect_timeout": timeout,
            "read_timeout": timeout,
            "retries": {"total_max_attempts": 1},
        }
    begun = time.monotonic()
    try:
        place = open_folder(url, options)
        place.put(NAME, TEXT)
    except TBLogError as error:
        return [Finding("problem", f"cannot be written to: {error}", _policy(url, error))]
    took = (time.monotonic() - begun) * 1000
    findings = [Finding("ok", f"{url} can be written to, in {took:,.0f} ms")]
    try:
        same = place.get(NAME) == TEXT
        text = f"what is written there {'can be read' if same else 'is read as something else'}"
        findings.append(Finding("ok" if same else "problem", text))
    except StoreError as error:
        text = f"what is written there cannot be read: {error}"
        advice = "Without s3:GetObject objects are short, and many"
        findings.append(Finding("warning", text, advice))
    if scheme_of(url) in S3_SCHEMES:
        findings += _check_s3(place, bucket_and_prefix(url)[1] + NAME)
    return findings


def _check_s3(place: Any, key: str) -> list[Finding]:
    """Say whether objects can grow by copying, and remove what was written."""
    findings = []
    try:
        upload = place.call("CreateMultipartUpload", Key=key)["UploadId"]
        place.call("AbortMultipartUpload", Key=key, UploadId=upload)
    except StoreError as error:
        text = f"an upload in parts cannot be begun and given up: {code_of(error)}"
        advice = "Allow s3:AbortMultipartUpload, or objects are short, and many"
        findings.append(Finding("warning", text, advice))
    try:
        place.call("DeleteObject", Key=key)
    except StoreError:
        findings.append(Finding("note", f"{NAME} was not removed: s3:DeleteObject is not allowed"))
    with suppress(StoreError):  # which few roles may ask
        if place.call("GetBucketVersioning").get("Status") == "Enabled":
            text = "the bucket keeps versions, so that objects are short, and many"
            findings.append(Finding("note", text, "See: sm-tblog estimate --versioned"))
    return findings


def _policy(url: str, error: TBLogError) -> str:
    """Return what the credentials need, where they are refused."""
    if isinstance(error, MissingDependencyError) or not isinstance(error, StoreError):
        return ""
    if code_of(error) not in DENIED:
        return ""
    where = url.partition("://")[2].rstrip("/")
    return (
        "Allow the role s3:PutObject, s3:GetObject and s3:AbortMultipartUpload on "
        f"arn:aws:s3:::{where}/*, and kms:GenerateDataKey and kms:Decrypt where a key encrypts"
    )


def check_app(job_name: str, timeout: float) -> list[Finding]:
    """Say whether SageMaker's hosted TensorBoard lists a job.

    Args:
        job_name: asks SageMaker about this job; "" is the one that this process is in, by its
            files.
        timeout: seconds.
    """
    job = training_job()
    if job_name:
        findings = _ask_about(job_name, timeout)
    elif job is not None:
        findings = [_listed(job)]
    else:
        text = "this is no training job"
        return [Finding("note", text, "Ask about one: sm-tblog doctor --job NAME")]
    region = (job.region if job else "") or app.find_region()
    if region and region not in app.REGIONS:
        text = f"it is not known to be in {region}"
        findings.append(Finding("warning", text, f"It is in {', '.join(app.REGIONS)}"))
    findings.append(Finding("note", f"to open it takes {APP_ACTIONS}"))
    return findings


def _listed(job: TrainingJob) -> Finding:
    if job.is_local_mode:
        return Finding("note", "it does not list jobs of local mode")
    if job.is_tuning:
        text = "it does not list jobs of a tuning job"
        advice = "Log to Writer(s3_logdir('s3://bucket/folder')) of sm_tblog.sagemaker"
        return Finding("warning", text, advice)
    if not job.has_config or job.s3_output_path is None:
        text = "it does not list the job, which has no TensorBoardOutputConfig"
        advice = "In the launcher: sm_tblog.sagemaker.TensorBoardOutputConfig('s3://bucket/folder')"
        return Finding("warning", text, advice)
    return Finding("ok", f"it lists the job: sm-tblog open {job.name}")


def _ask_about(job_name: str, timeout: float) -> list[Finding]:
    try:
        url = tensorboard_url(job_name)
        found = app.describe_job(job_name, timeout=timeout)
    except TBLogError as error:
        return [Finding("problem", str(error))]
    config = found.get("TensorBoardOutputConfig")
    status = found.get("TrainingJobStatus", "unknown")
    if not config:
        text = f"it does not list {job_name} ({status}), which has no TensorBoardOutputConfig"
        advice = "In the launcher: sm_tblog.sagemaker.TensorBoardOutputConfig('s3://bucket/folder')"
        return [Finding("warning", text, advice)]
    name = found["TrainingJobName"]
    where = f"{config['S3OutputPath'].rstrip('/')}/{name}/tensorboard-output"
    return [
        Finding("ok", f"it lists {job_name} ({status}): {url}"),
        Finding("note", f"its logs are in {where}"),
    ]
