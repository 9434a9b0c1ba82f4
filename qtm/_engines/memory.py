"""Outputs that would not fit the memory are refused before they are made."""

from __future__ import annotations

from qtm._errors import OutOfMemory
from qtm._machine import free_memory

_SMALL = 1 << 24  # bytes for which asking how much memory is free takes longer than it is worth


def check_room(what: str, samples: int, numbers: int, itemsize: int) -> None:
    """Whether an output (samples, numbers) fits the free memory.

    Raises:
        OutOfMemory: it does not; the message says how much it needs.
    """
    needed = samples * numbers * itemsize
    if needed > _SMALL and needed > (free := free_memory()):
        raise OutOfMemory(
            f"{what} of {samples} samples need {needed / 2**30:.3g} GiB, and {free / 2**30:.1f} GiB of memory are "
            "free; use fewer samples or qubits"
        )
