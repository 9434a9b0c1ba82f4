"""The course of a training run: losses, accuracies, times."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field


@dataclass(slots=True)
class History:
    """The course of a training: loss and seconds of every step, accuracies of every epoch."""

    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    held_out_accuracies: list[float] = field(default_factory=list)

    @property
    def step_milliseconds(self) -> float:
        """Median time of a step, which the first ones, when kernels may be compiled, do not affect."""
        return 1e3 * statistics.median(self.seconds)
