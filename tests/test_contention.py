"""A warning, once, where threads of kernels wait for a core."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch

from qtm import QuantumModule
from qtm._engines.statevector import contention
from qtm._engines.statevector.contention import CONTENTION, Contention
from qtm.circuits import reuploading_circuit


@pytest.fixture(autouse=True)
def _threads_of_torch() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


Calls = list[tuple[float, float]]


def _warnings(caplog: pytest.LogCaptureFixture, calls: Calls, threads: int = 2) -> tuple[list[str], bool]:
    """What is said, and whether one thread is held to be faster in the end."""
    contention = Contention()
    with caplog.at_level(logging.WARNING, logger="qtm"):
        for computed, waited in calls:
            contention.note(threads, computed, waited)
    return [record.getMessage() for record in caplog.records], contention.is_crowded()


@pytest.mark.parametrize(
    "calls",
    [
        [(1e-3, 1e-4)] * 400,  # shares of equal size
        [(1e-3, 6e-4)] * 400,  # two tiles and three tiles
        [(1e-5, 4e-5)] * 400,  # waking up
        [(1e-3, 5e-3), *[(1e-3, 0.0)] * 7] * 50,  # now and then
    ],
)
def test_what_is_no_contention(calls: Calls, caplog: pytest.LogCaptureFixture) -> None:
    assert _warnings(caplog, calls) == ([], False)


def test_sixteen_threads_of_which_one_is_late_are_faster_than_one(caplog: pytest.LogCaptureFixture) -> None:
    assert _warnings(caplog, [(1e-3, 7e-3)] * 400, threads=16) == ([], False)


@pytest.mark.parametrize(
    "calls",
    [
        [(1e-3, 1e-3)] * 400,  # one share after the other
        [(1e-3, 5e-3), (2e-3, 1e-5)] * 200,  # the forward passes of a hybrid model only
        [*[(1e-3, 0.0)] * 400, *[(1e-3, 2e-3)] * 160],  # later in the life of a process
    ],
)
def test_contention_is_said_once(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    torch.set_num_threads(2)
    (message,), crowded = _warnings(caplog, calls)
    assert crowded
    assert "OMP_WAIT_POLICY=PASSIVE" in message
    assert "torch.set_num_threads(1)" in message


@pytest.mark.parametrize(("threads", "policy"), [(1, "active"), (2, "PASSIVE"), (2, "passive")])
def test_torch_is_not_blamed(
    threads: int, policy: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    torch.set_num_threads(threads)
    (message,), _ = _warnings(caplog, [(1e-3, 2e-3)] * 400)
    assert "num_threads_forward=1" in message
    assert "OMP" not in message


def test_one_thread_is_tried_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(contention, "perf_counter", lambda: clock[0])
    found = Contention()
    for _ in range(80):
        assert not found.is_crowded()
        found.note(2, 1e-3, 5e-3)
    assert found.is_crowded()
    clock[0] = 60.0
    assert not found.is_crowded()


@pytest.mark.parametrize("kept", [False, True])
def test_a_crowded_machine_changes_no_number(kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it becomes crowded between a forward pass and its reverse pass."""
    model = reuploading_circuit(8, 2)
    made = QuantumModule(
        model.circuit, model.encoding_params, model.trainable_params, seed_init=0,
        num_threads_forward=2, num_threads_backward=2,
    ).double()  # fmt: skip
    inputs = torch.rand(96, len(model.encoding_params), dtype=torch.float64, requires_grad=True)

    def results(*crowded: bool) -> list[torch.Tensor]:
        monkeypatch.setattr(CONTENTION, "is_crowded", iter(crowded).__next__)
        made.zero_grad()
        inputs.grad = None
        values = made(inputs)
        values.square().sum().backward()
        assert inputs.grad is not None
        return [values.detach(), inputs.grad, *(p.grad for p in made.parameters() if p.grad is not None)]

    for got, expected in zip(results(kept, *[True] * 9), results(*[False] * 9), strict=True):
        assert torch.equal(got, expected)
