"""Keeps kernels on one thread while several take as long.

Between two of its operations PyTorch's OpenMP threads spin for milliseconds. On a machine without a free core they
take that of a kernel's second thread, which then begins when the first is done, or still later: a step of a hybrid
model took up to seven times as long on two threads as on one. Other programs take cores as well, and a thread that
slept may be woken on the core of its caller.
"""

from __future__ import annotations

import logging
from time import perf_counter, process_time
from typing import ClassVar

import torch

_LOGGER = logging.getLogger("qtm")
_CALLS = 80  # judged together
_NO_GAIN = 0.95  # several threads that take more than this share of the time of one are not worth it
# Threads of torch spin if more than so many processors are busy meanwhile; those of qtm do so for shorter shares.
_SPINNING, _LEAST_SHARE = 1.5, 5e-5
_SECONDS_ALONE = 10.0
_LONGEST = 2.0  # times one thread's: a call that was interrupted for longer is chance, and would outweigh all others


class Contention:
    """Compares how long calls of one kind take on several threads with how long one thread takes."""

    _said: ClassVar[bool] = False

    def __init__(self) -> None:
        self._calls = 0
        # Seconds: of the calls, of one thread for them, of the callers' shares, of processors.
        self._elapsed = self._alone = self._shares = self._used = 0.0
        self._alone_until = 0.0

    def note(self, threads: int, computed: float, elapsed: float, used: float) -> None:
        """One call on several threads.

        Args:
            threads: how many.
            computed: seconds that the caller took for its own share, the largest.
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
            self._alone_until = perf_counter() + _SECONDS_ALONE
            spinning = self._used > _SPINNING * self._elapsed and self._shares > _LEAST_SHARE * self._calls
            if spinning and torch.get_num_threads() > 1:
                self._blame_torch()
        self._calls = 0
        self._elapsed = self._alone = self._shares = self._used = 0.0

    def is_crowded(self) -> bool:
        """Whether one thread is as fast at present; several are tried again after a while."""
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
