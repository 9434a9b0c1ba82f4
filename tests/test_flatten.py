"""Flattening and templates of whole circuits, and every refusal."""

from __future__ import annotations

import warnings
from dataclasses import fields

import numpy as np
import pytest
import qiskit.circuit.library as library
from flat_oracle import assert_same_state, check, derivative, number, one, scrambled, state
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister, transpile
from qiskit.circuit import (
    AnnotatedOperation,
    ControlModifier,
    Gate,
    InverseModifier,
    Parameter,
    ParameterVector,
    PowerModifier,
)
from qiskit.circuit.library import (
    HamiltonianGate,
    PauliEvolutionGate,
    StatePreparation,
    UnitaryGate,
    get_standard_gate_name_mapping,
)
from qiskit.circuit.random import random_circuit
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import (
    Pauli,
    SparseObservable,
    SparsePauliOp,
    Statevector,
    random_clifford,
    random_hermitian,
    random_statevector,
    random_unitary,
)

from qtm._circuit.flatten import flatten
from qtm._circuit.gates import Clifford, ShiftRule
from qtm._circuit.shift_template import template
from qtm._errors import CircuitError

STANDARD = get_standard_gate_name_mapping()


# Parameters


def test_angles_are_one_per_parameterised_slot_in_order():
    a, b = Parameter("a"), Parameter("b")
    circuit = QuantumCircuit(2)
    circuit.u(b, 0.5, a + b, 0)
    circuit.rx(a, 1)
    circuit.rx(0.25, 1)
    flat = check(circuit, scramble=False)
    assert flat.angles == (b, a + b, a)
    assert flat.shifts == (ShiftRule((1.0,)),) * 3
    assert [p.offset for p in flat.operations] == [0.0, 0.0, 0.5, 0.0, 0.25]


def test_bound_expressions_are_constants():
    t = Parameter("t")
    circuit = QuantumCircuit(1)
    circuit.rx(t, 0)
    assert flatten(circuit.assign_parameters([0.5])).angles == ()
    cancelled = QuantumCircuit(1)
    cancelled.rx((t + 1).bind({t: 2}), 0)
    assert flatten(cancelled).operations[0].offset == 3.0


def test_foreign_parameters_are_refused():
    inner = QuantumCircuit(1)
    inner.rx(Parameter("hidden"), 0)
    gate = Gate("mine", 1, [])
    gate.definition = inner
    with pytest.raises(CircuitError, match=r"instruction 0 .*'mine'.*'hidden'"):
        flatten(one(gate))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_angles_must_be_finite(value):
    circuit = QuantumCircuit(1)
    circuit.rx(value, 0)
    with pytest.raises(CircuitError, match="finite number of radians"):
        flatten(circuit)


# Composite instructions

T = Parameter("t")
V = ParameterVector("v", 4)


def layers() -> QuantumCircuit:
    circuit = QuantumCircuit(2, name="layers", global_phase=T)
    circuit.ry(V[0] * V[1], 0)
    circuit.cu(V[2], 0.3, T, V[3], 1, 0)
    circuit.crz(V[1] - 0.5, 0, 1)
    return circuit


