"""Index the runs of an experiment in a SageMaker Processing job, on several instances.

::

    python index.py --role arn:aws:iam::123456789012:role/SageMaker --image IMAGE \\
        --logdir s3://my-bucket/logs --instances 8
    sm-tblog index s3://my-bucket/logs

The first command starts the job. Each instance runs this script again, and reads its part of the
runs directly from S3. When the job has ended, the second command, on any machine, completes the
index. The image must contain Python, this script as ``/opt/ml/code/index.py``, and
``sm-tblog[parquet,s3]``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import sm_tblog

RESOURCES = Path("/opt/ml/config/resourceconfig.json")
"""Where a Processing job tells an instance its name and those of the others."""


def main() -> None:
    """Start the job or, on one of its instances, read a part of the runs."""
    options = parse_options()
    if RESOURCES.exists():
        read_shard(options.logdir, options.to, RESOURCES)
    else:
        import boto3

        boto3.client("sagemaker").create_processing_job(**make_request(options))


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the options, by default from the command line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--logdir", required=True, help="URL of the log directory")
    parser.add_argument("--to", help="URL of the index; by default beside the runs")
    parser.add_argument("--role", help="ARN of the job's role")
    parser.add_argument("--image", help="image with this script")
    parser.add_argument("--instances", type=int, default=4)
    parser.add_argument("--instance-type", default="ml.m5.xlarge")
    return parser.parse_args(arguments)


def read_shard(logdir: str, to: str | None, resources: Path) -> tuple[int, int]:
    """Read this instance's part of the runs; return which one it is."""
    config = json.loads(resources.read_text())
    hosts = sorted(config["hosts"])
    shard = hosts.index(config["current_host"]) + 1, len(hosts)
    index = sm_tblog.index(logdir, to, shard=shard, workers=4)
    print(f"shard {shard[0]} of {shard[1]}: {len(index.failed)} runs could not be read")
    return shard


def make_request(options: argparse.Namespace) -> dict[str, Any]:
    """Return the request that starts the job."""
    script = ["python", "/opt/ml/code/index.py", "--logdir", options.logdir]
    if options.to:
        script += ["--to", options.to]
    return {
        "ProcessingJobName": f"index-{time.strftime('%Y-%m-%d-%H-%M-%S')}",
        "RoleArn": options.role,
        "AppSpecification": {"ImageUri": options.image, "ContainerEntrypoint": script},
        "ProcessingResources": {
            "ClusterConfig": {
                "InstanceCount": options.instances,
                "InstanceType": options.instance_type,
                "VolumeSizeInGB": 30,
            }
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
    }


if __name__ == "__main__":
    main()
