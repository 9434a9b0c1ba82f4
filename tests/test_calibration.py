"""Watching the calibration of a device: what is recorded, when drift is reported, and the plot."""

from __future__ import annotations

import copy
import logging

import pytest
from qiskit import QuantumCircuit, generate_preset_pass_manager
from qiskit.providers import QubitProperties
from qiskit.transpiler import InstructionProperties
from qiskit_aer import AerSimulator
from qiskit_ibm_runtime.fake_provider import FakeManilaV2

from qtm import hardware
from qtm._errors import CircuitError, ParameterError
from qtm.hardware import CalibrationWatch, stop


@pytest.fixture
def device():
    return FakeManilaV2()


def value(watch, quantity, *qubits):
    return [r["value"] for r in watch.record if r["quantity"] == quantity and r["qubits"] == list(qubits)]


def test_the_record_is_what_the_device_publishes(device):
    watch = CalibrationWatch(device, [1, 2])
    assert watch(0, loss=1.0) == []
    properties = device.properties()
    for qubit in (1, 2):
        assert value(watch, "t1", qubit) == [pytest.approx(properties.t1(qubit))]
        assert value(watch, "t2", qubit) == [pytest.approx(properties.t2(qubit))]
        assert value(watch, "readout_error", qubit) == [pytest.approx(properties.readout_error(qubit))]
        assert value(watch, "gate_error", qubit) == [pytest.approx(properties.gate_error("sx", qubit))]
    assert value(watch, "two_qubit_error", 1, 2) == [pytest.approx(properties.gate_error("cx", [1, 2]))]
    assert {tuple(row["qubits"]) for row in watch.record} == {(1,), (2,), (1, 2)}


def test_the_qubits_of_transpiled_circuits_are_found(device):
    circuit = QuantumCircuit(3)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.ry(0.1, 2)
    passes = generate_preset_pass_manager(0, device, initial_layout=[4, 3, 0])
    watch = CalibrationWatch(device, passes.run(circuit))
    assert (watch.qubits, watch.pairs) == ([0, 3, 4], [(3, 4)])


def test_it_records_every_k_steps(device):
    watch = CalibrationWatch(device, [0], every=5)
    for step in range(11):
        watch(step, loss=1 / (step + 1))
    assert [row["step"] for row in watch.record if row["quantity"] == "t1"] == [0, 5, 10]
    assert len(watch.losses) == 11


# quantity: (a change within the default threshold, one beyond it)
CHANGES = {
    "t1": (0.6, 0.4),
    "t2": (0.6, 0.4),
    "readout_error": (1.9, 2.1),
    "gate_error": (1.9, 2.1),
    "two_qubit_error": (1.9, 2.1),
}
GATES = {
    "readout_error": [("measure", (0,))],
    "gate_error": [("sx", (0,)), ("x", (0,))],  # the worst of the gates counts
    "two_qubit_error": [("cx", (0, 1)), ("cx", (1, 0))],  # the better of the directions counts
}


def scale(device, quantity, factor):
    """Change what the device publishes of qubit 0."""
    target = device.target
    for name, qubits in GATES.get(quantity, []):
        old = target[name][qubits]
        new = InstructionProperties(old.duration, old.error * factor)
        target.update_instruction_properties(name, qubits, new)
    if quantity not in GATES:
        first, *others = target.qubit_properties
        values = {"t1": first.t1, "t2": first.t2}
        values[quantity] *= factor
        target.qubit_properties = [QubitProperties(**values, frequency=first.frequency), *others]


@pytest.mark.parametrize("quantity", CHANGES)
def test_drift_is_reported_beyond_the_threshold_once(device, quantity):
    within, beyond = CHANGES[quantity]
    seen = []
    watch = CalibrationWatch(device, [0, 1], on_drift=seen.append)
    watch(0)
    scale(device, quantity, within)
    assert watch(1) == []
    scale(device, quantity, beyond / within)
    (drift,) = watch(2)
    assert (drift.step, drift.quantity, drift.qubits[0]) == (2, quantity, 0)
    assert drift.now == pytest.approx(drift.before * beyond)
    assert watch(3) == [] and seen == [[drift]] and not watch.should_stop
    scale(device, quantity, 1 / beyond)  # a change for the better is none
    assert watch(4) == []


def test_callbacks_stop_warn_and_rebase(device, caplog):
    stopping = CalibrationWatch(device, [0], on_drift=stop, thresholds={"t1": 0.1})
    warning = CalibrationWatch(device, [0])
    stopping(0), warning(0)
    scale(device, "t1", 0.8)
    warning.rebase()
    with caplog.at_level(logging.WARNING, logger="qtm"):
        stopping(1), warning(1)
    assert stopping.should_stop and not warning.should_stop
    assert "calibration drift at step 1: t1 of qubit 0 went from" in caplog.text


