"""The sampling noise of a device on exact values: shots in each measurement basis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import pi

import numpy as np
from qiskit.quantum_info import PauliList, SparsePauliOp
from torch import Tensor

from qtm._circuit.flatten import FlatCircuit
from qtm._circuit.gates import PauliRotation
from qtm._circuit.observables import Observable, coerce_observables
from qtm._engines.engine import Engine
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation, Output, Probabilities, Samples
from qtm._engines.registry import choose

SAMPLINGS = ("fixed", "gaussian", "multinomial")
# Up to this many qubits the counts of a basis are drawn from all probabilities, above that shot by shot.
_COUNTED_QUBITS = 14
# exp(-i a/2 P) before measuring Z that makes it a measurement of the key: (P, a).
_TO_Z = {"X": ("Y", -pi / 2), "Y": ("X", pi / 2)}
Prepared = Sequence[Tensor]


def _engine(flat: FlatCircuit, output: Output, options: Options) -> Engine:
    return choose(options.method, flat, output, options).compile(flat, output, options)


class GaussianShots:
    """Normally distributed noise with the variance of the outcomes, independent for each observable.

    An observable is a sum of parts that are measured together; a part A has the variance (<A^2> - <A>^2) / shots.
    """

    def __init__(self, flat: FlatCircuit, observables: Sequence[Observable], options: Options) -> None:
        self.parts: list[list[int]] = []
        operators: list[SparsePauliOp] = []
        for observable in observables:
            own = _measured_together(observable)
            self.parts.append(list(range(len(operators), len(operators) + 2 * len(own), 2)))
            for part in own:
                operators += [part, (part @ part).simplify()]
        self.engine = _engine(flat, Expectation(coerce_observables(operators, observables[0].num_qubits)), options)

    def estimates(
        self, angles: Tensor, prepared: Prepared, shots: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Values and their standard deviations (batch, observables)."""
        found = self.engine.forward(angles, prepared)[0].double().numpy()
        means = np.stack([found[:, own].sum(1) for own in self.parts], 1)
        squares = [found[:, [j + 1 for j in own]] for own in self.parts]  # <A^2> of each part
        variances = np.stack(
            [(square - found[:, own] ** 2).clip(0).sum(1) for square, own in zip(squares, self.parts, strict=True)], 1
        )
        deviations = np.sqrt(variances / shots)
        return rng.normal(means, deviations), deviations


class MultinomialShots:
    """Drawn outcomes: observables measured in one basis share its shots, as on a device.

    Standard deviations are estimated from the outcomes, as a device would have to.
    """

    def __init__(self, flat: FlatCircuit, observables: Sequence[Observable], options: Options) -> None:
        self.num_observables = len(observables)
        self.constants = np.zeros(len(observables))
        terms: dict[str, list[tuple[int, float]]] = {}  # by string: observable, coefficient
        for column, observable in enumerate(observables):
            for label, coefficient in zip(observable.labels(), observable.coeffs.tolist(), strict=True):
                if label.strip("I"):
                    terms.setdefault(label, []).append((column, coefficient))
                else:
                    self.constants[column] += coefficient
        groups = PauliList(list(terms)).group_commuting(qubit_wise=True) if terms else []
        self.bases = [_Basis(flat, group.to_labels(), terms, options) for group in groups]

    def estimates(
        self, angles: Tensor, prepared: Prepared, shots: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Values and their standard deviations (batch, observables)."""
        means = np.tile(self.constants, (len(angles), 1))
        variances = np.zeros_like(means)
        for basis in self.bases:
            for row, (outcomes, counts) in enumerate(basis.shots(angles, prepared, shots, rng)):
                values = basis.values(outcomes, self.num_observables)  # (outcomes, observables)
                mean = counts @ values / shots
                means[row] += mean
                variances[row] += counts @ (values - mean) ** 2 / shots**2
        return means, np.sqrt(variances)


class _Basis:
    """Pauli strings that are measured together."""

    def __init__(
        self, flat: FlatCircuit, labels: Sequence[str], terms: dict[str, list[tuple[int, float]]], options: Options
    ) -> None:
        letters = {q: letter for label in labels for q, letter in enumerate(reversed(label)) if letter != "I"}
        self.qubits = tuple(sorted(letters))
        place = {q: j for j, q in enumerate(self.qubits)}
        self.terms = [
            (sum(1 << place[q] for q, letter in enumerate(reversed(label)) if letter != "I"), *term)
            for label in labels
            for term in terms[label]
        ]
        turns = [PauliRotation(p, (q,), (), a) for q in self.qubits for p, a in [_TO_Z.get(letters[q], ("", 0.0))] if p]
        turned = replace(flat, operations=(*flat.operations, *turns))
        self.counted = len(self.qubits) <= _COUNTED_QUBITS
        output: Output = Probabilities(self.qubits) if self.counted else Samples(self.qubits)
        self.engine = _engine(turned, output, options)

    def shots(
        self, angles: Tensor, prepared: Prepared, shots: int, rng: np.random.Generator
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each sample the observed outcomes (outcomes, qubits) bool, and their counts."""
        if not self.counted:
            drawn = self.engine.sample(angles, prepared, shots, rng)
            found = [np.unique(bits, axis=0, return_counts=True) for bits in drawn]
            return [(outcomes, counts) for outcomes, counts in found]
        chances = self.engine.forward(angles, prepared)[0].double().numpy().clip(0)
        counts = rng.multinomial(shots, chances / chances.sum(1, keepdims=True))
        seen = [np.flatnonzero(row) for row in counts]
        bits = np.arange(len(self.qubits))
        return [((s[:, None] >> bits & 1).astype(bool), row[s]) for s, row in zip(seen, counts, strict=True)]

    def values(self, outcomes: np.ndarray, num_observables: int) -> np.ndarray:
        """Contribution of every outcome (outcomes, qubits) to the observables: (outcomes, observables)."""
        found = np.zeros((len(outcomes), num_observables))
        for mask, column, coefficient in self.terms:
            qubits = [j for j in range(outcomes.shape[1]) if mask >> j & 1]
            found[:, column] += coefficient * (1 - 2 * (outcomes[:, qubits].sum(1) & 1))
        return found


def _measured_together(observable: Observable) -> list[SparsePauliOp]:
    """The observable as a sum of parts, each measured in one basis."""
    if not observable.num_terms:
        return [SparsePauliOp("I" * observable.num_qubits, 0.0)]
    return SparsePauliOp(observable.labels(), observable.coeffs).group_commuting(qubit_wise=True)


Shots = GaussianShots | MultinomialShots


def shots_of(sampling: str, flat: FlatCircuit, observables: Sequence[Observable], options: Options) -> Shots:
    """The noise named by ``sampling``, for a circuit and its observables."""
    kind = GaussianShots if sampling == "gaussian" else MultinomialShots
    return kind(flat, observables, options)