OPERATIONS = {
    "to_gate": lambda: layers().to_gate(),
    "to_instruction": lambda: layers().to_instruction(),
    "nested": lambda: one(one(layers().to_gate(), 3, [2, 0]).to_gate(), 3, [1, 2, 0]).to_instruction(),
    "inverse": lambda: layers().to_gate().inverse(),
    "power": lambda: layers().power(3).to_gate(),
    "controlled": lambda: one(library.RYGate(T).control(2, annotated=False), 3).to_gate(),
    "controlled composite": lambda: library.real_amplitudes(2, reps=1).to_gate().control(1, annotated=False),
    "controlled open": lambda: layers().to_gate().control(2, ctrl_state="01", annotated=False),
    "unitary 1": lambda: UnitaryGate(random_unitary(2, seed=1)),
    "unitary 2": lambda: UnitaryGate(random_unitary(4, seed=1)),
    "unitary 3": lambda: UnitaryGate(random_unitary(8, seed=1)),
    "controlled unitary": lambda: UnitaryGate(random_unitary(2, seed=1)).control(2, None, 1, False),
    "pauli": lambda: library.PauliGate("XIYZ"),
    "mcx": lambda: library.MCXGate(4, ctrl_state="0110"),
    "mcx 2": lambda: library.MCXGate(2),
    "mcx 3": lambda: library.C3XGate(),
    "mcx open": lambda: library.CCXGate(ctrl_state=1),
    "mcphase": lambda: library.MCPhaseGate(T, 3),
    "mcphase open": lambda: library.MCPhaseGate(T, 2, ctrl_state=1),
    "qft": lambda: library.QFTGate(3),
    "diagonal": lambda: library.DiagonalGate(np.exp(1j * np.arange(8)).tolist()),
    "ucry": lambda: library.UCRYGate([0.1, 0.2, 0.3, 0.4]),
    "ucrz": lambda: library.UCRZGate([0.1, 0.2, 0.3, 0.4]),
    "permutation": lambda: library.PermutationGate([2, 0, 3, 1]),
    "linear function": lambda: library.LinearFunction([[1, 1, 0], [0, 1, 0], [1, 0, 1]]),
    "clifford": lambda: random_clifford(3, seed=4),
    "clifford gate": lambda: random_clifford(3, seed=4).to_instruction(),
    "state preparation": lambda: StatePreparation(random_statevector(4, seed=1)),
    "state preparation inverse": lambda: StatePreparation(random_statevector(4, seed=1)).inverse(),
    "state preparation label": lambda: StatePreparation("+r1-l0"),
    "ms": lambda: library.MSGate(3, T),
    "gr": lambda: library.GR(3, 0.4, 0.2).to_gate(),
    "hamiltonian": lambda: HamiltonianGate(random_hermitian(4, seed=2).data, T),
    "hamiltonian constant": lambda: HamiltonianGate(random_hermitian(4, seed=2).data, 0.7),
    "annotated control": lambda: AnnotatedOperation(library.RXXGate(T), [ControlModifier(2, 1)]),
    "annotated all": lambda: AnnotatedOperation(
        library.UGate(T, V[0], 0.2), [PowerModifier(-2), InverseModifier(), ControlModifier(1, 0)]
    ),
    "annotated nested": lambda: AnnotatedOperation(
        AnnotatedOperation(library.SXGate(), PowerModifier(0.3)), [ControlModifier(1)]
    ),
    "annotated circuit": lambda: layers().to_gate(label="x").control(1, annotated=True),
    "annotated instruction": lambda: AnnotatedOperation(layers().to_instruction(), ControlModifier(1)),
    "annotated clifford": lambda: AnnotatedOperation(random_clifford(2, seed=1), ControlModifier(1)),
    "annotated evolution": lambda: PauliEvolutionGate(SparsePauliOp(["XX", "ZI"]), T).control(1),
    "annotated wrapped evolution": lambda: AnnotatedOperation(
        one(PauliEvolutionGate(SparsePauliOp(["XX", "ZI"]), 0.9)).to_gate(), ControlModifier(1)
    ),
    "matrix only": lambda: MatrixOnly(),
    "named like a standard gate": lambda: named_h(),
}


class MatrixOnly(Gate):
    def __init__(self):
        super().__init__("matrix_only", 2, [])

    def __array__(self, dtype=None, copy=None):
        return np.asarray(random_unitary(4, seed=8).data, dtype=dtype)


def named_h() -> Gate:
    circuit = QuantumCircuit(1, name="h")
    circuit.rx(T, 0)
    return circuit.to_gate()


