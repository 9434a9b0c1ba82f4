"""Decomposition of an instruction: its row of the gate table, or a circuit of simpler instructions.

Both agree with ``qiskit.primitives.StatevectorEstimator``, which takes an operation's matrix if it has one.
That matters for ``PauliEvolutionGate``: its matrix is the exponential, its definition a product formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from typing import Any

import numpy as np
import qiskit.circuit.library as library
from qiskit import QuantumCircuit
from qiskit.circuit import (
    BoxOp,
    CircuitInstruction,
    ControlledGate,
    Delay,
    Gate,
    Operation,
    ParameterExpression,
)
from qiskit.circuit.library import GlobalPhaseGate, HamiltonianGate, Isometry, PauliEvolutionGate, UCGate, UnitaryGate
from qiskit.quantum_info import Clifford as CliffordOperator
from qiskit.quantum_info import SparseObservable, SparsePauliOp

from qtm._circuit.gates import GATES, Clifford, GateRow, PauliRotation, Primitive, pauli_row
from qtm._circuit.synthesis import synthesize
from qtm._errors import CircuitError

# Maximum number of qubits of a synthesized matrix: 4**6 is some thousand rotations and half a second.
MATRIX_QUBITS = 6


def is_unbound(value: object) -> bool:
    """Whether a gate's parameter still holds a free Parameter."""
    return isinstance(value, ParameterExpression) and bool(value.parameters)


def on_qubits(primitive: Primitive, qubits: tuple[int, ...]) -> Primitive:
    """The primitive, moved from local qubit numbers to ``qubits``, with the same angle."""
    moved = tuple(qubits[q] for q in primitive.qubits)
    if type(primitive) is Clifford:
        return Clifford(primitive.name, moved)
    assert isinstance(primitive, PauliRotation)
    return PauliRotation(primitive.pauli, moved, primitive.terms, primitive.offset)


def row_of(instruction: CircuitInstruction) -> GateRow | None:
    """The gate-table row of an instruction, or None if it has to be expanded.

    The name alone is not enough (users may call a circuit "h"): Qiskit says which gates are standard, and
    those with open controls are not among them.
    """
    if instruction.is_standard_gate():
        name = instruction.name
        return GATES.get(name) or _constant_row(name, instruction)
    operation = instruction.operation
    if isinstance(operation, Delay):
        return GATES["delay"]
    return _pauli_row_of(operation)


_constant_rows: dict[tuple[str, int], GateRow] = {}


def _constant_row(name: str, instruction: CircuitInstruction) -> GateRow | None:
    """The row of a standard gate outside the table (rccx, c3sx, mcx...), built from its definition once."""
    if instruction.params:
        return None
    key = (name, len(instruction.qubits))
    if key not in _constant_rows:
        _constant_rows[key] = _constant(instruction.operation.definition)
    return _constant_rows[key]


def _constant(circuit: QuantumCircuit) -> GateRow:
    index = {qubit: i for i, qubit in enumerate(circuit.qubits)}
    sequence: list[Primitive] = []
    phase = float(circuit.global_phase)
    for instruction in circuit.data:
        row = row_of(instruction)
        assert row is not None, f"{instruction.name} inside a standard gate is not a standard gate"
        qubits = tuple(index[q] for q in instruction.qubits)
        sequence += [_bound(on_qubits(p, qubits), instruction.params) for p in row.sequence]
        phase += sum(c * float(p) for c, p in zip(row.phase, (1, *instruction.params), strict=False))
    return GateRow(tuple(sequence), phase=(phase,))


def _bound(primitive: Primitive, values: list[float]) -> Primitive:
    if isinstance(primitive, Clifford) or not primitive.terms:
        return primitive
    angle = primitive.offset + sum(c * float(values[k]) for k, c in primitive.terms)
    return PauliRotation(primitive.pauli, primitive.qubits, (), angle)


