"""Connections to devices: values, refusals, the account, the budget; the real runtime in local mode."""

from __future__ import annotations

import copy
import logging
import pickle

import numpy as np
import pytest
from device_cases import MANILA, POINTS, UNMITIGATED, ansatz, exact, on_mock, pub_for
from mock_runtime import MockService
from qiskit import QuantumCircuit
from qiskit.primitives import BaseEstimatorV2
from qiskit.quantum_info import SparsePauliOp
from qiskit_aer import AerSimulator

from qtm import hardware
from qtm._errors import BudgetExceeded, CircuitError, ParameterError, QtmError
from qtm._hardware import device_primitive as _jobs
from qtm._hardware.journal import Journal
from qtm._hardware.runtime import make_sampler
from qtm._primitives.job_usage import Usage

pytestmark = pytest.mark.filterwarnings("ignore:.*no effect in local testing mode")


@pytest.fixture
def service(tmp_path):
    return MockService(tmp_path / "service")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(_jobs, "SETTLE_SECONDS", 0.0)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("estimator", ["executor", "v2"])
@pytest.mark.parametrize("mode", ["session", "batch", "job"])
def test_values_on_a_simulator_agree_with_statevector(estimator, mode):
    settings = {"estimator": estimator, "shots": 4096, "seed_simulator": 3, "options": UNMITIGATED}
    with hardware.connect(AerSimulator(), mode, **settings) as device:
        assert isinstance(device.estimator, BaseEstimatorV2)
        data = device.estimator.run([pub_for(device, POINTS)]).result()[0].data
        assert data.evs.shape == (4, 3)
        assert np.all(np.abs(data.evs - exact(POINTS)) < 5 / np.sqrt(4096))
        assert device.usage.jobs == 1


@pytest.mark.slow
def test_values_on_a_fake_device_are_near_and_noisy():
    with hardware.connect("fake_manila", shots=4096, seed_simulator=3, seed_transpiler=1) as device:
        data = device.estimator.run([pub_for(device, POINTS)]).result()[0].data
    assert np.abs(data.evs - exact(POINTS)).max() < 0.15


@pytest.mark.slow
def test_a_seed_repeats_a_run_and_jobs_of_a_run_differ():
    def values():
        with hardware.connect(MANILA, shots=256, seed_simulator=9, seed_transpiler=1, options=UNMITIGATED) as device:
            pub = pub_for(device, POINTS)
            return [device.estimator.run([pub]).result()[0].data.evs for _ in range(2)]

    first, second = values(), values()
    np.testing.assert_array_equal(first, second)
    assert np.abs(first[0] - first[1]).max() > 0


# Refusals ------------------------------------------------------------------------------------------


def wide(device):
    return QuantumCircuit(7, name="wide"), SparsePauliOp("Z" * 7)


def not_transpiled(device):
    return ansatz(), SparsePauliOp("ZZ"), [0.1, 0.2, 0.3]


def deep(device):
    circuit = QuantumCircuit(5)
    for _ in range(30):
        circuit.sx(0)
    return circuit, SparsePauliOp("Z" * 5)


def too_few_values(device):
    isa, observables, _ = pub_for(device, POINTS)
    return isa, observables, [0.1, 0.2]


def narrow_observable(device):
    return device.pass_manager.run(ansatz()), SparsePauliOp("ZZ"), [0.1, 0.2, 0.3]


