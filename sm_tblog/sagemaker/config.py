"""A training job's TensorBoardOutputConfig, for each way to launch a job.

The API accepts ``{"S3OutputPath": …, "LocalPath": …}`` and explains little about a value that it
rejects or that has no effect. So this module validates what it can beforehand.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Any

from sm_tblog._errors import InvalidTypeError, InvalidValueError, MissingDependencyError

__all__ = ["TensorBoardOutputConfig"]

PATTERN = re.compile(r"(https|s3)://([^/]+)/?(.*)")
"""The pattern of an S3 path in the API's model, which also defines the two maximum lengths."""
MAX_S3_LENGTH = 1024
MAX_LOCAL_LENGTH = 4096
RESERVED = ("/opt/ml/checkpoints", "/tmp", "/usr/local/nvidia")  # noqa: S108 - rejected
"""Directories that SageMaker does not accept as ``LocalPath``."""


@dataclass(frozen=True)
class TensorBoardOutputConfig:
    """Configuration of a job's logs.

    It makes SageMaker upload the logs while the job runs, and makes its hosted TensorBoard list the
    job.

    ::

        config = TensorBoardOutputConfig("s3://my-bucket/logs")

        Estimator(..., tensorboard_output_config=config.for_sdk_v2())       # SDK v2
        ModelTrainer(...).with_tensorboard_output_config(config.for_sdk_v3())  # SDK v3
        client.create_training_job(..., TensorBoardOutputConfig=config.for_boto3())

    In the job, ``Writer()`` without an argument logs to ``local_path``.

    Args:
        s3_output_path: the S3 path to upload to, ``s3://bucket/folder``, of at most 1,024
            characters. SageMaker appends ``/<job>/tensorboard-output``.
        local_path: the log directory in the container, an absolute path of at most 4,096
            characters. Must not be in ``/opt/ml/checkpoints``, ``/tmp`` or ``/usr/local/nvidia``,
            which are reserved.

    Raises:
        InvalidTypeError: a path is not a str.
        InvalidValueError: SageMaker would reject a path.
    """

    s3_output_path: str
    local_path: str = "/opt/ml/output/tensorboard"

    def __post_init__(self) -> None:
        """Validate the paths."""
        for name in ("s3_output_path", "local_path"):
            value = getattr(self, name)
            if not isinstance(value, str):
                message = f"TensorBoardOutputConfig: {name} must be a str, got {value!r:.60}"
                raise InvalidTypeError(message)
        _check_s3(self.s3_output_path)
        _check_local(self.local_path)

    def for_boto3(self) -> dict[str, str]:
        """Return the argument ``TensorBoardOutputConfig`` for ``create_training_job``."""
        return {"S3OutputPath": self.s3_output_path, "LocalPath": self.local_path}

    def for_sdk_v2(self) -> Any:
        """Return the argument ``tensorboard_output_config`` for an estimator of SDK v2.

        Raises:
            MissingDependencyError: SDK v2 is not installed.
        """
        try:
            from sagemaker import debugger
        except ImportError as error:
            message = "SageMaker's SDK v2 is not installed: pip install 'sagemaker>=2,<3'"
            raise MissingDependencyError(message) from error
        return debugger.TensorBoardOutputConfig(
            s3_output_path=self.s3_output_path, container_local_output_path=self.local_path
        )

    def for_sdk_v3(self) -> Any:
        """Return the argument of ``ModelTrainer.with_tensorboard_output_config`` of SDK v3.

        Raises:
            MissingDependencyError: SDK v3 is not installed.
        """
        try:
            from sagemaker.core.training import configs
        except ImportError as error:
            message = "SageMaker's SDK v3 is not installed: pip install 'sagemaker>=3'"
            raise MissingDependencyError(message) from error
        return configs.TensorBoardOutputConfig(
            s3_output_path=self.s3_output_path, local_path=self.local_path
        )


def _check_s3(path: str) -> None:
    problem = ""
    if not path:
        problem = "is missing"
    elif not PATTERN.fullmatch(path):
        problem = f"must be s3://bucket/folder, got {path!r:.80}"
    elif len(path) > MAX_S3_LENGTH:
        problem = f"has {len(path):,} characters, more than {MAX_S3_LENGTH:,}"
    if problem:
        message = f"TensorBoardOutputConfig: s3_output_path, the upload location, {problem}"
        raise InvalidValueError(message)


def _check_local(path: str) -> None:
    problem = ""
    plain = posixpath.normpath(path)
    if not path.startswith("/"):
        problem = f"must be an absolute path, got {path!r:.80}"
    elif len(path) > MAX_LOCAL_LENGTH:
        problem = f"has {len(path):,} characters, more than {MAX_LOCAL_LENGTH:,}"
    else:
        for folder in RESERVED:
            if plain == folder or plain.startswith(f"{folder}/"):
                problem = (
                    f"is {path!r:.80}, but {folder} is reserved; use /opt/ml/output/tensorboard"
                )
    if problem:
        message = f"TensorBoardOutputConfig: local_path, a directory in the container, {problem}"
        raise InvalidValueError(message)
