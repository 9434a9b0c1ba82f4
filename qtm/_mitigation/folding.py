"""Noise amplification by folding: a gate G becomes G G^-1 G, which is the same unitary with more noise.

Folding works on Qiskit circuits, so parameters, broadcasting, the layout and the gates of an ISA circuit are kept
(mitiq's conversion loses each of them). Barriers keep a later transpilation from cancelling
the pairs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache, lru_cache

import numpy as np
from qiskit import transpile
from qiskit.circuit import CircuitInstruction, Gate, QuantumCircuit, Qubit
from qiskit.circuit.library import get_standard_gate_name_mapping
from qiskit.exceptions import QiskitError

from qtm._errors import CircuitError

_log = logging.getLogger("qtm")
_SILENT = {"barrier", "delay"}  # not folded


def fold_global(circuit: QuantumCircuit, scale: float, _rng: np.random.Generator | None = None) -> QuantumCircuit:
    """Amplify noise by folding the whole circuit: U -> U (U^-1 U)^n, and the last gates once more for even scales.

    `achieved_scale` is the resulting scale.
    """
    gates = folding_gates(circuit)
    whole, rest = divmod(round((scale - 1) / 2 * len(gates)), len(gates))
    folded = circuit.copy()
    for _ in range(whole):
        _fold_back(folded, gates, circuit)
    if rest:
        _fold_back(folded, gates[-rest:], circuit)
    return folded


def fold_gates(circuit: QuantumCircuit, scale: float, rng: np.random.Generator) -> QuantumCircuit:
    """G -> G (G^-1 G)^n for every gate, once more for some at random to reach scales that are not odd."""
    gates = folding_gates(circuit)
    whole, rest = divmod(round((scale - 1) / 2 * len(gates)), len(gates))
    extra = set(rng.choice(len(gates), rest, replace=False).tolist())
    folded, position = circuit.copy_empty_like(), 0
    for item in circuit.data:
        folded.append(item)
        if item.operation.name in _SILENT:
            continue
        for _ in range(whole + (position in extra)):
            _fold_back(folded, [item], circuit)
        position += 1
    return folded


FOLDS: dict[str, Callable[[QuantumCircuit, float, np.random.Generator], QuantumCircuit]] = {
    "global": fold_global,
    "gates": fold_gates,
}


def fold_chunks(circuit: QuantumCircuit, chunks: Sequence[Sequence[int]], scales: Sequence[int]) -> QuantumCircuit:
    """Each chunk of layers (lists of positions in ``circuit.data``) folded to its own odd scale."""
    folded = circuit.copy_empty_like()
    for chunk, scale in zip(chunks, scales, strict=True):
        items = [circuit.data[i] for i in chunk]
        for item in items:
            folded.append(item)
        for _ in range((scale - 1) // 2):
            _fold_back(folded, [item for item in items if item.operation.name not in _SILENT], circuit)
    return folded


def layers(circuit: QuantumCircuit) -> list[list[int]]:
    """Positions of the instructions of each layer, each as early as possible."""
    level = dict.fromkeys(circuit.qubits, 0)
    found: list[list[int]] = []
    for position, item in enumerate(circuit.data):
        start = max(level[q] for q in item.qubits) if item.qubits else 0
        silent = item.operation.name == "barrier"
        level.update(dict.fromkeys(item.qubits, start if silent else start + 1))
        if not silent:
            found.extend([] for _ in range(start + 1 - len(found)))
            found[start].append(position)
    return found


def achieved_scale(circuit: QuantumCircuit, scale: float) -> float:
    """The noise scale closest to ``scale`` that folding whole gates of this circuit can reach."""
    count = len(folding_gates(circuit))
    return 1 + 2 * round((scale - 1) / 2 * count) / count


def folding_gates(circuit: QuantumCircuit) -> list[CircuitInstruction]:
    """The gates of a circuit that can be folded.

    Raises:
        CircuitError: an instruction has no inverse, or there is no gate.
    """
    gates = [item for item in circuit.data if item.operation.name not in _SILENT]
    for item in gates:
        if not isinstance(item.operation, Gate):
            raise CircuitError(
                f"{item.operation.name!r} is not a gate: noise can be scaled only for circuits of gates and "
                "barriers; measurements, resets and control flow have no inverse"
            )
    if not gates:
        raise CircuitError("the circuit has no gates, so there is no noise to scale")
    return gates


def _fold_back(target: QuantumCircuit, gates: Sequence[CircuitInstruction], source: QuantumCircuit) -> None:
    """Append the inverse of the gates and the gates again."""
    qubits = list(dict.fromkeys(q for item in gates for q in item.qubits))
    basis = native_gates(source)
    target.barrier(qubits)
    for item in reversed(gates):
        append_native(target, item.operation.inverse(), item.qubits, basis)
    target.barrier(qubits)
    for item in gates:
        target.append(item)
    target.barrier(qubits)


@cache
def standard_gates() -> dict[str, Gate]:
    """Qiskit's standard gates by name; Qiskit builds all of them at every call."""
    return get_standard_gate_name_mapping()


def native_gates(circuit: QuantumCircuit) -> frozenset[str]:
    """Names of the standard gates in a circuit, all of which its device supports."""
    return frozenset(circuit.count_ops()) & frozenset(standard_gates()) - _SILENT


def append_native(target: QuantumCircuit, gate: Gate, qubits: Sequence[Qubit], basis: frozenset[str]) -> None:
    """Append a gate, translated to ``basis`` if possible; otherwise the estimator rejects it."""
    if gate.name in basis:
        target.append(gate, qubits)
        return
    for native, positions in _translated(gate, basis):
        target.append(native, [qubits[i] for i in positions])


def _translated(gate: Gate, basis: frozenset[str]) -> tuple[tuple[Gate, tuple[int, ...]], ...]:
    if gate.params or gate.name not in standard_gates():
        return _translate(gate, basis)
    return _translate_constant(gate.name, basis)


@lru_cache(maxsize=4096)
def _translate_constant(name: str, basis: frozenset[str]) -> tuple[tuple[Gate, tuple[int, ...]], ...]:
    return _translate(standard_gates()[name], basis)


def _translate(gate: Gate, basis: frozenset[str]) -> tuple[tuple[Gate, tuple[int, ...]], ...]:
    small = QuantumCircuit(gate.num_qubits)
    small.append(gate, range(gate.num_qubits))
    for names in (basis, basis | {"rz"}):  # which is virtual where gates are calibrated
        try:
            small = transpile(small, basis_gates=sorted(names), optimization_level=0)
            break
        except QiskitError:
            _log.debug("%s cannot be written in %s", gate.name, sorted(names))
    return tuple((item.operation, tuple(small.find_bit(q).index for q in item.qubits)) for item in small.data)
