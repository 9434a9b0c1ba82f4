"""Options of a connection, fractional gates, recalibration, plans without sessions."""

from __future__ import annotations

import copy
import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from device_cases import ansatz, on_mock
from mock_runtime import MockBackend, MockService
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import RXGate, RZZGate
from qiskit.primitives import StatevectorEstimator
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.quantum_info import Operator, SparsePauliOp
from qiskit_ibm_runtime.utils.utils import is_valid_rzz_pub

from qtm import FastEstimator, QuantumModule, hardware
from qtm._errors import BudgetExceeded, CircuitError, ParameterError, QtmError
from qtm._gradients.estimator_methods import ParameterShiftMethod
from qtm._hardware.fractional import fold_rzz, folded_angles
from qtm._mitigation.zne import ZeroNoise
from qtm._primitives.estimator_runner import EstimatorRunner
from qtm._primitives.job_usage import Usage, measured_circuits
from qtm.mitigation import MITIGATION_METHODS, MitigatedEstimator

pytestmark = pytest.mark.filterwarnings("ignore:.*no effect in local testing mode")


# Fractional gates -----------------------------------------------------------------------------------


@pytest.mark.parametrize("angle", [*np.linspace(-13, 13, 53), *(np.pi / 2 * np.arange(-9, 10)), 1e-12, -1e-12, 1e6])
def test_a_folded_angle_is_the_same_gate(angle: float) -> None:
    z, x, rzz = (float(part) for part in folded_angles(np.array(angle)))
    assert z in (0, np.pi) and x in (0, np.pi) and 0 <= rzz <= np.pi / 2
    circuit = QuantumCircuit(2)
    circuit.rz(z, [0, 1])
    circuit.rx(x, 0)
    circuit.rzz(rzz, 0, 1)
    circuit.rx(x, 0)
    assert Operator(circuit).equiv(Operator(RZZGate(angle)), atol=1e-9)


def with_rzz() -> QuantumCircuit:
    angles = ParameterVector("a", 3)
    circuit = QuantumCircuit(3, global_phase=angles[1])
    circuit.rx(0.4, [0, 1, 2])
    circuit.rzz(angles[0], 0, 1)
    circuit.rzz(2 * angles[1] - angles[0], 2, 1)
    circuit.rx(angles[2], 1)
    circuit.rzz(-2.5, 0, 2)
    circuit.ry(angles[0], 0)
    return circuit


@pytest.mark.parametrize("shape", [(), (7,), (4, 1), (0,)])
def test_folding_keeps_values_and_shapes_and_satisfies_the_service(shape: tuple[int, ...]) -> None:
    observables = [SparsePauliOp("ZZI"), SparsePauliOp(["XIY", "IZZ"], [0.4, 1.0])]
    values = np.random.default_rng(3).uniform(-9, 9, (*shape, 3))
    pub = EstimatorPub.coerce((with_rzz(), observables if len(shape) != 1 else observables[0], values))
    folded = fold_rzz(pub)
    assert folded.shape == pub.shape
    if pub.size:
        assert is_valid_rzz_pub(pub) and is_valid_rzz_pub(folded) == ""
        found, expected = (StatevectorEstimator().run([p]).result()[0].data.evs for p in (folded, pub))
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_folded_angles_take_names_that_are_free() -> None:
    """A parameter of the caller may have the name that an angle would get."""
    taken = Parameter("rzz_0")
    circuit = QuantumCircuit(2)
    circuit.rzz(taken, 0, 1)
    circuit.rx(taken, 0)
    pub = EstimatorPub.coerce((circuit, "ZY", [[4.0], [-0.5]]))
    folded = fold_rzz(pub)
    assert is_valid_rzz_pub(folded) == ""
    found, expected = (StatevectorEstimator().run([p]).result()[0].data.evs for p in (folded, pub))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_angles_in_range_are_left_alone() -> None:
    circuit = QuantumCircuit(2)
    circuit.rzz(ParameterVector("a", 1)[0], 0, 1)
    pub = EstimatorPub.coerce((circuit, "ZZ", [[0.0], [0.3], [np.pi / 2]]))
    assert fold_rzz(pub) is pub


