"""Probabilistic error cancellation (PEC): known gate noise is inverted by quasi-probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from qiskit.circuit import QuantumCircuit
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.providers import BackendV2
from qiskit.quantum_info import PTM, SuperOp

from qtm._errors import CircuitError, ParameterError, require
from qtm._mitigation.folding import append_native, native_gates, standard_gates
from qtm._mitigation.method import Drawing, Floats, Mitigated, Steps, linear_combination, stacked, with_circuit

if TYPE_CHECKING:
    from qiskit_aer.noise import NoiseModel

# Pauli string, first letter on the gate's first qubit -> its quasi-probability after the noisy gate.
Quasi = dict[str, float]


@dataclass(frozen=True)
class ErrorCancellation(Drawing):
    """Probabilistic error cancellation (Temme, Bravyi, Gambetta, arXiv:1612.02058).

    Random Paulis after the gates invert the Pauli part of their noise. The circuit without Paulis is run once
    with its exact weight; only the others are sampled, and each distinct circuit is run once.

    Args:
        noise: noise of the gates: an Aer ``NoiseModel`` or a backend (its Pauli-twirled channels), or the
            probability of a depolarizing error on each qubit of a gate (mitiq's ``noise_level``), one number
            or one per gate name, e.g. ``{"cx": 0.01}``.
        num_samples: number of random circuits with at least one Pauli.
        seed: seed of the sampling; every PUB draws new samples.
    """

    noise: float | Mapping[str, float] | NoiseModel | BackendV2
    num_samples: int = 200
    seed: int | None = None
    _channels: dict[Any, Quasi] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.num_samples < 1 or self.num_samples != int(self.num_samples):
            raise ParameterError(f"num_samples must be an integer of at least 1, got {self.num_samples!r}")
        if isinstance(self.noise, (int, float, Mapping)):
            require("mitiq", extra="mitigation")
        else:
            self._channels.update(_model_channels(self.noise))
        self._start()

    def state_dict(self) -> dict[str, Any]:
        """Seed and position of the draws, and the channels of a backend, whose calibration changes during a run."""
        state = super().state_dict()
        if isinstance(self.noise, BackendV2):
            state["channels"] = [
                [name, None if qubits is None else list(qubits), dict(quasi)]
                for (name, qubits), quasi in self._channels.items()
            ]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state returned by `state_dict`."""
        super().load_state_dict(state_dict)
        if "channels" in state_dict:
            self._channels.clear()
            self._channels.update(
                {
                    (name, None if qubits is None else tuple(qubits)): dict(quasi)
                    for name, qubits, quasi in state_dict["channels"]
                }
            )

    def forget(self) -> None:
        """Read the noise of the backend's latest calibration."""
        if isinstance(self.noise, BackendV2):
            self._channels.clear()
            self._channels.update(_model_channels(self.noise))

    def steps(self, pub: EstimatorPub) -> Steps:
        """Run the circuit and its random variants; add up with their signs."""
        noisy = self._noisy_gates(pub.circuit)
        if not noisy:
            raise CircuitError("no gate of the circuit is noisy according to the option noise")
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
            known = standard_gates().get(name)
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
        for pattern in _patterns(quasis, nothing, self.num_samples, self._draws.next()):
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
    """Random patterns with at least one Pauli, with probabilities proportional to their absolute weights."""
    stay = np.array([abs(quasi[n]) / _norm(quasi) for quasi, n in zip(quasis, nothing, strict=True)])
    # The probability that gate k is the first one followed by a Pauli.
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
    # Only a circuit for a device is in native gates, where an X has the noise of the native gate that implements it.
    gates, basis = standard_gates(), None if circuit.layout is None else native_gates(circuit)
    inserted = dict(zip(noisy, pattern, strict=True))
    result = circuit.copy_empty_like()
    for position, item in enumerate(circuit.data):
        result.append(item)
        for letter, qubit in zip(inserted.get(position, ""), item.qubits, strict=False):
            if letter == "I":
                continue
            if basis is None:
                result.append(gates[letter.lower()], [qubit])
            else:
                append_native(result, gates[letter.lower()], [qubit], basis)
    return result


def _depolarizing_inverse(level: float, num_qubits: int) -> Quasi:
    """Inverse of local depolarizing noise, from mitiq's representation of a noisy gate."""
    cirq = require("cirq", extra="mitigation")
    representations = require("mitiq.pec.representations", extra="mitigation")
    if num_qubits > 2:
        raise CircuitError(f"no inverse for noise of a gate on {num_qubits} qubits; transpile to 2-qubit gates")
    if not 0 < level < 0.75:
        raise ParameterError(f"a depolarizing noise level must be below 3/4 to be inverted, got {level}")
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
        for name in set(error["operations"]) & set(standard_gates()) - {"reset", "measure"}:
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
