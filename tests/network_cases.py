"""Circuits for tests of networks, and exact values of them that do not come from qtm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import real_amplitudes
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import SparsePauliOp, Statevector
from qiskit.transpiler import PassManager, generate_preset_pass_manager


@dataclass(frozen=True)
class Case:
    """A circuit and the roles of its parameters."""

    circuit: QuantumCircuit
    inputs: list[Parameter]
    weights: list[Parameter]

    def arguments(self) -> dict[str, Any]:
        return {"circuit": self.circuit, "input_params": self.inputs, "weight_params": self.weights}

    def states(self, x: np.ndarray, w: Sequence[float]) -> list[Statevector]:
        bare = self.circuit.remove_final_measurements(inplace=False)
        values = [dict(zip([*self.inputs, *self.weights], [*row, *w], strict=True)) for row in x]
        return [Statevector(bare.assign_parameters(v)) for v in values]

    def expectations(self, x: np.ndarray, w: Sequence[float], operators: Sequence[str]) -> np.ndarray:
        return np.array([[s.expectation_value(SparsePauliOp(o)).real for o in operators] for s in self.states(x, w)])

    def probabilities(self, x: np.ndarray, w: Sequence[float]) -> np.ndarray:
        return np.array([s.probabilities() for s in self.states(x, w)])


def random_case(seed: int, num_qubits: int = 3, num_inputs: int = 2, num_weights: int = 4) -> Case:
    """Gates of many kinds with products, sums and functions of inputs and weights, named awkwardly."""
    rng = np.random.default_rng(seed)
    x = [Parameter(f"a{9 + k}") for k in range(num_inputs)]  # a10 sorts before a9 as text
    w = list(ParameterVector("ω", num_weights))
    circuit = QuantumCircuit(num_qubits)
    for angle in [*x, *w, x[0] * w[0] + 0.3, w[-1].sin(), 2 * w[0] - x[-1]]:
        q = int(rng.integers(num_qubits))
        other = (q + 1) % num_qubits
        circuit.h(q)
        getattr(circuit, str(rng.choice(["rx", "ry", "rz", "p"])))(angle, q)
        if num_qubits > 1:
            getattr(circuit, str(rng.choice(["cx", "cz", "swap"])))(q, other)
            getattr(circuit, str(rng.choice(["crx", "rzz", "cp"])))(angle, other, q)
        circuit.ry(0.4 + angle, other)
    return Case(circuit, x, w)


def amplitude_case() -> tuple[Case, Callable[[np.ndarray, Any], Statevector]]:
    """Features as amplitudes before an ansatz, and the state of one sample (features,) with weights (weights,)."""
    features = pytest.importorskip("qiskit_machine_learning.circuit.library").raw_feature_vector(4)
    ansatz = real_amplitudes(2, reps=1)
    circuit = QuantumCircuit(2)
    circuit.compose(features, inplace=True)
    circuit.compose(ansatz, inplace=True)

    def state(x: np.ndarray, w: Any) -> Statevector:
        return Statevector(x / np.linalg.norm(x)).evolve(ansatz.assign_parameters(list(w)))

    return Case(circuit, list(features.parameters), list(ansatz.parameters)), state


def differences(function: Callable[[np.ndarray], np.ndarray], at: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Central differences (..., outputs, parameters) of a function of parameters (parameters,)."""
    columns = []
    for k in range(len(at)):
        shift = np.zeros(len(at))
        shift[k] = step
        columns.append((function(at + shift) - function(at - shift)) / (2 * step))
    return np.stack(columns, axis=-1)


def pass_manager(num_qubits: int, layout: Sequence[int], level: int = 1) -> PassManager:
    """Transpiles to a line of qubits with a layout of one's own."""
    line = [[i, i + 1] for i in range(num_qubits - 1)] + [[i + 1, i] for i in range(num_qubits - 1)]
    backend = GenericBackendV2(num_qubits, coupling_map=line, seed=7)
    return generate_preset_pass_manager(level, backend=backend, initial_layout=list(layout), seed_transpiler=3)
