"""A training step under Pauli noise, beside the same step without noise and other ways to take it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector

from qtm._bench.compare import Row, now
from qtm._bench.timing import alternate, clock
from qtm.modules import QuantumModule
from qtm.noise import local_pauli_noise, noisy_estimator

TITLE = "A training step under noise: 3 layers of RY, RZ and a ring of CX, 1% Pauli noise after every gate"
SIZES = tuple(range(2, 11))
QUICK = (2, 3)
BATCH = 16
LAYERS = 3
_STRENGTH = 0.01
# Larger circuits take Aer with parameter shifts minutes for a step.
_AER_QUBITS = 5
Step = Callable[[], float]


def circuit(num_qubits: int) -> tuple[QuantumCircuit, list[Parameter], list[Parameter]]:
    """The circuit, its inputs and its weights."""
    inputs, weights = ParameterVector("x", num_qubits), ParameterVector("w", 2 * LAYERS * num_qubits)
    made, angles = QuantumCircuit(num_qubits), iter(weights)
    for q in range(num_qubits):
        made.ry(inputs[q], q)
    for _ in range(LAYERS):
        for q in range(num_qubits):
            made.ry(next(angles), q)
            made.rz(next(angles), q)
        for q in range(num_qubits if num_qubits > 2 else 1):
            made.cx(q, (q + 1) % num_qubits)
    return made, list(inputs), list(weights)


def step(num_qubits: int, batch: int, threads: int, **options: Any) -> Step:
    """Values and gradients of a batch, and the seconds that they take."""
    module = QuantumModule(
        *circuit(num_qubits), seed_init=0, num_threads_forward=threads, num_threads_backward=threads, **options
    ).double()
    inputs = torch.rand(batch, num_qubits, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def run() -> None:
        module.zero_grad()
        module(inputs).sum().backward()

    return lambda: clock(run)


def rows(num_qubits: int, batch: int, threads: int, repeats: int) -> list[Row]:
    """One row for each of the other ways."""
    noise = local_pauli_noise(_STRENGTH / 3)
    others: dict[str, Callable[[], Step]] = {
        "qtm, without noise": lambda: step(num_qubits, batch, threads),
        "qtm, 64 trajectories": lambda: step(num_qubits, batch, threads, noise=noise, method="trajectories"),
    }
    if num_qubits <= _AER_QUBITS:
        aer = {"estimator": noisy_estimator(noise), "gradient": "param-shift"}
        others["qiskit-aer, parameter shift"] = lambda: step(num_qubits, batch, threads, **aer)
    found = []
    for name, make in others.items():
        own, other = alternate([step(num_qubits, batch, threads, noise=noise), make()], repeats)
        row = Row(num_qubits, "combined", name, "double", "reverse", batch, threads, measured=now())
        row.qtm_ms, row.peer_ms, row.samples, row.repeats = own.summary(), other.summary(), batch, repeats
        found.append(row)
    return found