def not_finite(device):
    isa, observables, points = pub_for(device, POINTS)
    return isa, observables, np.where(points == points.ravel()[1], np.nan, points)


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (wide, CircuitError, r"PUB 1, circuit 'wide': 7 qubits do not fit on fake_manila, which has 5"),
        (not_transpiled, CircuitError, r"PUB 1, circuit 'ansatz': .*'ry' on qubits \(0,\).*pass_manager"),
        (deep, CircuitError, r"PUB 1.*depth 30 is over max_depth=20"),
        (too_few_values, CircuitError, r"PUB 1 cannot be read: .*angle\[2\].*last dimension of \[0.1 0.2\]"),
        (narrow_observable, CircuitError, r"PUB 1 cannot be read: .*qubits"),
        (not_finite, ParameterError, r"PUB 1 has a NaN or infinite value for angle\[1\]"),
    ],
)
def test_what_cannot_run_is_refused_before_it_is_sent(bad, error, message):
    with hardware.connect(MANILA, max_depth=20, seed_transpiler=1) as device:
        with pytest.raises(error, match=message):
            device.estimator.run([pub_for(device, POINTS), bad(device)])
        assert device.usage == Usage()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "serverless"}, "mode must be one of 'auto', 'session', 'batch', 'job', not 'serverless'"),
        ({"estimator": "v1"}, "estimator must be one of 'auto', 'executor', 'v2', 'backend', not 'v1'"),
        ({"shots": 10, "precision": 0.1}, "mutually exclusive"),
        ({"options": {"resilience": {"magic": True}}}, "rejects the options.*magic"),
        ({"options": {"resilience_level": 9}}, "rejects the options"),
        ({"options": {"x": object()}}, "plain values"),
    ],
)
def test_unusable_settings_are_refused(arguments, message, tmp_path):
    journal = tmp_path / "run.journal"
    with pytest.raises(ParameterError, match=message):
        hardware.connect(MANILA, journal=journal, **arguments)
    assert not journal.exists()


def test_an_unknown_backend_is_refused_with_the_known_ones(service):
    with pytest.raises(QtmError, match="no local backend 'fake_madrid'.*fake_manila"):
        hardware.connect("fake_madrid")
    with pytest.raises(QtmError, match="no backend 'ibm_madrid'.*there are: ibm_mock"):
        hardware.connect("ibm_madrid", service=service)


def test_without_an_account_the_ways_to_get_one_are_named(monkeypatch, tmp_path):
    from qiskit_ibm_runtime.accounts import management

    monkeypatch.setattr(management, "_DEFAULT_ACCOUNT_CONFIG_JSON_FILE", str(tmp_path / "none.json"))
    monkeypatch.delenv("QISKIT_IBM_TOKEN", raising=False)
    with pytest.raises(QtmError, match="no usable account.*save_account.*QISKIT_IBM_TOKEN.*fake_manila"):
        hardware.connect()


def test_without_a_name_the_least_busy_backend_is_chosen(service):
    with hardware.connect(service=service, min_qubits=4) as device:
        assert device.backend.name == "ibm_mock"
    assert service.asked == ["least_busy 4"]


def test_without_a_device_for_the_circuit_it_is_said(service, monkeypatch):
    def nothing(**_):
        raise LookupError("No backend matches the criteria.")

    monkeypatch.setattr(service, "least_busy", nothing)
    with pytest.raises(QtmError, match="no device is online with 6 qubits or more for this account .*criteria"):
        hardware.connect(service=service, min_qubits=6)


def test_a_journal_that_was_never_set_up_is_refused(tmp_path):
    """A process may die between the first byte of the journal and the settings of the run."""
    Journal(tmp_path / "run.journal").close()
    with pytest.raises(QtmError, match="ended before it was set up; delete it and connect again"):
        hardware.resume(tmp_path / "run.journal")


@pytest.mark.parametrize("mode", ["auto", "session"])
def test_a_session_that_fails_for_another_reason_fails_as_it_did(mode, monkeypatch):
    import qiskit_ibm_runtime

    def refuse(**_):
        raise RuntimeError("the device is under maintenance")

    monkeypatch.setattr(qiskit_ibm_runtime, "Session", refuse)
    with hardware.connect(MANILA, mode) as device, pytest.raises(RuntimeError, match="under maintenance"):
        device._open_mode()


def test_nothing_to_run_costs_nothing():
    with hardware.connect(MANILA, options=UNMITIGATED) as device:
        assert device.estimate_usage([]) == device.sampler.estimate_usage([]) == Usage()
        assert device.usage == device.estimator.usage == device.sampler.usage == Usage()


def test_a_precision_that_no_number_of_shots_reaches_is_refused():
    with hardware.connect(MANILA, options=UNMITIGATED, seed_transpiler=1) as device:
        with pytest.raises(ParameterError, match="PUB 0 requests precision 0.*a device needs a precision above 0"):
            device.estimator.run([pub_for(device, POINTS)], precision=0.0)
        assert device.usage == Usage()


