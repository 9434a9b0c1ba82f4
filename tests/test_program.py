"""Lowering and scheduling: any circuit gives Qiskit's values, and equal circuits one program."""

from __future__ import annotations

from math import pi

import numpy as np
import pytest
from array_simulation import ArraySimulation as Simulation
from circuit_cases import (
    REAL,
    STANDARD,
    UNITARY,
    differences,
    expectation_values,
    random_circuit,
    random_observables,
    random_values,
    shuffled,
    states,
)
from qiskit import QuantumCircuit
from qiskit.circuit import Gate, Parameter, ParameterVector
from qiskit.circuit.library import efficient_su2, real_amplitudes, zz_feature_map
from qiskit.quantum_info import Pauli, SparsePauliOp

from qtm._circuit.gates import GATES
from qtm._circuit.observables import coerce_observables
from qtm._circuit.pauli_program import flattened, lower
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation
from qtm._engines.statevector.engine import StateVector
from qtm._engines.statevector.schedule import Schedule, schedule
from qtm._errors import ParameterError

ERRORS = {"complex128": 1e-11, "complex64": 2e-4}


def simulate(circuit, parameters, observables, dtype="complex128", **options) -> Simulation:
    measured = None if observables is None else coerce_observables(observables, circuit.num_qubits)
    return Simulation(circuit, parameters, measured, Options(dtype, 1, **options))


def planned(circuit: QuantumCircuit, observables) -> Schedule:
    """The schedule of a circuit whose observables share one state."""
    measured = coerce_observables(observables, circuit.num_qubits)
    (cone,) = StateVector().compile(flattened(circuit), Expectation(measured), Options()).cones
    return schedule(cone.program)


def agrees(circuit: QuantumCircuit, observables, seed: int = 0, batch: int = 4, error: float = 1e-11) -> None:
    """Values, derivatives by the gate angles and probabilities, against Qiskit and finite differences."""
    parameters, values = shuffled(circuit, seed), random_values(circuit, batch, seed)
    simulation = simulate(circuit, parameters, observables)
    expected = expectation_values(circuit, parameters, values, observables)
    np.testing.assert_allclose(simulation.values(values), expected, atol=error, rtol=0)
    angles = simulation.numpy_angles(values)
    start = simulation.initial_rows(values)
    jacobian = simulation.engine.jacobian(angles, start)
    if angles.size and start is None:
        slopes = differences(lambda a: simulation.engine.values(a)[0], angles)
        np.testing.assert_allclose(jacobian, slopes, atol=1e-8, rtol=0)
    probabilities = simulate(circuit, parameters, None).values(values)
    found = [state.probabilities() for state in states(circuit, parameters, values)]
    np.testing.assert_allclose(probabilities, found, atol=error, rtol=0)


# Random circuits


@pytest.mark.thinned(4)
@pytest.mark.parametrize("seed", range(40))
def test_random_circuits(seed):
    num_qubits = 1 + seed % 5
    circuit = random_circuit(seed, num_qubits, 3 + seed)
    agrees(circuit, random_observables(seed, num_qubits), seed)


@pytest.mark.thinned(4)
@pytest.mark.parametrize("seed", range(20))
def test_random_real_circuits(seed):
    """No imaginary part is stored; strings with an odd number of Y vanish, those with an even one do not."""
    num_qubits = 2 + seed % 4
    circuit = random_circuit(seed, num_qubits, 4 + 2 * seed, REAL)
    ys = ["Y" + "I" * (num_qubits - 1), "Y" * num_qubits, "YY".ljust(num_qubits, "Z"), "YX".rjust(num_qubits, "I")]
    agrees(circuit, [*random_observables(seed, num_qubits), *map(Pauli, ys)], seed)
    recipe = planned(circuit, ["Y" * num_qubits]).recipe
    assert recipe.parts == 1


