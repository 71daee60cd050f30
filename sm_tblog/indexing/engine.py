"""Executes tasks: in this process, in a pool of processes, or on a Dask cluster."""

from __future__ import annotations

import multiprocessing
import os
import threading
from asyncio import CancelledError
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import StoreError, TBLogError
from sm_tblog.indexing.parts import convert
from sm_tblog.readers.tables import require

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sm_tblog.indexing.parts import Converted, Task

__all__ = ["execute"]

MAX_BROKEN = 3
"""Times that a pool is started again after one of its processes was killed."""

CONNECT_TIMEOUT = 30
"""Seconds to wait for the Dask scheduler."""


def execute(
    tasks: Sequence[Task], workers: int = 1, scheduler: str | None = None
) -> Iterator[Converted]:
    """Iterate over the results, in the order in which tasks end.

    Args:
        tasks: the tasks.
        workers: number of processes; 1 for this process alone.
        scheduler: the address of a Dask scheduler, which then executes the tasks.

    Raises:
        MissingDependencyError: ``distributed`` is not installed.
        StoreError: a part cannot be written, processes are killed again and again, or the cluster
            cannot be reached or fails.
    """
    if scheduler is not None:
        yield from _on_dask(tasks, scheduler)
    elif workers == 1 or len(tasks) <= 1:
        yield from map(convert, tasks)
    else:
        yield from _in_pool(tasks, workers)


def _in_pool(tasks: Sequence[Task], workers: int) -> Iterator[Converted]:
    waiting = {task.name: task for task in tasks}
    context = multiprocessing.get_context("spawn")
    for _ in range(1 + MAX_BROKEN):
        with ProcessPoolExecutor(
            min(workers, len(waiting)), mp_context=context, initializer=_end_with_parent
        ) as pool:
            try:
                futures = [pool.submit(convert, task) for task in waiting.values()]
                for future in as_completed(futures):
                    done = future.result()
                    del waiting[done.name]
                    yield done
            except BrokenProcessPool:
                continue
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        return
    message = (
        f"processes that read runs were killed {1 + MAX_BROKEN} times, perhaps because memory ran "
        "out; use fewer workers. What they have finished is kept"
    )
    raise StoreError(message)


def _end_with_parent() -> None:
    """End this process when its parent is killed; a pool's processes would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_wait_and_exit, args=(parent,), daemon=True).start()


def _wait_and_exit(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _on_dask(tasks: Sequence[Task], scheduler: str) -> Iterator[Converted]:
    distributed: Any = require("distributed", "scheduler", "dask")
    try:
        client = distributed.Client(scheduler, timeout=CONNECT_TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:
        message = f"cannot reach the Dask scheduler at {scheduler}: {error}"
        raise StoreError(message) from error
    with client:
        futures = client.map(convert, tasks, pure=False)
        for future in distributed.as_completed(futures, loop=client.loop):
            try:
                done = future.result()
            except TBLogError:
                raise
            except (Exception, CancelledError) as error:
                message = (
                    f"the Dask cluster at {scheduler} did not read all runs: "
                    f"{type(error).__name__}: {error}. What it has finished is kept"
                )
                raise StoreError(message) from error
            yield done
