"""Noise as an option: Aer's models and backends on the density-matrix engine, against Aer's density matrix."""

from __future__ import annotations

import pickle
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from circuit_cases import differences
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import CPhaseGate, XGate
from qiskit.quantum_info import PTM, Kraus, Operator, Pauli, SuperOp, random_unitary
from qiskit.transpiler import generate_preset_pass_manager

import qtm
from qtm._circuit.channels import Channel, pauli_transfer_matrix
from qtm._circuit.flatten import flatten
from qtm._noise.aer_model import read_noise
from qtm._noise.transfer_matrix import from_qiskit_order, operations
from qtm.noise import depolarizing_noise, local_pauli_noise

aer_noise = pytest.importorskip("qiskit_aer.noise")
AerSimulator = pytest.importorskip("qiskit_aer").AerSimulator
fake = pytest.importorskip("qiskit_ibm_runtime.fake_provider")


def ansatz(num_qubits: int, layers: int = 2) -> QuantumCircuit:
    theta = ParameterVector("θ", 2 * num_qubits * layers)
    circuit, angles = QuantumCircuit(num_qubits), iter(theta)
    for _ in range(layers):
        for q in range(num_qubits):
            circuit.ry(next(angles), q)
            circuit.rz(next(angles), q)
        for q in range(num_qubits - 1):
            circuit.cx(q, q + 1)
    return circuit


def values_of(circuit: QuantumCircuit, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-3, 3, circuit.num_parameters)


def aer_values(circuit: QuantumCircuit, values: np.ndarray, model: object, labels: list[str]) -> list[float]:
    """Expectation values of Aer's density matrix, free of readout errors."""
    bound = circuit.assign_parameters(values)
    bound.save_density_matrix()
    simulator = AerSimulator(method="density_matrix", noise_model=model)
    state = simulator.run(bound).result().data()["density_matrix"]
    return [state.expectation_value(Pauli(label)).real for label in labels]


def module(circuit: QuantumCircuit, noise: object, labels: list[str], **options: object) -> qtm.QuantumModule:
    net = qtm.QuantumModule(
        circuit, None, list(circuit.parameters), observables=labels, noise=noise, **options
    ).double()
    with torch.no_grad():
        net.variational.copy_(torch.tensor(values_of(circuit)))
    return net


MODELS = {
    "pauli": lambda: local_pauli_noise({"X": 0.01, "Y": 0.002, "Z": 0.02}),
    "depolarizing": lambda: depolarizing_noise(0.01, 0.03),
    "relaxation": lambda: _on_all(aer_noise.thermal_relaxation_error(50, 70, 2, 0.1)),
    "kraus": lambda: _on_all(aer_noise.kraus_error(_random_kraus())),
    "coherent": lambda: _on_all(aer_noise.coherent_unitary_error(random_unitary(2, seed=1))),
    "local": lambda: _local(),
}


def _random_kraus() -> list[np.ndarray]:
    isometry = random_unitary(8, seed=5).data[:, :2]
    return [isometry[2 * j : 2 * j + 2] for j in range(4)]


def _on_all(error: object) -> object:
    model = aer_noise.NoiseModel()
    model.add_all_qubit_quantum_error(error, ["ry", "rz"])
    model.add_all_qubit_quantum_error(error.tensor(error), ["cx"])
    return model


def _local() -> object:
    model = _on_all(aer_noise.depolarizing_error(0.01, 1))
    model.add_quantum_error(aer_noise.pauli_error([("X", 0.1), ("I", 0.9)]), ["ry"], [1])
    coherent = aer_noise.coherent_unitary_error(random_unitary(4, seed=2))
    model.add_quantum_error(coherent, ["cx"], [1, 2])
    return model


@pytest.mark.parametrize("name", MODELS)
def test_a_model_gives_the_values_of_aer(name: str) -> None:
    circuit, model, labels = ansatz(3), MODELS[name](), ["ZIX", "YYY", "IIZ"]
    found = module(circuit, model, labels)().detach().numpy()
    np.testing.assert_allclose(found, aer_values(circuit, values_of(circuit), model, labels), atol=1e-9)


