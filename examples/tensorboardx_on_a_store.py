"""Make tensorboardX write to a store of this library: here a local directory, usually s3://.

pip install tensorboardX
python examples/tensorboardx_on_a_store.py runs/tensorboardx
python examples/tensorboardx_on_a_store.py s3://bucket/run
"""

import sys

from tensorboardX import SummaryWriter

from sm_tblog.adapters.tensorboardx import register

logdir = sys.argv[1] if sys.argv[1:] else "runs/tensorboardx"
if "://" not in logdir:
    # tensorboardX writes to a plain path itself; with this scheme, it uses a store for it.
    from pathlib import Path

    logdir = f"local://{Path(logdir).absolute()}"

register(logdir.partition("://")[0])
with SummaryWriter(logdir) as writer:
    for step in range(100):
        writer.add_scalar("loss", 1 / (step + 1), step)