def test_parameter_shift_sends_only_angles_that_the_device_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[EstimatorPub] = []
    angles = ParameterVector("a", 2)
    circuit = QuantumCircuit(2)
    circuit.rx(0.7, [0, 1])
    circuit.rzz(angles[0], 0, 1)
    circuit.rx(angles[1], 0)
    with hardware.connect("aer", shots=20_000, seed_simulator=1, options={"resilience_level": 0}) as device:
        send = device.estimator._send
        monkeypatch.setattr(
            device.estimator, "_send", lambda pieces, entry: sent.extend(p.pub for p in pieces) or send(pieces, entry)
        )
        settings: dict[str, Any] = {"observables": ["ZZ", "YI"], "variational_params_initial": [0.2, 2.0]}
        model = QuantumModule(circuit, None, angles, estimator=device.estimator, gradient="auto", **settings)
        model().sum().backward()
    exact = QuantumModule(circuit, None, angles, gradient="auto", **settings)
    exact().sum().backward()
    assert sent and all(is_valid_rzz_pub(pub) == "" for pub in sent)
    torch.testing.assert_close(model.variational.grad, exact.variational.grad, atol=0.05, rtol=0)


def test_fractional_gates_are_requested_from_the_service_and_kept(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, asked = MockService(tmp_path / "service"), []
    find = service.backend
    monkeypatch.setattr(service, "backend", lambda name, **options: asked.append(options) or find(name))
    with pytest.raises(QtmError, match="ibm_mock has no fractional gates"):
        on_mock(service, use_fractional_gates=True)
    assert asked == [{"use_fractional_gates": True}]
    backend = find("ibm_mock")
    target = copy.deepcopy(backend.target)
    target.add_instruction(RZZGate(Parameter("t")), {(0, 1): None})
    target.add_instruction(RXGate(Parameter("t")), {(q,): None for q in range(5)})
    monkeypatch.setattr(MockBackend, "target", target)
    path = tmp_path / "run.journal"
    with hardware.connect("ibm_mock", service=service, use_fractional_gates=True, journal=path):
        pass
    with hardware.resume(path, service=service) as device:
        assert device.settings.use_fractional_gates
        assert "rzz" in device.backend.target.operation_names
    assert asked == [{"use_fractional_gates": True}] * 3


def test_an_angle_that_cannot_be_folded_is_named(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    service = MockService(tmp_path / "service")
    target = copy.deepcopy(service.backend("ibm_mock").target)
    target.add_instruction(RZZGate(Parameter("t")), {(0, 1): None})  # and no RX
    monkeypatch.setattr(MockBackend, "target", target)
    t = Parameter("t")
    circuit = QuantumCircuit(5)
    circuit.rzz(2 * t, 0, 1)
    with (
        on_mock(service) as device,
        pytest.raises(CircuitError, match=r"rzz\(2\*t\) on qubits \[0, 1\] has the angle -1 "),
    ):
        device.estimator.run([(circuit, "ZZIII", [[0.3], [-0.5]])])
    assert not service.submitted()


# Plans ----------------------------------------------------------------------------------------------


def refuse_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    import qiskit_ibm_runtime

    def refuse(**_: Any) -> None:
        raise RuntimeError('"code":1352,"message":"You are not authorized to run a session when using the open plan."')

    monkeypatch.setattr(qiskit_ibm_runtime, "Session", refuse)


def test_a_plan_without_sessions_gets_a_batch_and_a_warning(tmp_path: Any, monkeypatch: Any, caplog: Any) -> None:
    refuse_sessions(monkeypatch)
    with hardware.connect("fake_manila") as device, caplog.at_level(logging.WARNING, "qtm"):
        assert type(device._open_mode()).__name__ == "Batch"
    assert "plan has no sessions" in caplog.text
    with hardware.connect("fake_manila", "session") as device, pytest.raises(QtmError, match='mode="batch"'):
        device._open_mode()


def test_a_session_ends_with_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    import qiskit_ibm_runtime

    opened: list[dict[str, Any]] = []
    monkeypatch.setattr(qiskit_ibm_runtime, "Session", lambda **options: opened.append(options))
    hardware.connect("fake_manila", max_seconds=90.5)._open_mode()
    assert opened[0]["max_time"] == 91


@pytest.mark.slow
def test_the_remaining_time_of_the_plan_is_compared_before_the_first_job(tmp_path: Any) -> None:
    service = MockService(tmp_path / "service")
    circuit = ansatz()
    with on_mock(service) as device:
        isa = device.pass_manager.run(circuit)
        pub = (isa, "Z" * isa.num_qubits, np.ones(circuit.num_parameters))
        service.plan = {"usage_remaining_seconds": 1.0}
        with pytest.raises(BudgetExceeded, match=r"the account's plan has 1 s left, and this needs 1 job, .*spsa"):
            device.estimator.run([pub])
        assert not service.submitted()
        forecast = device.estimate_usage([pub])
        service.plan = {"usage_remaining_seconds": 10 * forecast.seconds + 1}
        device.check(forecast * 10)
        with pytest.raises(BudgetExceeded, match="11 jobs"):
            device.check(forecast * 11)
        service.faults["usage"] = [OSError("down")] * 9  # not to know is no reason to stop
        device.estimator.run([pub]).result()
        asked = service.asked.count("usage")
        device.estimator.run([pub]).result()
        assert service.asked.count("usage") == asked
    assert len(service.submitted()) == 2


@pytest.mark.slow
def test_a_job_ends_with_the_budget(tmp_path: Any) -> None:
    service = MockService(tmp_path / "service")
    circuit = ansatz()
    with on_mock(service, max_seconds=60.5) as device:
        isa = device.pass_manager.run(circuit)
        for value in (0.1, 0.2):
            device.estimator.run([(isa, "ZZIII", np.full(circuit.num_parameters, value))]).result()
        device.estimator.options.max_execution_time = 17
        device.estimator.run([(isa, "ZZIII", np.full(circuit.num_parameters, 0.3))]).result()
    assert [job["max_execution_time"] for job in service.submitted()] == [61, 57, 17]  # a job of the mock takes 3.5 s
    free = MockService(tmp_path / "free")
    with on_mock(free) as device:
        isa = device.pass_manager.run(circuit)
        device.estimator.run([(isa, "ZZIII", np.ones(circuit.num_parameters))]).result()
    assert free.submitted()[0]["max_execution_time"] is None


def test_the_wall_clock_of_a_session_counts(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import qiskit_ibm_runtime

    class Session(qiskit_ibm_runtime.Batch):
        def usage(self) -> float:
            return 44.0

        def close(self) -> None:
            pass

    service = MockService(tmp_path / "service")
    monkeypatch.setattr(Session, "session_id", "session-1")
    monkeypatch.setattr(qiskit_ibm_runtime, "Session", Session)
    circuit, path = ansatz(), tmp_path / "run.journal"
    with hardware.connect("ibm_mock", service=service, journal=path) as device:
        isa = device.pass_manager.run(circuit)
        monkeypatch.setattr(device.estimator, "_opened", True)
        device.estimator._runtime = SimpleNamespace(mode=Session(backend=device.backend), run=None)
        device.estimator.note_session()
        assert device.usage.seconds == 44.0
    with hardware.resume(path, service=service) as device:
        assert device.usage.seconds == 44.0 and isa is not None


@pytest.mark.slow
def test_a_full_queue_is_waited_for(tmp_path: Any, caplog: Any) -> None:
    service = MockService(tmp_path / "service")
    message = "You have reached the limit of 3 pending jobs. Please wait for a job to complete"
    service.faults["submit"] = [RuntimeError(message)] * 12  # more often than errors are tried again
    circuit = ansatz()
    with on_mock(service, retries=1, backoff=1e-4) as device, caplog.at_level(logging.WARNING, "qtm"):
        isa = device.pass_manager.run(circuit)
        device.estimator.run([(isa, "ZZIII", np.ones(circuit.num_parameters))]).result()
    assert len(service.submitted()) == 1
    assert "as many jobs are pending as the plan allows" in caplog.text


def test_a_dry_run_submits_nothing_and_counts(tmp_path: Any) -> None:
    service = MockService(tmp_path / "service")
    circuit = ansatz()

    def trained(**options: Any) -> tuple[Any, Any]:
        with on_mock(service, **options) as device:
            settings: dict[str, Any] = {"estimator": device.estimator, "pass_manager": device.pass_manager}
            model = QuantumModule(circuit, None, circuit.parameters, seed_init=0, gradient="auto", **settings)
            forecast = model.estimate_usage(1, steps=2)
            for _ in range(2):
                model().sum().backward()
            assert device.usage == forecast == model.usage
            return model, device

    model, device = trained(dry_run=True)
    assert not service.submitted() and device.usage.jobs == 4
    exact = QuantumModule(circuit, None, circuit.parameters, seed_init=0)
    exact().sum().backward()
    torch.testing.assert_close(model.variational.grad, 2 * exact.variational.grad, atol=1e-6, rtol=0)
    with pytest.raises(BudgetExceeded, match="max_executions"):
        trained(dry_run=True, max_executions=100)
    with pytest.raises(ParameterError, match="a dry run has no results to resume from"):
        hardware.connect("fake_manila", dry_run=True, journal=tmp_path / "dry.journal")
    assert not service.submitted() and not (tmp_path / "dry.journal").exists()


def test_an_unknown_option_names_the_known_ones() -> None:
    with pytest.raises(ParameterError, match="connect has no option shot; its options are estimator, shots, precision"):
        hardware.connect("fake_manila", shot=3)


def test_jobs_carry_the_tag_of_their_run(tmp_path: Any) -> None:
    service = MockService(tmp_path / "service")
    with on_mock(service) as device:
        isa = device.pass_manager.run(ansatz())
        device.estimator.run([(isa, "ZIIII", [0.1, 0.2, 0.3]), (isa, "IZIII", [0.1, 0.2, 0.3])])
        assert all(device.journal.run_tag in record["tags"] for record in service.submitted())
        ids = [record["id"] for record in service.submitted()]
        assert [job.job_id() for job in hardware.find(device.journal.run_id, service=service)] == ids
        assert hardware.find("another run", service=service) == []


def test_finding_a_device_is_tried_again(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    service = MockService(tmp_path / "service")
    find, faults = service.backend, [ConnectionError("reset"), ConnectionError("reset")]
    monkeypatch.setattr(service, "backend", lambda name: (_ for _ in ()).throw(faults.pop()) if faults else find(name))
    assert on_mock(service).backend.name == "ibm_mock" and not faults


# Recalibration and forecasts ------------------------------------------------------------------------


def test_recalibrating_reaches_modules_and_mitigation(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    with hardware.connect("fake_manila", seed_transpiler=1) as device:
        estimator = MitigatedEstimator(device.estimator, "rem", confusion={4: [[0.9, 0.1], [0.1, 0.9]]})
        estimator.method._learn(2, 0.9, -0.8)
        circuit = ansatz()
        z = QuantumModule(circuit, None, circuit.parameters, estimator=estimator, pass_manager=device.pass_manager,
                          gradient="param-shift")  # fmt: skip
        runner = z._method(torch.float32).evaluation
        assert isinstance(runner, EstimatorRunner)
        before = runner.circuit
        runner._refresh()
        assert runner.circuit is before
        device.recalibrate()
        with caplog.at_level(logging.INFO, "qtm"):
            runner.preview(1)
        assert runner.circuit is not before and "transpiled again" in caplog.text
        assert set(estimator.method._factors) == {4}


OPTIONS: dict[str, dict[str, Any]] = {"pec": {"noise": 0.05, "num_samples": 5}}


@pytest.mark.thinned(4)
@pytest.mark.parametrize("method", MITIGATION_METHODS)
@pytest.mark.parametrize("twice", [False, True])
def test_the_forecast_is_what_is_run(method: str, twice: bool) -> None:
    """Mitigation included, at the estimator and at the module; a forecast changes nothing."""

    class Counting(FastEstimator):
        asked = Usage()

        def run(self, pubs: Any, *, precision: Any = None) -> Any:
            pubs = [EstimatorPub.coerce(pub, precision) for pub in pubs]
            circuits = sum(map(measured_circuits, pubs))
            Counting.asked = Counting.asked + Usage(1, len(pubs), circuits, circuits)
            return super().run(pubs)

    Counting.asked = Usage()
    inner: Any = Counting()
    inner = MitigatedEstimator(inner, "rem") if twice else inner
    estimator = MitigatedEstimator(inner, method, **OPTIONS.get(method, {}))
    circuit = ansatz()
    pub = (circuit, ["ZZ", "XI"], np.ones((2, 1, 3)))
    forecast = estimator.estimate_usage([pub])
    assert forecast == estimator.estimate_usage([pub]) and Counting.asked == Usage()
    estimator.run([pub]).result()
    assert Counting.asked == forecast
    model = QuantumModule(
        circuit, None, circuit.parameters, observables=["ZZ", "XI"], estimator=estimator, gradient="auto"
    )
    before, forecast = Counting.asked, model.estimate_usage(1)
    model().sum().backward()
    assert model.usage == forecast and before + forecast == Counting.asked


# Extrapolation that fails ---------------------------------------------------------------------------


def test_a_fit_that_fails_is_linear_and_said(caplog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inference = pytest.importorskip("mitiq.zne.inference")

    fit = inference.ExpFactory.extrapolate

    def extrapolate(scales: Any, values: Any, **options: Any) -> Any:
        if values[0] < 0.5:
            raise inference.ExtrapolationError("The extrapolation fit failed to converge.")
        return fit(scales, values, **options)

    monkeypatch.setattr(inference.ExpFactory, "extrapolate", staticmethod(extrapolate))
    method = ZeroNoise((1, 2, 3), "exp", asymptote=0.0)
    evs = np.array([[0.9, 0.4], [0.8, 0.6], [0.75, 0.5]])
    with caplog.at_level(logging.WARNING, "qtm"):
        limits, errors = method._extrapolated([1, 2, 3], evs, np.full((3, 2), 0.01))
    assert np.isfinite(limits).all() and np.isfinite(errors).all()
    assert "'exp' cannot be fitted to [0.4, 0.6, 0.5]" in caplog.text and "linearly" in caplog.text
    linear, _ = ZeroNoise((1, 2, 3), "linear")._extrapolated([1, 2, 3], evs, np.zeros((3, 2)))
    assert limits[1] == pytest.approx(linear[1]) and limits[0] != pytest.approx(linear[0])


def test_auto_is_reverse_on_the_simulator_and_parameter_shift_elsewhere() -> None:
    circuit = ansatz()
    for estimator, exact in (
        (None, "AdjointMethod"),
        (FastEstimator(), "AdjointMethod"),
        (StatevectorEstimator(), "Par"),
    ):
        model = QuantumModule(circuit, None, circuit.parameters, estimator=estimator, gradient="auto")
        assert isinstance(model._method(torch.float32), ParameterShiftMethod) is not exact
