"""The work to lower and schedule a circuit grows with its length, not with the square of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from circuit_cases import expectation_values, random_circuit, random_values
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import efficient_su2, real_amplitudes
from qiskit.quantum_info import SparsePauliOp

from qtm._circuit import pauli_program
from qtm._circuit.flatten import flatten
from qtm._circuit.light_cone import visible
from qtm._circuit.observables import coerce_observables
from qtm._circuit.pauli_program import Phase, place, program_of
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation
from qtm._engines.simulation import Simulation
from qtm._engines.statevector.engine import StateVector
from qtm._engines.statevector.schedule import schedule


def qubit_by_qubit(reps: int) -> QuantumCircuit:
    """A qubit's last rotation stands far behind the first of the next, which has to come before all of them."""
    angles = iter(ParameterVector("a", 9 * reps))
    circuit = QuantumCircuit(3)
    for qubit in range(3):
        for _ in range(reps):
            circuit.ry(next(angles), qubit)
            circuit.rz(next(angles), qubit)
            circuit.rx(next(angles), qubit)
        circuit.cx(qubit, (qubit + 1) % 3)
    return circuit


def pair_by_pair(reps: int) -> QuantumCircuit:
    """Real rotations only: all in one phase, and those of the second pair commute with the many of the first."""
    angles = iter(ParameterVector("a", 6 * reps))
    circuit = QuantumCircuit(4)
    for _ in range(2):
        for pair in ((0, 1), (2, 3)):
            for _ in range(reps // 2):
                circuit.rzx(next(angles), *pair)
                circuit.ry(next(angles), pair[1])
    for _ in range(reps):
        circuit.ry(next(angles), 0)  # becomes one rotation, behind those of the other pair
    return circuit


CIRCUITS: dict[str, Callable[[int], QuantumCircuit]] = {
    "real, one axis": lambda reps: real_amplitudes(5, reps=reps),
    "real, neighbours": lambda reps: real_amplitudes(5, reps=reps, entanglement="linear"),
    "two axes": lambda reps: efficient_su2(4, reps=reps),
    "qubit by qubit": qubit_by_qubit,
    "pair by pair": pair_by_pair,
}


def calls(function: Callable[[], Any]) -> int:
    """How many functions are called and generators resumed: the same number in every run."""
    count = 0

    def seen(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count


def phases_of(circuit: QuantumCircuit) -> tuple[Phase, ...]:
    return place(program_of(flatten(circuit)).generators)


def work(circuit: QuantumCircuit, lane_bits: int) -> int:
    output = Expectation(coerce_observables("individualZ", circuit.num_qubits))

    def lower_and_schedule() -> None:
        for cone in StateVector().compile(flatten(circuit), output, Options()).cones:
            schedule(cone.program, lane_bits)

    return calls(lower_and_schedule)


@pytest.mark.parametrize("lane_bits", [0, 2])
@pytest.mark.parametrize("kind", CIRCUITS)
@pytest.mark.slow
def test_work_is_proportional_to_the_length(kind, lane_bits):
    short, long = (work(CIRCUITS[kind](reps), lane_bits) for reps in (120, 480))
    assert long < 4.6 * short  # 4 and a logarithm; 16 where it is quadratic


@pytest.mark.parametrize("kind", CIRCUITS)
def test_long_circuits_agree_with_qiskit(kind):
    circuit = CIRCUITS[kind](40)
    parameters, values = list(circuit.parameters), random_values(circuit, 2)
    labels = ["Z".rjust(circuit.num_qubits, "I"), "X".ljust(circuit.num_qubits, "Y")]
    output = Expectation(coerce_observables(labels, circuit.num_qubits))
    simulation = Simulation(circuit, parameters, output, Options("complex128"))
    expected = expectation_values(circuit, parameters, values, [SparsePauliOp(label) for label in labels])
    np.testing.assert_allclose(simulation.values(values), expected, atol=1e-11, rtol=0)


@pytest.mark.parametrize("seed", range(5))
def test_the_light_cone_keeps_what_clashes_with_a_generator_seen(seed):
    """Against the definition: compare every rotation with all that were kept behind it, and with all terms."""
    circuit = QuantumCircuit(6)
    rng = np.random.default_rng(seed)
    for _ in range(40):
        a, b = rng.choice(6, 2, replace=False).tolist()
        getattr(circuit, rng.choice(["rxx", "ryy", "rzz", "rzx"]))(rng.normal(), a, b)
    phases = phases_of(circuit)
    kept, expected = [(0, 1)], []  # Z on qubit 0
    for phase in reversed(phases):
        generators = [(x, w) for x, w, _ in reversed(phase.rotations)] + [(0, z) for z in reversed(phase.diagonal)]
        for x, z in generators:
            if any(((x & w).bit_count() ^ (z & v).bit_count()) & 1 for v, w in kept):
                kept.append((x, z))
                expected.append((x, z))
    assert [(item.x, item.z) for item in visible(phases, np.array([0]), np.array([1]))] == expected[::-1]


def placed(circuit: QuantumCircuit) -> list[Any]:
    return [
        (
            [(z, slot.terms, slot.offset) for z, slot in phase.diagonal.items()],
            [(x, w, slot.terms, slot.offset) for x, w, slot in phase.rotations],
        )
        for phase in phases_of(circuit)
    ]


@pytest.mark.parametrize("seed", range(20))
def test_the_trees_place_rotations_where_the_walk_does(seed, monkeypatch):
    circuit = random_circuit(seed, 2 + seed % 4, 20 * (1 + seed % 7))
    monkeypatch.setattr(pauli_program, "_NEAR", 10**9)
    by_walking = placed(circuit)
    for near in (0, 5):
        monkeypatch.setattr(pauli_program, "_NEAR", near)
        assert placed(circuit) == by_walking
