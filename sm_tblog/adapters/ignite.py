"""PyTorch-Ignite: a logger.

::

    from sm_tblog.adapters.ignite import TensorboardLogger

    with TensorboardLogger("runs/a") as logger:
        logger.attach_output_handler(
            trainer, Events.ITERATION_COMPLETED, tag="training", output_transform=lambda loss: loss
        )

It is Ignite's own ``TensorboardLogger`` with another writer: Ignite's handlers work with no other
class, and log the tags and steps that they always do.
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
    """Logs what Ignite's handlers give it to TensorBoard, in the process of rank 0.

    Args:
        logdir_or_writer: the log folder, a path or URL; or a ``Writer``, which is not closed; by
            default the folder that ``Writer`` chooses.
        writer_options: further arguments of ``Writer``, for a folder; ``log_dir`` is another name
            of the first argument.

    Raises:
        InvalidTypeError: the first argument is neither a folder nor a writer.
    """

    def __init__(
        self,
        logdir_or_writer: str | PathLike[str] | Writer | None = None,
        **writer_options: Any,
    ) -> None:
        # Not the base's, which makes a writer of tensorboardX or PyTorch.
        if logdir_or_writer is None:
            logdir_or_writer = writer_options.pop("log_dir", None)
        self._target = Target(logdir_or_writer, **writer_options)

    @property
    def writer(self) -> Writer:
        """The writer, which handlers log with. Its methods are the logger's too."""
        return self._target.writer

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the writer."""
        if name.startswith("_"):  # while a copy is being made, there is no writer to ask
            raise AttributeError(name)
        return getattr(self.writer, name)

    def close(self) -> None:
        """Have everything stored, and close the file."""
        self._target.close()
