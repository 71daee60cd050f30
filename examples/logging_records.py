"""Log the records of Python's logging along with the metrics of a training loop.

python examples/logging_records.py runs/logging
"""

import logging
import sys

from sm_tblog import Writer
from sm_tblog.adapters.logging import TensorBoardHandler

logdir = sys.argv[1] if sys.argv[1:] else "runs/logging"

logger = logging.getLogger("training")
logger.setLevel("INFO")

with Writer(logdir) as writer:
    handler = TensorBoardHandler(writer, step=lambda: writer.step)
    logger.addHandler(handler)
    logger.addHandler(logging.StreamHandler())  # also log to the console
    for writer.step in range(100):
        loss = 1 / (writer.step + 1)
        writer.add_scalar("loss", loss)
        if writer.step % 20 == 0:
            logger.info("step %d: loss %.3f", writer.step, loss)
    logger.warning("the learning rate was never changed")
    handler.close()
