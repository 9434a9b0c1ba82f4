"""Features together: encodings, estimators, error mitigation and gradients, on devices too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from device_cases import UNMITIGATED
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import (
    efficient_su2,
    pauli_feature_map,
    real_amplitudes,
    z_feature_map,
    zz_feature_map,
)
from qiskit.primitives import StatevectorEstimator
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_aer.primitives import EstimatorV2 as AerEstimator

from qtm import QuantumModule, hardware
from qtm._circuit.shift_template import template
from qtm.circuits import (
    ModelCircuit,
    hardware_efficient_circuit,
    incremental_uploading_circuit,
    policy_circuit,
    reuploading_circuit,
)
from qtm.mitigation import MITIGATION_METHODS, MitigatedEstimator
from qtm.noise import noisy_estimator

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*no effect in local testing mode"),
    pytest.mark.filterwarnings("ignore:.*has no QubitProperties"),
]

Parts = tuple[QuantumCircuit, list[Parameter], list[Parameter]]  # circuit, encoding, variational


def with_ansatz(features: QuantumCircuit) -> Parts:
    ansatz = real_amplitudes(features.num_qubits, reps=1)
    return features.compose(ansatz), list(features.parameters), list(ansatz.parameters)


def with_phase() -> Parts:
    """A parameter that only the global phase holds, one that a phase shares with a gate."""
    x, w, idle = Parameter("x"), ParameterVector("w", 2), Parameter("idle")
    circuit = QuantumCircuit(2, global_phase=idle + w[0])
    circuit.ry(x, 0)
    circuit.cx(0, 1)
    circuit.rx(w[0], 0)
    circuit.rz(w[1], 1)
    circuit.ry(0.3, 1)
    return circuit, [x], [*w, idle]


def su2() -> Parts:
    ansatz = efficient_su2(2, reps=1)
    return ansatz, list(ansatz.parameters[:2]), list(ansatz.parameters[2:])


def ours(model: ModelCircuit) -> Parts:
    return model.circuit, list(model.encoding_params), model.trainable_params


ENCODINGS: dict[str, Callable[[], Parts]] = {
    "z_feature_map": lambda: with_ansatz(z_feature_map(2)),
    "zz_feature_map": lambda: with_ansatz(zz_feature_map(2, reps=1)),
    "pauli_feature_map": lambda: with_ansatz(pauli_feature_map(2, reps=1, paulis=["Z", "XY"])),
    "efficient_su2": su2,
    "reuploading": lambda: ours(reuploading_circuit(2, 1)),
    "policy": lambda: ours(policy_circuit(2, 1)),
    "incremental": lambda: ours(incremental_uploading_circuit(2, 2, 3)),
    "hardware efficient": lambda: ours(hardware_efficient_circuit(2, 1)),
    "global phase": with_phase,
}
each_encoding = pytest.mark.parametrize("encoding", ENCODINGS)
GRADIENTS: dict[str, Any] = {"param-shift": "param-shift", "spsa": ("spsa", {"seed": 1, "epsilon": 0.3})}
each_gradient = pytest.mark.parametrize("gradient", GRADIENTS)


def module(encoding: str, gradient: str = "param-shift", **settings: Any) -> QuantumModule:
    circuit, inputs, weights = ENCODINGS[encoding]()
    return QuantumModule(circuit, inputs, weights, seed_init=3, gradient=GRADIENTS[gradient], **settings)


def step(model: QuantumModule, samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Values (samples, observables) and the gradient (weights,) of their sum, at fixed inputs."""
    inputs = torch.linspace(0.2, 1.1, samples * model.input_size).reshape(samples, model.input_size)
    model.zero_grad()
    values = model(inputs if model.input_size else None)
    values.sum().backward()
    return values.detach().numpy().reshape(-1, model.output_size), model.variational.grad.numpy()


def line_of_three(noisy: bool) -> GenericBackendV2:
    line = [[0, 1], [1, 0], [1, 2], [2, 1]]
    return GenericBackendV2(3, ["sx", "rz", "cx", "x", "id"], coupling_map=line, noise_info=noisy, seed=1)


def device(**settings: Any) -> hardware.Connection:
    options = {"shots": 32, "options": UNMITIGATED, "seed_transpiler": 1, "seed_simulator": 2}
    return hardware.connect(**({"backend": "fake_manila"} | options | settings))


# A run transpiles a circuit once -------------------------------------------------------------------


def bound_values(isa: QuantumCircuit, by_name: dict[str, float]) -> np.ndarray:
    """Z of every qubit, sorted: a layout moves them."""
    values = np.array([by_name[p.name] for p in isa.parameters])
    labels = ["IIIIZ", "IIIZI", "IIZII", "IZIII", "ZIIII"]
    return np.sort(StatevectorEstimator().run([(isa, labels, values)]).result()[0].data.evs)


