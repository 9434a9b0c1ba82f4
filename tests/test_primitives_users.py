"""What uses the primitives: workers, copies, and the algorithms of other packages."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import efficient_su2, real_amplitudes
from qiskit.primitives import BasePrimitiveJob, StatevectorEstimator, StatevectorSampler
from qiskit.providers import JobStatus
from qiskit.quantum_info import SparsePauliOp
from test_primitives import CIRCUIT, H2, OPERATORS, PLAIN, VALUES, evs

from qtm import _errors
from qtm.primitives import FastEstimator

# --- Workers, precision, copies -----------------------------------------------------------------------------


BATCH = np.random.default_rng(8).normal(size=(37, 12))


@pytest.mark.parametrize(("dtype", "tolerance"), [("complex128", 1e-12), ("complex64", 2e-6), (np.complex64, 2e-6)])
@pytest.mark.parametrize("num_threads", [0, 1, 2, 5])
@pytest.mark.thinned(5)
def test_dtypes_and_threads(dtype: Any, tolerance: float, num_threads: int) -> None:
    pub = (CIRCUIT, [[o] for o in OPERATORS], BATCH)
    (expected,) = evs(StatevectorEstimator(), pub)
    (ours,) = evs(FastEstimator(dtype=dtype, num_threads=num_threads), pub)
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, expected, atol=4 * tolerance)


def test_single_precision_really_is() -> None:
    pub = (CIRCUIT, OPERATORS[1], BATCH)
    exact, single = evs(FastEstimator(), pub)[0], evs(FastEstimator(dtype="complex64"), pub)[0]
    assert 0 < np.abs(exact - single).max() < 1e-5


def test_one_estimator_in_many_threads() -> None:
    estimator = FastEstimator()
    pubs = [(efficient_su2(2, reps=r % 5), ["ZZ", "XY"], np.full(4 * (r % 5 + 1), r)[None]) for r in range(40)]
    expected = [evs(StatevectorEstimator(), pub)[0] for pub in pubs]
    with ThreadPoolExecutor(8) as pool:
        ours = list(pool.map(lambda pub: evs(estimator, pub)[0], pubs * 3))
    for a, b in zip(ours, expected * 3, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.slow
def test_a_process_pool() -> None:
    pub = (CIRCUIT, [[o] for o in OPERATORS], BATCH)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        estimator = FastEstimator(executor=pool)
        np.testing.assert_allclose(evs(estimator, pub)[0], evs(FastEstimator(), pub)[0], atol=1e-14)
        pool.submit(os._exit, 1)
        with pytest.raises(_errors.WorkerError, match="executor"):
            evs(estimator, pub)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_copies_and_pickles(copied: Callable[[Any], Any]) -> None:
    estimator = FastEstimator(default_precision=0.1, seed=5, dtype="complex64", num_threads=1)
    (expected,) = evs(estimator, (CIRCUIT, "ZZZ", VALUES))
    twin = copied(estimator)
    assert twin.options == estimator.options
    np.testing.assert_array_equal(evs(twin, (CIRCUIT, "ZZZ", VALUES))[0], expected)


def test_a_deep_copy_shares_the_executor() -> None:
    with ThreadPoolExecutor(2) as pool:
        twin = copy.deepcopy(FastEstimator(executor=pool))
        assert twin.options.executor is pool
        np.testing.assert_allclose(
            evs(twin, (CIRCUIT, "ZZZ", VALUES))[0],
            evs(FastEstimator(), (CIRCUIT, "ZZZ", VALUES))[0],
            atol=1e-14,
        )


def test_a_job_pickles_with_its_result() -> None:
    job = pickle.loads(pickle.dumps(FastEstimator().run([(PLAIN, "ZZ")])))
    assert job.done()
    np.testing.assert_allclose(job.result()[0].data.evs, evs(StatevectorEstimator(), (PLAIN, "ZZ"))[0])


def test_errors_come_from_the_result() -> None:
    job = FastEstimator().run([(CIRCUIT, "ZZZ", np.full(12, np.nan))])
    assert job.in_final_state() and not job.done() and job.status() == JobStatus.ERROR
    for _ in range(2):
        with pytest.raises(_errors.ParameterError, match="finite"):
            job.result()


def test_the_state_of_a_job() -> None:
    job = FastEstimator().run([(PLAIN, "ZZ")])
    assert isinstance(job, BasePrimitiveJob) and job.status() == JobStatus.DONE
    assert job.done() and job.in_final_state() and not job.running()
    assert not job.cancel() and not job.cancelled()
    assert job.job_id() != FastEstimator().run([(PLAIN, "ZZ")]).job_id()


# --- Consumers ----------------------------------------------------------------------------------------------


def test_vqe_reaches_the_ground_energy() -> None:
    from qiskit_algorithms import VQE
    from qiskit_algorithms.optimizers import SLSQP

    ansatz = efficient_su2(2, reps=1)
    start = np.random.default_rng(3).normal(size=ansatz.num_parameters)
    result = VQE(
        FastEstimator(), ansatz, SLSQP(maxiter=200, ftol=1e-12), initial_point=start
    ).compute_minimum_eigenvalue(H2)
    assert result.eigenvalue.real == pytest.approx(np.linalg.eigvalsh(H2.to_matrix())[0], abs=1e-6)


def test_vqe_takes_the_same_path() -> None:
    from qiskit_algorithms import VQE
    from qiskit_algorithms.optimizers import SPSA
    from qiskit_algorithms.utils import algorithm_globals

    ansatz = real_amplitudes(2, reps=1)
    energies: list[list[float]] = []
    for estimator in (FastEstimator(), StatevectorEstimator()):
        algorithm_globals.random_seed = 4
        energies.append([])
        VQE(
            estimator,
            ansatz,
            SPSA(maxiter=10, learning_rate=0.1, perturbation=0.1),
            initial_point=[0.1, -0.4, 0.7, 0.2],
            callback=lambda _, __, energy, ___: energies[-1].append(energy),
        ).compute_minimum_eigenvalue(H2)
    np.testing.assert_allclose(*energies, atol=1e-10)


def vqd(estimator: Any) -> Any:
    from qiskit_algorithms import VQD
    from qiskit_algorithms.optimizers import SLSQP
    from qiskit_algorithms.state_fidelities import ComputeUncompute

    fidelity = ComputeUncompute(StatevectorSampler(seed=1))
    start = np.linspace(-1, 1, 8)
    solver = VQD(estimator, fidelity, efficient_su2(2, reps=1), SLSQP(maxiter=4), k=1, initial_point=start)
    return solver.compute_eigenvalues(H2).eigenvalues


def observables_of_a_state(estimator: Any) -> Any:
    from qiskit_algorithms.observables_evaluator import estimate_observables

    found = estimate_observables(estimator, PLAIN, [SparsePauliOp("ZZ"), SparsePauliOp("XI")])
    return [value for value, _ in found]


def parameter_shift(estimator: Any) -> Any:
    from qiskit_algorithms.gradients import ParamShiftEstimatorGradient

    circuit = real_amplitudes(2, reps=1)
    job = ParamShiftEstimatorGradient(estimator).run([circuit], [H2], [[0.1, 0.2, 0.3, 0.4]])
    return job.result().gradients[0]


def imaginary_time(estimator: Any) -> Any:
    from qiskit_algorithms import TimeEvolutionProblem, VarQITE

    solver = VarQITE(real_amplitudes(2, reps=1), np.full(4, 0.3), estimator=estimator, num_timesteps=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = solver.evolve(TimeEvolutionProblem(H2, time=0.1, aux_operators=[SparsePauliOp("ZZ")]))
    return [value[0] for step in result.observables for value in step]


def quantum_network(estimator: Any) -> Any:
    qnn = pytest.importorskip("qiskit_machine_learning.neural_networks")
    circuit, inputs = QuantumCircuit(2), ParameterVector("x", 2)
    circuit.rx(inputs[0], 0)
    circuit.ry(inputs[1], 1)
    weights = [Parameter("w")]
    circuit.crx(weights[0], 0, 1)
    network = qnn.EstimatorQNN(
        circuit=circuit,
        estimator=estimator,
        observables=[SparsePauliOp("ZZ"), SparsePauliOp("XI")],
        input_params=inputs,
        weight_params=weights,
        default_precision=0.0,
    )
    return network.forward(np.array([[0.1, 0.2], [1.0, -0.5]]), [0.7])


CONSUMERS = [vqd, observables_of_a_state, parameter_shift, imaginary_time, quantum_network]


@pytest.mark.parametrize("consumer", CONSUMERS, ids=lambda f: f.__name__)
def test_users_of_estimators_accept_this_one(consumer: Callable[[Any], Any]) -> None:
    ours, theirs = consumer(FastEstimator()), consumer(StatevectorEstimator())
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), atol=1e-5)  # some iterate by differences
