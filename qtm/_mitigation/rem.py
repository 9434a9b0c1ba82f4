"""Readout-error mitigation (REM)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit.circuit import QuantumCircuit
from qiskit.primitives import PubResult
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.observables_array import ObservablesArray

from qtm._errors import ObservableError, ParameterError, QtmError
from qtm._mitigation.folding import append_native, native_gates, standard_gates
from qtm._mitigation.method import Floats, Mitigated, Steps, values
from qtm._primitives.job_usage import precision_of

_MAX_READOUT_WEIGHT = 10


# Qubit -> (a, b): its Pauli P is read as a P + b.
Factors = dict[int, tuple[float, float]]


@dataclass(frozen=True)
class ReadoutErrors:
    """Readout errors of qubits, given or measured: Z of a qubit is read as ``a Z + b``.

    Args:
        confusion: 2 x 2 matrix ``p(read i | prepared j)`` by qubit, with rows i; None measures them with two
            circuits, once for each qubit.
        shots: shots of those two circuits; None means those of the PUB.
    """

    confusion: Mapping[int, Any] | None = None
    shots: int | None = None
    _factors: Factors = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for qubit, matrix in (self.confusion or {}).items():
            matrix = np.asarray(matrix, dtype=float)
            if matrix.shape != (2, 2) or not np.allclose(matrix.sum(axis=0), 1) or matrix.min() < 0:
                raise ParameterError(
                    f"the confusion matrix of qubit {qubit} must be 2 x 2 with probabilities in columns that "
                    f"sum to 1; got {matrix.tolist()}"
                )
            self._learn(qubit, *(float(z) for z in matrix[0] - matrix[1]))

    def state_dict(self) -> dict[str, Any]:
        """The readout factors of every calibrated qubit."""
        return {"factors": [[qubit, *factors] for qubit, factors in self._factors.items()]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the readout factors of a state."""
        self._factors.clear()
        self._factors.update({qubit: (a, b) for qubit, a, b in state_dict["factors"]})

    def forget(self) -> None:
        """Measure the readout again; given matrices are kept."""
        for qubit in self._factors.keys() - set(self.confusion or {}):
            del self._factors[qubit]

    def _learn(self, qubit: int, zero: float, one: float) -> None:
        """From <Z> as read after preparing 0 and 1."""
        a, b = (zero - one) / 2, (zero + one) / 2
        if a <= 0.05:
            raise QtmError(f"readout of qubit {qubit} hardly depends on its state (a = {a:.3f}); use another qubit")
        self._factors[qubit] = (a, b)

    def _assume_known(self, qubits: Iterable[int]) -> None:
        """In a forecast: these qubits are calibrated, and no job will calibrate them again."""
        for qubit in qubits:
            self._factors.setdefault(qubit, (1.0, 0.0))


def flipped(circuit: QuantumCircuit, qubits: Iterable[int]) -> QuantumCircuit:
    """X on these qubits, on the register and in the native gates of ``circuit``."""
    ones = QuantumCircuit(circuit.num_qubits)
    for qubit in qubits:
        append_native(ones, standard_gates()["x"], [ones.qubits[qubit]], native_gates(circuit))
    return ones


