"""Modules on estimators of every kind: values, gradients, jobs, refusals."""

from __future__ import annotations

import copy
import logging
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from circuit_cases import random_circuit, random_observables, shuffled
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import real_amplitudes
from qiskit.primitives import (
    BaseEstimatorV2,
    DataBin,
    PrimitiveJob,
    PrimitiveResult,
    PubResult,
    StatevectorEstimator,
)
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.transpiler import CouplingMap, PassManager, generate_preset_pass_manager
from qiskit_aer import AerSimulator
from qiskit_aer.primitives import EstimatorV2 as AerEstimator

from qtm import FastEstimator, QuantumModule
from qtm._errors import BudgetExceeded, CircuitError, JobError, ObservableError, ParameterError
from qtm._primitives.job_usage import Usage
from qtm.noise import local_pauli_noise, noisy_estimator

INPUTS, WEIGHTS = ParameterVector("x", 2), ParameterVector("w", 4)
OBSERVABLES = ["ZZ", "XI", {"YY": 0.5, "ZI": 1.0}]


def small_circuit() -> QuantumCircuit:
    """Products, sums and repetitions of parameters; a four-term rule; an input that is used once alone."""
    circuit = QuantumCircuit(2)
    circuit.ry(INPUTS[0], 0)
    circuit.ry(INPUTS[1] * WEIGHTS[0], 1)
    circuit.crx(WEIGHTS[1] + INPUTS[0], 0, 1)
    circuit.rzz(WEIGHTS[2], 0, 1)
    circuit.u(WEIGHTS[3], WEIGHTS[1], 0.3, 1)
    return circuit


# Terms of all angles, and of those that weights stand in: ry ry crx rzz u u.
TERMS, TERMS_OF_WEIGHTS = 2 + 2 + 4 + 2 + 2 + 2, 2 + 4 + 2 + 2 + 2


def module(estimator: Any = None, gradient: Any = "param-shift", **settings: Any) -> QuantumModule:
    settings = {"observables": OBSERVABLES, "seed_init": 0} | settings
    return QuantumModule(small_circuit(), INPUTS, WEIGHTS, estimator=estimator, gradient=gradient, **settings).double()


def samples(batch: int = 3, seed: int = 1) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(-2, 2, (batch, 2))).requires_grad_()


def step(model: QuantumModule, inputs: torch.Tensor | None, seed: int = 2) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """Values, and the gradients of their random weighted sum by the weights and the inputs."""
    inputs = None if inputs is None else inputs.detach().clone().requires_grad_()
    model.zero_grad()
    values = model(inputs)
    cotangent = np.random.default_rng(seed).normal(size=values.shape)
    (values * torch.from_numpy(cotangent).to(values.dtype)).sum().backward()
    return values.detach(), model.variational.grad.clone(), None if inputs is None else inputs.grad


def assert_close(found: tuple, expected: tuple, tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=0, check_dtype=False)


