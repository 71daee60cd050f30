"""The checks of ``sm-tblog doctor`` that concern AWS: credentials, bucket, hosted TensorBoard.

Only the source of credentials is reported, never the credentials themselves. Servers are queried
only about what the user has named or the job uploads to, and with a timeout.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sm_tblog import MissingDependencyError, StoreError, TBLogError
from sm_tblog.cli._checks import Finding, version_of
from sm_tblog.sagemaker import app, tensorboard_url, training_job
from sm_tblog.storage.object_store import check_options, open_folder
from sm_tblog.storage.s3_bucket import DENIED, code_of
from sm_tblog.storage.s3_errors import advice_on
from sm_tblog.storage.s3_options import make_session, merged
from sm_tblog.storage.urls import bucket_and_prefix, is_s3, resource_pattern

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sm_tblog.sagemaker import TrainingJob

__all__ = ["check_app", "check_bucket", "check_credentials"]

PROBE_NAME = "sm-tblog-doctor.txt"
PROBE_CONTENT = b"Written, read and removed by sm-tblog doctor.\n"

SOURCES = {
    "assume-role": "a role assumed by the profile",
    "assume-role-with-web-identity": "a role assumed with a web identity",
    "config-file": "the configuration file",
    "container-role": "the container's role",
    "custom-process": "the profile's credential process",
    "env": "environment variables",
    "iam-role": "the instance's role",
    "login": "an AWS CLI login",
    "shared-credentials-file": "the shared credentials file",
    "sso": "IAM Identity Center",
}
"""Descriptions of credential sources, by botocore's name of the provider."""

VARIABLES = (
    *("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"),
    *("AWS_ENDPOINT_URL_S3", "S3_ENDPOINT", "S3_REGION", "S3_USE_HTTPS", "S3_VERIFY_SSL"),
    *("AWS_CA_BUNDLE", "S3_CA_FILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"),
)
"""Environment variables that change where requests go. Only names are printed: a URL may contain a
secret."""

APP_ACTIONS = (
    "sagemaker:CreateApp, DeleteApp, DescribeTrainingJob, Search; s3:GetObject, ListBucket"
)


def check_credentials(options: Mapping[str, Any], *, online: bool, timeout: float) -> list[Finding]:
    """Report the region, the relevant environment variables and where credentials come from.

    Args:
        options: the ``storage_options`` of the bucket.
        online: whether to try sources that query a server, and to ask AWS for the identity.
        timeout: timeout of the request, in seconds.
    """
    region = options.get("region_name") or app.find_region()
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
    if options.get("anon"):
        return [*findings, Finding("note", "no credentials are sent: anon")]
    try:
        session = make_session(options)
        key = options.get("key") or options.get("username")
        if key:
            secret = options.get("secret") or options.get("password")
            session.set_credentials(key, secret, options.get("token"))
        found = session.get_credentials() if online or key else _local_credentials(session)
        if online and found is not None:
            found.get_frozen_credentials()
    except Exception as error:  # noqa: BLE001 - botocore raises many types
        text = f"credentials cannot be loaded: {error}"
        advice = advice_on(error) or "fix the shared configuration or AWS_PROFILE"
        advice = advice[0].upper() + advice[1:]
        return [*findings, Finding("problem", text, advice)]
    if found is not None:
        source = SOURCES.get(found.method, found.method or "the options given")
        findings.append(Finding("ok", f"credentials from {source}"))
        if online:
            verify = (options.get("client_kwargs") or {}).get("verify")
            findings.append(_check_identity(session, region, timeout, verify))
    elif online:
        advice = "Set AWS_PROFILE, run aws sso login, or give the job a role"
        findings.append(Finding("problem", "no credentials found", advice))
    else:
        text = "no credentials in the environment or in files; no servers were queried"
        findings.append(Finding("note", text))
    return findings


def _local_credentials(session: Any) -> Any:
    """Return credentials from the environment or files, without a request or a new process."""
    chain = session.get_component("credential_provider").providers
    for provider in chain:
        if provider.METHOD in ("env", "shared-credentials-file", "config-file"):
            found = provider.load()
            if found is not None:
                return found
    return None


def _check_identity(session: Any, region: str | None, timeout: float, verify: Any) -> Finding:
    """Report whose the credentials are; every identity is allowed to ask for this."""
    from botocore.config import Config

    config = Config(
        connect_timeout=timeout, read_timeout=timeout, retries={"total_max_attempts": 1}
    )
    try:
        client = session.create_client(
            "sts", region_name=region or "us-east-1", config=config, verify=verify
        )
        return Finding("ok", f"identity: {client.get_caller_identity()['Arn']}")
    except Exception as error:  # noqa: BLE001 - as above
        return Finding("note", f"identity unknown: {type(error).__name__}: {error}")


