"""A circuit whose gate angles are free parameters, for parameter shifts on an estimator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from qiskit import QuantumCircuit
from qiskit.circuit import (
    CircuitInstruction,
    Delay,
    Measure,
    Operation,
    Parameter,
    ParameterExpression,
    ParameterVector,
)

from qtm._circuit.decompositions import is_unbound, row_of
from qtm._circuit.flatten import flatten
from qtm._circuit.gates import ShiftRule
from qtm._circuit.modifiers import expansion_of
from qtm._errors import CircuitError


@dataclass(frozen=True, slots=True)
class Template:
    """A circuit with a separate parameter for each gate angle: ``slots[k]`` stands for ``angles[k]``.

    Binding every ``slots[k]`` to the value of ``angles[k]`` gives the original circuit back, without its
    global phase and its final measurements.
    """

    circuit: QuantumCircuit
    slots: ParameterVector
    angles: tuple[ParameterExpression, ...]
    shifts: tuple[ShiftRule, ...]


def template(circuit: QuantumCircuit, noisy: frozenset[str] = frozenset()) -> Template:
    """Give every gate angle of a circuit its own parameter, so that each can be shifted separately.

    Parameterised composite gates are expanded into gates of the table; everything without parameters is unchanged. The
    slots follow the order of ``flatten(circuit).angles``.

    Args:
        circuit: any circuit that ``flatten`` takes.
        noisy: names and labels of gates that have noise, and so must not be expanded.

    Raises:
        CircuitError: as ``flatten``; or a state preparation or a delay is parameterised; or a gate of ``noisy``
            would be expanded.
    """
    flat = flatten(circuit)
    slots = ParameterVector("angle", len(flat.angles))
    target = circuit.copy_empty_like()
    target.global_phase = 0
    _Filling(target, iter(slots), noisy).fill(circuit, tuple(target.qubits), "")
    return Template(target, slots, flat.angles, flat.shifts)


class _Filling:
    """Walks like ``_Walk``, and writes gates with fresh parameters into ``target``."""

    def __init__(self, target: QuantumCircuit, fresh: Iterator[Parameter], noisy: frozenset[str]) -> None:
        self.target = target
        self.fresh = fresh
        self.noisy = noisy

    def fill(self, circuit: QuantumCircuit, qubits: tuple, around: str) -> None:
        index = dict(zip(circuit.qubits, qubits, strict=True))
        for position, instruction in enumerate(circuit.data):
            where = around or f"instruction {position} of circuit {circuit.name!r}, {instruction.name!r}"
            self.add(instruction, tuple(index[q] for q in instruction.qubits), where)

    def add(self, instruction: CircuitInstruction, qubits: tuple, where: str) -> None:
        if isinstance(instruction.operation, Measure):
            return  # a final one: flatten raises an error for others
        if not instruction.is_parameterized() and not instruction.clbits:
            self.target.append(instruction.operation, qubits)
            return
        row = row_of(instruction)
        if row is None:
            self.refuse_noise(instruction, where)
            self.expand(instruction.operation, qubits, where)
        elif row.sequence:
            self.add_gate(instruction, qubits)
        elif isinstance(instruction.operation, Delay):
            raise CircuitError(f"{where}: a duration that is a parameter has no derivative. Bind it first.")

    def add_gate(self, instruction: CircuitInstruction, qubits: tuple) -> None:
        gate = instruction.operation.to_mutable()
        gate.params = [next(self.fresh) if is_unbound(p) else p for p in instruction.params]
        gate.definition = None  # it may hold the old parameters; the gate class makes a new one when asked
        self.target.append(gate, qubits)

    def refuse_noise(self, instruction: CircuitInstruction, where: str) -> None:
        closed = instruction.name.split("_o")[0]  # the name without open controls, which noise models use
        found = next((n for n in (instruction.label, closed, instruction.name) if n in self.noisy), None)
        if found is not None and not _holds(instruction.operation, closed):
            raise CircuitError(
                f"{where}: the noise model has an error for {found!r}, and parameter shift writes this gate as simpler "
                "ones, which would leave that error out. Transpile the circuit to gates with one angle each and "
                "give these their errors, or use gradient='spsa'."
            )

    def expand(self, operation: Operation, qubits: tuple, where: str) -> None:
        if operation.name == "ParameterizedInitialize":
            raise CircuitError(
                f"{where}: its amplitudes are parameters, not gate angles that could be shifted. "
                "Use the simulator's reverse-sweep gradient, or load the features through gate angles."
            )
        definition = expansion_of(operation)
        assert definition is not None, "flatten accepted it"
        self.fill(definition, qubits, where)


def _holds(operation: Operation, name: str) -> bool:
    """Whether an operation is a gate of this name between X gates, which is how open controls are written."""
    definition = getattr(operation, "definition", None)
    names = [] if definition is None else [instruction.name for instruction in definition.data]
    return names.count(name) == 1 and set(names) <= {name, "x"}
