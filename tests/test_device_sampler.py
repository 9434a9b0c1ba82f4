"""The sampler of a connection: values, journal, budget, splitting, wide devices, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_cases import on_mock
from mock_runtime import MockService
from qiskit import ClassicalRegister, QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import real_amplitudes
from qiskit.primitives import BitArray, DataBin, PrimitiveResult, SamplerPubResult
from qiskit.primitives.containers.sampler_pub import SamplerPub
from qiskit.quantum_info import Statevector

from qtm import SamplerQNN, hardware
from qtm._errors import BudgetExceeded, CircuitError, JobError, ParameterError
from qtm._hardware.job_splitting import Limits

pytestmark = pytest.mark.filterwarnings("ignore")

SHOTS = 4000
POINTS = np.random.default_rng(0).uniform(-3, 3, (3, 2, 4))  # parameter sets of shape (3, 2)


def measured() -> QuantumCircuit:
    """Two registers of unequal width, and bits in another order than qubits."""
    circuit = real_amplitudes(2, reps=1)
    angles = ParameterVector("t", 4)
    circuit = circuit.assign_parameters(angles)
    wide = QuantumCircuit(3)
    wide.compose(circuit, [0, 1], inplace=True)
    wide.h(2)
    first, second = ClassicalRegister(2, "first"), ClassicalRegister(1, "second")
    wide.add_register(first, second)
    wide.measure([1, 0, 2], [first[0], first[1], second[0]])
    return wide


def probabilities() -> np.ndarray:
    """Exact probabilities (3, 2, 4) of the register ``first``."""
    circuit = measured().remove_final_measurements(inplace=False)
    states = [Statevector(circuit.assign_parameters(row)) for row in POINTS.reshape(-1, 4)]
    return np.array([s.probabilities([1, 0]) for s in states]).reshape(3, 2, 4)


def frequencies(result: PrimitiveResult) -> np.ndarray:
    bits = result[0].data.first
    assert result[0].data.second.num_bits == 1
    counts = [[bits[i, j].get_int_counts() for j in range(2)] for i in range(3)]
    return np.array([[[c.get(k, 0) for k in range(4)] for c in row] for row in counts]) / bits.num_shots


def pub_for(device: hardware.Connection) -> Any:
    return device.pass_manager.run(measured()), POINTS


@pytest.mark.parametrize("kind", ["executor", "v2"])
def test_shots_have_the_probabilities_of_the_state(kind: str) -> None:
    with hardware.connect("aer", estimator=kind, shots=SHOTS, seed_simulator=3) as device:
        result = device.sampler.run([pub_for(device)]).result()
        assert device.usage.circuits == 6 and device.usage.executions == 6 * SHOTS
    np.testing.assert_allclose(frequencies(result), probabilities(), atol=5 / np.sqrt(SHOTS))


@pytest.mark.parametrize("name", ["fake_manila", "fake_torino"])
def test_a_dry_run_samples_the_state_itself(name: str) -> None:
    """On the wide device the circuit is moved to the qubits in use; registers stay as they are."""
    with hardware.connect(name, shots=SHOTS, seed_simulator=3, seed_transpiler=1, dry_run=True) as device:
        result = device.sampler.run([pub_for(device)]).result()
    np.testing.assert_allclose(frequencies(result), probabilities(), atol=5 / np.sqrt(SHOTS))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["executor", "v2"])
def test_a_wide_device_is_sampled_with_its_noise(kind: str) -> None:
    settings: dict[str, Any] = {"estimator": kind, "shots": SHOTS, "seed_simulator": 3, "seed_transpiler": 1}
    with hardware.connect("fake_torino", **settings) as device:
        found = frequencies(device.sampler.run([pub_for(device)]).result())
    error = np.abs(found - probabilities()).max()
    assert 5 / np.sqrt(SHOTS) < error < 0.25


@pytest.mark.slow
def test_a_seed_repeats_a_run_and_jobs_of_a_run_differ() -> None:
    def shots() -> list[np.ndarray]:
        with hardware.connect("aer", shots=200, seed_simulator=9, seed_transpiler=1) as device:
            pub = pub_for(device)
            return [device.sampler.run([pub]).result()[0].data.first.array for _ in range(2)]

    first, second = shots(), shots()
    np.testing.assert_array_equal(first, second)
    assert (first[0] != first[1]).any()


@pytest.mark.slow
def test_a_resumed_run_is_answered_from_the_journal(tmp_path: Path) -> None:
    service, path = MockService(tmp_path / "service"), tmp_path / "run.journal"

    def ran(device: hardware.Connection) -> list[np.ndarray]:
        pub = pub_for(device)
        results = [device.sampler.run([pub], shots=shots).result()[0].data for shots in (50, 60)]
        return [bits.array for data in results for bits in (data.first, data.second)]

    with on_mock(service, journal=path) as device:
        before, used = ran(device), device.usage
    assert len(service.submitted()) == 2
    with hardware.resume(path, service=service) as device:
        for found, expected in zip(ran(device), before, strict=True):
            np.testing.assert_array_equal(found, expected)
        assert device.usage == used
    assert len(service.submitted()) == 2


def test_split_jobs_are_joined(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"shots": SHOTS, "seed_simulator": 3}
    with hardware.connect("aer", max_circuits_per_job=4, **settings) as device:
        result = device.sampler.run([pub_for(device), (measured(), POINTS[0, 0], 100)]).result()
        assert device.usage.jobs == 3
        assert device.sampler.limits == Limits(circuits=4)
    np.testing.assert_allclose(frequencies(result), probabilities(), atol=5 / np.sqrt(SHOTS))
    assert result[1].data.first.num_shots == 100 and result[1].data.first.shape == ()


def test_the_budget_is_shared_with_the_estimator() -> None:
    with hardware.connect("aer", shots=100, max_executions=1000) as device:
        pub = pub_for(device)
        assert device.sampler.estimate_usage([pub]).executions == 600
        device.sampler.run([pub]).result()
        with pytest.raises(BudgetExceeded, match=r"max_executions=1000.*600 executions.*600 executions"):
            device.sampler.run([pub])
        with pytest.raises(BudgetExceeded):
            device.estimator.run([(measured().remove_final_measurements(inplace=False), "ZZZ", POINTS)])


def test_session_and_batch_are_shared() -> None:
    with hardware.connect("fake_manila", "batch") as device:
        assert device._open_mode() is device._open_mode()


def test_a_network_differentiates_on_a_device() -> None:
    ansatz = real_amplitudes(2, reps=1)
    arguments: dict[str, Any] = {"circuit": ansatz, "weight_params": ansatz.parameters}
    weights = [0.3, 0.7, -0.4, 1.1]
    with hardware.connect("aer", shots=SHOTS, seed_simulator=1) as device:
        network = SamplerQNN(**arguments, sampler=device.sampler, pass_manager=device.pass_manager)
        values, (_, by_weights) = network.forward(None, weights), network.backward(None, weights)
        assert network.usage == device.usage and device.usage.jobs == 2
    exact = SamplerQNN(**arguments)
    np.testing.assert_allclose(values, exact.forward(None, weights), atol=5 / np.sqrt(SHOTS))
    np.testing.assert_allclose(by_weights, exact.backward(None, weights)[1], atol=5 / np.sqrt(SHOTS))


def pub_result(**bits: BitArray) -> SamplerPubResult:
    return SamplerPubResult(DataBin(**bits))


def bad_shape(result: PrimitiveResult) -> Any:
    return PrimitiveResult([])


def test_unusable_results_are_refused(tmp_path: Path) -> None:
    service = MockService(tmp_path / "service")
    service.spoil = bad_shape
    with on_mock(service) as device, pytest.raises(JobError, match="it has 0 entries for 1 PUBs"):
        device.sampler.run([pub_for(device)]).result()


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ([object()], "it has no shots"),
        ([pub_result(first=BitArray.from_bool_array(np.zeros((5, 2), bool)))], "'first', expected 7 shots"),
        ([pub_result(second=BitArray.from_bool_array(np.zeros((7, 1), bool)))], "has None in register 'first'"),
    ],
)
def test_results_with_other_registers_or_shots_are_refused(result: Any, message: str) -> None:
    with hardware.connect("fake_manila") as device:
        pub = SamplerPub.coerce((measured(), POINTS[0, 0]), 7)
        assert message in str(device.sampler.problem_with(result, [pub]))


def test_damaged_shots_in_a_journal_are_refused() -> None:
    with hardware.connect("fake_manila") as device:
        stored = device.sampler.pack(PrimitiveResult([pub_result(first=BitArray(np.zeros((7, 1), np.uint8), 2))]))
        assert device.sampler.unpack(stored)[0].data.first.num_shots == 7
        with pytest.raises(JobError, match="damaged"):
            device.sampler.unpack(stored[: len(stored) // 2])


UNMEASURED = measured().remove_final_measurements(inplace=False)
BAD = {
    "unmeasured": ((UNMEASURED, POINTS), CircuitError, "no classical register; measure its qubits"),
    "nan": ((measured(), np.full(4, np.nan)), ParameterError, "NaN or infinite value for t"),
    "too few values": ((measured(), np.ones(3)), CircuitError, "PUB 0 cannot be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_run_is_refused_before_it_is_sent(name: str) -> None:
    pub, error, message = BAD[name]
    with hardware.connect("aer") as device, pytest.raises(error, match=message):
        device.sampler.run([pub])


def test_instructions_that_the_device_lacks_are_refused() -> None:
    with hardware.connect("fake_manila") as device, pytest.raises(CircuitError, match="has no instruction"):
        device.sampler.run([(measured(), POINTS)])
