"""Control, power and inverse of any operation, nested, against ``Operator`` and ``Statevector`` of bound circuits."""

from __future__ import annotations

import numpy as np
import pytest
import qiskit.circuit.library as library
import torch
from circuit_cases import STANDARD
from flat_oracle import state
from modified_cases import PARAMETERS, Builder
from qiskit.circuit import AnnotatedOperation, ControlModifier, InverseModifier, Parameter, PowerModifier
from qiskit.circuit.library import HamiltonianGate, PauliEvolutionGate, StatePreparation, UnitaryGate
from qiskit.exceptions import QiskitError
from qiskit.quantum_info import (
    Operator,
    SparsePauliOp,
    Statevector,
    random_clifford,
    random_hermitian,
    random_statevector,
    random_unitary,
)

import qtm
from qtm._circuit.flatten import flatten
from qtm._circuit.gates import GATES
from qtm._circuit.modifiers import unitary_of
from qtm._errors import CircuitError

A, B, _ = PARAMETERS


def exact(operation) -> np.ndarray:
    """The matrix of what an operation is read as, global phase and all."""
    return unitary_of(operation).matrix()


@pytest.mark.parametrize("name", [name for name in GATES if name != "delay"])
def test_every_row_has_its_global_phase(name):
    rng = np.random.default_rng(5)
    for _ in range(3):
        gate = STANDARD[name].base_class(*rng.uniform(-7, 7, len(STANDARD[name].params)))
        np.testing.assert_allclose(exact(gate), Operator(gate).data, atol=1e-12)


