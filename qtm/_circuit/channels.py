"""Noise channels as data: every channel is a diagonal of Pauli factors, followed by shifts of the identity.

In the Pauli basis a channel on k qubits is a real matrix of 4**k rows. For all channels of the table that matrix is
``(1 + shifts) @ diag(factors)``: Pauli channels only have factors; relaxation and reset also add a multiple of the
identity's coordinate to that of Z.

A Pauli string on k qubits is numbered by two bits per qubit, ``x | z << 1`` at bits 2q and 2q + 1: I, X, Z, Y are
0, 1, 2, 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qtm._errors import ParameterError

I, X, Z, Y = range(4)


@dataclass(frozen=True, slots=True)
class Channel:
    """A row of `CHANNELS` on qubits; each strength is a number (float) or the index of an angle (int)."""

    name: str
    qubits: tuple[int, ...]
    strengths: tuple[int | float, ...]


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """A channel as functions of its strengths, which may be floats, NumPy arrays or torch tensors.

    Attributes:
        num_qubits: qubits it acts on.
        strengths: the name of each strength.
        upper: the largest value of each strength; the least is 0. None: no limits.
        factors: the 4**num_qubits diagonal entries.
        shifts: pairs (qubit, coefficient): the coordinate of Z on that qubit gains coefficient times that of I.
    """

    num_qubits: int
    strengths: tuple[str, ...]
    upper: tuple[float, ...] | None
    factors: Callable[..., Sequence[Any]]
    shifts: Callable[..., Sequence[tuple[int, Any]]] = lambda *_: ()


def _pauli(px: Any, py: Any, pz: Any) -> Sequence[Any]:
    return (1.0, 1 - 2 * (py + pz), 1 - 2 * (px + py), 1 - 2 * (px + pz))  # I, X, Z, Y


def anticommute(a: int, b: int) -> bool:
    """Whether two numbered strings anticommute."""
    swapped = (b & 0x5555) << 1 | (b >> 1) & 0x5555
    return bool((a & swapped).bit_count() & 1)


def _pauli_mixture(*chances: Any) -> Sequence[Any]:
    """Factors of a mixture: ``chances[j - 1]`` is the probability of string j, the remainder that of the identity."""
    size = len(chances) + 1
    return [1 - 2 * sum(p for j, p in enumerate(chances, 1) if anticommute(i, j)) for i in range(size)]


def _damped(transversal: Any, population: Any) -> Sequence[Any]:
    return (1.0, transversal, population, transversal)


_TWO_QUBIT_STRINGS = tuple(f"p_{'IXZY'[j >> 2]}{'IXZY'[j & 3]}" for j in range(1, 16))
_E = float(np.e)

CHANNELS: dict[str, ChannelRow] = {
    "bit_flip": ChannelRow(1, ("p",), (1.0,), lambda p: _pauli(p, 0.0, 0.0)),
    "phase_flip": ChannelRow(1, ("p",), (1.0,), lambda p: _pauli(0.0, 0.0, p)),
    "bit_phase_flip": ChannelRow(1, ("p",), (1.0,), lambda p: _pauli(0.0, p, 0.0)),
    "pauli": ChannelRow(1, ("p_X", "p_Y", "p_Z"), (1.0, 1.0, 1.0), _pauli),
    # Probabilities of the strings 1 .. 15 in the numbering above; the first letter of a name is the second qubit.
    "two_qubit_pauli": ChannelRow(2, _TWO_QUBIT_STRINGS, (1.0,) * 15, _pauli_mixture),
    # rho -> (1 - p) rho + p I / 2^k, as Qiskit Aer defines it
    "depolarizing": ChannelRow(1, ("p",), (4 / 3,), lambda p: (1.0, 1 - p, 1 - p, 1 - p)),
    "two_qubit_depolarizing": ChannelRow(2, ("p",), (16 / 15,), lambda p: (1.0, *[1 - p] * 15)),
    "amplitude_damping": ChannelRow(
        1,
        ("gamma", "excited"),
        (1.0, 1.0),
        lambda gamma, excited: _damped((1 - gamma) ** 0.5, 1 - gamma),
        lambda gamma, excited: ((0, gamma * (1 - 2 * excited)),),
    ),
    "phase_damping": ChannelRow(1, ("lam",), (1.0,), lambda lam: _damped((1 - lam) ** 0.5, 1.0)),
    # Rates in units of the gate's time: time / T1 and time / T2, with T2 <= 2 T1
    "thermal_relaxation": ChannelRow(
        1,
        ("time/T1", "time/T2", "excited"),
        (float("inf"), float("inf"), 1.0),
        lambda r1, r2, excited: _damped(_E**-r2, _E**-r1),
        lambda r1, r2, excited: ((0, (1 - _E**-r1) * (1 - 2 * excited)),),
    ),
    "reset": ChannelRow(
        1,
        ("p_0", "p_1"),
        (1.0, 1.0),
        lambda p0, p1: (1.0, *[1 - p0 - p1] * 3),
        lambda p0, p1: ((0, p0 - p1),),
    ),
    # Any diagonal with any shifts, such as a device's depolarising error followed by relaxation.
    "factors": ChannelRow(1, ("X", "Z", "Y", "shift"), None, lambda *f: (1.0, *f[:3]), lambda *f: ((0, f[3]),)),
    "two_qubit_factors": ChannelRow(
        2,
        (*(name.replace("p_", "f_") for name in _TWO_QUBIT_STRINGS), "shift_0", "shift_1"),
        None,
        lambda *f: (1.0, *f[:15]),
        lambda *f: ((0, f[15]), (1, f[16])),
    ),
}

_PROBABILITIES = ("pauli", "two_qubit_pauli", "reset")  # whose strengths sum to at most 1


def channel(name: str, qubits: Sequence[int], *strengths: float) -> Channel:
    """A channel with strengths that are numbers, checked.

    Raises:
        ParameterError: the name is unknown, or the number of qubits or a strength does not fit.

    Example:
        >>> channel("depolarizing", [0], 0.01).qubits
        (0,)
    """
    row = CHANNELS.get(name)
    if row is None:
        raise ParameterError(f"unknown channel {name!r}; choose one of {', '.join(CHANNELS)}")
    if len(qubits) != row.num_qubits or len(strengths) != len(row.strengths):
        raise ParameterError(
            f"{name!r} acts on {row.num_qubits} qubits with {len(row.strengths)} strengths "
            f"({', '.join(row.strengths)}); got {len(qubits)} qubits and {len(strengths)} strengths"
        )
    for what, value, upper in zip(row.strengths, strengths, row.upper or (), strict=False):
        if not 0 <= value <= upper * (1 + 1e-12):
            raise ParameterError(f"{what} of {name!r} must be in [0, {upper}], not {value}")
    if name in _PROBABILITIES and sum(strengths) > 1 + 1e-12:
        raise ParameterError(f"the probabilities of {name!r} sum to {sum(strengths)}, which is more than 1")
    return Channel(name, tuple(qubits), tuple(map(float, strengths)))


def pauli_transfer_matrix(name: str, strengths: Sequence[float]) -> np.ndarray:
    """The channel as a matrix (4**k, 4**k) on coordinates of Pauli strings, in the numbering of this module."""
    row = CHANNELS[name]
    matrix = np.eye(4**row.num_qubits)
    for qubit, coefficient in row.shifts(*strengths):
        for string in range(len(matrix)):
            if not string >> 2 * qubit & 3:
                matrix[string | Z << 2 * qubit] += coefficient * matrix[string]
    return matrix @ np.diag(np.asarray(row.factors(*strengths), float))
