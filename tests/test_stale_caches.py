"""Objects that are changed in place after they were used: what counts is what they are now."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from circuit_cases import expectation_values
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import (
    AnnotatedOperation,
    ControlModifier,
    Gate,
    InverseModifier,
    Parameter,
    PowerModifier,
)
from qiskit.circuit.classical import expr
from qiskit.circuit.library import (
    DiagonalGate,
    HamiltonianGate,
    PauliEvolutionGate,
    RXGate,
    StatePreparation,
    SXGate,
    UnitaryGate,
    XGate,
)
from qiskit.quantum_info import Pauli, SparsePauliOp, random_unitary

from qtm._circuit.observables import coerce_observables
from qtm._circuit.pauli_program import lower
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation
from qtm._engines.simulation import Simulation
from qtm._hardware.fingerprint import circuit_content

OBSERVABLES = [Pauli("ZI"), Pauli("IZ"), Pauli("XX"), Pauli("YZ")]


class ByAttribute(Gate):
    """A gate whose definition depends on an attribute that is no parameter."""

    def __init__(self, angle: float) -> None:
        super().__init__("by_attribute", 2, [])
        self.angle = angle

    @property
    def definition(self) -> QuantumCircuit:
        circuit = QuantumCircuit(2)
        circuit.rx(self.angle, 1)  # commutes with the next
        circuit.rzx(self.angle, 0, 1)
        return circuit

    @definition.setter
    def definition(self, circuit: QuantumCircuit | None) -> None:
        """Qiskit's constructor sets None."""

    def inverse(self, annotated: bool = False) -> ByAttribute:
        return ByAttribute(-self.angle)


def change_attribute(gate: ByAttribute) -> None:
    gate.angle = 1.1


def change_coefficients(gate: PauliEvolutionGate) -> None:
    gate.operator.coeffs[:] = [0.9, -0.4]


def change_params(gate: Gate) -> None:
    gate.params = [0.6, 0, 0.8, 0]


def change_matrix(gate: UnitaryGate) -> None:
    gate.params[0][:] = random_unitary(4, seed=2).data


def change_modifiers(gate: AnnotatedOperation) -> None:
    gate.modifiers[:] = [PowerModifier(2), InverseModifier()]


def change_base(gate: AnnotatedOperation) -> None:
    gate.base_op.angle = 1.1


CHANGES: dict[str, tuple[Callable[[], Gate], Callable[[Gate], None]]] = {
    "attribute": (lambda: ByAttribute(0.3), change_attribute),
    "coefficients": (lambda: PauliEvolutionGate(SparsePauliOp(["XX", "ZI"], [0.3, 0.5]), 0.7), change_coefficients),
    "amplitudes": (lambda: StatePreparation([1, 0, 0, 0]), change_params),
    "matrix": (lambda: UnitaryGate(random_unitary(4, seed=1).data), change_matrix),
    "modifiers": (lambda: AnnotatedOperation(ByAttribute(0.4), [PowerModifier(3)]), change_modifiers),
    "base": (lambda: AnnotatedOperation(ByAttribute(0.4), [PowerModifier(3)]), change_base),
}


def values_of(circuit: QuantumCircuit) -> np.ndarray:
    observables = coerce_observables(OBSERVABLES, 2)
    return Simulation(circuit, [], Expectation(observables), Options("complex128")).values(np.zeros((1, 0)))


# A circuit holds the matrix of a UnitaryGate apart from the gate.
@pytest.mark.parametrize("name", [name for name in CHANGES if name != "matrix"])
def test_a_gate_changed_in_place_is_lowered_again(name):
    make, change = CHANGES[name]
    circuit = QuantumCircuit(2)
    circuit.append(make(), [0, 1])
    before = values_of(circuit)
    for instruction in circuit.data:
        change(instruction.operation)
    after = values_of(circuit)
    assert not np.allclose(before, after)
    np.testing.assert_allclose(after, expectation_values(circuit, [], np.zeros((1, 0)), OBSERVABLES), atol=1e-11)


T = Parameter("t")
SHARED: dict[str, Callable[[], Gate]] = {
    "evolution": lambda: PauliEvolutionGate(SparsePauliOp(["XX", "ZI"], [0.3, 0.5]), T),
    "preparation": lambda: StatePreparation([0.6, 0, 0, 0.8]),
    "unitary": lambda: UnitaryGate(random_unitary(4, seed=1).data),
    "annotated": lambda: AnnotatedOperation(RXGate(T), [ControlModifier(1, 0), InverseModifier()]),
    "by attribute": lambda: ByAttribute(0.3),
    "diagonal": lambda: DiagonalGate([1, -1, 1j, -1j]),
    "hamiltonian": lambda: HamiltonianGate(np.diag([1.0, 2, 3, 5]), T),
}


