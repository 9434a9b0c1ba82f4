"""Natural gradients: the metric against other packages and finite differences, the optimizers against dense algebra."""

from __future__ import annotations

import copy
import doctest
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from circuit_cases import random_circuit, states
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import efficient_su2, real_amplitudes
from qiskit.quantum_info import SparsePauliOp

import qtm
from qtm import QuantumModule
from qtm._optim import metric as metric_module
from qtm._optim import natural_gradient, qn_spsa
from qtm._optim.conjugate_gradients import conjugate_gradients
from qtm.circuits import amplitude_encoding, hardware_efficient_ansatz, reuploading_circuit
from qtm.optim import QNSPSA, NaturalGradient, metric_tensor

CIRCUITS = {
    "efficient_su2": efficient_su2(3, reps=1),
    "real": real_amplitudes(3, reps=2),
    "expressions": random_circuit(5, 3, 20),
}


def dense_metric(circuit: QuantumCircuit, parameters: list, row: np.ndarray, wanted: slice = slice(None)) -> np.ndarray:
    """The metric from fourth-order differences of Qiskit's states."""
    h = 1e-3

    def state(at: np.ndarray) -> np.ndarray:
        return np.array([s.data for s in states(circuit, parameters, at)])

    near, far = (state(row + k * np.eye(len(row))) - state(row - k * np.eye(len(row))) for k in (h, 2 * h))
    slopes, center = ((8 * near - far) / (12 * h))[wanted], state(row[None])[0]
    berry = slopes.conj() @ center
    return (slopes.conj() @ slopes.T - np.outer(berry, berry.conj())).real


# --- The metric -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CIRCUITS)
def test_the_metric_is_that_of_finite_differences(name: str) -> None:
    circuit = CIRCUITS[name]
    module = QuantumModule(circuit, None, circuit.parameters, seed_init=1).double()
    expected = dense_metric(circuit, list(circuit.parameters), module.variational.detach().numpy())
    np.testing.assert_allclose(metric_tensor(module), expected, atol=1e-8)


@pytest.mark.parametrize("name", ["efficient_su2", "real"])
def test_the_metric_is_that_of_qiskit_algorithms(name: str) -> None:
    from qiskit.primitives import StatevectorEstimator
    from qiskit_algorithms.gradients import DerivativeType, LinCombQGT

    circuit = CIRCUITS[name]
    module = QuantumModule(circuit, None, circuit.parameters, seed_init=1).double()
    qgt = LinCombQGT(StatevectorEstimator(), derivative_type=DerivativeType.REAL)
    theirs = qgt.run([circuit], [module.variational.tolist()]).result().qgts[0]
    np.testing.assert_allclose(metric_tensor(module), theirs, atol=1e-8)


def test_the_mean_metric_of_a_batch_and_of_several_sets() -> None:
    model = reuploading_circuit(2, 1)
    sets = [list(model.scaling_params), list(model.variational_params)]
    module = QuantumModule(model.circuit, model.encoding_params, sets, seed_init=0).double()
    inputs = np.random.default_rng(0).normal(size=(3, 2))
    weights = torch.cat(module.variational_).detach().numpy()
    order = [*model.encoding_params, *sets[0], *sets[1]]
    each = [dense_metric(model.circuit, order, np.concatenate([x, weights]), slice(2, None)) for x in inputs]
    np.testing.assert_allclose(metric_tensor(module, inputs), np.mean(each, axis=0), atol=1e-8)
    np.testing.assert_allclose(metric_tensor(module, inputs[None]), metric_tensor(module, inputs), atol=1e-14)


def test_the_metric_in_single_precision() -> None:
    circuit = CIRCUITS["efficient_su2"]
    module = QuantumModule(circuit, None, circuit.parameters, seed_init=1)
    single = metric_tensor(module)
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single, metric_tensor(copy.deepcopy(module).double()), atol=1e-5)


def test_angles_that_are_not_linear_in_the_parameters() -> None:
    a = ParameterVector("a", 2)
    circuit = QuantumCircuit(2)
    circuit.ry(a[0] * a[1], 0)
    circuit.cx(0, 1)
    circuit.rx(a[1] ** 2, 1)
    module = QuantumModule(circuit, None, list(a), seed_init=4).double()
    expected = dense_metric(circuit, list(a), module.variational.detach().numpy())
    np.testing.assert_allclose(metric_tensor(module), expected, atol=1e-7)
    assert metric_module.StateGeometry(module).at(None).matrix() is None


