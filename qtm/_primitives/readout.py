"""The classical bits into which a circuit measures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Measure

from qtm._circuit.modifiers import expansion_of


@dataclass(frozen=True)
class Readout:
    """Which qubits are measured, and into which bits: bit j of an outcome is ``qubits[j]``."""

    qubits: tuple[int, ...]  # ascending
    clbits: dict[int, int]  # clbit that is written -> bit of the outcome
    registers: dict[str, list[int | None]]  # for each bit of a register its bit of the outcome; None is always 0

    @classmethod
    def of(cls, circuit: QuantumCircuit) -> Readout:
        """Read a circuit's final measurements, those in composites too; the last one of a clbit counts."""
        written = dict(_measurements(circuit, range(circuit.num_qubits), range(circuit.num_clbits)))
        qubits = tuple(sorted(set(written.values())))
        clbits = {clbit: qubits.index(qubit) for clbit, qubit in written.items()}
        index = {bit: i for i, bit in enumerate(circuit.clbits)}
        registers = {r.name: [clbits.get(index[bit]) for bit in r] for r in circuit.cregs}
        return cls(qubits, clbits, registers)

    def clbit_outcomes(self) -> np.ndarray:
        """For each outcome of the measured qubits, the value of the clbits: (outcomes,)."""
        outcomes = np.arange(1 << len(self.qubits))
        shown = np.zeros_like(outcomes)
        for clbit, place in self.clbits.items():
            shown |= (outcomes >> place & 1) << clbit
        return shown


def _measurements(circuit: QuantumCircuit, qubits: Iterable[int], clbits: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Pairs (clbit, qubit) in order, for a circuit that acts on these bits."""
    qubit_of = dict(zip(circuit.qubits, qubits, strict=True))
    clbit_of = dict(zip(circuit.clbits, clbits, strict=True))
    for instruction in circuit.data:
        if not instruction.clbits:
            continue
        inner_qubits = [qubit_of[q] for q in instruction.qubits]
        inner_clbits = [clbit_of[c] for c in instruction.clbits]
        if isinstance(instruction.operation, Measure):
            yield inner_clbits[0], inner_qubits[0]
        elif isinstance(inner := expansion_of(instruction.operation), QuantumCircuit):
            yield from _measurements(inner, inner_qubits, inner_clbits)
