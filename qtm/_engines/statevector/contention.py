"""A warning, logged once, when the threads of kernels keep waiting for a core."""

from __future__ import annotations

import logging
import os

import torch

_LOGGER = logging.getLogger("qtm")
_LEAST_SECONDS = 5e-5  # shorter delays are wake-up times
_CALLS, _DELAYED = 80, 20  # single delays happen by chance


class Contention:
    """Compares the time that a caller computes with the time that it then waits for threads with equal shares.

    Between two of its operations PyTorch's OpenMP threads spin for milliseconds. On a machine with no core to spare
    they take that of a kernel: the other threads begin when the caller is done, or still later.
    """

    def __init__(self) -> None:
        self._calls = self._delayed = 0
        self._said = False

    def note(self, computed: float, waited: float) -> None:
        """One call: seconds of the caller's own share, the largest, and seconds that it waited for the others then."""
        self._calls += 1
        self._delayed += waited > max(_LEAST_SECONDS, 0.7 * computed)
        if self._calls < _CALLS:
            return
        if self._delayed >= _DELAYED and not self._said:
            self._said = True
            _LOGGER.warning(_advice())
        self._calls = self._delayed = 0


def _advice() -> str:
    problem = "qtm's threads keep waiting for a busy core"
    passive = os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive"
    if passive or torch.get_num_threads() == 1:
        return f"{problem}, which another process may be using; free it, or build modules with num_threads_forward=1"
    return (
        f"{problem}, most likely PyTorch's {torch.get_num_threads()} threads, which spin between two operations; set "
        "OMP_WAIT_POLICY=PASSIVE in the environment before Python starts, or call torch.set_num_threads(1)"
    )


CONTENTION = Contention()
