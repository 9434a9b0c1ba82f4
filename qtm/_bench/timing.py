"""Times of calls that take turns, A B B A, so that a busy moment of the machine affects all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

# A call shorter than this is timed several times in each of its turns, for about as long as this, after a few calls
# that wake the caches and the threads.
SHORT = 0.05
LEAST, MOST = 5, 50
# Threads of the previous contestant may still wait for work in a busy loop: let them go to sleep.
PAUSE = 0.1


@dataclass(slots=True)
class Times:
    """Seconds of the turns of one contestant."""

    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median of the turns, in seconds."""
        return statistics.median(self.seconds)

    def summary(self, scale: float = 1e3) -> dict[str, float]:
        """Median and quartiles, by default in milliseconds."""
        ordered = sorted(self.seconds)
        low, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.25, 0.75))
        return {"median": scale * self.median, "low": scale * low, "high": scale * high}


def clock(call: Callable[[], object], now: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of one call, by the clock ``now``."""
    began = now()
    call()
    return now() - began


def turn(timed: Callable[[], float], expected: float, of_burst: Callable = statistics.median) -> float:
    """Seconds of one turn: of a single call or, for short calls, a statistic of a few of them.

    Args:
        timed: makes the call and returns how many seconds count.
        expected: about how long it takes, in seconds.
        of_burst: what the figure of a few calls is.
    """
    if expected > SHORT:
        return timed()
    calls = min(max(int(SHORT / max(expected, 1e-9)), LEAST), MOST)
    for _ in range(calls // LEAST):
        timed()
    seconds: float = of_burst([timed() for _ in range(calls)])
    return seconds


def alternate(
    contestants: Sequence[Callable[[], float]],
    repeats: int,
    pause: float | None = None,
    of_burst: Callable = statistics.median,
) -> list[Times]:
    """Times of all contestants, which take turns; every other round runs backwards.

    Args:
        contestants: each makes its call and returns how many seconds count.
        repeats: rounds.
        pause: seconds of rest before a turn, `PAUSE` by default.
        of_burst: what the figure of a few short calls is.
    """
    times = [Times() for _ in contestants]
    for timed in contestants:  # what is done at the first call only
        timed()
    expected = [timed() for timed in contestants]
    for number in range(repeats):
        order = range(len(contestants)) if number % 2 == 0 else range(len(contestants) - 1, -1, -1)
        for which in order:
            time.sleep(PAUSE if pause is None else pause)
            times[which].seconds.append(turn(contestants[which], expected[which], of_burst))
    return times
