"""An engine that runs TensorFlow's own profiler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sm_tblog._errors import MissingDependencyError
from sm_tblog.profile.engines.folder import FolderEngine

if TYPE_CHECKING:
    from sm_tblog.profile.engine import Engine

__all__ = ["tensorflow_engine"]


def tensorflow_engine(*, with_stack: bool = False) -> Engine:
    """Return an engine that records TensorFlow with ``tf.profiler.experimental``.

    Args:
        with_stack: whether to record each call of a Python function, which slows Python down.

    Raises:
        MissingDependencyError: TensorFlow is not installed.
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        message = "tensorflow_engine needs TensorFlow: python -m pip install tensorflow"
        raise MissingDependencyError(message) from error
    profiler = tf.profiler.experimental
    options = profiler.ProfilerOptions(python_tracer_level=int(with_stack))
    return FolderEngine(
        "TensorFlow's profiler",
        lambda folder: profiler.start(folder, options=options),
        profiler.stop,
        profiler.Trace,
        tf.errors.OpError,
    )
