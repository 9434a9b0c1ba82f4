"""Gates given by a matrix, or that become one, are exact at any angle: near a Clifford gate as far from it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import qiskit.circuit.library as library
from flat_oracle import unitary
from qiskit import QuantumCircuit
from qiskit.circuit import AnnotatedOperation, ControlModifier, Gate, InverseModifier, Operation, PowerModifier
from qiskit.circuit.library import HamiltonianGate, PauliEvolutionGate, UnitaryGate
from qiskit.quantum_info import Operator, SparsePauliOp, random_clifford, random_hermitian, random_unitary
from scipy.linalg import block_diag

from qtm._circuit.flatten import flatten
from qtm._circuit.observables import coerce_observables
from qtm._circuit.synthesis import synthesize
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation
from qtm._engines.simulation import Simulation
from qtm._errors import CircuitError

Case = tuple[Operation, np.ndarray]  # a gate and the matrix that it is, without Qiskit's synthesis


def seed_of(rng: np.random.Generator) -> int:
    return int(rng.integers(1 << 30))


def small(rng: np.random.Generator) -> float:
    """An angle of any order of magnitude."""
    return float(rng.choice([-1, 1]) * 10.0 ** rng.uniform(-16, 0.5))


def exponential(hermitian: np.ndarray, time: float) -> np.ndarray:
    energies, vectors = np.linalg.eigh(hermitian)
    return (vectors * np.exp(-1j * time * energies)) @ vectors.conj().T


def near_special(rng: np.random.Generator, num_qubits: int) -> np.ndarray:
    """A unitary close to the identity, to a Clifford gate, to a permutation, or to nothing."""
    size = 1 << num_qubits
    special = [
        np.eye(size),
        random_clifford(num_qubits, seed=seed_of(rng)).to_matrix(),
        np.eye(size)[rng.permutation(size)],
        random_unitary(size, seed=seed_of(rng)).data,
    ]
    hermitian = random_hermitian(size, seed=seed_of(rng)).data
    return special[rng.integers(4)] @ exponential(hermitian, small(rng))


def near_clifford_gate(rng: np.random.Generator) -> Gate:
    gates = [
        library.SwapGate(),
        library.iSwapGate(),
        library.CXGate(),
        library.RXXGate(np.pi / 2 + small(rng)),
        library.RZXGate(small(rng)),
        library.CRXGate(np.pi + small(rng)),
        library.CUGate(small(rng), small(rng), small(rng), small(rng)),
        library.XXPlusYYGate(np.pi + small(rng), 0.3),
        UnitaryGate(near_special(rng, 2)),
    ]
    return gates[rng.integers(len(gates))]


def random_operator(rng: np.random.Generator, num_qubits: int) -> SparsePauliOp:
    labels = ["".join(rng.choice(list("IXYZ"), num_qubits)) for _ in range(3)]
    return SparsePauliOp(labels, rng.normal(size=3))


def unitary_gate(rng: np.random.Generator) -> Case:
    matrix = near_special(rng, int(rng.integers(1, 4)))
    return UnitaryGate(matrix), matrix


def inverse_unitary(rng: np.random.Generator) -> Case:
    matrix = near_special(rng, 2)
    return UnitaryGate(matrix).inverse(), matrix.conj().T


def controlled_unitary(rng: np.random.Generator) -> Case:
    matrix, controls = near_special(rng, int(rng.integers(1, 3))), int(rng.integers(1, 3))
    state = int(rng.integers(1 << controls))
    return UnitaryGate(matrix).control(controls, ctrl_state=state, annotated=False), controlled(matrix, controls, state)


def controlled(matrix: np.ndarray, controls: int, state: int) -> np.ndarray:
    """The controls are the first qubits, so the lowest bits of an index."""
    full = np.eye(len(matrix) << controls, dtype=complex)
    acting = np.arange(len(matrix)) << controls | state
    full[np.ix_(acting, acting)] = matrix
    return full


def evolution(rng: np.random.Generator) -> Case:
    operator, time = random_operator(rng, int(rng.integers(1, 4))), small(rng)
    return PauliEvolutionGate(operator, time), exponential(operator.to_matrix(), time)


def power_of_an_evolution(rng: np.random.Generator) -> Case:
    operator, time, power = random_operator(rng, 2), small(rng), int(rng.integers(-3, 4))
    return PauliEvolutionGate(operator, time).power(power), exponential(operator.to_matrix(), power * time)


def hamiltonian(rng: np.random.Generator) -> Case:
    matrix, time = random_hermitian(4, seed=seed_of(rng)).data, small(rng)
    return HamiltonianGate(matrix, time), exponential(matrix, time)


def repeat(rng: np.random.Generator) -> Case:
    gate, count = near_clifford_gate(rng), int(rng.integers(1, 5))
    return gate.repeat(count), np.linalg.matrix_power(Operator(gate).data, count)


def power(rng: np.random.Generator) -> Case:
    gate, count = near_clifford_gate(rng), int(rng.integers(-3, 4))
    return gate.power(count), np.linalg.matrix_power(Operator(gate).data, count)


def modified(rng: np.random.Generator) -> Case:
    gate, count = near_clifford_gate(rng), int(rng.integers(1, 4))
    matrix = np.linalg.matrix_power(Operator(gate).data, -count)
    modifiers = [PowerModifier(count), InverseModifier(), ControlModifier(1, 0)]
    return AnnotatedOperation(gate, modifiers), controlled(matrix, 1, 0)


def uniformly_controlled(rng: np.random.Generator) -> Case:
    """A control may change nothing: Qiskit leaves it out."""
    matrices = [near_special(rng, 1) for _ in range(4)]
    order = [[0, 1, 2, 3], [0, 1, 0, 1], [0, 0, 1, 1], [0, 0, 0, 0]][rng.integers(4)]
    matrices = [matrices[i] for i in order]
    return library.UCGate(matrices, mux_simp=bool(rng.integers(2))), block_diag(*matrices)


def isometry(rng: np.random.Generator) -> Case:
    matrix = near_special(rng, 2)
    return library.Isometry(matrix, 0, 0), matrix


def diagonal(rng: np.random.Generator) -> Case:
    entries = np.exp(1j * np.array([small(rng) for _ in range(8)]))
    return library.DiagonalGate(entries.tolist()), np.diag(entries)


CASES: dict[str, Callable[[np.random.Generator], Case]] = {
    "unitary": unitary_gate,
    "inverse unitary": inverse_unitary,
    "controlled unitary": controlled_unitary,
    "evolution": evolution,
    "power of an evolution": power_of_an_evolution,
    "hamiltonian": hamiltonian,
    "repeat": repeat,
    "power": power,
    "modified": modified,
    "uniformly controlled": uniformly_controlled,
    "isometry": isometry,
    "diagonal": diagonal,
}


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """The largest difference of two unitaries up to a global phase."""
    phase = np.vdot(first, second)
    return float(np.abs(first * phase / abs(phase) - second).max())


@pytest.mark.thinned(3)
@pytest.mark.parametrize("name", CASES)
def test_a_gate_is_exact_at_any_angle(name):
    rng = np.random.default_rng(list(CASES).index(name))
    for _ in range(12):
        gate, matrix = CASES[name](rng)
        circuit = QuantumCircuit(gate.num_qubits)
        circuit.append(gate, range(gate.num_qubits))
        assert distance(unitary(flatten(circuit).operations, [], gate.num_qubits), matrix) < 1e-12


@pytest.mark.thinned(5)
@pytest.mark.parametrize("num_qubits", range(5))
def test_a_synthesis_keeps_the_global_phase(num_qubits):
    rng = np.random.default_rng(num_qubits)
    for _ in range(12 if num_qubits < 4 else 2):
        matrix = near_special(rng, num_qubits) if num_qubits else np.exp(1j * rng.uniform(-3, 3, (1, 1)))
        np.testing.assert_allclose(Operator(synthesize(matrix)).data, matrix, atol=1e-12)


@pytest.mark.parametrize("entry", [np.nan, 0.0, 1.1])
def test_nonunitary_operations_are_refused(entry):
    with pytest.raises(CircuitError, match="not unitary"):
        synthesize(np.diag([1, 1, 1, entry]))


@pytest.mark.slow
def test_errors_of_many_small_steps_do_not_add_up():
    """A Trotter circuit: with the error of Qiskit's synthesis a step, 1e-5, this would be off by a percent."""
    operator, steps, time = SparsePauliOp(["XX", "ZZ", "ZI"], [1, 0.6, 0.8]), 300, 1e-5
    circuit = QuantumCircuit(2)
    circuit.rx(0.3, 0)
    for _ in range(steps):
        circuit.append(PauliEvolutionGate(operator, time), [0, 1])
    start = np.kron([1, 0], [np.cos(0.15), -1j * np.sin(0.15)])
    final = exponential(operator.to_matrix(), steps * time) @ start
    z = np.diag(SparsePauliOp("ZZ").to_matrix()).real
    output = Expectation(coerce_observables("ZZ", 2))
    found = Simulation(circuit, [], output, Options("complex128")).values(np.zeros((1, 0)))
    assert found[0, 0] == pytest.approx(float(np.abs(final) ** 2 @ z), abs=1e-11)
