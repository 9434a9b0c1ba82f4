"""Equal cones in one batch: every sample of every cone is a lane of the same schedule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qtm._circuit.causal_cone import Cone
from qtm._circuit.flatten import FlatCircuit
from qtm._engines.options import Options
from qtm._engines.statevector.cone_engine import ConeEngine
from qtm._engines.statevector.cone_tangents import Point
from qtm._engines.statevector.prepared_rows import PreparedRows
from qtm._engines.statevector.tangent_sweeps import Gradient


class ConeBatch:
    """Cones that share a program, run for samples of the circuit's angles.

    A row of the cone engine is one cone of one sample: row ``sample * cones + cone``.
    """

    def __init__(self, circuit: FlatCircuit, cones: Sequence[Cone], options: Options) -> None:
        self.cones = tuple(cones)
        self.engine = ConeEngine(cones[0].program, options)
        self.num_angles = len(circuit.angles)
        index = np.stack([cone.angles for cone in cones])  # (cones, local angles)
        whole = len(cones) == 1 and np.array_equal(index[0], np.arange(self.num_angles))
        self._index = None if whole else index
        if not whole:
            from scipy.sparse import csr_array  # imported here: it takes a fifth of the import time of qtm

            ones = np.ones(index.size, self.engine.real)
            place = np.arange(index.size)
            # A cone uses an angle once; contributions of the cones of a sample add up.
            self._scatter = csr_array((ones, (index.ravel(), place)), shape=(self.num_angles, index.size))
        basis = self.engine.basis if cones[0].program.prepared else ()
        self._rows = [_prepared_rows(circuit, cone, basis) for cone in cones] if basis else []

    @property
    def is_whole(self) -> bool:
        """Whether local angles are those of the circuit, and states start in |0...0>."""
        return self._index is None and not self._rows

    def angles(self, angles: np.ndarray) -> np.ndarray:
        """Local angles (batch * cones, local angles) of angles (batch, angles)."""
        if self._index is None:
            return angles
        return np.ascontiguousarray(angles[:, self._index].reshape(-1, self._index.shape[1]))

    def scatter(self, gradient: np.ndarray) -> np.ndarray:
        """Derivatives (batch, angles) from those of the local angles (batch * cones, local angles)."""
        if self._index is None:
            return gradient
        flat = gradient.reshape(-1, self._index.size)
        return np.ascontiguousarray((self._scatter @ flat.T).T)

    def start(self, prepared: Sequence[np.ndarray], batch: int) -> np.ndarray | None:
        """Initial rows (batch * cones, numbers), or one row for all; None for |0...0>."""
        if not self._rows:
            return None
        return self._joined(
            [
                rows.rows([prepared[i] for i in cone.preparations])
                for rows, cone in zip(self._rows, self.cones, strict=True)
            ],
            batch,
        )

    def _joined(self, rows: list[np.ndarray], batch: int) -> np.ndarray:
        """Rows (batch or 1, numbers) of each cone as one array."""
        if len(rows) == 1:
            return rows[0].astype(self.engine.real, copy=False)
        count = 1 if batch == 0 else batch
        spread = [np.broadcast_to(r, (count, r.shape[1])) for r in rows]
        return np.stack(spread, 1).reshape(-1, rows[0].shape[1]).astype(self.engine.real, copy=False)

    def point(
        self,
        angles: np.ndarray,
        direction: np.ndarray,
        prepared: Sequence[np.ndarray],
        tangents: Sequence[np.ndarray] | None,
    ) -> Point:
        """The point and direction of derivatives: angles (batch, angles); None: the amplitudes are constant."""
        start, moved = self.start(prepared, len(angles)), None
        if self._rows and tangents is not None:
            moved = [
                rows.tangent(*([given[i] for i in cone.preparations] for given in (prepared, tangents)))
                for rows, cone in zip(self._rows, self.cones, strict=True)
            ]
        return Point(
            self.angles(angles),
            self.angles(direction),
            start,
            None if moved is None else self._joined(moved, len(angles)),
        )

    def pull_back_tangent(
        self,
        prepared: Sequence[np.ndarray],
        tangents: Sequence[np.ndarray] | None,
        gradient: Gradient,
        into: list[Any],
    ) -> None:
        """Add the tangents of the derivatives that `pull_back` adds."""
        numbers = gradient.by_initial.shape[1]
        by_rows, moved = (
            g.reshape(-1, len(self.cones), numbers) for g in (gradient.by_initial, gradient.by_initial_tangent)
        )
        for c, (rows, cone) in enumerate(zip(self._rows, self.cones, strict=True)):
            own = [prepared[i] for i in cone.preparations]
            along = [np.zeros_like(p) for p in own] if tangents is None else [tangents[i] for i in cone.preparations]
            found = rows.pull_back_tangent(own, along, by_rows[:, c], moved[:, c])
            for i, part in zip(cone.preparations, found, strict=True):
                into[i] = into[i] + part

    def pull_back(self, prepared: Sequence[np.ndarray], by_rows: np.ndarray, into: list[Any]) -> None:
        """Add the prepared amplitudes' derivatives to ``into``, from those of the rows (batch * cones, numbers)."""
        by_cone = by_rows.reshape(-1, len(self.cones), by_rows.shape[1])
        for c, (rows, cone) in enumerate(zip(self._rows, self.cones, strict=True)):
            own = [prepared[i] for i in cone.preparations]
            for i, part in zip(cone.preparations, rows.pull_back(own, by_cone[:, c]), strict=True):
                into[i] = into[i] + part


def _prepared_rows(circuit: FlatCircuit, cone: Cone, basis: Sequence[int]) -> PreparedRows:
    """Compose two maps: row bits to masks of the cone, and these to masks of the circuit."""
    masks = []
    for vector in basis:
        total = 0
        for bit, mask in enumerate(cone.basis):
            if vector >> bit & 1:
                total ^= mask
        masks.append(total)
    return PreparedRows([circuit.initial[i] for i in cone.preparations], masks)