class Counting(StatevectorEstimator):
    """Records the PUBs of every job."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.jobs: list[list[EstimatorPub]] = []
        self.precisions: list[float | None] = []

    def run(self, pubs: Any, *, precision: float | None = None) -> Any:
        self.jobs.append([EstimatorPub.coerce(pub) for pub in pubs])
        self.precisions.append(precision)
        return super().run(self.jobs[-1], precision=precision)


LINE = CouplingMap.from_line(5)


def scattered(seed: int = 1) -> PassManager:
    """Onto qubits 3 and 1 of a line, where gates need swaps."""
    basis = ["cx", "rz", "sx", "x"]
    return generate_preset_pass_manager(
        1, coupling_map=LINE, basis_gates=basis, initial_layout=[3, 1], seed_transpiler=seed
    )


# ---------------------------------------------------------------- parameter shift is exact

# What StatevectorEstimator and Aer know without a pass manager.
ROTATIONS = ("rx", "ry", "rz", "p", "u", "r", "rxx", "ryy", "rzz", "rzx")
CONTROLLED = ("crx", "cry", "crz", "cp", "cu", "mcphase")
CONSTANT = ("h", "s", "sx", "t", "cx", "cz", "swap", "ecr")


@pytest.mark.parametrize("seed", range(6))
def test_param_shift_agrees_with_the_reverse_sweep_on_random_circuits(seed):
    """All gates of the table; shared parameters, in expressions of all kinds, in an order of their own."""
    circuit = random_circuit(seed, num_qubits=3, num_gates=25)
    parameters, observables = shuffled(circuit), random_observables(seed, 3)
    inputs, weights = parameters[: len(parameters) // 2], parameters[len(parameters) // 2 :]
    values = torch.from_numpy(np.random.default_rng(seed).uniform(0.2, 1.5, (3, len(inputs))))
    models = [
        QuantumModule(circuit, inputs, weights, observables=observables, gradient=gradient, seed_init=0).double()
        for gradient in ("param-shift", "reverse")
    ]
    assert_close(step(models[0], values), step(models[1], values), 1e-9)


EXACT = {
    "fast": FastEstimator,
    "statevector": StatevectorEstimator,
    "aer": AerEstimator,
    "counting": Counting,
    "noiseless noisy": lambda: noisy_estimator(local_pauli_noise(0.0)),
}


@pytest.mark.parametrize("name", EXACT)
def test_exact_estimators_give_the_reverse_sweep(name):
    assert_close(step(module(EXACT[name]()), samples()), step(module(gradient="reverse"), samples()), 1e-9)


@pytest.mark.thinned(12)
@pytest.mark.parametrize("name", [*ROTATIONS, *CONTROLLED])
def test_aer_binds_every_gate(name):
    """Aer ignores the values of parametrised controlled gates: they are sent as other gates."""
    circuit = random_circuit(1, 3, 6, (*CONSTANT, "ry"), symbolic=False)
    circuit = circuit.assign_parameters(np.linspace(-1, 1, circuit.num_parameters))
    angles = ParameterVector("angle", 4)
    if name == "mcphase":
        circuit.mcp(angles[0], [0, 1], 2)
    else:
        qubits, count = {"r": (1, 2), "u": (1, 3), "cu": (2, 4)}.get(name, (len(name.lstrip("c")), 1))
        qubits = {"rx": 1, "ry": 1, "rz": 1, "p": 1, "crx": 2, "cry": 2, "crz": 2, "cp": 2}.get(name, qubits)
        qubits = 2 if name in ("rxx", "ryy", "rzz", "rzx") else qubits
        getattr(circuit, name)(*angles[:count], *range(qubits))
    circuit.ry(angles[0] + 0.2, 0)
    circuit.cx(0, 2)
    parameters = list(circuit.parameters)
    settings = {"observables": random_observables(3, 3), "seed_init": 1}
    models = [
        QuantumModule(circuit, None, parameters, estimator=e, gradient=g, **settings).double()
        for e, g in ((AerEstimator(), "param-shift"), (AerEstimator(), ("spsa", {"seed": 1})), (None, "reverse"))
    ]
    exact = step(models[2], None)
    assert_close(step(models[0], None)[:2], exact[:2], 1e-9)
    torch.testing.assert_close(models[1](), exact[0], atol=1e-9, rtol=0)


class Plain(BaseEstimatorV2):
    """A user's own estimator: values and nothing else."""

    def run(self, pubs: Any, *, precision: float | None = None) -> Any:
        job: PrimitiveJob[Any] = PrimitiveJob(self._run, [EstimatorPub.coerce(pub) for pub in pubs])
        job._submit()
        return job

    def _run(self, pubs: list[EstimatorPub]) -> PrimitiveResult:
        results = StatevectorEstimator().run(pubs).result()
        return PrimitiveResult([PubResult(DataBin(evs=r.data.evs, shape=r.data.evs.shape)) for r in results])


def test_an_estimator_of_the_users_own():
    assert_close(step(module(Plain()), samples()), step(module(gradient="reverse"), samples()), 1e-9)