def test_the_metric_as_one_batch() -> None:
    circuit = CIRCUITS["efficient_su2"]
    module = QuantumModule(circuit, None, circuit.parameters, seed_init=1).double()
    batched = metric_module.StateGeometry(module).at(None).matrix()
    torch.testing.assert_close(batched, metric_tensor(module), atol=1e-12, rtol=0)


# --- Conjugate gradients --------------------------------------------------------------------------------------------


def test_conjugate_gradients_solve() -> None:
    rng = np.random.default_rng(0)
    root = torch.from_numpy(rng.normal(size=(8, 8)))
    matrix, right = root @ root.T + torch.eye(8), torch.from_numpy(rng.normal(size=8))
    expected = torch.linalg.solve(matrix, right)
    for start in (torch.zeros(8, dtype=torch.float64), expected + 0.1):
        found, used = conjugate_gradients(lambda v: matrix @ v, right, start, tolerance=1e-10, max_iterations=50)
        torch.testing.assert_close(found, expected, atol=1e-8, rtol=0)
        assert used <= 20
    exact, used = conjugate_gradients(lambda v: matrix @ v, right, expected, tolerance=1e-8, max_iterations=50)
    assert used == 1 and torch.equal(exact, expected)
    assert conjugate_gradients(lambda v: matrix @ v, right, 0 * right, tolerance=1e-12, max_iterations=3)[1] == 3
    assert not conjugate_gradients(lambda v: -v, right, 0 * right, tolerance=1e-8, max_iterations=9)[0].any()


# --- Natural gradient -----------------------------------------------------------------------------------------------


def stepped(module: QuantumModule, **options: Any) -> tuple[torch.Tensor, torch.Tensor, NaturalGradient]:
    """The gradient and the change of all parameters by one step."""
    optimizer = NaturalGradient(module.parameters(), module, tolerance=1e-10, max_iterations=100, **options)
    before = torch.cat(module.variational_).detach().clone()
    module().sum().backward()
    gradient = torch.cat([s.grad for s in module.variational_])
    optimizer.step()
    return gradient, torch.cat(module.variational_).detach() - before, optimizer