@pytest.mark.parametrize("seed", range(0, 40, 3))
def test_random_circuits_in_single_precision(seed):
    circuit = random_circuit(seed, 4, 10 + seed)
    parameters, values = shuffled(circuit), random_values(circuit, 5, seed).astype(np.float32)
    observables = random_observables(seed, 4)
    expected = expectation_values(circuit, parameters, values.astype(float), observables)
    for lane_kind in ("sample", "amplitude"):
        simulation = simulate(circuit, parameters, observables, "complex64", lane_kind=lane_kind)
        np.testing.assert_allclose(simulation.values(values), expected, atol=ERRORS["complex64"])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 160))
def test_more_random_circuits_in_both_kinds_of_lanes(seed):
    num_qubits = 5 + seed % 3
    names = UNITARY if seed % 3 else REAL
    circuit = random_circuit(seed, num_qubits, 2 * seed - 150, names)
    parameters, values = shuffled(circuit, seed), random_values(circuit, 3, seed)
    observables = random_observables(seed, num_qubits)
    expected = expectation_values(circuit, parameters, values, observables)
    gradients = []
    for lane_kind in ("sample", "amplitude"):
        simulation = simulate(circuit, parameters, observables, lane_kind=lane_kind)
        np.testing.assert_allclose(simulation.values(values), expected, atol=1e-11)
        gradients.append(simulation.engine.jacobian(simulation.numpy_angles(values)))
    np.testing.assert_allclose(*gradients, atol=1e-11)


@pytest.mark.thinned(4)
@pytest.mark.parametrize("name", [name for name in GATES if name not in ("delay", "global_phase")])
def test_every_gate_of_the_table_among_others(name):
    gate, angles = STANDARD[name], ParameterVector("ψ", 4)
    circuit = efficient_su2(4, reps=1)
    for qubits in ((0, 1, 2, 3), (3, 1, 0, 2)):
        circuit.append(gate.base_class(*angles[: len(gate.params)]), qubits[: gate.num_qubits])
    circuit.compose(real_amplitudes(4, reps=1, parameter_prefix="φ"), inplace=True)
    agrees(circuit, random_observables(1, 4), batch=2)


def test_a_global_phase_that_nothing_else_uses_needs_its_parameter():
    circuit = QuantumCircuit(1, global_phase=Parameter("phase"))
    circuit.ry(Parameter("t"), 0)
    agrees(circuit, [Pauli("Z")])
    with pytest.raises(ParameterError, match="t"):
        simulate(circuit, list(circuit.parameters)[:1], ["Z"])


def test_many_observables_of_many_strings():
    """More sign masks than fit one pair of tables."""
    rng = np.random.default_rng(0)
    circuit = efficient_su2(5, reps=2)
    labels = ["".join(rng.choice(list("IXYZ"), 5)) for _ in range(400)] + ["".join(r) for r in _all_z(5)]
    dense = SparsePauliOp(labels, rng.normal(size=len(labels)))
    agrees(circuit, [dense, *map(Pauli, labels[::7])], batch=2)


def _all_z(num_qubits: int) -> list[str]:
    return [f"{i:0{num_qubits}b}".replace("0", "I").replace("1", "Z") for i in range(2**num_qubits)]


