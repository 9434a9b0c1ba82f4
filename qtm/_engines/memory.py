"""The memory that states may take, and the refusal of outputs that would not fit before they are made."""

from __future__ import annotations

from qtm._errors import OutOfMemory
from qtm._machine import free_memory

MEMORY_SHARE = 0.5  # of the free memory, that states may take
SMALL = 1 << 24  # bytes for which asking how much memory is free takes longer than it is worth


def budget(memory: int | None) -> int:
    """Bytes that states may take: what the options allow, or with None a share of what is free."""
    return memory if memory is not None else int(MEMORY_SHARE * free_memory())


def check_room(what: str, samples: int, numbers: int, itemsize: int) -> None:
    """Whether an output (samples, numbers) fits the free memory.

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
    """Whether states of ``size`` bytes are more than ``memory``, or than their share of what is free."""
    return size > SMALL and size > budget(memory)


def rows_that_fit(what: str, rows: int, size: int, memory: int | None) -> int:
    """How many of ``rows`` of ``size`` bytes fit the memory together, at least 1.

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