@pytest.mark.parametrize("name", SHARED)
def test_equal_gates_share_a_program(name):
    circuits = [QuantumCircuit(2), QuantumCircuit(2)]
    for circuit in circuits:
        circuit.append(SHARED[name](), [0, 1])
    assert lower(circuits[0]) is lower(circuits[1])


def with_gate(gate: Gate) -> QuantumCircuit:
    circuit = QuantumCircuit(3, 2)
    circuit.append(gate, range(gate.num_qubits))
    return circuit


def with_test(condition: object) -> QuantumCircuit:
    circuit = QuantumCircuit(QuantumRegister(2), ClassicalRegister(2, "c"))
    register = circuit.cregs[0]
    chosen = condition(register) if callable(condition) else condition
    with circuit.if_test(chosen):
        circuit.x(0)
    return circuit


def with_switch(label: int, target: int) -> QuantumCircuit:
    circuit = QuantumCircuit(QuantumRegister(2), ClassicalRegister(2, "c"))
    with circuit.switch(circuit.clbits[target]) as case, case(label):
        circuit.x(0)
    return circuit


def with_store(value: bool, bit: int) -> QuantumCircuit:
    circuit = QuantumCircuit(QuantumRegister(2), ClassicalRegister(2, "c"))
    circuit.store(circuit.clbits[bit], value)
    return circuit


def with_loop(indices: range) -> QuantumCircuit:
    circuit = QuantumCircuit(2)
    with circuit.for_loop(indices) as angle:
        circuit.rx(angle, 0)
    return circuit


def custom(name: str, angle: float) -> Gate:
    circuit = QuantumCircuit(1, name=name)
    circuit.rx(angle, 0)
    return circuit.to_gate()


DIFFERENT: dict[str, Callable[[], QuantumCircuit]] = {
    **{f"power {p}": lambda p=p: with_gate(AnnotatedOperation(SXGate(), PowerModifier(p))) for p in (1, 2, 2.5)},
    "inverse": lambda: with_gate(AnnotatedOperation(SXGate(), InverseModifier())),
    "another base": lambda: with_gate(AnnotatedOperation(XGate(), PowerModifier(1))),
    **{f"control {s}": lambda s=s: with_gate(AnnotatedOperation(SXGate(), ControlModifier(2, s))) for s in range(4)},
    "if bit 0": lambda: with_test(lambda c: (c[0], 1)),
    "if bit 1": lambda: with_test(lambda c: (c[1], 1)),
    "if bit 0 is 0": lambda: with_test(lambda c: (c[0], 0)),
    "if register": lambda: with_test(lambda c: (c, 1)),
    "if less": lambda: with_test(lambda c: expr.less(c, 2)),
    "if less than 3": lambda: with_test(lambda c: expr.less(c, 3)),
    "if greater": lambda: with_test(lambda c: expr.greater(c, 2)),
    "if not": lambda: with_test(lambda c: expr.logic_not(c[0])),
    "if index": lambda: with_test(lambda c: expr.index(c, 1)),
    **{f"switch {i} {j}": lambda i=i, j=j: with_switch(i, j) for i in (0, 1) for j in (0, 1)},
    **{f"store {i} {j}": lambda i=i, j=j: with_store(bool(i), j) for i in (0, 1) for j in (0, 1)},
    "loop 2": lambda: with_loop(range(2)),
    "loop 3": lambda: with_loop(range(3)),
    "custom": lambda: with_gate(custom("h", 0.1)),
    "custom, another angle": lambda: with_gate(custom("h", 0.2)),
    "evolution": lambda: with_gate(PauliEvolutionGate(SparsePauliOp(["X", "Z"], [0.1, 0.2]), 0.3)),
    "evolution, other coefficients": lambda: with_gate(PauliEvolutionGate(SparsePauliOp(["X", "Z"], [0.1, 0.3]), 0.3)),
}


def test_the_key_of_transpiled_circuits_covers_what_is_run():
    keys = {name: circuit_content(build()) for name, build in DIFFERENT.items()}
    assert len(set(keys.values())) == len(keys)
    assert keys == {name: circuit_content(build()) for name, build in DIFFERENT.items()}


def test_the_key_of_transpiled_circuits_follows_changes_in_place():
    for make, change in CHANGES.values():
        gate = make()
        before = circuit_content(with_gate(gate))
        change(gate)
        assert circuit_content(with_gate(gate)) != before
