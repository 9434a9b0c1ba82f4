"""What uses the reverse gradient: its workers and copies, and the algorithms of qiskit-algorithms."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.circuit.library import (
    efficient_su2,
    real_amplitudes,
    zz_feature_map,
)
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp
from qiskit_algorithms.gradients import (
    DerivativeType,
    ReverseEstimatorGradient,
)
from test_reverse_gradient import GOOD, H2, OPERATOR, C, by_differences, gradients, own_gates

from qtm._circuit.observables import coerce_observables
from qtm.gradients import FastReverseEstimatorGradient

# --- Workers and copies -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [("complex128", 1e-10), ("complex64", 1e-5)])
@pytest.mark.parametrize("num_threads", [0, 1, 3])
@pytest.mark.thinned(4)
def test_dtypes_and_threads(dtype: str, tolerance: float, num_threads: int, rng: np.random.Generator) -> None:
    circuit, values = own_gates(), rng.normal(size=(21, 5))
    found = gradients([circuit] * 21, [[OPERATOR, H2]] * 21, values, dtype=dtype, num_threads=num_threads)
    theirs = ReverseEstimatorGradient().run([circuit] * 21, [OPERATOR] * 21, values).result().gradients
    np.testing.assert_allclose([g[0] for g in found], theirs, atol=tolerance)


@pytest.mark.parametrize("kind", DerivativeType)
def test_an_executor(kind: DerivativeType, rng: np.random.Generator) -> None:
    circuit, values = own_gates(), rng.normal(size=(9, 5))
    point = ([circuit] * 9, [[OPERATOR, H2]] * 9, values)
    with ThreadPoolExecutor(3) as pool:
        found = gradients(*point, executor=pool, derivative_type=kind)
    np.testing.assert_allclose(found, gradients(*point, derivative_type=kind), atol=1e-13)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda g: pickle.loads(pickle.dumps(g))])
def test_copies_and_pickles(copied: Callable[[Any], Any]) -> None:
    gradient = FastReverseEstimatorGradient(DerivativeType.IMAG, num_threads=1)
    point = ([own_gates()], [OPERATOR], [[0.1, 0.2, 0.3, 0.4, 0.5]])
    expected = gradient.run(*point).result().gradients
    np.testing.assert_array_equal(copied(gradient).run(*point).result().gradients, expected)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=lambda m: m.__name__)
def test_inside_torch_modes(mode: Callable[[], Any]) -> None:
    expected = by_differences(C, H2, np.array(GOOD))
    (operator,) = coerce_observables(H2, 2)
    with mode():
        on_this_thread = FastReverseEstimatorGradient()._run([C], [operator], [GOOD], [C.parameters])
        np.testing.assert_allclose(on_this_thread.gradients[0], expected, atol=1e-8)
        np.testing.assert_allclose(gradients(C, H2, [GOOD])[0], expected, atol=1e-8)


# --- Consumers ----------------------------------------------------------------------------------------------


def test_vqe_reaches_the_ground_energy() -> None:
    from qiskit_algorithms import VQE
    from qiskit_algorithms.optimizers import L_BFGS_B

    from qtm.primitives import FastEstimator

    ansatz = efficient_su2(2, reps=1)
    solver = VQE(
        FastEstimator(),
        ansatz,
        L_BFGS_B(maxiter=200, ftol=1e-14),
        gradient=FastReverseEstimatorGradient(),
        initial_point=np.random.default_rng(3).normal(size=ansatz.num_parameters),
    )
    energy = solver.compute_minimum_eigenvalue(H2).eigenvalue.real
    assert energy == pytest.approx(np.linalg.eigvalsh(H2.to_matrix())[0], abs=1e-8)


def imaginary_time(gradient: Any) -> Any:
    from qiskit_algorithms import VarQITE
    from qiskit_algorithms.gradients import ReverseQGT
    from qiskit_algorithms.time_evolvers.variational import ImaginaryMcLachlanPrinciple

    principle = ImaginaryMcLachlanPrinciple(ReverseQGT(), gradient)
    return evolve(VarQITE, principle)


def real_time(gradient: Any) -> Any:
    from qiskit_algorithms import VarQRTE
    from qiskit_algorithms.gradients import ReverseQGT
    from qiskit_algorithms.time_evolvers.variational import RealMcLachlanPrinciple

    gradient.derivative_type = DerivativeType.IMAG
    return evolve(VarQRTE, RealMcLachlanPrinciple(ReverseQGT(), gradient))


def evolve(solver: Any, principle: Any) -> Any:
    from qiskit_algorithms import TimeEvolutionProblem

    problem = TimeEvolutionProblem(H2, time=0.2)
    result = solver(efficient_su2(2, reps=1), np.linspace(-1, 1, 8), principle, num_timesteps=3).evolve(problem)
    return result.parameter_values[-1]


def adaptive(gradient: Any) -> Any:
    from qiskit_algorithms import VQE, AdaptVQE
    from qiskit_algorithms.optimizers import SLSQP

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from qiskit.circuit.library import EvolvedOperatorAnsatz

        pool = [SparsePauliOp("XY"), SparsePauliOp("YX"), SparsePauliOp("ZY")]
        ansatz = EvolvedOperatorAnsatz(pool, initial_state=QuantumCircuit(2))
        solver = AdaptVQE(VQE(StatevectorEstimator(), ansatz, SLSQP(), gradient=gradient), gradient_threshold=1e-4)
        return solver.compute_minimum_eigenvalue(H2).eigenvalue


@pytest.mark.thinned(3)
@pytest.mark.parametrize("consumer", [imaginary_time, real_time, adaptive], ids=lambda f: f.__name__)
def test_users_of_gradients_accept_this_one(consumer: Callable[[Any], Any]) -> None:
    ours, theirs = consumer(FastReverseEstimatorGradient()), consumer(ReverseEstimatorGradient())
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("input_gradients", [True, False])
def test_a_network_of_qiskit_machine_learning(
    input_gradients: bool, sweeps: list[int], rng: np.random.Generator
) -> None:
    networks = pytest.importorskip("qiskit_machine_learning.neural_networks")
    theirs = pytest.importorskip("qiskit_machine_learning.gradients").ParamShiftEstimatorGradient
    feature_map, ansatz = zz_feature_map(2, reps=1), real_amplitudes(2, reps=1)
    settings = {
        "circuit": feature_map.compose(ansatz),
        "observables": [OPERATOR, H2, SparsePauliOp("ZZ")],
        "input_params": feature_map.parameters,
        "weight_params": ansatz.parameters,
        "input_gradients": input_gradients,
        "estimator": StatevectorEstimator(),
        "default_precision": 0.0,
    }
    inputs, weights = rng.normal(size=(4, 2)), rng.normal(size=4)
    ours = networks.EstimatorQNN(**settings, gradient=FastReverseEstimatorGradient())
    peer = networks.EstimatorQNN(**settings, gradient=theirs(StatevectorEstimator()))
    for a, b in zip(ours.backward(inputs, weights), peer.backward(inputs, weights), strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, atol=1e-10)
    assert sweeps == [4, 4, 4]


def test_training_a_classifier_of_qiskit_machine_learning() -> None:
    pytest.importorskip("qiskit_machine_learning")
    from qiskit_algorithms.optimizers import L_BFGS_B
    from qiskit_machine_learning.algorithms import NeuralNetworkRegressor
    from qiskit_machine_learning.neural_networks import EstimatorQNN

    x, w = Parameter("x"), Parameter("w")
    circuit = QuantumCircuit(1)
    circuit.ry(x, 0)
    circuit.ry(w, 0)
    network = EstimatorQNN(
        circuit=circuit,
        estimator=StatevectorEstimator(),
        input_params=[x],
        weight_params=[w],
        gradient=FastReverseEstimatorGradient(),
        default_precision=0.0,
    )
    inputs = np.linspace(-1, 1, 8)[:, None]
    regressor = NeuralNetworkRegressor(network, optimizer=L_BFGS_B(maxiter=30), initial_point=np.array([0.1]))
    regressor.fit(inputs, np.cos(inputs[:, 0] + 0.8))
    assert regressor.weights[0] == pytest.approx(0.8, abs=1e-3)
