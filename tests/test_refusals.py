"""What flattening and templates refuse, and what the message says."""

from __future__ import annotations

import re

import numpy as np
import pytest
import qiskit.circuit.library as library
from qiskit import QuantumCircuit, QuantumRegister
from qiskit.circuit import (
    AnnotatedOperation,
    CircuitInstruction,
    ControlModifier,
    Gate,
    Instruction,
    Parameter,
    PowerModifier,
)
from qiskit.circuit.library import (
    PauliEvolutionGate,
)
from qiskit.quantum_info import (
    Kraus,
    SparsePauliOp,
)

from qtm._circuit.flatten import flatten
from qtm._circuit.shift_template import template
from qtm._errors import CircuitError

T = Parameter("t")


def refused(build) -> str:
    circuit = QuantumCircuit(2, 2, name="mine")
    circuit.h(0)
    build(circuit)
    with pytest.raises(CircuitError) as caught:
        flatten(circuit)
    return str(caught.value)


def if_test(circuit):
    with circuit.if_test((circuit.clbits[0], 1)):
        circuit.x(0)


def for_loop(circuit):
    with circuit.for_loop(range(2)):
        circuit.x(0)


def while_loop(circuit):
    with circuit.while_loop((circuit.clbits[0], 1)):
        circuit.x(0)


def switch(circuit):
    with circuit.switch(circuit.cregs[0]) as case, case(0):
        circuit.x(0)


def store(circuit):
    circuit.add_var("flag", False)


def measured(circuit):
    circuit.measure(0, 0)
    circuit.cx(0, 1)


def reset_inside(circuit):
    inner = QuantumCircuit(1, name="inner")
    inner.x(0)
    inner.reset(0)
    circuit.append(inner.to_instruction(), [1])


def raw_features_late(circuit):
    library_of = pytest.importorskip("qiskit_machine_learning.circuit.library")
    circuit.compose(library_of.raw_feature_vector(4), [0, 1], inplace=True)


def big_evolution(circuit):
    circuit.add_register(QuantumRegister(6, "more"))
    chain = [("ZZ", [i, i + 1], 1.0) for i in range(7)] + [("X", [i], 1.0) for i in range(8)]
    circuit.append(PauliEvolutionGate(SparsePauliOp.from_sparse_list(chain, 8), T), range(8))


def complex_evolution(circuit):
    gate = PauliEvolutionGate(SparsePauliOp("X"), 0.1)
    gate.operator.coeffs *= 1j  # behind the back of Qiskit's own check
    circuit.append(gate, [0])


def modified_evolution(circuit):
    gate = PauliEvolutionGate(SparsePauliOp(["X", "Z"]), T)
    circuit.append(AnnotatedOperation(gate, [PowerModifier(0.5), ControlModifier(1)]), [0, 1])


def modified_reset(circuit):
    inner = QuantumCircuit(1)
    inner.reset(0)
    circuit.append(AnnotatedOperation(inner.to_instruction(), ControlModifier(1)), [0, 1])


REFUSALS = {
    "if": (if_test, r"instruction 1 .*'if_else'.*control flow"),
    "for": (for_loop, r"instruction 1 .*'for_loop'.*control flow"),
    "while": (while_loop, r"instruction 1 .*'while_loop'.*control flow"),
    "switch": (switch, r"instruction 1 .*'switch_case'.*control flow"),
    "store": (store, r"instruction 1 .*'store'.*classical"),
    "measurement": (measured, r"instruction 1 .*'measure'.*mid-circuit.*'cx' at index 2"),
    "reset": (lambda c: c.reset(0), r"instruction 1 .*'reset'.*used before"),
    "reset inside": (reset_inside, r"instruction 1 .*'inner', inside it 'reset'.*used before"),
    "reset after measurement": (lambda c: (c.measure(1, 1), c.reset(1)), r"instruction 2 .*'reset'"),
    "initialize": (lambda c: c.initialize([0.6, 0.8], 0), r"instruction 1 .*'initialize'.*used before"),
    "initialize label": (lambda c: c.initialize("1", 0), r"instruction 1 .*'initialize'.*used before"),
    "features": (raw_features_late, r"instruction 1 .*'ParameterizedInitialize'.*used before"),
    "opaque": (
        lambda c: c.append(Gate("oracle", 1, []), [0]),
        r"instruction 1 .*'oracle'.*no definition.*Set its definition",
    ),
    "opaque instruction": (lambda c: c.append(Instruction("q", 1, 0, []), [0]), r"'q'.*no definition"),
    "complex evolution": (complex_evolution, r"'PauliEvolution'.*not all real"),
    "evolution of many qubits": (big_evolution, r"'PauliEvolution'.*not commute, on 8 qubits.*decompose"),
    "modified evolution": (modified_evolution, r"'annotated'.*'PauliEvolution' to the power 0.5.*Bind its parameters"),
    "modified reset": (modified_reset, r"'annotated'.*modifies .* 'reset', which is not unitary"),
    "annotated opaque": (
        lambda c: c.append(AnnotatedOperation(Instruction("q", 1, 0, []), ControlModifier(1)), [0, 1]),
        r"'annotated'.*modifies 'q', which has no definition",
    ),
    "fractional power": (
        lambda c: c.append(AnnotatedOperation(library.UGate(T, T, T), PowerModifier(0.5)), [0]),
        r"instruction 1 .*'annotated'.*'u' to the power 0.5.*Bind its parameters",
    ),
}


NEEDS_SAMPLING = {
    "if",
    "for",
    "while",
    "switch",
    "store",
    "measurement",
    "reset",
    "reset inside",
    "initialize",
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal_names_the_instruction_and_the_way_out(name):
    build, pattern = REFUSALS[name]
    message = refused(build)
    assert re.search(pattern, message, re.DOTALL), message
    assert "circuit 'mine'" in message
    if name in NEEDS_SAMPLING:
        assert "qiskit_aer.primitives.EstimatorV2" in message


def test_the_product_formula_of_a_big_evolution_is_accepted():
    circuit = QuantumCircuit(2)
    big_evolution(circuit)
    assert len(flatten(circuit.decompose("PauliEvolution")).operations) == 15


def test_channels_are_refused():
    damping = Kraus([np.diag([1, 0.6]), np.array([[0, 0.8], [0, 0]])])
    message = refused(lambda c: c.append(damping.to_instruction(), [0]))
    assert "'kraus'" in message


def test_template_refuses_a_parameterised_duration():
    circuit = QuantumCircuit(1)
    circuit.delay(T, 0)
    assert flatten(circuit).angles == ()
    with pytest.raises(CircuitError, match="duration that is a parameter"):
        template(circuit)


def test_instruction_objects_keep_their_qubits():
    circuit = QuantumCircuit(3)
    circuit.append(CircuitInstruction(library.RZXGate(T), [circuit.qubits[2], circuit.qubits[0]], []))
    assert flatten(circuit).operations[0].qubits == (2, 0)
