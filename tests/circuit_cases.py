"""Random circuits with awkward parameters, and their exact expectation values from ``qiskit.quantum_info``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import pi
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import get_standard_gate_name_mapping
from qiskit.quantum_info import SparsePauliOp, Statevector

from qtm._circuit.gates import GATES

STANDARD = get_standard_gate_name_mapping()
UNITARY = tuple(name for name in GATES if name not in ("delay", "global_phase"))
# Gates that keep amplitudes real: such a circuit is simulated without imaginary parts.
REAL = ("ry", "cx", "cz", "x", "z", "h", "swap")


def awkward_parameters() -> list[Parameter]:
    """Names whose alphabetical order is not the order of anything: a10 < a9, Greek, vectors past ten."""
    single = [Parameter(name) for name in ("a10", "a9", "θ", "Γ", "_", "λ'", "x 1", "A")]
    return [*single, *ParameterVector("x", 11), *ParameterVector("ω", 2)]


EXPRESSIONS: tuple[Callable[[Any, Any, Any], Any], ...] = (
    lambda p, q, r: p,
    lambda p, q, r: -q,
    lambda p, q, r: 2.5 * p - 0.25,
    lambda p, q, r: p + 3 * q - r / 7,
    lambda p, q, r: p * q,
    lambda p, q, r: p * q + 1.3 * r,
    lambda p, q, r: p.sin() * q,
    lambda p, q, r: (0.3 * p).exp() - q.cos(),
    lambda p, q, r: p**2 - r,
    lambda p, q, r: (pi - p) * (pi - q),
    lambda p, q, r: (p * p + 2).log() * r,
    lambda p, q, r: (p / 3).tan() + q.arctan(),
    lambda p, q, r: 0.7,
)


def random_circuit(
    seed: int, num_qubits: int, num_gates: int, names: Sequence[str] = UNITARY, *, symbolic: bool = True
) -> QuantumCircuit:
    """Gates of the table, in any order on any qubits; angles are expressions, or bare parameters."""
    rng = np.random.default_rng(seed)
    pool = awkward_parameters()
    circuit = QuantumCircuit(num_qubits, global_phase=pool[0])
    fitting = [name for name in names if STANDARD[name].num_qubits <= num_qubits]
    for _ in range(num_gates):
        gate = STANDARD[fitting[rng.integers(len(fitting))]]
        count = len(gate.params)
        angles = [_expression(rng, pool) if symbolic else pool[rng.integers(len(pool))] for _ in range(count)]
        qubits = rng.choice(num_qubits, gate.num_qubits, replace=False).tolist()
        circuit.append(gate.base_class(*angles), qubits)
    return circuit


def _expression(rng: np.random.Generator, pool: list[Parameter]) -> Any:
    build = EXPRESSIONS[rng.integers(len(EXPRESSIONS))]
    return build(*(pool[i] for i in rng.choice(len(pool), 3, replace=False)))


def shuffled(circuit: QuantumCircuit, seed: int = 0) -> list[Parameter]:
    """The parameters of a circuit in an order that is neither theirs nor alphabetical."""
    parameters = list(circuit.parameters)
    return [parameters[i] for i in np.random.default_rng(seed).permutation(len(parameters))]


def random_observables(seed: int, num_qubits: int, count: int = 3) -> list[SparsePauliOp]:
    """Sums of Pauli strings, among them the identity and strings with one Y."""
    rng = np.random.default_rng(seed)
    special = ["I" * num_qubits, "Y".rjust(num_qubits, "I"), "Y".ljust(num_qubits, "X")]
    found = []
    for _ in range(count):
        labels = ["".join(rng.choice(list("IXYZ"), num_qubits)) for _ in range(4)]
        found.append(SparsePauliOp([*labels, *special], rng.normal(size=len(labels) + len(special))))
    return found


def random_values(circuit: QuantumCircuit, batch: int, seed: int = 0) -> np.ndarray:
    """Parameter values (batch, parameters)."""
    return np.random.default_rng(seed).uniform(-pi, pi, (batch, circuit.num_parameters))


def states(circuit: QuantumCircuit, parameters: Sequence[Parameter], values: np.ndarray) -> list[Statevector]:
    """Qiskit's final state for every row of ``values`` (batch, parameters)."""
    return [Statevector(circuit.assign_parameters(dict(zip(parameters, row, strict=True)))) for row in values]


def expectation_values(
    circuit: QuantumCircuit, parameters: Sequence[Parameter], values: np.ndarray, observables: Sequence[Any]
) -> np.ndarray:
    """Qiskit's expectation values (batch, observables)."""
    found = states(circuit, parameters, values)
    return np.array([[state.expectation_value(o).real for o in observables] for state in found])


def differences(function: Callable[[np.ndarray], np.ndarray], at: np.ndarray, h: float = 1e-3) -> np.ndarray:
    """Derivatives (batch, outputs, inputs) of a batched function, by central differences of fourth order.

    ``function`` maps (batch, inputs) to (batch, outputs), row by row.
    """
    batch, size = at.shape
    steps = h * np.eye(size)[:, None, :]  # (inputs, 1, inputs)
    moved = np.concatenate([(at + s * steps).reshape(-1, size) for s in (2, 1, -1, -2)])
    results = function(moved).reshape(4, size, batch, -1)
    slopes = np.tensordot([-1, 8, -8, 1], results, 1) / (12 * h)  # (inputs, batch, outputs)
    return slopes.transpose(1, 2, 0)
