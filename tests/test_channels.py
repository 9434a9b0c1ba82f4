"""Every row of the table of channels against Qiskit Aer's definition of it."""

from __future__ import annotations

from collections.abc import Callable
from math import exp

import numpy as np
import pytest
import torch
from noise_cases import STRENGTHS, qiskit_order
from qiskit.quantum_info import PTM, SuperOp

from qtm._circuit.channels import CHANNELS, channel, pauli_transfer_matrix
from qtm._errors import ParameterError

noise = pytest.importorskip("qiskit_aer.noise")


def _pauli(**chances: float) -> object:
    return noise.pauli_error([*chances.items(), ("I" * len(next(iter(chances))), 1 - sum(chances.values()))])


ORACLES: dict[str, Callable[..., object]] = {
    "bit_flip": lambda p: _pauli(X=p),
    "phase_flip": lambda p: _pauli(Z=p),
    "bit_phase_flip": lambda p: _pauli(Y=p),
    "pauli": lambda px, py, pz: _pauli(X=px, Y=py, Z=pz),
    "two_qubit_pauli": lambda *p: _pauli(**{f"{'IXZY'[j >> 2]}{'IXZY'[j & 3]}": v for j, v in enumerate(p, 1)}),
    "depolarizing": lambda p: noise.depolarizing_error(p, 1),
    "two_qubit_depolarizing": lambda p: noise.depolarizing_error(p, 2),
    "amplitude_damping": lambda gamma, excited: noise.amplitude_damping_error(gamma, excited),
    "phase_damping": lambda lam: noise.phase_damping_error(lam),
    "thermal_relaxation": lambda r1, r2, excited: noise.thermal_relaxation_error(1 / r1, 1 / r2, 1.0, excited),
    "reset": lambda p0, p1: noise.reset_error(p0, p1),
}


@pytest.mark.parametrize("name", CHANNELS)
def test_a_row_is_what_aer_calls_it(name: str) -> None:
    own = qiskit_order(pauli_transfer_matrix(name, STRENGTHS[name]))
    known = name in ORACLES
    oracle = PTM(SuperOp(ORACLES[name](*STRENGTHS[name]))).data.real if known else _by_definition(name)
    np.testing.assert_allclose(own, oracle, atol=1e-12)


def _by_definition(name: str) -> np.ndarray:
    """Factors and shifts as products of one-qubit matrices, entry by entry."""
    values = STRENGTHS[name]
    if name == "factors":
        x, z, y, shift = values
        return np.array([[1, 0, 0, 0], [0, x, 0, 0], [0, 0, y, 0], [shift, 0, 0, z]])
    order = [0, 1, 3, 2]
    diagonal = np.diag([1.0, *values[:15]])
    places = [order[j >> 2] << 2 | order[j & 3] for j in range(16)]
    diagonal = diagonal[np.ix_(places, places)]
    one, two = np.eye(4), np.eye(4)
    one[3, 0], two[3, 0] = values[15], values[16]
    return np.kron(two, one) @ diagonal


@pytest.mark.parametrize("name", CHANNELS)
def test_strengths_may_be_tensors(name: str) -> None:
    row, values = CHANNELS[name], torch.tensor(STRENGTHS[name], dtype=torch.float64)
    entries = [*row.factors(*values), *(c for _, c in row.shifts(*values))]
    plain = [*row.factors(*STRENGTHS[name]), *(c for _, c in row.shifts(*STRENGTHS[name]))]
    np.testing.assert_allclose([float(e) for e in entries], plain, rtol=1e-14)


def test_thermal_relaxation_is_in_units_of_the_gate() -> None:
    matrix = pauli_transfer_matrix("thermal_relaxation", (0.5, 0.7, 0.0))
    np.testing.assert_allclose(np.diag(matrix), [1, exp(-0.7), exp(-0.5), exp(-0.7)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("noise", [0], 0.1), "unknown channel"),
        (("bit_flip", [0, 1], 0.1), "acts on 1 qubits"),
        (("bit_flip", [0], 0.1, 0.2), "2 strengths"),
        (("bit_flip", [0], 1.1), "must be in"),
        (("bit_flip", [0], -0.1), "must be in"),
        (("pauli", [0], 0.5, 0.5, 0.5), "sum to"),
    ],
)
def test_operations_that_are_not_channels_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        channel(*arguments)
