"""The density-matrix engine against Qiskit's DensityMatrix, and its derivatives against finite differences."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import pi

import numpy as np
import pytest
import torch
from circuit_cases import differences, random_observables
from noise_cases import STRENGTHS, final_state, noisy
from qiskit.circuit import Parameter
from qiskit.quantum_info import DensityMatrix as QiskitState
from qiskit.quantum_info import Statevector, random_statevector

from qtm._circuit.channels import CHANNELS, Channel
from qtm._circuit.flatten import FlatCircuit, Preparation
from qtm._circuit.gates import Clifford, PauliRotation
from qtm._circuit.observables import Observable, coerce_observables
from qtm._engines.density_matrix.engine import DensityMatrix, DensityMatrixEngine
from qtm._engines.engine import Engine
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation, Output, Probabilities, Samples, State
from qtm._errors import OutOfMemory

READOUT = ((0.02, 0.05), (0.0, 0.0), (0.1, 0.03), (0.01, 0.01))


def compiled(flat: FlatCircuit, output: Output, **options: object) -> Engine:
    return DensityMatrix().compile(flat, output, Options(**options))  # type: ignore[arg-type]


def angles_of(flat: FlatCircuit, batch: int, seed: int = 0) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).uniform(-pi, pi, (batch, len(flat.angles))))


def observed(seed: int, num_qubits: int) -> tuple[Observable, ...]:
    return coerce_observables(random_observables(seed, num_qubits), num_qubits)


def oracle(flat: FlatCircuit, angles: torch.Tensor, seed: int) -> np.ndarray:
    states = [final_state(flat, row) for row in angles.tolist()]
    return np.array([[s.expectation_value(o).real for o in random_observables(seed, flat.num_qubits)] for s in states])


def slopes(engine: Engine, angles: torch.Tensor, prepared: tuple = ()) -> np.ndarray:
    """Derivatives (batch, outputs, angles) by finite differences."""
    return differences(lambda values: engine.forward(torch.tensor(values), prepared)[0].numpy(), angles.numpy())


def jacobian(engine: Engine, angles: torch.Tensor, keep: bool = True) -> np.ndarray:
    rows = []
    values, _ = engine.forward(angles, ())
    for output in range(values.shape[1]):
        cotangent = torch.zeros_like(values)
        cotangent[:, output] = 1
        kept = engine.forward(angles, (), keep=keep)[1]
        rows.append(engine.vjp(angles, (), cotangent, kept)[0].numpy())
    return np.stack(rows, 1)


@pytest.mark.thinned(4)
@pytest.mark.parametrize("num_qubits", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_values_of_random_noisy_circuits(seed: int, num_qubits: int) -> None:
    flat = noisy(10 * seed + num_qubits, num_qubits, 14)
    angles = angles_of(flat, 2)
    engine = compiled(flat, Expectation(observed(seed, num_qubits)))
    np.testing.assert_allclose(engine.forward(angles, ())[0], oracle(flat, angles, seed), atol=1e-11)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_derivatives_of_random_noisy_circuits(seed: int, keep: bool) -> None:
    flat = noisy(seed, 3, 12)
    angles = angles_of(flat, 2)
    engine = compiled(flat, Expectation(observed(seed, 3)))
    np.testing.assert_allclose(jacobian(engine, angles, keep), slopes(engine, angles), atol=1e-8)


@pytest.mark.parametrize("name", CHANNELS)
def test_every_channel_alone(name: str) -> None:
    flat = noisy(3, 3, 10, [name])
    angles = angles_of(flat, 1)
    engine = compiled(flat, Expectation(observed(1, 3)))
    np.testing.assert_allclose(engine.forward(angles, ())[0], oracle(flat, angles, 1), atol=1e-11)


def _chain(num_qubits: int, layers: int, name: str, strengths: tuple[float, ...]) -> FlatCircuit:
    """Rotations with noise, and CX between neighbours: more coordinates than one tile has."""
    flat = noisy(0, num_qubits, 1)
    operations: list = []
    angle = 0
    for _ in range(layers):
        for q in range(num_qubits):
            for letter in "YZ":
                operations += [PauliRotation(letter, (q,), ((angle, 1.0),)), Channel(name, (q,), strengths)]
                angle += 1
        for q in range(num_qubits - 1):
            operations.append(Clifford("cx", (q, q + 1)))
    return replace(flat, operations=tuple(operations), angles=flat.angles[:1] * angle, initial=())


@pytest.mark.parametrize(
    ("name", "strengths"),
    [
        ("pauli", (0.01, 0.02, 0.005)),
        ("depolarizing", (0.02,)),
        ("thermal_relaxation", (0.05, 0.07, 0.01)),
        ("reset", (0.8, 0.2)),  # nothing is left: not to be undone by division
        ("amplitude_damping", (1.0, 0.0)),
        ("depolarizing", (1.0,)),
    ],
)
def test_more_coordinates_than_a_tile(name: str, strengths: tuple[float, ...]) -> None:
    flat = _chain(5, 2, name, strengths)
    angles = angles_of(flat, 2)
    engine = compiled(flat, Expectation(observed(2, 5)))
    np.testing.assert_allclose(engine.forward(angles, ())[0], oracle(flat, angles, 2), atol=1e-11)
    cotangent = torch.tensor(np.random.default_rng(0).normal(size=(2, 3)))
    wanted = np.einsum("bo,boa->ba", cotangent, slopes(engine, angles))
    for keep in (True, False):
        kept = engine.forward(angles, (), keep=keep)[1]
        np.testing.assert_allclose(engine.vjp(angles, (), cotangent, kept)[0], wanted, atol=1e-8)


@pytest.mark.parametrize("batch", [0, 1, 7, 8, 17])
@pytest.mark.parametrize("dtype", ["complex128", "complex64"])
def test_batches_in_both_precisions(batch: int, dtype: str) -> None:
    flat = noisy(5, 3, 12)
    angles = angles_of(flat, batch)
    single = dtype == "complex64"
    engine = compiled(flat, Expectation(observed(5, 3)), dtype=dtype)
    given = angles.float() if single else angles
    values, kept = engine.forward(given, (), keep=True)
    assert values.dtype == given.dtype and values.shape == (batch, 3)
    cotangent = torch.ones_like(values)
    gradient = engine.vjp(given, (), cotangent, kept)[0]
    exact = compiled(flat, Expectation(observed(5, 3)))
    np.testing.assert_allclose(values, exact.forward(angles, ())[0], atol=2e-4 if single else 1e-12)
    wanted = exact.vjp(angles, (), torch.ones(batch, 3, dtype=torch.float64))[0]
    np.testing.assert_allclose(gradient, wanted, atol=2e-4 if single else 1e-12)


def test_one_sample_does_not_depend_on_the_others() -> None:
    flat = noisy(6, 3, 12)
    angles = angles_of(flat, 11)
    engine = compiled(flat, Expectation(observed(6, 3)))
    whole = engine.forward(angles, ())[0]
    for sample in (0, 7, 8, 10):
        np.testing.assert_array_equal(engine.forward(angles[sample : sample + 1], ())[0][0], whole[sample])


@pytest.mark.parametrize("qubits", [(0,), (2, 0), (3, 1, 0, 2)])
def test_probabilities_with_readout_errors(qubits: tuple[int, ...]) -> None:
    flat = replace(noisy(8, 4, 10), readout=READOUT)
    angles = angles_of(flat, 2)
    engine = compiled(flat, Probabilities(qubits))
    found = engine.forward(angles, ())[0]
    for row, state in zip(found, (final_state(flat, a) for a in angles.tolist()), strict=True):
        wanted = state.probabilities(list(qubits)).reshape((2,) * len(qubits))
        for axis, qubit in enumerate(reversed(qubits)):
            flip_0, flip_1 = READOUT[qubit]
            confusion = np.array([[1 - flip_0, flip_1], [flip_0, 1 - flip_1]])
            wanted = np.moveaxis(np.tensordot(confusion, wanted, (1, axis)), 0, axis)
        np.testing.assert_allclose(row, wanted.ravel(), atol=1e-11)
    np.testing.assert_allclose(jacobian(engine, angles), slopes(engine, angles), atol=1e-8)


def test_readout_errors_of_observables_are_those_of_probabilities() -> None:
    flat = replace(noisy(9, 4, 10), readout=READOUT)
    angles = angles_of(flat, 2)
    diagonal = coerce_observables([{"ZZIZ": 0.7, "IIZI": -0.3, "ZIII": 1.1, "IIII": 0.2}], 4)
    signs = np.array([[(-1) ** (o & m).bit_count() for o in range(16)] for m in (0b1101, 0b0010, 0b1000, 0)])
    chances = compiled(flat, Probabilities((0, 1, 2, 3))).forward(angles, ())[0].numpy()
    wanted = chances @ (np.array([0.7, -0.3, 1.1, 0.2]) @ signs)
    np.testing.assert_allclose(compiled(flat, Expectation(diagonal)).forward(angles, ())[0][:, 0], wanted, atol=1e-11)


@pytest.mark.parametrize("shared", [True, False])
def test_prepared_amplitudes_and_their_derivatives(shared: bool) -> None:
    flat = noisy(4, 3, 10)
    flat = replace(flat, initial=(Preparation((2, 0), (1.0, 0, 0, 0), False),))
    angles = angles_of(flat, 3)
    amplitudes = torch.tensor(np.array([random_statevector(4, seed=s).data for s in range(1 if shared else 3)]))
    engine = compiled(flat, Expectation(observed(4, 3)))
    values = engine.forward(angles, (amplitudes,))[0]
    for sample, row in enumerate(angles.tolist()):
        start = Statevector.from_label("000")
        vector = np.zeros(8, complex)
        for index, amplitude in enumerate(amplitudes[min(sample, len(amplitudes) - 1)].tolist()):
            vector[(index & 1) << 2 | index >> 1] = amplitude
        start = QiskitState(Statevector(vector))
        state = final_state(flat, row, start)
        wanted = [state.expectation_value(o).real for o in random_observables(4, 3)]
        np.testing.assert_allclose(values[sample], wanted, atol=1e-11)
    cotangent = torch.tensor(np.random.default_rng(1).normal(size=(3, 3)))
    by_angles, by_prepared = engine.vjp(angles, (amplitudes,), cotangent, by_prepared=True)
    assert by_prepared is not None and by_prepared[0].shape == amplitudes.shape
    with ThreadPoolExecutor(2) as pool:
        dealt = compiled(flat, Expectation(observed(4, 3)), executor=pool)
        found, again = dealt.vjp(angles, (amplitudes,), cotangent, by_prepared=True)
        assert again is not None
        torch.testing.assert_close(found, by_angles, rtol=0, atol=1e-12)
        torch.testing.assert_close(again[0], by_prepared[0], rtol=0, atol=1e-12)
    for part in (1.0, 1j):
        for index in range(4):
            step = torch.zeros_like(amplitudes)
            step[0, index] = 1e-6 * part
            up, down = (engine.forward(angles, (amplitudes + s * step,))[0] for s in (1, -1))
            slope = float((cotangent * (up - down)).sum()) / 2e-6
            found = by_prepared[0][0, index]
            assert abs((found.real if part == 1.0 else found.imag) - slope) < 1e-7
    for sample in range(3):
        own = amplitudes if shared else amplitudes[sample : sample + 1]
        wanted = cotangent[sample].numpy() @ slopes(engine, angles[sample : sample + 1], (own,))[0]
        np.testing.assert_allclose(by_angles[sample], wanted, atol=1e-8)


@pytest.mark.parametrize("name", CHANNELS)
def test_derivatives_by_strengths(name: str) -> None:
    """A strength may be an angle: different in every sample, and differentiated like a rotation's."""
    flat = _chain(4, 2, "depolarizing", (0.01,))
    count, row = len(flat.angles), CHANNELS[name]
    own = tuple(range(count, count + len(row.strengths)))
    operations = list(flat.operations)
    qubits = (1, 2)[: row.num_qubits]
    operations.insert(9, Channel(name, qubits, own))
    operations.append(Channel(name, qubits, (*own[:-1], STRENGTHS[name][-1])))
    flat = replace(flat, operations=tuple(operations), angles=flat.angles[:1] * (count + len(own)))
    angles = angles_of(flat, 2)
    angles[:, count:] = torch.tensor(STRENGTHS[name]) * torch.tensor([[1.0], [0.9]])
    engine = compiled(flat, Expectation(observed(3, 4)))
    np.testing.assert_allclose(engine.forward(angles, ())[0], oracle(flat, angles, 3), atol=1e-11)
    cotangent = torch.tensor(np.random.default_rng(0).normal(size=(2, 3)))
    wanted = np.einsum("bo,boa->ba", cotangent, slopes(engine, angles))
    for keep in (True, False):
        kept = engine.forward(angles, (), keep=keep)[1]
        np.testing.assert_allclose(engine.vjp(angles, (), cotangent, kept)[0], wanted, atol=1e-7)


