"""Evolution of a chain through the segments of a circuit, with truncation of bonds that exceed the limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qtm._engines.matrix_product_state.chain import Tensors, bond_dimensions, move_center, truncate
from qtm._engines.matrix_product_state.gate_columns import Segment


@dataclass(frozen=True, slots=True)
class Limits:
    """When and how bonds are truncated.

    Attributes:
        max_bond: the largest dimension to keep; None for no limit.
        bound: truncate once a bond is larger than this.
        cutoff: singular values smaller than this fraction of the largest one on their bond are discarded.
    """

    max_bond: int | None
    bound: int
    cutoff: float

    def exceeded(self, bonds: Sequence[int]) -> bool:
        """Whether bonds of these dimensions are truncated."""
        return max(bonds, default=1) > self.bound


@dataclass(frozen=True, slots=True)
class Chain:
    """Site tensors, the orthogonality center (None: not in canonical form), and the weight discarded so far."""

    tensors: Tensors
    center: int | None
    discarded: Tensor

    @staticmethod
    def start(tensors: Tensors) -> Chain:
        """A chain that is not known to be in canonical form."""
        return Chain(tensors, None, tensors[0].real.new_zeros(len(tensors[0])))

    def truncated(self, limits: Limits, span: tuple[int, int] | None = None) -> Chain:
        """Truncate the bonds between the two sites of ``span``, one of which is the center; by default, all bonds.

        The result is not normalised.
        """
        tensors, (first, last) = list(self.tensors), span or (0, len(self.tensors) - 1)
        leftward = span is None or self.center == first
        center, lost = truncate(tensors, first, last, limits.bound, limits.max_bond, limits.cutoff, leftward=leftward)
        return Chain(tensors, center, self.discarded + lost)

    def centered_near(self, span: tuple[int, int]) -> Chain:
        """The chain with its orthogonality center moved to the nearer end of ``span``."""
        assert self.center is not None
        to = span[0] if abs(self.center - span[0]) <= abs(self.center - span[1]) else span[1]
        tensors = list(self.tensors)
        move_center(tensors, self.center, to)
        return Chain(tensors, to, self.discarded)


def advance(
    chain: Chain, segment: Segment, act: Callable[[Tensors], Tensors], limits: Limits
) -> tuple[Chain, Chain, bool]:
    """Apply a segment with ``act``, and truncate if the bonds have grown too large.

    Returns:
        The chain as it entered, the chain after the segment, and whether it was truncated.
    """
    span = segment.span
    if span is None:  # one-qubit gates keep the form
        return chain, Chain(act(chain.tensors), chain.center, chain.discarded), False
    grown = [d * g for d, g in zip(bond_dimensions(chain.tensors), segment.growth, strict=True)]
    exceeded = limits.exceeded(grown)
    if not exceeded:
        return chain, Chain(act(chain.tensors), None, chain.discarded), False
    if chain.center is None:
        after = Chain(act(chain.tensors), None, chain.discarded)
        return chain, after.truncated(limits), True
    chain = chain.centered_near(span)
    after = Chain(act(chain.tensors), chain.center, chain.discarded)
    return chain, after.truncated(limits, span), True


def normalized(chain: Chain) -> Chain:
    """Divide by the norm; the chain is in canonical form."""
    assert chain.center is not None
    tensors = list(chain.tensors)
    norm = torch.linalg.vector_norm(tensors[chain.center], dim=(1, 2, 3))
    tensors[chain.center] = tensors[chain.center] / torch.where(norm > 0, norm, 1.0)[:, None, None, None]
    return Chain(tensors, chain.center, chain.discarded)
