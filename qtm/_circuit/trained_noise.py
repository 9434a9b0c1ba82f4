"""Noise whose strengths are parameters: channels with `Parameter` in place of numbers, and their angles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from qiskit.circuit import Parameter

from qtm._circuit.channels import Channel
from qtm._circuit.flatten import FlatCircuit
from qtm._circuit.gates import TWO_TERM, Primitive
from qtm._circuit.noise_map import NoiseMap, Operations


@dataclass(frozen=True, eq=False)
class TrainedNoiseMap(NoiseMap):
    """A `NoiseMap` with channels whose strengths are numbers or parameters.

    Attributes:
        parameters: all of them, in the order of their values.
        read: for a qubit (None: all others) the parameters for its probabilities of reading 1 for 0, and 0 for 1.
    """

    parameters: tuple[Parameter, ...] = ()
    read: Mapping[int | None, tuple[Parameter, Parameter]] = field(default_factory=dict)

    def reading(self, qubit: int) -> Operations:
        """As `NoiseMap.reading`, with parameters."""
        if not self.is_read(qubit):
            return ()
        one_for_0, zero_for_1 = self.read.get(qubit) or self.read[None]
        return (Channel("reset", (0,), (zero_for_1, one_for_0)),)

    def is_read(self, qubit: int) -> bool:
        """Whether the readout error of a qubit is trained."""
        return qubit in self.read or None in self.read


def with_strength_angles(flat: FlatCircuit, noise: TrainedNoiseMap, num_qubits: int) -> FlatCircuit:
    """The circuit with an angle for each parameter of the noise, and with readout errors as channels.

    On Z, a readout error acts like a random reset to 0 or 1 with its probabilities; ``num_qubits``: number of measured
    qubits.
    """
    first = len(flat.angles)
    place = {parameter: first + j for j, parameter in enumerate(noise.parameters)}
    operations = [_placed(o, place) for o in flat.operations]
    for qubit in range(num_qubits):
        operations += [_placed(replace(o, qubits=(qubit,)), place) for o in noise.reading(qubit)]
    return replace(
        flat,
        operations=tuple(operations),
        angles=(*flat.angles, *noise.parameters),
        shifts=(*flat.shifts, *[TWO_TERM] * len(noise.parameters)),
        parameters=(*flat.parameters, *noise.parameters),
    )


def _placed(operation: Primitive | Channel, place: Mapping[Parameter, int]) -> Primitive | Channel:
    if not isinstance(operation, Channel):
        return operation
    strengths = tuple(place[s] if isinstance(s, Parameter) else s for s in operation.strengths)
    return replace(operation, strengths=strengths)
