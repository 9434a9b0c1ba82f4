"""Control, inverse and power of any operation, exactly: parameters stay parameters, and global phases are kept.

A modified operation is read as Clifford gates and Pauli rotations times a global phase. Each of these has an inverse,
can be repeated, and is controlled by a few rotations about longer Pauli strings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isfinite, pi
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import (
    AnnotatedOperation,
    BoxOp,
    CircuitInstruction,
    ControlFlowOp,
    ControlModifier,
    Delay,
    InverseModifier,
    Measure,
    Operation,
    PowerModifier,
    Reset,
)
from qiskit.circuit.library import Initialize, MCXGate, PauliEvolutionGate
from qiskit.quantum_info import Operator, Pauli, SparsePauliOp

from qtm._circuit.decompositions import MATRIX_QUBITS, circuit_of, definition_of, is_unbound, rotation_generator
from qtm._circuit.gates import GATES, Clifford
from qtm._circuit.synthesis import synthesize
from qtm._errors import CircuitError

# Up to this number of controls a rotation becomes 2**controls rotations; above, two multi-controlled X are used.
_FEW_CONTROLS = 4
# Number of gates from which a power of a bound operation is computed from its matrix.
_LONG_POWER = 1 << 12
# Maximum number of gates of a power: with more, lowering takes minutes.
_MOST_STEPS = 1 << 20


@dataclass(frozen=True, slots=True)
class Rotation:
    """exp(-i angle/2 P), with the letters of ``pauli`` on ``qubits``; the angle (radians) may be an expression."""

    pauli: str
    qubits: tuple[int, ...]
    angle: Any


Step = Clifford | Rotation

# A Clifford gate as rotations and a global phase: X = exp(i pi/2) exp(-i pi/2 X), and so on.
_AS_ROTATIONS: dict[str, tuple[tuple[tuple[str, tuple[int, ...], float], ...], float]] = {
    "x": ((("X", (0,), pi),), pi / 2),
    "z": ((("Z", (0,), pi),), pi / 2),
    "s": ((("Z", (0,), pi / 2),), pi / 4),
    "sdg": ((("Z", (0,), -pi / 2),), -pi / 4),
    "cx": ((("Z", (0,), pi / 2), ("X", (1,), pi / 2), ("ZX", (0, 1), -pi / 2)), pi / 4),
    "cz": ((("Z", (0,), pi / 2), ("Z", (1,), pi / 2), ("ZZ", (0, 1), -pi / 2)), pi / 4),
    "swap": (tuple((letter * 2, (0, 1), -pi / 2) for letter in "XYZ"), -pi / 4),
}
_INVERSES = {"s": "sdg", "sdg": "s"}
_ONE_CONTROL = {"x": "cx", "z": "cz"}


@dataclass(frozen=True)
class Unitary:
    """exp(i phase) times the steps, in time order."""

    num_qubits: int
    steps: tuple[Step, ...]
    phase: Any = 0.0

    @property
    def is_parameterized(self) -> bool:
        return is_unbound(self.phase) or any(isinstance(s, Rotation) and is_unbound(s.angle) for s in self.steps)

    def circuit(self) -> QuantumCircuit:
        """The same as a circuit that `flatten` reads step by step."""
        circuit = QuantumCircuit(self.num_qubits, global_phase=self.phase)
        for step in self.steps:
            if isinstance(step, Clifford):
                getattr(circuit, step.name)(*step.qubits)
            else:
                circuit.append(PauliEvolutionGate(Pauli(step.pauli[::-1]), step.angle / 2), step.qubits)
        return circuit

    def matrix(self) -> np.ndarray:
        """The matrix (2**n, 2**n) of a unitary without parameters."""
        product = np.eye(1 << self.num_qubits, dtype=complex)
        phase = float(self.phase)
        for step in self.steps:
            rotations, own_phase = _as_rotations(step)
            phase += own_phase
            for rotation in rotations:
                term = (rotation.pauli, rotation.qubits, 1.0)
                pauli = SparsePauliOp.from_sparse_list([term], self.num_qubits).to_matrix(sparse=True)
                half = float(rotation.angle) / 2
                product = np.cos(half) * product - 1j * np.sin(half) * (pauli @ product)
        return np.exp(1j * phase) * product

    def inverse(self) -> Unitary:
        steps = [
            Clifford(_INVERSES.get(step.name, step.name), step.qubits)
            if isinstance(step, Clifford)
            else Rotation(step.pauli, step.qubits, -step.angle)
            for step in reversed(self.steps)
        ]
        return Unitary(self.num_qubits, tuple(steps), -self.phase)

    def repeated(self, count: int) -> Unitary:
        """This unitary ``count`` (0 or more) times; angles of commuting rotations are multiplied."""
        rotations = [step for step in self.steps if isinstance(step, Rotation)]
        if len(rotations) == len(self.steps) and all(_commute(p, q) for p, q in combinations(rotations, 2)):
            steps: tuple[Step, ...] = tuple(Rotation(r.pauli, r.qubits, r.angle * count) for r in rotations)
        elif len(self.steps) * count > _MOST_STEPS:
            raise CircuitError(
                f"the power {count} of its {len(self.steps)} gates is too long a circuit; the maximum is "
                f"{_MOST_STEPS} gates. Bind its parameters first: a small operation is then raised by its matrix"
            )
        else:
            steps = self.steps * count
        return Unitary(self.num_qubits, steps, self.phase * count)

    def controlled(self, state: tuple[bool, ...]) -> Unitary:
        """This unitary where the first ``len(state)`` qubits are in ``state``; its own qubits come after them."""
        if not state:
            return self
        control = _Control(state)
        for step in self.steps:
            control.add(_moved(step, range(len(state), len(state) + self.num_qubits)))
        control.finish(self.phase)
        return Unitary(self.num_qubits + len(state), tuple(control.steps), control.phase)


def _commute(first: Rotation, second: Rotation) -> bool:
    letters = dict(zip(first.qubits, first.pauli, strict=True))
    return sum(letters.get(q, p) != p for q, p in zip(second.qubits, second.pauli, strict=True)) % 2 == 0


def _moved(step: Step, qubits: Sequence[int]) -> Step:
    """The step on ``qubits[q]`` for every qubit q."""
    on = tuple(qubits[q] for q in step.qubits)
    return Clifford(step.name, on) if isinstance(step, Clifford) else Rotation(step.pauli, on, step.angle)


def _as_rotations(step: Step) -> tuple[list[Rotation], float]:
    """A step as rotations, and the global phase that they lack."""
    if isinstance(step, Rotation):
        return [step], 0.0
    rotations, phase = _AS_ROTATIONS[step.name]
    return [Rotation(pauli, tuple(step.qubits[q] for q in on), angle) for pauli, on, angle in rotations], phase


class _Control:
    """Steps controlled on the first qubits being in ``state``.

    The projector on that state is the product of (1 + Z)/2 and (1 - Z)/2: a sum of Z strings with coefficients
    +-2**-n. So a rotation about P becomes one about each string times P, and a global phase one about each string.
    """

    def __init__(self, state: tuple[bool, ...]) -> None:
        self.state = state
        self.steps: list[Step] = []
        self.phase: Any = 0.0  # of the result as a whole
        self._inner_phase: Any = 0.0  # under the control; applied at the end, as it commutes with everything

    def add(self, step: Step) -> None:
        if isinstance(step, Rotation):
            self._rotate(step, self.state)
        elif step.name in _ONE_CONTROL and self.state == (True,):
            self.steps.append(Clifford(_ONE_CONTROL[step.name], (0, *step.qubits)))
        elif step.name == "x" and len(self.state) > _FEW_CONTROLS:
            self._flip(step.qubits[0], self.state)
        else:
            rotations, phase = _as_rotations(step)
            self._inner_phase += phase
            for rotation in rotations:
                self._rotate(rotation, self.state)

    def finish(self, phase: Any) -> None:
        """Add the global phase (radians) of the controlled steps, a phase of the controls' state."""
        phase, state = self._inner_phase + phase, self.state
        if not is_unbound(phase) and float(phase) == 0.0:
            return
        while (
            len(state) > _FEW_CONTROLS
        ):  # diag(1, exp(i phase)) = exp(i phase/2) exp(i phase/2 Z), and likewise with 0
            *rest, last = state
            state = tuple(rest)
            self._rotate(Rotation("Z", (len(state),), phase if last else -phase), state)
            phase = phase / 2
        for controls, coefficient in _strings(state):
            if controls:
                self.steps.append(Rotation("Z" * len(controls), controls, phase * (-2 * coefficient)))
        self.phase += phase / (1 << len(state))

    def _rotate(self, rotation: Rotation, state: tuple[bool, ...]) -> None:
        if len(state) > _FEW_CONTROLS:
            self._rotate_between_flips(rotation, state)
            return
        for controls, coefficient in _strings(state):
            pauli, qubits = "Z" * len(controls) + rotation.pauli, controls + rotation.qubits
            self.steps.append(Rotation(pauli, qubits, rotation.angle * coefficient))

    def _rotate_between_flips(self, rotation: Rotation, state: tuple[bool, ...]) -> None:
        """Half the rotation, and half its inverse between two controlled gates that invert it.

        Barenco et al., Phys. Rev. A 52, 3457 (1995), lemmas 5.1 and 7.9.
        """
        target = rotation.qubits[0]
        # The controlled X inverts Z and Y. Hadamard gates on both sides make it a controlled Z, which inverts X.
        hadamard: list[Step] = (
            [Clifford("z", (target,)), Rotation("Y", (target,), pi / 2)] if rotation.pauli[0] == "X" else []
        )
        for share in (0.5, -0.5):
            self.steps.append(Rotation(rotation.pauli, rotation.qubits, rotation.angle * share))
            self.steps += hadamard
            self._flip(target, state)
            self.steps += hadamard

    def _flip(self, target: int, state: tuple[bool, ...]) -> None:
        gate = MCXGate(len(state), ctrl_state=sum(bit << q for q, bit in enumerate(state)))
        flip = unitary_of(gate)
        self.steps += [_moved(step, (*range(len(state)), target)) for step in flip.steps]
        self.phase += flip.phase