@dataclass(frozen=True)
class Readout(ReadoutErrors):
    """Readout error mitigation: inverse confusion matrices, applied to expectation values.

    A measured Pauli factor P is read as ``a P + b``, so P is ``(read - b) / a``; Pauli strings are expanded.
    This equals applying the inverse of the tensored confusion matrix to the probabilities, but needs only expectation
    values, so it works with any estimator. Errors must be independent between qubits.

    Args:
        confusion: 2 x 2 matrix ``p(read i | prepared j)`` by qubit, with rows i; None measures them with two
            circuits, once for each qubit.
        shots: shots of those two circuits; None means the precision of the PUB.
    """

    def steps(self, pub: EstimatorPub) -> Steps:
        """Run all sub-strings of the observables and, for qubits not yet known, the calibration."""
        strings = _substrings(pub.observables)
        used = _qubits_in(strings)
        missing = sorted(used - set(self._factors))
        results = yield [_strings_pub(pub, strings), *self._calibration(pub, missing)]
        if missing:
            self._calibrate(missing, results[1:])
        evs, stds = values(results[0])  # (strings, *points)
        raw, _ = _combined(pub, strings, evs, stds, {})
        mitigated, errors = _combined(pub, strings, evs, stds, self._factors)
        factors = {q: self._factors[q] for q in sorted(used)}
        return Mitigated(mitigated, errors, raw, {"readout_factors": factors})

    def assume_run(self, pub: EstimatorPub) -> None:
        """The qubits of the observables are calibrated."""
        self._assume_known(_qubits_in(_substrings(pub.observables)))

    def _calibration(self, pub: EstimatorPub, qubits: list[int]) -> list[EstimatorPub]:
        if not qubits:
            return []
        width = pub.circuit.num_qubits
        precision = pub.precision if self.shots is None else precision_of(self.shots)
        observables = ["".join("Z" if width - 1 - i == q else "I" for i in range(width)) for q in qubits]
        prepared = QuantumCircuit(width), flipped(pub.circuit, qubits)
        return [EstimatorPub.coerce((circuit, observables, None, precision)) for circuit in prepared]

    def _calibrate(self, qubits: list[int], results: list[PubResult]) -> None:
        zeros, ones = (values(result)[0] for result in results)
        for qubit, zero, one in zip(qubits, zeros, ones, strict=True):
            self._learn(qubit, float(zero), float(one))


def _qubits_in(strings: Iterable[str]) -> set[int]:
    """Qubits on which a Pauli string has a letter other than I."""
    return {len(s) - 1 - i for s in strings for i, letter in enumerate(s) if letter != "I"}


def _substrings(observables: ObservablesArray) -> list[str]:
    """All Pauli strings that arise by replacing letters with I."""
    found: set[str] = set()
    for label in {label for observable in observables.ravel() for label in observable}:
        if set(label) - set("IXYZ"):
            raise ObservableError(f"observable {label!r} has projectors; write it in I, X, Y and Z")
        weight = len(label) - label.count("I")
        if weight > _MAX_READOUT_WEIGHT:
            raise ObservableError(
                f"{label!r} acts on {weight} qubits; readout mitigation expands it in 2^{weight} strings and "
                f"stops at {_MAX_READOUT_WEIGHT} qubits"
            )
        choices = [("I",) if letter == "I" else ("I", letter) for letter in label]
        found.update("".join(letters) for letters in product(*choices))
    return sorted(found)


def _strings_pub(pub: EstimatorPub, strings: list[str]) -> EstimatorPub:
    shape = (len(strings),) + (1,) * len(pub.parameter_values.shape)
    column = ObservablesArray(np.array([{s: 1.0} for s in strings], dtype=object).reshape(shape))
    return EstimatorPub(pub.circuit, column, pub.parameter_values, pub.precision, validate=False)


def _combined(
    pub: EstimatorPub, strings: list[str], evs: Floats, stds: Floats, factors: Factors
) -> tuple[Floats, Floats]:
    """Values of the PUB's observables from those of the strings (strings, *points)."""
    position = {string: i for i, string in enumerate(strings)}
    weights: NDArray[np.float64] = np.zeros((pub.observables.size, len(strings)))
    for row, observable in zip(weights, pub.observables.ravel(), strict=True):
        for label, coefficient in observable.items():
            for string, weight in _unread(label, factors).items():
                row[position[string]] += float(np.real(coefficient)) * weight
    weights = weights.reshape(*pub.observables.shape, len(strings))
    evs, stds = np.moveaxis(evs, 0, -1), np.moveaxis(stds, 0, -1)
    combined = np.einsum("...s,...s->...", weights, evs)
    return combined, np.sqrt(np.einsum("...s,...s->...", weights**2, stds**2))


def _unread(label: str, factors: Factors) -> dict[str, float]:
    """The Pauli string in terms of measured ones: product of ``(seen - b) / a``."""
    terms = {label: 1.0}
    for i, letter in enumerate(label):
        a, b = factors.get(len(label) - 1 - i, (1.0, 0.0))
        if letter != "I":
            dropped = {t[:i] + "I" + t[i + 1 :]: -b / a * w for t, w in terms.items() if b}
            terms = {t: w / a for t, w in terms.items()} | dropped
    return terms
