"""Noisy circuits by sampled Pauli errors: unbiased expectation values of wide circuits, with their derivatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from qtm._circuit.channels import Channel
from qtm._circuit.flatten import FlatCircuit
from qtm._circuit.gates import PauliRotation
from qtm._circuit.observables import Observable
from qtm._engines.density_matrix.outputs import observable_terms
from qtm._engines.engine import VALUES, VJP, Cost, Engine, Plan, SimulationMethod
from qtm._engines.options import Options, real_dtype
from qtm._engines.outputs import Expectation, Output
from qtm._engines.statevector.engine import StateVector
from qtm._engines.trajectories.errors import ErrorTable, draw, errors_of, pauli_chances, without_errors
from qtm._engines.trajectories.rotation_angles import angle_gradient, rotation_angles, slots_of
from qtm._engines.trajectories.signed_rows import average, gather, sign_angles, spread
from qtm._errors import ParameterError, UnsupportedError


@dataclass(frozen=True)
class Trajectories(SimulationMethod):
    """Averages over ``count`` trajectories of the state vector for every sample.

    In a trajectory every channel draws one of its Pauli errors. An error flips the sign of the later angles and of the
    measured strings that anticommute with it, so a trajectory costs as much as a sample without noise. Values and
    derivatives are unbiased; their standard deviation falls with the square root of ``count``.

    Attributes:
        count: trajectories for every sample.
        seed: of the errors; with an integer all calls draw the same errors, with None they follow torch's random state.
        twirl: replace channels that are not Pauli channels (relaxation, reset) by their Pauli twirl, which differs from
            the original channel.
    """

    count: int = 64
    seed: int | None = None
    twirl: bool = False
    name: ClassVar[str] = "trajectories"
    is_exact: ClassVar[bool] = False
    simulates_noise: ClassVar[bool] = True
    gives: ClassVar[Mapping[type, frozenset[str]]] = {Expectation: frozenset({VALUES, VJP})}

    def __post_init__(self) -> None:
        if not isinstance(self.count, int) or self.count < 1:
            raise ParameterError(f"count must be a positive number of trajectories, not {self.count!r}")

    def refuses(self, circuit: FlatCircuit, output: Output, options: Options) -> str | None:
        """Why the method cannot simulate this; None if it can."""
        why = super().refuses(circuit, output, options)
        if why is None:
            try:
                for operation in circuit.operations:
                    if isinstance(operation, Channel):
                        pauli_chances(operation, self.twirl)
            except UnsupportedError as error:
                return f"cannot: {error}"
        return why

    def cost(self, circuit: FlatCircuit, output: Output, options: Options) -> Cost:
        """``count`` times that of the state vector."""
        one = StateVector().cost(without_errors(circuit), output, options)
        return Cost(self.count * one.multiply_adds, self.count * one.memory)

    def compile(self, circuit: FlatCircuit, output: Output, options: Options) -> TrajectoryEngine:
        """The engine for one output."""
        assert isinstance(output, Expectation)
        return TrajectoryEngine(self, circuit, output, options)


class TrajectoryEngine(Engine):
    """A noisy circuit as a batch of noiseless ones that differ in signs."""

    def __init__(self, method: Trajectories, circuit: FlatCircuit, output: Expectation, options: Options) -> None:
        self.method, self.circuit, self.output, self.options = method, circuit, output, options
        n = circuit.num_qubits
        terms = observable_terms(output.observables, n, circuit.readout)
        strings = list(dict.fromkeys(string for row in terms for string, _ in row))
        place = {string: i for i, string in enumerate(strings)}
        self.weights = np.zeros((len(strings), len(terms)))
        for column, row in enumerate(terms):
            for string, coefficient in row:
                self.weights[place[string], column] += coefficient
        low = (1 << n) - 1
        masks = [(string >> n, string & low) for string in strings]
        self.errors = errors_of(circuit, masks, method.twirl)
        self._table: ErrorTable | None = None
        self.count = method.count if self.errors else 1  # without channels all trajectories are equal
        rotations = [o for o in circuit.operations if isinstance(o, PauliRotation)]
        self.rotations, self.angle_slots = len(rotations), slots_of(rotations)
        measured = Expectation(tuple(_string(x, z, n) for x, z in masks))
        plain = replace(options, noise=None, method="statevector")
        self.inner = StateVector().compile(without_errors(circuit), measured, plain)

    def __reduce__(self) -> tuple[Any, ...]:
        return TrajectoryEngine, (self.method, self.circuit, self.output, replace(self.options, executor=None))

    def forward(self, angles: Tensor, prepared: Sequence[Tensor], *, keep: bool = False) -> tuple[Tensor, Any]:
        """Averages over the trajectories (batch, observables); the residuals hold the drawn errors."""
        signs = self._signs(len(angles))
        rows = self._angles(angles, signs)
        values, kept = self.inner.forward(rows, self._repeated(prepared), keep=keep)
        found = np.empty((len(angles), self.weights.shape[1]))
        average(np.ascontiguousarray(values), signs, self.weights, found)
        return torch.from_numpy(found).to(angles.dtype), (signs, rows, kept) if keep else None

    def vjp(
        self,
        angles: Tensor,
        prepared: Sequence[Tensor],
        cotangent: Tensor,
        residuals: Any = None,
        *,
        by_prepared: bool = False,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """Pull a cotangent back along the trajectories of ``residuals``, or along new ones."""
        if residuals is None:
            signs = self._signs(len(angles))
            residuals = signs, self._angles(angles, signs), None
        signs, rows, kept = residuals
        pulled = np.empty((len(signs), len(self.weights)), real_dtype(self.options.dtype))
        spread(cotangent.numpy(force=True).astype(np.float64) @ self.weights.T, signs, pulled)
        by_rows, by_amplitudes = self.inner.vjp(
            rows, self._repeated(prepared), torch.from_numpy(pulled), kept, by_prepared=by_prepared
        )
        by_rotations = np.zeros((len(angles), self.rotations))
        gather(np.ascontiguousarray(by_rows), signs, by_rotations)
        by_angles = torch.from_numpy(angle_gradient(by_rotations, self.angle_slots, angles.shape[1])).to(angles.dtype)
        if by_amplitudes is None:
            return by_angles, None
        return by_angles, tuple(_summed(g, p, self.count) for g, p in zip(by_amplitudes, prepared, strict=True))

    def plan(self, batch: int) -> Plan:
        """Memory and arithmetic of a batch of this size."""
        inner = self.inner.plan(batch * self.count)
        notes = [f"averages over {self.count} trajectories for each sample: unbiased, not exact"]
        if self.method.twirl:
            notes.append("channels that are not Pauli channels are twirled")
        return replace(inner, method=Trajectories.name, notes=(*inner.notes, *notes))

    def _signs(self, batch: int) -> np.ndarray:
        """Signs (batch * count, rotations and strings) of new trajectories."""
        seed = self.method.seed
        if seed is None:
            seed = int(torch.randint(2**62, (1,)))
        if self._table is None:
            self._table = ErrorTable.of(self.errors, self.rotations + len(self.weights))
        return draw(self._table, batch * self.count, seed)

    def _angles(self, angles: Tensor, signs: np.ndarray) -> Tensor:
        """Angles (batch * count, rotations) of trajectories."""
        rows = np.empty((len(signs), self.rotations), real_dtype(self.options.dtype))
        sign_angles(rotation_angles(angles.numpy(force=True), self.angle_slots), signs, rows)
        return torch.from_numpy(rows)

    def _repeated(self, prepared: Sequence[Tensor]) -> list[Tensor]:
        return [p if len(p) == 1 else p.repeat_interleave(self.count, 0) for p in prepared]


def _string(x: int, z: int, num_qubits: int) -> Observable:
    kind = np.uint64 if num_qubits <= 63 else object
    k = np.array([(x & z).bit_count() & 3], np.uint8)
    return Observable(num_qubits, np.ones(1), np.array([x], kind), np.array([z], kind), k)


def _summed(gradient: Tensor, prepared: Tensor, count: int) -> Tensor:
    return gradient if len(prepared) == 1 else gradient.reshape(len(prepared), count, prepared.shape[1]).sum(1)
