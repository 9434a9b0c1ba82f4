"""What a run on a device combines: mitigation, fractional gates, resume, recalibration, sessions, dry runs, watches."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mock_runtime
import numpy as np
import pytest
import torch
from device_cases import ansatz, on_mock
from mock_runtime import MockBackend, MockService
from qiskit import ClassicalRegister, QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import RXGate, RZZGate, real_amplitudes, z_feature_map
from qiskit.primitives import StatevectorEstimator, StatevectorSampler
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit_aer import AerSimulator
from qiskit_ibm_runtime.utils.utils import is_valid_rzz_pub
from test_mitigation_resume import OPTIONS, STACKS, Killed, mitigated

from qtm import MitigatedSampler, QuantumModule, SamplerQNN, hardware
from qtm._errors import BudgetExceeded, CircuitError
from qtm._hardware import device_primitive
from qtm._primitives.job_usage import Usage
from qtm.mitigation import MITIGATION_METHODS, MitigatedEstimator

pytestmark = pytest.mark.filterwarnings("ignore:.*no effect in local testing mode")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_primitive, "SETTLE_SECONDS", 0.0)


# Fractional gates x mitigation x resume x recalibration -----------------------------------------------


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
CASES = [("estimator", method) for method in (None, "rem", "zne", "pec", "real-time-cdr")] + [
    ("sampler", None), ("sampler", "rem")]  # fmt: skip


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


# Forecasts of a training ------------------------------------------------------------------------------


def rounded(usage: Usage) -> Usage:
    """Sums of seconds depend on their order in the last bit."""
    return replace(usage, seconds=round(usage.seconds, 9))


@pytest.mark.parametrize("stack", STACKS, ids="+".join)
@pytest.mark.parametrize("dry", [False, True])
def test_the_forecast_of_a_training_is_what_it_uses(stack: tuple[str, ...], dry: bool) -> None:
    """Three steps with every mitigation, from the first: calibrations once, random circuits in order."""
    circuit = ansatz()
    tried = {"real-time-cdr": {"n_training_samples": 4, "min_iterations": 20, "threshold": 1e9}}
    with hardware.connect("fake_manila", shots=64, seed_simulator=1, seed_transpiler=1, dry_run=dry) as device:
        estimator: Any = device.estimator
        for name in stack:
            estimator = MitigatedEstimator(estimator, name, **tried.get(name, OPTIONS[name]))
        model = QuantumModule(
            circuit, None, circuit.parameters, estimator=estimator, pass_manager=device.pass_manager, gradient="auto"
        )
        forecast = model.estimate_usage(1, steps=3)
        assert forecast == model.estimate_usage(1, steps=3) and device.usage == Usage()
        for _ in range(3):
            model().sum().backward()
        assert rounded(device.usage) == rounded(model.usage) == rounded(forecast)
        assert forecast.jobs >= 6 and forecast.executions > 6 * 64


def test_every_method_is_forecast() -> None:
    assert {name for stack in STACKS for name in stack} == MITIGATION_METHODS.keys()


def test_the_budget_of_a_forecast_is_enough_and_one_execution_less_is_not() -> None:
    """What `check` allows is what the run is allowed, mitigation and all."""
    circuit = ansatz()

    def trained(limit: int) -> int:
        with hardware.connect("fake_manila", shots=64, seed_simulator=1, max_executions=limit) as device:
            model = QuantumModule(
                circuit, None, circuit.parameters, estimator=mitigated(device.estimator, ("rem",)),
                pass_manager=device.pass_manager, gradient="auto",
            )  # fmt: skip
            forecast = model.estimate_usage(1, steps=2)
            device.check(forecast)
            for _ in range(2):
                model().sum().backward()
            return forecast.executions

    enough = trained(10**6)
    assert trained(enough) == enough
    with pytest.raises(BudgetExceeded, match=f"max_executions={enough - 1}"):
        trained(enough - 1)


# Sessions and budgets ---------------------------------------------------------------------------------


def test_the_wall_clock_of_a_session_ends_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session is billed while it waits: its seconds count before each submission, and after a resume."""
    import qiskit_ibm_runtime

    clock = [10.0]

    class Session(qiskit_ibm_runtime.Batch):  # type: ignore[misc]
        session_id = "session-1"

        def __init__(self, backend: Any = None, max_time: Any = None) -> None:
            super().__init__(backend=backend)

        def usage(self) -> float:
            return clock[0]

        def close(self) -> None:
            pass

    monkeypatch.setattr(qiskit_ibm_runtime, "Session", Session)
    service, journal = MockService(tmp_path / "service"), tmp_path / "run.journal"

    def run(device: hardware.Connection, angle: float) -> Any:
        isa = device.pass_manager.run(ansatz())
        return device.estimator.run([(isa, "Z" * isa.num_qubits, np.full(3, angle))]).result()

    with on_mock(service, mode="session", max_seconds=60, journal=journal) as device:
        run(device, 0.1)
        clock[0] = 59.0
        with pytest.raises(BudgetExceeded, match=r"max_seconds=60 .*59.0 s"):
            run(device, 0.2)
        assert len(service.submitted()) == 1
    with hardware.resume(journal, service=service) as device:
        run(device, 0.1)
        with pytest.raises(BudgetExceeded, match=r"59.0 s"):
            run(device, 0.2)
    with hardware.resume(journal, service=service, max_seconds=100, mode="batch") as device:
        run(device, 0.1)
        run(device, 0.2)
    assert len(service.submitted()) == 2


