"""Accelerate: a tracker.

::

    from sm_tblog.adapters.accelerate import TensorBoardTracker

    accelerator = Accelerator(log_with=TensorBoardTracker("runs/a"))
    accelerator.init_trackers("project", config={"lr": 1e-3})
    accelerator.log({"loss": loss}, step=step)
    accelerator.end_training()

Its name is ``tensorboard``, so that ``accelerator.get_tracker("tensorboard")`` finds it. Tags and
steps are those of the library's own tracker of that name. The configuration is kept as the
hyperparameters of the run itself, where that one makes a run of its own for it; numbers on a device
are not waited for; and the folder may be a URL.
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
    """Logs what an ``Accelerator`` logs to TensorBoard, in its main process.

    It can be registered too, with ``accelerate.tracking.register_tracker_class``, and is then made
    by ``init_trackers``, with the project's name and ``logging_dir``.

    Args:
        logdir_or_writer: the log folder, a path or URL; or a ``Writer``, which is not closed; by
            default the folder that ``Writer`` chooses.
        logging_dir: the folder that the log folder is below.
        writer_options: further arguments of ``Writer``, for a folder.

    Raises:
        InvalidTypeError: the first argument is neither a folder nor a writer, or a writer and there
            is a ``logging_dir``.
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
                message = f"logging_dir: a folder's name belongs to it, got {target!r:.60}"
                raise InvalidTypeError(message)
            target = f"{os.fspath(logging_dir).rstrip('/')}/{os.fspath(target)}"
        self._target = Target(target, **writer_options)

    @property
    def tracker(self) -> Writer:
        """The writer."""
        return self._target.writer

    @on_main_process
    def start(self) -> None:
        """Make the log folder."""
        self._target.writer  # noqa: B018 - made when it is asked for

    @on_main_process
    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Log the configuration as hyperparameters of the run, and into ``hparams.yml`` beside it.

        Args:
            values: as ``Writer.hparams`` takes them, nested ones too.
        """
        self._target.writer.hparams(values)
        with contextlib.suppress(yaml.YAMLError):  # objects, which are hyperparameters as texts
            self._target.writer.add_file("hparams.yml", yaml.safe_dump(values))

    @on_main_process
    def log(self, values: Mapping[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Log values by tag.

        Args:
            values: numbers, and arrays with one element; texts; or mappings of numbers, each of
                which is a chart with a run for each curve, as ``add_scalars`` makes it. Anything
                else is left out and said.
            step: any integer; by default ``writer.step``.
            kwargs: passed to ``add_scalar``, ``add_text`` or ``add_scalars``.
        """
        for tag, value in values.items():
            log_value(self._target.writer, tag, value, step, **kwargs)

    @on_main_process
    def log_images(self, values: Mapping[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Log batches of images by tag.

        Args:
            values: as ``Writer.add_images`` takes them.
            step: any integer; by default ``writer.step``.
            kwargs: passed to ``add_images``, ``dataformats`` for example.
        """
        for tag, images in values.items():
            self._target.writer.add_images(tag, images, step, **kwargs)

    @on_main_process
    def finish(self) -> None:
        """Have everything stored, and close the file."""
        self._target.close()
