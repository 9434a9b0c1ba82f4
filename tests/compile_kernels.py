"""Compiles the Triton kernels for a GPU that need not be there: ``python compile_kernels.py cuda 90 32``."""

from __future__ import annotations

import sys
from itertools import product
from typing import Any

from triton import compile as compile_kernel
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from qtm._engines.triton_statevector import kernels

INTEGERS = {"table", "index", "base", "groups", "string_masks", "start", "source"}
REALS = {"state", "adjoint", "cosine", "sine", "sums", "weights", "gradient", "values", "result"}
DOUBLES = {"coefficient", "offset"}


def types(kernel: Any, real: str, constants: dict[str, Any]) -> dict[str, str]:
    """The type of every argument."""
    found = {}
    for name in kernel.arg_names:
        if name in constants:
            found[name] = "constexpr"
        elif name in REALS or (name == "source" and kernel is kernels.evolve):
            found[name] = f"*{real}"
        else:
            found[name] = "*i32" if name in INTEGERS else "*fp64" if name in DOUBLES else "i32"
    return found


def build(target: GPUTarget, kernel: Any, real: str, warps: int, **constants: Any) -> None:
    """Compile one variant, and name it."""
    source = ASTSource(kernel, types(kernel, real, constants), constexprs=constants)
    made = compile_kernel(source, target=target, options={"num_warps": warps})
    assert made.asm["cubin" if target.backend == "cuda" else "hsaco"]
    sys.stdout.write(f"{kernel.__name__}\n")


def main(backend: str, arch: str, warp: str) -> None:
    """All kernels, of whole states and of tiles, with and without imaginary parts, in both precisions."""
    target = GPUTarget(backend, int(arch) if arch.isdecimal() else arch, int(warp))
    for kernel in (kernels.half_angles, kernels.weighted_sums):
        build(target, kernel, "fp32", 4, BLOCK=256)
    for real, is_complex, whole in product(("fp32", "fp64"), (True, False), (True, False)):
        tile = {"TILE_BITS": 4 if whole else 11, "UNIT_BITS": 2 if whole else 0, "COMPLEX": is_complex}
        warps = 1 if whole else 8
        build(target, kernels.evolve, real, warps, **tile, ZERO=whole, STORE=not whole)
        stored = {"LOAD": not whole, "STORE_STATE": not whole, "STORE_ADJOINT": not whole}
        build(target, kernels.pull_back, real, warps, **tile, **stored)


main(*sys.argv[1:])
