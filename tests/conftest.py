"""What every test gets: fixed seeds, a drawing backend without a window, and no real account."""

from __future__ import annotations

import gc
import os
import random
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from qtm._bench import timing
from qtm._engines.statevector import contention
from qtm._engines.statevector.cone_engine import ConeEngine as Engine
from qtm._errors import MissingPackage

os.environ.setdefault("MPLBACKEND", "Agg")
if not torch.cuda.is_available():  # the kernels for GPUs run in Triton's interpreter, which it must know on import
    os.environ.setdefault("TRITON_INTERPRET", "1")

SEED = 20250
contention._CALLS = 10**9  # tests share their cores, and several threads stay several
timing.PAUSE = 0.0  # no test looks at a time
# Without a GPU, `torch.manual_seed` keeps a stack trace of each call for the moment at which CUDA starts.
seed_torch = torch.manual_seed if torch.cuda.is_available() else torch.default_generator.manual_seed


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    """Tests that draw from a global generator draw the same numbers in any order of tests."""
    random.seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002 (code under test may use the global generator)
    seed_torch(SEED)


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reaches a paid service through the environment of whoever runs it."""
    for name in [name for name in os.environ if name.startswith(("QISKIT_IBM_", "IBM_QUANTUM_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded generator of its own for each test."""
    return np.random.default_rng(SEED)


@pytest.fixture
def sweeps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many lanes each reverse sweep had."""
    seen: list[int] = []
    original = Engine.vjp

    def vjp(self: Engine, angles: np.ndarray, *arguments: Any, **options: Any) -> Any:
        seen.append(len(angles))
        return original(self, angles, *arguments, **options)

    monkeypatch.setattr(Engine, "vjp", vjp)
    return seen


def pytest_configure() -> None:
    """Collection makes a million objects that stay; looking for garbage among them finds none."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Nor does each search for garbage during the tests look at them, so that one takes no second but milliseconds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all but every n-th case of a test marked ``thinned(n)`` as slow."""
    seen: Counter[tuple[str, str]] = Counter()
    for item in items:
        if (marker := item.get_closest_marker("thinned")) is not None:
            test = (item.path.name, item.name.split("[")[0])
            if seen[test] % marker.args[0]:
                item.add_marker(pytest.mark.slow)
            seen[test] += 1


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """A test that asks for mitiq is skipped where there is none: it stops at Python 3.12."""
    try:
        return (yield)
    except MissingPackage as error:
        missing = getattr(error.__cause__, "name", None) or ""
        if missing.partition(".")[0] != "mitiq" or sys.version_info < (3, 13):
            raise
        pytest.skip(str(error))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a case by its argument where its repr is an address, so that every process collects the same names."""
    return argname if " at 0x" in repr(val) else None
