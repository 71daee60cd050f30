"""The address of SageMaker's hosted TensorBoard, and opening it.

==================  ===================================================================
in Studio           the app of the own domain
presigned           the app of a domain, for whoever has the address, for minutes. It is
                    asked for explicitly, and never logged
anywhere else       the page in SageMaker's console that leads to the app
==================  ===================================================================

The app lists jobs that have a TensorBoardOutputConfig; it is told the job's name.
"""

from __future__ import annotations

import base64
import logging
import os
import re
from typing import Any
from urllib.parse import quote

from sm_tblog._errors import (
    InvalidTypeError,
    InvalidValueError,
    MissingDependencyError,
    TBLogError,
)
from sm_tblog.sagemaker.environment import studio_metadata

__all__ = ["REGIONS", "find_region", "open_tensorboard", "tensorboard_url"]

logger = logging.getLogger("sm_tblog")

REGIONS = ("us-east-1", "us-east-2", "us-west-2", "eu-central-1", "eu-west-1")
"""Where the app is."""

JOB = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
DOMAIN = re.compile(r"d-(-*[a-z0-9]){1,61}")
ARN = re.compile(r"arn:[^:]+:sagemaker:([^:]+):\d*:training-job/(.+)")
ADD_JOB = "data/plugin/sagemaker_data_manager/add_folder_or_job?Redirect=True&Name="

TIMEOUT = 10
"""Seconds for a request to SageMaker's API."""


def open_tensorboard(
    job_name: str | None = None, *, open_browser: bool = True, **options: Any
) -> str:
    """Open SageMaker's hosted TensorBoard in the browser.

    Args:
        job_name: the training job's name, or its ARN; by default the app without a job.
        open_browser: ``False`` only returns the address.
        options: as for ``tensorboard_url``.

    Returns:
        The address. A presigned one lets in whoever has it.

    Raises:
        TBLogError: as for ``tensorboard_url``.
    """
    url = tensorboard_url(job_name, **options)
    if open_browser:
        import webbrowser

        webbrowser.open(url)
    return url


def tensorboard_url(
    job_name: str | None = None,
    *,
    region: str | None = None,
    presign: bool = False,
    domain_id: str | None = None,
    user_profile_name: str | None = None,
    expires_in: int = 300,
    session_seconds: int = 43_200,
) -> str:
    """Return the address of SageMaker's hosted TensorBoard.

    Only a presigned address asks SageMaker for anything, and it is made by the credentials that
    botocore finds. It works where the domain signs in by IAM. If it shows an empty page, the
    address without ``presign`` leads there by way of the console.

    Args:
        job_name: the training job's name, or its ARN; by default the app without a job.
        region: the job's; by default that of the ARN, of Studio, or of the AWS configuration.
        presign: return an address that signs in, for ``expires_in`` seconds.
        domain_id: the Studio domain, ``d-…``; needed with ``presign``, by default Studio's own.
        user_profile_name: the same of the user profile.
        expires_in: seconds for which a presigned address can be used, 5 to 300.
        session_seconds: seconds for which the session that it begins lasts, 1,800 to 43,200.

    Raises:
        InvalidTypeError: an argument is of the wrong kind.
        InvalidValueError: a name is not one, or the region or domain is not known.
        MissingDependencyError: ``presign`` needs botocore.
        TBLogError: SageMaker refuses to presign.
    """
    name, region = _as_job_and_region(job_name, region)
    studio = studio_metadata()
    if region not in REGIONS:
        message = "SageMaker's hosted TensorBoard is known in %s, and not in %s"
        logger.warning(message, ", ".join(REGIONS), region)
    domain_id = domain_id or studio.get("DomainId")
    user_profile_name = user_profile_name or studio.get("UserProfileName")
    if presign:
        return _presigned(name, region, domain_id, user_profile_name, expires_in, session_seconds)
    if studio.get("DomainId") and studio.get("UserProfileName"):
        app = f"https://{domain_id}.studio.{region}.sagemaker.aws/tensorboard/default"
        return f"{app}/{ADD_JOB}{name}" if name else f"{app}/#sagemaker_data_manager"
    page = f"https://{region}.console.aws.amazon.com/sagemaker/home?region={region}"
    return "/".join(part for part in (f"{page}#/tensor-board-landing", name) if part)


