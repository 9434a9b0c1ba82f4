"""Any Qiskit circuit as a flat stream of primitives, and as a template for parameter shifts on hardware."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
from typing import NoReturn

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import (
    BoxOp,
    CircuitInstruction,
    ControlFlowOp,
    Measure,
    Operation,
    Parameter,
    ParameterExpression,
    Reset,
    Store,
)
from qiskit.circuit.library import Initialize, StatePreparation
from qiskit.exceptions import QiskitError

from qtm._circuit.channels import Channel
from qtm._circuit.decompositions import is_unbound, on_qubits, row_of
from qtm._circuit.gates import GateRow, PauliRotation, Primitive, ShiftRule
from qtm._circuit.modifiers import expansion_of
from qtm._circuit.noise_map import NoiseMap
from qtm._errors import CircuitError

_QUOTES = "'\""  # Qiskit puts its messages in quotes
_ELSEWHERE = "Such circuits run on an estimator that samples, such as qiskit_aer.primitives.EstimatorV2."


@dataclass(frozen=True, slots=True)
class Preparation:
    """Initial amplitudes of ``qubits``, little-endian: bit j of the index is ``qubits[j]``.

    ``normalize``: divide by the Euclidean norm (once bound); otherwise the norm is already 1.
    """

    qubits: tuple[int, ...]
    amplitudes: tuple[complex | ParameterExpression, ...]
    normalize: bool


@dataclass(frozen=True, slots=True)
class GlobalPhase:
    """An angle in radians: ``offset``, plus coefficient * angle[index] over ``angles``, plus coefficient * expression.

    Engines multiply states by the first two parts. The expressions occur in no gate angle; callers of an engine
    multiply its states by that part.
    """

    offset: float = 0.0
    angles: tuple[tuple[int, float], ...] = ()
    expressions: tuple[tuple[float, ParameterExpression], ...] = ()


@dataclass(frozen=True, eq=False, slots=True)
class FlatCircuit:
    """A circuit as primitives on circuit qubits: it is exp(i ``phase``) times their product.

    ``angles[k]`` is the expression of angle k in ``parameters`` (ordered as in Qiskit):
    one entry for every parameterised slot of every gate. ``shifts[k]`` is its parameter-shift rule.
    ``initial`` lists state preparations on disjoint qubits; all other qubits start in 0.
    ``readout[q]`` is the probability of reading 1 where qubit q is 0, and of reading 0 where it is 1; empty: none.
    """

    num_qubits: int
    operations: tuple[Primitive | Channel, ...]
    angles: tuple[ParameterExpression, ...]
    shifts: tuple[ShiftRule, ...]
    parameters: tuple[Parameter, ...]
    initial: tuple[Preparation, ...]
    readout: tuple[tuple[float, float], ...] = ()
    phase: GlobalPhase = GlobalPhase()

    @property
    def is_noisy(self) -> bool:
        """Whether it holds a channel or a readout error."""
        return bool(self.readout) or any(isinstance(operation, Channel) for operation in self.operations)


def flatten(circuit: QuantumCircuit, noise: NoiseMap | None = None) -> FlatCircuit:
    """Turn a circuit into primitives.

    Barriers, delays and final measurements are left out. With ``noise``, its channels follow the
    gates that it names.

    Raises:
        CircuitError: an instruction is not unitary (mid-circuit measurement or reset, control flow, ...), has
            no definition, or has parameters that the circuit lacks. The message names it and its index.

    Example:
        >>> from qiskit.circuit.library import real_amplitudes
        >>> len(flatten(real_amplitudes(3, reps=1)).angles)
        6
    """
    walk = _Walk(circuit, noise)
    walk.run()
    return _flat(walk, () if noise is None else noise.readout_of(circuit.num_qubits))


def flatten_segment(circuit: QuantumCircuit, touched: Iterable[int]) -> FlatCircuit:
    """Turn a part of a circuit into primitives; ``touched`` qubits may be in any state before it.

    Raises:
        CircuitError: see `flatten`; or an instruction needs a touched qubit in state 0.
    """
    walk = _Walk(circuit)
    walk.touched.update(touched)
    walk.run()
    return _flat(walk, ())


def _flat(walk: _Walk, readout: tuple[tuple[float, float], ...]) -> FlatCircuit:
    circuit = walk.circuit
    return FlatCircuit(
        circuit.num_qubits,
        tuple(walk.operations),
        tuple(walk.angles),
        tuple(walk.shifts),
        tuple(circuit.parameters),
        tuple(walk.initial),
        readout,
        GlobalPhase(walk.phase, tuple(sorted(walk.phase_angles.items())), tuple(walk.phase_expressions)),
    )


class _Walk:
    """One pass over a circuit and the definitions inside it."""

    def __init__(self, circuit: QuantumCircuit, noise: NoiseMap | None = None) -> None:
        self.circuit, self.noise = circuit, noise
        self.known = set(circuit.parameters)
        self.operations: list[Primitive | Channel] = []
        self.angles: list[ParameterExpression] = []
        self.shifts: list[ShiftRule] = []
        self.initial: list[Preparation] = []
        self.phase = 0.0
        self.phase_angles: dict[int, float] = {}
        self.phase_expressions: list[tuple[float, ParameterExpression]] = []
        self.touched: set[int] = set()
        self.measured: dict[int, str] = {}  # qubit -> the measurement, for the error message
        self.names: list[str] = []  # the current instruction and those around it, outermost first
        self.position = 0
        self.complete: CircuitError | None = None

    def run(self) -> None:
        index = {qubit: i for i, qubit in enumerate(self.circuit.qubits)}
        for position, instruction in enumerate(self.circuit.data):
            self.position = position
            self.visit(instruction, tuple([index[q] for q in instruction.qubits]))
        self.add_phase(1.0, self.circuit.global_phase)

    def add_phase(self, coefficient: float, angle: ParameterExpression | float) -> None:
        if is_unbound(angle):
            self.phase_expressions.append((coefficient, angle))
        else:
            self.phase += coefficient * float(angle)

    def visit(self, instruction: CircuitInstruction, qubits: tuple[int, ...]) -> None:
        """Add one instruction with its noise; errors of Qiskit become qtm's and name the instruction."""
        self.names.append(instruction.name)
        if self.noise is not None and self.noise.knows(instruction.name):
            noise, self.noise = self.noise, None  # noise of the whole gate; its parts have none
            self.visit_gate(instruction, qubits)
            self.noise = noise
            self.operations += noise.after(instruction, qubits)
        else:
            self.visit_gate(instruction, qubits)
        self.names.pop()

    def visit_gate(self, instruction: CircuitInstruction, qubits: tuple[int, ...]) -> None:
        try:
            row = row_of(instruction)
            if row is not None:
                self.emit(row, instruction.params, qubits)
            elif instruction.name == "store" or not instruction.is_directive():  # to Qiskit a store is one
                self.visit_composite(instruction.operation, qubits)
        except (CircuitError, QiskitError, TypeError, ValueError) as error:
            if error is self.complete:
                raise
            raise self.refusal(f"{self.where()}: {str(error).strip(_QUOTES).rstrip('.')}.") from error

    def refusal(self, message: str) -> CircuitError:
        """An error whose message is complete: surrounding composites add nothing to it."""
        self.complete = CircuitError(message)
        return self.complete

    def refuse(self, why: str) -> NoReturn:
        raise self.refusal(f"{self.where()}: {why}. {_ELSEWHERE}")

    def where(self) -> str:
        inner = "".join(f", inside it {name!r}" for name in self.names[1:])
        return f"instruction {self.position} of circuit {self.circuit.name!r}, {self.names[0]!r}{inner}"

    def emit(self, row: GateRow, params: list, qubits: tuple[int, ...]) -> None:
        if not row.sequence:
            for coefficient, angle in zip(row.phase, (1.0, *params), strict=False):
                self.add_phase(coefficient, angle)
            return
        if self.noise is not None:
            raise CircuitError(self.noise.unknown(self.names[-1]))
        self.use(qubits)
        slots = [self.slot(p, rule) for p, rule in zip(params, row.shifts, strict=True)] if row.shifts else []
        for coefficient, slot in zip(row.phase, (1.0, *slots), strict=False):
            if isinstance(slot, float):
                self.phase += coefficient * slot
            elif coefficient:
                self.phase_angles[slot] = coefficient
        for primitive in row.sequence:
            placed = on_qubits(primitive, qubits)
            self.operations.append(_with_slots(placed, slots) if slots else placed)

    def slot(self, value: object, rule: ShiftRule) -> int | float:
        """A new angle index (int) for a parameterised value, or the value of a number (float)."""
        if not isinstance(value, ParameterExpression) or not value.parameters:
            number = float(value)  # type: ignore[arg-type]
            if not isfinite(number):
                raise CircuitError(f"its angle is {number}; a finite number of radians was expected")
            return number
        if not self.known.issuperset(value.parameters):
            names = sorted(p.name for p in value.parameters - self.known)
            raise CircuitError(
                f"its definition uses the parameters {names}, which the circuit does not list, so they can "
                "never be bound. Build the gate with circuit.to_gate() or pass them as the gate's params"
            )
        self.angles.append(value)
        self.shifts.append(rule)
        return len(self.angles) - 1

    def use(self, qubits: tuple[int, ...]) -> None:
        self.touched.update(qubits)
        if self.measured:
            again = [self.measured[q] for q in qubits if q in self.measured]
            if again:
                raise self.refusal(
                    f"{again[0]}: mid-circuit measurement; {self.names[0]!r} at index {self.position} "
                    f"acts on the measured qubit, and only final measurements are supported here. {_ELSEWHERE}"
                )

    def visit_composite(self, operation: Operation, qubits: tuple[int, ...]) -> None:
        if isinstance(operation, (ControlFlowOp, Store)) and not isinstance(operation, BoxOp):
            self.refuse("classical variables and control flow are not simulated")
        elif isinstance(operation, Measure):
            self.measured.update({q: self.where() for q in qubits})
        elif isinstance(operation, Reset):
            self.require_untouched(qubits, "a reset of a qubit that was used before")
        elif isinstance(operation, (Initialize, StatePreparation)):
            self.prepare(operation, qubits)
        elif operation.name == "ParameterizedInitialize":  # raw_feature_vector of qiskit-machine-learning
            self.require_untouched(qubits, "a feature vector on qubits used before, which resets them,")
            self.add_preparation(operation.params, qubits, normalize=True)
        else:
            self.expand(operation, qubits)

    def require_untouched(self, qubits: tuple[int, ...], what: str) -> None:
        if not self.touched.isdisjoint(qubits) or not self.measured.keys().isdisjoint(qubits):
            self.refuse(f"{what} is not a unitary operation")

    def prepare(self, operation: Initialize | StatePreparation, qubits: tuple[int, ...]) -> None:
        if isinstance(operation, Initialize):
            self.require_untouched(qubits, "an initialization of qubits used before, which resets them,")
        # Labels ("0", "+", ...) and integers (a single entry) are a few gates, whatever the number of qubits.
        by_gates = len(operation.params) == 1 or isinstance(operation.params[0], str)
        fresh = self.touched.isdisjoint(qubits) and self.measured.keys().isdisjoint(qubits)
        if by_gates or not fresh or operation.name == "state_preparation_dg":
            self.expand(operation, qubits)
        else:
            self.add_preparation(operation.params, qubits, normalize=False)

    def add_preparation(self, params: list, qubits: tuple[int, ...], normalize: bool) -> None:
        amplitudes = tuple(p if is_unbound(p) else complex(p) for p in params)
        if normalize and not any(is_unbound(p) for p in amplitudes):
            vector = np.array(amplitudes)
            norm = float(np.linalg.norm(vector))
            if not isfinite(norm) or norm == 0.0:
                raise CircuitError(f"the norm of its amplitudes is {norm}; they cannot be normalized")
            amplitudes, normalize = tuple((vector / norm).tolist()), False
        self.touched.update(qubits)
        self.initial.append(Preparation(qubits, amplitudes, normalize))

    def expand(self, operation: Operation, qubits: tuple[int, ...]) -> None:
        definition = expansion_of(operation)
        if not isinstance(definition, QuantumCircuit):
            raise CircuitError(
                "it has no definition as a circuit, and no small matrix to synthesize. Set its "
                "definition to a circuit, or use a UnitaryGate; a noise channel needs a noisy estimator"
            )
        index = dict(zip(definition.qubits, qubits, strict=True))
        for instruction in definition.data:
            self.visit(instruction, tuple([index[q] for q in instruction.qubits]))
        self.add_phase(1.0, definition.global_phase)


def _with_slots(primitive: Primitive, slots: list[int | float]) -> Primitive:
    """Replace local parameter numbers by angle indices, and constant parameters by an offset."""
    if not isinstance(primitive, PauliRotation) or not primitive.terms:
        return primitive
    terms, offset = [], primitive.offset
    for local, coefficient in primitive.terms:
        slot = slots[local]
        if isinstance(slot, int):
            terms.append((slot, coefficient))
        else:
            offset += coefficient * slot
    return PauliRotation(primitive.pauli, primitive.qubits, tuple(terms), offset)