def check_bucket(url: str, options: Mapping[str, Any], timeout: float) -> list[Finding]:
    """Write, read and remove a small object in the log directory.

    Args:
        url: the log directory.
        options: its ``storage_options``.
        timeout: timeout of each request, in seconds.
    """
    limits = {
        "connect_timeout": timeout,
        "read_timeout": timeout,
        "retries": {"total_max_attempts": 1},
    }
    given = merged({"config_kwargs": limits} if is_s3(url) else {}, options)
    start = time.monotonic()
    try:
        check_options(url, given)
        folder = open_folder(url, given)
        folder.put(PROBE_NAME, PROBE_CONTENT)
    except TBLogError as error:
        return [Finding("problem", f"writing failed: {error}", _advise_policy(url, error))]
    duration = (time.monotonic() - start) * 1000
    findings = [Finding("ok", f"{url} is writable; a write took {duration:,.0f} ms")]
    try:
        if folder.get(PROBE_NAME) == PROBE_CONTENT:
            findings.append(Finding("ok", "reading back returned the same content"))
        else:
            findings.append(Finding("problem", "reading back returned different content"))
    except StoreError as error:
        text = f"reading back failed: {error}"
        advice = "Without s3:GetObject, logs are split into many small objects"
        findings.append(Finding("warning", text, advice))
    if is_s3(url):
        findings += _check_s3(folder, bucket_and_prefix(url)[1] + PROBE_NAME)
    return findings


def _check_s3(folder: Any, key: str) -> list[Finding]:
    """Check whether objects can grow by copying, and remove the object that was written."""
    findings = []
    try:
        upload = folder.call("CreateMultipartUpload", Key=key)["UploadId"]
        folder.call("AbortMultipartUpload", Key=key, UploadId=upload)
    except StoreError as error:
        text = f"starting and aborting a multipart upload failed: {code_of(error)}"
        advice = "Allow s3:AbortMultipartUpload; without it, logs are split into many small objects"
        findings.append(Finding("warning", text, advice))
    try:
        folder.call("DeleteObject", Key=key)
    except StoreError:
        findings.append(Finding("note", f"{PROBE_NAME} remains: s3:DeleteObject is not allowed"))
    with suppress(StoreError):  # few roles are allowed to ask this
        if folder.call("GetBucketVersioning").get("Status") == "Enabled":
            text = "the bucket has versioning enabled, so logs are split into many small objects"
            findings.append(Finding("note", text, "See: sm-tblog estimate --versioned"))
    return findings


def _advise_policy(url: str, error: TBLogError) -> str:
    """Return the permissions to grant if access was denied, else ""."""
    if isinstance(error, MissingDependencyError) or not isinstance(error, StoreError):
        return ""
    if code_of(error) not in DENIED:
        return ""
    if "explicit deny" in str(error):
        return (
            "If the bucket's policy demands parameters, pass them as --option NAME=VALUE, and to a "
            "writer in storage_options={'s3_additional_kwargs': {NAME: VALUE}}"
        )
    return (
        "Allow the role s3:PutObject, s3:GetObject and s3:AbortMultipartUpload on "
        f"{resource_pattern(url)}; with a KMS key, also kms:GenerateDataKey and kms:Decrypt"
    )


def check_app(job_name: str, timeout: float) -> list[Finding]:
    """Report whether SageMaker's hosted TensorBoard lists a job.

    Args:
        job_name: the job to query SageMaker about; "" for the job of this process, known from its
            files.
        timeout: timeout of the request, in seconds.
    """
    job = training_job()
    if job_name:
        findings = _check_named_job(job_name, timeout)
    elif job is not None:
        findings = [_check_own_job(job)]
    else:
        text = "this is not a training job"
        return [Finding("note", text, "Check one: sm-tblog doctor --job NAME")]
    region = (job.region if job else "") or app.find_region()
    if region and region not in app.REGIONS:
        text = f"the app is not known to be available in {region}"
        advice = f"It is available in {', '.join(app.REGIONS)}"
        findings.append(Finding("warning", text, advice))
    findings.append(Finding("note", f"opening the app requires {APP_ACTIONS}"))
    return findings


def _check_own_job(job: TrainingJob) -> Finding:
    if job.is_local_mode:
        return Finding("note", "the app does not list local-mode jobs")
    if job.is_tuning:
        text = "the app does not list jobs of a hyperparameter tuning job"
        advice = "Log to Writer(s3_logdir('s3://bucket/folder')), from sm_tblog.sagemaker"
        return Finding("warning", text, advice)
    if not job.has_config or job.s3_output_path is None:
        text = "the app does not list this job, which has no TensorBoardOutputConfig"
        advice = "In the launcher: sm_tblog.sagemaker.TensorBoardOutputConfig('s3://bucket/folder')"
        return Finding("warning", text, advice)
    return Finding("ok", f"the app lists this job: sm-tblog open {job.name}")


def _check_named_job(job_name: str, timeout: float) -> list[Finding]:
    try:
        url = tensorboard_url(job_name)
        found = app.describe_job(job_name, timeout=timeout)
    except TBLogError as error:
        return [Finding("problem", str(error))]
    config = found.get("TensorBoardOutputConfig")
    status = found.get("TrainingJobStatus", "unknown")
    if not config:
        text = f"the app does not list {job_name} ({status}), which has no TensorBoardOutputConfig"
        advice = "In the launcher: sm_tblog.sagemaker.TensorBoardOutputConfig('s3://bucket/folder')"
        return [Finding("warning", text, advice)]
    name = found["TrainingJobName"]
    where = f"{config['S3OutputPath'].rstrip('/')}/{name}/tensorboard-output"
    return [
        Finding("ok", f"the app lists {job_name} ({status}): {url}"),
        Finding("note", f"its logs are in {where}"),
    ]
