"""Values of a circuit and their derivatives by parameters, by parameter shifts on whatever runs circuits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from qtm._circuit.angle_map import AngleMap
from qtm._circuit.expressions import compile_angles
from qtm._circuit.shift_template import template
from qtm._gradients.gradient_rules import ParameterShift

# A circuit, and for each of its parameters the values (points,); gives outputs (points, outputs).
Evaluate = Callable[[QuantumCircuit, dict[tuple[Parameter, ...], np.ndarray]], np.ndarray]


class ShiftedCircuit:
    """A circuit whose gate angles are bound one by one.

    Args:
        circuit: what is run, without measurements.
        parameters: all of its parameters, in the order of the values.
        finish: adds what has to stand at the end, such as measurements.
    """

    def __init__(
        self,
        circuit: QuantumCircuit,
        parameters: Sequence[Parameter],
        finish: Callable[[QuantumCircuit], QuantumCircuit] = lambda circuit: circuit,
    ) -> None:
        made = template(circuit)
        self.circuit, self.slots, self.shifts = finish(made.circuit), tuple(made.slots), made.shifts
        self.map: AngleMap = compile_angles(made.angles, parameters)

    def values(self, rows: np.ndarray, evaluate: Evaluate) -> np.ndarray:
        """Outputs (batch, outputs) at parameter values (batch, parameters)."""
        return self._run(self._angles(rows), evaluate)

    def _angles(self, rows: np.ndarray) -> np.ndarray:
        return np.broadcast_to(self.map.numpy(rows), (len(rows), self.map.num_angles))

    def _run(self, angles: np.ndarray, evaluate: Evaluate) -> np.ndarray:
        return evaluate(self.circuit, {self.slots: angles} if self.slots else {})

    def jacobian(self, rows: np.ndarray, wanted: Sequence[int], evaluate: Evaluate, num_outputs: int) -> np.ndarray:
        """Derivatives (batch, outputs, wanted) by the parameters with the numbers ``wanted``.

        All points are evaluated at once.
        """
        shift = ParameterShift(self.shifts, self.map.depends_on(wanted))
        if not shift.count:
            return np.zeros((len(rows), num_outputs, len(wanted)))
        points = shift.points(self._angles(rows))  # (batch, count, angles)
        found = self._run(points.reshape(-1, points.shape[2]), evaluate).reshape(*points.shape[:2], num_outputs)
        each = found.transpose(0, 2, 1).reshape(-1, shift.count, 1)  # outputs as samples of one value each
        by_angle = shift.combine(each, np.ones((len(each), 1)))
        return self._chain(rows, by_angle.reshape(len(rows), num_outputs, -1))[:, :, list(wanted)]

    def _chain(self, rows: np.ndarray, by_angle: np.ndarray) -> np.ndarray:
        """Derivatives (batch, outputs, parameters) from those (batch, outputs, angles) by angles."""
        count = by_angle.shape[1]
        with torch.inference_mode(False), torch.enable_grad():
            values = torch.tensor(np.repeat(rows, count, axis=0), requires_grad=True)
            angles = self.map.torch(values, values.new_zeros(0), len(values))
            if not angles.requires_grad:
                return np.zeros((len(rows), count, rows.shape[1]))
            cotangent = torch.from_numpy(by_angle.reshape(-1, by_angle.shape[2]))
            return torch.autograd.grad(angles, values, cotangent)[0].numpy().reshape(len(rows), count, -1)