@each_encoding
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.thinned(5)
def test_a_circuit_from_the_journal_binds_the_parameters_of_the_caller(
    encoding: str, split: bool, tmp_path: Any
) -> None:
    """Whatever the order and the number of parameters in gates and in the global phase."""

    def asked() -> QuantumCircuit:
        circuit = ENCODINGS[encoding]()[0]
        return template(circuit).circuit if split else circuit

    first, second, later = asked(), asked(), asked()
    with device(journal=tmp_path / "run.journal") as connection:
        found = [(first, connection.pass_manager.run(first)), (second, connection.pass_manager.run(second))]
    with hardware.resume(tmp_path / "run.journal") as connection:
        found.append((later, connection.pass_manager.run(later)))
    rng = np.random.default_rng(1)
    by_name = {parameter.name: float(rng.uniform(-3, 3)) for parameter in first.parameters}
    padded = QuantumCircuit(5).compose(first, range(first.num_qubits))
    expected = bound_values(padded, by_name)
    for circuit, isa in found:
        assert set(isa.parameters) <= set(circuit.parameters)
        np.testing.assert_allclose(bound_values(isa, by_name), expected, atol=1e-10)


@each_encoding
@each_gradient
@pytest.mark.slow
def test_a_second_module_and_a_resumed_run_train(encoding: str, gradient: str, tmp_path: Any) -> None:
    def trained(connection: hardware.Connection) -> tuple[np.ndarray, np.ndarray]:
        settings = {"estimator": connection.estimator, "pass_manager": connection.pass_manager}
        return step(module(encoding, gradient, **settings))

    backend = line_of_three(noisy=False)
    with device(backend=backend, journal=tmp_path / "run.journal") as connection:
        first, second = trained(connection), trained(connection)
    with hardware.resume(tmp_path / "run.journal", backend) as connection:
        for values, slopes in (first, second):  # answered from the journal, to the last bit
            again = trained(connection)
            np.testing.assert_array_equal(again[0], values)
            np.testing.assert_array_equal(again[1], slopes)
        assert connection.usage.jobs == 4


# Everything with everything -------------------------------------------------------------------------

MITIGATIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "zne": {"scale_factors": (1, 3), "factory": "linear"},
    "lre": {"degree": 1, "num_chunks": 2},
    "cdr": {"num_training_circuits": 4, "fraction_non_clifford": 0.4, "seed": 1},
    "real-time-cdr": {"n_training_samples": 6, "seed": 1},
    "pec": {"noise": 1e-4, "num_samples": 4, "seed": 1},
    "rem": {},
    "ddd": {"keep_raw": False},
}
CIRCUITS = ("z_feature_map", "zz_feature_map", "efficient_su2", "global phase")


def on_device(backend: GenericBackendV2) -> tuple[Any, Any]:
    connection = device(backend=backend, shots=4096)
    return connection.estimator, connection.pass_manager


def passes(backend: GenericBackendV2) -> Any:
    return generate_preset_pass_manager(1, backend=backend, seed_transpiler=1)


# Estimator and pass manager; how far from exact values may be, and derivatives by parameter shift and SPSA.
ESTIMATORS: dict[str, tuple[Callable[[], tuple[Any, Any]], float, float, float]] = {
    "statevector": (lambda: (StatevectorEstimator(), None), 2e-5, 2e-5, 2e-5),
    "aer": (lambda: (AerEstimator(), passes(line_of_three(False))), 2e-5, 2e-5, 2e-5),
    "noisy": (lambda: (noisy_estimator(line_of_three(True), seed=1), passes(line_of_three(True))), 0.1, 0.1, 0.2),
    "device": (lambda: on_device(line_of_three(False)), 0.2, 0.3, 1.5),
}
# Its channel is a guess here, which changes ideal values too.
PEC = 5e-3


def mitigated(estimator: Any, method: str) -> Any:
    return estimator if method == "none" else MitigatedEstimator(estimator, method, **MITIGATIONS[method])


def test_every_mitigation_is_combined() -> None:
    assert {*MITIGATIONS} == {"none", *MITIGATION_METHODS}


@pytest.mark.parametrize("circuit", CIRCUITS)
@pytest.mark.parametrize("method", MITIGATIONS)
@each_gradient
@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.thinned(37)
def test_every_combination_takes_a_step(name: str, gradient: str, method: str, circuit: str) -> None:
    make, *tolerances = ESTIMATORS[name]
    estimator, pass_manager = make()
    model = module(circuit, gradient, estimator=mitigated(estimator, method), pass_manager=pass_manager)
    reference = module(circuit, gradient, estimator=StatevectorEstimator())
    (values, slopes), (exact_values, exact_slopes) = step(model), step(reference)
    slack = PEC if method == "pec" else 0.0
    np.testing.assert_allclose(values, exact_values, atol=tolerances[0] + slack)
    allowed = tolerances[1] + slack if gradient == "param-shift" else tolerances[2] + 3 * slack
    np.testing.assert_allclose(slopes, exact_slopes, atol=allowed)
