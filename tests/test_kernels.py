"""Quantum kernels: matrices against Qiskit's states, gradients, shots, samplers, and other packages' classes."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from kernel_cases import FEATURE_MAPS, fidelity_matrix, projected_matrix, trained_map
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import real_amplitudes, zz_feature_map
from sklearn.datasets import make_moons
from sklearn.svm import SVC

import qtm
from qtm import QuantumKernel
from qtm._kernels import matrices
from qtm.circuits import angle_encoding, hardware_efficient_ansatz, reuploading_circuit, stack
from qtm.kernels import closest_psd, kernel_target_alignment, svc_loss, train_kernel

each_map = pytest.mark.parametrize("name", FEATURE_MAPS)


def samples(circuit: QuantumCircuit, rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-2, 2, (rows, circuit.num_parameters))


# --- Values ---------------------------------------------------------------------------------------------------------


@each_map
def test_fidelities_are_those_of_qiskits_states(name: str) -> None:
    circuit = FEATURE_MAPS[name]
    x, y = samples(circuit, 7), samples(circuit, 4, 1)
    kernel = QuantumKernel(circuit)
    np.testing.assert_allclose(kernel.evaluate(x, y), fidelity_matrix(circuit, x, y), atol=1e-12)
    np.testing.assert_allclose(kernel.evaluate(x), fidelity_matrix(circuit, x, x), atol=1e-12)
    np.testing.assert_allclose(kernel(x.astype(np.float32), y).numpy(), fidelity_matrix(circuit, x, y), atol=1e-5)


@each_map
def test_the_projected_kernel_is_that_of_reduced_density_matrices(name: str) -> None:
    circuit = FEATURE_MAPS[name]
    x, y = samples(circuit, 5), samples(circuit, 4, 1)
    kernel = QuantumKernel(circuit, kind="projected", gamma=0.7)
    np.testing.assert_allclose(kernel.evaluate(x, y), projected_matrix(circuit, x, y, 0.7), atol=1e-12)
    np.testing.assert_allclose(kernel.evaluate(x), projected_matrix(circuit, x, x, 0.7), atol=1e-12)


def test_a_projected_kernel_of_given_observables() -> None:
    circuit = FEATURE_MAPS["zz"]
    x = samples(circuit, 5)
    kernel = QuantumKernel(circuit, kind="projected", observables=["ZZI", "IXX"], gamma=2.0)
    values = qtm.FastEstimator().run([(circuit, [["ZZI"], ["IXX"]], x)]).result()[0].data.evs.T  # (samples, 2)
    expected = np.exp(-((values[:, None] - values) ** 2).sum(2))
    np.testing.assert_allclose(kernel.evaluate(x), expected, atol=1e-12)


@pytest.mark.parametrize("rows", [0, 1, 17])
@pytest.mark.parametrize("kind", ["fidelity", "projected"])
def test_any_number_of_samples(kind: str, rows: int) -> None:
    circuit = FEATURE_MAPS["zz"]
    kernel = QuantumKernel(circuit, kind=kind)
    x, y = samples(circuit, rows), samples(circuit, 3, 1)
    assert kernel.evaluate(x).shape == (rows, rows)
    assert kernel.evaluate(x, y).shape == (rows, 3)
    np.testing.assert_allclose(kernel.evaluate(y, x), kernel.evaluate(x, y).T, atol=1e-12)


def test_one_sample_without_an_axis_for_samples_is_a_row() -> None:
    circuit = FEATURE_MAPS["zz"]
    x, y = samples(circuit, 1), samples(circuit, 3, 1)
    np.testing.assert_array_equal(QuantumKernel(circuit).evaluate(x[0], y), QuantumKernel(circuit).evaluate(x, y))


def test_read_only_arrays_are_samples() -> None:
    x = samples(FEATURE_MAPS["zz"], 3)
    x.flags.writeable = False
    assert QuantumKernel(FEATURE_MAPS["zz"]).evaluate(x).shape == (3, 3)


def test_final_measurements_do_not_matter() -> None:
    circuit = FEATURE_MAPS["zz"]
    measured = circuit.copy()
    measured.measure_all()
    x = samples(circuit, 4)
    np.testing.assert_allclose(QuantumKernel(measured).evaluate(x), fidelity_matrix(circuit, x, x), atol=1e-12)


# --- Blocks and memory ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["fidelity", "projected"])
@pytest.mark.parametrize("keep", [True, False])
def test_blocks_give_the_same_matrix(kind: str, keep: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = FEATURE_MAPS["zz"]
    kernel = QuantumKernel(circuit, kind=kind)
    x, y = samples(circuit, 11), samples(circuit, 7, 1)
    whole, rectangular = kernel.evaluate(x), kernel.evaluate(x, y)
    asked = []
    monkeypatch.setattr(matrices, "_plan", lambda *sizes: asked.append(sizes) or (4, keep))
    np.testing.assert_allclose(kernel.evaluate(x), whole, atol=1e-14)
    np.testing.assert_allclose(kernel.evaluate(x, y), rectangular, atol=1e-14)
    state = 8 * 16 if kind == "fidelity" else 9 * 8
    assert asked == [(11, state), (18, state)]


def test_states_are_kept_only_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrices._machine, "free_memory", lambda: 1000 / matrices._SHARE)
    assert matrices._plan(10, 100.0) == (matrices._ROWS, True)
    assert matrices._plan(11, 100.0) == (5, False)
    with pytest.raises(qtm.OutOfMemory, match="projected kernel"):
        matrices._plan(11, 501.0)


def test_a_state_larger_than_the_memory_is_refused() -> None:
    wide = zz_feature_map(45, reps=1, entanglement="linear")
    with pytest.raises(qtm.QtmError, match=r"2\^|GiB"):
        QuantumKernel(wide).evaluate(np.zeros((2, 45)))


def test_a_progress_bar_counts_all_entries(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrices, "_ROWS", 4)
    circuit = FEATURE_MAPS["zz"]
    QuantumKernel(circuit, progress=True).evaluate(samples(circuit, 10))
    assert "100/100" in capsys.readouterr().err
    QuantumKernel(circuit, progress=False).evaluate(samples(circuit, 10))
    QuantumKernel(circuit).evaluate(samples(circuit, 10))  # no terminal here
    assert not capsys.readouterr().err


# --- Gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["fidelity", "projected"])
def test_gradients_by_samples_and_weights(kind: str) -> None:
    circuit, trained = trained_map(2)
    kernel = QuantumKernel(circuit, training_parameters=trained, kind=kind, seed_init=0).double()
    x, y = (torch.rand(rows, 2, dtype=torch.float64, requires_grad=True) for rows in (3, 2))
    weights = kernel.variational

    def matrix(values: torch.Tensor, *rows: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(kernel, {"variational": values}, rows)

    assert torch.autograd.gradcheck(matrix, (weights, x))
    assert torch.autograd.gradcheck(matrix, (weights, x, y))


def test_trained_parameters_enter_the_values() -> None:
    circuit, trained = trained_map()
    kernel = QuantumKernel(circuit, training_parameters=trained, seed_init=0)
    x = np.random.default_rng(0).uniform(-1, 1, (5, 3))
    for values in (np.linspace(0.1, 0.9, 7), dict(zip(trained, np.linspace(1, 2, 7), strict=True))):
        kernel.assign_training_parameters(values)
        fixed = dict(zip(trained, kernel.parameter_values, strict=True))
        np.testing.assert_allclose(kernel.evaluate(x), fidelity_matrix(circuit, x, x, fixed), atol=1e-12)
    assert kernel.num_training_parameters == 7 and kernel.training_parameters == trained


def test_scales_of_a_model_start_at_one() -> None:
    model = reuploading_circuit(2, 1)
    kernel = QuantumKernel(model, seed_init=3)
    assert kernel.num_features == 2
    assert kernel.parameter_values[-len(model.scaling_params) :].tolist() == [1.0] * len(model.scaling_params)
    stacked = QuantumKernel(stack([angle_encoding(2, scaling=True), hardware_efficient_ansatz(2)]), seed_init=3)
    assert np.isin(stacked.parameter_values, 1.0).sum() == 2
    assert (QuantumKernel(model, seed_init=3).parameter_values == kernel.parameter_values).all()


# --- Losses and training --------------------------------------------------------------------------------------------


def test_the_alignment_is_that_of_its_definition() -> None:
    rng = np.random.default_rng(0)
    matrix = (lambda a: a @ a.T)(rng.normal(size=(6, 6)))
    signs = np.array([1, -1, 1, 1, -1, 1])
    target = np.outer(signs, signs)
    expected = (matrix * target).sum() / np.linalg.norm(matrix) / 6
    found = kernel_target_alignment(torch.from_numpy(matrix), ["b" if s > 0 else "a" for s in signs])
    assert found.item() == pytest.approx(expected, rel=1e-12)
    middle = np.eye(6) - 1 / 6
    m, t = middle @ matrix @ middle, middle @ target @ middle
    found = kernel_target_alignment(torch.from_numpy(matrix), signs, centered=True)
    assert found.item() == pytest.approx((m * t).sum() / np.linalg.norm(m) / np.linalg.norm(t), rel=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_perfect_kernel_is_aligned(classes: int) -> None:
    labels = np.arange(12) % classes
    target = np.where(labels[:, None] == labels, 1.0, -1 / (classes - 1))
    assert kernel_target_alignment(torch.from_numpy(target), labels).item() == pytest.approx(1)


def test_the_svc_loss_is_that_of_qiskit_machine_learning() -> None:
    kernels = pytest.importorskip("qiskit_machine_learning.utils.loss_functions")
    circuit, trained = trained_map(2)
    X, y = make_moons(16, noise=0.1, random_state=0)
    kernel = QuantumKernel(circuit, training_parameters=trained, seed_init=0)
    theirs = kernels.SVCLoss(C=2.0).evaluate(kernel.parameter_values, kernel, X, y)
    assert svc_loss(kernel.double()(X), y, C=2.0).item() == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_gradient_of_the_svc_loss(classes: int) -> None:
    """Multipliers change with the matrix, and at the optimum their change does not count."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(12, 4))
    labels = np.arange(12) % classes

    def loss(matrix: torch.Tensor) -> torch.Tensor:
        return svc_loss(matrix, labels, C=0.5)

    matrix = torch.tensor(root @ root.T + np.eye(12), requires_grad=True)
    loss(matrix).backward()
    direction = (lambda a: a + a.T)(torch.from_numpy(rng.normal(size=(12, 12))))
    step = 1e-3
    with torch.no_grad():
        slope = (loss(matrix + step * direction) - loss(matrix - step * direction)) / (2 * step)
    assert (matrix.grad * direction).sum().item() == pytest.approx(slope.item(), rel=2e-2)


