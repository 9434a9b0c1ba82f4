"""The noise of a device as data: the channels after each gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from qiskit.circuit import CircuitInstruction

from qtm._circuit.channels import Channel
from qtm._circuit.gates import Primitive

Operations = tuple[Primitive | Channel, ...]


@dataclass(frozen=True, eq=False)
class NoiseMap:
    """Operations after gates, and readout errors. Immutable, compared by identity.

    Attributes:
        gates: for each gate name, the operations after it on local qubit numbers, by the qubits of the gate; None
            stands for all other qubits.
        free: names of further gates, without noise.
        readout: for a qubit (None: all others) the probability of reading 1 for 0, and of reading 0 for 1.
    """

    gates: Mapping[str, Mapping[tuple[int, ...] | None, Operations]] = field(default_factory=dict)
    free: frozenset[str] = frozenset()
    readout: Mapping[int | None, tuple[float, float]] = field(default_factory=dict)

    @property
    def basis(self) -> frozenset[str]:
        """Names of the gates in the noise model."""
        return self.free.union(self.gates)

    @property
    def noisy(self) -> frozenset[str]:
        """Names of the gates with noise."""
        return frozenset(self.gates)

    def knows(self, name: str) -> bool:
        """Whether the noise model has this gate; the gates of its definition then have no noise of their own."""
        return name in self.gates or name in self.free

    def after(self, instruction: CircuitInstruction, qubits: tuple[int, ...]) -> Operations:
        """The operations after an instruction on these qubits of the circuit."""
        found = self.gates.get(instruction.name, {})
        operations = found.get(qubits, found.get(None, ()))
        return tuple(replace(o, qubits=tuple(qubits[q] for q in o.qubits)) for o in operations)

    def readout_of(self, num_qubits: int) -> tuple[tuple[float, float], ...]:
        """The readout errors of qubits 0, 1, ...; empty if no qubit has one."""
        other = self.readout.get(None, (0.0, 0.0))
        errors = tuple(self.readout.get(q, other) for q in range(num_qubits))
        return errors if any(map(any, errors)) else ()

    def reading(self, qubit: int) -> Operations:
        """The channel of a readout error on the qubit that holds a bit, as local qubit 0; it is in 0 or 1."""
        return reading_of(self.readout_of(qubit + 1), qubit)

    def unknown(self, name: str) -> str:
        """The error message for a gate that the noise model lacks."""
        return (
            f"the noise has no entry for {name!r}; it knows {', '.join(sorted(self.basis))}. Transpile the circuit "
            "to these gates (basis_gates=...), or give this gate an error too"
        )


def reading_of(errors: Sequence[tuple[float, float]], qubit: int) -> Operations:
    """As `NoiseMap.reading`, from the readout errors of all qubits."""
    if not errors or not any(errors[qubit]):
        return ()
    one_for_0, zero_for_1 = errors[qubit]
    return (Channel("reset", (0,), (zero_for_1, one_for_0)),)
