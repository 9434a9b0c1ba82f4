"""Modules on devices and noisy estimators: shots, mitigation, and the jobs they send."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.primitives import (
    BackendEstimatorV2,
    StatevectorEstimator,
)
from qiskit.transpiler import PassManager, TransformationPass, generate_preset_pass_manager
from qiskit_aer import AerSimulator
from qiskit_aer.primitives import EstimatorV2 as AerEstimator
from test_module_estimators import (
    INPUTS,
    TERMS_OF_WEIGHTS,
    WEIGHTS,
    Counting,
    assert_close,
    module,
    samples,
    scattered,
    step,
)

from qtm import FastEstimator, QuantumModule, hardware
from qtm._errors import CircuitError
from qtm._hardware.runtime import make_estimator
from qtm._primitives.estimator_runner import shot_noise
from qtm._primitives.job_usage import Usage
from qtm.mitigation import MitigatedEstimator
from qtm.noise import local_pauli_noise, noisy_estimator

# ---------------------------------------------------------------- devices, shots, mitigation


@pytest.mark.parametrize("estimator", [StatevectorEstimator, AerEstimator])
def test_observables_follow_the_layout_of_the_pass_manager(estimator):
    found = step(module(estimator(), pass_manager=scattered()), samples())
    assert_close(found, step(module(gradient="reverse"), samples()), 1e-9)


def test_the_circuit_is_transpiled_once_for_all_calls_dtypes_and_copies():
    class Once:
        calls = 0

        def run(self, circuit):
            Once.calls += 1
            return scattered().run(circuit)

    model = module(StatevectorEstimator(), pass_manager=Once())
    for other in (model, copy.deepcopy(model), model.float()):
        step(other, samples(1).to(other.variational.dtype))
    model.set_num_threads_forward(1)
    model(samples(1).float())
    assert Once.calls == 1


def test_a_parameter_that_transpiling_removed_has_no_gradient():
    class WithoutRz(TransformationPass):
        def run(self, dag):
            dag.remove_all_ops_named("rz")
            return dag

    circuit, angles = QuantumCircuit(1), ParameterVector("angle", 11)
    circuit.rz(angles[3], 0)
    circuit.ry(angles[10], 0)
    model = QuantumModule(
        circuit, None, [angles[10], angles[3]], gradient="param-shift", estimator=StatevectorEstimator(),
        pass_manager=PassManager([WithoutRz()]), variational_params_initial=[0.4, 0.7],
    ).double()  # fmt: skip
    values, gradient, _ = step(model, None)
    torch.testing.assert_close(values, torch.tensor([np.cos(0.4)]))
    cotangent = np.random.default_rng(2).normal(size=1)
    torch.testing.assert_close(gradient, torch.tensor([-np.sin(0.4), 0.0]) * torch.from_numpy(cotangent))


# The runtime's executor fails on gates of which one angle is a parameter and another a number, such as Aer's u.
SIMULATOR = AerSimulator(basis_gates=["cx", "rz", "sx", "x"])


def runtime_estimator(kind: str) -> Any:
    options: dict[str, Any] = {"default_shots": 4096, "simulator": {"seed_simulator": 7}}
    if kind == "executor":
        options["resilience_level"] = 0
    return make_estimator(kind, SIMULATOR, options)


SHOTS = 4096
SAMPLING = {
    "aer": lambda: AerEstimator(options={"default_precision": 1 / 64, "run_options": {"seed_simulator": 1}}),
    "statevector": lambda: StatevectorEstimator(default_precision=1 / 64, seed=np.random.default_rng(1)),
    "backend": lambda: BackendEstimatorV2(
        backend=AerSimulator(), options={"default_precision": 1 / 64, "seed_simulator": 1}
    ),
    "noisy": lambda: noisy_estimator(local_pauli_noise(0.0), shots=SHOTS, seed=1),
    "mitigated": lambda: MitigatedEstimator(noisy_estimator(local_pauli_noise(0.0), shots=SHOTS, seed=1), "ddd"),
    "runtime v2": lambda: runtime_estimator("v2"),
    "runtime executor": lambda: runtime_estimator("executor"),
}


@pytest.mark.parametrize("name", SAMPLING)
@pytest.mark.filterwarnings("ignore:.*no effect in local testing mode")
@pytest.mark.thinned(12)
def test_estimators_with_shots_agree_within_their_noise(name):
    estimator = SAMPLING[name]()
    assert shot_noise(estimator) == pytest.approx(1 / 64)
    model = module(estimator, pass_manager=generate_preset_pass_manager(1, backend=SIMULATOR, seed_transpiler=1))
    exact = step(module(gradient="reverse"), samples(2))
    found = step(model, samples(2))
    # Gradients are sums of some 14 values with coefficients of at most 1/2, cotangents about 1.
    for one, other, deviations in zip(found, exact, (5, 15, 15), strict=True):
        assert (one - other).abs().max() < deviations / 64
    pubs = 4 if name == "mitigated" else 2  # mitigation counts: the circuit without it, and with it
    assert model.usage == Usage(2, pubs, model.usage.circuits, model.usage.circuits * SHOTS)


def test_error_mitigation_serves_gradients():
    noise, exact = local_pauli_noise(0.005), step(module(gradient="reverse"), samples())
    plain = step(module(noisy_estimator(noise)), samples())
    mitigated = step(module(MitigatedEstimator(noisy_estimator(noise), "cdr", seed=1)), samples())
    for one, two, other in zip(plain, mitigated, exact, strict=True):
        assert (two - other).abs().max() < 0.5 * (one - other).abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["executor", "v2"])
@pytest.mark.filterwarnings("ignore:.*no effect in local testing mode")
def test_a_module_on_a_fake_device(kind):
    with hardware.connect("fake_manila", estimator=kind, shots=2048, seed_simulator=1, seed_transpiler=1) as device:
        model = module(device.estimator, pass_manager=device.pass_manager)
        preview = model.estimate_usage(samples(2))
        values, gradient, _ = step(model, samples(2))
        assert model.usage.executions == preview.executions == device.usage.executions
        assert model.usage.jobs == device.usage.jobs == 2
    exact = step(module(gradient="reverse"), samples(2))
    assert (values - exact[0]).abs().max() < 0.2
    assert torch.nn.functional.cosine_similarity(gradient, exact[1], dim=0) > 0.9


@pytest.mark.filterwarnings("ignore:.*no effect in local testing mode")
def test_a_device_splits_jobs_by_its_own_limits():
    settings = {"shots": 64, "seed_simulator": 1, "max_circuits_per_job": 60, "options": {"resilience_level": 0}}
    with hardware.connect(SIMULATOR, "job", **settings) as device:
        model = module(device.estimator, pass_manager=device.pass_manager)
        preview = model.estimate_usage(2)
        step(model, samples(2))
        assert device.usage.jobs == model.usage.jobs > 2
        # Inputs of a number of samples are taken not to need a gradient.
        assert preview.circuits == 2 * (1 + TERMS_OF_WEIGHTS) * 3


# ---------------------------------------------------------------- SPSA


@pytest.mark.parametrize("parametrised_by", ["inputs and weights", "weights"])
def test_spsa_averages_to_the_gradient(parametrised_by):
    inputs = samples(2) if parametrised_by == "inputs and weights" else samples(2).detach()

    def gradients(model):
        model(inputs).sum().backward()
        found = [model.variational.grad] + ([inputs.grad.clone().flatten()] if inputs.requires_grad else [])
        inputs.grad = None
        return torch.cat(found)

    repeats = 20_000
    exact = gradients(module(gradient="reverse"))
    found = gradients(module(gradient=("spsa", {"repeats": repeats, "seed": 4, "epsilon": 1e-3})))
    assert (found - exact).abs().max() < 5 * exact.norm() * np.sqrt(2 / repeats)


def test_spsa_repeats_itself_by_its_seed_and_by_torchs():
    def gradient(options, seed=None):
        if seed is not None:
            torch.manual_seed(seed)
        return step(module(gradient=("spsa", options)), samples())[1]

    assert torch.equal(gradient({"seed": 1}), gradient({"seed": 1}))
    assert not torch.equal(gradient({"seed": 1}), gradient({"seed": 2}))
    assert torch.equal(gradient({}, 1), gradient({}, 1))
    assert not torch.equal(gradient({}, 1), gradient({}, 2))


def test_spsa_draws_other_signs_at_every_step():
    estimator = Counting()
    model = module(estimator, ("spsa", {"seed": 1, "epsilon": 0.1}))
    signs = []
    for _ in range(2):
        step(model, samples(2))
        forward, backward = (
            job[0].parameter_values.as_array(job[0].circuit.parameters)[:, 0] for job in estimator.jobs[-2:]
        )
        signs.append(np.sign(backward.reshape(2, 2, -1) - forward[:, None]))
        model.variational.data += 0.1
    assert not np.array_equal(*signs)


def test_spsa_displaces_only_parameters_that_need_a_gradient_and_scales_with_shot_noise():
    def displacement(**options):
        estimator = Counting(default_precision=0.01, seed=1)
        model = module(estimator, ("spsa", {"seed": 1} | options))
        model(samples(1).detach()).sum().backward()
        rows = [job[0].parameter_values.as_array([*INPUTS, *WEIGHTS])[:, 0] for job in estimator.jobs]
        return np.abs(rows[1] - rows[0])

    np.testing.assert_allclose(displacement(epsilon=0.2), [[0, 0, 0.2, 0.2, 0.2, 0.2]] * 2)
    np.testing.assert_allclose(displacement()[0, 2:], 0.03 ** (1 / 3) / 2)
    np.testing.assert_allclose(displacement(precision=0.08)[0, 2:], 0.24 ** (1 / 3) / 2)


def test_spsa_trains_circuits_without_shift_rules():
    """Amplitudes are no gate angles: refused by parameter shift, no matter to SPSA."""
    features = pytest.importorskip("qiskit_machine_learning.circuit.library").raw_feature_vector(2)
    circuit = features.copy()
    circuit.ry(WEIGHTS[0], 0)
    settings = {"variational_params_initial": [0.3], "estimator": FastEstimator()}
    encoding, weights = list(features.parameters), WEIGHTS[:1]
    with pytest.raises(CircuitError, match="reverse-sweep"):
        QuantumModule(circuit, encoding, weights, gradient="param-shift", **settings)
    amplitudes = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    models = [
        QuantumModule(circuit, encoding, weights, gradient=gradient, **settings).double()
        for gradient in (("spsa", {"seed": 1, "repeats": 10_000}), "reverse")
    ]
    found, expected = (step(model, amplitudes) for model in models)
    torch.testing.assert_close(found[0], expected[0], atol=1e-12, rtol=0)
    assert_close(found[1:], expected[1:], 0.05)
