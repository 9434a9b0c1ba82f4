"""Expectation values and their derivatives from the cones of a circuit, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from qtm._circuit.causal_cone import Cone, ConeProgram
from qtm._circuit.flatten import FlatCircuit
from qtm._circuit.pauli_program import PauliProgram
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation
from qtm._engines.statevector.cone_batch import ConeBatch
from qtm._engines.statevector.cone_engine import ConeEngine
from qtm._engines.statevector.cone_groups import conjugated_strings
from qtm._engines.statevector.cone_tangents import ConeTangents
from qtm._engines.statevector.small_batch import SmallBatch

Arrays = Sequence[np.ndarray]


class ExpectationEngine:
    """Values (batch, observables): those of one cone, or sums over the strings of many."""

    def __init__(
        self,
        circuit: FlatCircuit,
        program: PauliProgram,
        cones: Sequence[Cone],
        output: Expectation,
        options: Options,
    ) -> None:
        self.num_outputs = len(output.observables)
        shared: dict[ConeProgram, list[Cone]] = {}
        for cone in cones:
            shared.setdefault(cone.program, []).append(cone)
        self.batches = [ConeBatch(circuit, equal, options) for equal in shared.values()]
        threads = options.num_threads if options.backward_threads is None else options.backward_threads
        self._backward = [_with_threads(batch.engine, threads) for batch in self.batches]
        self._real = self.batches[0].engine.real
        self._sums: list[Any] = [None]  # one cone: its outputs are the observables
        if len(cones) > 1:
            strings = conjugated_strings(program, output.observables)
            self._sums = [self._sum(batch.cones, strings) for batch in self.batches]

    def _sum(self, cones: Sequence[Cone], strings: Any) -> Any:
        """The matrix (observables, cones * strings) that adds up strings with their coefficients."""
        from scipy.sparse import csr_array

        terms = np.concatenate([cone.terms for cone in cones])
        entries = strings.coef[terms].astype(self._real), (strings.output[terms], np.arange(len(terms)))
        return csr_array(entries, shape=(self.num_outputs, len(terms)))

    def small_batch(self, batch: int) -> SmallBatch | None:
        """See `Engine.small_batch`; for one cone that uses all angles, in this process."""
        (only, *more), backward = self.batches, self._backward[0]
        if more or self._sums[0] is not None or not only.is_whole or backward is not only.engine:
            return None
        return only.engine.small_batch(batch)

    def forward(self, angles: np.ndarray, prepared: Arrays, keep: bool) -> tuple[np.ndarray, Any]:
        """Values (batch, observables), and for each batch of cones its angles, initial rows and final states."""
        total, kept = None, []
        for batch, backward, sums in zip(self.batches, self._backward, self._sums, strict=True):
            # A reverse sweep can use the states only if it splits the batch in the same way.
            keep_own = keep and backward is batch.engine
            local, start = batch.angles(angles), batch.start(prepared, len(angles))
            values, states = batch.engine.values(local, start, keep=keep_own)
            kept.append((local, start, states))
            values = _of_observables(sums, values, len(angles))
            total = values if total is None else total + values
        assert total is not None
        return total, kept

    def vjp(
        self, angles: np.ndarray, prepared: Arrays, cotangent: np.ndarray, kept: Any, by_prepared: bool
    ) -> tuple[np.ndarray, list[np.ndarray] | None]:
        """Derivatives with respect to angles (batch, angles) and prepared amplitudes."""
        total: Any = None
        amplitudes: list[Any] = [np.zeros_like(p) for p in prepared]
        for number, (batch, engine, sums) in enumerate(zip(self.batches, self._backward, self._sums, strict=True)):
            own = _of_strings(batch, sums, cotangent)
            if kept:
                local, start, states = kept[number]
            else:
                local, start, states = batch.angles(angles), batch.start(prepared, len(angles)), None
            by_rows_too = by_prepared and start is not None
            by_local, by_rows = engine.vjp(local, own, start, kept=states, initial_gradient=by_rows_too)
            by_angles = batch.scatter(by_local)
            total = by_angles if total is None else total + by_angles
            if by_rows is not None:
                batch.pull_back(prepared, by_rows, amplitudes)
        return total, amplitudes if by_prepared else None

    def jvp(self, angles: np.ndarray, prepared: Arrays, direction: np.ndarray, tangents: Arrays | None) -> np.ndarray:
        """Derivatives (batch, observables) of the values along a direction of angles and prepared amplitudes."""
        total: Any = 0.0
        for batch, engine, sums in zip(self.batches, self._backward, self._sums, strict=True):
            values = ConeTangents(engine).values(batch.point(angles, direction, prepared, tangents))
            total = total + _of_observables(sums, values, len(angles))
        return np.asarray(total)

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
        total: Any = 0.0
        amplitudes: list[Any] = [np.zeros_like(p) for p in prepared]
        for batch, engine, sums in zip(self.batches, self._backward, self._sums, strict=True):
            point = batch.point(angles, direction, prepared, tangents)
            by_rows_too = by_prepared and point.start is not None
            own = _of_strings(batch, sums, cotangent)
            gradient = ConeTangents(engine).values_second(point, own, by_rows_too)
            total = total + batch.scatter(gradient.by_angles)
            if by_rows_too:
                batch.pull_back_tangent(prepared, tangents, gradient, amplitudes)
        return total, amplitudes if by_prepared else None


def _of_observables(sums: Any, values: np.ndarray, samples: int) -> np.ndarray:
    """Values (samples, observables) from values of strings (samples * cones, strings)."""
    return values if sums is None else np.ascontiguousarray((sums @ values.reshape(samples, -1).T).T)


def _of_strings(batch: ConeBatch, sums: Any, cotangent: np.ndarray) -> np.ndarray:
    """Cotangents of strings (samples * cones, strings) from cotangents of observables (samples, observables)."""
    if sums is None:
        return cotangent
    return np.ascontiguousarray((sums.T @ cotangent.T).T.reshape(len(cotangent) * len(batch.cones), -1))


def _with_threads(engine: ConeEngine, threads: int) -> ConeEngine:
    """The engine, or a copy with another number of threads."""
    if threads == engine.options.num_threads:
        return engine
    return ConeEngine(engine.program, replace(engine.options, num_threads=threads))
