"""Which channels follow which gate: the noise of a device, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from qiskit.circuit import CircuitInstruction

from qtm._circuit.channels import Channel

# Channels on local qubit numbers, by the qubits of the gate; None stands for all others.
ByQubits = Mapping[tuple[int, ...] | None, tuple[Channel, ...]]


@dataclass(frozen=True, eq=False, slots=True)
class NoiseMap:
    """Channels after gates, and readout errors.

    Attributes:
        gates: for the name of an instruction, the channels after it.
        free: names of further instructions, after which there is no noise.
        readout: for a qubit (None: all others) the probability of reading 1 for 0, and of reading 0 for 1.
        delay: channels of a delay on a qubit, from the instruction; None: a delay has no noise.
    """

    gates: Mapping[str, ByQubits]
    free: frozenset[str] = frozenset()
    readout: Mapping[int | None, tuple[float, float]] = field(default_factory=dict)
    delay: Callable[[CircuitInstruction, int], tuple[Channel, ...]] | None = None

    @property
    def basis(self) -> frozenset[str]:
        """Names of all gates whose noise is known."""
        return self.free.union(self.gates) - {"measure"}

    def knows(self, name: str) -> bool:
        """Whether the noise of this instruction is known; what it is made of then has none of its own."""
        return name in self.gates or name in self.free or (name == "delay" and self.delay is not None)

    def after(self, instruction: CircuitInstruction, qubits: tuple[int, ...]) -> tuple[Channel, ...]:
        """The channels after an instruction on these qubits of the circuit."""
        if instruction.name == "delay" and self.delay is not None:
            return self.delay(instruction, qubits[0])
        found = self.gates.get(instruction.name, {})
        channels = found.get(qubits, found.get(None, ()))
        return tuple(replace(c, qubits=tuple(qubits[q] for q in c.qubits)) for c in channels)

    def readout_of(self, num_qubits: int) -> tuple[tuple[float, float], ...]:
        """The readout errors of qubits 0, 1, ...; empty where no qubit has one."""
        other = self.readout.get(None, (0.0, 0.0))
        errors = tuple(self.readout.get(q, other) for q in range(num_qubits))
        return errors if any(map(any, errors)) else ()

    def unknown(self, name: str) -> str:
        """The message about a gate that the noise does not know, where it has to be simulated."""
        return (
            f"the noise model has no entry for {name!r}; it knows {', '.join(sorted(self.basis))}. Transpile the "
            "circuit to these gates (basis_gates=...), or give this gate an error too"
        )
