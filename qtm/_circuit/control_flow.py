"""A walk over a dynamic circuit: measurements, resets and control flow by kind, `for_loop` unrolled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from qiskit import QuantumCircuit
from qiskit.circuit import (
    BoxOp,
    BreakLoopOp,
    CircuitInstruction,
    Clbit,
    ContinueLoopOp,
    ControlFlowOp,
    ForLoopOp,
    IfElseOp,
    Measure,
    Qubit,
    Reset,
    SwitchCaseOp,
    WhileLoopOp,
)
from qiskit.circuit.controlflow import CASE_DEFAULT

from qtm._circuit.modifiers import expansion_of
from qtm._errors import CircuitError

Place = TypeVar("Place")  # the context of a block's instructions
Case = tuple[Callable[[int], bool], QuantumCircuit]  # values of the target, and the block for them


def instructions_of(circuit: QuantumCircuit) -> Iterator[CircuitInstruction]:
    """The instructions of a circuit, with composites that have bits expanded: they may measure."""
    for instruction in circuit.data:
        inner = None
        if instruction.clbits and not isinstance(instruction.operation, Measure | ControlFlowOp):
            inner = expansion_of(instruction.operation)
        if not isinstance(inner, QuantumCircuit):
            yield instruction
            continue
        qubit = dict(zip(inner.qubits, instruction.qubits, strict=True))
        bit = dict(zip(inner.clbits, instruction.clbits, strict=True))
        for own in instructions_of(inner):
            yield own.replace(qubits=[qubit[q] for q in own.qubits], clbits=[bit[c] for c in own.clbits])


class ControlFlowWalk(ABC, Generic[Place]):
    """Visits the instructions of a circuit and of its blocks; subclasses lower them."""

    def block(self, block: QuantumCircuit, qubits: Sequence[Qubit], clbits: Sequence[Clbit], place: Place) -> None:
        """Visit the instructions of a block that acts on these bits of the circuit."""
        qubit_of = dict(zip(block.qubits, qubits, strict=True))
        clbit_of = dict(zip(block.clbits, clbits, strict=True))
        for instruction in block.data:
            own = [qubit_of[q] for q in instruction.qubits]
            self.instruction(instruction, own, [clbit_of[c] for c in instruction.clbits], place)

    def instruction(
        self, instruction: CircuitInstruction, qubits: list[Qubit], clbits: list[Clbit], place: Place
    ) -> None:
        """Visit one instruction."""
        for kind, handle in _HANDLERS:
            if isinstance(instruction.operation, kind):
                getattr(self, handle)(instruction.operation, qubits, clbits, place)
                return
        inner = expansion_of(instruction.operation) if clbits else None
        if isinstance(inner, QuantumCircuit):
            self.block(inner, qubits, clbits, place)  # it may measure
        else:
            self.other(instruction, qubits, clbits, place)

    @abstractmethod
    def other(self, instruction: CircuitInstruction, qubits: list[Qubit], clbits: list[Clbit], place: Place) -> None:
        """An instruction without bits that is neither measurement, reset nor control flow."""

    @abstractmethod
    def measure(self, operation: Any, qubits: list[Qubit], clbits: list[Clbit], place: Place) -> None:
        """A measurement of one qubit into one bit."""

    @abstractmethod
    def reset(self, operation: Any, qubits: list[Qubit], clbits: list[Clbit], place: Place) -> None:
        """A reset of one qubit."""

    @abstractmethod
    def choice(self, target: Any, cases: list[Case], qubits: list[Qubit], clbits: list[Clbit], place: Place) -> None:
        """Blocks of which at most one is executed, by the value of a bit, register or expression."""

    def box(self, operation: Any, qubits: list[Qubit], clbits: list[Clbit], place: Place) -> None:
        """A box is its body."""
        self.block(operation.blocks[0], qubits, clbits, place)

    def if_else(self, operation: Any, qubits: list[Qubit], clbits: list[Clbit], place: Place) -> None:
        """A choice of two cases, or of one."""
        condition = operation.condition
        target, value = condition if isinstance(condition, tuple) else (condition, 1)
        wanted: list[Callable[[int], bool]] = [lambda v: v == int(value), lambda v: v != int(value)]
        cases = list(zip(wanted, operation.blocks, strict=False))
        self.choice(target, cases, qubits, clbits, place)

    def switch(self, operation: Any, qubits: list[Qubit], clbits: list[Clbit], place: Place) -> None:
        """A choice with the cases of the switch."""
        listed = list(operation.cases_specifier())
        named = {int(v) for values, _ in listed for v in values if v is not CASE_DEFAULT}
        cases: list[Case] = [(partial(_is_case, values, named), block) for values, block in listed]
        self.choice(operation.target, cases, qubits, clbits, place)

    def for_loop(self, operation: Any, qubits: list[Qubit], clbits: list[Clbit], place: Place) -> None:
        """The body once for each index."""
        indices, parameter, body = operation.params
        for index in indices:
            turn = body if parameter is None else body.assign_parameters({parameter: index}, strict=False)
            self.block(turn, qubits, clbits, place)

    def refuse(self, operation: Any, *_: Any) -> None:
        """Raise an error for a loop whose length depends on outcomes."""
        raise CircuitError(
            f"{operation.name!r} is not simulated: the number of iterations depends on outcomes and is unbounded; "
            "use a for loop with if_test inside"
        )


def _is_case(values: Sequence[Any], named: set[int], value: int) -> bool:
    """Whether a value of the target belongs to a case, or to no case for the default."""
    default = any(v is CASE_DEFAULT for v in values)
    return value in {int(v) for v in values if v is not CASE_DEFAULT} or (default and value not in named)


_HANDLERS: tuple[tuple[Any, str], ...] = (
    (Measure, "measure"),
    (Reset, "reset"),
    (BoxOp, "box"),
    (IfElseOp, "if_else"),
    (SwitchCaseOp, "switch"),
    (ForLoopOp, "for_loop"),
    ((WhileLoopOp, BreakLoopOp, ContinueLoopOp), "refuse"),
)
