"""Angles to the 2x2 matrices of all blocks, and derivatives back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qtm._engines.matrix_product_state.gate_columns import BlockTable


@dataclass(frozen=True, slots=True)
class Matrices:
    """The matrices of all blocks for a batch of angles, and the residuals of their derivatives.

    Attributes:
        blocks: (batch, blocks, terms, 2, 2); terms, 2 or 4, is the index of the bond that opens, closes or passes.
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
        none = len(table.offsets)  # the entry of `Matrices.cos` and `sin` for blocks without a rotation
        self.factor_slots = torch.where(factor_slots < 0, none, factor_slots)
        self.pair_slots = torch.where(pair_slots < 0, none, pair_slots)
        self.weighted = (pair_slots[:, 0] >= 0)[:, None]
        self.signs = torch.as_tensor(table.signs, dtype=real, device=device)

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
        """Weights (batch, blocks, terms) of the matrices of each block."""
        found = self._products(
            list(cos[:, self.pair_slots].to(sin.dtype).unbind(2)), list(sin[:, self.pair_slots].unbind(2))
        )
        return torch.where(self.weighted, found, torch.ones_like(found))

    def _products(self, c: list[Tensor], s: list[Tensor]) -> Tensor:
        """The product of (c + s G) over the rotations of a block, as coefficients of 1 and each G.

        With two matrices there is one rotation; with four there are three, where G1 G2 = sign * G3.
        """
        if self.pairs.shape[1] == 2:
            return torch.stack([c[0], s[0]], -1)
        sign = self.signs
        return torch.stack(
            [
                c[0] * c[1] * c[2] + sign * s[0] * s[1] * s[2],
                s[0] * c[1] * c[2] + sign * c[0] * s[1] * s[2],
                c[0] * s[1] * c[2] + sign * s[0] * c[1] * s[2],
                c[0] * c[1] * s[2] + sign * s[0] * s[1] * c[2],
            ],
            -1,
        )

    def vjp(self, matrices: Matrices, gradient: Tensor, num_angles: int) -> Tensor:
        """Derivatives by the angles (batch, angles) from those by the blocks (batch, blocks, terms, 2, 2)."""
        batch, count = gradient.shape[0], matrices.cos.shape[1]
        by_turn = gradient.real.new_zeros(batch, count)
        product = self.pairs @ matrices.before[-1][:, :, None]
        by_weight = (product.conj() * gradient).sum((-2, -1))  # (batch, blocks, terms)
        cos = list(matrices.cos[:, self.pair_slots].to(gradient.dtype).unbind(2))
        sin = list(matrices.sin[:, self.pair_slots].unbind(2))
        for place in range(1 if self.pairs.shape[1] == 2 else 3):
            c, s = cos.copy(), sin.copy()
            # cos' = -sin = Im(-i sin), (-i sin)' = -i cos
            c[place], s[place] = sin[place].imag.to(gradient.dtype), -1j * cos[place]
            along = (by_weight.conj() * self._products(c, s)).sum(-1).real
            slots = self.pair_slots[:, place]
            by_turn.index_add_(1, slots, torch.where(self.weighted[:, 0], along, 0.0))
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
