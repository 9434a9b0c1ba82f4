"""A progress bar for long work, where tqdm is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from qtm._errors import require

Tick = Callable[[int], None]
_DELAY = 2.0  # seconds before a bar appears by default


def no_tick(done: int) -> None:
    """Do nothing: the tick without a bar."""


@contextmanager
def progress_bar(wanted: bool | None, total: int, what: str) -> Iterator[Tick]:
    """Yield a function that advances a progress bar.

    Args:
        wanted: True: a bar. None: a bar on a terminal, after two seconds, if tqdm is installed. False: no bar.
        total: amount of work.
        what: name of the work.

    Raises:
        MissingPackage: a bar is wanted, and tqdm is not installed.
    """
    if wanted is False or (wanted is None and find_spec("tqdm") is None):
        yield no_tick
        return
    shown = {} if wanted else {"delay": _DELAY, "disable": None}  # None: only on a terminal
    with require("tqdm", "demo").tqdm(total=total, desc=what, unit=" entries", unit_scale=True, **shown) as bar:
        yield bar.update
