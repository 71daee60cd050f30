"""The files in the container of a SageMaker training job, as the service creates them."""

import json
import os
import sys
from pathlib import Path

JOB = "digits-2026-11-26-20-00-00-000"
BUCKET = "sagemaker-us-east-1-123456789012"
S3_OUTPUT_PATH = f"s3://{BUCKET}/logs/{JOB}/tensorboard-output"
VARIABLES = ("SM_", "TRAINING_", "AWS_", "SAGEMAKER_", "TENSORBOARD_", "OMPI_", "PMI_", "SLURM_")
RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MPI_LOCALRANKID")


class Tree:
    """A folder that replaces ``/opt/ml``.

    Attributes:
        base: the folder.
        local_path: the folder from which TensorBoard's files are uploaded.
    """

    def __init__(self, base):
        self.base = Path(base)
        self.local_path = self.base / "output" / "tensorboard"
        for folder in ("code", "input/config", "input/data/training", "model", "output/data"):
            (self.base / folder).mkdir(parents=True, exist_ok=True)
        self.write("hyperparameters", {"epochs": "3", "sagemaker_program": '"train.py"'})
        self.write("inputdataconfig", {"training": {"TrainingInputMode": "File"}})
        self.write_hosts()

    def write(self, name, content):
        """Write ``input/config/<name>.json``; a str is written unchanged, None removes the file."""
        path = self.base / "input" / "config" / f"{name}.json"
        if content is None:
            path.unlink(missing_ok=True)
        else:
            text = content if isinstance(content, str) else json.dumps(content)
            path.write_text(text, encoding="utf-8")
        return path

    def write_hosts(self, current="algo-1", count=1, instance="ml.g5.xlarge"):
        hosts = [f"algo-{i + 1}" for i in range(count)]
        group = {"instance_group_name": "homogeneousCluster", "instance_type": instance}
        self.write(
            "resourceconfig",
            {
                "current_host": current,
                "current_instance_type": instance,
                "current_group_name": group["instance_group_name"],
                "hosts": hosts,
                "instance_groups": [{**group, "hosts": hosts}],
                "network_interface_name": "eth0",
            },
        )

    def write_tensorboard(self, **changes):
        """Write the TensorBoardOutputConfig as the service expands it."""
        config = {"S3OutputPath": S3_OUTPUT_PATH, "LocalPath": f"{self.local_path}/", **changes}
        return self.write("tensorboardoutputconfig", {k: v for k, v in config.items() if v})

    def write_checkpoints(self):
        folder = self.base / "checkpoints"
        folder.mkdir(exist_ok=True)
        self.write("checkpointconfig", {"LocalPath": str(folder)})
        return folder

    def environment(self, **more):
        """Return the environment variables that SageMaker sets in the container."""
        return {
            "SAGEMAKER_BASE_DIR": str(self.base),
            "TRAINING_JOB_NAME": JOB,
            "TRAINING_JOB_ARN": f"arn:aws:sagemaker:us-east-1:123456789012:training-job/{JOB}",
            "AWS_REGION": "us-east-1",
            **more,
        }


def clean_environment(home, **more):
    """Return this process's environment without cloud and launcher variables, and add some."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(VARIABLES) and k not in RANKS}
    plain = {"HOME": str(home), "AWS_EC2_METADATA_DISABLED": "true"}
    here = os.pathsep.join(path for path in sys.path if path)
    return {**kept, **plain, "PYTHONPATH": here, **more}
