"""The work to lower and schedule a circuit grows with its length, not with the square of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from circuit_cases import expectation_values, random_values
from qiskit import QuantumCircuit
from qiskit.circuit.library import efficient_su2, real_amplitudes
from qiskit.quantum_info import SparsePauliOp

from qtm._circuit.light_cone import _visible
from qtm._circuit.observables import coerce_observables
from qtm._circuit.pauli_program import _lower
from qtm._engines.options import Options
from qtm._engines.simulation import Simulation
from qtm._engines.statevector.pauli_groups import conjugated_terms
from qtm._engines.statevector.schedule import _schedule

CIRCUITS: dict[str, Callable[[int], QuantumCircuit]] = {
    "real, one axis": lambda reps: real_amplitudes(5, reps=reps),
    "real, neighbours": lambda reps: real_amplitudes(5, reps=reps, entanglement="linear"),
    "two axes": lambda reps: efficient_su2(4, reps=reps),
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


def work(circuit: QuantumCircuit, lane_bits: int) -> int:
    observables = coerce_observables("individualZ", circuit.num_qubits)
    return calls(lambda: _schedule(_lower(circuit), observables, lane_bits))


@pytest.mark.parametrize("lane_bits", [0, 2])
@pytest.mark.parametrize("kind", CIRCUITS)
def test_work_is_proportional_to_the_length(kind, lane_bits):
    short, long = (work(CIRCUITS[kind](reps), lane_bits) for reps in (60, 240))
    assert long < 4.6 * short


@pytest.mark.parametrize("kind", CIRCUITS)
def test_long_circuits_agree_with_qiskit(kind):
    circuit = CIRCUITS[kind](40)
    parameters, values = list(circuit.parameters), random_values(circuit, 2)
    labels = ["Z".rjust(circuit.num_qubits, "I"), "X".ljust(circuit.num_qubits, "Y")]
    simulation = Simulation(circuit, parameters, coerce_observables(labels, circuit.num_qubits), Options("complex128"))
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
    program = _lower(circuit)
    terms = conjugated_terms(program, coerce_observables("IIIIIZ", 6))
    kept = [(int(x), int(z)) for x, z in zip(terms.x, terms.z, strict=True)]
    expected = []
    for phase in reversed(program.phases):
        generators = [(x, w) for x, w, _ in reversed(phase.rotations)] + [(0, z) for z in reversed(phase.diagonal)]
        for x, z in generators:
            if any(((x & w).bit_count() ^ (z & v).bit_count()) & 1 for v, w in kept):
                kept.append((x, z))
                expected.append((x, z))
    assert [(item.x, item.z) for item in _visible(program, terms.x, terms.z)] == expected[::-1]