@pytest.mark.thinned(4)
@pytest.mark.parametrize("name", OPERATIONS)
def test_composite_operation(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        check(one(OPERATIONS[name]()))


CONTROLLED = sorted(n for n, g in STANDARD.items() if hasattr(g, "ctrl_state"))


@pytest.mark.thinned(3)
@pytest.mark.parametrize("name", CONTROLLED)
def test_open_controls(name):
    gate = STANDARD[name]
    params = ParameterVector("a", len(gate.params))
    for ctrl_state in range(2**gate.num_ctrl_qubits):
        check(one(gate.base_class(*params, ctrl_state=ctrl_state)))


EVOLUTIONS = {
    "one term": (SparsePauliOp(["XYIZ"], [0.7]), T),
    "one Pauli": (Pauli("-YX"), T * T),
    "constant time": (SparsePauliOp(["XYZ"], [0.7]), 0.3),
    "commuting": (SparsePauliOp(["ZZI", "IZZ", "XXX"], [0.7, -0.2, 0.4]), 2 * T + 1),
    "not commuting": (SparsePauliOp(["ZZI", "IXI", "IIZ"], [0.7, -0.2, 0.4]), T),
    "not commuting, constant time": (SparsePauliOp(["ZZI", "IXI", "IIZ"], [0.7, -0.2, 0.4]), 0.8),
    "separate parts": (SparsePauliOp(["XIIII", "ZIIII", "IIXXI", "IIZII", "IYIII"], [1, 2, 3, 4, 5]), T),
    "equal terms": (SparsePauliOp(["ZZ", "ZZ", "XX"], [1, 2, 3]), T),
    "identity": (SparsePauliOp(["II", "ZZ"], [1, 2]), T),
    "identity alone": (SparsePauliOp(["II"], [1]), T),
    "zero": (SparsePauliOp(["XX"], [0]), T),
    "list": ([SparsePauliOp(["XX", "YY"]), Pauli("ZI"), SparsePauliOp(["ZZ"], [0.3])], T),
    "observable": (SparseObservable.from_list([("0X", 0.5), ("+1", 0.2)]), T),
}


@pytest.mark.parametrize("name", EVOLUTIONS)
def test_pauli_evolution_is_exact(name):
    operator, time = EVOLUTIONS[name]
    check(one(PauliEvolutionGate(operator, time)))


def test_pauli_evolution_agrees_with_the_statevector_estimator():
    operator = SparsePauliOp(["ZZI", "IXI", "IIZ"], [0.7, -0.2, 0.4])
    circuit = scrambled(one(PauliEvolutionGate(operator, T)))
    observable = SparsePauliOp(["XYZ", "ZII"], [1.0, 0.5])
    expected = StatevectorEstimator().run([(circuit, observable, [0.9])]).result()[0].data.evs
    psi = Statevector(state(flatten(circuit), {T: 0.9}))
    assert psi.expectation_value(observable).real == pytest.approx(float(expected), abs=1e-11)


def test_one_pauli_string_is_one_rotation():
    flat = flatten(one(PauliEvolutionGate(SparsePauliOp(["XIYZ"], [0.25]), T)))
    assert len(flat.operations) == 1
    assert flat.operations[0].terms == ((0, 0.5),)
    assert flat.shifts == (ShiftRule((0.5,)),)


@pytest.mark.skipif(not hasattr(library, "PauliProductRotationGate"), reason="not in this Qiskit")
@pytest.mark.parametrize("pauli", ["XYZ", "-ZIX"])
def test_pauli_product_rotation(pauli):
    flat = check(one(library.PauliProductRotationGate(Pauli(pauli), T)))
    assert sum(bool(p.terms) for p in flat.operations if not isinstance(p, Clifford)) == 1


def test_template_forgets_definitions_with_the_old_parameters():
    gate = PauliEvolutionGate(SparsePauliOp(["XYZ"]), T)
    assert gate.definition.parameters == {T}  # now cached in the gate
    made = template(one(gate))
    assert set(made.circuit.decompose().parameters) == set(made.slots)


def blueprints() -> dict[str, QuantumCircuit]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        ising = SparsePauliOp(["ZZI", "IZZ", "ZII"], [1, 0.5, -0.3])
        return {
            "zz_feature_map": library.zz_feature_map(3, reps=2),
            "real_amplitudes": library.real_amplitudes(3, reps=2),
            "efficient_su2": library.efficient_su2(3, entanglement="circular"),
            "n_local": library.n_local(3, ["ry", "rz"], "crx", reps=2),
            "pauli_feature_map": library.pauli_feature_map(3, paulis=["Z", "XX", "ZYZ"]),
            "ZZFeatureMap": library.ZZFeatureMap(3),
            "RealAmplitudes": library.RealAmplitudes(3),
            "EfficientSU2": library.EfficientSU2(3),
            "TwoLocal": library.TwoLocal(3, ["ry", "h"], "cry"),
            "ExcitationPreserving": library.ExcitationPreserving(3, mode="fsim"),
            "QAOAAnsatz": library.QAOAAnsatz(ising, reps=2),
            "EvolvedOperatorAnsatz": library.EvolvedOperatorAnsatz([ising, SparsePauliOp("XYZ")]),
            "unitary_overlap": library.unitary_overlap(library.real_amplitudes(2), library.efficient_su2(2, reps=1)),
            "quantum_volume": library.quantum_volume(3, seed=1),
            "iqp": library.iqp([[6, 5, 3], [5, 4, 5], [3, 5, 1]]),
            "pauli_two_design": library.pauli_two_design(3, seed=1),
            "hamiltonian_variational": library.hamiltonian_variational_ansatz(
                SparsePauliOp(["ZZI", "IZZ", "XII", "IXI", "IIX"])
            ),
        }


BLUEPRINTS = blueprints()


@pytest.mark.thinned(4)
@pytest.mark.parametrize("name", BLUEPRINTS)
@pytest.mark.parametrize("wrapped", [False, True])
def test_library_circuit(name, wrapped):
    circuit = BLUEPRINTS[name]
    check(one(circuit.to_instruction()) if wrapped else circuit, scramble=wrapped)


@pytest.mark.parametrize("seed", range(8))
def test_random_circuit_in_composites(seed):
    rng = np.random.default_rng(seed)
    circuit = QuantumCircuit(QuantumRegister(3, "a"), QuantumRegister(2, "b"))
    t = ParameterVector("t", 3)
    for k in range(3):
        block = random_circuit(3, 3, max_operands=3, seed=10 * seed + k)
        block.rzx(t[k] * 0.3 + t[0], 0, 2)
        where = rng.permutation(5)[:3].tolist()
        circuit.compose(block, where, inplace=True) if k == 1 else circuit.append(block.to_gate(), where)
        circuit.barrier()
    check(circuit)


def test_transpiled_circuit():
    basis = ["rz", "sx", "x", "ecr"]
    circuit = transpile(library.efficient_su2(4, reps=1), basis_gates=basis, seed_transpiler=1)
    check(circuit, scramble=False)


def test_box():
    circuit = QuantumCircuit(2)
    with circuit.box():
        circuit.rx(T, 0)
        circuit.cx(0, 1)
    values = {T: 0.4}
    expected = QuantumCircuit(2)
    expected.rx(0.4, 0)
    expected.cx(0, 1)
    assert_same_state(state(flatten(circuit), values), Statevector(expected).data)


# What is left out


def test_ignored():
    circuit = QuantumCircuit(2, 2, global_phase=T)
    circuit.reset(0)
    circuit.rx(T, 0)
    circuit.barrier()
    circuit.delay(100, 0)
    circuit.id(1)
    circuit.measure(0, 0)
    circuit.barrier()
    circuit.id(0)
    circuit.measure(0, 1)
    circuit.ry(T, 1)
    circuit.measure(1, 1)
    flat = flatten(circuit)
    assert [p.pauli for p in flat.operations] == ["X", "Y"]
    made = template(circuit).circuit
    assert "measure" not in made.count_ops()
    assert made.global_phase == 0


def test_measurements_inside_an_instruction():
    inner = QuantumCircuit(QuantumRegister(2), ClassicalRegister(2))
    inner.h(0)
    inner.measure([0, 1], [0, 1])
    circuit = QuantumCircuit(2, 2)
    circuit.rx(T, 0)
    circuit.append(inner.to_instruction(), [0, 1], [0, 1])
    assert len(flatten(circuit).operations) == 3
    assert dict(template(circuit).circuit.count_ops()) == {"rx": 1, "h": 1}


def test_directives_are_ignored():
    aer = pytest.importorskip("qiskit_aer.library")
    circuit = QuantumCircuit(1)
    circuit.append(aer.SaveStatevector(1), [0])
    circuit.rx(T, 0)
    assert len(flatten(circuit).operations) == 1


def test_repeated_flattening_leaves_the_circuit_alone():
    circuit = BLUEPRINTS["n_local"].copy()
    before = circuit.copy()
    first, second = flatten(circuit), flatten(circuit)
    for field in fields(first):
        assert getattr(first, field.name) == getattr(second, field.name), field.name
    template(circuit)
    assert circuit == before


def test_template_gradient_is_the_gradient():
    """Shift every slot of a template, then the chain rule: what hardware runs."""
    t = Parameter("t")
    circuit = QuantumCircuit(3)
    circuit.h(range(3))
    circuit.crx(2 * t, 0, 1)
    generator = SparsePauliOp(["XYZ", "ZZI", "IXX"], [0.3, -1.2, 0.7])
    circuit.append(PauliEvolutionGate(generator, t * t), [0, 1, 2])
    circuit.append(library.XXPlusYYGate(t, 0.3 - t), [2, 0])
    observable = random_hermitian(8, seed=1)

    def f(value: float) -> float:
        return Statevector(circuit.assign_parameters([value])).expectation_value(observable).real

    made, value, total = template(circuit), 0.8, 0.0
    angles = np.array([number(a, {t: value}).real for a in made.angles])
    slopes = [number(a.gradient(t), {t: value}).real for a in made.angles]
    for k, (rule, slope) in enumerate(zip(made.shifts, slopes, strict=True)):
        for c, s in rule.terms:
            bound = made.circuit.assign_parameters(angles + s * np.eye(len(angles))[k])
            total += slope * c * Statevector(bound).expectation_value(observable).real
    assert total == pytest.approx(derivative(f, value), abs=1e-8)


# State preparation


def test_preparations_at_the_start():
    circuit = QuantumCircuit(4)
    circuit.h(3)
    circuit.initialize(random_statevector(4, seed=1).data, [2, 0])
    circuit.append(StatePreparation(random_statevector(2, seed=2).data), [1])
    circuit.crx(T, 0, 1)
    circuit.cx(3, 2)
    flat = check(circuit, scramble=False)
    assert [p.qubits for p in flat.initial] == [(2, 0), (1,)]


@pytest.mark.parametrize("value", ["01", "+-", "rl", 2, 0])
def test_labels_and_integers_are_gates(value):
    circuit = QuantumCircuit(3)
    circuit.initialize(value, [2, 0] if isinstance(value, str) else [2, 1][: max(1, value.bit_length())])
    circuit.rx(T, 0)
    assert check(circuit, scramble=False).initial == ()


def test_state_preparation_after_a_gate_is_a_gate():
    circuit = QuantumCircuit(2)
    circuit.rx(T, 0)
    circuit.append(StatePreparation(random_statevector(4, seed=1).data), [0, 1])
    assert check(circuit, scramble=False).initial == ()


def test_raw_feature_vector():
    features = pytest.importorskip("qiskit_machine_learning.circuit.library").raw_feature_vector(4)
    circuit = QuantumCircuit(3)
    circuit.compose(features, [2, 0], inplace=True)
    circuit.cry(T, 0, 1)
    flat = check(circuit, scramble=False, with_template=False)
    assert flat.initial[0].normalize
    assert len(flat.angles) == 1
    with pytest.raises(CircuitError, match=r"instruction 0 .*Initialize.*amplitudes are parameters"):
        template(circuit)
    bound = circuit.assign_parameters({p: 0.3 + k for k, p in enumerate(features.parameters)})
    assert not check(bound, scramble=False).initial[0].normalize
    zero = circuit.assign_parameters(dict.fromkeys(features.parameters, 0.0))
    with pytest.raises(CircuitError, match="cannot be normalized"):
        flatten(zero)
