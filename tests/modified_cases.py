"""Random circuits of annotated operations: control, power and inverse, nested, of parameterised gates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from circuit_cases import STANDARD
from qiskit import QuantumCircuit
from qiskit.circuit import (
    AnnotatedOperation,
    ControlModifier,
    InverseModifier,
    Operation,
    Parameter,
    PowerModifier,
)
from qiskit.circuit.annotated_operation import Modifier
from qiskit.circuit.library import PauliEvolutionGate, UnitaryGate
from qiskit.quantum_info import SparsePauliOp, random_clifford, random_unitary

PARAMETERS = tuple(Parameter(name) for name in ("a", "b", "c"))
GATES = tuple(name for name in STANDARD if name not in ("delay", "measure", "reset"))


class Builder:
    """Draws operations whose angles are expressions of three parameters, or the numbers that these are at ``values``.

    Args:
        seed: the same seed draws the same operations, with parameters or without.
        values: numbers for the parameters; None: the parameters themselves.
        fractional: whether powers may be fractional.
        share: of the angles that are parameterised.
    """

    def __init__(self, seed: int, values: tuple[float, ...] | None, *, fractional: bool, share: float = 0.6) -> None:
        self.rng = np.random.default_rng(seed)
        self.values: tuple[Any, ...] = PARAMETERS if values is None else values
        self.fractional, self.share = fractional, share

    def circuit(self, num_qubits: int) -> QuantumCircuit:
        """A state without symmetries, three modified operations, and rotations between them."""
        circuit = QuantumCircuit(num_qubits)
        for _ in range(3):
            for qubit in range(num_qubits):
                circuit.u(*self.rng.uniform(-3, 3, 3), qubit)
            operation = self.operation(int(self.rng.integers(1, 4)), num_qubits)
            circuit.append(operation, self.rng.permutation(num_qubits)[: operation.num_qubits].tolist())
        for parameter in self.values:
            circuit.rx(parameter, 0)
        return circuit

    def operation(self, depth: int, most: int) -> Operation:
        """An operation on at most ``most`` qubits, modified ``depth`` times."""
        if depth == 0:
            return self.plain(most)
        kinds: list[Callable[[int, int], Operation]] = [self.annotated, self.annotated, self.by_method, self.composite]
        return kinds[self.rng.integers(len(kinds))](depth, most)

    def annotated(self, depth: int, most: int) -> Operation:
        modifiers: list[Modifier] = []
        for _ in range(self.rng.integers(1, 3)):
            modifier = self.modifier(most - 1)
            most -= getattr(modifier, "num_ctrl_qubits", 0)
            modifiers.append(modifier)
        return AnnotatedOperation(self.operation(depth - 1, most), modifiers)

    def modifier(self, controls: int) -> Modifier:
        kind = self.rng.integers(3)
        if kind == 0 and controls > 0:
            count = int(self.rng.integers(1, min(controls, 2) + 1))
            return ControlModifier(count, int(self.rng.integers(1 << count)))
        return PowerModifier(self.power()) if kind == 1 else InverseModifier()

    def power(self) -> float:
        if self.fractional and self.rng.random() < 0.7:
            return float(self.rng.choice([0.5, -0.3, 1.7]))
        return int(self.rng.integers(-3, 4))

    def by_method(self, depth: int, most: int) -> Operation:
        """Qiskit's methods, which give an annotated operation or a gate."""
        kind, annotated = self.rng.integers(3), (True, False)[self.rng.integers(2)]
        if kind == 0 and most > 1:
            base = self.operation(depth - 1, most - 1)
            state = int(self.rng.integers(2))
            return base.control(1, ctrl_state=state, annotated=annotated) if hasattr(base, "control") else base
        base = self.operation(depth - 1, most)
        if kind == 1:
            return base.power(self.power(), annotated=True) if hasattr(base, "power") else base
        return base.inverse(annotated=True)

    def composite(self, depth: int, most: int) -> Operation:
        circuit = QuantumCircuit(most, global_phase=self.angle())
        for level in (depth - 1, 0):
            inner = self.operation(level, most)
            circuit.append(inner, self.rng.permutation(most)[: inner.num_qubits].tolist())
        return circuit.to_gate()

    def plain(self, most: int) -> Operation:
        kind, width = self.rng.integers(8), int(self.rng.integers(1, min(most, 2) + 1))
        seed = int(self.rng.integers(1 << 30))
        if kind == 0:
            return UnitaryGate(random_unitary(1 << width, seed=seed))
        if kind == 1:
            labels = ["".join(self.rng.choice(list("IXYZ"), width)) for _ in range(2)]
            return PauliEvolutionGate(SparsePauliOp(labels, self.rng.normal(size=2)), self.angle())
        if kind == 2:
            return random_clifford(width, seed=seed).to_circuit().to_gate()
        fitting = [name for name in GATES if STANDARD[name].num_qubits <= most]
        gate = STANDARD[fitting[self.rng.integers(len(fitting))]]
        return gate.base_class(*[self.angle() for _ in gate.params])

    def angle(self) -> Any:
        chosen, scale, offset = self.rng.integers(3), *self.rng.uniform(-2, 2, 2)
        if self.rng.random() > self.share:
            return float(offset)
        value = self.values[chosen]
        return (value, value * scale, value * value + offset)[self.rng.integers(3)]