def test_options_that_no_sampler_has_are_refused():
    with pytest.raises(ParameterError, match="(?s)the sampler 'executor' rejects the options.*magic.*executor_sampler"):
        make_sampler("executor", MANILA, {"magic": 1})


# The token -----------------------------------------------------------------------------------------


def test_the_token_is_nowhere(monkeypatch, tmp_path, caplog, service):
    token = "s3cret-t0ken-of-the-account"
    monkeypatch.setenv("QISKIT_IBM_TOKEN", token)
    service.token = token
    monkeypatch.setattr("qiskit_ibm_runtime.QiskitRuntimeService", lambda **_: service)
    caplog.set_level(logging.DEBUG)
    journal = tmp_path / "run.journal"
    with hardware.connect("ibm_mock", journal=journal, shots=64, options={"resilience_level": 0}) as device:
        service.faults["submit"] = [ConnectionError("broken")]
        monkeypatch.setattr("time.sleep", lambda _: None)
        device.estimator.run([pub_for(device, POINTS)]).result()
        device.checkpoint.save(1, note="a plain value")
        texts = [repr(device), repr(device.estimator), repr(device.settings), str(device.journal.jobs())]
    files = b"".join(path.read_bytes() for path in tmp_path.glob("run.journal*"))
    assert len(files) > 1000
    assert token not in caplog.text and token.encode() not in files and token not in "".join(texts)


def test_an_error_that_quotes_the_token_does_not(monkeypatch):
    token = "s3cret-t0ken-of-the-account"
    monkeypatch.setenv("QISKIT_IBM_TOKEN", token)

    def refuse(**_):
        raise ValueError(f"Invalid `token` value: got '{token}'.")

    monkeypatch.setattr("qiskit_ibm_runtime.QiskitRuntimeService", refuse)
    with pytest.raises(QtmError) as caught:
        hardware.connect("ibm_mock")
    assert token not in str(caught.value) and "***" in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_objects_that_hold_an_account_are_not_pickled_and_are_shared_by_copies():
    with hardware.connect(MANILA) as device:
        for held in (device, device.estimator):
            with pytest.raises(TypeError, match="cannot be pickled"):
                pickle.dumps(held)
        assert copy.deepcopy({"estimator": device.estimator})["estimator"] is device.estimator
        assert copy.copy(device.sampler) is device.sampler


# Budget --------------------------------------------------------------------------------------------


def test_a_budget_of_executions_stops_before_the_submission():
    with hardware.connect(
        MANILA, shots=100, options={"resilience_level": 0}, max_executions=2000, seed_simulator=1
    ) as device:
        pub = pub_for(device, POINTS)  # 4 sets in 2 bases: 800 executions
        for _ in range(2):
            device.estimator.run([pub]).result()
        with pytest.raises(BudgetExceeded, match=r"max_executions=2000.*1600 executions.*800 executions"):
            device.estimator.run([pub])
        assert device.usage.executions == 1600 and device.usage.jobs == 2


@pytest.mark.slow
def test_a_budget_of_seconds_counts_what_the_service_charged(service):
    with on_mock(service, max_seconds=6.0) as device:
        pub = pub_for(device, POINTS)
        device.estimator.run([pub]).result()
        assert device.usage.seconds == 3.5
        with pytest.raises(BudgetExceeded, match="max_seconds=6"):
            device.estimator.run([pub, pub, pub, pub, pub, pub, pub])
        assert len(service.submitted()) == 1


@pytest.mark.slow
def test_a_resumed_run_keeps_its_budget_and_may_raise_it(service, tmp_path):
    journal = tmp_path / "run.journal"
    with on_mock(service, journal=journal, max_executions=700) as device:
        pubs = [pub_for(device, POINTS), pub_for(device, POINTS + 1)]
        first = device.estimator.run(pubs[:1]).result()[0].data.evs  # 512 executions
        with pytest.raises(BudgetExceeded):
            device.estimator.run(pubs[1:])
    with hardware.resume(journal, service=service, max_executions=1100) as device:
        np.testing.assert_array_equal(device.estimator.run(pubs[:1]).result()[0].data.evs, first)
        device.estimator.run(pubs[1:]).result()
        assert device.usage.executions == 1024
    assert len(service.submitted()) == 2
