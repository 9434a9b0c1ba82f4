"""Predicted cost of a circuit as a matrix product state, from the bonds that its gates cross, without compiling it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from qtm._circuit.channels import Channel
from qtm._circuit.flatten import FlatCircuit
from qtm._circuit.gates import Clifford
from qtm._engines.matrix_product_state.initial_chain import Register, initial_bits
from qtm._engines.matrix_product_state.merged_gates import Triple, merged
from qtm._engines.outputs import Expectation, Output, Probabilities

# Measured times of a QR and of a singular value decomposition of an n x n matrix, in units of n^3 multiply-adds of a
# complex matrix product.
_DECOMPOSITIONS = 60.0
_REAL = 4.0  # real multiply-adds in a complex one
# Time of a torch call in multiply-adds, and number of torch calls per site, approximately.
_CALL, _CALLS = 3e4, 60.0


@dataclass(frozen=True, slots=True)
class Prediction:
    """Bond dimensions and the cost that follows from them, for one sample.

    Attributes:
        crossings: gates that cross each bond, (qubits - 1,).
        bonds: dimension that each bond reaches, (qubits - 1,); a float, since it may exceed any machine integer.
        multiply_adds: real ones, of values and derivatives together.
        memory: bytes.
    """

    crossings: tuple[int, ...]
    bonds: tuple[float, ...]
    multiply_adds: float
    memory: float


def crossings(circuit: FlatCircuit) -> tuple[int, ...]:
    """How many gates cross each bond, (qubits - 1,), three that are merged as two; swaps rename sites."""
    site_of = list(range(circuit.num_qubits))
    change = [0] * (circuit.num_qubits + 1)  # differences of the counts
    gates = (operation for operation in circuit.operations if not isinstance(operation, Channel))
    for operation in merged(gates):
        if len(operation.qubits) > 1:
            sites = [site_of[q] for q in operation.qubits]
            if isinstance(operation, Clifford) and operation.name == "swap":
                a, b = operation.qubits
                site_of[a], site_of[b] = sites[1], sites[0]
            else:
                bits = 2 if isinstance(operation, Triple) else 1
                change[min(sites)] += bits
                change[max(sites)] -= bits
    counts, total = [], 0
    for difference in change[: circuit.num_qubits - 1]:
        total += difference
        counts.append(total)
    return tuple(counts)


def predict(
    circuit: FlatCircuit, output: Output, max_bond: int | None, free_bits: int, start: Sequence[int], itemsize: int
) -> Prediction:
    """Predict the cost of a circuit.

    Args:
        circuit: the circuit.
        output: what is computed.
        max_bond: the largest bond dimension to keep; None for no limit.
        free_bits: log2 of the bond dimension up to which nothing is decomposed.
        start: log2 of the initial bond dimensions beyond those of the circuit's preparations, (qubits - 1,).
        itemsize: bytes of a complex number.
    """
    count = circuit.num_qubits
    crossed = crossings(circuit)
    prepared = initial_bits(count, [Register(p.qubits) for p in circuit.initial])
    bits = [c + p + s for c, p, s in zip(crossed, prepared, start, strict=True)]
    largest = float(max_bond) if max_bond else 2.0 ** (count // 2)
    bonds = [min(largest, 2.0 ** min(b, i + 1, count - 1 - i)) for i, b in enumerate(bits)]
    segments = 1 + max([b - free_bits for b in bits if b > free_bits], default=0)
    states = _states(output)
    padded = [1.0, *bonds, 1.0]
    sites = sum(2 * left * right for left, right in pairwise(padded))
    products = sum(2 * left * right * (left + right) for left, right in pairwise(padded))
    adds = _REAL * (4 * states * products + (segments - 1) * _DECOMPOSITIONS * products)
    adds += _CALL * _CALLS * count * segments
    memory = itemsize * (states * sum(b * b for b in bonds) * 3 + (2 * segments + 4) * sites)
    return Prediction(crossed, tuple(bonds), adds, memory)


def _states(output: Output) -> int:
    """Approximate number of states of the observables' automaton at a bond."""
    if isinstance(output, Probabilities):
        return 2 ** max(0, len(output.qubits) - 1) + 2
    if not isinstance(output, Expectation):
        return 1
    change: dict[int, int] = {}
    for observable in output.observables:
        for x, z in zip(observable.x, observable.z, strict=True):
            support = int(x) | int(z)
            first, last = (support & -support).bit_length() - 1, support.bit_length() - 1
            if first < last:
                change[first] = change.get(first, 0) + 1
                change[last] = change.get(last, 0) - 1
    most = total = 0
    for place in sorted(change):
        total += change[place]
        most = max(most, total)
    # Dependent continuations share states: no more than the square root of all operators on either side.
    return 2 + min(most, 4 ** (output.observables[0].num_qubits // 2) if output.observables else 0)