def _pauli_row_of(operation: Operation) -> GateRow | None:
    """The row of a rotation about one Pauli string of any length, or None."""
    generator = rotation_generator(operation)
    if generator is None:
        return None
    return pauli_row(generator.paulis[0].to_label()[::-1], float(generator.coeffs[0].real))


def rotation_generator(operation: Operation) -> SparsePauliOp | None:
    """G of exp(-i t G), where that is one Pauli string of any length and t the operation's parameter; or None."""
    product_rotation = getattr(library, "PauliProductRotationGate", None)  # absent from older Qiskit
    if product_rotation is not None and isinstance(operation, product_rotation):
        return 0.5 * SparsePauliOp(operation.pauli())
    if isinstance(operation, PauliEvolutionGate):
        generator = _generator(operation)
        return generator if len(generator) == 1 else None
    return None


@singledispatch
def definition_of(operation: Operation) -> QuantumCircuit | None:
    """The circuit that an operation stands for, or None if it has neither a definition nor a matrix."""
    definition = getattr(operation, "definition", None)
    if definition is None and isinstance(operation, Gate) and operation.num_qubits <= MATRIX_QUBITS:
        matrix = _matrix_of(operation)
        return None if matrix is None else synthesize(matrix)
    return definition


def _matrix_of(gate: Gate) -> np.ndarray | None:
    if any(is_unbound(p) for p in gate.params) or not hasattr(gate, "__array__"):
        return None
    return gate.to_matrix()


@definition_of.register
def _(operation: UnitaryGate) -> QuantumCircuit:
    return synthesize(operation.params[0])


@definition_of.register
def _(operation: ControlledGate) -> QuantumCircuit | None:
    if type(operation) is not ControlledGate or not isinstance(operation.base_gate, UnitaryGate):
        return operation.definition
    controls, matrix = operation.num_ctrl_qubits, operation.base_gate.params[0]
    blocks = [matrix if state == operation.ctrl_state else np.eye(len(matrix)) for state in range(1 << controls)]
    circuit = QuantumCircuit(operation.num_qubits)
    # Qiskit's controls come first; the synthesis is shorter where they come last.
    order = [*range(controls, operation.num_qubits), *range(controls)]
    return circuit.compose(synthesize(_block_diagonal(blocks)), order)


