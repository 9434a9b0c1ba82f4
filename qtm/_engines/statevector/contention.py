"""Use one thread while several threads take as long.

PyTorch's OpenMP threads spin for milliseconds between two operations. On a machine without a free core they occupy the
core of a kernel's second thread, which then starts when the first one is done, or later: a step of a hybrid model took
up to seven times as long on two threads as on one. Other programs occupy cores as well, and a thread that slept may be
woken on the core of its caller.
"""

from __future__ import annotations

import logging
from time import perf_counter, process_time
from typing import ClassVar

import torch

_LOGGER = logging.getLogger("qtm")
_CALLS = 80  # calls that are judged together
_NO_GAIN = 0.95  # several threads that take more than this share of the time of one thread are not used
# Threads of torch are spinning if more than this many processors are busy; qtm's own threads spin less than that.
_SPINNING, _LEAST_SHARE = 1.5, 5e-5
# Both threads share a core for some milliseconds now and then, so the first pause is short; each further one without a
# gain in between is longer.
_FIRST_PAUSE, _LONGEST_PAUSE, _LONGER = 0.1, 10.0, 4.0  # seconds, seconds, times
_LONGEST = 2.0  # times one thread's: a longer call was interrupted by chance, and would outweigh all others


class Contention:
    """Compares the time of calls of one kind on several threads with the time on one thread."""

    _said: ClassVar[bool] = False

    def __init__(self) -> None:
        self._calls = 0
        # Seconds: of the calls, of one thread for the same calls, of the callers' shares, of processors.
        self._elapsed = self._alone = self._shares = self._used = 0.0
        self._alone_until, self._pause = 0.0, _FIRST_PAUSE

    def note(self, threads: int, computed: float, elapsed: float, used: float) -> None:
        """Record a call on several threads.

        Args:
            threads: number of threads.
            computed: seconds of the caller for its own share, the largest one.
            elapsed: seconds until all threads were done.
            used: processor time of the process meanwhile, in seconds.
        """
        self._calls += 1
        self._elapsed += min(elapsed, _LONGEST * threads * computed)
        self._alone += threads * computed
        self._shares += computed
        self._used += used
        if self._calls < _CALLS:
            return
        if self._elapsed > _NO_GAIN * self._alone:
            self._alone_until = perf_counter() + self._pause
            self._pause = min(_LONGER * self._pause, _LONGEST_PAUSE)
            spinning = self._used > _SPINNING * self._elapsed and self._shares > _LEAST_SHARE * self._calls
            if spinning and torch.get_num_threads() > 1:
                self._blame_torch()
        else:
            self._pause = _FIRST_PAUSE
        self._calls = 0
        self._elapsed = self._alone = self._shares = self._used = 0.0

    def is_crowded(self) -> bool:
        """Whether one thread is as fast at present; several threads are tried again after some time."""
        return perf_counter() < self._alone_until

    @classmethod
    def _blame_torch(cls) -> None:
        if cls._said:
            return
        cls._said = True
        _LOGGER.warning(
            "qtm uses one thread: its others wait for a core, most likely that of PyTorch's %d threads, which spin "
            "between two operations; set OMP_WAIT_POLICY=PASSIVE in the environment before Python starts, or call "
            "torch.set_num_threads(1)",
            torch.get_num_threads(),
        )


def clock() -> tuple[float, float]:
    """Wall-clock time and processor time of this process, in seconds."""
    return perf_counter(), process_time()
