"""The shorter way for small batches: the same values and derivatives as the general one, and when it is taken."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from qiskit.circuit.library import real_amplitudes, z_feature_map
from qiskit.quantum_info import SparsePauliOp, Statevector

from qtm import QuantumModule
from qtm._circuit.observables import coerce_observables
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation, Probabilities
from qtm._engines.simulation import Simulation
from qtm.circuits import amplitude_encoding

FEATURES, ANSATZ = z_feature_map(3, reps=1), real_amplitudes(3, reps=2)
CIRCUIT = FEATURES.compose(ANSATZ)
OBSERVABLES = ["XZI", "IYZ", "ZIZ"]


def engine(dtype: str = "complex128", circuit=CIRCUIT, observables=OBSERVABLES, **options):
    output = Expectation(coerce_observables(observables, circuit.num_qubits))
    return Simulation(circuit, list(circuit.parameters), output, Options(dtype, 1, **options)).engine


def angles_of(made, batch: int, dtype: str = "complex128") -> np.ndarray:
    real = np.float64 if dtype == "complex128" else np.float32
    return np.random.default_rng(batch).uniform(-3, 3, (batch, len(made.circuit.angles))).astype(real)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("lane_kind", [None, "sample", "amplitude"])
@pytest.mark.parametrize("batch", [1, 3, 17])
def test_it_agrees_with_the_general_way(dtype, lane_kind, batch):
    made = engine(dtype, real_amplitudes(5, reps=2), ["ZIIII", "XXIIZ"], lane_kind=lane_kind)
    angles = angles_of(made, batch, dtype)
    values, kept = made.forward(torch.from_numpy(angles), [], keep=True)
    cotangent = torch.linspace(-1, 2, values.numel(), dtype=values.dtype).reshape(values.shape)
    expected, _ = made.vjp(torch.from_numpy(angles), [], cotangent, kept)
    small = made.small_batch(batch)
    for _ in range(2):  # with new memory, and with memory that was used
        found, residuals = small.forward(angles, True)
        assert np.array_equal(found, values.numpy())
        assert np.array_equal(small.vjp(angles, cotangent.numpy(), residuals), expected.numpy())
        assert np.array_equal(small.forward(angles, False)[0], found)


def test_forward_passes_that_wait_for_their_reverse_pass_do_not_share_memory():
    made = engine()
    small, points = made.small_batch(2), [angles_of(made, 2) + shift for shift in range(3)]
    pending = [small.forward(point, True) for point in points]
    cotangent = np.ones((2, 3))
    for point, (_, residuals) in reversed(list(zip(points, pending, strict=True))):
        expected, _ = made.vjp(torch.from_numpy(point), [], torch.from_numpy(cotangent))
        np.testing.assert_allclose(small.vjp(point, cotangent, residuals), expected.numpy(), atol=1e-13)


def test_residuals_serve_once():
    made = engine()
    small, angles, cotangent = made.small_batch(2), angles_of(made, 2), np.ones((2, 3))
    residuals = small.forward(angles, True)[1]
    small.vjp(angles, cotangent, residuals)
    with pytest.raises(RuntimeError, match="forward sweep again"):
        small.vjp(angles, cotangent, residuals)


def test_where_it_applies():
    assert engine().small_batch(1) is not None
    assert engine().small_batch(0) is None
    assert engine(circuit=real_amplitudes(9, reps=8), observables=["Z" * 9]).small_batch(300) is not None


def test_not_where_others_compute():
    with ThreadPoolExecutor(1) as executor:
        assert engine(executor=executor).small_batch(4) is None
    assert engine(backward_threads=2).small_batch(4) is None
    assert engine(method="matrix_product_state").small_batch(4) is None


def test_not_where_memory_is_a_concern_or_threads_share_a_state():
    wide = engine(circuit=real_amplitudes(16, reps=1), observables=["Z" * 16])
    assert wide.small_batch(64) is None
    output = Expectation(coerce_observables(["Z" * 16], 16))
    deep = real_amplitudes(16, reps=40)
    assert Simulation(deep, list(deep.parameters), output, Options(num_threads=2)).engine.small_batch(1) is None


@pytest.mark.parametrize("crowded", [False, True])
def test_shares_of_two_threads(crowded):
    made = real_amplitudes(9, reps=8)
    output = Expectation(coerce_observables(["ZIIIIIIII", "X" * 9], 9))
    shared = Simulation(made, list(made.parameters), output, Options(num_threads=2)).engine
    small = shared.small_batch(100)
    assert small._all.is_shared
    small._sweeps.contention._alone_until = np.inf if crowded else -np.inf
    angles, cotangent = angles_of(shared, 100), np.random.default_rng(1).normal(size=(100, 2))
    found, residuals = small.forward(angles, True)
    by_angles = small.vjp(angles, cotangent, residuals)
    alone = engine(circuit=made, observables=["ZIIIIIIII", "X" * 9])
    values, kept = alone.forward(torch.from_numpy(angles), [], keep=True)
    assert np.array_equal(found, values.numpy())
    assert np.array_equal(by_angles, alone.vjp(torch.from_numpy(angles), [], torch.from_numpy(cotangent), kept)[0])


def test_not_for_several_cones_other_outputs_or_prepared_amplitudes():
    chain = real_amplitudes(40, reps=1, entanglement="pairwise")
    assert engine(circuit=chain, observables=["Z" + "I" * 39, "I" * 39 + "Z"]).small_batch(4) is None
    output = Probabilities((0, 1, 2))
    assert Simulation(CIRCUIT, list(CIRCUIT.parameters), output, Options()).engine.small_batch(4) is None
    prepared = amplitude_encoding(8).circuit.compose(ANSATZ)
    assert engine(circuit=prepared).small_batch(4) is None


def test_steps_and_second_derivatives_of_a_module_agree_with_qiskit():
    model = QuantumModule(
        CIRCUIT, FEATURES.parameters, ANSATZ.parameters, observables=OBSERVABLES, seed_init=1
    ).double()
    inputs = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3).requires_grad_()
    assert torch.autograd.gradcheck(model, inputs) and torch.autograd.gradgradcheck(model, inputs)
    weights = dict(zip(ANSATZ.parameters, model.variational.tolist(), strict=True))
    for row, found in zip(inputs.tolist(), model(inputs).tolist(), strict=True):
        bound = CIRCUIT.assign_parameters(weights | dict(zip(FEATURES.parameters, row, strict=True)))
        expected = [Statevector(bound).expectation_value(SparsePauliOp(label)).real for label in OBSERVABLES]
        np.testing.assert_allclose(found, expected, atol=1e-9)
