"""Noise as instructions of a circuit: gates that replace a measurement have no noise of their own."""

from __future__ import annotations

from dataclasses import replace

from qiskit import QuantumCircuit
from qiskit.circuit import CircuitInstruction, Instruction

from qtm._circuit.noise_map import NoiseMap, Operations


class NoiseStep(Instruction):
    """An instruction that consists of channels and rotations on its qubits, numbered from 0."""

    def __init__(self, operations: Operations, num_qubits: int) -> None:
        super().__init__("noise_step", num_qubits, 0, [])
        self.operations = operations
        self.definition = QuantumCircuit(num_qubits)


class EmbeddedNoise(NoiseMap):
    """The noise of a circuit that holds it as `NoiseStep`, except for the readout errors at the end.

    Args:
        source: the noise with these readout errors.
        num_qubits: number of qubits, the first ones, that have them.
    """

    def __init__(self, source: NoiseMap, num_qubits: int) -> None:
        super().__init__()
        object.__setattr__(self, "_source", source)
        object.__setattr__(self, "_num_qubits", num_qubits)

    def knows(self, name: str) -> bool:
        """Always True: all instructions except steps are noiseless."""
        return True

    def after(self, instruction: CircuitInstruction, qubits: tuple[int, ...]) -> Operations:
        """The operations of a step."""
        step = instruction.operation
        if not isinstance(step, NoiseStep):
            return ()
        return tuple(replace(o, qubits=tuple(qubits[q] for q in o.qubits)) for o in step.operations)

    def readout_of(self, num_qubits: int) -> tuple[tuple[float, float], ...]:
        """The readout errors of the source; qubits that hold bits have none."""
        found = self._source.readout_of(self._num_qubits)  # type: ignore[attr-defined]
        return (*found, *[(0.0, 0.0)] * (num_qubits - self._num_qubits)) if found else ()  # type: ignore[attr-defined]
