"""The URL of SageMaker's hosted TensorBoard, and how to open it.

==================  ===================================================================
in Studio           the app of Studio's own domain
presigned           the app of a domain. Anyone who has the URL can sign in, for minutes.
                    It is created only on request, and never logged
anywhere else       the page in SageMaker's console that leads to the app
==================  ===================================================================

The app lists jobs that have a TensorBoardOutputConfig. The URL contains the job's name.
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
"""The regions in which the app is available."""

JOB = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
DOMAIN = re.compile(r"d-(-*[a-z0-9]){1,61}")
ARN = re.compile(r"arn:[^:]+:sagemaker:([^:]+):\d*:training-job/(.+)")
ADD_JOB = "data/plugin/sagemaker_data_manager/add_folder_or_job?Redirect=True&Name="

TIMEOUT = 10
"""The timeout of a request to SageMaker's API, in seconds."""


def open_tensorboard(
    job_name: str | None = None, *, open_browser: bool = True, **options: Any
) -> str:
    """Open SageMaker's hosted TensorBoard in the browser.

    Args:
        job_name: the training job's name or ARN; by default, the app opens without a job.
        open_browser: whether to open the URL; ``False`` only returns it.
        options: keyword arguments for ``tensorboard_url``.

    Returns:
        The URL. If it is presigned, anyone who has it can sign in.

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
    """Return the URL of SageMaker's hosted TensorBoard.

    Only ``presign`` sends a request to SageMaker, with the credentials that botocore finds. A
    presigned URL works if the domain uses IAM authentication. If it leads to an empty page, use the
    URL without ``presign``, which leads to the app through the console.

    Args:
        job_name: the training job's name or ARN; by default, the app opens without a job.
        region: the job's region. By default, the region of the ARN, of Studio, or of the AWS
            configuration.
        presign: whether to return a URL that signs in, valid for ``expires_in`` seconds.
        domain_id: the Studio domain, ``d-…``, required with ``presign``. By default, Studio's own.
        user_profile_name: the user profile, required with ``presign``. By default, Studio's own.
        expires_in: the time in seconds for which a presigned URL can be used, 5 to 300.
        session_seconds: the duration in seconds of the session that it starts, 1,800 to 43,200.

    Raises:
        InvalidTypeError: an argument has the wrong type.
        InvalidValueError: a name is invalid, or the region or domain is not known.
        MissingDependencyError: ``presign`` is set and botocore is not installed.
        TBLogError: SageMaker rejects the request to presign.
    """
    name, region = _as_job_and_region(job_name, region)
    studio = studio_metadata()
    if region not in REGIONS:
        message = "SageMaker's hosted TensorBoard is available in %s, but not in %s"
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
    """Return SageMaker's description of a training job, from ``DescribeTrainingJob`` of its API.

    Args:
        job_name: the training job's name or ARN.
        region: as for ``tensorboard_url``.
        timeout: the timeout of the request, in seconds.

    Raises:
        InvalidValueError: the name is invalid, or the region is not known.
        MissingDependencyError: botocore is not installed.
        TBLogError: the request fails.
    """
    name, region = _as_job_and_region(job_name, region)
    client = _client(region, timeout)
    try:
        found: dict[str, Any] = client.describe_training_job(TrainingJobName=name)
    except Exception as error:
        message = f"SageMaker cannot describe job {name} in {region}: {error}"
        raise TBLogError(message) from error
    return found


def find_region() -> str | None:
    """Return the region of this machine or of the AWS configuration, or None."""
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
    except BotoCoreError:  # for example, a profile that does not exist
        return None
    return str(region) if region else None


def _as_job_and_region(job: Any, region: str | None) -> tuple[str, str]:
    """Return a job's name, or "" for none, and its region."""
    name, arn_region = ("", None) if job is None else _as_job(job)
    region = region or arn_region or find_region()
    if region is None:
        message = "the job's region is not known: pass region= or set AWS_REGION"
        raise InvalidValueError(message)
    return name, region


def _as_job(job: Any) -> tuple[str, str | None]:
    """Return a job's name, and the region if an ARN is given."""
    if not isinstance(job, str):
        message = f"a training job's name must be a str, got {job!r:.60}"
        raise InvalidTypeError(message)
    arn = ARN.fullmatch(job)
    name = arn[2] if arn else job
    if not JOB.fullmatch(name):
        hint = "; pass the job's name, not the location of its logs" if "://" in job else ""
        message = (
            f"{job!r:.80} is not a valid name of a training job: at most 63 letters, digits and "
            f"hyphens are allowed{hint}"
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
        message = "presign: domain_id and user_profile_name are required outside Studio"
        raise InvalidValueError(message)
    for what, text, pattern in (
        ("domain_id", domain_id, DOMAIN),
        ("user_profile_name", user_profile_name, JOB),
    ):
        if not pattern.fullmatch(str(text)):
            message = f"presign: {what} is invalid: {text!r:.80}"
            raise InvalidValueError(message)
    for what, value, minimum, maximum in (
        ("expires_in", expires_in, 5, 300),
        ("session_seconds", session_seconds, 1_800, 43_200),
    ):
        if not minimum <= value <= maximum:
            message = f"presign: {what} must be {minimum:,} to {maximum:,} seconds, got {value!r}"
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
            f"SageMaker cannot presign a URL for {user_profile_name} of {domain_id}: {error}. "
            "This requires sagemaker:CreatePresignedDomainUrl and a domain with IAM "
            "authentication; without presign, the console leads to the app"
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
        message = "requests to SageMaker need botocore: pip install 'sm-tblog[s3]'"
        raise MissingDependencyError(message) from error
    config = Config(connect_timeout=timeout, read_timeout=timeout)
    return botocore.session.Session().create_client("sagemaker", region_name=region, config=config)