def test_single_precision_modules_round_and_nothing_more():
    expected = step(module(gradient="reverse"), samples())
    found = step(module(StatevectorEstimator()).float(), samples().float())
    assert found[0].dtype == found[1].dtype == torch.float32
    assert_close(found, expected, 1e-4)


def test_torch_func_transforms_run_on_an_estimator():
    def gradients(model):
        def loss(weights, row):
            return torch.func.functional_call(model, {"variational": weights}, (row,)).sum()

        by_both = torch.func.grad(loss, argnums=(0, 1))
        return torch.func.vmap(by_both, (None, 0))(model.variational.detach(), samples().detach())

    found, expected = gradients(module(StatevectorEstimator())), gradients(module(gradient="reverse"))
    assert_close(found, expected, 1e-9)


# ---------------------------------------------------------------- jobs


@pytest.mark.thinned(5)
@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize("observables", [["ZZ"], OBSERVABLES, "individualZ", ["XX", "YY", "ZZ", "XY", "YI", "IZ"]])
@pytest.mark.parametrize("gradient", ["param-shift", "spsa"])
def test_a_step_is_two_jobs_of_one_pub(batch, observables, gradient):
    estimator = Counting()
    model = module(estimator, gradient, observables=observables)
    optimizer = torch.optim.Adam(model.parameters())
    model(samples(batch)).sum().backward()
    optimizer.step()
    assert [len(pubs) for pubs in estimator.jobs] == [1, 1]
    points = {"param-shift": TERMS, "spsa": 2}[gradient]
    shapes = [job[0].shape for job in estimator.jobs]
    assert shapes == [(batch, model.output_size), (batch * points, model.output_size)]


def test_a_prediction_is_one_job():
    estimator = Counting()
    with torch.no_grad():
        module(estimator)(samples(5))
    assert len(estimator.jobs) == 1


def test_angles_without_a_gradient_are_not_shifted():
    estimator = Counting()
    model = module(estimator)
    model(samples(2).detach()).sum().backward()
    assert estimator.jobs[-1][0].shape[0] == 2 * TERMS_OF_WEIGHTS
    model.variational.requires_grad_(False)
    model(samples(2)).sum().backward()
    assert estimator.jobs[-1][0].shape[0] == 2 * (2 + 2 + 4)  # ry(x0), ry(x1 w0), crx(w1 + x0)
    estimator.jobs.clear()
    assert not model(samples(2).detach()).requires_grad
    assert len(estimator.jobs) == 1


def test_a_frozen_set_is_not_shifted():
    ansatz, estimator = real_amplitudes(2, reps=1), Counting()
    first, second = ansatz.parameters[:2], ansatz.parameters[2:]
    model = QuantumModule(ansatz, None, [first, second], estimator=estimator, gradient="param-shift")
    model.variational_0.requires_grad_(False)
    model().sum().backward()
    assert estimator.jobs[-1][0].shape[0] == 4
    assert model.variational_0.grad is None


@pytest.mark.parametrize("gradient", ["param-shift", "spsa"])
def test_max_points_splits_jobs_and_changes_nothing_else(gradient):
    estimator = Counting()
    model = module(estimator, (gradient, {"max_points": 4} | ({"seed": 1} if gradient == "spsa" else {})))
    whole = module(Counting(), (gradient, {"seed": 1} if gradient == "spsa" else {}))
    assert_close(step(model, samples(5)), step(whole, samples(5)), 1e-12)
    points = [job[0].shape[0] for job in estimator.jobs]
    assert max(points) == 4
    assert points[:2] == [4, 1]
    assert model.usage.jobs == len(points) == model.estimate_usage(samples(5)).jobs


def test_an_empty_batch_is_no_job():
    estimator = Counting()
    model = module(estimator)
    values = model(torch.zeros(0, 2, dtype=torch.float64))
    values.sum().backward()
    assert values.shape == (0, 3)
    assert estimator.jobs == []
    assert torch.all(model.variational.grad == 0)


