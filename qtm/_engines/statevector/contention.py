"""Keeps kernels from waiting for a core that something else keeps busy.

Between two of its operations PyTorch's OpenMP threads spin for milliseconds. On a machine with no core to spare they
take that of a kernel's second thread, which then begins when the first is done, or still later: a step of a hybrid
model took up to seven times as long on two threads as on one.
"""

from __future__ import annotations

import logging
import os
from time import perf_counter

import torch

_LOGGER = logging.getLogger("qtm")
_LEAST_SECONDS = 5e-5  # a shorter delay is a matter of waking up
_WORTH_IT = 0.85  # several threads that take longer than this share of what one would take are not
_CALLS, _DELAYED = 80, 20  # a single delay is a matter of chance
_SECONDS_ALONE = 10.0


class Contention:
    """Whether several threads take as long as one, from how long callers compute and then wait for the others."""

    def __init__(self) -> None:
        self._calls = self._delayed = 0
        self._alone_until = 0.0
        self._said = False

    def note(self, threads: int, computed: float, waited: float) -> None:
        """One call: seconds of the caller's own share, the largest, and seconds that it waited for the others then."""
        self._calls += 1
        self._delayed += waited > max(_LEAST_SECONDS, (_WORTH_IT * threads - 1) * computed)
        if self._calls < _CALLS:
            return
        if self._delayed >= _DELAYED:
            self._alone_until = perf_counter() + _SECONDS_ALONE
            if not self._said:
                self._said = True
                _LOGGER.warning(_advice())
        self._calls = self._delayed = 0

    def is_crowded(self) -> bool:
        """Whether one thread is faster at present; asked again after a while."""
        return perf_counter() < self._alone_until


def _advice() -> str:
    problem = "qtm uses one thread: its others wait for a core that something else keeps busy"
    passive = os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive"
    if passive or torch.get_num_threads() == 1:
        return f"{problem}, another process for one; free it, or build modules with num_threads_forward=1"
    return (
        f"{problem}, most likely PyTorch's {torch.get_num_threads()} threads, which spin between two operations; set "
        "OMP_WAIT_POLICY=PASSIVE in the environment before Python starts, or call torch.set_num_threads(1)"
    )


CONTENTION = Contention()