def test_derivatives_under_noise() -> None:
    circuit = ansatz(3)
    net = module(circuit, MODELS["relaxation"](), ["ZIX", "YYY"])
    (net() @ torch.tensor([1.0, -2.0], dtype=torch.float64)).backward()
    weights = net.variational

    def loss(rows: np.ndarray) -> np.ndarray:
        found = []
        for row in rows:
            with torch.no_grad():
                weights.copy_(torch.tensor(row))
                found.append(net().numpy() @ [1.0, -2.0])
        return np.array(found)[:, None]

    slopes = differences(loss, weights.detach().numpy()[None].copy())
    np.testing.assert_allclose(weights.grad, slopes[0, 0], atol=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_any_channel_of_one_qubit(seed: int) -> None:
    isometry = random_unitary(8, seed=seed).data[:, :2]
    channel = SuperOp(Kraus([isometry[2 * j : 2 * j + 2] for j in range(4)]))
    _assert_found(channel)
    _assert_found(channel.tensor(SuperOp(Kraus([np.eye(2)]))))


def _assert_found(channel: SuperOp) -> None:
    wanted = from_qiskit_order(PTM(channel).data)
    found = operations(wanted)
    assert found is not None
    total = np.eye(len(wanted))
    width = channel.num_qubits
    for operation in found:
        total = _on_all_qubits(operation, width) @ total
    np.testing.assert_allclose(total, wanted, atol=1e-10)


def _on_all_qubits(operation: object, width: int) -> np.ndarray:
    if isinstance(operation, Channel):
        own = pauli_transfer_matrix(operation.name, operation.strengths)
    else:
        gate = QuantumCircuit(1)
        getattr(gate, f"r{operation.pauli.lower()}")(operation.offset, 0)
        own = from_qiskit_order(PTM(Operator(gate)).data)
    if len(own) == 4**width:
        return own
    return np.kron(np.eye(4), own) if operation.qubits == (0,) else np.kron(own, np.eye(4))


BACKENDS = ("FakeManilaV2", "FakeBelemV2", "FakeQuitoV2", "FakeLimaV2", "FakeLagosV2")


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.thinned(6)
def test_a_backend_gives_the_values_of_aer(name: str) -> None:
    backend = getattr(fake, name)()
    circuit, labels = ansatz(3, 1), ["ZIX", "YYY", "IIZ"]
    passes = generate_preset_pass_manager(optimization_level=1, backend=backend, seed_transpiler=1)
    net = module(circuit, backend, labels, pass_manager=passes)
    model = aer_noise.NoiseModel.from_backend(backend)
    isa = passes.run(circuit)
    moved = [Pauli(label).apply_layout(isa.layout) for label in labels]
    state = _aer_state(isa, values_of(circuit), model)
    readout = read_noise(backend).readout_of(backend.num_qubits)
    wanted = [_as_read(state, label, readout) for label in moved]
    np.testing.assert_allclose(net().detach().numpy(), wanted, atol=1e-7)


def _aer_state(circuit: QuantumCircuit, values: np.ndarray, model: object) -> object:
    bound = circuit.assign_parameters(values)
    bound.save_density_matrix()
    return AerSimulator(method="density_matrix", noise_model=model).run(bound).result().data()["density_matrix"]


def _as_read(state: object, label: Pauli, readout: tuple) -> float:
    """A product of (a P + b) over the measured qubits, term by term."""
    qubits = [q for q in range(label.num_qubits) if label.x[q] or label.z[q]]
    total = 0.0
    for kept in range(1 << len(qubits)):
        string, weight = label.copy(), 1.0
        for j, q in enumerate(qubits):
            flip_0, flip_1 = readout[q]
            if kept >> j & 1:
                weight *= 1 - flip_0 - flip_1
            else:
                weight *= flip_1 - flip_0
                string[q] = Pauli("I")
        total += weight * state.expectation_value(string).real
    return total


def test_every_user_of_noise_gives_the_same_values() -> None:
    circuit = ansatz(2)
    model = depolarizing_noise(0.01, 0.03)
    model.add_all_qubit_readout_error([[0.98, 0.02], [0.05, 0.95]])
    values = values_of(circuit)
    exact = qtm.noisy_estimator(model).run([(circuit, ["ZZ", "XI"], values)]).result()[0].data.evs
    np.testing.assert_allclose(module(circuit, model, ["ZZ", "XI"])().detach(), exact, atol=1e-9)
    estimator = qtm.FastEstimator(noise=model)
    np.testing.assert_allclose(estimator.run([(circuit, ["ZZ", "XI"], values)]).result()[0].data.evs, exact, atol=1e-9)
    through = module(circuit, None, ["ZZ", "XI"], estimator=estimator)
    np.testing.assert_allclose(through().detach(), exact, atol=1e-9)
    network = qtm.EstimatorQNN(circuit=circuit, weight_params=circuit.parameters, observables=["ZZ", "XI"], noise=model)
    np.testing.assert_allclose(network.forward(None, values)[0], exact, atol=1e-6)
    measured = circuit.copy()
    measured.measure_all()
    chances = qtm.FastSampler(noise=model).probabilities(measured, values)
    np.testing.assert_allclose(chances @ [1, -1, -1, 1], exact[0], atol=1e-9)
    sampler = qtm.SamplerQNN(circuit=measured, weight_params=circuit.parameters, noise=model)
    np.testing.assert_allclose(sampler.forward(None, values)[0], chances, atol=1e-6)


def test_gates_outside_the_model_are_translated_and_not_run_free_of_noise() -> None:
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.rxx(0.4, 0, 1)
    model = aer_noise.NoiseModel(basis_gates=["rz", "sx", "cx"])
    model.add_all_qubit_quantum_error(aer_noise.depolarizing_error(0.02, 1), ["sx"])
    model.add_all_qubit_quantum_error(aer_noise.depolarizing_error(0.05, 2), ["cx"])
    native = transpile(circuit, basis_gates=sorted(model.basis_gates), optimization_level=0)
    found = qtm.FastEstimator(noise=model).run([(circuit, ["ZZ"])]).result()[0].data.evs
    np.testing.assert_allclose(found, aer_values(native, np.zeros(0), model, ["ZZ"]), atol=1e-9)
    assert sum(isinstance(o, Channel) for o in flatten(native, read_noise(model)).operations) > 3


def test_a_pickled_module_keeps_its_noise() -> None:
    circuit = ansatz(2)
    net = module(circuit, local_pauli_noise(0.02), ["ZZ"])
    torch.testing.assert_close(pickle.loads(pickle.dumps(net))(), net())


def test_delays_relax() -> None:
    backend = fake.FakeManilaV2()
    circuit = QuantumCircuit(1)
    circuit.x(0)
    circuit.delay(40_000, 0)
    model = aer_noise.NoiseModel.from_backend(backend)
    found = qtm.FastEstimator(noise=model).run([(circuit, ["Z"])]).result()[0].data.evs
    flip_0, flip_1 = read_noise(model).readout_of(1)[0]
    wanted = aer_values(circuit, np.zeros(0), model, ["Z"])[0] * (1 - flip_0 - flip_1) + flip_1 - flip_0
    np.testing.assert_allclose(found, [wanted], atol=1e-9)


def test_unsupported_requests_are_refused_by_name() -> None:
    circuit = ansatz(2, 1)
    with pytest.raises(qtm.ParameterError, match="expected an Aer NoiseModel"):
        module(circuit, "depolarizing", ["ZZ"])
    with pytest.raises(qtm.ParameterError, match="noise of its own"):
        module(circuit, local_pauli_noise(0.1), ["ZZ"], estimator=qtm.FastEstimator())
    with pytest.raises(qtm.ParameterError, match="exact"):
        module(circuit, local_pauli_noise(0.1), ["ZZ"], gradient="param-shift")
    with pytest.raises(qtm.UnsupportedError, match="simulates no noise"):
        module(circuit, local_pauli_noise(0.1), ["ZZ"], method="statevector")
    with pytest.raises(qtm.CircuitError, match="transpile first"):
        module(circuit, fake.FakeManilaV2(), ["ZZ"])
    odd = aer_noise.kraus_error([np.diag([1, 1, 1, 0.6]), np.diag([0, 0, 0, 0.8])])
    model = aer_noise.NoiseModel()
    model.add_all_qubit_quantum_error(odd, ["cx"])
    with pytest.raises(qtm.CircuitError, match="'cx'.*noisy_estimator"):
        module(circuit, model, ["ZZ"])
    with pytest.raises(qtm.ParameterError, match="leave one"):
        qtm.EstimatorQNN(circuit=circuit, weight_params=circuit.parameters, estimator=qtm.FastEstimator(), noise=model)


def test_errors_of_labels_are_not_left_out() -> None:
    model = aer_noise.NoiseModel(basis_gates=["x", "noisy"])
    model.add_all_qubit_quantum_error(aer_noise.depolarizing_error(0.1, 1), "noisy")
    circuit = QuantumCircuit(1)
    circuit.append(XGate(label="noisy"), [0])
    with pytest.raises(qtm.CircuitError, match="label 'noisy'"):
        qtm.FastEstimator(noise=model).run([(circuit, "Z")]).result()


class Elsewhere(ThreadPoolExecutor):
    """Pickles its tasks, as a pool of processes does."""

    def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        function, arguments = pickle.loads(pickle.dumps((function, arguments)))
        return super().submit(function, *arguments, **options)


def test_noise_on_an_executor() -> None:
    circuit = ansatz(2, 2)
    inputs, weights = list(circuit.parameters)[:4], list(circuit.parameters)[4:]
    rows = torch.tensor(np.random.default_rng(0).normal(size=(5, 4)))
    found = []
    with Elsewhere(2) as pool:
        for executor in (None, pool):
            net = qtm.QuantumModule(
                circuit, inputs, weights, seed_init=0, noise=local_pauli_noise(0.02), executor=executor
            ).double()
            given = rows.clone().requires_grad_()
            values = net(given)
            values.square().sum().backward()
            found.append((values.detach(), given.grad, net.variational.grad))
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(there, here, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "gate",
    [CPhaseGate(0.4, label="noisy"), CPhaseGate(0.4, ctrl_state=0), XGate(label="noisy").control(1, ctrl_state=0)],
    ids=["label", "open control", "label of an open control"],
)
def test_errors_that_aer_finds_by_another_name_are_refused(gate):
    """A label, or the name without the state of the controls: never simulated without the error."""
    model = aer_noise.NoiseModel(basis_gates=["cp", "cx", "x", "rx", "ry", "rz"])
    name = "noisy" if gate.label else "cp"
    if gate.name.startswith("cx"):
        name = "cx"
    model.add_all_qubit_quantum_error(aer_noise.depolarizing_error(0.1, 2), name)
    circuit = QuantumCircuit(2)
    circuit.ry(Parameter("a"), 0)
    circuit.append(gate, [0, 1])
    with pytest.raises(qtm.CircuitError, match="the noise model has an error for"):
        module(circuit, model, ["ZZ"])