@pytest.mark.parametrize("loss", ["alignment", "svc", lambda m, y: 1 - kernel_target_alignment(m, y, centered=True)])
@pytest.mark.parametrize("batch", [None, 10])
def test_training_lowers_the_loss(loss: Any, batch: int | None) -> None:
    X, y = make_moons(24, noise=0.1, random_state=0)
    circuit, trained = trained_map(2)
    kernel = QuantumKernel(circuit, training_parameters=trained, seed_init=1)
    before = kernel.parameter_values
    losses = train_kernel(kernel, X, y, loss=loss, steps=25, batch_size=batch, seed=0)
    assert np.mean(losses[-5:]) < losses[0] and len(losses) == 25
    assert not np.allclose(kernel.parameter_values, before)


# --- Shots and samplers ---------------------------------------------------------------------------------------------


def test_shots_on_the_exact_simulator() -> None:
    circuit = FEATURE_MAPS["zz"]
    x, y = samples(circuit, 8), samples(circuit, 5, 1)
    exact = QuantumKernel(circuit)
    drawn = QuantumKernel(circuit, shots=400, seed=1, enforce_psd=False)
    matrix = drawn.evaluate(x)
    assert (matrix == matrix.T).all() and (np.diag(matrix) == 1).all()
    assert np.allclose(matrix * 400 % 1, 0) or np.allclose(matrix * 400, np.round(matrix * 400))
    assert 0 < np.abs(matrix - exact.evaluate(x)).max() < 5 * 0.5 / 20
    assert 0 < np.abs(drawn.evaluate(x, y) - exact.evaluate(x, y)).max() < 5 * 0.5 / 20
    again = QuantumKernel(circuit, shots=400, seed=1, enforce_psd=False)
    assert (again.evaluate(x) == matrix).all()


