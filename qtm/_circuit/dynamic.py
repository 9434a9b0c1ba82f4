"""Dynamic circuits as static ones, by deferred measurement: exact, and differentiable.

A mid-circuit measurement copies its qubit onto a fresh one, which holds the classical bit from then on; operations that
depend on the bit are controlled by that qubit. A reset swaps its qubit with a fresh one. Afterwards only operators
diagonal in Z act on fresh qubits, so they cost little in simulators that omit what no observable depends on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from qiskit import QuantumCircuit
from qiskit.circuit import (
    BoxOp,
    CircuitInstruction,
    Clbit,
    ControlFlowOp,
    Delay,
    Gate,
    Measure,
    Qubit,
    Reset,
)
from qiskit.circuit.library import CXGate, Initialize, StatePreparation, SwapGate, XGate

from qtm._circuit.conditions import assignments
from qtm._circuit.control_flow import Case, ControlFlowWalk, instructions_of
from qtm._circuit.embedded_noise import NoiseStep
from qtm._circuit.modifiers import expansion_of
from qtm._circuit.noise_map import NoiseMap, Operations
from qtm._errors import CircuitError


def is_dynamic(circuit: QuantumCircuit) -> bool:
    """Whether there is control flow, a reset of a used qubit, or an operation on a measured qubit or bit."""
    used: set[Qubit] = set()
    measured: set[Any] = set()
    for instruction in instructions_of(circuit):
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
    """Raise an error for a circuit whose mid-circuit measurements ``who`` would mistake for final ones.

    Raises:
        CircuitError: the circuit is dynamic.
    """
    if is_dynamic(circuit):
        raise CircuitError(
            f"{who} cannot simulate control flow, reset or mid-circuit measurement; QuantumModule, "
            "FastEstimator and FastSampler do"
        )


def static_circuit(circuit: QuantumCircuit, noise: NoiseMap | None = None) -> QuantumCircuit:
    """A circuit without control flow, resets and mid-circuit measurements, with the same final state.

    The qubits of the circuit come first; then fresh ones, one for each measurement, reset and compound condition. The
    bits are measured at the end. A circuit that is not dynamic is returned as it is. With ``noise``, its errors are
    `NoiseStep` instructions of the circuit, and the bits have their readout errors.

    Raises:
        CircuitError: it has a while loop, break or continue, or a condition on classical variables; or a gate that the
            noise model lacks.
    """
    return deferred_circuit(circuit, noise) if is_dynamic(circuit) else circuit


def deferred_circuit(circuit: QuantumCircuit, noise: NoiseMap | None = None) -> QuantumCircuit:
    """As `static_circuit`, with a fresh qubit for each bit even if all measurements are final."""
    walk = _Deferral(circuit) if noise is None else _NoisyDeferral(circuit, noise)
    walk.block(circuit, list(circuit.qubits), list(circuit.clbits), None)
    for bit, qubit in walk.holder.items():
        walk.out.measure(qubit, bit)
    return walk.out


class _Deferral(ControlFlowWalk[Qubit | None]):
    """Builds the static circuit. A *flag* is a fresh qubit that is 1 if the current block is executed."""

    def __init__(self, circuit: QuantumCircuit) -> None:
        self.out = QuantumCircuit(circuit.qubits, circuit.clbits, *circuit.qregs, *circuit.cregs, name=circuit.name)
        self.holder: dict[Clbit, Qubit] = {}  # the qubit that holds a bit; a bit without one is 0

    def fresh(self) -> Qubit:
        qubit = Qubit()
        self.out.add_bits([qubit])
        return qubit

    def other(
        self, instruction: CircuitInstruction, qubits: list[Qubit], clbits: list[Clbit], flag: Qubit | None
    ) -> None:
        operation = instruction.operation
        if flag is None or operation.name in ("barrier", "delay"):
            self.out.append(operation, qubits, clbits)
        elif isinstance(operation, Gate):
            self.controlled(operation, [flag], 1, qubits)
        else:
            raise CircuitError(f"{operation.name!r} under a condition is not simulated: it is not a gate")

    def controlled(self, operation: Any, controls: list[Qubit], state: int, qubits: list[Qubit]) -> None:
        """Apply it if the controls are in ``state``; with classical controls its global phase is irrelevant."""
        self.out.append(operation.control(len(controls), ctrl_state=state), [*controls, *qubits])

    # Instructions

    def measure(self, operation: Any, qubits: list[Qubit], clbits: list[Clbit], flag: Qubit | None) -> None:
        outcome = self.fresh()
        if flag is None:
            self.out.append(CXGate(), [qubits[0], outcome])
        else:
            self.controlled(XGate(), [flag, qubits[0]], 3, [outcome])
            old = self.holder.get(clbits[0])
            if old is not None and old is not flag:  # if old is the flag, it is 0 where the flag is 0
                self.controlled(XGate(), [flag, old], 2, [outcome])
        self.holder[clbits[0]] = outcome

    def reset(self, operation: Any, qubits: list[Qubit], clbits: list[Clbit], flag: Qubit | None) -> None:
        pair = [qubits[0], self.fresh()]
        if flag is None:
            self.out.append(SwapGate(), pair)
        else:
            self.controlled(SwapGate(), [flag], 1, pair)

    def choice(
        self, target: Any, cases: list[Case], qubits: list[Qubit], clbits: list[Clbit], flag: Qubit | None
    ) -> None:
        flags = [self.flag(target, wanted, flag) for wanted, _ in cases]  # before a block changes the bits
        for (_, block), own in zip(cases, flags, strict=True):
            if own is not False:
                self.block(block, qubits, clbits, own)

    # Conditions

    def flag(self, target: Any, wanted: Callable[[int], bool], flag: Qubit | None) -> Qubit | bool | None:
        """A qubit that is 1 if a condition holds and ``flag`` is 1; None: always; False: never."""
        bits, states = assignments(target, wanted)
        holders = [self.holder.get(bit) for bit in bits]
        # A bit without a measurement is 0.
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


class _NoisyDeferral(_Deferral):
    """Deferral with the errors of a device after its instructions.

    An error after an instruction under a condition occurs only if the condition holds: then the state of its qubits is
    swapped onto spare qubits and back. The error acts on these qubits only; its effect on them in other cases is never
    observed.
    """

    def __init__(self, circuit: QuantumCircuit, noise: NoiseMap) -> None:
        super().__init__(circuit)
        self.noise = noise
        self.number = {qubit: place for place, qubit in enumerate(circuit.qubits)}
        self.spare: list[Qubit] = []

    def instruction(
        self, instruction: CircuitInstruction, qubits: list[Qubit], clbits: list[Clbit], flag: Qubit | None
    ) -> None:
        operation = instruction.operation
        if isinstance(operation, Measure | BoxOp | ControlFlowOp) or operation.name == "barrier":
            super().instruction(instruction, qubits, clbits, flag)
        elif self.noise.knows(operation.name) or isinstance(operation, _WITHOUT_GATES):
            super().instruction(instruction, qubits, clbits, flag)
            places = tuple(self.number[q] for q in qubits)
            self.errors(self.noise.after(instruction, places), places, qubits, flag)
        elif isinstance(definition := expansion_of(operation), QuantumCircuit) and definition.data:
            self.block(definition, qubits, clbits, flag)
        elif operation.name != "global_phase":
            raise CircuitError(self.noise.unknown(operation.name))

    def errors(self, operations: Operations, places: tuple[int, ...], qubits: list[Qubit], flag: Qubit | None) -> None:
        """Add operations, whose qubits are numbered as ``places``, to ``qubits``."""
        if not operations:
            return
        local = {place: j for j, place in enumerate(places)}
        moved = tuple(replace(o, qubits=tuple(local[q] for q in o.qubits)) for o in operations)
        step = NoiseStep(moved, len(places))
        if flag is None:
            self.out.append(step, qubits)
            return
        while len(self.spare) < len(qubits):
            self.spare.append(self.fresh())
        spare = self.spare[: len(qubits)]
        pairs = list(zip(qubits, spare, strict=True))
        for pair in pairs:
            self.controlled(SwapGate(), [flag], 1, list(pair))
        self.out.append(step, spare)
        for pair in pairs:
            self.controlled(SwapGate(), [flag], 1, list(pair))

    def measure(self, operation: Any, qubits: list[Qubit], clbits: list[Clbit], flag: Qubit | None) -> None:
        errors = self.noise.reading(self.number[qubits[0]])
        if not errors:
            super().measure(operation, qubits, clbits, flag)
            return
        seen = self.fresh()
        if flag is None:
            self.out.append(CXGate(), [qubits[0], seen])
        else:
            self.controlled(XGate(), [flag, qubits[0]], 3, [seen])
        self.out.append(NoiseStep(errors, 1), [seen])
        if flag is not None:  # without a measurement there is no readout error
            shown, seen = seen, self.fresh()
            self.controlled(XGate(), [flag, shown], 3, [seen])
            old = self.holder.get(clbits[0])
            if old is not None and old is not flag:
                self.controlled(XGate(), [flag, old], 2, [seen])
        self.holder[clbits[0]] = seen


def _packed(state: int, known: int) -> int:
    """The bits of a state at the places of a mask, packed."""
    places = [j for j in range(known.bit_length()) if known >> j & 1]
    return sum((state >> j & 1) << i for i, j in enumerate(places))


# Unchanged if the noise model has no entry for them.
_WITHOUT_GATES = (Initialize, StatePreparation, Delay, Reset)
