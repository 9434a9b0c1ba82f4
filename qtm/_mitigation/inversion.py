"""Known noise is inverted: that of gates by quasi-probabilities (PEC), that of readout exactly (REM)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qiskit.circuit import QuantumCircuit
from qiskit.circuit.library import get_standard_gate_name_mapping
from qiskit.primitives import PubResult
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.providers import BackendV2
from qiskit.quantum_info import PTM, SuperOp

from qtm._errors import CircuitError, ObservableError, ParameterError, QtmError, require
from qtm._mitigation.extrapolation import linear_combination
from qtm._mitigation.folding import append_native, native_gates
from qtm._mitigation.steps import Floats, Mitigated, Steps, stacked, values, with_circuit

if TYPE_CHECKING:
    from qiskit_aer.noise import NoiseModel

_MAX_READOUT_WEIGHT = 10
# Pauli string, first letter on the gate's first qubit -> its quasi-probability after the noisy gate.
Quasi = dict[str, float]
# Qubit -> (a, b): its Pauli P is seen as a P + b.
Factors = dict[int, tuple[float, float]]


@dataclass(frozen=True)
class ErrorCancellation:
    """Probabilistic error cancellation (Temme, Bravyi, Gambetta, arXiv:1612.02058).

    Random Paulis after the gates invert the Pauli part of their noise. The circuit without any is run once
    with its exact weight; only the others are sampled, each distinct one run once.

    Args:
        noise: the gates' noise: an Aer ``NoiseModel`` or a backend (its Pauli-twirled channels), or the
            probability of a depolarizing error on each qubit of a gate (mitiq's ``noise_level``), one number
            or one per gate name, e.g. ``{"cx": 0.01}``.
        num_samples: random circuits with at least one Pauli.
        seed: for the sampling.
    """

    noise: float | Mapping[str, float] | NoiseModel | BackendV2
    num_samples: int = 200
    seed: int | None = None
    _channels: dict[Any, Quasi] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.num_samples < 1 or self.num_samples != int(self.num_samples):
            raise ParameterError(f"num_samples must be a whole number from 1 up, got {self.num_samples!r}")
        if isinstance(self.noise, (int, float, Mapping)):
            require("mitiq", extra="mitigation")
        else:
            self._channels.update(_model_channels(self.noise))

    def steps(self, pub: EstimatorPub) -> Steps:
        """Run the circuit and its random variants; add up with their signs."""
        noisy = self._noisy_gates(pub.circuit)
        if not noisy:
            raise CircuitError("no gate of the circuit has noise according to the option noise")
        patterns, weights = self._sample(list(noisy.values()))
        circuits = [_with_paulis(pub.circuit, noisy, pattern) for pattern in patterns]
        results = yield [with_circuit(pub, circuit) for circuit in circuits]
        evs, stds = stacked(results)
        total, errors = linear_combination(weights, evs, stds)
        sampling = self._sampling_error(weights[1:], evs[1:])
        gamma = math.prod(_norm(quasi) for quasi in noisy.values())
        metadata = {"gamma": gamma, "num_circuits": len(circuits), "num_samples": self.num_samples}
        return Mitigated(total, np.hypot(errors, sampling), evs[0], metadata)

    def _noisy_gates(self, circuit: QuantumCircuit) -> dict[int, Quasi]:
        """Position of each noisy gate -> the inverse of its noise."""
        found = {}
        for position, item in enumerate(circuit.data):
            qubits = tuple(circuit.find_bit(q).index for q in item.qubits)
            quasi = self._inverse(item.operation.name, qubits)
            if quasi is not None:
                found[position] = quasi
        return found

    def _inverse(self, name: str, qubits: tuple[int, ...]) -> Quasi | None:
        if isinstance(self.noise, (int, float, Mapping)):
            known = get_standard_gate_name_mapping().get(name)
            level = self.noise.get(name, 0) if isinstance(self.noise, Mapping) else self.noise
            if not level or known is None or name in ("measure", "reset", "delay"):
                return None
            key = (level, len(qubits))
            if key not in self._channels:
                self._channels[key] = _depolarizing_inverse(float(level), len(qubits))
            return self._channels[key]
        return self._channels.get((name, qubits), self._channels.get((name, None)))

    def _sample(self, quasis: list[Quasi]) -> tuple[list[tuple[str, ...]], Floats]:
        """Distinct patterns (a Pauli string per noisy gate), the first without Paulis, and their weights."""
        nothing = tuple("I" * len(next(iter(quasi))) for quasi in quasis)
        alone = math.prod(quasi[n] for quasi, n in zip(quasis, nothing, strict=True))
        gamma = math.prod(_norm(quasi) for quasi in quasis)
        weights = {nothing: alone}
        for pattern in _patterns(quasis, nothing, self.num_samples, np.random.default_rng(self.seed)):
            sign = math.prod(np.sign(quasi[p]) for quasi, p in zip(quasis, pattern, strict=True))
            weights[pattern] = weights.get(pattern, 0.0) + sign * (gamma - abs(alone)) / self.num_samples
        return list(weights), np.array(list(weights.values()))

    def _sampling_error(self, weights: Floats, evs: Floats) -> Floats:
        """Standard error of the sampled part: of ``num_samples`` draws with values ``+- rest * ev``."""
        rest = np.abs(weights).sum()
        square = np.tensordot(np.abs(weights) * rest, evs**2, 1)
        mean = np.tensordot(weights, evs, 1)
        return np.sqrt(np.maximum(square - mean**2, 0) / self.num_samples)


def _norm(quasi: Quasi) -> float:
    return sum(map(abs, quasi.values()))


def _patterns(
    quasis: list[Quasi], nothing: tuple[str, ...], count: int, rng: np.random.Generator
) -> list[tuple[str, ...]]:
    """Random patterns with at least one Pauli, with probabilities as the sizes of their weights."""
    stay = np.array([abs(quasi[n]) / _norm(quasi) for quasi, n in zip(quasis, nothing, strict=True)])
    # The chance that gate k is the first to be followed by a Pauli.
    begin = np.concatenate(([1.0], np.cumprod(stay)[:-1])) * (1 - stay)
    first = rng.choice(len(quasis), count, p=begin / begin.sum())
    columns = []
    for k, (quasi, none) in enumerate(zip(quasis, nothing, strict=True)):
        others = [label for label in quasi if label != none]
        sizes = np.array([abs(quasi[label]) for label in others])
        column = np.array(others)[rng.choice(len(others), count, p=sizes / sizes.sum())]
        column[(first > k) | ((first < k) & (rng.random(count) < stay[k]))] = none
        columns.append(column.tolist())
    return list(zip(*columns, strict=True))


def _with_paulis(circuit: QuantumCircuit, noisy: dict[int, Quasi], pattern: tuple[str, ...]) -> QuantumCircuit:
    gates, basis = get_standard_gate_name_mapping(), native_gates(circuit)
    inserted = dict(zip(noisy, pattern, strict=True))
    result = circuit.copy_empty_like()
    for position, item in enumerate(circuit.data):
        result.append(item)
        for letter, qubit in zip(inserted.get(position, ""), item.qubits, strict=False):
            if letter != "I":
                append_native(result, gates[letter.lower()], [qubit], basis)
    return result


def _depolarizing_inverse(level: float, num_qubits: int) -> Quasi:
    """From mitiq's representation of a gate with local depolarizing noise."""
    cirq = require("cirq", extra="mitigation")
    representations = require("mitiq.pec.representations", extra="mitigation")
    if num_qubits > 2:
        raise CircuitError(f"no inverse for noise of a gate on {num_qubits} qubits; transpile to 2-qubit gates")
    if not 0 < level < 0.75:
        raise ParameterError(f"a depolarizing noise level that can be inverted lies below 3/4, got {level}")
    qubits = cirq.LineQubit.range(num_qubits)
    ideal = cirq.Circuit(cirq.H(qubits[0]) if num_qubits == 1 else cirq.CZ(*qubits))
    made = representations.represent_operation_with_local_depolarizing_noise(ideal, level)
    quasi: Quasi = {}
    for weight, operation in made.basis_expansion:
        letters = ["I"] * num_qubits
        for pauli in list(operation.circuit.all_operations())[1:]:
            letters[pauli.qubits[0].x] = str(pauli.gate)
        quasi["".join(letters)] = float(weight)
    return quasi


def _model_channels(noise: NoiseModel | BackendV2) -> dict[Any, Quasi]:
    """(gate, qubits) -> inverse of its Pauli-twirled noise; qubits None stands for all others."""
    aer = require("qiskit_aer.noise", extra="aer")
    model = aer.NoiseModel.from_backend(noise) if isinstance(noise, BackendV2) else noise
    if not isinstance(model, aer.NoiseModel):
        raise ParameterError(f"noise must be a number, a dict, a NoiseModel or a backend; got {noise!r}")
    channels: dict[Any, Quasi] = {}
    for error in model.to_dict()["errors"]:
        if error["type"] != "qerror":
            continue
        inverse = _pauli_inverse(SuperOp(aer.QuantumError.from_dict(error)))
        for name in set(error["operations"]) & set(get_standard_gate_name_mapping()) - {"reset", "measure"}:
            qubits = error.get("gate_qubits") or [None]
            channels.update({(name, q if q is None else tuple(q)): inverse for q in qubits})
    return channels


def _pauli_inverse(channel: SuperOp) -> Quasi:
    """Quasi-probabilities of the inverse of a channel's Pauli part.

    A Pauli channel multiplies each Pauli P by ``f_P = sum_Q q_Q s_PQ``, with ``s_PQ`` the sign of their
    commutation; its inverse by ``1 / f_P``, and ``s`` is its own inverse up to ``4^n``.
    """
    num_qubits = int(channel.num_qubits)
    fidelities = np.real(np.diag(PTM(channel).data))  # in the order of the labels below
    if fidelities.min() <= 0:
        raise ParameterError("the noise of a gate is too strong to be inverted")
    labels = ["".join(letters) for letters in product("IXYZ", repeat=num_qubits)]
    one = np.array([[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]])
    signs = one
    for _ in range(num_qubits - 1):
        signs = np.kron(signs, one)
    quasi = signs @ (1 / fidelities) / 4**num_qubits
    # Qiskit's labels have the gate's first qubit last.
    return {label[::-1]: float(q) for label, q in zip(labels, quasi, strict=True)}


@dataclass(frozen=True)
class Readout:
    """Readout error mitigation: inverse confusion matrices, applied to expectation values.

    A measured Pauli factor P is seen as ``a P + b``, so P is ``(seen - b) / a``; a string is expanded.
    This equals applying the inverse of the tensored confusion matrix to the probabilities, without needing
    them: it works around any estimator. Errors must be independent between qubits.

    Args:
        confusion: qubit -> 2 x 2 matrix of ``p(seen i | prepared j)``, rows seen; None measures them with two
            circuits, once for each qubit.
        shots: of those two circuits; None means the precision of the PUB.
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

    def steps(self, pub: EstimatorPub) -> Steps:
        """Run all sub-strings of the observables and, for qubits not yet known, the calibration."""
        strings = _substrings(pub.observables)
        used = {len(s) - 1 - i for s in strings for i, letter in enumerate(s) if letter != "I"}
        missing = sorted(used - set(self._factors))
        results = yield [_strings_pub(pub, strings), *self._calibration(pub, missing)]
        if missing:
            self._calibrate(missing, results[1:])
        evs, stds = values(results[0])  # (strings, *points)
        raw, _ = _combined(pub, strings, evs, stds, {})
        mitigated, errors = _combined(pub, strings, evs, stds, self._factors)
        factors = {q: self._factors[q] for q in sorted(used)}
        return Mitigated(mitigated, errors, raw, {"readout_factors": factors})

    def _calibration(self, pub: EstimatorPub, qubits: list[int]) -> list[EstimatorPub]:
        if not qubits:
            return []
        width = pub.circuit.num_qubits
        precision = pub.precision if self.shots is None else self.shots**-0.5
        observables = ["".join("Z" if width - 1 - i == q else "I" for i in range(width)) for q in qubits]
        ones = QuantumCircuit(width)
        for qubit in qubits:
            gate = get_standard_gate_name_mapping()["x"]
            append_native(ones, gate, [ones.qubits[qubit]], native_gates(pub.circuit))
        return [
            EstimatorPub.coerce((circuit, observables, None, precision)) for circuit in (QuantumCircuit(width), ones)
        ]

    def _calibrate(self, qubits: list[int], results: list[PubResult]) -> None:
        zeros, ones = (values(result)[0] for result in results)
        for qubit, zero, one in zip(qubits, zeros, ones, strict=True):
            self._learn(qubit, float(zero), float(one))

    def _learn(self, qubit: int, zero: float, one: float) -> None:
        """From <Z> as seen after preparing 0 and 1."""
        a, b = (zero - one) / 2, (zero + one) / 2
        if a <= 0.05:
            raise QtmError(f"readout of qubit {qubit} hardly depends on its state (a = {a:.3f}); use another")
        self._factors[qubit] = (a, b)


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
