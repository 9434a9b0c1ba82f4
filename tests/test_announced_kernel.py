"""Kernels that are logged when they are compiled: once for each combination of dtypes, and told apart."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba.core import config

from qtm._engines.announced_kernel import AnnouncedKernel
from qtm._engines.statevector.kernels import compilation

STATE, ANGLES = np.dtype("float32"), np.dtype("float64")


def scaled(state: np.ndarray, angles: np.ndarray) -> float:
    total = 0.0
    for number in range(len(state)):
        total += state[number] * angles[number]
    return total


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AnnouncedKernel:
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compilation, "_said", set())
    return AnnouncedKernel(compilation.jit(scaled))


def run(kernel: AnnouncedKernel, *kind: np.dtype[Any]) -> None:
    assert kernel.for_kind(*kind)(*(np.arange(3).astype(dtype) for dtype in kind)) == 5.0


def compilations(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage().split(" in ")[0] for record in caplog.records if record.levelno == logging.WARNING]


def test_each_combination_of_dtypes_is_logged_once_and_told_apart(kernel, caplog):
    with caplog.at_level(logging.INFO, "qtm"):
        for kind in [(STATE, STATE), (STATE, ANGLES), (ANGLES, ANGLES)]:
            run(kernel, *kind)
            run(kernel, *kind)
    assert compilations(caplog) == [
        f"compiled the kernel 'scaled' for {said}" for said in ("float32", "float32, float64", "float64")
    ]
    assert len(caplog.records) == 6  # loading and compiled


def test_machine_code_from_the_disk_is_not_called_compiled(kernel, caplog):
    run(kernel, STATE, STATE)
    caplog.clear()
    again = AnnouncedKernel(compilation.jit(scaled))
    with caplog.at_level(logging.INFO, "qtm"):
        run(again, STATE, STATE)
    assert compilations(caplog) == [] and "loading the kernel 'scaled' for float32;" in caplog.text


def test_a_kernel_compiled_meanwhile_for_other_dtypes_is_not_taken_for_this_one(kernel, caplog):
    """Single precision comes from the disk while another thread compiles double precision."""
    run(kernel, STATE, STATE)
    inner = compilation.jit(scaled)

    class Overtaken:
        """The kernel, during whose first call another thread compiles it for other dtypes."""

        __name__, stats, overloads, typeof_pyval = "scaled", inner.stats, inner.overloads, inner.typeof_pyval

        def __call__(self, *arguments: np.ndarray) -> Any:
            other = threading.Thread(target=inner, args=(np.ones(3), np.ones(3)))
            other.start()
            other.join()
            return inner(*arguments)

    caplog.clear()
    with caplog.at_level(logging.INFO, "qtm"):
        run(AnnouncedKernel(Overtaken()), STATE, STATE)
    assert inner.stats.cache_misses and compilations(caplog) == []
