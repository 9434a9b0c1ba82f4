"""Threads of this process that compute shares of a batch.

A `concurrent.futures` pool puts a thread to sleep after every task, and waking it takes longer than a small share of a
batch does; worse, a scheduler tends to wake it on the core of the thread that called, where it waits. These stay
awake for a moment, giving way to whatever else wants the core, as the threads of OpenMP do. And they begin when the
caller's kernel has begun (`KERNEL_STARTED` counts that): before, Python's lock would put them to sleep.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Sequence
from threading import Lock, Thread
from typing import Any, TypeVar

import numpy as np

from qtm._engines.statevector.kernels import simd

Result = TypeVar("Result")

# How often a thread looks for work before it sleeps: about two milliseconds on an idle core, where looking and giving
# way take half a microsecond together.
_LOOKS = 4000
_PATIENCE = 1.0  # seconds for a thread to end


KERNEL_STARTED = np.zeros(1, np.int64)


class _Worker:
    """A thread that does one call at a time for whoever took it from `_IDLE`."""

    def __init__(self, number: int) -> None:
        self._returned = np.zeros(1, np.int64)  # calls that are done
        self._ready, self._done = Lock(), Lock()  # held, but for a call that waits to be taken up, or collected
        self._ready.acquire()
        self._done.acquire()
        self._call: Callable[[], Any] | None = None
        self._before = 0
        self._outcome: tuple[Any, BaseException | None] = (None, None)
        self._thread = Thread(target=self._run, name=f"qtm-{number}", daemon=True)
        self._thread.start()

    def hand_over(self, call: Callable[[], Any]) -> None:
        """Give the worker a call, to begin when a kernel of the caller does, or soon after."""
        self._call, self._before = call, self._returned[0]
        self._ready.release()

    def collect(self) -> tuple[Any, BaseException | None]:
        """What the call returned, or what it raised."""
        simd.spin_until_changed(self._returned, self._before, _LOOKS)
        self._done.acquire()
        outcome, self._outcome = self._outcome, (None, None)
        return outcome

    def dismiss(self) -> None:
        """End the thread."""
        self._ready.release()  # without a call
        self._thread.join(_PATIENCE)

    def _run(self) -> None:
        while True:
            simd.spin_until_changed(KERNEL_STARTED, KERNEL_STARTED[0], _LOOKS)
            self._ready.acquire()
            call, self._call = self._call, None
            if call is None:
                return
            try:
                self._outcome = call(), None
            except BaseException as error:  # noqa: BLE001  (raised where the call is collected)
                self._outcome = None, error
            self._returned[0] += 1
            self._done.release()


_IDLE: list[_Worker] = []
_LOCK = Lock()


def _start_anew() -> None:
    """Threads do not survive a fork: a child (a DataLoader worker, say) starts its own on first use."""
    global _LOCK
    _LOCK = Lock()
    _IDLE.clear()


@atexit.register
def _shutdown() -> None:
    """At the end of the process no thread may be in compiled code, which goes away."""
    KERNEL_STARTED[0] += 1
    while _IDLE:
        _IDLE.pop().dismiss()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


def _take_workers(count: int) -> list[_Worker]:
    """As many workers as asked for, so that a team, whose members wait for each other, is always complete."""
    with _LOCK:
        hired = [_IDLE.pop() for _ in range(min(count, len(_IDLE)))]
    return hired + [_Worker(number) for number in range(len(hired), count)]


def run_together(calls: Sequence[Callable[[], Result]]) -> list[Result]:
    """The results of all calls, in order; the calling thread does the first one."""
    if len(calls) == 1:
        return [calls[0]()]
    workers = _take_workers(len(calls) - 1)
    for worker, call in zip(workers, calls[1:], strict=True):
        worker.hand_over(call)
    try:
        first = calls[0]()
    finally:
        outcomes = [worker.collect() for worker in workers]
        _IDLE.extend(workers)
    for _, error in outcomes:
        if error is not None:
            raise error
    return [first, *(result for result, _ in outcomes)]
