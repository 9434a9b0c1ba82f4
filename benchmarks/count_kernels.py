"""Instructions of the Triton kernels' loops, counted from machine code: ``python benchmarks/count_kernels.py``.

Compiles for NVIDIA's compute capability 9.0, without a GPU. Prints, for each kernel, registers and stack, and of every
block of its loops how many instructions it has and which. Nothing is timed.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from qtm._engines.triton_statevector import kernels
from qtm._engines.triton_statevector.launch import thread_bits

TILE_BITS, AMPLITUDES = 11, 1 << 22


class Hopper:
    """What Triton asks of a GPU before it compiles."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def machine_code(name: str) -> bytes:
    """A kernel in complex64 on tiles, with an adjoint state where it has one."""
    number, mask = torch.zeros(64), torch.zeros(64, dtype=torch.int32)
    tables = [number, number, number, number, mask, mask, mask, mask, mask]
    ends = [2048, 0, 5, 0, 1, 30, TILE_BITS, AMPLITUDES, 0, 5]
    own: list[Any] = [number, 1 << 23] if name == "evolve" else [number, number, 5]
    which = ["STORE"] if name == "evolve" else ["LOAD", "STORE_STATE", "STORE_ADJOINT"]
    constants = {"TILE_BITS": TILE_BITS, "UNIT_BITS": 0, "LOW": thread_bits(TILE_BITS), "COMPLEX": 1}
    constants |= dict.fromkeys(which, True) | ({"ZERO": False} if name == "evolve" else {})
    warps = 1 << thread_bits(TILE_BITS) - 5
    made = getattr(kernels, name).warmup(*tables, *own, *ends, **constants, num_warps=warps, grid=(1,))
    return bytes(made.asm["cubin"])


def tool(path: str, *options: str) -> str:
    """What a tool of NVIDIA prints."""
    return subprocess.run([path, *options], capture_output=True, text=True, check=True).stdout


def blocks(code: str) -> Iterator[tuple[str, Counter[str]]]:
    """Basic blocks, with the label that each follows."""
    label, found = "", Counter[str]()
    for line in code.splitlines():
        if (start := re.match(r"\s*(\.L_x_\d+):", line)) is not None:
            yield label, found
            label, found = start[1], Counter()
        elif (one := re.match(r"\s*/\*[0-9a-f]{4,5}\*/\s+(?:@!?U?P\w+\s+)?(\w+)", line)) is not None:
            found[one[1]] += 1
            if one[1] == "BRA":
                yield label, found
                found = Counter()
    yield label, found


def main() -> None:
    """Print the counts."""
    driver.set_active(Hopper())
    for name in ("evolve", "pull_back"):
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            Path(file.name).write_bytes(machine_code(name))
            usage = re.search(r"REG:\d+ STACK:\d+", tool(knobs.nvidia.cuobjdump.path, "-res-usage", file.name))
            print(name, usage and usage[0])
            for label, found in blocks(tool(knobs.nvidia.nvdisasm.path, "-c", file.name)):
                if found.total() > 10:
                    print(f"  {label:8} {found.total():4} {dict(found.most_common(9))}")


main()
