"""Split a batch evenly over workers, and run the shares on any `concurrent.futures` executor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from itertools import pairwise
from typing import Any, TypeVar

from qtm._arguments import check_method, is_whole, refused
from qtm._errors import QtmError, WorkerError
from qtm._machine import available_cores

Result = TypeVar("Result")


def resolve_threads(num_threads: int) -> int:
    """Number of workers meant by ``num_threads``; 0 means all cores.

    Raises:
        ParameterError: ``num_threads`` is negative or not an integer.
    """
    if not is_whole(num_threads) or num_threads < 0:
        raise refused("num_threads", "0 (all cores) or a positive integer", num_threads, "give the threads to use")
    return int(num_threads) or available_cores()


def check_executor(executor: Executor | None) -> None:
    """Refuse an object that is not an executor.

    Raises:
        ParameterError: it has no method ``submit``.
    """
    if executor is not None:
        advice = "give a ProcessPoolExecutor, say, or None for threads of this process"
        check_method(executor, "executor", "submit", "a concurrent.futures.Executor, or have its interface", advice)


def deal(tasks: int, workers: int) -> list[tuple[int, int]]:
    """Contiguous shares (first, last) of ``tasks``, as even as possible; no share is empty.

    The first ``tasks - workers * floor(tasks / workers)`` workers get one more (Meyer et al. 2024, sec. II-B).

    Example:
        >>> deal(7, 3)
        [(0, 3), (3, 5), (5, 7)]
    """
    workers = max(1, min(tasks, workers))
    share, more = divmod(tasks, workers)
    ends = [0]
    for worker in range(workers):
        ends.append(ends[-1] + share + (worker < more))
    return [(a, b) for a, b in pairwise(ends) if b > a]


def workers_of(executor: Executor) -> int:
    """Number of workers of an executor if it is known, otherwise the cores of this machine."""
    count = getattr(executor, "_max_workers", None)  # concurrent.futures, and executors modelled on it
    client: Any = getattr(executor, "_client", None)  # dask: its cluster may be on other machines, and larger
    if count is None and hasattr(client, "nthreads"):
        count = sum(client.nthreads().values())
    return count or available_cores()


def executor_map(executor: Executor, function: Callable[..., Result], tasks: Sequence[tuple[Any, ...]]) -> list[Result]:
    """Results of ``function(*task)`` for all tasks on an executor, in order.

    Raises:
        WorkerError: a worker died, a task failed, or the executor accepts no more tasks; no result is silently missing.
        QtmError: raised by a task itself.
    """
    futures: list[Future[Result]] = []
    for task in tasks:
        try:
            futures.append(executor.submit(function, *task))
        except RuntimeError as error:  # broken (BrokenExecutor), or shut down
            raise WorkerError(
                f"the executor is shut down or broken and accepts no more tasks ({error}); create a new one"
            ) from error
    for number, future in enumerate(futures, 1):
        failure = _failure(future)
        if failure is None:
            continue
        for other in futures:
            other.cancel()
        if isinstance(failure, QtmError):
            raise failure
        raise WorkerError(_what_happened(failure, f"share {number} of {len(tasks)}")) from failure
    return [future.result() for future in futures]


def _failure(future: Future) -> BaseException | None:
    """Wait for a task; its exception, also if it was cancelled."""
    try:
        return future.exception()
    except CancelledError as error:
        return error


def _what_happened(error: BaseException, share: str) -> str:
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, BrokenExecutor):
        return (
            f"a worker died while it computed {share} ({reason}); it may have run out of memory. "
            "Create a new executor, with fewer workers or smaller batches"
        )
    return f"a worker could not compute {share} ({reason})"
