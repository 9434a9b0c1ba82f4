"""A mitigated training that dies and is resumed: the same weights to the last bit, no job twice."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from device_cases import on_mock
from mock_runtime import MockService
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector

from qtm import QuantumModule, hardware
from qtm._errors import ParameterError, QtmError
from qtm._hardware import device_primitive
from qtm._mitigation import method
from qtm.mitigation import MITIGATION_METHODS, MitigatedEstimator
from qtm.noise import local_pauli_noise, noisy_estimator

STEPS = 2
# Without seeds: what was drawn must come back. The map is renewed at every call, which takes a second job.
OPTIONS: dict[str, dict[str, Any]] = {
    "zne": {"scale_factors": (1, 2), "factory": "linear", "fold": "gates"},
    "lre": {"degree": 1, "num_chunks": 2},
    "cdr": {"num_training_circuits": 3, "fraction_non_clifford": 0.5},
    "real-time-cdr": {"n_training_samples": 4, "min_iterations": 1, "threshold": 1e-9},
    "pec": {"noise": 0.05, "num_samples": 4},
    "rem": {"shots": 64},
    "ddd": {"keep_raw": False},
}
STACKS = [(name,) for name in OPTIONS] + [("rem", "cdr")]


class Killed(BaseException):
    """The end of the process, for all that the run can do about it."""


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_primitive, "SETTLE_SECONDS", 0.0)


def test_every_method_is_killed() -> None:
    assert OPTIONS.keys() == MITIGATION_METHODS.keys()


def mitigated(estimator: Any, stack: tuple[str, ...]) -> Any:
    for name in stack:
        estimator = MitigatedEstimator(estimator, name, **OPTIONS[name])
    return estimator


ANGLES = ParameterVector("angle", 2)
CIRCUIT = QuantumCircuit(2)
CIRCUIT.ry(ANGLES[0], 0)
CIRCUIT.cx(0, 1)
CIRCUIT.rx(ANGLES[1], 1)


def module(**settings: Any) -> QuantumModule:
    gradient = ("spsa", {"seed": 1, "epsilon": 0.4})
    return QuantumModule(CIRCUIT, None, ANGLES, gradient=gradient, variational_params_initial=[0.4, 0.9], **settings)


def train(folder: Path, stack: tuple[str, ...], kill_at: int = 0, late: bool = False) -> np.ndarray:
    """Final weights; killed just after the service has taken job number ``kill_at`` of this process."""
    service = MockService(folder / "service")
    send, left = service._run, [kill_at]

    def run(*arguments: Any, **settings: Any) -> Any:
        job = send(*arguments, **settings)
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return job

    service._run = run
    journal = folder / "run.journal"
    resumed = journal.exists()
    with hardware.resume(journal, service=service) if resumed else on_mock(service, journal=journal) as device:
        if late:  # what is made after the checkpoint was loaded gets its state, too
            device.checkpoint.load()
        model = module(estimator=mitigated(device.estimator, stack), pass_manager=device.pass_manager)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(device.checkpoint.load(model=model, optimizer=optimizer), STEPS):
            optimizer.zero_grad()
            model().sum().backward()
            optimizer.step()
            device.checkpoint.save(step + 1, model=model, optimizer=optimizer)
        return model.variational.detach().numpy().copy()


@pytest.mark.filterwarnings("ignore:.*no effect in local testing mode")
@pytest.mark.parametrize("stack", STACKS, ids="+".join)
@pytest.mark.slow
def test_a_killed_run_repeats_itself_to_the_last_bit(
    stack: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def entropy(number: int) -> None:
        monkeypatch.setattr(method, "secrets", SimpleNamespace(randbits=lambda bits: number))

    whole = tmp_path / "whole"
    whole.mkdir()
    entropy(1)
    weights = train(whole, stack)
    count = len(MockService(whole / "service").submitted())
    # In the first step, with no checkpoint; and in the last backward pass, with one.
    for number, late in ((2, False), (count, True)):
        folder = tmp_path / str(number)
        folder.mkdir()
        entropy(1)
        with pytest.raises(Killed):
            train(folder, stack, number)
        entropy(2)  # another process draws other seeds
        np.testing.assert_array_equal(train(folder, stack, late=late), weights)
        submitted = MockService(folder / "service").submitted()
        assert len(submitted) == count
        assert set(Counter(record["tags"][0] for record in submitted).values()) == {1}


def test_a_state_of_another_mitigation_is_refused(tmp_path: Path) -> None:
    service = MockService(tmp_path / "service")
    with on_mock(service, journal=tmp_path / "run.journal") as device:
        mitigated(device.estimator, ("rem", "cdr"))
    with hardware.resume(tmp_path / "run.journal", service=service) as device:
        estimator = mitigated(device.estimator, ("rem",))
        with pytest.raises(QtmError, match="number 1 was 'cdr' and is now 'real-time-cdr'"):
            mitigated(estimator, ("real-time-cdr",))


@pytest.mark.thinned(3)
@pytest.mark.parametrize("stack", STACKS, ids="+".join)
def test_a_restored_state_continues_where_it_was_saved(stack: tuple[str, ...]) -> None:
    """On any estimator: save the state with a checkpoint of your own."""
    angles = np.array([[0.3, 0.8], [1.1, -0.4]])

    def values(estimator: MitigatedEstimator) -> np.ndarray:
        return estimator.run([(CIRCUIT, ["ZZ", "XI"], angles[:, None])]).result()[0].data.evs

    def made() -> MitigatedEstimator:
        return mitigated(noisy_estimator(local_pauli_noise(0.02)), stack)

    first = made()
    values(first)
    state = json.loads(json.dumps(first.state_dict()))
    expected = [values(first), values(first)]
    second = made()
    values(second)
    second.load_state_dict(state)
    np.testing.assert_array_equal([values(second), values(second)], expected)


def test_the_state_of_another_method_is_refused() -> None:
    noisy = noisy_estimator(local_pauli_noise(0.02))
    with pytest.raises(ParameterError, match="method 'cdr', and this estimator's is 'zne'"):
        mitigated(noisy, ("zne",)).load_state_dict(mitigated(noisy, ("cdr",)).state_dict())


def test_a_seeded_method_draws_anew_and_repeats_its_sequence() -> None:
    pub = (CIRCUIT, "ZZ", [0.3, 0.8])

    def sequence() -> list[float]:
        noisy = noisy_estimator(local_pauli_noise(0.05))
        estimator = MitigatedEstimator(noisy, "pec", noise=0.15, num_samples=10, seed=5)
        return [float(estimator.run([pub]).result()[0].data.evs) for _ in range(4)]

    first = sequence()
    assert len(set(first)) == 4 and sequence() == first