def test_many_commuting_phases():
    """A layer of all ZZ rotations has more masks than one pair of tables holds."""
    n = 8
    angles = iter(ParameterVector("γ", n * (n - 1) // 2))
    circuit = QuantumCircuit(n)
    circuit.h(range(n))
    for a in range(n):
        for b in range(a):
            circuit.rzz(next(angles), a, b)
    circuit.rx(Parameter("β"), range(n))
    agrees(circuit, random_observables(3, n, 2), batch=1)


def test_feature_maps_and_barriers():
    circuit = zz_feature_map(3, reps=2, insert_barriers=True).compose(real_amplitudes(3, insert_barriers=True))
    agrees(circuit, random_observables(0, 3))


# What no observable sees, and what does nothing


def no_parameter_is_seen():
    circuit = QuantumCircuit(2)
    circuit.ry(Parameter("t"), 0)
    return circuit, [Pauli("ZI"), Pauli("XI")]


def dead_end():
    """The observable commutes with all that depends on a parameter."""
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.rz(Parameter("t"), 0)
    circuit.rzz(Parameter("u"), 0, 1)
    return circuit, [Pauli("IZ"), Pauli("ZZ")]


def idle_qubits():
    circuit = QuantumCircuit(5)
    circuit.rx(Parameter("t"), 3)
    return circuit, [Pauli("IZIII"), Pauli("ZIIIZ"), Pauli("IYIIZ"), Pauli("IXXII")]


def only_cliffords():
    circuit = QuantumCircuit(3)
    circuit.x(0)
    circuit.cx(0, 1)
    circuit.swap(1, 2)
    circuit.s(2)
    return circuit, random_observables(0, 3)


def only_constants():
    circuit = QuantumCircuit(3)
    circuit.h(0)
    circuit.t(0)
    circuit.ecr(0, 1)
    circuit.csx(1, 2)
    return circuit, random_observables(0, 3)


def undone():
    """Rotations that cancel: their sum is zero whatever the parameter."""
    circuit, t = QuantumCircuit(2), Parameter("t")
    circuit.ry(t, 0)
    circuit.ry(-t, 0)
    circuit.cx(0, 1)
    circuit.cx(0, 1)
    circuit.rz(t, 1)
    return circuit, random_observables(0, 2)


def full_turns():
    circuit, t = QuantumCircuit(2), Parameter("t")
    circuit.ry(2 * pi, 0)
    circuit.rx(4 * pi, 1)
    circuit.ry(t, 1)
    circuit.crx(2 * pi, 0, 1)
    return circuit, random_observables(0, 2)


def repeated():
    circuit, t = QuantumCircuit(3), Parameter("t")
    for _ in range(12):
        circuit.ry(t, 0)
        circuit.cx(0, 1)
        circuit.rz(t, 1)
        circuit.cx(1, 2)
    return circuit, random_observables(0, 3)


def one_qubit():
    circuit = QuantumCircuit(1)
    for i, name in enumerate(("rx", "ry", "rz", "rx", "p")):
        getattr(circuit, name)(Parameter(f"t{i}"), 0)
    return circuit, random_observables(0, 1)


def no_gates():
    return QuantumCircuit(3), [Pauli("ZZZ"), Pauli("IIX"), Pauli("III")]


def trivial_observables():
    circuit, _ = repeated()
    return circuit, [Pauli("III"), SparsePauliOp("ZZZ", 0.0), SparsePauliOp(["XII", "XII"], [1, -1])]


def no_terms_at_all():
    circuit, _ = repeated()
    return circuit, [SparsePauliOp("ZZZ", 0.0)]


CORNERS = (
    no_parameter_is_seen,
    dead_end,
    idle_qubits,
    only_cliffords,
    only_constants,
    undone,
    full_turns,
    repeated,
    one_qubit,
    no_gates,
    trivial_observables,
    no_terms_at_all,
)


@pytest.mark.parametrize("build", CORNERS, ids=lambda f: f.__name__)
def test_corners(build):
    circuit, observables = build()
    agrees(circuit, observables)


@pytest.mark.parametrize("build", CORNERS, ids=lambda f: f.__name__)
def test_corners_in_wider_circuits(build):
    """The same beside four more busy qubits, in amplitude lanes."""
    corner, observables = build()
    n = corner.num_qubits
    circuit = efficient_su2(n + 4, reps=1, parameter_prefix="busy").compose(corner, range(n))
    wide = [Pauli("ZXYZ").tensor(o) if isinstance(o, Pauli) else SparsePauliOp("ZIXI").tensor(o) for o in observables]
    parameters, values = shuffled(circuit), random_values(circuit, 2)
    expected = expectation_values(circuit, parameters, values, wide)
    for dtype, lane_kind in (("complex128", "amplitude"), ("complex64", "amplitude"), ("complex128", "sample")):
        simulation = simulate(circuit, parameters, wide, dtype, lane_kind=lane_kind)
        found = simulation.values(values.astype(simulation.engine.real))
        np.testing.assert_allclose(found, expected, atol=ERRORS[dtype])


def test_unobserved_parts_are_not_computed():
    circuit, observables = dead_end()
    plan = planned(circuit, observables)
    assert len(plan.recipe.slot_angle) == 0  # no parameter is left


# The cache


def turned(angle, qubits: int = 2) -> QuantumCircuit:
    circuit = QuantumCircuit(qubits)
    circuit.rx(angle, 0)
    circuit.cx(0, 1)
    return circuit


T = Parameter("t")


def with_gate(gate: Gate) -> QuantumCircuit:
    circuit = QuantumCircuit(1)
    circuit.append(gate, [0])
    return circuit


def custom(angle: float) -> Gate:
    definition = QuantumCircuit(1)
    definition.ry(angle, 0)
    gate = Gate("mine", 1, [])
    gate.definition = definition
    return gate


def test_equal_circuits_share_a_program():
    assert lower(turned(T)) is lower(turned(T))
    assert lower(turned(2 * T + 1)) is lower(turned(2 * T + 1))
    assert lower(turned(0.3)) is lower(turned(0.3))
    circuit = turned(T)
    assert lower(circuit) is lower(circuit.copy())


def test_equal_circuits_with_barriers_and_measurements_share_a_program():
    def build() -> QuantumCircuit:
        circuit = turned(T)
        circuit.barrier()
        circuit.measure_all()
        return circuit

    assert lower(build()) is lower(build())


def other_circuits() -> dict[str, QuantumCircuit]:
    swapped = QuantumCircuit(2)
    swapped.rx(T, 0)
    swapped.cx(1, 0)
    return {
        "same": turned(T),
        "a parameter of equal name": turned(Parameter("t")),
        "another expression": turned(2 * T),
        "another number": turned(0.3),
        "other qubits": swapped,
        "more qubits": turned(T, 3),
        "open control": _open_control(),
        "custom": with_gate(custom(0.1)),
        "custom of equal name": with_gate(custom(0.2)),
        "a global phase parameter": QuantumCircuit(2, global_phase=T),
    }


def _open_control() -> QuantumCircuit:
    circuit = QuantumCircuit(2)
    circuit.rx(T, 0)
    circuit.cx(0, 1, ctrl_state=0)
    return circuit


def test_different_circuits_have_different_programs():
    circuits = other_circuits()
    programs = {name: lower(circuit) for name, circuit in circuits.items()}
    assert len({id(p) for p in programs.values()}) == len(circuits)
    assert programs["same"] is lower(turned(T))
    for name in ("custom", "custom of equal name"):
        agrees(circuits[name], [Pauli("Z"), Pauli("X")])


def test_a_circuit_changed_after_use_is_lowered_again():
    circuit = turned(T)
    first = lower(circuit)
    circuit.ry(0.4, 1)
    second = lower(circuit)
    assert second is not first
    agrees(circuit, random_observables(0, 2))
    circuit.data.pop()
    assert lower(circuit) is first


def test_a_custom_gate_changed_after_use_is_lowered_again():
    gate = custom(0.1)
    circuit = with_gate(gate)
    agrees(circuit, [Pauli("Z")])
    gate.definition.ry(0.5, 0)
    agrees(circuit, [Pauli("Z")])


def test_observables_have_schedules_of_their_own():
    circuit = turned(T)
    z, x = (coerce_observables([o], 2) for o in ("ZI", "XI"))
    assert planned(circuit, z) is planned(circuit, coerce_observables(["ZI"], 2))
    assert planned(circuit, z) is not planned(circuit, x)
    values = np.array([[0.7]])
    assert simulate(circuit, [T], ["ZI"]).values(values) == pytest.approx(np.cos(0.7))
    assert simulate(circuit, [T], ["XI"]).values(values) == pytest.approx(0)
