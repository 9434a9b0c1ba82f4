"""Readout error mitigation of shots: inverse confusion matrices turn them into quasi-probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from qiskit.circuit import ClassicalRegister, QuantumCircuit
from qiskit.primitives import BitArray, PubResult, SamplerPubResult
from qiskit.primitives.containers.sampler_pub import SamplerPub

from qtm._errors import CircuitError, ParameterError
from qtm._mitigation.method import Floats
from qtm._mitigation.rem import Factors, ReadoutErrors, flipped
from qtm._primitives.readout import Readout

# A vector of quasi-probabilities has 2^bits numbers, for each parameter set.
_MAX_BITS = 20


class MitigatedSamplerPubResult(SamplerPubResult):
    """Shots, and quasi-probabilities of the bits before readout errors.

    Quasi-probabilities sum to 1 and may be negative, within their standard errors.
    """

    def __init__(self, result: PubResult, inverses: dict[str, Floats], metadata: dict[str, Any]) -> None:
        super().__init__(result.data, {**result.metadata, **metadata})
        self._inverses = inverses  # register -> (bits, 2, 2)

    def quasi_probabilities(self, names: str | Iterable[str] | None = None) -> Floats:
        """Return the quasi-probabilities (*shape, 2**bits) of all outcomes, by their numbers.

        Args:
            names: one register or several, joined as by ``join_data``; None for all of them.

        Raises:
            ParameterError: there is no such register, or there are more than 20 bits.
        """
        shares, inverses = self._shares(names)
        return _applied(shares, inverses)

    def standard_errors(self, names: str | Iterable[str] | None = None) -> Floats:
        """Return the standard errors (*shape, 2**bits) of the quasi-probabilities, due to the shots of the PUB."""
        shares, inverses = self._shares(names)
        squares, means = _applied(shares, inverses**2), _applied(shares, inverses)
        return np.sqrt(np.maximum(squares - means**2, 0) / self._bits(names)[0].num_shots)

    def quasi_probability(self, outcome: int, names: str | Iterable[str] | None = None) -> Floats:
        """Return the quasi-probability (*shape,) of one outcome, of registers of any width."""
        bits, inverses = self._bits(names)
        read = bits.to_bool_array(order="little").astype(int)  # (*shape, shots, bits)
        weights = np.ones(read.shape[:-1])
        for place, inverse in enumerate(inverses):
            weights *= inverse[outcome >> place & 1][read[..., place]]
        return weights.mean(axis=-1)

    def _bits(self, names: str | Iterable[str] | None) -> tuple[BitArray, Floats]:
        chosen = list(self._inverses) if names is None else [names] if isinstance(names, str) else list(names)
        if unknown := [name for name in chosen if name not in self._inverses]:
            raise ParameterError(f"no register {unknown}; there are {', '.join(self._inverses)}")
        return self.join_data(chosen), np.concatenate([self._inverses[name] for name in chosen])

    def _shares(self, names: str | Iterable[str] | None) -> tuple[Floats, Floats]:
        """Shares (*shape, 2**bits) of the shots that read each outcome, and inverses (bits, 2, 2)."""
        bits, inverses = self._bits(names)
        if bits.num_bits > _MAX_BITS:
            raise ParameterError(
                f"{bits.num_bits} bits have 2^{bits.num_bits} outcomes; quasi_probabilities() stops at {_MAX_BITS} "
                "bits: choose registers, or take quasi_probability(outcome)"
            )
        bytes_ = bits.array.astype(np.int64)  # (*shape, shots, bytes), the lowest last
        numbers = bytes_ @ (256 ** np.arange(bytes_.shape[-1])[::-1])
        rows = numbers.reshape(math.prod(bits.shape), bits.num_shots)
        counts = [np.bincount(row, minlength=1 << bits.num_bits) for row in rows]
        shape = (*bits.shape, 1 << bits.num_bits)
        return np.array(counts, dtype=float).reshape(shape) / bits.num_shots, inverses


@dataclass(frozen=True)
class SampledReadout(ReadoutErrors):
    """Readout error mitigation of shots (Bravyi et al., Phys. Rev. A 103, 042605 (2021), tensor-product noise).

    Errors must be independent between qubits.

    Args:
        confusion: 2 x 2 matrix ``p(read i | prepared j)`` by physical qubit, with rows i; None measures them with two
            circuits, once for each qubit.
        shots: shots of those two circuits; None means those of the PUB.
    """

    def calibration(self, pubs: Sequence[SamplerPub]) -> tuple[list[SamplerPub], list[list[int]]]:
        """Return PUBs with all qubits in 0, and in 1, and the qubits of each such pair: those not yet known."""
        known, made, missing = set(self._factors), [], []
        for index, pub in enumerate(pubs):
            if new := sorted(set(_measured(index, pub.circuit).qubits) - known):
                shots = pub.shots if self.shots is None else self.shots
                prepared = QuantumCircuit(pub.circuit.num_qubits), flipped(pub.circuit, new)
                made += [SamplerPub(_read_out(circuit, new), shots=shots) for circuit in prepared]
                missing.append(new)
                known |= set(new)
        return made, missing

    def assume_run(self, missing: Iterable[Sequence[int]]) -> None:
        """In a forecast: these qubits are calibrated."""
        for qubits in missing:
            self._assume_known(qubits)

    def learn(self, qubits: Sequence[int], zeros: BitArray, ones: BitArray) -> None:
        """Compute the readout factors from shots of both preparations, with a bit for each qubit.

        Raises:
            QtmError: the readout of a qubit hardly depends on its state.
        """
        means = [1 - 2 * shots.to_bool_array(order="little").mean(axis=-2) for shots in (zeros, ones)]
        for qubit, zero, one in zip(qubits, *means, strict=True):
            self._learn(qubit, float(zero), float(one))

    def mitigated(self, pub: SamplerPub, result: PubResult) -> MitigatedSamplerPubResult:
        """Return the result with the inverse of the readout."""
        readout = Readout.of(pub.circuit)
        inverses = {
            name: np.array([_inverse(self._factors, None if bit is None else readout.qubits[bit]) for bit in bits])
            for name, bits in readout.registers.items()
        }
        factors = {qubit: self._factors[qubit] for qubit in readout.qubits}
        return MitigatedSamplerPubResult(result, inverses, {"mitigation": "rem", "readout_factors": factors})


def _measured(index: int, circuit: QuantumCircuit) -> Readout:
    """The readout of a circuit; dynamic circuits are rejected, as an inverse of the readout cannot undo gates."""
    if any(item.is_control_flow() for item in circuit.data):
        raise CircuitError(
            f"PUB {index}, circuit {circuit.name!r}: gates depend on measured bits, and readout mitigation cannot "
            "undo a wrong branch; run it on the sampler itself"
        )
    readout = Readout.of(circuit)
    if not readout.qubits:
        raise CircuitError(f"PUB {index}, circuit {circuit.name!r} measures nothing; measure its qubits")
    return readout


def _read_out(circuit: QuantumCircuit, qubits: Sequence[int]) -> QuantumCircuit:
    circuit.add_register(ClassicalRegister(len(qubits), "readout"))
    circuit.measure(qubits, range(len(qubits)))
    return circuit


def _inverse(factors: Factors, qubit: int | None) -> list[list[float]]:
    """The inverse confusion matrix of a bit: prepared i, read j. Of a bit that nothing writes it is the identity."""
    a, b = (1.0, 0.0) if qubit is None else factors[qubit]
    # Z is read as a Z + b, so p(0) = (1 + (r - b) / a) / 2 for the mean r of what is read.
    return [
        [(1 + (1 - b) / a) / 2, (1 - (1 + b) / a) / 2],
        [(1 - (1 - b) / a) / 2, (1 + (1 + b) / a) / 2],
    ]


def _applied(shares: Floats, matrices: Floats) -> Floats:
    """Multiply outcomes (..., 2**bits) by a matrix (2, 2) for each bit, the lowest first."""
    out = shares
    for place, matrix in enumerate(matrices):
        split = out.reshape(-1, 2, 1 << place)  # (higher bits, this bit, lower bits)
        out = np.einsum("ij,hjl->hil", matrix, split).reshape(shares.shape)
    return out
