"""An engine that runs JAX's own profiler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidValueError, MissingDependencyError
from sm_tblog.profile.engines.folder import FolderEngine

if TYPE_CHECKING:
    from sm_tblog.profile.engine import Engine

__all__ = ["jax_engine"]


def jax_engine(*, with_stack: bool = False) -> Engine:
    """Return an engine that records JAX with ``jax.profiler``.

    JAX must have run something before the session starts. Otherwise its profiler would start its
    backends, and a GPU backend takes most of the available memory.

    Args:
        with_stack: whether to record each call of a Python function, which slows Python down.

    Raises:
        MissingDependencyError: JAX is not installed.
    """
    try:
        import jax.profiler
    except ImportError as error:
        message = "jax_engine needs JAX: python -m pip install jax"
        raise MissingDependencyError(message) from error

    def start(folder: str) -> None:
        if not _is_in_use():
            message = "JAX has not run anything in this process yet; profile after a first step"
            raise InvalidValueError(message)
        options: dict[str, Any] = {}
        if hasattr(jax.profiler, "ProfileOptions"):  # JAX 0.5.3; older ones record functions
            options["profiler_options"] = jax.profiler.ProfileOptions()
            options["profiler_options"].python_tracer_level = int(with_stack)
        jax.profiler.start_trace(folder, **options)

    engine = FolderEngine(
        "JAX's profiler",
        start,
        jax.profiler.stop_trace,
        jax.profiler.TraceAnnotation,
        RuntimeError,
    )
    engine.is_in_use = _is_in_use
    return engine


def _is_in_use() -> bool:
    from jax._src import xla_bridge

    return bool(getattr(xla_bridge, "backends_are_initialized", lambda: True)())
