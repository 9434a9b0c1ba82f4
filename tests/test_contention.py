"""A warning, once, where threads of kernels wait for a core."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch

from qtm._engines.statevector.contention import Contention


@pytest.fixture(autouse=True)
def _threads_of_torch() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def _warnings(caplog: pytest.LogCaptureFixture, calls: list[tuple[float, float]]) -> list[str]:
    contention = Contention()
    with caplog.at_level(logging.WARNING, logger="qtm"):
        for computed, waited in calls:
            contention.note(computed, waited)
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    "calls",
    [
        [(1e-3, 1e-4)] * 400,  # shares of equal size
        [(1e-3, 6e-4)] * 400,  # two tiles and three tiles
        [(1e-5, 4e-5)] * 400,  # waking up
        [(1e-3, 5e-3), *[(1e-3, 0.0)] * 7] * 50,  # now and then
    ],
)
def test_what_is_no_contention(calls: list[tuple[float, float]], caplog: pytest.LogCaptureFixture) -> None:
    assert _warnings(caplog, calls) == []


@pytest.mark.parametrize(
    "calls",
    [
        [(1e-3, 1e-3)] * 400,  # one share after the other
        [(1e-3, 5e-3), (2e-3, 1e-5)] * 200,  # the forward passes of a hybrid model only
        [*[(1e-3, 0.0)] * 400, *[(1e-3, 2e-3)] * 160],  # later in the life of a process
    ],
)
def test_contention_is_said_once(
    calls: list[tuple[float, float]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    torch.set_num_threads(2)
    (message,) = _warnings(caplog, calls)
    assert "OMP_WAIT_POLICY=PASSIVE" in message
    assert "torch.set_num_threads(1)" in message


@pytest.mark.parametrize(("threads", "policy"), [(1, "active"), (2, "PASSIVE"), (2, "passive")])
def test_torch_is_not_blamed(
    threads: int, policy: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    torch.set_num_threads(threads)
    (message,) = _warnings(caplog, [(1e-3, 2e-3)] * 400)
    assert "num_threads_forward=1" in message
    assert "OMP" not in message