def test_a_slow_drift_adds_up(device):
    watch = CalibrationWatch(device, [0])
    reports = []
    for step in range(5):
        reports.append(len(watch(step)))
        scale(device, "readout_error", 1.3)
    assert reports == [0, 0, 0, 1, 0]  # 1.3 ** 3 > 2


def test_a_simulator_of_a_device_can_be_watched_and_an_ideal_one_cannot():
    noisy = CalibrationWatch(AerSimulator.from_backend(FakeManilaV2()), [0])
    noisy(0)
    assert value(noisy, "readout_error", 0)
    with pytest.raises(CircuitError, match="publishes no calibration"):
        CalibrationWatch(AerSimulator(), [0])(0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"qubits": [7]}, CircuitError, r"qubits \[7\] of fake_manila, which has 5"),
        ({"qubits": []}, CircuitError, "cannot watch"),
        ({"qubits": [0], "every": 0}, ParameterError, "every=0"),
        ({"qubits": [0], "thresholds": {"t3": 1.0}}, ParameterError, r"no threshold for \['t3'\]"),
    ],
)
def test_bad_input_is_named(device, arguments, error, message):
    with pytest.raises(error, match=message):
        CalibrationWatch(device, **arguments)


def test_the_record_plots_beside_the_loss(device, tmp_path):
    pytest.importorskip("matplotlib")
    watch = CalibrationWatch(device, [0, 1])
    for step in range(3):
        watch(step, loss=3.0 - step)
    figure = watch.plot(tmp_path / "calibration.png")
    assert (tmp_path / "calibration.png").stat().st_size > 1000
    panels = figure.axes
    assert panels[0].lines[0].get_ydata().tolist() == [3.0, 2.0, 1.0]
    assert [panel.get_ylabel().split("\n")[0] for panel in panels] == ["loss", *CHANGES]
    assert panels[1].lines[0].get_ydata().tolist() == value(watch, "t1", 0)


# Protocols of one's own


class Drifting(FakeManilaV2):
    """A device that becomes worse: every readout and every X and SX gate."""

    def worsen(self, readout: float, gate: float) -> None:
        target = copy.deepcopy(self.target)
        for q in range(5):
            target.update_instruction_properties("measure", (q,), InstructionProperties(1e-6, readout))
            for name in ("sx", "x"):
                target.update_instruction_properties(name, (q,), InstructionProperties(3.5e-8, gate))
        self._target = target


PROTOCOLS = (hardware.ReadoutAssignment(2000), hardware.RandomizedBenchmarking((1, 30, 100), 3, 400))


@pytest.fixture
def drifting():
    backend = Drifting()
    backend.worsen(0.02, 2e-4)
    with hardware.connect(backend, seed_simulator=3, seed_transpiler=1) as device:
        yield backend, device


@pytest.mark.slow
def test_protocols_measure_what_the_noise_is(drifting):
    """The error of readout, and of a Clifford gate: about two pulses with depolarizing error e, so e each."""
    backend, device = drifting
    for readout, gate in ((0.02, 2e-3), (0.08, 6e-3)):
        backend.worsen(readout, gate)
        watch = hardware.CalibrationWatch(device.backend, [0, 2], protocols=PROTOCOLS, sampler=device.sampler)
        watch(0)
        found = {(r["quantity"], *r["qubits"]): r["value"] for r in watch.record}
        for q in (0, 2):
            assert found["assignment_error", q] == pytest.approx(readout, abs=0.012)
            assert 0.5 * gate < found["clifford_error", q] < 2.5 * gate


@pytest.mark.slow
def test_measured_drift_stops_a_training_and_renews_the_maps(drifting, tmp_path, monkeypatch):
    backend, device = drifting
    renewed = []
    monkeypatch.setattr(device, "recalibrate", lambda: renewed.append(True))

    def renew(drifts):
        device.recalibrate()
        return hardware.stop(drifts)

    watch = hardware.CalibrationWatch(
        device.backend, [0, 1], every=2, on_drift=renew, protocols=PROTOCOLS[:1], sampler=device.sampler
    )
    for step in range(6):
        if step == 3:
            backend.worsen(0.15, 2e-4)
        drifts = watch(step, loss=1 / (1 + step))
        if watch.should_stop:
            break
    assert step == 4 and renewed == [True]
    assert {("assignment_error", (q,)) for q in (0, 1)} <= {(d.quantity, d.qubits) for d in drifts}
    assert device.usage.jobs == 3  # one for each record
    assert [label for panel in watch.plot(tmp_path / "drift.png").axes for label in [panel.get_ylabel()]].count(
        "assignment_error\n(probability)"
    ) == 1


def test_protocols_need_a_sampler_and_sense():
    with pytest.raises(ParameterError, match="give connection.sampler"):
        hardware.CalibrationWatch(FakeManilaV2(), [0], protocols=PROTOCOLS)
    with pytest.raises(ParameterError, match="two or more different lengths"):
        hardware.RandomizedBenchmarking(lengths=(4, 4))
    with pytest.raises(ParameterError, match="shots"):
        hardware.ReadoutAssignment(0)
