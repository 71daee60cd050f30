"""At home in Amazon SageMaker: where to log in a training job, its configuration, its hosted app.

::

    from sm_tblog.sagemaker import TensorBoardOutputConfig, open_tensorboard

    config = TensorBoardOutputConfig("s3://my-bucket/logs")  # for the launcher
    open_tensorboard("my-job")

In the job, ``Writer()`` without a folder finds its own: see ``logdir``. SageMaker's SDKs and
botocore are imported by the functions that are about them, and by nothing else.
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
