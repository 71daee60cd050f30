"""Transformers: a callback for ``Trainer``.

::

    from sm_tblog.adapters.transformers import TensorBoardCallback

    trainer = Trainer(model, TrainingArguments("out"), callbacks=[TensorBoardCallback()])

Folder, tags and steps are those of the library's own ``TensorBoardCallback``:

================  ============================================================================
tag               what
================  ============================================================================
``train/<name>``  what ``Trainer`` logs, at its global step; texts as texts
``eval/<name>``   what it calls ``eval_<name>``
``test/<name>``   what it calls ``test_<name>``
``args``          the training arguments, a text
``model_config``  the model's configuration, a text
================  ============================================================================

Besides, the arguments and what a search has chosen for a trial are the run's hyperparameters.
Numbers on a device are not waited for, and nothing is flushed at each log: within a second all of
it is in the file anyway.
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Any

from sm_tblog import Writer
from sm_tblog.adapters._target import Target, missing
from sm_tblog.adapters._values import log_value

try:
    from transformers import TrainerCallback
    from transformers.integrations import integration_utils
except ImportError as error:
    raise missing(package="transformers", error=error) from error

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from transformers import TrainerControl, TrainerState, TrainingArguments

__all__ = ["TensorBoardCallback", "register"]


class TensorBoardCallback(TrainerCallback):
    """Logs what a ``Trainer`` logs to TensorBoard, in the process of rank 0.

    It may be pickled and deep-copied. Training and evaluating again log to the same folder, in a
    file of their own. A training that resumes from a checkpoint supersedes what the folder has of
    the steps that are done again.

    Args:
        logdir_or_writer: the log folder, a path or URL; or a ``Writer``, which is not closed. By
            default the folder that the variable ``TENSORBOARD_LOGGING_DIR`` names, or else
            ``runs/<date>_<host>`` in the output folder. In a search each trial with a name has a
            folder below.
        hparams: log the training arguments as hyperparameters.
        writer_options: further arguments of ``Writer``, for a folder.

    Raises:
        InvalidTypeError: the first argument is neither a folder nor a writer.
    """

    def __init__(
        self,
        logdir_or_writer: str | PathLike[str] | Writer | None = None,
        *,
        hparams: bool = True,
        **writer_options: Any,
    ) -> None:
        given = logdir_or_writer or os.environ.get("TENSORBOARD_LOGGING_DIR") or None
        if isinstance(given, str):
            given = os.path.expanduser(given)  # noqa: PTH111 - it may be a URL
        # Which process is the first one is what the Trainer says.
        options = {} if isinstance(given, Writer) else {"rank_zero_only": False}
        self._options = {**options, **writer_options}
        self._folder = given if isinstance(given, (str, os.PathLike)) else None
        self._target = None if given is None else Target(given, **self._options)
        self._hparams = hparams

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log what the training is made of."""
        del control
        if not state.is_world_process_zero:
            return
        self._begin(args, state)
        writer = self._target_of(args).writer
        writer.add_text("args", args.to_json_string())
        config: Any = getattr(kwargs.get("model"), "config", None)
        if hasattr(config, "to_json_string"):
            writer.add_text("model_config", config.to_json_string())
        if self._hparams:
            writer.hparams({**args.to_sanitized_dict(), **(state.trial_params or {})})

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Log what the ``Trainer`` logs."""
        del control, kwargs
        if not state.is_world_process_zero:
            return
        writer = self._target_of(args).writer
        for name, value in (logs or {}).items():
            log_value(writer, _tag(name), value, state.global_step)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the file."""
        del args, state, control, kwargs
        if self._target is not None:
            self._target.close()

    def _begin(self, args: TrainingArguments, state: TrainerState) -> None:
        """Choose the folder of a training, and what it supersedes."""
        target = self._target_of(args)
        if state.is_hyper_param_search and state.trial_name and target.is_owned:
            target.close()
            folder = f"{str(self._folder).rstrip('/')}/{state.trial_name}"
            target = Target(folder, **self._options)
        if state.global_step:
            target = target.resumed(state.global_step + 1)
        self._target = target

    def _target_of(self, args: TrainingArguments) -> Target:
        if self._target is None:
            self._folder = _default_folder(args)
            self._target = Target(self._folder, **self._options)
        return self._target


def register(name: str = "tensorboard") -> None:
    """Have ``TrainingArguments(report_to=name)`` mean this module's callback.

    Args:
        name: what to call it. By default it replaces the library's own.
    """
    integration_utils.INTEGRATION_TO_CALLBACK[name] = TensorBoardCallback


def _tag(name: str) -> str:
    prefix, _, rest = name.partition("_")
    return f"{prefix}/{rest}" if rest and prefix in ("eval", "test") else f"train/{name}"


def _default_folder(args: TrainingArguments) -> str:
    now = time.strftime("%b%d_%H-%M-%S")
    return f"{str(args.output_dir).rstrip('/')}/runs/{now}_{socket.gethostname()}"
