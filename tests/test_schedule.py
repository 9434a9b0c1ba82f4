"""How a circuit is dealt into passes, and what is kept of a forward sweep, beside Qiskit's values."""

from __future__ import annotations

from itertools import pairwise, product
from math import pi

import numpy as np
import pytest
from array_simulation import ArraySimulation
from circuit_cases import differences, expectation_values, random_observables
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import real_amplitudes

from qtm._circuit.gf2 import pivots
from qtm._circuit.observables import coerce_observables
from qtm._engines.options import Options
from qtm._engines.statevector.kernels.recipe import (
    ALIKE,
    COSET_INDEX,
    COSETS,
    COUNT,
    DOUBLE_SUPPORT,
    GROUPS,
    KIND,
    MASKS,
    PHASE,
    PLACE,
    ROTATE,
    SLOT,
    TILE_BITS,
    Recipe,
)
from qtm._engines.statevector.row_basis import SET_BITS, Basis

TOLERANCE = {"complex128": 1e-11, "complex64": 5e-5}
LANES = ("sample", "amplitude")
ANGLES = {  # the kernels divide cosines out, and do not near half turns
    "random": lambda rng, shape: rng.uniform(-pi, pi, shape),
    "half turns": lambda rng, shape: np.full(shape, pi),
    "some half turns": lambda rng, shape: rng.choice([pi, pi - 1e-7, 0.3, -pi, 0.0], shape),
}


def ring(num_qubits: int, layers: int = 3) -> QuantumCircuit:
    angles = iter(ParameterVector("t", 2 * layers * num_qubits))
    circuit = QuantumCircuit(num_qubits)
    for _ in range(layers):
        for qubit in range(num_qubits):
            circuit.ry(next(angles), qubit)
            circuit.rz(next(angles), qubit)
        for qubit in range(num_qubits):
            circuit.cx(qubit, (qubit + 1) % num_qubits)
    return circuit


def simulation(circuit: QuantumCircuit, observables: list, **options: object) -> ArraySimulation:
    measured = coerce_observables(observables, circuit.num_qubits)
    return ArraySimulation(circuit, list(circuit.parameters), measured, Options(num_threads=1, **options))


def recipe_of(found: ArraySimulation, batch: int = 1) -> Recipe:
    return found.engine.sweeps(batch).recipe


@pytest.mark.thinned(5)
@pytest.mark.parametrize("name", ANGLES)
@pytest.mark.parametrize(("dtype", "lanes"), list(product(TOLERANCE, LANES)))
def test_values_and_slopes_agree_with_qiskit(dtype, lanes, name):
    rng = np.random.default_rng(3)
    for circuit in (ring(8), real_amplitudes(8, reps=2)):
        observables, parameters = random_observables(1, 8, 2), list(circuit.parameters)
        found = simulation(circuit, observables, dtype=dtype, lane_kind=lanes)
        values = ANGLES[name](rng, (3, len(parameters))).astype(found.engine.real)
        computed, kept = found.engine.values(values, keep=True)
        exact = values.astype(float)
        np.testing.assert_allclose(
            computed, expectation_values(circuit, parameters, exact, observables), atol=TOLERANCE[dtype]
        )
        direction = rng.normal(size=len(parameters))

        def along(
            steps: np.ndarray, at=exact, circuit=circuit, direction=direction, observables=observables
        ) -> np.ndarray:
            rows = np.concatenate([at + step * direction for step in steps[:, 0]])
            values = expectation_values(circuit, list(circuit.parameters), rows, observables).sum(1)
            return values.reshape(len(steps), -1)

        gradient = found.engine.vjp(values, np.ones_like(computed), kept=kept)[0]
        slopes = differences(along, np.zeros((1, 1)))[0, :, 0]
        np.testing.assert_allclose(gradient @ direction, slopes, atol=max(1e-7, 40 * TOLERANCE[dtype]))


def test_a_rotation_between_lanes_shares_the_pass_of_others():
    ops = recipe_of(simulation(ring(10), random_observables(1, 10), lane_kind="amplitude")).ops
    between = [op for op in ops if op[KIND] == ROTATE and op[MASKS] == 0]
    assert between
    assert any(op[GROUPS] > 1 for op in between)


