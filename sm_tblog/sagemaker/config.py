"""A training job's TensorBoardOutputConfig, for each way to start one.

The API takes ``{"S3OutputPath": …, "LocalPath": …}`` and says little about a value that it
refuses, or that leads nowhere. What can be checked before is checked here.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Any

from sm_tblog._errors import InvalidTypeError, InvalidValueError, MissingDependencyError

__all__ = ["TensorBoardOutputConfig"]

PATTERN = re.compile(r"(https|s3)://([^/]+)/?(.*)")
"""Of the API's model, as is the most that a path may be long."""
MOST_S3 = 1024
MOST_LOCAL = 4096
RESERVED = ("/opt/ml/checkpoints", "/tmp", "/usr/local/nvidia")  # noqa: S108 - refused
"""Folders that SageMaker does not take for this."""


@dataclass(frozen=True)
class TensorBoardOutputConfig:
    """What makes SageMaker upload a job's logs while it runs, and its hosted TensorBoard list it.

    ::

        config = TensorBoardOutputConfig("s3://my-bucket/logs")

        Estimator(..., tensorboard_output_config=config.for_sdk_v2())       # SDK v2
        ModelTrainer(...).with_tensorboard_output_config(config.for_sdk_v3())  # SDK v3
        client.create_training_job(..., TensorBoardOutputConfig=config.for_boto3())

    In the job, ``Writer()`` without a folder logs to ``local_path``.

    Args:
        s3_output_path: where to upload, ``s3://bucket/folder``, at most 1,024 characters. SageMaker
            adds ``/<job>/tensorboard-output``.
        local_path: the folder in the container, an absolute path of at most 4,096 characters. Not
            in ``/opt/ml/checkpoints``, ``/tmp`` or ``/usr/local/nvidia``, which are reserved.

    Raises:
        InvalidTypeError: a path is not a str.
        InvalidValueError: SageMaker would not take it.
    """

    s3_output_path: str
    local_path: str = "/opt/ml/output/tensorboard"

    def __post_init__(self) -> None:
        """Check."""
        for name in ("s3_output_path", "local_path"):
            value = getattr(self, name)
            if not isinstance(value, str):
                message = f"TensorBoardOutputConfig: {name} is a str, got {value!r:.60}"
                raise InvalidTypeError(message)
        _check_s3(self.s3_output_path)
        _check_local(self.local_path)

    def for_boto3(self) -> dict[str, str]:
        """Return what ``create_training_job`` takes as ``TensorBoardOutputConfig``."""
        return {"S3OutputPath": self.s3_output_path, "LocalPath": self.local_path}

    def for_sdk_v2(self) -> Any:
        """Return what an estimator of SDK v2 takes as ``tensorboard_output_config``.

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
        """Return what ``ModelTrainer.with_tensorboard_output_config`` of SDK v3 takes.

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
        problem = f"is s3://bucket/folder, not {path!r:.80}"
    elif len(path) > MOST_S3:
        problem = f"has {len(path):,} characters, more than {MOST_S3:,}"
    if problem:
        message = f"TensorBoardOutputConfig: s3_output_path, where SageMaker uploads to, {problem}"
        raise InvalidValueError(message)


def _check_local(path: str) -> None:
    problem = ""
    plain = posixpath.normpath(path)
    if not path.startswith("/"):
        problem = f"is an absolute path, not {path!r:.80}"
    elif len(path) > MOST_LOCAL:
        problem = f"has {len(path):,} characters, more than {MOST_LOCAL:,}"
    else:
        for folder in RESERVED:
            if plain == folder or plain.startswith(f"{folder}/"):
                problem = (
                    f"is {path!r:.80}, and {folder} is reserved; /opt/ml/output/tensorboard is not"
                )
    if problem:
        message = f"TensorBoardOutputConfig: local_path, the folder in the container, {problem}"
        raise InvalidValueError(message)
