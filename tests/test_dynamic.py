"""Dynamic circuits against a walk over all branches with Qiskit's Statevector."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from circuit_cases import differences
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Clbit, ForLoopOp, IfElseOp, Measure, ParameterVector, Reset, SwitchCaseOp
from qiskit.circuit.classical import expr
from qiskit.circuit.controlflow import CASE_DEFAULT
from qiskit.quantum_info import Operator, SparsePauliOp, Statevector

import qtm
from qtm._circuit.conditions import value_of
from qtm._circuit.dynamic import is_dynamic, static_circuit
from qtm._errors import CircuitError

Branch = tuple[Statevector, dict[Clbit, int]]  # not normalised
PROJECTORS = (np.diag([1, 0]), np.diag([0, 1]))


def branches(block: QuantumCircuit, start: list[Branch], qubits: list[int], clbits: list[Clbit]) -> list[Branch]:
    place = dict(zip(block.qubits, qubits, strict=True))
    bit = dict(zip(block.clbits, clbits, strict=True))
    for instruction in block.data:
        own = [place[q] for q in instruction.qubits]
        bits = [bit[c] for c in instruction.clbits]
        start = [b for branch in start for b in after(instruction.operation, branch, own, bits)]
    return start


def after(operation: Any, branch: Branch, qubits: list[int], clbits: list[Clbit]) -> Iterator[Branch]:
    state, values = branch
    if isinstance(operation, Measure | Reset):
        for outcome, projector in enumerate(PROJECTORS):
            found = state.evolve(Operator(projector), qubits)
            if isinstance(operation, Measure):
                yield found, values | {clbits[0]: outcome}
            else:
                yield (found.evolve(Operator.from_label("X"), qubits) if outcome else found), values
    elif isinstance(operation, IfElseOp):
        target, wanted = operation.condition if isinstance(operation.condition, tuple) else (operation.condition, 1)
        chosen = operation.blocks[0 if value_of(target, values) == wanted else 1 :][:1]
        yield from branches(chosen[0], [branch], qubits, clbits) if chosen else [branch]
    elif isinstance(operation, SwitchCaseOp):
        value = value_of(operation.target, values)
        found = [b for v, b in operation.cases_specifier() if value in v or CASE_DEFAULT in v]
        yield from branches(found[0], [branch], qubits, clbits) if found else [branch]
    elif isinstance(operation, ForLoopOp):
        indices, parameter, body = operation.params
        here = [branch]
        for index in indices:
            turn = body if parameter is None else body.assign_parameters({parameter: index})
            here = branches(turn, here, qubits, clbits)
        yield from here
    elif operation.name == "barrier":
        yield branch
    elif clbits:
        yield from branches(operation.definition, [branch], qubits, clbits)
    else:
        yield state.evolve(Operator(operation), qubits), values


def oracle(circuit: QuantumCircuit) -> list[Branch]:
    start = [(Statevector.from_label("0" * circuit.num_qubits), dict.fromkeys(circuit.clbits, 0))]
    return branches(circuit, start, list(range(circuit.num_qubits)), list(circuit.clbits))


T = ParameterVector("t", 6)


def teleportation() -> QuantumCircuit:
    circuit = QuantumCircuit(3, 2)
    circuit.u(*T[:3], 0)
    circuit.h(1)
    circuit.cx(1, 2)
    circuit.cx(0, 1)
    circuit.h(0)
    circuit.measure([0, 1], [0, 1])
    with circuit.if_test((1, 1)):
        circuit.x(2)
    with circuit.if_test((0, 1)):
        circuit.z(2)
    return circuit


def resets() -> QuantumCircuit:
    circuit = QuantumCircuit(2, 2)
    circuit.ry(T[0], 0)
    circuit.cry(T[1], 0, 1)
    circuit.reset(0)
    circuit.ry(T[2], 0)
    circuit.measure(0, 0)
    circuit.rx(T[3], 0)
    circuit.reset(1)
    circuit.cx(0, 1)
    return circuit


def if_else() -> QuantumCircuit:
    circuit = QuantumCircuit(3, 2)
    circuit.ry(T[0], 0)
    circuit.measure(0, 0)
    with circuit.if_test((0, 0)) as else_:
        circuit.ry(T[1], 1)
        circuit.measure(1, 1)
        with circuit.if_test((1, 1)):
            circuit.rzz(T[2], 1, 2)
            circuit.rx(T[3], 2)
    with else_:
        circuit.h(1)
        circuit.cx(1, 2)
        circuit.reset(0)
    circuit.ry(T[4], 0)
    return circuit


def registers() -> QuantumCircuit:
    a, b = ClassicalRegister(2, "a"), ClassicalRegister(2, "b")
    circuit = QuantumCircuit(QuantumRegister(2, "p"), QuantumRegister(1, "q"), a, b)
    for q in range(3):
        circuit.ry(T[q], q)
    circuit.measure([0, 1], a)
    with circuit.if_test((a, 2)) as else_:
        circuit.rx(T[3], 2)
    with else_:
        circuit.ry(T[4], 2)
    circuit.measure(2, b[1])
    with circuit.switch(b) as case:
        with case(2):
            circuit.ry(T[5], 0)
        with case(0, 1):
            circuit.x(1)
        with case(case.DEFAULT):
            circuit.z(1)
    return circuit


def switch_with_default() -> QuantumCircuit:
    a = ClassicalRegister(2, "a")
    circuit = QuantumCircuit(QuantumRegister(3), a)
    circuit.ry(T[0], 0)
    circuit.ry(T[1], 1)
    circuit.measure([0, 1], a)
    with circuit.switch(a) as case:
        with case(1):
            circuit.ry(T[2], 2)
            circuit.measure(2, a[0])
        with case(case.DEFAULT):
            circuit.rx(T[3], 2)
    return circuit


def loops() -> QuantumCircuit:
    circuit = QuantumCircuit(2, 2)
    with circuit.for_loop(range(3)) as k:
        circuit.ry(T[0] * (k + 1), 0)
        circuit.cx(0, 1)
        circuit.measure(1, 0)
        with circuit.if_test((0, 1)):
            circuit.rx(T[1], 0)
    return circuit


def expressions() -> QuantumCircuit:
    a, b = ClassicalRegister(2, "a"), ClassicalRegister(2, "b")
    circuit = QuantumCircuit(QuantumRegister(3), a, b)
    for q in range(3):
        circuit.ry(T[q], q)
    circuit.measure([0, 1], a)
    circuit.measure(2, b[0])
    with circuit.if_test(expr.logic_or(expr.less(a, b), expr.logic_not(a[1]))):
        circuit.rx(T[3], 0)
    with circuit.if_test(expr.equal(expr.bit_xor(a, b), 3)):
        circuit.rx(T[4], 1)
    with circuit.if_test(expr.greater_equal(expr.bit_not(a), 2)):
        circuit.ry(T[5], 2)
    return circuit


def a_bit_that_is_measured_twice() -> QuantumCircuit:
    circuit = QuantumCircuit(2, 1)
    circuit.ry(T[0], 0)
    circuit.measure(0, 0)
    with circuit.if_test((0, 1)):
        circuit.ry(T[1], 1)
        circuit.measure(1, 0)
        circuit.rx(T[2], 0)
    with circuit.if_test((0, 1)):
        circuit.ry(T[3], 0)
    return circuit


def measured_inside_a_composite() -> QuantumCircuit:
    inner = QuantumCircuit(2, 1)
    inner.ry(0.4, 0)
    inner.cx(0, 1)
    inner.measure(0, 0)
    circuit = QuantumCircuit(2, 2)
    circuit.ry(T[0], 0)
    circuit.append(inner.to_instruction(), [1, 0], [1])
    with circuit.if_test((1, 1)):
        circuit.rx(T[1], 0)
    circuit.measure(0, 0)
    circuit.ry(T[2], 0)
    return circuit


CASES = (
    teleportation,
    resets,
    if_else,
    registers,
    switch_with_default,
    loops,
    expressions,
    a_bit_that_is_measured_twice,
    measured_inside_a_composite,
)


def bound(circuit: QuantumCircuit) -> tuple[QuantumCircuit, np.ndarray]:
    values = np.random.default_rng(0).uniform(-3, 3, circuit.num_parameters)
    return circuit.assign_parameters(values), values


@pytest.mark.parametrize("build", CASES)
def test_expectation_values(build: Callable[[], QuantumCircuit]) -> None:
    circuit = build()
    assert is_dynamic(circuit)
    ready, values = bound(circuit)
    observables = [SparsePauliOp(["Z", "X", "Y"][k] * circuit.num_qubits) for k in range(3)] + [
        SparsePauliOp("I" * (circuit.num_qubits - 1) + "X")
    ]
    wanted = [sum(s.expectation_value(o).real for s, _ in oracle(ready)) for o in observables]
    found = qtm.FastEstimator().run([(circuit, observables, values)]).result()[0].data.evs
    np.testing.assert_allclose(found, wanted, atol=1e-10)


@pytest.mark.parametrize("build", CASES)
def test_probabilities_of_branches(build: Callable[[], QuantumCircuit]) -> None:
    circuit = build()
    ready, values = bound(circuit)
    wanted = np.zeros(1 << circuit.num_clbits)
    for state, bits in oracle(ready):
        outcome = sum(bits[bit] << place for place, bit in enumerate(circuit.clbits))
        wanted[outcome] += np.linalg.norm(state.data) ** 2
    np.testing.assert_allclose(qtm.FastSampler().probabilities(circuit, values), wanted, atol=1e-10)


@pytest.mark.parametrize("build", [if_else, loops, a_bit_that_is_measured_twice])
def test_derivatives(build: Callable[[], QuantumCircuit]) -> None:
    circuit = build()
    module = qtm.QuantumModule(circuit, None, list(circuit.parameters)).double()
    weights = module.variational
    module()[0].backward()

    def value(rows: np.ndarray) -> np.ndarray:
        found = []
        for row in rows:
            with torch.no_grad():
                weights.copy_(torch.tensor(row))
                found.append(float(module()[0]))
        return np.array(found)[:, None]

    wanted = differences(value, weights.detach().numpy()[None].copy())[0, 0]
    np.testing.assert_allclose(weights.grad, wanted, atol=1e-8)


def test_teleportation_moves_the_state() -> None:
    circuit = teleportation()
    values = np.array([0.4, 1.1, -0.7])
    one = QuantumCircuit(1)
    one.u(*values, 0)
    wanted = [Statevector(one).expectation_value(SparsePauliOp(p)).real for p in "XYZ"]
    found = qtm.FastEstimator().run([(circuit, ["XII", "YII", "ZII"], values)]).result()[0].data.evs
    np.testing.assert_allclose(found, wanted, atol=1e-10)


def test_circuits_that_are_not_dynamic_stay_as_they_are() -> None:
    circuit = QuantumCircuit(2, 2)
    circuit.reset(0)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.barrier()
    circuit.measure([0, 1, 0], [0, 1, 1])
    assert static_circuit(circuit) is circuit


def test_a_changed_body_is_seen() -> None:
    body = QuantumCircuit(1)
    body.x(0)
    circuit = QuantumCircuit(1, 1)
    circuit.if_else((circuit.clbits[0], 0), body, None, [0], [])
    first = qtm.FastEstimator().run([(circuit, "Z")]).result()[0].data.evs
    circuit = circuit.copy()
    circuit.x(0)
    second = qtm.FastEstimator().run([(circuit, "Z")]).result()[0].data.evs
    assert (float(first), float(second)) == (-1.0, 1.0)


def test_what_is_refused() -> None:
    circuit = QuantumCircuit(1, 1)
    circuit.h(0)
    circuit.measure(0, 0)
    with circuit.while_loop((0, 1)):
        circuit.measure(0, 0)
    with pytest.raises(CircuitError, match="'while_loop' is not simulated"):
        static_circuit(circuit)
    circuit = QuantumCircuit(1, 1)
    with circuit.for_loop(range(2)):
        circuit.h(0)
        circuit.measure(0, 0)
        with circuit.if_test((0, 1)):
            circuit.break_loop()
    with pytest.raises(CircuitError, match="'break_loop' is not simulated"):
        static_circuit(circuit)
    wide = ClassicalRegister(11)
    circuit = QuantumCircuit(QuantumRegister(1), wide)
    circuit.measure(0, wide[0])
    with circuit.if_test((wide, 1)):
        circuit.x(0)
    with pytest.raises(CircuitError, match="condition on 11 bits"):
        static_circuit(circuit)


def test_networks_do_not_take_their_measurements_for_final_ones() -> None:
    circuit = resets()
    for network in (qtm.EstimatorQNN, qtm.SamplerQNN):
        made = network(circuit=circuit, weight_params=circuit.parameters)
        with pytest.raises(CircuitError, match="mid-circuit"):
            made.forward(None, np.zeros(circuit.num_parameters))