@pytest.mark.parametrize("lanes", LANES)
def test_layers_of_one_tile_share_a_pass(lanes):
    recipe = recipe_of(simulation(ring(12), random_observables(1, 12), lane_kind=lanes))
    ops = recipe.ops
    passes = [
        ops[i - op[PLACE] : i + 1]
        for i, op in enumerate(ops)
        if op[KIND] in (ROTATE, PHASE) and op[PLACE] + 1 == op[GROUPS]
    ]
    assert sum(len(p) for p in passes) == np.isin(ops[:, KIND], (ROTATE, PHASE)).sum()
    largest = max(passes, key=len)
    assert (largest[:, KIND] == PHASE).sum() > 1
    for steps in passes:
        rotations = steps[steps[:, KIND] == ROTATE]
        slots = [slot for op in rotations for slot in range(op[SLOT], op[SLOT] + op[COUNT])]
        assert slots == list(range(slots[0], slots[0] + len(slots))) if slots else True  # the kernels multiply cosines
        for op in steps:
            rows = recipe.index[
                op[COSET_INDEX] : op[COSET_INDEX] + op[COSETS] * max(op[ALIKE] if op[KIND] == PHASE else 1, 1)
            ]
            if op[KIND] == ROTATE:
                for mask in op[MASKS : MASKS + op[COUNT]]:
                    rows = np.union1d(rows, rows ^ mask)
            assert len(set(rows)) == 1 << op[TILE_BITS]  # every row of the tile


def test_bits_of_neighbouring_rows_lie_in_different_sets_of_the_cache():
    basis = Basis(lane_bits=3)
    rows = [basis.add(1 << qubit) >> 3 for qubit in range(24)][3:]
    neighbours = [a ^ b for a, b in pairwise(rows)]
    for masks in (rows, neighbours, [a ^ b for a, b in pairwise(neighbours)]):
        for first in range(len(masks) - SET_BITS):
            assert len(pivots([m % (1 << SET_BITS) for m in masks[first : first + SET_BITS]])) == SET_BITS


@pytest.mark.parametrize("size", [7, 9, 10, 12])
def test_a_support_grows_three_bits_at_a_time(size):
    kinds = recipe_of(simulation(ring(size), random_observables(1, size), lane_kind="sample")).ops[:, KIND]
    doubled = np.flatnonzero(kinds == DOUBLE_SUPPORT)
    runs = 1 + sum(b - a > 1 for a, b in pairwise(doubled))
    assert len(doubled) == size
    assert runs == -(-size // 3)
    assert (kinds[doubled[0] : doubled[-1]] == PHASE).any()  # not all of it first


@pytest.mark.parametrize("lanes", LANES)
def test_one_large_angle_changes_no_other_sample(lanes):
    circuit = ring(5)
    found = simulation(circuit, random_observables(2, 5), lane_kind=lanes)
    values = np.random.default_rng(0).uniform(-pi, pi, (19, circuit.num_parameters))
    large = values.copy()
    large[4, 3] = 1e7
    others = np.arange(len(values)) != 4
    one, other = (found.engine.values(v)[0] for v in (values, large))
    np.testing.assert_array_equal(one[others], other[others])
    assert (one[4] != other[4]).any()


@pytest.mark.parametrize(("dtype", "lanes"), list(product(TOLERANCE, LANES)))
def test_memory_is_counted_with_what_is_kept_beside_the_states(dtype, lanes):
    found = simulation(ring(6, 20), random_observables(1, 6), dtype=dtype, lane_kind=lanes)
    sweeps = found.engine.sweeps(5)
    assert sweeps.buffer(3).nbytes == 3 * sweeps.tiling.tile_bytes
    angles = 3 * len(sweeps.recipe.slot_offset) * sweeps.tiling.lanes * np.dtype(found.engine.real).itemsize
    assert sweeps.tiling.tile_bytes > angles


@pytest.mark.parametrize("lanes", LANES)
def test_sweeps_of_two_points_may_be_interleaved(lanes):
    circuit = ring(6)
    found = simulation(circuit, random_observables(1, 6), lane_kind=lanes).engine
    rng = np.random.default_rng(0)
    points = [rng.uniform(-pi, pi, (9, circuit.num_parameters)) for _ in range(2)]
    kept = [found.values(point, keep=True)[1] for point in points]
    cotangent = np.ones((9, found.num_outputs))
    for point, states in zip(points, kept, strict=True):
        alone = found.vjp(point, cotangent)[0]
        np.testing.assert_array_equal(found.vjp(point, cotangent, kept=states)[0], alone)
