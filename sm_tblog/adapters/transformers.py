"""Transformers: a callback for ``Trainer``.

::

    from sm_tblog.adapters.transformers import TensorBoardCallback

    trainer = Trainer(model, TrainingArguments("out"), callbacks=[TensorBoardCallback()])

The directory, tags and steps are the same as those of Transformers' own ``TensorBoardCallback``:

================  ============================================================================
tag               content
================  ============================================================================
``train/<name>``  a value that ``Trainer`` logs, at its global step; a text if it is a text
``eval/<name>``   the same for values named ``eval_<name>``
``test/<name>``   the same for values named ``test_<name>``
``args``          the training arguments, a text
``model_config``  the model's configuration, a text
================  ============================================================================

In addition, the training arguments and the values that a search has chosen for a trial become the
run's hyperparameters. Logging does not wait for numbers on a device, and does not flush: everything
is in the file within a second anyway.
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
    """Callback that logs the values of a ``Trainer`` to TensorBoard, in the process of rank 0.

    It can be pickled and deep-copied. Training or evaluating again logs to the same directory, in a
    new file. When training resumes from a checkpoint, the repeated steps supersede the earlier ones
    in the directory.

    Args:
        logdir_or_writer: the log directory, a path or URL, or a ``Writer``, which stays open. By
            default, the directory in the environment variable ``TENSORBOARD_LOGGING_DIR``, or else
            ``runs/<date>_<host>`` in the output directory. In a search, each named trial gets a
            subdirectory.
        hparams: whether to log the training arguments as hyperparameters.
        writer_options: further arguments of ``Writer``, unless the first argument is a writer.

    Raises:
        InvalidTypeError: the first argument is neither a log directory nor a writer.
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
        # The Trainer decides which process logs.
        options = {} if isinstance(given, Writer) else {"rank_zero_only": False}
        self._options = {**options, **writer_options}
        self._logdir = given if isinstance(given, (str, os.PathLike)) else None
        self._target = None if given is None else Target(given, **self._options)
        self._hparams = hparams

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log the training arguments and the model's configuration."""
        del control
        if not state.is_world_process_zero:
            return
        self._start_training(args, state)
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
        """Log the values that the ``Trainer`` reports."""
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

    def _start_training(self, args: TrainingArguments, state: TrainerState) -> None:
        """Choose the directory of a training, and the first step that it supersedes."""
        target = self._target_of(args)
        if state.is_hyper_param_search and state.trial_name and target.is_owned:
            target.close()
            logdir = f"{str(self._logdir).rstrip('/')}/{state.trial_name}"
            target = Target(logdir, **self._options)
        if state.global_step:
            target = target.resumed(state.global_step + 1)
        self._target = target

    def _target_of(self, args: TrainingArguments) -> Target:
        if self._target is None:
            self._logdir = _default_logdir(args)
            self._target = Target(self._logdir, **self._options)
        return self._target


def register(name: str = "tensorboard") -> None:
    """Make ``TrainingArguments(report_to=name)`` select this module's callback.

    Args:
        name: the name to register. By default, it replaces Transformers' own callback.
    """
    integration_utils.INTEGRATION_TO_CALLBACK[name] = TensorBoardCallback


def _tag(name: str) -> str:
    prefix, _, rest = name.partition("_")
    return f"{prefix}/{rest}" if rest and prefix in ("eval", "test") else f"train/{name}"


def _default_logdir(args: TrainingArguments) -> str:
    now = time.strftime("%b%d_%H-%M-%S")
    return f"{str(args.output_dir).rstrip('/')}/runs/{now}_{socket.gethostname()}"