OTHERS = {
    "unitary": lambda: UnitaryGate(random_unitary(8, seed=1)),
    "controlled unitary": lambda: UnitaryGate(random_unitary(2, seed=1)).control(2, None, 1, False),
    "evolution": lambda: PauliEvolutionGate(SparsePauliOp(["XX", "ZI", "II"], [1, 0.5, 0.7]), 0.9),
    "evolution by the identity": lambda: PauliEvolutionGate(SparsePauliOp(["II"], [0.7]), 0.9),
    "hamiltonian": lambda: HamiltonianGate(random_hermitian(4, seed=2).data, 0.7),
    "pauli": lambda: library.PauliGate("XIYZ"),
    "mcx": lambda: library.MCXGate(4, ctrl_state="0110"),
    "mcphase": lambda: library.MCPhaseGate(0.7, 3),
    "rccx": lambda: library.RCCXGate(),
    "c3sx": lambda: library.C3SXGate(),
    "qft": lambda: library.QFTGate(3),
    "diagonal": lambda: library.DiagonalGate(np.exp(1j * np.arange(8)).tolist()),
    "ucry": lambda: library.UCRYGate([0.1, 0.2, 0.3, 0.4]),
    "permutation": lambda: library.PermutationGate([2, 0, 3, 1]),
    "clifford": lambda: random_clifford(3, seed=4),
    "ms": lambda: library.MSGate(3, 0.4),
    "state preparation": lambda: StatePreparation(random_statevector(4, seed=1)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_operations_have_their_global_phase(name):
    np.testing.assert_allclose(exact(OTHERS[name]()), Operator(OTHERS[name]()).data, atol=1e-12)


@pytest.mark.parametrize("controls", [1, 2, 4, 5, 6])
@pytest.mark.parametrize("name", ["x", "h", "rx", "p", "global_phase", "cx"])
@pytest.mark.thinned(20)
def test_many_controls(name, controls):
    gate = STANDARD[name]
    gate = gate.base_class(*[0.7 + k for k in range(len(gate.params))])
    for ctrl_state in {0, 2**controls - 1, 5 % 2**controls}:
        operation = AnnotatedOperation(gate, ControlModifier(controls, ctrl_state))
        np.testing.assert_allclose(exact(operation), Operator(operation).data, atol=1e-11)


def modified_circuits(fractional: bool, share: float, count: int):
    """Circuits with parameters, values of them, and the state that Qiskit gives for the circuit of these numbers."""
    for seed in range(count):
        values = tuple(np.random.default_rng(seed).uniform(-7, 7, 3).tolist())
        try:
            circuit = Builder(seed, None, fractional=fractional, share=share).circuit(3)
            numbers = Builder(seed, values, fractional=fractional, share=share).circuit(3)
            yield circuit, dict(zip(PARAMETERS, values, strict=True)), Statevector(numbers)
        except (QiskitError, AttributeError):  # Qiskit's own control() fails on some
            continue


def compare(circuit, values, expected) -> bool:
    """Whether the circuit is lowered, to the right state; refused are only fractional powers of parameters."""
    try:
        actual = Statevector(state(flatten(circuit), values))
    except CircuitError as error:
        if "the principal power of a matrix" in str(error):
            return False
        raise
    np.testing.assert_allclose(actual.data, expected.data, atol=1e-9)  # global phase and all
    try:
        bound = Statevector(circuit.assign_parameters(values))
    except AttributeError:  # Qiskit binds only some nested operations
        return True
    assert abs(bound.inner(expected)) == pytest.approx(1, abs=1e-9)
    return True


@pytest.mark.slow
def test_integer_powers_of_parameterised_gates():
    done = [compare(*case) for case in modified_circuits(False, 0.6, 150)]
    assert len(done) > 130
    assert all(done)


@pytest.mark.slow
def test_fractional_powers_of_numbers():
    done = [compare(*case) for case in modified_circuits(True, 0.0, 100)]
    assert len(done) > 85
    assert all(done)


@pytest.mark.slow
def test_fractional_powers_of_parameterised_gates_agree_or_are_refused():
    done = [compare(*case) for case in modified_circuits(True, 0.4, 150)]
    assert 60 < sum(done) < len(done)


def some_circuits(count: int):
    cases = modified_circuits(False, 0.8, 40)
    return [next(cases)[0] for _ in range(count)]


OBSERVABLE = SparsePauliOp(["XYZ", "ZIX", "IZZ"], [0.7, -0.4, 1.1])


@pytest.mark.thinned(2)
@pytest.mark.parametrize("gradient", ["reverse", "param-shift"])
def test_modules_differentiate_modified_gates(gradient):
    for circuit in some_circuits(4):
        module = qtm.QuantumModule(
            circuit, [A], [p for p in circuit.parameters if p != A], observables=OBSERVABLE, gradient=gradient
        )
        module = module.double()
        ((name, weights),) = module.named_parameters()
        inputs = torch.tensor([[0.3], [-1.9]], dtype=torch.float64, requires_grad=True)

        def values(x, w, module=module, name=name):
            return torch.func.functional_call(module, {name: w}, (x,))

        assert torch.autograd.gradcheck(values, (inputs, weights.detach().clone().requires_grad_()), atol=1e-6)


@pytest.mark.slow
def test_primitives_run_modified_gates():
    rng = np.random.default_rng(3)
    for circuit in some_circuits(6):
        values = rng.uniform(-3, 3, (4, 3))
        numbers = qtm.FastEstimator().run([(circuit, OBSERVABLE, values)]).result()[0].data.evs
        flat = flatten(circuit)
        states = [Statevector(state(flat, dict(zip(circuit.parameters, row, strict=True)))) for row in values]
        expected = [s.expectation_value(OBSERVABLE).real for s in states]
        np.testing.assert_allclose(numbers, expected, atol=1e-10)
        measured = circuit.measure_all(inplace=False)
        counts = qtm.FastSampler(seed=1).run([(measured, values[0])], shots=20_000).result()[0].data.meas.get_counts()
        sampled = np.array([counts.get(f"{k:03b}", 0) for k in range(8)]) / 20_000
        np.testing.assert_allclose(sampled, states[0].probabilities(), atol=0.02)


def test_rotations_that_commute_are_not_repeated():
    gate = AnnotatedOperation(library.RZZGate(A), PowerModifier(1_000_000))
    assert len(unitary_of(gate).steps) == 1


def test_powers_of_numbers_are_not_repeated_for_long():
    gate = AnnotatedOperation(library.UGate(0.3, 0.2, 0.1), PowerModifier(1_000_000))
    assert len(unitary_of(gate).steps) < 10
    np.testing.assert_allclose(exact(gate), Operator(gate).data, atol=1e-9)


REFUSED = {
    "long": (AnnotatedOperation(library.UGate(A, B, A), PowerModifier(10**9)), "too long a circuit"),
    "wide": (
        AnnotatedOperation(random_clifford(7, seed=1).to_instruction(), PowerModifier(0.5)),
        "needs a matrix of 7 qubits",
    ),
    "infinite": (AnnotatedOperation(library.XGate(), PowerModifier(np.inf)), "a finite real number"),
    "complex": (AnnotatedOperation(library.XGate(), PowerModifier(1j)), "not a real number"),
    "parameter": (AnnotatedOperation(library.XGate(), PowerModifier(Parameter("p"))), "bind it first"),
    "unknown": (AnnotatedOperation(library.XGate(), InverseModifier), "control, inverse and power are supported"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_modifiers_are_refused(name):
    operation, message = REFUSED[name]
    with pytest.raises(CircuitError, match=message):
        unitary_of(operation)


@pytest.mark.parametrize("gradient", ["spsa", "param-shift"])
def test_modified_gates_on_aer(gradient):
    aer = pytest.importorskip("qiskit_aer.primitives")
    for circuit in some_circuits(2):
        module = qtm.QuantumModule(
            circuit,
            None,
            list(circuit.parameters),
            observables=OBSERVABLE,
            estimator=aer.EstimatorV2(),
            gradient=gradient,
        ).double()
        (weights,) = module.parameters()
        values = dict(zip(circuit.parameters, weights.tolist(), strict=True))
        expected = Statevector(state(flatten(circuit), values)).expectation_value(OBSERVABLE).real
        assert module().item() == pytest.approx(expected, abs=1e-9)