def _strings(state: tuple[bool, ...]) -> Iterator[tuple[tuple[int, ...], float]]:
    """Qubits and coefficient of every Z string in |state><state|."""
    for subset in range(1 << len(state)):
        qubits = tuple(q for q in range(len(state)) if subset >> q & 1)
        yield qubits, (-1) ** sum(state[q] for q in qubits) / (1 << len(state))


# Reading operations.


def unitary_of(operation: Operation) -> Unitary:
    """Any unitary operation, modified or not.

    Raises:
        CircuitError: it is not unitary, has no definition, or is parameterised under a power that is not an integer.
    """
    if isinstance(operation, AnnotatedOperation):
        return _modified(operation)
    return _unitary_of_circuit(circuit_of(operation))


def _unitary_of_circuit(circuit: QuantumCircuit) -> Unitary:
    index = {qubit: i for i, qubit in enumerate(circuit.qubits)}
    steps: list[Step] = []
    phase: Any = circuit.global_phase
    for instruction in circuit.data:
        part = _unitary_of_instruction(instruction)
        qubits = [index[q] for q in instruction.qubits]
        steps += [_moved(step, qubits) for step in part.steps]
        phase += part.phase
    return Unitary(circuit.num_qubits, tuple(steps), phase)


def _unitary_of_instruction(instruction: CircuitInstruction) -> Unitary:
    if instruction.is_standard_gate() and instruction.name in GATES:
        return _unitary_of_row(instruction)
    operation = instruction.operation
    if isinstance(operation, AnnotatedOperation):
        return _modified(operation)
    if isinstance(operation, Delay) or instruction.is_directive():
        return Unitary(operation.num_qubits, ())
    generator = rotation_generator(operation)
    if generator is not None:
        return _rotation(generator, operation.params[0])
    return _unitary_of_definition(operation)


