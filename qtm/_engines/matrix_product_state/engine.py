"""A circuit compiled to gate columns, run on matrix product states in torch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qtm._engines.engine import Engine, Plan
from qtm._engines.matrix_product_state.blocks import BlockMatrices, Matrices
from qtm._engines.matrix_product_state.chain import Tensors, bond_dimensions, overlap_gradients
from qtm._engines.matrix_product_state.columns import apply, apply_adjoint, pull_back
from qtm._engines.matrix_product_state.evolution import Chain, Limits, advance, normalized
from qtm._engines.matrix_product_state.gate_columns import GateColumns, Segment
from qtm._engines.matrix_product_state.initial_chain import Register, initial_chain
from qtm._engines.matrix_product_state.readouts import Readout
from qtm._engines.matrix_product_state.sampling import sample_sites
from qtm._engines.matrix_product_state.sketch import compress_product
from qtm._engines.outputs import Output, Samples
from qtm._errors import UnsupportedError


class TruncationWarning(UserWarning):
    """Truncation of a matrix product state discarded more weight than the tolerance."""


@dataclass(frozen=True, slots=True)
class _Evolution:
    """A forward pass up to the final state.

    Attributes:
        matrices: of all blocks.
        initial: the initial chain before any truncation.
        entering: the site tensors before each segment; the first are those of ``initial`` unless it was truncated.
        final: the chain at the end.
        truncated: whether the initial chain and the chain after each segment were truncated, (1 + segments,).
    """

    matrices: Matrices
    initial: Tensors
    entering: list[Tensors]
    final: Chain
    truncated: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class _Residuals:
    """Residuals of a forward pass, for its derivatives."""

    evolution: _Evolution
    output: Tensor
    kept: Any


@dataclass(frozen=True, slots=True)
class Truncation:
    """Limits of the state and of the adjoint state, and the discarded weight above which to warn."""

    state: Limits
    adjoint: Limits
    tolerance: float


class MatrixProductStateEngine(Engine):
    """Simulates a circuit with matrix product states.

    Attributes:
        discarded_weight: the largest discarded weight of a sample in the latest forward pass.
        bond_dimension: the largest bond dimension at the end of the latest forward pass.
    """

    def __init__(
        self,
        columns: GateColumns,
        registers: Sequence[Register],
        start: Sequence[Tensor] | None,
        output: Output,
        readout: Readout | None,
        truncation: Truncation,
        plan: Plan,
        dtype: torch.dtype,
    ) -> None:
        self.output = output
        self.discarded_weight, self.bond_dimension = 0.0, 1
        self._columns, self._registers, self._start = columns, tuple(registers), start
        self._readout, self._truncation, self._plan, self._dtype = readout, truncation, plan, dtype
        self._tables: dict[torch.device, BlockMatrices] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tables": {}}

    def forward(self, angles: Tensor, prepared: Sequence[Tensor], *, keep: bool = False) -> tuple[Tensor, Any]:
        if self._readout is None:
            raise UnsupportedError("this engine was compiled to sample and does not compute values")
        with torch.no_grad():
            angles, finite = _finite(angles)
            evolution = self._evolve(angles, prepared)
            output, kept = self._readout.forward(evolution.final.tensors)
            residuals = _Residuals(evolution, output, kept) if keep else None
            return torch.where(finite[:, None], output, torch.nan), residuals

    def vjp(
        self,
        angles: Tensor,
        prepared: Sequence[Tensor],
        cotangent: Tensor,
        residuals: Any = None,
        *,
        by_prepared: bool = False,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        if residuals is None:
            _, residuals = self.forward(angles, prepared, keep=True)
        assert isinstance(residuals, _Residuals)
        with torch.no_grad():
            by_blocks, by_initial = self._pull_back(residuals, cotangent.to(residuals.output.dtype))
            matrices = residuals.evolution.matrices
            by_angles = self._table(angles.device).vjp(matrices, by_blocks, angles.shape[1])
        by_angles = by_angles.to(angles.dtype)
        return by_angles, self._by_prepared(prepared, by_initial) if by_prepared else None

    def sample(
        self, angles: Tensor, prepared: Sequence[Tensor], shots: int, generator: np.random.Generator
    ) -> np.ndarray:
        with torch.no_grad():
            angles, _ = _finite(angles)
            final = self._evolve(angles, prepared).final
            outcomes = sample_sites(final.tensors, shots, generator)
        assert isinstance(self.output, Samples)
        return outcomes[:, :, [self._columns.site_of[q] for q in self.output.qubits]]

    def state(self, angles: Tensor, prepared: Sequence[Tensor]) -> tuple[Tensors, Tensor]:
        """Site tensors (batch, left, 2, right) of the final state, and the discarded weight (batch,).

        Site i is the qubit q with ``site_of[q] == i``.
        """
        with torch.no_grad():
            final = self._evolve(angles, prepared).final
        return final.tensors, final.discarded

    @property
    def site_of(self) -> tuple[int, ...]:
        """The site on which every qubit ends."""
        return self._columns.site_of

    def plan(self, batch: int) -> Plan:
        scaled = replace(self._plan, memory=batch * self._plan.memory, multiply_adds=batch * self._plan.multiply_adds)
        if not self.discarded_weight:
            return scaled
        note = f"the latest forward pass discarded a weight of {self.discarded_weight:.1e}"
        return replace(scaled, notes=(*scaled.notes, note))

    def _table(self, device: torch.device) -> BlockMatrices:
        if device not in self._tables:
            self._tables[device] = BlockMatrices(self._columns.table, self._dtype, device)
        return self._tables[device]

    def _initial(self, prepared: Sequence[Tensor], like: Tensor) -> Tensors:
        if self._start is not None:
            return [t.to(like) for t in self._start]
        return initial_chain(self._columns.num_sites, self._registers, prepared, like)

    def _evolve(self, angles: Tensor, prepared: Sequence[Tensor]) -> _Evolution:
        matrices = self._table(angles.device).forward(angles)
        limits = self._truncation.state
        initial = self._initial(prepared, matrices.blocks)
        chain = Chain.start([t.expand(len(angles), -1, -1, -1) for t in initial])
        truncated = [limits.exceeded(bond_dimensions(initial))]
        if truncated[0]:
            chain = normalized(chain.truncated(limits))
        entering = []
        for segment in self._columns.segments:
            act = partial(_applied, segment, matrices.blocks)
            entered, chain, cut = advance(chain, segment, act, limits)
            entering.append(entered.tensors)
            truncated.append(cut)
            chain = normalized(chain) if cut else chain
        self._report(chain)
        return _Evolution(matrices, initial, entering, chain, tuple(truncated))

    def _report(self, chain: Chain) -> None:
        """Record the discarded weight and the bond dimension; warn if the weight exceeds the tolerance."""
        weight = float(chain.discarded.max()) if len(chain.discarded) else 0.0
        self.discarded_weight = weight
        self.bond_dimension = max(bond_dimensions(chain.tensors), default=1)
        if weight > self._truncation.tolerance:
            warnings.warn(
                f"truncation to bond dimension {self._truncation.state.max_bond} discarded a weight of {weight:.1e}, "
                f"more than the tolerance {self._truncation.tolerance:.1e}: values are approximate. "
                "Increase max_bond, or the tolerance",
                TruncationWarning,
                stacklevel=2,
            )

    def _pull_back(self, residuals: _Residuals, cotangent: Tensor) -> tuple[Tensor, Tensors]:
        """Gradients with respect to the blocks and to the initial site tensors."""
        evolution, readout = residuals.evolution, self._readout
        assert readout is not None
        final, blocks = evolution.final.tensors, evolution.matrices.blocks
        by_blocks = torch.zeros_like(blocks)
        if not any(evolution.truncated) and len(self._columns.segments) == 1:
            gradients = readout.gradients(final, residuals.kept, cotangent)
            traces = apply(self._columns.segments[0], blocks, evolution.entering[0])[1]
            return by_blocks, pull_back(traces, blocks, gradients, by_blocks)
        limits = self._truncation.adjoint
        adjoint = Chain.start(readout.adjoint_state(final, residuals.output, cotangent, limits.max_bond))
        initial = [t.expand(len(blocks), -1, -1, -1) for t in evolution.initial]
        for index in reversed(range(len(self._columns.segments))):
            segment = self._columns.segments[index]
            after, traces = apply(segment, blocks, evolution.entering[index])
            by_entering = pull_back(traces, blocks, overlap_gradients(adjoint.tensors, after), by_blocks)
            if index == 0 and not evolution.truncated[0]:
                return by_blocks, by_entering
            adjoint = self._back(adjoint, segment, blocks)
        return by_blocks, overlap_gradients(adjoint.tensors, initial)

    def _back(self, adjoint: Chain, segment: Segment, blocks: Tensor) -> Chain:
        """The adjoint state before a segment, compressed."""
        limits = self._truncation.adjoint
        if limits.max_bond is None:
            return advance(adjoint, segment, lambda t: apply_adjoint(segment, blocks, t), limits)[1]
        tensors = apply_adjoint(segment, blocks, adjoint.tensors)
        if limits.exceeded(bond_dimensions(tensors)):
            tensors = compress_product(None, tensors, limits.max_bond)
        return Chain.start(tensors)

    def _by_prepared(self, prepared: Sequence[Tensor], by_initial: Tensors) -> tuple[Tensor, ...]:
        """Gradients with respect to the prepared amplitudes, in each of which the initial chain is linear."""
        if not prepared:
            return ()
        with torch.inference_mode(False), torch.enable_grad():
            leaves = [p.detach().clone().requires_grad_() for p in prepared]
            chain = initial_chain(self._columns.num_sites, self._registers, leaves, by_initial[0])
            summed = [g.sum(0, keepdim=True) if len(t) == 1 else g for g, t in zip(by_initial, chain, strict=True)]
            outputs = [(t, g.clone()) for t, g in zip(chain, summed, strict=True) if t.requires_grad]
            return torch.autograd.grad([t for t, _ in outputs], leaves, [g for _, g in outputs])


def _applied(segment: Segment, blocks: Tensor, tensors: Tensors) -> Tensors:
    return apply(segment, blocks, tensors)[0]


def _finite(angles: Tensor) -> tuple[Tensor, Tensor]:
    """Angles, set to 0 in samples with a non-finite angle, and a mask of the finite samples (batch,)."""
    finite = torch.isfinite(angles).all(1)
    return torch.where(finite[:, None], angles, 0.0), finite
