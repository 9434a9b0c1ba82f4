"""Launching the kernels: on a GPU, or on the CPU in Triton's interpreter."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

from qtm._engines import memory as host
from qtm._errors import MissingPackage, OutOfMemory, require
from qtm._locks import fork_safe_lock

_OLDEST = (3, 5)  # lowest version of Triton: 3.3 compiles gathers to code that NVIDIA's assembler processes for minutes
_THREAD_NUMBERS = 4  # amplitudes per thread with up to 8 warps; with more warps twice as many
_WARP = 64 if torch.version.hip else 32  # threads of a warp
_MOST_WARPS = 16  # 1024 threads are the limit of a program on AMD
_BLOCK = 256  # elements per program of the angle maps
# log2 of the minimum number of amplitudes of a program. Two for each thread of a warp, which exchanges them without a
# barrier; the number of shuffles is the square of the amplitudes per thread. In the interpreter the number of programs
# determines the time.
_PROGRAM_BITS = {"cuda": 6, "cpu": 12}
_INTERPRETER = fork_safe_lock()  # Triton's interpreter is not thread-safe


def is_interpreted() -> bool:
    """Whether the kernels run in Triton's interpreter (environment variable TRITON_INTERPRET)."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


def refusal() -> str | None:
    """Why kernels cannot run in this process, as the end of a sentence; None if they can."""
    try:
        version = require("triton", "gpu").__version__
    except MissingPackage as error:
        return f"needs Triton: {error}"
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        return f"needs Triton {_OLDEST[0]}.{_OLDEST[1]} or later, as torch 2.9 brings it, not {version}; upgrade torch"
    if not is_interpreted() and not torch.cuda.is_available():
        return (
            "computes on a GPU, and torch finds none here; use method='statevector', or set TRITON_INTERPRET=1 to try "
            "it in Triton's slow interpreter"
        )
    return None


def device_for(device: torch.device) -> torch.device:
    """The device that processes tensors of a device: the same, or for CPU tensors the current GPU."""
    if device.type == "cuda" or is_interpreted():
        return device
    return torch.device("cuda", torch.cuda.current_device())


def kernels() -> ModuleType:
    """The module of the kernels.

    Raises:
        MissingPackage: Triton is not installed.
    """
    require("triton", "gpu")
    from qtm._engines.triton_statevector import kernels as found

    return found


@contextmanager
def _ready(device: torch.device) -> Iterator[None]:
    """Make the device the current one, and lock the interpreter."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            yield
        return
    with _INTERPRETER:
        yield


def unit_bits(tile_bits: int, device: torch.device) -> int:
    """log2 of the number of tiles of a program."""
    return max(_PROGRAM_BITS[device.type] - tile_bits, 0)


def thread_bits(bits: int) -> int:
    """log2 of the threads of a program with 2**bits amplitudes, or of its threads that have one."""
    return min(_warps(bits).bit_length() + _WARP.bit_length() - 2, bits)


def _warps(bits: int) -> int:
    quarters = (1 << bits) // (_WARP * _THREAD_NUMBERS)
    return min(max(quarters // 2, min(quarters, _MOST_WARPS // 2), 1), _MOST_WARPS)


def launch_tiles(
    kernel: Any, programs: int, bits: int, device: torch.device, *arguments: Any, **constants: Any
) -> None:
    """Run a kernel whose programs hold 2**bits amplitudes each."""
    if programs:
        with _ready(device):
            kernel[(programs,)](*arguments, **constants, num_warps=_warps(bits))


def launch_elements(kernel: Any, elements: int, device: torch.device, *arguments: Any) -> None:
    """Run a kernel with one thread for each element."""
    block = _BLOCK if device.type == "cuda" else 1 << _PROGRAM_BITS["cpu"]
    if elements:
        with _ready(device):
            kernel[(-(-elements // block),)](*arguments, BLOCK=block)


def budget(device: torch.device, memory: int | None) -> int:
    """Bytes that states may take; ``memory`` is the limit of the options."""
    if memory is None and device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        spare = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(host.MEMORY_SHARE * (free + spare))
    return host.budget(memory)


def check_fits(what: str, needed: int, available: int) -> None:
    """Check that something fits in memory.

    Raises:
        OutOfMemory: it does not; the message says how much it needs.
    """
    if needed > available:
        raise OutOfMemory(
            f"{what} need {needed / 2**30:.2f} GiB, and {available / 2**30:.2f} GiB may be used on this device; use "
            "fewer qubits or samples, or float32"
        )
