"""Angles to the 2x2 matrices of all blocks, and derivatives back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qtm._engines.matrix_product_state.gate_columns import BlockTable


@dataclass(frozen=True, slots=True)
class Matrices:
    """The matrices of all blocks for a batch of angles, and what their derivatives need.

    Attributes:
        blocks: (batch, blocks, 2, 2, 2); the first 2 is the index of the bond that opens, closes or passes.
        before: products of the factors before each, (batch, blocks, 2, 2), one for every factor and one for all.
        factors: (batch, blocks, factors, 2, 2).
        cos: cosines of half angles, (batch, rotations + 1); the last is 1.
        sin: -i times the sines of half angles, complex, (batch, rotations + 1); the last is 0.
    """

    blocks: Tensor
    before: tuple[Tensor, ...]
    factors: Tensor
    cos: Tensor
    sin: Tensor


class BlockMatrices:
    """The block table on one device, in one dtype."""

    def __init__(self, table: BlockTable, dtype: torch.dtype, device: torch.device) -> None:
        real = torch.float32 if dtype == torch.complex64 else torch.float64
        self.offsets = torch.as_tensor(table.offsets, dtype=real, device=device)
        self.coefficients = torch.as_tensor(table.term_coefficient, dtype=real, device=device)
        self.constants = torch.as_tensor(table.constants, dtype=dtype, device=device)
        self.generators = torch.as_tensor(table.generators, dtype=dtype, device=device)
        self.pairs = torch.as_tensor(table.pairs, dtype=dtype, device=device)
        indices = (table.term_rotation, table.term_angle, table.factor_slots, table.pair_slots)
        rotation, angle, factor_slots, pair_slots = (torch.as_tensor(array, device=device) for array in indices)
        self.term_rotation, self.term_angle = rotation, angle
        none = len(table.offsets)  # the entry of `Matrices.cos` and `sin` that stands for no rotation
        self.factor_slots = torch.where(factor_slots < 0, none, factor_slots)
        self.pair_slots = torch.where(pair_slots < 0, none, pair_slots)
        self.weighted = (pair_slots >= 0)[:, None]

    def forward(self, angles: Tensor) -> Matrices:
        """The matrices at angles (batch, angles)."""
        angles = angles.to(self.offsets.dtype)
        turns = self.offsets.expand(len(angles), -1)
        turns = turns.index_add(1, self.term_rotation, angles[:, self.term_angle] * self.coefficients)
        turns = torch.cat([turns / 2, turns.new_zeros(len(angles), 1)], 1)
        cos, sin = turns.cos(), -1j * turns.sin()
        factors = cos[:, self.factor_slots, None, None] * self.constants
        factors = factors + sin[:, self.factor_slots, None, None] * self.generators
        before = [torch.eye(2, dtype=factors.dtype, device=angles.device).expand(*factors.shape[:2], 2, 2)]
        for j in range(factors.shape[2]):
            before.append(factors[:, :, j] @ before[-1])
        blocks = self._weights(cos, sin)[..., None, None] * (self.pairs @ before[-1][:, :, None])
        return Matrices(blocks, tuple(before), factors, cos, sin)

    def _weights(self, cos: Tensor, sin: Tensor) -> Tensor:
        """Weights (batch, blocks, 2) of the two matrices of each pair."""
        both = torch.stack([cos[:, self.pair_slots].to(sin.dtype), sin[:, self.pair_slots]], -1)
        return torch.where(self.weighted, both, torch.ones_like(both))

    def vjp(self, matrices: Matrices, gradient: Tensor, num_angles: int) -> Tensor:
        """Derivatives by the angles (batch, angles), from those by the blocks (batch, blocks, 2, 2, 2)."""
        batch, count = gradient.shape[0], matrices.cos.shape[1]
        by_turn = gradient.real.new_zeros(batch, count)
        product = self.pairs @ matrices.before[-1][:, :, None]
        by_weight = (product.conj() * gradient).sum((-2, -1))  # (batch, blocks, 2)
        # cos' = -sin = Im(-i sin), (-i sin)' = -i cos
        cos, sin = matrices.cos[:, self.pair_slots], matrices.sin[:, self.pair_slots]
        by_pair = sin.imag * by_weight[..., 0].real - cos * by_weight[..., 1].imag
        by_turn.index_add_(1, self.pair_slots, torch.where(self.weighted[:, 0], by_pair, 0.0))
        weights = self._weights(matrices.cos, matrices.sin)
        after = ((weights.conj()[..., None, None] * self.pairs.mH) @ gradient).sum(2)  # (batch, blocks, 2, 2)
        for j in reversed(range(matrices.factors.shape[2])):
            by_factor = after @ matrices.before[j].mH
            slots = self.factor_slots[:, j]
            along = matrices.sin[:, slots].imag * _inner(by_factor, self.constants[:, j]).real
            along = along + matrices.cos[:, slots] * _inner(by_factor, self.generators[:, j]).imag
            # Constants have no rotation: their sum lands in the last entry, which is dropped.
            by_turn.index_add_(1, slots, along)
            after = matrices.factors[:, :, j].mH @ after
        by_term = by_turn[:, self.term_rotation] * (self.coefficients / 2)
        return by_turn.new_zeros(batch, num_angles).index_add_(1, self.term_angle, by_term)


def _inner(gradient: Tensor, matrix: Tensor) -> Tensor:
    """<gradient, matrix> with conj on the gradient, (batch, blocks)."""
    return (gradient.conj() * matrix).sum((-2, -1))