def test_pickling_threads_and_memory() -> None:
    flat = _chain(5, 2, "thermal_relaxation", (0.05, 0.07, 0.01))
    angles = angles_of(flat, 40)
    output = Expectation(observed(2, 5))
    one = compiled(flat, output, num_threads=1)
    values, kept = one.forward(angles, (), keep=True)
    gradient = one.vjp(angles, (), torch.ones_like(values), kept)[0]
    for other in (pickle.loads(pickle.dumps(one)), compiled(flat, output, num_threads=3)):
        assert isinstance(other, DensityMatrixEngine)
        torch.testing.assert_close(other.forward(angles, ())[0], values, rtol=0, atol=0)
        torch.testing.assert_close(other.vjp(angles, (), torch.ones_like(values))[0], gradient, rtol=0, atol=1e-13)
    # Consumed residuals: the states are computed again.
    torch.testing.assert_close(one.vjp(angles, (), torch.ones_like(values), kept)[0], gradient, rtol=0, atol=1e-13)


def test_shifts_with_the_same_string_need_not_commute() -> None:
    """After a CX the control's Z is the same string, and its X is not."""
    flat = _chain(2, 0, "pauli", (0.0, 0.0, 0.0))
    operations = []
    for _ in range(2):
        operations += [Channel("amplitude_damping", (q,), (0.3, 0.1)) for q in (0, 1)]
        operations += [PauliRotation("X", (0,), (), 0.3), Clifford("cx", (0, 1))]
        operations += [Channel("factors", (0,), (1.0, 1.0, 1.0, 0.2)), Clifford("cx", (0, 1))]
        operations += [Channel("factors", (0,), (1.0, 1.0, 1.0, 0.3)), PauliRotation("Y", (1,), (), 0.7)]
    flat = replace(flat, operations=tuple(operations))
    angles = angles_of(flat, 1)
    found = compiled(flat, Expectation(observed(2, 2))).forward(angles, ())[0]
    np.testing.assert_allclose(found, oracle(flat, angles, 2), atol=1e-12)


