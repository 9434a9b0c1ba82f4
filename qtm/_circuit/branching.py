"""Dynamic circuits as unitary segments between measurements: for methods that sample outcomes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from qiskit import QuantumCircuit
from qiskit.circuit import CircuitInstruction, Clbit, Gate, Qubit

from qtm._circuit.conditions import assignments
from qtm._circuit.control_flow import Case, ControlFlowWalk
from qtm._circuit.flatten import FlatCircuit, GlobalPhase, flatten_segment
from qtm._errors import CircuitError


@dataclass(frozen=True, eq=False, slots=True)
class Segment:
    """Gates on the qubits of the whole circuit; angle k of the segment is angle ``first + k`` of the circuit."""

    circuit: FlatCircuit
    first: int


@dataclass(frozen=True, eq=False, slots=True)
class Measurement:
    """A measurement of ``qubit`` into ``bit``; None is a reset: the outcome is dropped, and the qubit set to 0.

    ``number`` counts the measurements of the circuit in the order of the steps.
    """

    qubit: int
    bit: int | None
    number: int


@dataclass(frozen=True, eq=False, slots=True)
class Choice:
    """Steps that are executed if the bits have one of some values; bit j of a value is ``bits[j]``."""

    bits: tuple[int, ...]
    cases: tuple[tuple[frozenset[int], tuple[Step, ...]], ...]  # the values of two cases differ


Step = Segment | Measurement | Choice


@dataclass(frozen=True, eq=False, slots=True)
class DynamicCircuit(FlatCircuit):
    """A dynamic circuit: ``steps`` in place of ``operations``, which are empty.

    The first step is a segment. All prepared amplitudes belong to its start: a qubit that is prepared later was in
    state 0 until then.
    """

    steps: tuple[Step, ...] = ()
    num_bits: int = 0


def every_step(steps: tuple[Step, ...]) -> Iterator[Step]:
    """The steps, and those inside choices."""
    for step in steps:
        yield step
        for _, inner in step.cases if isinstance(step, Choice) else ():
            yield from every_step(inner)


def branching(circuit: QuantumCircuit) -> DynamicCircuit:
    """Lower a dynamic circuit; loops are unrolled.

    Raises:
        CircuitError: it has a while loop, break or continue, a condition on classical variables, or an instruction that
            is not unitary where only gates are supported.
    """
    walk = _Branching(circuit)
    top = _Block(walk.segment(), False)
    walk.block(circuit, list(circuit.qubits), list(circuit.clbits), top)
    walk.close(top)
    steps = top.steps
    if not (steps and isinstance(steps[0], Segment)):
        steps = [Segment(flatten_segment(top.open, ()), 0), *steps]
    start = steps[0]
    assert isinstance(start, Segment)
    steps[0] = Segment(replace(start.circuit, initial=tuple(walk.initial)), 0)
    return DynamicCircuit(
        circuit.num_qubits, (), tuple(walk.angles), tuple(walk.shifts), tuple(circuit.parameters),
        tuple(walk.initial), steps=tuple(steps), num_bits=circuit.num_clbits,
    )  # fmt: skip


class _Block:
    """The steps of a block so far, and the instructions since the last one."""

    def __init__(self, segment: QuantumCircuit, conditional: bool) -> None:
        self.open, self.conditional, self.steps = segment, conditional, list[Step]()


class _Branching(ControlFlowWalk[_Block]):
    """Collects the steps."""

    def __init__(self, circuit: QuantumCircuit) -> None:
        self.circuit = circuit
        self.number = {qubit: place for place, qubit in enumerate(circuit.qubits)}
        self.bit = {bit: place for place, bit in enumerate(circuit.clbits)}
        self.touched: set[int] = set()
        self.angles: list[Any] = []
        self.shifts: list[Any] = []
        self.initial: list[Any] = []
        self.measurements = 0

    def segment(self) -> QuantumCircuit:
        """An empty circuit on the same qubits."""
        return QuantumCircuit(self.circuit.qubits, name=f"{self.circuit.name}, between two measurements")

    def close(self, block: _Block) -> None:
        """Make a segment of the open instructions, if there are any."""
        if not block.open.data:
            return
        # Cases of a condition leave a qubit in different states: there, gates prepare amplitudes from any state.
        before = set(range(self.circuit.num_qubits)) if block.conditional else self.touched
        flat = flatten_segment(block.open, before)
        self.touched.update(self.number[q] for instruction in block.open.data for q in instruction.qubits)
        block.steps.append(Segment(replace(flat, initial=(), phase=GlobalPhase()), len(self.angles)))
        self.angles += flat.angles
        self.shifts += flat.shifts
        self.initial += flat.initial
        block.open = self.segment()

    def other(self, instruction: CircuitInstruction, qubits: list[Qubit], clbits: list[Clbit], place: _Block) -> None:
        operation = instruction.operation
        if operation.name in ("barrier", "delay"):
            return
        if place.conditional and not isinstance(operation, Gate):
            raise CircuitError(f"{operation.name!r} under a condition is not simulated: it is not a gate")
        place.open.append(operation, qubits, clbits)

    def measure(self, operation: Any, qubits: list[Qubit], clbits: list[Clbit], place: _Block) -> None:
        self._measurement(qubits[0], self.bit[clbits[0]], place)

    def reset(self, operation: Any, qubits: list[Qubit], clbits: list[Clbit], place: _Block) -> None:
        self._measurement(qubits[0], None, place)

    def _measurement(self, qubit: Qubit, bit: int | None, place: _Block) -> None:
        self.close(place)
        self.touched.add(self.number[qubit])
        place.steps.append(Measurement(self.number[qubit], bit, self.measurements))
        self.measurements += 1

    def choice(self, target: Any, cases: list[Case], qubits: list[Qubit], clbits: list[Clbit], place: _Block) -> None:
        self.close(place)
        bits: tuple[Clbit, ...] = ()
        found = []
        for wanted, block in cases:
            bits, values = assignments(target, wanted)
            inner = _Block(self.segment(), True)
            self.block(block, qubits, clbits, inner)
            self.close(inner)
            found.append((frozenset(values), tuple(inner.steps)))
        place.steps.append(Choice(tuple(self.bit[b] for b in bits), tuple(found)))
