"""The memory that states may take, and the check that outputs fit before they are allocated."""

from __future__ import annotations

from qtm._errors import OutOfMemory
from qtm._machine import free_memory

MEMORY_SHARE = 0.5  # share of the free memory that states may take
SMALL = 1 << 24  # bytes below which querying the free memory is not worth its time


def budget(memory: int | None) -> int:
    """Bytes that states may take: the limit of the options, or if that is None a share of the free memory."""
    return memory if memory is not None else int(MEMORY_SHARE * free_memory())


def check_room(what: str, samples: int, numbers: int, itemsize: int) -> None:
    """Check that an output (samples, numbers) fits in the free memory.

    Raises:
        OutOfMemory: it does not; the message says how much it needs.
    """
    needed = samples * numbers * itemsize
    if needed > SMALL and needed > (free := free_memory()):
        raise OutOfMemory(
            f"{what} of {samples} samples need {needed / 2**30:.3g} GiB, and {free / 2**30:.1f} GiB of memory are "
            "free; use fewer samples or qubits"
        )


def is_too_large(size: float, memory: int | None) -> bool:
    """Whether states of ``size`` bytes exceed ``memory``, or if that is None their share of the free memory."""
    return size > SMALL and size > budget(memory)


def rows_that_fit(what: str, rows: int, size: int, memory: int | None) -> int:
    """How many of ``rows`` of ``size`` bytes fit in memory together, at least 1.

    Raises:
        OutOfMemory: not even one does.
    """
    if rows * size <= SMALL:
        return max(rows, 1)
    if is_too_large(size, memory):
        raise OutOfMemory(
            f"{what} need {size / 2**30:.3g} GiB, and {budget(memory) / 2**30:.3g} GiB may be used; "
            "use fewer qubits or complex64"
        )
    return max(min(budget(memory) // size, rows), 1)