def test_gradients_with_shots_are_those_of_the_fidelities() -> None:
    circuit = FEATURE_MAPS["zz"]
    grads = []
    for kernel in (QuantumKernel(circuit), QuantumKernel(circuit, shots=10, seed=0)):
        x = torch.tensor(samples(circuit, 4), requires_grad=True)
        kernel(x).sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads)


class Recording(qtm.FastSampler):
    """A sampler that counts the parameter sets of every job."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.jobs: list[int] = []

    def run(self, pubs: Any, *, shots: int | None = None) -> Any:
        pubs = list(pubs)
        self.jobs.append(sum(pub.parameter_values.size for pub in pubs))
        return super().run(pubs, shots=shots)


@each_map
def test_a_sampler_estimates_fidelities(name: str) -> None:
    circuit = FEATURE_MAPS[name]
    x, y = samples(circuit, 5), samples(circuit, 3, 1)
    kernel = QuantumKernel(
        circuit, sampler=qtm.FastSampler(seed=np.random.default_rng(0)), shots=4000, enforce_psd=False
    )
    for found, expected in (
        (kernel.evaluate(x), fidelity_matrix(circuit, x, x)),
        (kernel.evaluate(x, y), fidelity_matrix(circuit, x, y)),
    ):
        assert np.abs(found - expected).max() < 5 * 0.5 / np.sqrt(4000)


@pytest.mark.parametrize(
    ("duplicates", "symmetric", "rectangular"), [("all", 15, 15), ("off_diagonal", 10, 15), ("none", 9, 12)]
)
def test_which_entries_are_measured(duplicates: str, symmetric: int, rectangular: int) -> None:
    circuit = FEATURE_MAPS["zz"]
    x = samples(circuit, 5)
    x[3] = x[1]
    sampler = Recording(seed=0)
    kernel = QuantumKernel(circuit, sampler=sampler, evaluate_duplicates=duplicates, enforce_psd=False)
    matrix = kernel.evaluate(x)
    assert sampler.jobs == [symmetric] and (matrix == matrix.T).all()
    kernel.evaluate(x[:3], np.concatenate([x[[1, 1, 2]], samples(circuit, 2, 9)]))
    assert sampler.jobs[1] == rectangular
    assert kernel.usage.circuits == symmetric + rectangular


def test_jobs_are_split_at_the_limit() -> None:
    circuit = FEATURE_MAPS["zz"]
    sampler = Recording(seed=0)
    kernel = QuantumKernel(circuit, sampler=sampler, shots=100, max_circuits_per_job=4, enforce_psd=False)
    kernel.evaluate(samples(circuit, 5))
    assert sampler.jobs == [4, 4, 2]
    assert kernel.usage == kernel.estimate_usage(5)
    assert (kernel.usage.jobs, kernel.usage.circuits, kernel.usage.executions) == (3, 10, 1000)
    assert kernel.estimate_usage(5, 3).jobs == 4
    costly = QuantumKernel(circuit, sampler=sampler, shots=2_500_000)  # 10 million executions in a job
    assert costly.estimate_usage(5).jobs == 3


def test_a_sampler_takes_circuits_that_no_simulator_holds() -> None:
    """Fidelities of product states of 70 qubits, by a sampler that knows it."""
    circuit = QuantumCircuit(70)
    for q, angle in enumerate(ParameterVector("x", 70)):
        circuit.ry(angle, q)
    kernel = QuantumKernel(circuit, sampler=qtm.FastSampler(method=("matrix_product_state", {"max_bond": 2}), seed=0))
    assert kernel.estimate_usage(3).circuits == 3
    with pytest.raises(qtm.QtmError):
        QuantumKernel(circuit)


def test_weights_trained_on_the_simulator_go_to_a_sampler() -> None:
    circuit, trained = trained_map(2)
    exact = QuantumKernel(circuit, training_parameters=trained, seed_init=0)
    sampled = QuantumKernel(circuit, training_parameters=trained, sampler=qtm.FastSampler(seed=1), shots=20_000)
    sampled.load_state_dict(exact.state_dict())
    x = np.random.default_rng(0).uniform(-1, 1, (4, 2))
    np.testing.assert_allclose(sampled.evaluate(x), exact.evaluate(x), atol=0.03)


def test_a_progress_bar_over_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    circuit = FEATURE_MAPS["zz"]
    kernel = QuantumKernel(circuit, sampler=qtm.FastSampler(seed=0), max_circuits_per_job=3, progress=True)
    kernel.evaluate(samples(circuit, 4))
    assert "6.00/6.00" in capsys.readouterr().err


@pytest.mark.slow
def test_gradients_on_a_sampler_follow_parameter_shifts() -> None:
    circuit, trained = trained_map(2)
    arguments: dict[str, Any] = {"training_parameters": trained, "seed_init": 0}
    sampler = qtm.FastSampler(seed=np.random.default_rng(0), default_shots=200_000)
    exact, sampled = QuantumKernel(circuit, **arguments).double(), QuantumKernel(circuit, sampler=sampler, **arguments)
    found = []
    for kernel in (exact, sampled.double()):
        x = torch.tensor([[0.3, -0.4], [1.0, 0.2], [0.7, 0.9]], dtype=torch.float64, requires_grad=True)
        (kernel(x) * torch.arange(9.0).reshape(3, 3)).sum().backward()
        found.append((x.grad, kernel.variational.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=0.15, rtol=0)
        assert theirs.abs().max() > 1


def test_a_transpiled_circuit_on_a_noisy_device() -> None:
    """Fidelities shrink under noise; the layout of the device leaves the entries where they are."""
    from qiskit.transpiler import generate_preset_pass_manager
    from qiskit_aer import AerSimulator
    from qiskit_aer.primitives import SamplerV2
    from qiskit_ibm_runtime.fake_provider import FakeManilaV2

    backend = FakeManilaV2()
    circuit = zz_feature_map(2, reps=1)
    x = samples(circuit, 4)
    sampler = SamplerV2.from_backend(AerSimulator.from_backend(backend), seed=1)
    manager = generate_preset_pass_manager(1, backend, seed_transpiler=0)
    kernel = QuantumKernel(circuit, sampler=sampler, shots=4000, pass_manager=manager)
    assert np.abs(kernel.evaluate(x) - fidelity_matrix(circuit, x, x)).max() < 0.12
    ideal = QuantumKernel(circuit, sampler=SamplerV2(seed=1), shots=4000)
    assert np.abs(ideal.evaluate(x) - fidelity_matrix(circuit, x, x)).max() < 0.04


def test_a_projected_kernel_on_an_estimator() -> None:
    circuit = FEATURE_MAPS["zz"]
    x = samples(circuit, 4)
    estimator = qtm.FastEstimator(default_precision=0.01, seed=np.random.default_rng(0))
    kernel = QuantumKernel(circuit, kind="projected", estimator=estimator)
    distance = np.abs(kernel.evaluate(x) - projected_matrix(circuit, x, x, 1.0)).max()
    assert 0 < distance < 0.1


def test_noise_of_the_projected_kernel() -> None:
    circuit = FEATURE_MAPS["zz"]
    x = samples(circuit, 4)
    noisy = QuantumKernel(circuit, kind="projected", noise=qtm.local_pauli_noise(0.1)).evaluate(x)
    exact = QuantumKernel(circuit, kind="projected").evaluate(x)
    off = ~np.eye(4, dtype=bool)
    assert (noisy[off] > exact[off]).all()  # noise brings states together


# --- Positive semi-definite matrices --------------------------------------------------------------------------------


def test_repair_clips_negative_eigenvalues() -> None:
    rng = np.random.default_rng(0)
    vectors = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    spoilt, expected = ((vectors * np.array(v)) @ vectors.T for v in ([-1, -0.1, 0.2, 1, 3], [0, 0, 0.2, 1, 3]))
    np.testing.assert_allclose(closest_psd(spoilt), expected, atol=1e-12)
    np.testing.assert_array_equal(closest_psd(expected + np.eye(5)), expected + np.eye(5))
    assert closest_psd(np.zeros((0, 0))).shape == (0, 0)


def test_matrices_of_few_shots_are_repaired_on_request() -> None:
    circuit = FEATURE_MAPS["zz"]
    x = samples(circuit, 12)
    spoilt = QuantumKernel(circuit, shots=5, seed=0, enforce_psd=False).evaluate(x)
    assert np.linalg.eigvalsh(spoilt)[0] < -0.05
    assert np.linalg.eigvalsh(QuantumKernel(circuit, shots=5, seed=0).evaluate(x))[0] > -1e-12


# --- Other packages -------------------------------------------------------------------------------------------------


def test_a_support_vector_machine_of_scikit_learn() -> None:
    X, y = make_moons(60, noise=0.1, random_state=0)
    kernel = QuantumKernel(zz_feature_map(2))
    machine = SVC(kernel=kernel.evaluate).fit(X, y)
    precomputed = SVC(kernel="precomputed").fit(kernel.evaluate(X), y)
    assert (machine.predict(X) == precomputed.predict(kernel.evaluate(X, X))).all()
    assert machine.score(X, y) > 0.8


def test_copies_and_pickles_evaluate_the_same() -> None:
    circuit, trained = trained_map()
    x = np.random.default_rng(0).uniform(-1, 1, (4, 3))
    for options in ({}, {"kind": "projected"}, {"sampler": qtm.FastSampler(seed=5)}):
        kernel = QuantumKernel(circuit, training_parameters=trained, seed_init=0, **options)
        expected = kernel.evaluate(x)
        for other in (copy.deepcopy(kernel), pickle.loads(pickle.dumps(kernel))):
            np.testing.assert_allclose(other.evaluate(x), expected, atol=1e-12)


def test_the_module_saves_its_weights() -> None:
    circuit, trained = trained_map()
    one, two = (QuantumKernel(circuit, training_parameters=trained, seed_init=seed) for seed in (0, 1))
    two.load_state_dict(one.state_dict())
    assert (one.parameter_values == two.parameter_values).all()


class TestPeers:
    """Wherever qiskit-machine-learning takes one of its kernels."""

    kernels = pytest.importorskip("qiskit_machine_learning.kernels")
    algorithms = pytest.importorskip("qiskit_machine_learning.algorithms")

    @each_map
    def test_matrices_are_theirs(self, name: str) -> None:
        circuit = FEATURE_MAPS[name]
        x, y = samples(circuit, 5), samples(circuit, 3, 1)
        theirs = self.kernels.FidelityStatevectorKernel(feature_map=circuit)
        ours = QuantumKernel(feature_map=circuit)
        np.testing.assert_allclose(ours.evaluate(x_vec=x), theirs.evaluate(x_vec=x), atol=1e-12)
        np.testing.assert_allclose(ours.evaluate(x, y), theirs.evaluate(x, y), atol=1e-12)

    def test_their_attributes_are_there(self) -> None:
        circuit, trained = trained_map()
        names = ("feature_map", "num_features", "enforce_psd", "training_parameters", "num_training_parameters")
        for name, options in (
            ("FidelityQuantumKernel", {}), ("TrainableFidelityQuantumKernel", {"training_parameters": trained}),
            ("TrainableFidelityStatevectorKernel", {"training_parameters": trained}),
        ):  # fmt: skip
            theirs = getattr(self.kernels, name)(feature_map=circuit, **options)
            ours = QuantumKernel(feature_map=circuit, **options)
            for attribute in (*names, "evaluate_duplicates"):
                if hasattr(theirs, attribute):
                    assert getattr(ours, attribute) == getattr(theirs, attribute), attribute

    @pytest.mark.parametrize("name", ["QSVC", "QSVR"])
    def test_machines_predict_the_same(self, name: str) -> None:
        X, y = make_moons(30, noise=0.1, random_state=0)
        circuit = zz_feature_map(2)
        found = [
            getattr(self.algorithms, name)(quantum_kernel=kernel).fit(X, y).predict(X)
            for kernel in (QuantumKernel(circuit), self.kernels.FidelityStatevectorKernel(feature_map=circuit))
        ]
        np.testing.assert_allclose(*found, atol=1e-6)

    @pytest.mark.slow
    def test_pegasos_predicts_the_same(self) -> None:
        X, y = make_moons(20, noise=0.1, random_state=0)
        circuit = zz_feature_map(2)
        found = [
            self.algorithms.PegasosQSVC(quantum_kernel=kernel, num_steps=30, seed=1).fit(X, y).predict(X)
            for kernel in (QuantumKernel(circuit), self.kernels.FidelityStatevectorKernel(feature_map=circuit))
        ]
        assert (found[0] == found[1]).all()

    def test_their_trainer_trains_ours(self) -> None:
        from qiskit_machine_learning.kernels.algorithms import QuantumKernelTrainer
        from qiskit_machine_learning.optimizers import COBYLA
        from qiskit_machine_learning.utils.loss_functions import SVCLoss

        X, y = make_moons(16, noise=0.1, random_state=0)
        circuit, trained = trained_map(2)
        start = np.linspace(0.2, 1.2, len(trained))
        kernel = QuantumKernel(circuit, training_parameters=trained).double()
        loss = SVCLoss(tol=1e-10)
        result = QuantumKernelTrainer(kernel, loss, COBYLA(maxiter=12), start).fit(X, y)
        theirs = self.kernels.TrainableFidelityStatevectorKernel(feature_map=circuit, training_parameters=trained)
        assert result.optimal_value == pytest.approx(loss.evaluate(result.optimal_point, theirs, X, y), rel=1e-6)
        assert result.optimal_value < loss.evaluate(start, theirs, X, y)
        np.testing.assert_array_equal(kernel.parameter_values, result.optimal_point)
        assert self.algorithms.QSVC(quantum_kernel=result.quantum_kernel).fit(X, y).score(X, y) > 0.5


# --- Bad input ------------------------------------------------------------------------------------------------------

ZZ = zz_feature_map(2)
X = np.zeros((4, 2))
BAD_KERNELS = [
    ({"feature_map": "zz"}, qtm.CircuitError, "qiskit.QuantumCircuit"),
    ({"feature_map": QuantumCircuit(2)}, qtm.ShapeError, "no parameter for features"),
    ({"training_parameters": list(ZZ.parameters)}, qtm.ShapeError, "no parameter for features"),
    ({"training_parameters": [*real_amplitudes(2).parameters][:1]}, qtm.ParameterError, "not in the feature map"),
    ({"training_parameters": [ZZ.parameters[0]] * 2}, qtm.ParameterError, "listed twice"),
    ({"training_parameters": 3}, qtm.ParameterError, "list of circuit parameters"),
    ({"kind": "gaussian"}, qtm.ParameterError, "'fidelity', 'projected'"),
    ({"gamma": 0}, qtm.ParameterError, "gamma"),
    ({"shots": 0}, qtm.ParameterError, "shots"),
    ({"seed": -1}, qtm.ParameterError, "seed"),
    ({"enforce_psd": 1}, qtm.ParameterError, "enforce_psd"),
    ({"evaluate_duplicates": "some"}, qtm.ParameterError, "off_diagonal"),
    ({"progress": "yes"}, qtm.ParameterError, "progress"),
    ({"sampler": qtm.FastEstimator()}, qtm.ParameterError, "BaseSamplerV2"),
    ({"sampler": qtm.FastSampler(), "max_circuits_per_job": 0}, qtm.ParameterError, "job may hold"),
    ({"sampler": qtm.FastSampler(), "pass_manager": 1}, qtm.ParameterError, "pass manager"),
    ({"observables": ["ZZ"]}, qtm.ParameterError, "belongs to kind='projected'"),
    ({"estimator": qtm.FastEstimator()}, qtm.ParameterError, "belongs to kind='projected'"),
    ({"kind": "projected", "sampler": qtm.FastSampler()}, qtm.ParameterError, "belongs to kind='fidelity'"),
    ({"kind": "projected", "shots": 10}, qtm.ParameterError, "belongs to kind='fidelity'"),
    ({"kind": "projected", "observables": ["ZZZ"]}, qtm.ObservableError, "qubits"),
    ({"kind": "projected", "estimator": qtm.FastSampler()}, qtm.ParameterError, "BaseEstimatorV2"),
    (
        {"feature_map": reuploading_circuit(2, 1), "training_parameters": []},
        qtm.ParameterError,
        "which parameters are trained",
    ),
]


@pytest.mark.parametrize(("options", "error", "text"), BAD_KERNELS)
def test_unusable_arguments_are_named(options: dict[str, Any], error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        QuantumKernel(**{"feature_map": ZZ, **options})


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((np.zeros((4, 3)),), qtm.ShapeError, r"x_vec has shape \(4, 3\).* 2 features"),
        ((X, np.zeros((4, 1))), qtm.ShapeError, "y_vec has shape"),
        ((np.zeros((2, 2, 2)),), qtm.ShapeError, "expected"),
        ((np.full((4, 2), np.nan),), qtm.ParameterError, "sample 0"),
        ((["a", "b"],), qtm.DtypeError, "real numbers"),
        ((X * 1j,), qtm.DtypeError, "real"),
    ],
)
def test_unusable_samples_are_named(arguments: tuple, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        QuantumKernel(ZZ).evaluate(*arguments)


def test_a_feature_map_without_inverse_is_named() -> None:
    circuit = zz_feature_map(2)
    circuit.reset(0)
    with pytest.raises(qtm.CircuitError, match="no inverse"):
        QuantumKernel(circuit, sampler=qtm.FastSampler())


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: kernel_target_alignment(torch.eye(3), [0, 1]), qtm.ShapeError, "2 labels for 3"),
        (lambda: kernel_target_alignment(torch.eye(3), [1, 1, 1]), qtm.ParameterError, "same"),
        (lambda: kernel_target_alignment(np.eye(3), [0, 1, 1]), qtm.ShapeError, "tensor"),
        (lambda: kernel_target_alignment(torch.zeros(3, 2), [0, 1, 1]), qtm.ShapeError, r"\(3, 2\)"),
        (lambda: svc_loss(torch.tensor([[1.0, 2], [2, 1]]), [0, 1]), qtm.ParameterError, "not positive semi-definite"),
        (lambda: svc_loss(torch.tensor([[1.0, 2], [0, 1]]), [0, 1]), qtm.ShapeError, "not symmetric"),
        (lambda: svc_loss(torch.eye(2), [0, 1], C=0), qtm.ParameterError, "C must be"),
        (lambda: closest_psd(np.zeros((2, 3))), qtm.ShapeError, "samples, samples"),
        (lambda: closest_psd([[np.nan]]), qtm.ParameterError, "NaN"),
        (lambda: closest_psd([["a"]]), qtm.DtypeError, "real numbers"),
        (lambda: train_kernel(QuantumKernel(ZZ), X, [0, 1, 0, 1]), qtm.ParameterError, "nothing to train"),
        (
            lambda: train_kernel(QuantumKernel(ZZ), X, [0, 1, 0, 1], loss="mse"),
            qtm.ParameterError,
            "'alignment', 'svc'",
        ),
        (lambda: QuantumKernel(ZZ).assign_training_parameters([1.0]), qtm.ParameterError, "0 training parameters"),
        (lambda: QuantumKernel(ZZ).assign_training_parameters({ZZ.parameters[0]: 1}), qtm.ParameterError, "among"),
        (lambda: QuantumKernel(ZZ).estimate_usage(-1), qtm.ParameterError, "rows"),
    ],
)
def test_unusable_matrices_labels_and_values_are_named(call: Any, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        call()