def describe_job(
    job_name: str, *, region: str | None = None, timeout: float = TIMEOUT
) -> dict[str, Any]:
    """Return what SageMaker says of a training job, as its API's ``DescribeTrainingJob``.

    Args:
        job_name: the training job's name, or its ARN.
        region: as for ``tensorboard_url``.
        timeout: seconds for the request.

    Raises:
        InvalidValueError: the name is not one, or the region is not known.
        MissingDependencyError: botocore is not installed.
        TBLogError: SageMaker does not tell.
    """
    name, region = _as_job_and_region(job_name, region)
    client = _client(region, timeout)
    try:
        found: dict[str, Any] = client.describe_training_job(TrainingJobName=name)
    except Exception as error:
        message = f"SageMaker does not describe {name} in {region}: {error}"
        raise TBLogError(message) from error
    return found


def find_region() -> str | None:
    """Return the region of this machine or of the AWS configuration, if there is one."""
    for variable in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        if found := os.environ.get(variable):
            return found
    arn = str(studio_metadata().get("ResourceArn", "")).split(":")
    if len(arn) > 3 and arn[3]:
        return arn[3]
    try:
        import botocore.session
        from botocore.exceptions import BotoCoreError
    except ImportError:
        return None
    try:
        region = botocore.session.Session().get_config_variable("region")
    except BotoCoreError:  # a profile that does not exist, say
        return None
    return str(region) if region else None


def _as_job_and_region(job: Any, region: str | None) -> tuple[str, str]:
    """Return a job's name, "" for none, and its region."""
    name, of_arn = ("", None) if job is None else _as_job(job)
    region = region or of_arn or find_region()
    if region is None:
        message = "the job's region is not known: name it, with region= or AWS_REGION"
        raise InvalidValueError(message)
    return name, region


def _as_job(job: Any) -> tuple[str, str | None]:
    """Return a job's name, and the region of its ARN."""
    if not isinstance(job, str):
        message = f"a training job's name is a str, got {job!r:.60}"
        raise InvalidTypeError(message)
    arn = ARN.fullmatch(job)
    name = arn[2] if arn else job
    if not JOB.fullmatch(name):
        hint = "; the app is told the job's name, not where its logs are" if "://" in job else ""
        message = (
            f"{job!r:.80} is no training job's name: one has at most 63 letters, digits and "
            f"hyphens{hint}"
        )
        raise InvalidValueError(message)
    return name, arn[1] if arn else None


def _presigned(
    name: str,
    region: str,
    domain_id: str | None,
    user_profile_name: str | None,
    expires_in: int,
    session_seconds: int,
) -> str:
    if not domain_id or not user_profile_name:
        message = "presign: domain_id and user_profile_name are needed outside of Studio"
        raise InvalidValueError(message)
    for what, text, pattern in (
        ("domain_id", domain_id, DOMAIN),
        ("user_profile_name", user_profile_name, JOB),
    ):
        if not pattern.fullmatch(str(text)):
            message = f"presign: {what} is no name of that kind: {text!r:.80}"
            raise InvalidValueError(message)
    for what, value, least, most in (
        ("expires_in", expires_in, 5, 300),
        ("session_seconds", session_seconds, 1_800, 43_200),
    ):
        if not least <= value <= most:
            message = f"presign: {what} is {least:,} to {most:,} seconds, not {value!r}"
            raise InvalidValueError(message)
    client = _client(region)
    try:
        reply = client.create_presigned_domain_url(
            DomainId=domain_id,
            UserProfileName=user_profile_name,
            ExpiresInSeconds=expires_in,
            SessionExpirationDurationInSeconds=session_seconds,
        )
    except Exception as error:
        message = (
            f"SageMaker does not presign an address for {user_profile_name} of {domain_id}: "
            f"{error}. It takes sagemaker:CreatePresignedDomainUrl, and a domain that signs in by "
            "IAM; without presign, the console leads to the app"
        )
        raise TBLogError(message) from error
    url = f"{reply['AuthorizedUrl']}&redirect=TensorBoard"
    if name:
        state = base64.b64encode(f"/tensorboard/default/{ADD_JOB}{name}".encode())
        url += f"&state={quote(state.decode(), safe='=')}"
    return url


def _client(region: str, timeout: float = TIMEOUT) -> Any:
    try:
        import botocore.session
        from botocore.config import Config
    except ImportError as error:
        message = "to ask SageMaker takes botocore: pip install 'sm-tblog[s3]'"
        raise MissingDependencyError(message) from error
    config = Config(connect_timeout=timeout, read_timeout=timeout)
    return botocore.session.Session().create_client("sagemaker", region_name=region, config=config)
