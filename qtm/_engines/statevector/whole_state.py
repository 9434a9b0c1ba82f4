"""The final state of a circuit, as `qiskit.quantum_info.Statevector` orders it, and its derivatives, as arrays.

The kernels hold a state without the circuit's Clifford frame F, on rows that number its support. F maps basis states to
basis states with factors i^k. Row r is the basis state that is the sum (over GF(2)) of the basis vectors of its bits; F
maps it to a basis state that is affine in the bits of r, and k is a quadratic form in them. Rows with one or two bits
determine both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qtm._circuit.causal_cone import Cone
from qtm._circuit.clifford_frame import act_on_basis
from qtm._circuit.flatten import FlatCircuit
from qtm._circuit.gates import Clifford
from qtm._circuit.pauli_program import PauliProgram, Slot, dropped_signs
from qtm._engines.memory import check_room
from qtm._engines.options import Options
from qtm._engines.phase_factor import PhaseFactor
from qtm._engines.statevector.cone_batch import ConeBatch
from qtm._engines.statevector.cone_tangents import ConeTangents
from qtm._engines.statevector.sweeps import StateView

Arrays = Sequence[np.ndarray]


class StateEngine:
    """States (batch, 2**qubits), without the expressions in the global phase."""

    def __init__(self, circuit: FlatCircuit, program: PauliProgram, cones: Sequence[Cone], options: Options) -> None:
        self.batch = ConeBatch(circuit, cones, options)
        self.complex = np.dtype(options.dtype)
        self.size = 1 << circuit.num_qubits
        gates = [operation for operation in circuit.operations if isinstance(operation, Clifford)]
        place, quarters = row_images(gates, self.batch.engine.basis)
        quarters = quarters + 2 * dropped_signs(program.generators) & 3
        self.view = StateView(place, np.array([1, 1j, -1, -1j], self.complex)[quarters])
        self.factor = phase_of(circuit, self.batch.engine.constant, options.dtype)

    def forward(self, angles: np.ndarray, prepared: Arrays, keep: bool) -> tuple[np.ndarray, Any]:
        """States (batch, 2**qubits), and the kernels' states for one `vjp`."""
        check_room("states", len(angles), self.size, self.complex.itemsize)
        whole = len(self.view.place) == self.size
        found = (np.empty if whole else np.zeros)((len(angles), self.size), self.complex)
        start, turn = self.batch.start(prepared, len(angles)), self.factor.values(angles)
        kept = self.batch.engine.states(self.batch.angles(angles), self.view, turn, found, start, keep=keep)
        return found, kept

    def vjp(
        self, angles: np.ndarray, prepared: Arrays, cotangent: np.ndarray, kept: Any, by_prepared: bool
    ) -> tuple[np.ndarray, list[np.ndarray] | None]:
        """Derivatives with respect to angles (batch, angles) and prepared amplitudes; cotangent (batch, 2**qubits)."""
        start, turn = self.batch.start(prepared, len(angles)), self.factor.values(angles)
        by_local, by_rows, by_phase = self.batch.engine.states_vjp(
            self.batch.angles(angles), self.view, turn, np.ascontiguousarray(cotangent, self.complex), start,
            kept=kept, initial_gradient=by_prepared and start is not None,
        )  # fmt: skip
        gradient = self.batch.scatter(by_local)
        self.factor.add_gradient(by_phase, gradient)
        amplitudes: list[Any] = [np.zeros_like(p) for p in prepared]
        if by_rows is not None:
            self.batch.pull_back(prepared, by_rows, amplitudes)
        return gradient, amplitudes if by_prepared else None

    def jvp(self, angles: np.ndarray, prepared: Arrays, direction: np.ndarray, tangents: Arrays | None) -> np.ndarray:
        """Derivatives (batch, 2**qubits) along a direction of angles and prepared amplitudes."""
        point = self.batch.point(angles, direction, prepared, tangents)
        check_room("states", len(angles), self.size, self.complex.itemsize)
        out = np.zeros((len(angles), self.size), self.complex)
        turn, moving = self.factor.values(angles), self.factor.along(direction)
        ConeTangents(self.batch.engine).states(point, self.view, turn, moving, out)
        return out

    def second(
        self,
        angles: np.ndarray,
        prepared: Arrays,
        cotangent: np.ndarray,
        direction: np.ndarray,
        tangents: Arrays | None,
        by_prepared: bool,
    ) -> tuple[np.ndarray, list[np.ndarray] | None]:
        """The derivative of `vjp` along a direction of angles and prepared amplitudes."""
        point = self.batch.point(angles, direction, prepared, tangents)
        by_rows_too = by_prepared and point.start is not None
        turn, moving = self.factor.values(angles), self.factor.along(direction)
        own = np.ascontiguousarray(cotangent, self.complex)
        found, by_phase = ConeTangents(self.batch.engine).states_second(
            point, self.view, turn, moving, own, by_rows_too
        )
        gradient = self.batch.scatter(found.by_angles)
        self.factor.add_gradient(by_phase, gradient)
        amplitudes: list[Any] = [np.zeros_like(p) for p in prepared]
        if by_rows_too:
            self.batch.pull_back_tangent(prepared, tangents, found, amplitudes)
        return gradient, amplitudes if by_prepared else None

    def metric_product(self, angles: np.ndarray, prepared: Arrays, direction: np.ndarray) -> np.ndarray:
        """Products (batch, angles) of the metric with directions (batch, angles)."""
        point = self.batch.point(angles, direction, prepared, None)
        return self.batch.scatter(ConeTangents(self.batch.engine).metric_product(point))


def phase_of(circuit: FlatCircuit, constant: Slot, dtype: str) -> PhaseFactor:
    """The global phase of the circuit, and exp(-i/2 a) of the schedule's constant rotation by a."""
    terms = dict(circuit.phase.angles)
    for angle, coefficient in constant.terms.items():
        terms[angle] = terms.get(angle, 0.0) - coefficient / 2
    return PhaseFactor(circuit.phase.offset - constant.offset / 2, terms, dtype)


def row_images(gates: Sequence[Clifford], basis: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The basis state (rows,) to which gates map each row, and k (rows,) of the factor i^k.

    Args:
        gates: Clifford gates that map basis states to basis states.
        basis: the basis state of each bit of a row.
    """
    count = len(basis)
    pairs = [(i, j) for i in range(count) for j in range(i)]
    states = [0, *basis, *(basis[i] ^ basis[j] for i, j in pairs)]
    image, k = act_on_basis(gates, np.array(states, np.uint64))
    image = image.astype(np.int64)
    linear = k[1 : count + 1] - k[0]
    place, power = image[:1], k[:1]
    for bit in range(count):
        # k(r + bit) - k(r) is linear in the bits of r: the form's diagonal and its row.
        step = np.full(1, linear[bit])
        for other in range(bit):
            both = k[1 + count + pairs.index((bit, other))] - k[0] - linear[bit] - linear[other]
            step = np.concatenate([step, step + both])
        place = np.concatenate([place, place ^ image[1 + bit] ^ image[0]])
        power = np.concatenate([power, power + step & 3])
    return place, power
