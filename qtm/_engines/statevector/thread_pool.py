"""Threads of this process that compute shares of a batch.

A `concurrent.futures` pool puts a thread to sleep after every task, and waking it takes longer than computing a small
share of a batch; worse, the scheduler tends to wake it on the core of the calling thread, where it waits. These threads
stay awake for a moment and yield the core to others, as OpenMP's threads do. They start when the caller's kernel has
started (`KERNEL_STARTED` counts that): before, they would sleep waiting for Python's lock.

No thread outlives its use, wherever an interrupt (Ctrl-C) strikes. A worker puts itself back into the idle list when
its call is done. A worker that is lost because an interrupt came between taking it and giving it a call ends: its
thread holds only a weak reference to it, whose callback ends the thread.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any
from weakref import ref

import numpy as np

from qtm._engines.statevector.contention import Contention, clock
from qtm._engines.statevector.kernels import simd

# Number of times a thread checks for work before it sleeps: about two milliseconds on an idle core, where one check
# with a yield takes half a microsecond.
_LOOKS = 4000
_JOIN_SECONDS = 1.0  # seconds to wait for a thread to end

KERNEL_STARTED = np.zeros(1, np.int64)


class _Task:
    """A call for a worker, and its result."""

    def __init__(self, call: Callable[[], Any], abort: Callable[[], None], worker: _Worker) -> None:
        self.call, self.abort, self.worker = call, abort, worker
        self.result: Any = None
        self.error: BaseException | None = None
        self._done = Lock()
        self._done.acquire()

    def perform(self) -> None:
        """Run the call; then its worker is idle again."""
        try:
            self.result = self.call()
        except BaseException as error:  # noqa: BLE001  (raised where the result is asked for)
            self.error = error
            self.abort()
        _IDLE[id(self.worker)] = self.worker
        self._done.release()

    def wait(self, seen: int) -> None:
        """Return when the call is done; ``seen``: number of tasks that the worker had finished before."""
        simd.spin_until_changed(self.worker.finished, seen, _LOOKS)
        self._done.acquire()
        self._done.release()


class _Worker:
    """A thread that runs one task at a time for the caller that took it from `_IDLE`."""

    def __init__(self, number: int) -> None:
        self.finished = np.zeros(1, np.int64)  # number of finished tasks
        self.tasks: SimpleQueue[Any] = SimpleQueue()
        # The callback puts the dead reference into the queue; it is not a task, so the thread ends.
        self.thread = Thread(
            target=_serve,
            args=(self.tasks, self.finished, ref(self, self.tasks.put)),
            name=f"qtm-{number}",
            daemon=True,
        )
        self.thread.start()

    def dismiss(self) -> None:
        """End the thread."""
        self.tasks.put(None)
        self.thread.join(_JOIN_SECONDS)


def _serve(tasks: SimpleQueue, finished: np.ndarray, own: ref[_Worker]) -> None:
    """Run tasks until something else arrives; between two tasks keep no reference to either."""
    simd.spin_until_changed(KERNEL_STARTED, KERNEL_STARTED[0], _LOOKS)
    while True:
        task = tasks.get()
        if not isinstance(task, _Task):
            return
        task.perform()
        del task
        # Counted without Python's lock: a caller that saw it earlier would sleep for 40 us, waiting for the lock.
        simd.count_and_spin(finished, KERNEL_STARTED, KERNEL_STARTED[0], _LOOKS)


_IDLE: dict[int, _Worker] = {}


@atexit.register
def _shutdown() -> None:
    """At the end of the process no thread may be in compiled code, which is unloaded."""
    KERNEL_STARTED[0] += 1
    while _IDLE:
        _IDLE.popitem()[1].dismiss()


if hasattr(os, "register_at_fork"):
    # Threads do not survive a fork: a child (such as a DataLoader worker) starts its own on first use.
    os.register_at_fork(after_in_child=_IDLE.clear)


def _take_workers(count: int) -> list[_Worker]:
    """Take the requested number of workers, so that a team, whose members wait for each other, is always complete."""
    taken: list[_Worker] = []
    for key in reversed(list(_IDLE)):  # single steps, which need no lock
        if len(taken) < count and (worker := _IDLE.pop(key, None)) is not None:
            taken.append(worker)
    while len(taken) < count:
        taken.append(_Worker(len(taken)))
    return taken


def _nothing() -> None:
    """Default of ``abort``: calls that do not wait for each other need no notice of a failure."""


def run_together(
    calls: Sequence[Callable[[], Any]],
    abort: Callable[[], None] = _nothing,
    contention: Contention | None = None,
) -> list[Any]:
    """The results of all calls, in order; the calling thread does the first one.

    Args:
        calls: the calls. Once one has started, all others have started or will start without waiting for others to end.
        abort: called when a call fails or the caller is interrupted, so that no other call waits for it.
        contention: records how long they took.
    """
    if len(calls) == 1:
        return [calls[0]()]
    workers = _take_workers(len(calls) - 1)
    seen = [worker.finished[0] for worker in workers]
    tasks: list[_Task] = []
    try:
        for worker, call in zip(workers, calls[1:], strict=True):
            task = _Task(call, abort, worker)
            worker.tasks.put(task)
            tasks.append(task)
        began, used = clock()
        first = calls[0]()
        computed = clock()[0] - began
    except BaseException:
        abort()
        _wait_for(tasks, seen)
        raise
    _wait_for(tasks, seen)
    if contention is not None:
        ended, used_at_end = clock()
        contention.note(len(calls), computed, ended - began, used_at_end - used)
    for task in tasks:
        if task.error is not None:
            raise task.error
    return [first, *(task.result for task in tasks)]


def _wait_for(tasks: list[_Task], seen: list[int]) -> None:
    for task, before in zip(tasks, seen, strict=False):
        task.wait(before)