@pytest.mark.parametrize("estimator", [StatevectorEstimator, AerEstimator])
def test_a_circuit_that_no_input_changes_runs_once(estimator):
    circuit = QuantumCircuit(1, global_phase=INPUTS[0])
    circuit.x(0)
    model = QuantumModule(circuit, INPUTS[:1], [], estimator=estimator(), gradient="param-shift")
    torch.testing.assert_close(model(torch.zeros(3, 1)), -torch.ones(3, 1))
    assert model.usage == Usage(1, 1, 1, 1)


def test_precision_is_requested_in_every_job():
    estimator = Counting(seed=3)
    model = module(estimator, ("param-shift", {"precision": 0.1}))
    step(model, samples())
    assert estimator.precisions == [0.1, 0.1]
    assert model.usage.executions == 100 * model.usage.circuits
    step(other := module(estimator := Counting()), samples())
    assert estimator.precisions == [None, None]
    assert other.usage.executions == other.usage.circuits


def test_usage_adds_up_and_is_known_before(caplog):
    model = module(StatevectorEstimator(default_precision=0.1, seed=1))
    assert model.usage == Usage()
    with caplog.at_level(logging.INFO, logger="qtm"):
        step(model, samples(4))
    # XI, and ZZ with ZI, and YY: three bases.
    once = Usage(jobs=2, pubs=2, circuits=4 * (1 + TERMS) * 3, executions=4 * (1 + TERMS) * 300)
    assert model.usage == model.estimate_usage(samples(4)) == once
    assert [str(part) in caplog.text for part in (Usage(1, 1, 12, 1200), once)] == [True, True]
    step(model, samples(4))
    assert model.usage == once + once
    assert module(gradient="reverse").estimate_usage(4) == Usage()


def test_a_preview_submits_nothing_and_draws_nothing():
    estimator = Counting()
    model = module(estimator, ("spsa", {"repeats": 3}))
    state = torch.get_rng_state()
    assert model.estimate_usage(8).circuits == 8 * (1 + 6) * 3
    assert torch.equal(torch.get_rng_state(), state)
    assert estimator.jobs == []


# ---------------------------------------------------------------- refusals


class Broken(StatevectorEstimator):
    """Fails at the given call of ``run``, in the given way."""

    def __init__(self, fails: Any, at: int) -> None:
        super().__init__()
        self.fails, self.calls, self.at = fails, 0, at

    def run(self, pubs: Any, *, precision: float | None = None) -> Any:
        self.calls += 1
        job = super().run(pubs, precision=precision)
        if self.calls < self.at:
            return job
        return self.fails(job)


class Job:
    def __init__(self, result: Any) -> None:
        self._result = result

    def job_id(self) -> str:
        return "job-17"

    def result(self) -> Any:
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


def changed(change: Any) -> Any:
    """A job whose values are changed before they are returned."""

    def fails(job: Any) -> Job:
        evs = change(job.result()[0].data.evs.copy())
        return Job(PrimitiveResult([PubResult(DataBin(evs=evs, shape=evs.shape))]))

    return fails


def with_nan(evs: np.ndarray) -> np.ndarray:
    evs[0, 1] = np.nan
    return evs


def refusing(job: Any) -> Any:
    raise OSError("the line is dead")


FAILURES = {
    "run raises": (refusing, r"Broken rejected the job .*OSError: the line is dead"),
    "result raises": (lambda job: Job(RuntimeError("lost")), r"job job-17 on Broken failed: RuntimeError: lost"),
    "wrong shape": (changed(lambda evs: evs[:, :2]), r"job job-17 .* shape \(\d+, 2\), expected \(\d+, 3\)"),
    "transposed": (changed(lambda evs: evs.T), r"job job-17 .* shape"),
    "nan": (changed(with_nan), r"job job-17 .*: 1 of its \d+ expectation values are NaN or infinite"),
    "infinite": (changed(lambda evs: evs * np.inf), r"job job-17 .* NaN or infinite"),
    "two entries": (lambda job: Job(PrimitiveResult([*job.result()] * 2)), r"job job-17 .* 2 entries for 1 PUB"),
    "no values": (lambda job: Job(PrimitiveResult([PubResult(DataBin())])), r"job job-17 .* no real expectation"),
    "nothing": (lambda job: Job(None), r"job job-17 .* no real expectation values"),
}  # fmt: skip


