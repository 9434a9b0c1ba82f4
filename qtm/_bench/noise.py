"""A training step under Pauli noise, compared with the noiseless step and with other methods in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from qtm._bench.compare import Row, now
from qtm._bench.timing import alternate
from qtm._bench.workloads import Case, QtmRunner
from qtm._errors import QtmError, require
from qtm.noise import local_pauli_noise

# Larger circuits take Aer with parameter shifts minutes for a step.
_AER_QUBITS = 4
TRAJECTORIES = 64
_AGREE = 1e-8


def aer_estimator(pauli: float) -> Any:
    """Aer's own estimator on its density matrix: exact values."""
    options = {"method": "density_matrix", "noise_model": local_pauli_noise(pauli)}
    return require("qiskit_aer.primitives", extra="aer").EstimatorV2(options={"backend_options": options})


def rows(case: Case, threads: int, repeats: int) -> Iterator[Row]:
    """One row for each of the other methods."""
    ours = QtmRunner(case, "double", threads)
    plain = replace(case, pauli=0.0)
    many = replace(plain, batch=TRAJECTORIES * case.batch)
    noise, sampled = local_pauli_noise(case.pauli), ("trajectories", {"count": TRAJECTORIES, "seed": 0})
    others: dict[str, Callable[[], QtmRunner]] = {
        "qtm, without noise": lambda: QtmRunner(plain, "double", threads),
        f"qtm, without noise, {TRAJECTORIES} times the samples": lambda: QtmRunner(many, "double", threads),
        f"qtm, {TRAJECTORIES} trajectories": lambda: QtmRunner(plain, "double", threads, noise=noise, method=sampled),
    }
    if case.x <= _AER_QUBITS:
        others["qiskit-aer, parameter shift"] = lambda: _checked(
            QtmRunner(plain, "double", threads, "param-shift", estimator=aer_estimator(case.pauli)), ours
        )
    for name, make in others.items():
        own, other = alternate([partial(each.timed, "combined") for each in (ours, make())], repeats)
        row = Row(case.x, "combined", name, "double", "reverse", case.batch, threads, measured=now())
        row.qtm_ms, row.peer_ms, row.samples, row.repeats = own.summary(), other.summary(), case.batch, repeats
        yield row


def _checked(runner: QtmRunner, ours: QtmRunner) -> QtmRunner:
    """The runner, after a check that it computes the same."""
    for mine, other in zip(ours.result(), runner.result(), strict=True):
        if not np.abs(mine - other).max() < _AGREE:
            raise QtmError(f"values or gradients are off by {np.abs(mine - other).max():.1e}")
    return runner
