"""Amazon SageMaker: the log directory of a training job, its configuration, and the hosted app.

::

    from sm_tblog.sagemaker import TensorBoardOutputConfig, open_tensorboard

    config = TensorBoardOutputConfig("s3://my-bucket/logs")  # for the launcher
    open_tensorboard("my-job")

In the job, ``Writer()`` without an argument chooses the log directory: see ``logdir``. SageMaker's
SDKs and botocore are imported only by the functions that need them.
"""

from __future__ import annotations

from sm_tblog.sagemaker.app import open_tensorboard, tensorboard_url
from sm_tblog.sagemaker.config import TensorBoardOutputConfig
from sm_tblog.sagemaker.environment import TrainingJob, training_job
from sm_tblog.sagemaker.logdir import s3_logdir

__all__ = [
    "TensorBoardOutputConfig",
    "TrainingJob",
    "open_tensorboard",
    "s3_logdir",
    "tensorboard_url",
    "training_job",
]
