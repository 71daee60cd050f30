"""PyTorch-Ignite: a logger.

::

    from sm_tblog.adapters.ignite import TensorboardLogger

    with TensorboardLogger("runs/a") as logger:
        logger.attach_output_handler(
            trainer, Events.ITERATION_COMPLETED, tag="training", output_transform=lambda loss: loss
        )

It is Ignite's own ``TensorboardLogger`` with a different writer. It is a subclass because Ignite's
handlers accept no other class. Tags and steps are the same as Ignite's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sm_tblog.adapters._target import Target, missing

try:
    from ignite.handlers import tensorboard_logger
except ImportError as error:
    raise missing(package="pytorch-ignite", error=error) from error

if TYPE_CHECKING:
    from os import PathLike

    from sm_tblog import Writer

__all__ = ["TensorboardLogger"]


class TensorboardLogger(tensorboard_logger.TensorboardLogger):
    """Logger for Ignite's handlers that writes to TensorBoard, in the process of rank 0.

    Args:
        logdir_or_writer: the log directory, a path or URL, or a ``Writer``, which stays open. By
            default, the directory that ``Writer`` chooses.
        writer_options: further arguments of ``Writer``, unless the first argument is a writer.
            ``log_dir`` is accepted as another name of the first argument.

    Raises:
        InvalidTypeError: the first argument is neither a log directory nor a writer.
    """

    def __init__(
        self,
        logdir_or_writer: str | PathLike[str] | Writer | None = None,
        **writer_options: Any,
    ) -> None:
        # super().__init__ would create a writer of tensorboardX or PyTorch.
        if logdir_or_writer is None:
            logdir_or_writer = writer_options.pop("log_dir", None)
        self._target = Target(logdir_or_writer, **writer_options)

    @property
    def writer(self) -> Writer:
        """The writer that handlers log with. Its methods are also available on the logger."""
        return self._target.writer

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the writer."""
        if name.startswith("_"):  # a copy under construction has no writer yet
            raise AttributeError(name)
        return getattr(self.writer, name)

    def close(self) -> None:
        """Store everything and close the file."""
        self._target.close()
