"""Kernels on one thread while several take as long, and what is said about it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch

from qtm import QuantumModule
from qtm._engines.statevector import contention
from qtm._engines.statevector.contention import Contention
from qtm._engines.statevector.thread_pool import run_together
from qtm.circuits import reuploading_circuit

# Seconds of a call on two threads: of the caller's share, of the whole call, and of processors meanwhile.
Call = tuple[float, float, float]
PARALLEL: Call = (1e-3, 1.1e-3, 2.1e-3)
SERIAL: Call = (1e-3, 2e-3, 2e-3)  # the other thread began when the caller was done
TINY: Call = (2e-5, 6e-5, 1.2e-4)  # the threads of qtm spin while they hand over
SPINNING: Call = (1e-3, 3e-3, 6e-3)  # a thread of torch had a core all the time


@pytest.fixture(autouse=True)
def _as_outside_of_tests(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(contention, "_CALLS", 80)
    monkeypatch.setattr(Contention, "_said", False)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def _noted(calls: list[Call], threads: int = 2) -> Contention:
    found = Contention()
    for call in calls:
        found.note(threads, *call)
    return found


@pytest.mark.parametrize(
    ("threads", "calls"),
    [
        (2, [PARALLEL] * 200),
        (2, [PARALLEL] * 40 + [(1e-3, 1.0, 2e-3)] + [PARALLEL] * 39),  # one call was interrupted for a second
        (2, [PARALLEL] * 60 + [SERIAL] * 20),
        (2, [(1e-3, 1.5e-3, 2e-3)] * 200),  # two tiles and three tiles
        (2, [PARALLEL, SERIAL] * 100),  # gains in every other call
        (16, [(1e-3, 8e-3, 16e-3)] * 200),  # one of many is late
        (2, [SERIAL] * 79),  # too few to judge
    ],
)
def test_several_threads_that_gain_stay(threads: int, calls: list[Call]) -> None:
    assert not _noted(calls, threads).is_crowded()


@pytest.mark.parametrize("calls", [[SERIAL] * 80, [SPINNING] * 80, [PARALLEL] * 800 + [SERIAL] * 80])
def test_several_threads_that_gain_nothing_become_one(calls: list[Call]) -> None:
    assert _noted(calls).is_crowded()


def test_several_threads_are_tried_again_ever_later(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(contention, "perf_counter", lambda: now[0])

    def pause(found: Contention) -> float:
        began = now[0]
        while found.is_crowded():
            now[0] += 0.01
        return round(now[0] - began, 1)

    found, pauses = _noted([SERIAL] * 80), []
    for _ in range(6):
        pauses.append(pause(found))
        for call in [SERIAL] * 80:
            found.note(2, *call)
    assert pauses == [0.1, 0.4, 1.6, 6.4, 10.0, 10.0]
    now[0] += 60.0
    for call in [PARALLEL] * 80 + [SERIAL] * 80:
        found.note(2, *call)
    assert pause(found) == 0.1


@pytest.mark.parametrize(
    ("calls", "said"), [([SPINNING] * 400, 1), ([SERIAL] * 400, 0), ([PARALLEL] * 400, 0), ([TINY] * 400, 0)]
)
def test_spinning_threads_of_torch_are_named_once(
    calls: list[Call], said: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="qtm"):
        _noted(calls)
        _noted(calls)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == said
    assert all("OMP_WAIT_POLICY=PASSIVE" in m and "torch.set_num_threads(1)" in m for m in messages)


def test_torch_is_not_named_for_one_thread(caplog: pytest.LogCaptureFixture) -> None:
    torch.set_num_threads(1)
    with caplog.at_level(logging.WARNING, logger="qtm"):
        assert _noted([SPINNING] * 80).is_crowded()
    assert not caplog.records


def test_calls_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([(10.0, 1.0), (11.0, 2.5), (14.0, 6.0)])
    monkeypatch.setattr("qtm._engines.statevector.thread_pool.clock", lambda: next(times))
    seen: list[tuple[float, ...]] = []
    monkeypatch.setattr(Contention, "note", lambda self, *numbers: seen.append(numbers))
    assert run_together([lambda: 1, lambda: 2], contention=Contention()) == [1, 2]
    assert seen == [(2, 1.0, 4.0, 5.0)]


@pytest.mark.parametrize("between", [False, True])
def test_a_crowded_machine_changes_no_number(between: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it becomes crowded between a forward pass and its reverse pass."""
    model = reuploading_circuit(8, 2)
    made = QuantumModule(
        model.circuit, model.encoding_params, model.trainable_params, seed_init=0,
        num_threads_forward=2, num_threads_backward=2,
    ).double()  # fmt: skip
    inputs = torch.rand(96, len(model.encoding_params), dtype=torch.float64, requires_grad=True)

    def results(*crowded: bool) -> list[torch.Tensor]:
        answers = iter(crowded)
        monkeypatch.setattr(Contention, "is_crowded", lambda self: next(answers))
        made.zero_grad()
        inputs.grad = None
        values = made(inputs)
        values.square().sum().backward()
        assert inputs.grad is not None
        return [values.detach(), inputs.grad, *(p.grad for p in made.parameters() if p.grad is not None)]

    for got, expected in zip(results(not between, *[True] * 9), results(*[False] * 9), strict=True):
        assert torch.equal(got, expected)