def _unitary_of_row(instruction: CircuitInstruction) -> Unitary:
    values, row = instruction.params, GATES[instruction.name]
    steps = [
        p if isinstance(p, Clifford) else Rotation(p.pauli, p.qubits, _linear(p.offset, p.terms, values))
        for p in row.sequence
    ]
    offset, *coefficients = row.phase or (0.0,)
    return Unitary(len(instruction.qubits), tuple(steps), _linear(offset, enumerate(coefficients), values))


def _linear(offset: float, terms: Iterable[tuple[int, float]], values: Sequence[Any]) -> Any:
    return offset + sum(values[k] * coefficient for k, coefficient in terms)


def _rotation(generator: SparsePauliOp, time: Any) -> Unitary:
    """exp(-i time c P) of one Pauli string with its coefficient."""
    label, coefficient = generator.paulis[0].to_label()[::-1], float(generator.coeffs[0].real)
    acting = tuple(q for q, letter in enumerate(label) if letter != "I")
    if not acting:
        return Unitary(len(label), (), time * -coefficient)
    rotation = Rotation("".join(label[q] for q in acting), acting, time * (2 * coefficient))
    return Unitary(len(label), (rotation,))


def _unitary_of_definition(operation: Operation) -> Unitary:
    if isinstance(operation, (Measure, Reset, Initialize, ControlFlowOp)) and not isinstance(operation, BoxOp):
        raise CircuitError(f"it modifies (control, inverse, power) {operation.name!r}, which is not unitary")
    definition = definition_of(operation)
    if not isinstance(definition, QuantumCircuit):
        raise CircuitError(f"it modifies {operation.name!r}, which has no definition as a circuit")
    return _unitary_of_circuit(definition)