@pytest.mark.thinned(3)
@pytest.mark.parametrize("at", [1, 2], ids=["forward", "backward"])
@pytest.mark.parametrize("name", FAILURES)
def test_a_failed_job_is_named_and_leaves_the_module_as_it_was(name, at):
    fails, message = FAILURES[name]
    model = module(Broken(fails, at))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(JobError, match=message) as caught:
        model(samples()).sum().backward()
    assert {name: v.tolist() for name, v in model.state_dict().items()} == {n: v.tolist() for n, v in before.items()}
    assert model.variational.grad is None
    if "raises" in name:
        assert isinstance(caught.value.__cause__, OSError | RuntimeError)


def test_a_failure_between_jobs_names_those_that_were_sent():
    model = module(Broken(refusing, at=3), ("param-shift", {"max_points": 1}))
    with pytest.raises(JobError, match=r"submitted before it: job [-0-9a-f]+, [-0-9a-f]+$"):
        model(samples(3))
    assert model.usage.jobs == 2


def test_errors_of_qtm_pass_as_they_are():
    def over_budget(job):
        raise BudgetExceeded("max_seconds=1 would be exceeded")

    with pytest.raises(BudgetExceeded, match="max_seconds"):
        module(Broken(over_budget, 1))(samples())


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"gradient": ("param-shift", {"epsilon": 1})}, ParameterError, "no option 'epsilon'.*precision, max_points"),
        ({"gradient": ("reverse", {"seed": 1})}, ParameterError, "its options are none"),
        ({"gradient": ("spsa", {"repeats": 0})}, ParameterError, "repeats must be .* at least 1, not 0"),
        ({"gradient": ("spsa", {"epsilon": 0.0})}, ParameterError, "epsilon must be .* above 0, not 0.0"),
        ({"gradient": ("spsa", {"epsilon": float("nan")})}, ParameterError, "epsilon must be .* above 0, not nan"),
        ({"gradient": ("param-shift", {"precision": -1})}, ParameterError, "precision must be .* at least 0, not -1"),
        ({"gradient": ("param-shift", {"max_points": 0})}, ParameterError, "max_points must be .* at least 1, not 0"),
        ({"gradient": "adjoint"}, ParameterError, "unknown gradient 'adjoint'; use one of reverse, param-shift, spsa"),
        ({"estimator": StatevectorEstimator(), "gradient": "reverse"}, ParameterError, "use gradient='param-shift'"),
        ({"estimator": AerSimulator()}, ParameterError, "not a AerSimulator"),
        ({"observables": ["ZZ", {"XX": 0.0}]}, ObservableError, "is zero"),
        ({"pass_manager": generate_preset_pass_manager(1, coupling_map=CouplingMap.from_line(1))},
         CircuitError, "cannot transpile"),
    ],
)  # fmt: skip
def test_unusable_settings_are_refused_at_construction(settings, error, message):
    with pytest.raises(error, match=message):
        module(**settings)


def test_values_that_are_not_finite_are_not_sent():
    estimator = Counting()
    inputs = samples().detach()
    inputs[1, 0] = torch.nan
    for gradient in ("param-shift", "spsa"):
        with pytest.raises(ParameterError, match=r"x\[0\].* nan in sample 1"):
            module(estimator, gradient)(inputs)
    assert estimator.jobs == []


@pytest.mark.thinned(2)
@pytest.mark.parametrize("gradient", ["param-shift", ("spsa", {"seed": 1})])
def test_modules_on_estimators_copy_and_pickle(gradient):
    model = module(StatevectorEstimator(), gradient, pass_manager=scattered())
    expected = step(model, samples())
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_close(step(other, samples()), expected, 1e-12)