def test_a_resumed_local_run_counts_a_lost_job_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget that holds exactly the run is enough for the run that was interrupted, too."""
    journal, circuit = tmp_path / "run.journal", ansatz()

    def run(device: hardware.Connection) -> Any:
        isa = device.pass_manager.run(circuit)
        job = device.estimator.run([(isa, "Z" * isa.num_qubits, np.ones(3))])
        if not device.journal.jobs()[0]["state"] == "done" and died:
            raise Killed
        return job.result()

    died = [True]
    with hardware.connect("fake_manila", shots=100, max_executions=100, journal=journal,
                          options={"resilience_level": 0}) as device, pytest.raises(Killed):  # fmt: skip
        run(device)
    died.clear()
    with hardware.resume(journal) as device:
        run(device)
        assert device.usage.jobs == 1 and device.usage.executions == 100


# Runs that are found again ----------------------------------------------------------------------------


def test_a_run_is_found_from_another_machine_after_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its id without the journal, by the path with it; jobs of the estimator and the sampler, and no others."""
    service, journal = MockService(tmp_path / "service"), tmp_path / "run.journal"
    circuit = ansatz()
    measured = ansatz()
    measured.measure_all()
    with on_mock(service) as other:  # another run of the account
        other.estimator.run([(other.pass_manager.run(circuit), "ZIIII", np.ones(3))]).result()
    send = service._run

    def run(*arguments: Any, **settings: Any) -> Any:
        send(*arguments, **settings)
        raise Killed

    with on_mock(service, journal=journal) as device:
        isa = device.pass_manager.run(circuit)
        device.sampler.run([(device.pass_manager.run(measured), np.ones(3))]).result()
        monkeypatch.setattr(service, "_run", run)
        with pytest.raises(Killed):
            device.estimator.run([(isa, "ZIIII", np.ones(3))])
        run_id = device.journal.run_id
    expected = [record["id"] for record in service.submitted()[1:]]
    for name in (run_id, journal, str(journal)):
        jobs = hardware.find(name, service=MockService(tmp_path / "service"))
        assert [job.job_id() for job in jobs] == expected


# Calibration watch x early stop x resume --------------------------------------------------------------


