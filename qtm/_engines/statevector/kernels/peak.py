"""The most multiply-adds a core can do: what the benchmarks measure the kernels against.

Independent chains of fused multiply-adds on vectors that never leave the registers, with the SIMD types that
the kernels are made of. What a real sweep adds to that is moving the state and working out where it stands.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from qtm._engines.statevector.kernels.compilation import jit
from qtm._engines.statevector.kernels.simd import VECTOR_BYTES, Emit, Rows, step

# Two units with a latency of four need eight chains; as many more as the registers of the machine hold.
CHAINS = 16 if VECTOR_BYTES == 64 else 12


@intrinsic(prefer_literal=True)
def _multiply_add(typing, rows, turns):  # type: ignore[no-untyped-def]
    """rows[2 + c] <- rows[2 + c] * rows[0] + rows[1] on every chain c, ``turns`` times."""

    def emit(e: Emit, rows: Rows, turns: Any) -> None:
        factor, summand = rows.load(0), rows.load(1)
        chains = [cgutils.alloca_once_value(e.builder, rows.load(2 + c)) for c in range(CHAINS)]
        with e.loop(turns):
            for chain in chains:
                e.builder.store(_fused(e, e.builder.load(chain), factor, summand), chain)
        for c, chain in enumerate(chains):
            rows.store(e.builder.load(chain), 2 + c)

    return step(emit, rows, turns)


def _fused(e: Emit, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    # May become one instruction, but not be reassociated: that would shorten the chains.
    return e.builder.fadd(e.builder.fmul(a, b, flags=("contract",)), c, flags=("contract",))


@jit
def multiply_add(rows: Any, turns: int) -> None:
    """Do ``turns * CHAINS`` vector multiply-adds in registers.

    Args:
        rows: (2 + CHAINS) vectors, aligned: the factor, the summand, and where the chains start and end.
        turns: how often.
    """
    _multiply_add(rows, turns)