@pytest.fixture(params=["dense", "conjugate gradients"])
def solver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Small circuits are solved densely, unless that is switched off."""
    if request.param != "dense":
        monkeypatch.setattr(metric_module, "_DENSE", 0)
    return request.param


def layered(observable: str = "ZXI") -> QuantumModule:
    parts = [hardware_efficient_ansatz(3)] * 3
    return QuantumModule.from_parts(parts, observables=[observable], variational_params_initial={}).double()


def test_a_step_solves_the_damped_equations(solver: str) -> None:
    module = layered()
    metric = metric_tensor(module)
    gradient, change, optimizer = stepped(module, lr=0.3, damping=0.01)
    expected = -0.3 * torch.linalg.solve(metric + 0.01 * torch.eye(len(metric)), gradient)
    torch.testing.assert_close(change, expected, atol=1e-7, rtol=0)
    assert 0 < optimizer.iterations <= 100
    assert (optimizer.iterations == len(metric)) == (solver == "dense")


def test_the_block_diagonal_form_leaves_out_entries_between_sets(solver: str) -> None:
    module = layered()
    sizes = [s.numel() for s in module.variational_]
    full = metric_tensor(module)
    starts = np.cumsum([0, *sizes])[:-1]
    metric = torch.block_diag(*[full[i : i + n, i : i + n] for i, n in zip(starts, sizes, strict=True)])
    assert (full - metric).abs().max() > 0.01
    gradient, change, _ = stepped(module, lr=1.0, damping=0.01, blocks="sets")
    expected = -torch.linalg.solve(metric + 0.01 * torch.eye(len(metric)), gradient)
    torch.testing.assert_close(change, expected, atol=1e-7, rtol=0)


def test_groups_have_their_own_rates_and_damping(solver: str) -> None:
    module = layered()
    metric = metric_tensor(module)
    first, second, third = module.variational_
    groups = [{"params": [first], "lr": 0.1}, {"params": [second], "lr": 0.5, "damping": 0.2}]
    optimizer = NaturalGradient(groups, module, lr=0.3, damping=0.01, tolerance=1e-10, max_iterations=100)
    before = torch.cat(module.variational_).detach().clone()
    module().sum().backward()
    gradient = torch.cat([first.grad, second.grad])
    optimizer.step()
    size = len(gradient)
    damping = torch.cat([torch.full_like(first, 0.01), torch.full_like(second, 0.2)])
    rates = torch.cat([torch.full_like(first, 0.1), torch.full_like(second, 0.5)])
    expected = -rates * torch.linalg.solve(metric[:size, :size] + torch.diag(damping), gradient)
    change = torch.cat(module.variational_).detach() - before
    torch.testing.assert_close(change[:size], expected, atol=1e-7, rtol=0)
    assert not change[size:].any() and third.grad is not None


def test_the_metric_is_that_of_the_last_call_with_gradients() -> None:
    model = reuploading_circuit(2, 1)
    module = QuantumModule(model.circuit, model.encoding_params, model.trainable_params, seed_init=0).double()
    seen, other = (torch.rand(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    changes = []
    for given in (None, seen, other):
        twin = copy.deepcopy(module)
        optimizer = NaturalGradient(twin.parameters(), twin, tolerance=1e-10, max_iterations=100)
        twin(seen).square().sum().backward()
        with torch.no_grad():
            twin(other)  # a validation
        optimizer.step(inputs=given)
        changes.append(twin.variational.detach() - module.variational.detach())
    torch.testing.assert_close(changes[0], changes[1])
    assert (changes[0] - changes[2]).abs().max() > 1e-4


def test_it_needs_fewer_steps_than_gradient_descent(solver: str) -> None:
    hamiltonian = SparsePauliOp.from_sparse_list(
        [("ZZ", [q, q + 1], -1.0) for q in range(3)] + [("X", [q], -1.0) for q in range(4)], 4
    )
    exact = np.linalg.eigvalsh(hamiltonian.to_matrix())[0]
    circuit = efficient_su2(4, reps=2)
    errors = {}
    for name in ("natural", "plain"):
        module = QuantumModule(circuit, None, circuit.parameters, observables=[hamiltonian], seed_init=3).double()
        optimizer: Any = torch.optim.SGD(module.parameters(), lr=0.05)
        if name == "natural":
            optimizer = NaturalGradient(module.parameters(), module, lr=0.05)
        for _ in range(60):
            energy = module().sum()
            optimizer.zero_grad()
            energy.backward()
            optimizer.step()
        errors[name] = energy.item() - exact
    assert errors["natural"] < errors["plain"] / 2


def test_a_closure_and_schedules_work_as_with_other_optimizers() -> None:
    module = layered()
    optimizer = NaturalGradient(module.parameters(), module, lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        energy = module().sum()
        energy.backward()
        return energy

    losses = []
    for _ in range(3):
        losses.append(optimizer.step(closure).item())
        schedule.step()
    assert losses[2] < losses[0] and optimizer.param_groups[0]["lr"] == pytest.approx(0.0125)


def test_states_are_saved_and_modules_stay_picklable(solver: str) -> None:
    one = layered()
    two = copy.deepcopy(one)
    optimizers = [NaturalGradient(m.parameters(), m, lr=0.1) for m in (one, two)]

    def steps(module: QuantumModule, optimizer: NaturalGradient, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            module().sum().backward()
            optimizer.step()

    steps(one, optimizers[0], 4)
    steps(two, optimizers[1], 2)
    resumed = copy.deepcopy(two)
    again = NaturalGradient(resumed.parameters(), resumed, lr=0.7)
    again.load_state_dict(optimizers[1].state_dict())
    steps(resumed, again, 2)
    torch.testing.assert_close(torch.cat(resumed.variational_), torch.cat(one.variational_))
    assert torch.equal(pickle.loads(pickle.dumps(one))(), one())


# --- QN-SPSA --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_samples_of_the_metric_average_to_it() -> None:
    circuit = real_amplitudes(2, reps=1)
    module = QuantumModule(circuit, None, circuit.parameters, seed_init=0).double()
    optimizer = QNSPSA(module.parameters(), module, seed=0, epsilon=0.01)
    sets, start = module.variational_, module.variational.detach()
    rng = np.random.default_rng(0)
    total = torch.zeros(4, 4, dtype=torch.float64)
    for _ in range(600):
        first, second = (torch.from_numpy(rng.choice([-1.0, 1.0], 4)) for _ in range(2))
        total += optimizer._sample_of_metric(sets, start, first, second, None)
    torch.testing.assert_close(total / 600, metric_tensor(module), atol=0.1, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("sampled", [False, True])
def test_it_learns_from_values_alone(sampled: bool) -> None:
    circuit = real_amplitudes(2, reps=1)
    estimator = qtm.FastEstimator(default_precision=0.01, seed=np.random.default_rng(1))
    module = QuantumModule(
        circuit, None, circuit.parameters, observables=["ZZ"], estimator=estimator, gradient="spsa", seed_init=0
    )
    sampler = qtm.FastSampler(seed=np.random.default_rng(2)) if sampled else None
    optimizer = QNSPSA(
        module.parameters(), module, lr=0.05, damping=0.1, seed=0, sampler=sampler, shots=1000 if sampled else None
    )
    losses = [optimizer.step(lambda: module().sum()).item() for _ in range(60)]
    assert np.mean(losses[-5:]) < -0.85


def test_inputs_of_a_batch_enter_its_metric() -> None:
    model = reuploading_circuit(2, 1)
    module = QuantumModule(model.circuit, model.encoding_params, model.trainable_params, seed_init=0)
    optimizer = QNSPSA(module.parameters(), module, seed=0, repeats=2)
    inputs, targets = torch.rand(3, 2), torch.rand(3, 2)
    losses = [optimizer.step(lambda: (module(inputs) - targets).square().mean()).item() for _ in range(5)]
    assert np.isfinite(losses).all()
    kept = optimizer.state_dict()["state"]["metric"]
    assert kept["steps"] == 5 and kept["mean"].shape == (12, 12)


# --- Bad input ------------------------------------------------------------------------------------------------------

BELL = real_amplitudes(2, reps=1)


def module_of(circuit: QuantumCircuit = BELL) -> QuantumModule:
    return QuantumModule(circuit, None, circuit.parameters, seed_init=0)


@pytest.mark.parametrize("kind", [NaturalGradient, QNSPSA])
@pytest.mark.parametrize(("options", "text"), [({"lr": 0}, "lr"), ({"lr": "fast"}, "lr"), ({"damping": -1}, "damping")])
def test_unusable_numbers_are_named(kind: Any, options: dict[str, Any], text: str) -> None:
    module = module_of()
    with pytest.raises(qtm.ParameterError, match=text):
        kind(module.parameters(), module, **options)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda m: NaturalGradient(m.parameters(), m, blocks="layers"), "'full', 'sets'"),
        (lambda m: NaturalGradient(m.parameters(), m, max_iterations=0), "max_iterations"),
        (lambda m: NaturalGradient(m.parameters(), m, tolerance=0), "tolerance"),
        (lambda m: NaturalGradient(m.parameters(), torch.nn.Linear(1, 1)), "QuantumModule"),
        (lambda m: NaturalGradient([torch.nn.Parameter(torch.zeros(2))], m), "another optimizer"),
        (lambda m: QNSPSA(m.parameters(), m, epsilon=0), "epsilon"),
        (lambda m: QNSPSA(m.parameters(), m, repeats=0), "repeats"),
        (lambda m: QNSPSA(m.parameters(), m, seed=-1), "seed"),
        (lambda m: QNSPSA(m.parameters(), "module"), "QuantumModule"),
        (lambda m: QNSPSA(m.parameters(), m).step(None), "returns it"),
        (lambda m: metric_tensor("module"), "QuantumModule"),
    ],
)
def test_unusable_arguments_are_named(make: Any, text: str) -> None:
    with pytest.raises(qtm.ParameterError, match=text):
        make(module_of())


def test_missing_inputs_are_named() -> None:
    model = reuploading_circuit(2, 1)
    module = QuantumModule(model.circuit, model.encoding_params, model.trainable_params)
    with pytest.raises(qtm.ShapeError, match="2 encoding parameters needs inputs"):
        NaturalGradient(module.parameters(), module).step()
    with pytest.raises(qtm.ShapeError, match=r"\(\.\.\., 2\)"):
        QNSPSA(module.parameters(), module).step(lambda: 0.0)
    for wrong in (torch.zeros(3, 1), torch.zeros(0, 2)):
        with pytest.raises(qtm.ShapeError):
            metric_tensor(module, wrong)


def test_trained_amplitudes_are_refused() -> None:
    model = amplitude_encoding(2)
    module = QuantumModule(model.circuit, None, model.encoding_params, seed_init=0)
    with pytest.raises(qtm.UnsupportedError, match="amplitudes that are trained"):
        metric_tensor(module)


@pytest.mark.parametrize("module", [metric_module, natural_gradient, qn_spsa])
def test_examples_run(module: Any) -> None:
    assert doctest.testmod(module).failed == 0 and doctest.testmod(module).attempted > 0


def test_parameters_without_effect_do_not_move(solver: str) -> None:
    circuit = QuantumCircuit(1)
    a = ParameterVector("a", 2)
    circuit.rz(a[0], 0)  # on |0>: a global phase
    circuit.ry(a[1], 0)
    module = QuantumModule(circuit, None, list(a), seed_init=0).double()
    _, change, _ = stepped(module, lr=0.1)
    assert abs(change[0]) < 1e-12 and abs(change[1]) > 1e-3