def test_a_watch_goes_on_after_a_resume_and_stops_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The baseline is that of the run's first step, not of the process; measurements come from the journal."""
    from test_calibration import Drifting

    journal = tmp_path / "run.journal"

    def run(steps: int, kill: bool) -> tuple[int, list[Any], Usage]:
        backend = Drifting()
        backend.worsen(0.02, 2e-4)
        settings: dict[str, Any] = {"seed_simulator": 3, "seed_transpiler": 1}
        if journal.exists():
            opened = hardware.resume(journal, backend)
        else:
            opened = hardware.connect(backend, journal=journal, **settings)
        with opened as device:
            watch = hardware.CalibrationWatch(
                device.backend, [0, 1], every=2, on_drift=hardware.stop,
                protocols=[hardware.ReadoutAssignment(2000)], sampler=device.sampler,
            )  # fmt: skip
            step = device.checkpoint.load(watch=watch)
            while step < steps and not watch.should_stop:
                if step == 4:
                    backend.worsen(0.15, 2e-4)
                watch(step, loss=1 / (1 + step))
                step += 1
                if kill and step == steps:
                    raise Killed
                device.checkpoint.save(step, watch=watch)
            return step, watch.record, device.usage

    with pytest.raises(Killed):
        run(3, kill=True)  # measured at steps 0 and 2; dies before the checkpoint of step 3
    step, record, usage = run(8, kill=False)
    assert step == 5  # stopped by what it measured at step 4
    assert usage.jobs == 3 and {row["step"] for row in record} == {0, 2, 4}
    found = {
        row["step"]: row["value"] for row in record if row["quantity"] == "assignment_error" and row["qubits"] == [0]
    }
    assert found[0] == pytest.approx(0.02, abs=0.012) and found[4] == pytest.approx(0.15, abs=0.03)


def test_a_drift_renews_maps_circuits_and_readout_of_everything_on_the_device(caplog: Any) -> None:
    """`on_drift` recalibrates: modules, networks and kernels transpile again, and mitigation measures again."""
    with hardware.connect("fake_manila", shots=128, seed_simulator=1, options={"resilience_level": 0}) as device:
        circuit = real_amplitudes(2, reps=1)
        estimator, sampler = MitigatedEstimator(device.estimator, "rem"), MitigatedSampler(device.sampler)
        shared: dict[str, Any] = {"pass_manager": device.pass_manager}
        model = QuantumModule(circuit, None, circuit.parameters, estimator=estimator, gradient="auto", **shared)
        network = SamplerQNN(circuit=circuit, weight_params=circuit.parameters, sampler=sampler, **shared)
        weights = [0.1, 0.2, 0.3, 0.4]

        def circuits() -> int:
            before = device.usage.circuits
            model()
            network.forward(None, weights)
            return device.usage.circuits - before

        first, usual = circuits(), circuits()
        caplog.set_level("INFO", "qtm")
        device.recalibrate()
        again = circuits()
        assert first == again > usual
        assert caplog.text.count("was transpiled again") == 2
        assert network.usage.jobs == 3  # what was used before the recalibration still counts


def test_a_model_and_its_features_resume_after_a_dry_run(tmp_path: Path) -> None:
    """The script of a dry run is the script of the run: same forecast, same usage."""
    features, trained = z_feature_map(2, reps=1), real_amplitudes(2, reps=1)
    used = []
    for dry in (True, False):
        with hardware.connect("fake_manila", shots=64, seed_simulator=1, seed_transpiler=1, dry_run=dry) as device:
            model = QuantumModule(
                features.compose(trained), features.parameters, trained.parameters, gradient="auto", seed_init=0,
                estimator=MitigatedEstimator(device.estimator, "zne", seed=1, fold="gates"),
                pass_manager=device.pass_manager,
            )  # fmt: skip
            forecast = model.estimate_usage(2, steps=2)
            for _ in range(2):
                model(torch.ones(2, 2)).sum().backward()
            assert device.usage.executions == forecast.executions
            used.append(device.usage)
    assert used[0] == used[1]


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
