"""Any one-qubit channel, and common two-qubit channels, as operations that are simulated exactly.

A transfer matrix here is real, (4**k, 4**k), on Pauli coordinates in the numbering of `qtm._circuit.channels`.
"""

from __future__ import annotations

from math import acos, atan2, pi

import numpy as np

from qtm._circuit.channels import Channel, X, Y, Z
from qtm._circuit.gates import PauliRotation, Primitive

_TOLERANCE = 1e-10
_ROUNDING = 1e-14
_SWAP = np.array([0, 1, 3, 2])  # Qiskit's I, X, Y, Z in the numbering I, X, Z, Y
Operations = tuple[Primitive | Channel, ...]


def from_qiskit_order(matrix: np.ndarray) -> np.ndarray:
    """The matrix of `qiskit.quantum_info.PTM` in the numbering of qtm."""
    places = _SWAP
    while len(places) < len(matrix):
        places = (_SWAP[:, None] << (len(places).bit_length() - 1) | places[None, :]).ravel()
    return np.ascontiguousarray(matrix.real[np.ix_(places, places)])


qiskit_order = from_qiskit_order  # exchanging two letters is its own inverse


def operations(matrix: np.ndarray) -> Operations | None:
    """Channels and rotations on local qubits whose product is a transfer matrix; None if none are found."""
    if np.allclose(matrix, np.eye(len(matrix)), atol=1e-15):
        return ()
    if len(matrix) == 4:
        return _one_qubit(matrix, 0)
    return _two_qubits(matrix) if len(matrix) == 16 else None


# --- One qubit ---------------------------------------------------------------------------------------------------


def _one_qubit(matrix: np.ndarray, qubit: int) -> Operations:
    """Rotation, factors and rotation, by the singular value decomposition of the Bloch matrix, then a shift."""
    letters = [X, Y, Z]
    bloch, shift = matrix[np.ix_(letters, letters)], matrix[letters, 0]
    if np.abs(bloch - np.diag(np.diag(bloch))).max() < 1e-15:
        return (*_factors(np.diag(bloch), qubit), *_shifts(shift, qubit))
    left, values, right = np.linalg.svd(bloch)
    for rotation in (left, right):
        if np.linalg.det(rotation) < 0:
            rotation *= -1
            values = -values
    return (*_rotation(right, qubit), *_factors(values, qubit), *_rotation(left, qubit), *_shifts(shift, qubit))


def _factors(values: np.ndarray, qubit: int) -> Operations:
    x, y, z = map(float, values)
    return () if x == y == z == 1.0 else (Channel("factors", (qubit,), (x, z, y, 0.0)),)


def _shifts(shift: np.ndarray, qubit: int) -> Operations:
    """Shifts of X, Y and Z by the identity's coordinate: a shift of Z each, between rotations by pi/2."""
    found: list[Primitive | Channel] = []
    for letter, amount in zip(("Y", "X", ""), (shift[0], -shift[1], shift[2]), strict=True):
        if abs(amount) > _ROUNDING:
            there = [PauliRotation(letter, (qubit,), (), -pi / 2)] if letter else []
            back = [PauliRotation(letter, (qubit,), (), pi / 2)] if letter else []
            found += [*there, Channel("factors", (qubit,), (1.0, 1.0, 1.0, float(amount))), *back]
    return tuple(found)


def _rotation(matrix: np.ndarray, qubit: int) -> Operations:
    """A rotation of the Bloch sphere as RZ, RY, RZ."""
    middle = acos(min(max(matrix[2, 2], -1.0), 1.0))
    if abs(matrix[2, 2]) < 1 - 1e-14:
        first, last = atan2(matrix[2, 1], -matrix[2, 0]), atan2(matrix[1, 2], matrix[0, 2])
    else:
        sign = 1.0 if matrix[2, 2] > 0 else -1.0
        first, last = 0.0, atan2(sign * matrix[1, 0], sign * matrix[0, 0])
    turns = (("Z", first), ("Y", middle), ("Z", last))
    return tuple(PauliRotation(letter, (qubit,), (), angle) for letter, angle in turns if angle)


# --- Two qubits --------------------------------------------------------------------------------------------------


def _two_qubits(matrix: np.ndarray) -> Operations | None:
    for found in (_scaled_and_shifted(matrix), _product(matrix)):
        if found is not None:
            return found
    return None


def _scaled_and_shifted(matrix: np.ndarray) -> Operations | None:
    """A diagonal, then Z of each qubit gains from the identity: depolarising, then relaxation."""
    factors = np.diag(matrix)
    shifts = [float(shift) if abs(shift) > _ROUNDING else 0.0 for shift in (matrix[Z, 0], matrix[Z << 2, 0])]
    total = np.diag(factors)
    for qubit, shift in enumerate(shifts):
        total = _shift_matrix(qubit, shift) @ total
    if np.abs(total - matrix).max() > _TOLERANCE:
        return None
    return (Channel("two_qubit_factors", (0, 1), (*map(float, factors[1:]), *shifts)),)


def _shift_matrix(qubit: int, amount: float) -> np.ndarray:
    matrix = np.eye(16)
    for string in range(16):
        if not string >> 2 * qubit & 3:
            matrix[string | Z << 2 * qubit, string] = amount
    return matrix


def _product(matrix: np.ndarray) -> Operations | None:
    """A channel on each qubit, perhaps before or after a diagonal."""
    low, high = np.arange(4), np.arange(4) << 2
    first, second = matrix[np.ix_(low, low)], matrix[np.ix_(high, high)]
    if np.abs(np.kron(second, first) - matrix).max() > _TOLERANCE:
        return None
    return (*_one_qubit(first, 0), *_one_qubit(second, 1))
