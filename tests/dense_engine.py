"""A complete simulation method in NumPy: dense states, one sample and one gate at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from qiskit.circuit.library import get_standard_gate_name_mapping
from qiskit.quantum_info import Operator, Pauli, Statevector

from qtm.engines import VALUES, VJP, Cost, Engine, Expectation, PauliRotation, Plan, SimulationMethod

GATES = get_standard_gate_name_mapping()


@dataclass(frozen=True)
class Dense(SimulationMethod):
    """Statevectors of Qiskit; ``max_qubits`` bounds their size."""

    max_qubits: int = 12
    name = "dense"
    gives = {Expectation: frozenset({VALUES, VJP})}  # noqa: RUF012 (a ClassVar of the base class)

    def refuses(self, circuit, output, options):
        if circuit.num_qubits > self.max_qubits:
            return f"takes at most {self.max_qubits} qubits, not {circuit.num_qubits}"
        return "prepares no amplitudes" if circuit.initial else super().refuses(circuit, output, options)

    def cost(self, circuit, output, options):
        return Cost(len(circuit.operations) * 1e5 * 2.0**circuit.num_qubits, 16 * 2.0**circuit.num_qubits)

    def compile(self, circuit, output, options):
        return DenseEngine(self, circuit, output, options)


class DenseEngine(Engine):
    """One circuit with its observables."""

    def __init__(self, method, circuit, output, options):
        self.method, self.circuit, self.output, self.options = method, circuit, output, options
        n = circuit.num_qubits
        self.paulis = [[(c, Pauli(p)) for c, p in zip(o.coeffs, o.labels(), strict=True)] for o in output.observables]
        self.zero = Statevector.from_int(0, 2**n)

    def _gate(self, operation, angles, sign=1):
        """An operation (or with sign -1 its inverse) as an operator on its own qubits."""
        if not isinstance(operation, PauliRotation):
            gate = Operator(GATES[operation.name])
            return gate if sign > 0 else gate.adjoint()
        angle = operation.offset + sum(coef * angles[k] for k, coef in operation.terms)
        pauli = Operator(Pauli(operation.pauli[::-1]))
        half = sign * angle / 2
        return np.cos(half) * Operator(np.eye(2 ** len(operation.qubits))) - 1j * np.sin(half) * pauli

    def _observe(self, state, weights):
        """The state after the observable ``sum of weights * output``."""
        terms = [(w * c, p) for w, ps in zip(weights, self.paulis, strict=True) for c, p in ps]
        return reduce(np.add, (c * state.evolve(p).data for c, p in terms), np.zeros(len(state.data), complex))

    def _final(self, angles):
        return reduce(lambda s, op: s.evolve(self._gate(op, angles), op.qubits), self.circuit.operations, self.zero)

    def forward(self, angles, prepared, *, keep=False):
        states = [self._final(row) for row in angles.double().numpy()]
        eye = np.eye(len(self.paulis))
        values = [[np.vdot(s.data, self._observe(s, one)).real for one in eye] for s in states]
        return torch.tensor(values, dtype=angles.dtype).reshape(len(angles), len(self.paulis)), states

    def vjp(self, angles, prepared, cotangent, residuals=None, *, by_prepared=False):
        states = residuals or [self._final(row) for row in angles.double().numpy()]
        gradient = np.zeros(angles.shape)
        for row, at, state, weights in zip(gradient, angles.double().numpy(), states, cotangent, strict=True):
            dual = Statevector(self._observe(state, weights.double().numpy()))
            for operation in reversed(self.circuit.operations):
                if isinstance(operation, PauliRotation):
                    turned = state.evolve(Pauli(operation.pauli[::-1]), operation.qubits)
                    for k, coef in operation.terms:
                        row[k] += coef * np.vdot(dual.data, turned.data).imag
                inverse = self._gate(operation, at, -1)
                state, dual = (s.evolve(inverse, operation.qubits) for s in (state, dual))
        return torch.from_numpy(gradient).to(angles.dtype), () if by_prepared else None

    def plan(self, batch):
        n = self.circuit.num_qubits
        return Plan("dense", ((float(n), 1),), batch * 16 * 2.0**n, batch * len(self.circuit.operations) * 8 * 2.0**n)
