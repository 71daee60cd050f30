"""Start ``train.py`` as a SageMaker training job, with version 2 or 3 of its SDK or with boto3.

::

    python launch.py --by v3 --role arn:aws:iam::123456789012:role/SageMaker --bucket my-bucket

The important part is the TensorBoardOutputConfig. With it, SageMaker uploads the logs while the job
runs, and its hosted TensorBoard lists the job. ``sm-tblog open JOB`` opens it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from sm_tblog.sagemaker import TensorBoardOutputConfig

HERE = Path(__file__).parent
HYPERPARAMETERS = {"steps": "400", "learning-rate": "0.1"}
HOUR = 3600
VERSIONS = {"version": "2.6", "py_version": "py312"}
"""Versions of PyTorch and Python in the image."""


def main() -> None:
    """Start the training job."""
    options = parse_options()
    if options.by == "v2":
        make_estimator(options).fit(wait=False)
    elif options.by == "v3":
        make_trainer(options).train(wait=False)
    else:
        import boto3

        boto3.client("sagemaker").create_training_job(**make_request(options))


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the options, by default from the command line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--by", choices=["v2", "v3", "boto3"], default="v3", help="SDK to use")
    parser.add_argument("--role", required=True, help="ARN of the job's role")
    parser.add_argument(
        "--bucket", required=True, help="bucket for logs, checkpoints and the model"
    )
    parser.add_argument("--instance-type", default="ml.g5.xlarge")
    parser.add_argument("--instance-count", type=int, default=1)
    parser.add_argument("--image", default="", help="image; for boto3, it must contain train.py")
    return parser.parse_args(arguments)


def make_config(options: argparse.Namespace) -> TensorBoardOutputConfig:
    """Return the configuration with the location to which SageMaker uploads the job's logs."""
    return TensorBoardOutputConfig(f"s3://{options.bucket}/logs")


def make_estimator(options: argparse.Namespace, session: Any = None) -> Any:
    """Return an estimator of the SageMaker SDK v2."""
    from sagemaker.pytorch import PyTorch

    return PyTorch(
        entry_point="train.py",
        source_dir=str(HERE),
        role=options.role,
        framework_version=VERSIONS["version"],
        py_version=VERSIONS["py_version"],
        instance_type=options.instance_type,
        instance_count=options.instance_count,
        hyperparameters=HYPERPARAMETERS,
        output_path=f"s3://{options.bucket}/out",
        checkpoint_s3_uri=f"s3://{options.bucket}/checkpoints/{job_name()}",
        use_spot_instances=True,
        max_run=HOUR,
        max_wait=2 * HOUR,
        tensorboard_output_config=make_config(options).for_sdk_v2(),
        disable_profiler=True,
        debugger_hook_config=False,
        base_job_name="digits",
        sagemaker_session=session,
    )


def make_trainer(options: argparse.Namespace, session: Any = None, region: str = "") -> Any:
    """Return a trainer of the SageMaker SDK v3."""
    from sagemaker.core import image_uris
    from sagemaker.core.training import configs
    from sagemaker.train import ModelTrainer

    image = options.image or image_uris.retrieve(
        "pytorch",
        region or None,
        instance_type=options.instance_type,
        image_scope="training",
        **VERSIONS,
    )
    trainer = ModelTrainer(
        training_image=image,
        source_code=configs.SourceCode(
            source_dir=str(HERE), entry_script="train.py", requirements="requirements.txt"
        ),
        role=options.role,
        compute=configs.Compute(
            instance_type=options.instance_type,
            instance_count=options.instance_count,
            enable_managed_spot_training=True,
        ),
        stopping_condition=configs.StoppingCondition(
            max_runtime_in_seconds=HOUR, max_wait_time_in_seconds=2 * HOUR
        ),
        hyperparameters=HYPERPARAMETERS,
        output_data_config=configs.OutputDataConfig(s3_output_path=f"s3://{options.bucket}/out"),
        checkpoint_config=configs.CheckpointConfig(
            s3_uri=f"s3://{options.bucket}/checkpoints/{job_name()}"
        ),
        base_job_name="digits",
        sagemaker_session=session,
    )
    return trainer.with_tensorboard_output_config(make_config(options).for_sdk_v3())


def make_request(options: argparse.Namespace) -> dict[str, Any]:
    """Return a request for boto3. It uploads no code: the image must contain the script."""
    name = job_name()
    arguments = [part for key, value in HYPERPARAMETERS.items() for part in (f"--{key}", value)]
    return {
        "TrainingJobName": name,
        "RoleArn": options.role,
        "AlgorithmSpecification": {
            "TrainingImage": options.image,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python", "/opt/ml/code/train.py"],
            "ContainerArguments": arguments,
        },
        "OutputDataConfig": {"S3OutputPath": f"s3://{options.bucket}/out"},
        "CheckpointConfig": {"S3Uri": f"s3://{options.bucket}/checkpoints/{name}"},
        "ResourceConfig": {
            "InstanceType": options.instance_type,
            "InstanceCount": options.instance_count,
            "VolumeSizeInGB": 30,
        },
        "EnableManagedSpotTraining": True,
        "StoppingCondition": {"MaxRuntimeInSeconds": HOUR, "MaxWaitTimeInSeconds": 2 * HOUR},
        "TensorBoardOutputConfig": make_config(options).for_boto3(),
    }


def job_name() -> str:
    """Return a unique job name."""
    return f"digits-{time.strftime('%Y-%m-%d-%H-%M-%S')}"


if __name__ == "__main__":
    main()
