"""Accelerate: a tracker.

::

    from sm_tblog.adapters.accelerate import TensorBoardTracker

    accelerator = Accelerator(log_with=TensorBoardTracker("runs/a"))
    accelerator.init_trackers("project", config={"lr": 1e-3})
    accelerator.log({"loss": loss}, step=step)
    accelerator.end_training()

Its name is ``tensorboard``, so ``accelerator.get_tracker("tensorboard")`` finds it. Tags and steps
are the same as those of Accelerate's own tracker of that name. Differences: the configuration
becomes the hyperparameters of the run itself, not of a separate run; logging does not wait for
numbers on a device; and the log directory can be a URL.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from sm_tblog import InvalidTypeError
from sm_tblog.adapters._target import Target, missing
from sm_tblog.adapters._values import log_value

try:
    import yaml
    from accelerate.tracking import GeneralTracker, on_main_process
except ImportError as error:
    raise missing(package="accelerate", error=error) from error

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from sm_tblog import Writer

__all__ = ["TensorBoardTracker"]


class TensorBoardTracker(GeneralTracker):
    """Tracker that logs the values of an ``Accelerator`` to TensorBoard, in its main process.

    You can also register the class with ``accelerate.tracking.register_tracker_class``. Then
    ``init_trackers`` creates the tracker, with the project's name and ``logging_dir``.

    Args:
        logdir_or_writer: the log directory, a path or URL, or a ``Writer``, which stays open. By
            default, the directory that ``Writer`` chooses.
        logging_dir: the parent directory of the log directory.
        writer_options: further arguments of ``Writer``, unless the first argument is a writer.

    Raises:
        InvalidTypeError: the first argument is neither a log directory nor a writer, or
            ``logging_dir`` is given without the name of a directory.
    """

    name = "tensorboard"
    requires_logging_directory = True
    main_process_only = True

    def __init__(
        self,
        logdir_or_writer: str | PathLike[str] | Writer | None = None,
        logging_dir: str | PathLike[str] | None = None,
        **writer_options: Any,
    ) -> None:
        super().__init__()
        target: Any = logdir_or_writer
        if logging_dir is not None:
            if not isinstance(target, (str, os.PathLike)):
                message = f"logging_dir: the first argument must be a directory, got {target!r:.60}"
                raise InvalidTypeError(message)
            target = f"{os.fspath(logging_dir).rstrip('/')}/{os.fspath(target)}"
        self._target = Target(target, **writer_options)

    @property
    def tracker(self) -> Writer:
        """The writer."""
        return self._target.writer

    @on_main_process
    def start(self) -> None:
        """Create the log directory."""
        self._target.writer  # noqa: B018 - reading it creates it

    @on_main_process
    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Log the configuration as hyperparameters of the run, and to ``hparams.yml`` beside it.

        Args:
            values: a mapping, possibly nested, as for ``Writer.hparams``.
        """
        self._target.writer.hparams(values)
        with contextlib.suppress(yaml.YAMLError):  # objects, which are logged as text above
            self._target.writer.add_file("hparams.yml", yaml.safe_dump(values))

    @on_main_process
    def log(self, values: Mapping[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Log values by tag.

        Args:
            values: by tag, a number, an array with one element, a text, or a mapping of numbers,
                which becomes a chart with a run for each curve, as with ``add_scalars``. Anything
                else is left out with a warning.
            step: any integer; by default ``writer.step``.
            kwargs: keyword arguments for ``add_scalar``, ``add_text`` or ``add_scalars``.
        """
        for tag, value in values.items():
            log_value(self._target.writer, tag, value, step, **kwargs)

    @on_main_process
    def log_images(self, values: Mapping[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Log batches of images by tag.

        Args:
            values: batches of images by tag, as for ``Writer.add_images``.
            step: any integer; by default ``writer.step``.
            kwargs: keyword arguments for ``add_images``, such as ``dataformats``.
        """
        for tag, images in values.items():
            self._target.writer.add_images(tag, images, step, **kwargs)

    @on_main_process
    def finish(self) -> None:
        """Store everything and close the file."""
        self._target.close()