def test_idle_qubits_cost_nothing() -> None:
    flat = replace(noisy(4, 3, 10), num_qubits=60)
    labels = coerce_observables([{"I" * 57 + "ZIX": 1.0}], 60)
    engine = compiled(flat, Expectation(labels))
    angles = angles_of(flat, 2)
    assert engine.plan(8).states[0][0] <= 6
    small = compiled(replace(flat, num_qubits=3), Expectation(coerce_observables(["ZIX"], 3)))
    np.testing.assert_allclose(engine.forward(angles, ())[0], small.forward(angles, ())[0], atol=1e-12)


def test_samples_follow_the_probabilities() -> None:
    flat = replace(noisy(8, 3, 10), readout=READOUT[:3])
    angles = angles_of(flat, 1)
    bits = compiled(flat, Samples((2, 0))).sample(angles, (), 20_000, np.random.default_rng(0))
    assert bits.shape == (1, 20_000, 2) and bits.dtype == bool
    found = np.bincount(bits[0] @ [1, 2], minlength=4) / 20_000
    wanted = compiled(flat, Probabilities((2, 0))).forward(angles, ())[0][0]
    np.testing.assert_allclose(found, wanted, atol=5 * np.sqrt(0.25 / 20_000))


def test_missing_arguments_are_refused() -> None:
    flat = noisy(1, 2, 5)
    assert "gives no State" in str(DensityMatrix().refuses(flat, State(), Options()))
    assert DensityMatrix().refuses(flat, Probabilities((0,)), Options()) is None
    wide = _chain(14, 2, "depolarizing", (0.02,))
    with pytest.raises(OutOfMemory, match="coordinates"):
        compiled(wide, Expectation(coerce_observables(["Y" * 14], 14)))


def test_a_value_that_is_not_finite_is_not_hidden() -> None:
    """NaN comes out wherever the angle matters, in its own sample, and nowhere else."""
    angles_in = [PauliRotation("Y", (q,), ((q, 1.0),)) for q in range(3)]
    noise = [Channel("depolarizing", (q,), (0.1,)) for q in range(3)]
    flat = replace(noisy(4, 3, 1), operations=(*angles_in, *noise), initial=())
    flat = replace(flat, angles=(Parameter("t"),) * 3)
    observables = coerce_observables(["IIZ", "IZI", "ZII", "ZZI", "IZZ", "III"], 3)
    angles = angles_of(flat, 2)
    clean = compiled(flat, Expectation(observables)).forward(angles, ())[0]
    for angle in range(3):
        bad = angles.clone()
        bad[1, angle] = float("nan")
        values = compiled(flat, Expectation(observables)).forward(bad, ())[0]
        torch.testing.assert_close(values[0], clean[0], rtol=0, atol=0)
        found = torch.isnan(values[1]).tolist()
        sees = [bool(o.z[0] >> angle & 1) if o.num_terms else False for o in observables]
        assert found == sees
