"""Outputs from Pauli coordinates: observables and outcome probabilities, with readout errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from qtm._circuit.observables import Observable
from qtm._engines.density_matrix.schedule import Terms
from qtm._errors import ObservableError

_MAX_READOUT_TERMS = 2**14
Readout = Sequence[tuple[float, float]]  # for each qubit: probability of reading 1 for 0, and 0 for 1


def observable_terms(observables: Sequence[Observable], num_qubits: int, readout: Readout) -> Terms:
    """Observables as measured: with readout errors, a Pauli factor P becomes ``a P + b``.

    Raises:
        ObservableError: a readout error turns one Pauli string into more than 2**14.
    """
    found = []
    for observable in observables:
        terms: dict[int, float] = {}
        for x, z, coefficient in zip(observable.x.tolist(), observable.z.tolist(), observable.coeffs, strict=True):
            for string, weight in _seen(x, z, num_qubits, readout).items():
                terms[string] = terms.get(string, 0.0) + float(coefficient) * weight
        found.append(list(terms.items()))
    return found


def _seen(x: int, z: int, num_qubits: int, readout: Readout) -> dict[int, float]:
    terms = {x << num_qubits | z: 1.0}
    for qubit, (flip_0, flip_1) in enumerate(readout):
        if (x | z) >> qubit & 1 and (flip_0 or flip_1):
            keep = ~(1 << qubit | 1 << num_qubits + qubit)
            a, b = 1 - flip_0 - flip_1, flip_1 - flip_0
            dropped = {string & keep: b * weight for string, weight in terms.items() if b}
            terms = {string: a * weight for string, weight in terms.items()} | dropped
        if len(terms) > _MAX_READOUT_TERMS:
            raise ObservableError(
                f"the readout error of an observable on {(x | z).bit_count()} qubits has too many terms; "
                "use noise without readout error, or measure fewer qubits together"
            )
    return terms


def outcome_terms(qubits: Sequence[int]) -> Terms:
    """Z strings whose expectation values give the probabilities of outcomes: subset s of the qubits at place s."""
    masks = [0]
    for qubit in qubits:
        masks += [mask | 1 << qubit for mask in masks]
    return [[(mask, 1.0)] for mask in masks]


def outcome_matrices(qubits: Sequence[int], readout: Readout) -> list[np.ndarray]:
    """For each qubit the matrix (2, 2) from the values of (I, Z) to the probabilities of reading 0 and 1."""
    fourier = np.array([[0.5, 0.5], [0.5, -0.5]])
    found = []
    for qubit in qubits:
        flip_0, flip_1 = readout[qubit] if readout else (0.0, 0.0)
        found.append(np.array([[1 - flip_0, flip_1], [flip_0, 1 - flip_1]]) @ fourier)
    return found


def apply_to_bits(matrices: Sequence[np.ndarray], values: Tensor) -> Tensor:
    """The tensor product of matrices (2, 2) on values (batch, 2**len(matrices)); matrix j acts on bit j."""
    batch = len(values)
    for j, matrix in enumerate(matrices):
        bits = values.reshape(batch, -1, 2, 1 << j)
        values = torch.einsum("bhis,oi->bhos", bits, torch.as_tensor(matrix, dtype=values.dtype))
    return values.reshape(batch, -1)
