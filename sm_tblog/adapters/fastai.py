"""fastai: callbacks.

::

    from sm_tblog.adapters.fastai import TensorBoardCallback

    learner.fit(3, cbs=TensorBoardCallback("runs/a", trace_model=False))

They are fastai's own ``TensorBoardCallback`` and ``TensorBoardProjectorCallback`` with a different
writer. Arguments, tags and steps are the same.
"""

from __future__ import annotations

from sm_tblog import Writer
from sm_tblog.adapters._target import missing

try:
    from fastai.callback import tensorboard
except ImportError as error:
    raise missing(package="fastai", error=error) from error

__all__ = ["TensorBoardCallback", "TensorBoardProjectorCallback"]


class TensorBoardCallback(tensorboard.TensorBoardCallback):
    """Callback that logs the losses, metrics, settings and predictions of a ``Learner``."""

    log_dir: str | None

    def _setup_writer(self) -> None:
        self.writer = Writer(self.log_dir)


class TensorBoardProjectorCallback(tensorboard.TensorBoardProjectorCallback):
    """Callback that logs the features of a ``Learner``'s images as an embedding."""

    log_dir: str | None

    def _setup_writer(self) -> None:
        self.writer = Writer(self.log_dir)
