"""Compiles what the Triton engine launches for a GPU that need not be there: ``python compile_kernels.py cuda 90 32``.

The engine runs as on a GPU, with Triton's own reading of its arguments, up to the machine code; only the launch is left
out. Started by `test_triton.py`, in a process without Triton's interpreter.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from circuit_cases import random_observables
from qiskit import QuantumCircuit
from qiskit.circuit.library import efficient_su2, real_amplitudes
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from qtm._circuit.observables import coerce_observables
from qtm._engines.options import Options
from qtm._engines.simulation import Simulation
from qtm._engines.triton_statevector import launch
from qtm._engines.triton_statevector.engine import TritonStateVector
from qtm.engines import Expectation, Output, Probabilities


class Driver:
    """What Triton asks of a GPU before it compiles."""

    def __init__(self, target: GPUTarget) -> None:
        self.target = target

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


compiled: Counter[str] = Counter()


class Compiling:
    """A kernel that is compiled for its arguments instead of launched."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int]) -> Any:
        def run(*arguments: Any, **constants: Any) -> None:
            made = self.kernel.warmup(*arguments, **constants, grid=grid)
            is_cuda = driver.active.target.backend == "cuda"
            code = made.asm["cubin" if is_cuda else "hsaco"]
            compiled[self.kernel.__name__] += len(code) > 0
            # Double-precision sines and cosines of large angles have a table of their own in memory.
            if is_cuda and self.kernel.__name__ != "half_angles" and spilled(code):
                sys.exit(f"{self.kernel.__name__} with {constants} spills registers")

        return run


def spilled(cubin: bytes) -> bool:
    """Whether registers of a kernel go to memory: it has a stack then."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(cubin)
        tool = [knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        found = re.search(r"STACK:(\d+)", subprocess.run(tool, capture_output=True, text=True, check=True).stdout)
    return found is None or int(found[1]) > 0


class Kernels:
    """The kernels as `launch.kernels` gives them."""

    def __getattr__(self, name: str) -> Compiling:
        from qtm._engines.triton_statevector import kernels

        return Compiling(getattr(kernels, name))


def step(made: QuantumCircuit, output: Output, dtype: str, tile_bits: int) -> None:
    """Values and derivatives of a few samples."""
    method = TritonStateVector(tile_bits)
    simulated = Simulation(made, list(made.parameters), output, Options(dtype, 1, method=method))
    angles, prepared = simulated.arguments(np.zeros((3, made.num_parameters)))
    values, kept = simulated.engine.forward(angles, prepared, keep=True)
    simulated.engine.vjp(angles, prepared, torch.zeros_like(values), kept)


def main(backend: str, arch: str, warp: str) -> None:
    """Whole states and tiles, with and without imaginary parts, in both precisions."""
    driver.set_active(Driver(GPUTarget(backend, int(arch) if arch.isdecimal() else arch, int(warp))))
    launch.refusal, launch.device_for, launch.kernels = lambda: None, lambda device: device, Kernels
    launch._WARP = int(warp)
    launch._PROGRAM_BITS["cpu"] = launch._PROGRAM_BITS["cuda"]
    prepared = QuantumCircuit(4)
    prepared.prepare_state([0.6, 0.8j], 1)
    for dtype in ("complex64", "complex128"):
        for made in (efficient_su2(4, reps=1), real_amplitudes(5, reps=1), prepared.compose(efficient_su2(4, reps=1))):
            values = Expectation(coerce_observables(random_observables(1, made.num_qubits), made.num_qubits))
            step(made, values, dtype, 11)
        step(efficient_su2(13, reps=2), Probabilities((0, 1)), dtype, 11)
        if dtype == "complex64":
            step(efficient_su2(12, reps=1), Expectation(coerce_observables(["Z" * 12], 12)), dtype, 12)
        step(real_amplitudes(13, reps=2), Expectation(coerce_observables(["Z" * 13, "X" * 13], 13)), dtype, 11)
    sys.stdout.write(" ".join(sorted(compiled)))


main(*sys.argv[1:])
