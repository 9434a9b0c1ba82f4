"""Dynamic circuits as static ones, by deferred measurement: exact, and differentiable.

A measurement in mid-circuit copies its qubit onto a fresh one, which holds the classical bit from then on; what
depends on the bit is controlled by that qubit. A reset swaps its qubit for a fresh one. Only Z is ever done to fresh
qubits, so that simulators which leave out what no observable sees pay little for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from qiskit import QuantumCircuit
from qiskit.circuit import (
    BoxOp,
    BreakLoopOp,
    CircuitInstruction,
    Clbit,
    ContinueLoopOp,
    ControlFlowOp,
    ForLoopOp,
    Gate,
    IfElseOp,
    Measure,
    Qubit,
    Reset,
    SwitchCaseOp,
    WhileLoopOp,
)
from qiskit.circuit.controlflow import CASE_DEFAULT
from qiskit.circuit.library import CXGate, SwapGate, XGate

from qtm._circuit.conditions import assignments
from qtm._errors import CircuitError


def is_dynamic(circuit: QuantumCircuit) -> bool:
    """Whether there is control flow, a used qubit is reset, or something follows a measurement on its qubit or bit."""
    used: set[Qubit] = set()
    measured: set[Any] = set()
    for instruction in circuit.data:
        operation = instruction.operation
        if isinstance(operation, ControlFlowOp) and not isinstance(operation, BoxOp):
            return True
        if operation.name in ("barrier", "delay"):
            continue
        if isinstance(operation, Measure):
            measured.update(instruction.qubits, instruction.clbits)
            continue
        again = not measured.isdisjoint(instruction.qubits) or not measured.isdisjoint(instruction.clbits)
        if again or (isinstance(operation, Reset) and not used.isdisjoint(instruction.qubits)):
            return True
        used.update(instruction.qubits)
    return False


def refuse_dynamic(circuit: QuantumCircuit, who: str) -> None:
    """Raise where ``who`` would take measurements in mid-circuit for final ones.

    Raises:
        CircuitError: the circuit is dynamic.
    """
    if is_dynamic(circuit):
        raise CircuitError(
            f"{who} cannot simulate control flow, reset or mid-circuit measurement; QuantumModule, "
            "FastEstimator and FastSampler do"
        )


def static_circuit(circuit: QuantumCircuit, *, noisy: bool = False) -> QuantumCircuit:
    """A circuit without control flow, resets, and measurements in mid-circuit, with the same final state.

    The qubits of the circuit come first; then fresh ones, one for each measurement, reset and compound condition. The
    bits are measured at the end. A circuit that is not dynamic is returned as it is.

    Raises:
        CircuitError: it has a while loop, break or continue, or a condition on classical variables; or it is dynamic
            and ``noisy``: what is put in place of a measurement would have noise of its own.
    """
    if not is_dynamic(circuit):
        return circuit
    if noisy:
        raise CircuitError(
            "noise in circuits with control flow, reset or mid-circuit measurement is not simulated exactly; leave "
            "noise= out, or sample such a circuit with Qiskit Aer"
        )
    walk = _Deferral(circuit)
    walk.block(circuit, list(circuit.qubits), list(circuit.clbits), None)
    for bit, qubit in walk.holder.items():
        walk.out.measure(qubit, bit)
    return walk.out


class _Deferral:
    """Writes the static circuit. A *flag* is a fresh qubit that is 1 where the instructions at hand are done."""

    def __init__(self, circuit: QuantumCircuit) -> None:
        self.out = QuantumCircuit(circuit.qubits, circuit.clbits, *circuit.qregs, *circuit.cregs, name=circuit.name)
        self.holder: dict[Clbit, Qubit] = {}  # the qubit that holds a bit; a bit without one is 0

    def fresh(self) -> Qubit:
        qubit = Qubit()
        self.out.add_bits([qubit])
        return qubit

    def block(
        self, block: QuantumCircuit, qubits: Sequence[Qubit], clbits: Sequence[Clbit], flag: Qubit | None
    ) -> None:
        place = dict(zip(block.qubits, qubits, strict=True))
        bit = dict(zip(block.clbits, clbits, strict=True))
        for instruction in block.data:
            own = [place[q] for q in instruction.qubits]
            self.instruction(instruction, own, [bit[c] for c in instruction.clbits], flag)

    def instruction(
        self, instruction: CircuitInstruction, qubits: list[Qubit], clbits: list[Clbit], flag: Qubit | None
    ) -> None:
        operation = instruction.operation
        for kind, handle in _HANDLERS:
            if isinstance(operation, kind):
                handle(self, operation, qubits, clbits, flag)
                return
        if flag is None or operation.name in ("barrier", "delay"):
            self.out.append(operation, qubits, clbits)
        elif isinstance(operation, Gate):
            self.controlled(operation, [flag], 1, qubits)
        else:
            raise CircuitError(f"{operation.name!r} under a condition is not simulated: it is not a gate")

    def controlled(self, operation: Any, controls: list[Qubit], state: int, qubits: list[Qubit]) -> None:
        """Where the controls read ``state``; a global phase of the operation does not matter on classical controls."""
        self.out.append(operation.control(len(controls), ctrl_state=state), [*controls, *qubits])

    # Instructions

    def measure(self, operation: Any, qubits: list[Qubit], clbits: list[Clbit], flag: Qubit | None) -> None:
        outcome = self.fresh()
        if flag is None:
            self.out.append(CXGate(), [qubits[0], outcome])
        else:
            self.controlled(XGate(), [flag, qubits[0]], 3, [outcome])
            old = self.holder.get(clbits[0])
            if old is not None and old is not flag:  # where the flag is 0, so is a bit that it is
                self.controlled(XGate(), [flag, old], 2, [outcome])
        self.holder[clbits[0]] = outcome

    def reset(self, operation: Any, qubits: list[Qubit], clbits: list[Clbit], flag: Qubit | None) -> None:
        pair = [qubits[0], self.fresh()]
        if flag is None:
            self.out.append(SwapGate(), pair)
        else:
            self.controlled(SwapGate(), [flag], 1, pair)

    def box(self, operation: Any, qubits: list[Qubit], clbits: list[Clbit], flag: Qubit | None) -> None:
        self.block(operation.blocks[0], qubits, clbits, flag)

    def if_else(self, operation: Any, qubits: list[Qubit], clbits: list[Clbit], flag: Qubit | None) -> None:
        condition = operation.condition
        target, value = condition if isinstance(condition, tuple) else (condition, 1)
        wanted: list[Callable[[int], bool]] = [lambda v: v == int(value), lambda v: v != int(value)]
        blocks = operation.blocks
        flags = [self.flag(target, test, flag) for test in wanted[: len(blocks)]]
        for block, own in zip(blocks, flags, strict=True):
            if own is not False:
                self.block(block, qubits, clbits, own)

    def switch(self, operation: Any, qubits: list[Qubit], clbits: list[Clbit], flag: Qubit | None) -> None:
        cases = list(operation.cases_specifier())
        named = {int(v) for values, _ in cases for v in values if v is not CASE_DEFAULT}
        flags = [self.flag(operation.target, partial(_is_case, values, named), flag) for values, _ in cases]
        for (_, block), own_flag in zip(cases, flags, strict=True):
            if own_flag is not False:
                self.block(block, qubits, clbits, own_flag)

    def for_loop(self, operation: Any, qubits: list[Qubit], clbits: list[Clbit], flag: Qubit | None) -> None:
        indices, parameter, body = operation.params
        for index in indices:
            turn = body if parameter is None else body.assign_parameters({parameter: index}, strict=False)
            self.block(turn, qubits, clbits, flag)

    def refuse(self, operation: Any, *_: Any) -> None:
        raise CircuitError(
            f"{operation.name!r} is not simulated: the number of iterations depends on outcomes and is unbounded; "
            "use a for loop with if_test inside"
        )

    # Conditions

    def flag(self, target: Any, wanted: Callable[[int], bool], flag: Qubit | None) -> Qubit | bool | None:
        """A qubit that is 1 where a condition holds and ``flag`` is 1; None: always; False: never."""
        bits, states = assignments(target, wanted)
        holders = [self.holder.get(bit) for bit in bits]
        # A bit that nothing was measured into is 0.
        known = sum(1 << j for j, holder in enumerate(holders) if holder is not None)
        states = [s for s in states if not s & ~known]
        if not states:
            return False
        if len(states) == 1 << known.bit_count():
            return flag
        controls = [holder for holder in holders if holder is not None]
        if states == [known] and len(controls) == 1 and flag is None:
            return controls[0]
        found = self.fresh()
        for state in states:
            packed = _packed(state, known) | (0 if flag is None else 1 << len(controls))
            self.controlled(XGate(), controls + ([] if flag is None else [flag]), packed, [found])
        return found


def _is_case(values: Sequence[Any], named: set[int], value: int) -> bool:
    """Whether a value of the target is one of a case's, or of no case where it is the default."""
    default = any(v is CASE_DEFAULT for v in values)
    return value in {int(v) for v in values if v is not CASE_DEFAULT} or (default and value not in named)


def _packed(state: int, known: int) -> int:
    """The bits of a state at the places of a mask, close together."""
    places = [j for j in range(known.bit_length()) if known >> j & 1]
    return sum((state >> j & 1) << i for i, j in enumerate(places))


_HANDLERS: tuple[tuple[Any, Callable[..., None]], ...] = (
    (Measure, _Deferral.measure),
    (Reset, _Deferral.reset),
    (BoxOp, _Deferral.box),
    (IfElseOp, _Deferral.if_else),
    (SwitchCaseOp, _Deferral.switch),
    (ForLoopOp, _Deferral.for_loop),
    ((WhileLoopOp, BreakLoopOp, ContinueLoopOp), _Deferral.refuse),
)