def _modified(operation: AnnotatedOperation) -> Unitary:
    """Apply powers and inverses in their order, then all controls, which commute with both."""
    unitary = unitary_of(operation.base_op)
    state: tuple[bool, ...] = ()
    for modifier in operation.modifiers:
        if isinstance(modifier, ControlModifier):
            state = (*_bits(modifier), *state)
        elif isinstance(modifier, InverseModifier):
            unitary = unitary.inverse()
        elif isinstance(modifier, PowerModifier):
            unitary = _power(unitary, operation.base_op.name, modifier.power)
        else:
            raise CircuitError(f"it has the modifier {modifier!r}; only control, inverse and power are supported")
    return unitary.controlled(state)


def _bits(modifier: ControlModifier) -> tuple[bool, ...]:
    state = int(modifier.ctrl_state or 0)  # its constructor makes it a number
    return tuple(bool(state >> q & 1) for q in range(modifier.num_ctrl_qubits))


def _power(unitary: Unitary, name: str, power: Any) -> Unitary:
    """An integer power repeats and keeps parameters; other powers have the branch of Qiskit's matrix power."""
    power = _checked_power(power)
    if power.is_integer() and (unitary.is_parameterized or abs(power) * len(unitary.steps) < _LONG_POWER):
        once = unitary if power >= 0 else unitary.inverse()
        return once.repeated(abs(int(power)))
    if unitary.is_parameterized:
        raise CircuitError(
            f"it raises {name!r} to the power {power}: the principal power of a matrix, which is not a smooth function "
            "of its parameters. Bind its parameters first, use an integer power, or scale the angle of the gate "
            "itself, as RXGate(angle).power(0.5) does"
        )
    if unitary.num_qubits > MATRIX_QUBITS:
        raise CircuitError(
            f"it raises {name!r} to the power {power}, which needs a matrix of {unitary.num_qubits} qubits; "
            f"the maximum is {MATRIX_QUBITS}"
        )
    exponent = int(power) if power.is_integer() else power
    return _unitary_of_circuit(synthesize(Operator(unitary.matrix()).power(exponent).data))


def _checked_power(power: Any) -> float:
    try:
        number = float(power)
    except TypeError as error:
        raise CircuitError(f"its power is {power}, which is not a real number; bind it first") from error
    if not isfinite(number):
        raise CircuitError(f"its power is {power}; a finite real number was expected")
    return number


def expansion_of(operation: Operation) -> QuantumCircuit | None:
    """The circuit that an operation stands for, or None if it has neither a definition nor a matrix."""
    return _modified(operation).circuit() if isinstance(operation, AnnotatedOperation) else definition_of(operation)