def _block_diagonal(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Block-diagonal matrix of equal square blocks."""
    size = len(blocks[0])
    matrix = np.zeros((len(blocks) * size, len(blocks) * size), complex)
    for number, block in enumerate(blocks):
        matrix[number * size : (number + 1) * size, number * size : (number + 1) * size] = block
    return matrix


@definition_of.register
def _(operation: UCGate) -> QuantumCircuit:
    if operation.up_to_diagonal:
        return operation.definition
    simplified, controls = operation.simp_contr  # controls that change nothing are left out of the matrices
    left = [operation.num_qubits - i for i in controls][::-1] if simplified else range(1, operation.num_qubits)
    circuit = QuantumCircuit(operation.num_qubits)
    return circuit.compose(synthesize(_block_diagonal(operation.params)), [0, *left])


@definition_of.register
def _(operation: Isometry) -> QuantumCircuit:
    rows, columns = operation.params[0].shape
    exact = rows == columns == 1 << operation.num_qubits
    return synthesize(operation.params[0]) if exact else operation.definition


@definition_of.register
def _(operation: BoxOp) -> QuantumCircuit:
    return operation.blocks[0]


@definition_of.register
def _(operation: CliffordOperator) -> QuantumCircuit:
    return operation.to_circuit()


@definition_of.register
def _(operation: HamiltonianGate) -> QuantumCircuit:
    matrix, time = operation.params
    if not is_unbound(time):
        return operation.definition
    return circuit_of(PauliEvolutionGate(SparsePauliOp.from_operator(matrix), time))


def circuit_of(operation: Operation) -> QuantumCircuit:
    """A circuit of this operation alone."""
    circuit = QuantumCircuit(operation.num_qubits)
    circuit.append(operation, range(operation.num_qubits))
    return circuit


@definition_of.register
def _(operation: PauliEvolutionGate) -> QuantumCircuit:
    """exp(-i t H) as a product over the parts of H that commute with each other: exact."""
    generator, time = _generator(operation), operation.params[0]
    circuit = QuantumCircuit(operation.num_qubits)
    for part in _commuting_parts(generator):
        if len(part) == 1:
            circuit.append(PauliEvolutionGate(generator[part], time), range(operation.num_qubits))
        else:
            _append_exponential(circuit, generator[part], time)
    return circuit


def _generator(operation: PauliEvolutionGate) -> SparsePauliOp:
    """The evolved operator H: a list summed, projectors expanded, equal terms added up."""
    operators = operation.operator if isinstance(operation.operator, list) else [operation.operator]
    if len(operators) == 1 and isinstance(operators[0], SparsePauliOp) and len(operators[0]) == 1:
        return _real(operators[0])
    paulis = [
        SparsePauliOp.from_sparse_observable(o) if isinstance(o, SparseObservable) else SparsePauliOp(o)
        for o in operators
    ]
    return _real(SparsePauliOp.sum(paulis)).simplify(atol=0.0, rtol=0.0)


def _real(operator: SparsePauliOp) -> SparsePauliOp:
    if operator.coeffs.dtype == object or np.any(operator.coeffs.imag):
        raise CircuitError(
            f"the coefficients {operator.coeffs.tolist()[:4]} of its operator are not all real, so it is "
            "not a unitary evolution. Use real coefficients; a Parameter belongs in the gate's time"
        )
    return operator


def _commuting_parts(operator: SparsePauliOp) -> list[list[int]]:
    """Groups of term indices that commute with each other: components of the anticommutation graph."""
    x, z = (side.astype(np.int64) for side in (operator.paulis.x, operator.paulis.z))  # (terms, qubits)
    anticommute = (x @ z.T + z @ x.T) % 2  # (terms, terms)
    unseen, parts = set(range(len(operator))), []
    while unseen:
        part, frontier = [], [min(unseen)]
        unseen.remove(frontier[0])
        while frontier:
            part.append(frontier.pop())
            found = unseen.intersection(np.flatnonzero(anticommute[part[-1]]).tolist())
            unseen -= found
            frontier += found
        parts.append(sorted(part))
    return parts


def _append_exponential(circuit: QuantumCircuit, part: SparsePauliOp, time: Any) -> None:
    """Append exp(-i t H) for terms that do not commute, as V exp(-i t D) V' with D diagonal."""
    qubits = np.flatnonzero((part.paulis.x | part.paulis.z).any(axis=0)).tolist()
    if len(qubits) > MATRIX_QUBITS:
        raise CircuitError(
            f"it is the exponential of terms that do not commute, on {len(qubits)} qubits; the maximum is "
            f"{MATRIX_QUBITS}. If its product formula is meant (which is what hardware runs), write "
            "circuit.decompose('PauliEvolution') first, or give each commuting group a gate of its own"
        )
    local = SparsePauliOp([pauli[qubits] for pauli in part.paulis], part.coeffs)
    energies, vectors = np.linalg.eigh(local.to_matrix())  # (2**n,), (2**n, 2**n)
    if not is_unbound(time):
        phases = np.exp(-1j * float(time) * energies)
        circuit.append(UnitaryGate((vectors * phases) @ vectors.conj().T), qubits)
        return
    circuit.append(UnitaryGate(vectors.conj().T), qubits)
    circuit.append(GlobalPhaseGate(-time * float(energies.mean())), [])
    diagonal = _z_strings(energies)
    for term in range(len(diagonal)):
        circuit.append(PauliEvolutionGate(diagonal[term], time), qubits)
    circuit.append(UnitaryGate(vectors), qubits)


def _z_strings(diagonal: np.ndarray) -> SparsePauliOp:
    """A real diagonal (2**n,) as a sum of Z strings, without the identity."""
    operator = SparsePauliOp.from_operator(np.diag(diagonal), atol=1e-14 * np.abs(diagonal).max())
    return operator[operator.paulis.z.any(axis=1)]
