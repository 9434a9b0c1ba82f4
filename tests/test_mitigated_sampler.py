"""Readout mitigation of samplers: exact inverses, several registers, layouts, resumed runs, refusals."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_cases import on_mock
from mock_runtime import MockService
from qiskit import ClassicalRegister, QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.circuit.library import real_amplitudes, zz_feature_map
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel, ReadoutError
from test_device_sampler import POINTS, measured, probabilities
from test_mitigation_resume import Killed

from qtm import FastSampler, MitigatedSampler, QuantumKernel, SamplerQNN, hardware
from qtm._errors import BudgetExceeded, CircuitError, ParameterError, QtmError
from qtm._hardware import device_primitive

pytestmark = pytest.mark.filterwarnings("ignore:.*(no effect in local testing mode|QubitProperties)")

SHOTS = 8000
GATES = ["rx", "ry", "rz", "h", "p", "sx", "x", "cx"]
# p(read i | prepared j) of the qubits 0, 1, ...: unlike each other, and unlike for 0 and 1
CONFUSION = {q: np.array([[1 - p, r], [p, 1 - r]]) for q, (p, r) in enumerate([(0.02, 0.1), (0.07, 0.03), (0.05, 0.2)])}


def with_readout_errors(**errors: Any) -> AerSimulator:
    """A simulator whose only noise is the readout of CONFUSION; further qubits read as the last one."""
    noise = NoiseModel(basis_gates=GATES)
    for qubit in range(40):
        noise.add_readout_error(ReadoutError(CONFUSION[min(qubit, 2)].T), [qubit])
    return AerSimulator(noise_model=noise, **errors)


def connected(**settings: Any) -> hardware.Connection:
    defaults: dict[str, Any] = {"shots": SHOTS, "seed_simulator": 5, "seed_transpiler": 1}
    return hardware.connect(with_readout_errors(), **(defaults | settings))


def inverse(qubits: list[int]) -> np.ndarray:
    """The inverse of the whole confusion matrix of bits that read these qubits, from the lowest."""
    return np.linalg.inv(reduce(np.kron, [CONFUSION[q] for q in reversed(qubits)]))


def shares(bits: Any) -> np.ndarray:
    counts = [bits[index].get_int_counts() for index in np.ndindex(bits.shape)]
    found = np.array([[c.get(k, 0) for k in range(1 << bits.num_bits)] for c in counts]) / bits.num_shots
    return found.reshape(*bits.shape, -1)


# Registers of `measured`, joined in this order -> the qubits that their bits read.
REGISTERS = {("first",): [1, 0], ("second",): [2], ("first", "second"): [1, 0, 2], ("second", "first"): [2, 1, 0]}


@pytest.mark.thinned(4)
@pytest.mark.parametrize("names", REGISTERS)
def test_quasi_probabilities_are_the_inverse_of_the_whole_confusion_matrix(names: tuple[str, ...]) -> None:
    with connected() as device:
        result = MitigatedSampler(device.sampler, confusion=CONFUSION).run([(measured(), POINTS)]).result()[0]
        assert device.usage.circuits == 6
    whole = inverse(REGISTERS[names])
    read = shares(result.join_data(list(names)))
    quasi = result.quasi_probabilities(names if len(names) > 1 else names[0])
    np.testing.assert_allclose(quasi, read @ whole.T, atol=1e-12)
    np.testing.assert_allclose(quasi.sum(-1), 1, atol=1e-12)
    variances = (read @ (whole**2).T - quasi**2) / SHOTS
    np.testing.assert_allclose(result.standard_errors(names), np.sqrt(variances), atol=1e-12)
    for outcome in range(quasi.shape[-1]):
        np.testing.assert_allclose(result.quasi_probability(outcome, names), quasi[..., outcome], atol=1e-12)
    assert set(result.metadata["readout_factors"]) == {0, 1, 2} and result.data.first.num_shots == SHOTS


@pytest.mark.thinned(4)
@pytest.mark.parametrize("options", [{}, {"confusion": CONFUSION}, {"shots": 50_000}, {"confusion": {1: CONFUSION[1]}}])
def test_probabilities_are_exact_within_their_errors(options: dict[str, Any]) -> None:
    with connected() as device:
        result = MitigatedSampler(device.sampler, **options).run([(measured(), POINTS)]).result()[0]
    quasi, errors, exact = result.quasi_probabilities("first"), result.standard_errors("first"), probabilities()
    calibration = 0 if options.get("confusion") is CONFUSION else 3 / np.sqrt(options.get("shots") or SHOTS)
    assert (np.abs(quasi - exact) < 5 * errors + calibration).all()
    assert np.abs(shares(result.data.first) - exact).max() > 0.05


@pytest.mark.slow
def test_the_standard_error_is_the_spread_of_runs() -> None:
    with connected(shots=500) as device:
        sampler = MitigatedSampler(device.sampler, confusion=CONFUSION)
        results = sampler.run([(measured(), np.tile(POINTS[0, 0], (300, 1)))]).result()[0]
    quasi, errors = results.quasi_probabilities("first"), results.standard_errors("first")
    np.testing.assert_allclose(quasi.std(0, ddof=1), errors.mean(0), rtol=0.2)


def test_bits_that_nothing_writes_read_zero() -> None:
    circuit = QuantumCircuit(2)
    circuit.add_register(ClassicalRegister(3, "c"))
    circuit.x(1)
    circuit.measure(1, 0)
    circuit.measure(0, 2)
    with connected() as device:
        result = MitigatedSampler(device.sampler, confusion=CONFUSION).run([circuit]).result()[0]
    np.testing.assert_allclose(result.quasi_probabilities(), np.eye(8)[1], atol=0.03)


def test_many_bits_need_no_vector() -> None:
    circuit = QuantumCircuit(22)
    circuit.x(range(0, 22, 2))
    circuit.measure_all()
    confusion = {q: CONFUSION[min(q, 2)] for q in range(22)}
    with connected(shots=4000) as device:
        result = MitigatedSampler(device.sampler, confusion=confusion).run([circuit]).result()[0]
    outcome = sum(1 << q for q in range(0, 22, 2))
    read = result.data.meas.get_int_counts().get(outcome, 0) / 4000
    assert read < 0.1 and abs(result.quasi_probability(outcome) - 1) < 0.3
    assert abs(result.quasi_probability(0)) < 0.1
    with pytest.raises(ParameterError, match=r"22 bits have 2\^22 outcomes.*take quasi_probability\(outcome\)"):
        result.quasi_probabilities()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fake_manila", "fake_torino"])
def test_calibration_follows_the_layout(name: str) -> None:
    """The factors are those of the physical qubits, and of these alone; the second run calibrates nothing."""
    circuit = QuantumCircuit(2)
    circuit.x(0)
    circuit.measure_all()
    with hardware.connect(name, shots=SHOTS, seed_simulator=3, seed_transpiler=1) as device:
        isa = device.pass_manager.run(circuit)
        sampler = MitigatedSampler(device.sampler)
        forecasts, jobs = [], []
        for _ in range(2):
            forecasts.append(sampler.estimate_usage([isa]))
            before = device.usage
            result = sampler.run([isa]).result()[0]
            jobs.append(device.usage)
            assert before + forecasts[-1] == device.usage
        physical = isa.layout.final_index_layout()
    assert [usage.circuits for usage in forecasts] == [3, 1]
    assert set(result.metadata["readout_factors"]) == set(physical)
    target = device.backend.target
    for qubit, (a, _) in result.metadata["readout_factors"].items():
        assert (1 - a) / 2 == pytest.approx(target["measure"][(qubit,)].error, abs=0.015)
    expected, read = np.eye(4)[1], shares(result.data.meas)
    quasi = result.quasi_probabilities()
    assert np.abs(quasi - expected).max() < 0.5 * np.abs(read - expected).max()


@pytest.mark.slow
def test_a_network_and_a_kernel_take_the_quasi_probabilities() -> None:
    ansatz, weights = real_amplitudes(2, reps=1), [0.1, 0.2, 2.9, 3.0]
    arguments: dict[str, Any] = {"circuit": ansatz, "weight_params": ansatz.parameters}
    samples = np.random.default_rng(1).uniform(0, 0.4, (3, 2))
    exact, exact_kernel = SamplerQNN(**arguments), QuantumKernel(zz_feature_map(2))
    expected = exact.forward(None, weights), exact.backward(None, weights)[1]
    with connected(shots=20_000) as device:
        errors, kernel_errors = [], []
        for sampler in (device.sampler, MitigatedSampler(device.sampler, confusion=CONFUSION)):
            network = SamplerQNN(**arguments, sampler=sampler, pass_manager=device.pass_manager)
            found = network.forward(None, weights), network.backward(None, weights)[1]
            errors.append(max(np.abs(a - b).max() for a, b in zip(found, expected, strict=True)))
            settings: dict[str, Any] = {"pass_manager": device.pass_manager, "enforce_psd": False}
            kernel = QuantumKernel(zz_feature_map(2), sampler=sampler, **settings)
            kernel_errors.append(np.abs(kernel.evaluate(samples) - exact_kernel.evaluate(samples)).max())
    for raw, mitigated in (errors, kernel_errors):
        assert raw > 0.06 and mitigated < 0.025  # five standard deviations


def test_an_interpretation_sums_quasi_probabilities() -> None:
    ansatz = real_amplitudes(2, reps=1)
    arguments: dict[str, Any] = {
        "circuit": ansatz, "weight_params": ansatz.parameters, "output_shape": 2,
        "interpret": lambda outcome: outcome.bit_count() % 2,
    }  # fmt: skip
    with connected() as device:
        sampler = MitigatedSampler(device.sampler, confusion=CONFUSION)
        found = SamplerQNN(**arguments, sampler=sampler, pass_manager=device.pass_manager).forward(None, [0.3, 1, 2, 1])
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-12)
    np.testing.assert_allclose(found, SamplerQNN(**arguments).forward(None, [0.3, 1, 2, 1]), atol=7 / np.sqrt(SHOTS))


def train(folder: Path, kill_at: int = 0) -> np.ndarray:
    """Weights after two steps of a network on the mock; the process dies when the service took job ``kill_at``."""
    service = MockService(folder / "service")
    send, left = service._run, [kill_at]

    def run(*arguments: Any, **settings: Any) -> Any:
        job = send(*arguments, **settings)
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return job

    service._run = run  # type: ignore[method-assign]
    journal, ansatz = folder / "run.journal", real_amplitudes(2, reps=1)
    start = hardware.resume(journal, service=service) if journal.exists() else on_mock(service, journal=journal)
    with start as device:
        network = SamplerQNN(
            circuit=ansatz, weight_params=ansatz.parameters, pass_manager=device.pass_manager,
            sampler=MitigatedSampler(device.sampler, shots=128),
        )  # fmt: skip
        weights = np.full(4, 0.4)
        first = device.checkpoint.load()
        if first:
            weights = device.checkpoint.values["weights"].numpy()
        for step in range(first, 2):
            value, (_, slopes) = network.forward(None, weights), network.backward(None, weights)
            weights = weights - 0.3 * (value[..., None] * slopes).sum((0, 1))
            device.checkpoint.save(step + 1, weights=weights)
        return weights


@pytest.mark.slow
def test_a_killed_run_resumes_with_its_readout_factors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_primitive, "SETTLE_SECONDS", 0.0)
    (tmp_path / "whole").mkdir()
    weights = train(tmp_path / "whole")
    count = len(MockService(tmp_path / "whole" / "service").submitted())
    assert count == 5  # two to a step, and the calibration, whose shots differ from those of the PUB
    for number in (2, count):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(Killed):
            train(folder, number)
        np.testing.assert_array_equal(train(folder), weights)
        assert len(MockService(folder / "service").submitted()) == count


def test_recalibration_measures_the_readout_again() -> None:
    with connected() as device:
        sampler = MitigatedSampler(device.sampler, confusion={0: CONFUSION[0]})
        circuit = QuantumCircuit(2)
        circuit.measure_all()
        assert [sampler.estimate_usage([circuit]).circuits, sampler.run([circuit]).result() and 0] == [3, 0]
        assert sampler.estimate_usage([circuit]).circuits == 1
        device.recalibrate()
        assert sampler.estimate_usage([circuit]).circuits == 3
        np.testing.assert_allclose(sampler.method.state_dict()["factors"], [[0, 0.88, 0.08]])  # what was given stays


def test_the_budget_counts_the_calibration() -> None:
    with connected(max_executions=2 * SHOTS) as device, pytest.raises(BudgetExceeded, match="Nothing was submitted"):
        MitigatedSampler(device.sampler).run([(measured(), POINTS[0, 0])])


def test_any_sampler_will_do_and_a_state_goes_on() -> None:
    circuit = measured()
    first, second = (MitigatedSampler(FastSampler(seed=1, default_shots=100)) for _ in range(2))
    result = first.run([(circuit, POINTS)]).result()[0]
    np.testing.assert_allclose(result.quasi_probabilities("first"), shares(result.data.first), atol=1e-12)
    assert first.estimate_usage([(circuit, POINTS)]).executions == 600
    assert second.estimate_usage([(circuit, POINTS)]).executions == 800
    second.load_state_dict(first.state_dict())
    assert second.estimate_usage([(circuit, POINTS)]).executions == 600


def controlled() -> QuantumCircuit:
    circuit = QuantumCircuit(2, 2)
    circuit.h(0)
    circuit.measure(0, 0)
    with circuit.if_test((circuit.clbits[0], 1)):
        circuit.x(1)
    circuit.measure(1, 1)
    return circuit


def unmeasured() -> QuantumCircuit:
    circuit = QuantumCircuit(1, 1)
    circuit.rx(Parameter("t"), 0)
    return circuit


def flat() -> Any:
    noise = NoiseModel(basis_gates=GATES)
    noise.add_all_qubit_readout_error(ReadoutError([[0.5, 0.5], [0.5, 0.5]]))
    return hardware.connect(AerSimulator(noise_model=noise), shots=500, seed_simulator=1).sampler


def on_fast(*method: str, **options: Any) -> MitigatedSampler:
    return MitigatedSampler(FastSampler(), *method, **options)


BAD: dict[str, tuple[Any, type[QtmError], str]] = {
    "no sampler": (lambda: MitigatedSampler(3), ParameterError, "sampler must be a BaseSamplerV2"),
    "method": (lambda: on_fast("zne"), ParameterError, "unknown mitigation method 'zne'"),
    "option": (lambda: on_fast(seed=1), ParameterError, "no option 'seed'; its options are conf"),
    "shots": (lambda: on_fast(shots=0), ParameterError, "shots must be"),
    "confusion": (lambda: on_fast(confusion={0: [[1, 1], [1, 0]]}), ParameterError, "2 x 2"),
    "state": (lambda: on_fast().load_state_dict({}), ParameterError, "returned by state_dict"),
    "feed-forward": (
        lambda: on_fast().run([controlled()]), CircuitError, "PUB 0.*depend on measured bits",
    ),
    "unmeasured": (lambda: on_fast().run([(unmeasured(), 1.0)]), CircuitError, "measures nothing"),
    "register": (
        lambda: on_fast().run([(measured(), POINTS)]).result()[0].quasi_probabilities("meas"),
        ParameterError, r"no register \['meas'\]; there are first, second",
    ),
    "flat": (
        lambda: MitigatedSampler(flat()).run([(measured(), POINTS)]).result(), QtmError, "hardly depends on its state",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_mitigated_is_refused(name: str) -> None:
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()
