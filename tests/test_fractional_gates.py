"""Fractional gates on devices: RZZ angles in range, with mitigation, resume and recalibration, of both primitives."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mock_runtime
import numpy as np
import pytest
import torch
from device_cases import on_mock
from mock_runtime import MockBackend, MockService
from qiskit import ClassicalRegister, QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import RXGate, RZZGate
from qiskit.primitives import StatevectorEstimator, StatevectorSampler
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit_aer import AerSimulator
from qiskit_ibm_runtime.utils.utils import is_valid_rzz_pub
from test_mitigation_resume import OPTIONS, Killed

from qtm import MitigatedSampler, QuantumModule, SamplerQNN, hardware
from qtm._errors import CircuitError
from qtm._hardware import device_primitive
from qtm._primitives.job_usage import Usage
from qtm.mitigation import MitigatedEstimator

pytestmark = pytest.mark.filterwarnings("ignore:.*no effect in local testing mode")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_primitive, "SETTLE_SECONDS", 0.0)


def fractional() -> GenericBackendV2:
    """A noisy device with RX and RZZ."""
    return GenericBackendV2(2, ["rz", "sx", "x", "rx", "rzz", "cz"], coupling_map=[[0, 1], [1, 0]], seed=3)


def with_rzz() -> QuantumCircuit:
    angles = ParameterVector("a", 3)
    circuit = QuantumCircuit(2)
    circuit.rx(0.7, [0, 1])
    circuit.rzz(angles[0], 0, 1)
    circuit.rx(angles[1], 0)
    circuit.rzz(angles[2], 0, 1)
    return circuit


def train(
    folder: Path, primitive: str, method: str | None, kill_at: int = 0, recalibrate_at: int = 1
) -> tuple[np.ndarray, Usage, list[Any]]:
    """Weights after three steps on the device with fractional gates, and the PUBs sent.

    The process dies when it has sent job number ``kill_at``, and the device is recalibrated at a step.
    """
    journal, circuit, sent, left = folder / "run.journal", with_rzz(), [], [kill_at]
    settings: dict[str, Any] = {
        "shots": 256, "seed_simulator": 4, "seed_transpiler": 2, "use_fractional_gates": True,
        "options": {"resilience_level": 0},
    }  # fmt: skip
    if journal.exists():
        opened = hardware.resume(journal, fractional())
    else:
        opened = hardware.connect(fractional(), journal=journal, **settings)
    with opened as device:
        used: Any = getattr(device, primitive)
        send = used._send

        def counted(pieces: Any, entry: Any) -> Any:
            sent.extend(piece.pub for piece in pieces)
            job = send(pieces, entry)
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return job

        used._send = counted
        step_of = STEPS[primitive](device, circuit, method)
        weights = np.array([2.5, 0.4, -1.0])
        first = device.checkpoint.load()
        weights = device.checkpoint.values["weights"].numpy() if first else weights
        for step in range(first, 3):
            if step == recalibrate_at:
                device.recalibrate()
            weights = weights - 0.3 * step_of(weights)
            device.checkpoint.save(step + 1, weights=weights)
        return weights, device.usage, sent


def on_estimator(device: Any, circuit: QuantumCircuit, method: str | None) -> Callable[[np.ndarray], np.ndarray]:
    estimator = device.estimator
    if method is not None:
        seed = {} if method == "rem" else {"seed": 7}
        estimator = MitigatedEstimator(estimator, method, **OPTIONS[method], **seed)
    model = QuantumModule(
        circuit, None, circuit.parameters, observables=["ZZ", "YI"], estimator=estimator,
        pass_manager=device.pass_manager, gradient="auto",
    )  # fmt: skip

    def gradient(weights: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            model.variational.copy_(torch.tensor(weights))
        model.zero_grad()
        model().sum().backward()
        assert model.variational.grad is not None
        return model.variational.grad.double().numpy()

    return gradient


def on_sampler(device: Any, circuit: QuantumCircuit, method: str | None) -> Callable[[np.ndarray], np.ndarray]:
    sampler = device.sampler if method is None else MitigatedSampler(device.sampler, method)
    network = SamplerQNN(
        circuit=circuit, weight_params=circuit.parameters, sampler=sampler, pass_manager=device.pass_manager
    )
    return lambda weights: network.backward(None, weights)[1][0, 0] * network.forward(None, weights)[0, 0]


STEPS = {"estimator": on_estimator, "sampler": on_sampler}
SLOW = [
    ("estimator", None),
    ("estimator", "zne"),
    ("estimator", "pec"),
    ("estimator", "real-time-cdr"),
    ("sampler", None),
]
CASES = [("estimator", "rem"), ("sampler", "rem"), *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]


@pytest.mark.slow
@pytest.mark.parametrize(("primitive", "method"), CASES)
def test_fractional_gates_resume_with_mitigation_and_recalibration(
    primitive: str, method: str | None, tmp_path: Path
) -> None:
    """Killed before, at and after the recalibration: the same weights to the last bit, and the same usage."""
    whole = tmp_path / "whole"
    whole.mkdir()
    weights, used, sent = train(whole, primitive, method)
    assert sent and all(is_valid_rzz_pub(pub) == "" for pub in sent)
    assert any("rzz" in pub.circuit.count_ops() for pub in sent)
    jobs = used.jobs
    for number in (2, 3, jobs):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(Killed):
            train(folder, primitive, method, number)
        found, usage, _ = train(folder, primitive, method)
        np.testing.assert_array_equal(found, weights)
        assert usage == used


def note_sent(primitive: Any, sent: list[Any]) -> None:
    """Keep the PUBs that a primitive sends."""
    send = primitive._send

    def noted(pieces: Any, entry: Any) -> Any:
        sent.extend(piece.pub for piece in pieces)
        return send(pieces, entry)

    primitive._send = noted


@pytest.mark.slow
def test_a_sampler_takes_rzz_of_any_angle() -> None:
    """Folded angles give the same probabilities, also in two registers and with a parameter in the phase alone."""
    angles = ParameterVector("a", 3)
    circuit = QuantumCircuit(2, global_phase=angles[2])
    circuit.rx(0.4, [0, 1])
    circuit.rzz(angles[0], 0, 1)
    circuit.rx(angles[1], 1)
    first, second = ClassicalRegister(1, "first"), ClassicalRegister(1, "second")
    circuit.add_register(first, second)
    circuit.measure([1, 0], [first[0], second[0]])
    points = np.random.default_rng(2).uniform(-9, 9, (5, 3))
    sent: list[Any] = []
    with hardware.connect("aer", shots=4000, seed_simulator=1) as device:
        note_sent(device.sampler, sent)
        found = device.sampler.run([(circuit, points)]).result()[0]
    assert sent and all(is_valid_rzz_pub(pub) == "" for pub in sent)
    expected = StatevectorSampler(seed=3).run([(circuit, points)], shots=40_000).result()[0]
    for name in ("first", "second"):
        ones = [part.data[name].bitcount().mean(-1) for part in (found, expected)]
        np.testing.assert_allclose(*ones, atol=5 / np.sqrt(4000))


def test_a_sampler_names_the_angle_that_cannot_be_folded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = MockService(tmp_path / "service")
    target = copy.deepcopy(service.backend("ibm_mock").target)
    target.add_instruction(RZZGate(Parameter("t")), {(0, 1): None})  # and no RX
    monkeypatch.setattr(MockBackend, "target", target)
    t = Parameter("t")
    circuit = QuantumCircuit(5, 1)
    circuit.rzz(2 * t, 0, 1)
    circuit.measure(0, 0)
    message = r"rzz\(2\*t\) on qubits \[0, 1\] has the angle -1 "
    with on_mock(service) as device, pytest.raises(CircuitError, match=message):
        device.sampler.run([(circuit, [[0.3], [-0.5]])])
    assert not service.submitted()


def test_a_service_with_fractional_gates_gets_folded_pubs_of_both_primitives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the mock of the paid service accepted has only angles that the device takes."""
    service = MockService(tmp_path / "service")
    target = copy.deepcopy(service.backend("ibm_mock").target)
    target.add_instruction(RZZGate(Parameter("t")), {(0, 1): None, (1, 0): None})
    target.add_instruction(RXGate(Parameter("t")), {(q,): None for q in range(5)})
    monkeypatch.setattr(MockBackend, "target", target)
    compute = mock_runtime.run_quantum_program  # on the noise model of FakeManila, which knows no RX

    def run_quantum_program(**options: Any) -> Any:
        return compute(**(options | {"backend": AerSimulator()}))

    monkeypatch.setattr(mock_runtime, "run_quantum_program", run_quantum_program)
    circuit = with_rzz()
    sent: list[Any] = []
    with on_mock(service, use_fractional_gates=True) as device:
        note_sent(device.estimator, sent)
        note_sent(device.sampler, sent)
        settings: dict[str, Any] = {"pass_manager": device.pass_manager}
        model = QuantumModule(
            circuit, None, circuit.parameters, estimator=device.estimator, gradient="auto", **settings
        )
        network = SamplerQNN(circuit=circuit, weight_params=circuit.parameters, sampler=device.sampler, **settings)
        model().sum().backward()
        network.backward(None, [2.5, 0.4, -1.0])
    assert len(service.submitted()) == 3 == len(sent)
    assert all("rzz" in pub.circuit.count_ops() and is_valid_rzz_pub(pub) == "" for pub in sent)


@pytest.mark.slow
@pytest.mark.parametrize("gate", ["rzz", "cp", "rxx"])
def test_any_number_of_trainings_with_parametrized_gates_runs_in_one_process(gate: str) -> None:
    """The executor kept every box of every circuit, and refused the fourteenth with parameters of the same names."""
    for number in range(20):
        angles = ParameterVector("many", 12)  # elements 10 and 11 are after 9, not after 1
        circuit = QuantumCircuit(2)
        circuit.rx(0.7, [0, 1])
        for angle in angles:
            getattr(circuit, gate)(angle / 12, 0, 1)
            circuit.rx(angle, 0)
        points = np.linspace(0.1, 1.2, 12) + number / 100
        with hardware.connect("aer", shots=2000, seed_simulator=1, options={"resilience_level": 0}) as device:
            found = device.estimator.run([(circuit, ["ZZ", "YX"], points)]).result()[0].data.evs
        if number == 0:
            expected = StatevectorEstimator().run([(circuit, ["ZZ", "YX"], points)]).result()[0].data.evs
            np.testing.assert_allclose(found, expected, atol=5 / np.sqrt(2000))
