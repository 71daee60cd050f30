"""JAX's own profiler as an engine. It writes sessions itself; ours goes beside them as a host."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sm_tblog._errors import InvalidValueError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sm_tblog.profile.engines import Engine
    from sm_tblog.profile.xspace import Space

__all__ = ["jax_engine"]


def jax_engine(*, memory: bool = False) -> Engine:  # noqa: ARG001 - JAX's has no such option
    """Return an engine that records what JAX does, by ``jax.profiler``.

    Raises:
        MissingDependencyError: JAX is not installed.
    """
    try:
        import jax.profiler  # noqa: F401
    except ImportError as error:
        message = "jax_engine needs JAX: python -m pip install jax"
        raise MissingDependencyError(message) from error
    return _JaxEngine()


class _JaxEngine:
    name = "JAX's profiler"

    def __init__(self) -> None:
        self._folder = ""

    def start(self) -> None:
        import jax.profiler

        folder = tempfile.mkdtemp(prefix="sm_tblog-")
        try:
            jax.profiler.start_trace(folder)
        except RuntimeError as error:
            shutil.rmtree(folder)
            message = f"profile: JAX's profiler does not start: {error}"
            raise InvalidValueError(message) from error
        self._folder = folder

    def stop(self) -> None:
        import jax.profiler

        jax.profiler.stop_trace()

    def export(self, space: Space) -> Mapping[str, bytes] | None:
        try:
            files = list(Path(self._folder).glob("plugins/profile/*/*.xplane.pb"))
            return {f"{space.hostname}-jax.xplane.pb": file.read_bytes() for file in files}
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
