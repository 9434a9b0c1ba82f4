"""Segments applied to site tensors: forward, adjoint, and derivatives.

Site tensors are (batch, left, 2, right). Inside, sites of one group and shape are stacked and the qubit comes first:
(batch, sites, 2, left, right), so that a block is one batched matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qtm._engines.matrix_product_state.gate_columns import CLOSE, OPEN, PASS, ROTATE, WIDE, ColumnGroup, Segment

Tensors = list[Tensor]


@dataclass(frozen=True, slots=True)
class Trace:
    """Residuals of a stack of sites for `pull_back`: its blocks, and the tensors before each block."""

    group: ColumnGroup
    members: tuple[int, ...]  # positions in the group
    before: tuple[Tensor, ...]  # (batch, sites, 2, left, right) each


def apply(segment: Segment, blocks: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensors, list[Trace]]:
    """Apply a segment to site tensors; ``blocks`` are (batch, blocks, 2 or 4, 2, 2)."""
    result, traces = _expanded(tensors, len(blocks)), []
    for group, members, stack in _stacks(segment, tensors, len(blocks)):
        before = []
        rows = group.blocks[list(members)]
        for j, kind in enumerate(group.kinds):
            before.append(stack)
            stack = _put(kind, _pick(blocks, rows[:, j], kind) @ stack.flatten(3), stack.shape)
        traces.append(Trace(group, members, tuple(before)))
        _unstack(result, group, members, stack)
    return result, traces


def apply_adjoint(segment: Segment, blocks: Tensor, tensors: Sequence[Tensor]) -> Tensors:
    """Apply the adjoint of a segment to site tensors."""
    result = _expanded(tensors, len(blocks))
    for group, members, stack in _stacks(segment, tensors, len(blocks)):
        rows = group.blocks[list(members)]
        for j in reversed(range(len(group.kinds))):
            kind = group.kinds[j]
            picked = blocks[:, rows[:, j]][:, :, : _terms(kind)].mH  # (batch, sites, terms, 2, 2)
            stack = _put(kind, picked.flatten(2, 3) @ stack.flatten(3), stack.shape)
        _unstack(result, group, members, stack)
    return result


def pull_back(traces: Sequence[Trace], blocks: Tensor, gradients: Sequence[Tensor], by_blocks: Tensor) -> Tensors:
    """Pull gradients back through a segment to the tensors before it; gradients of the blocks go to ``by_blocks``.

    The gradient G of a real number S with respect to a tensor A is defined by dS = Re sum(conj(G) dA).
    """
    result = list(gradients)
    for trace in traces:
        group, members = trace.group, trace.members
        rows = group.blocks[list(members)]
        stack = torch.stack([gradients[group.sites[m]] for m in members], 1).transpose(2, 3)
        for j in reversed(range(len(group.kinds))):
            kind, before = group.kinds[j], trace.before[j]
            products = _take(kind, stack, before.shape)
            by_block = products @ before.flatten(3).mH  # (batch, sites, terms * 2, 2)
            count = by_block.shape[2] // 2
            by_blocks[:, rows[:, j], :count] = by_block.unflatten(2, (count, 2))
            stack = (_pick(blocks, rows[:, j], kind).mH @ products).reshape(before.shape)
        _unstack(result, group, members, stack)
    return result


def _expanded(tensors: Sequence[Tensor], batch: int) -> Tensors:
    return [t.expand(batch, -1, -1, -1) for t in tensors]


def _stacks(
    segment: Segment, tensors: Sequence[Tensor], batch: int
) -> Iterator[tuple[ColumnGroup, tuple[int, ...], Tensor]]:
    """Stacks of sites with the same sequence of blocks and the same shape."""
    for group in segment.groups:
        by_shape: dict[torch.Size, list[int]] = {}
        for m, site in enumerate(group.sites):
            by_shape.setdefault(tensors[site].shape, []).append(m)
        for members in by_shape.values():
            stack = torch.stack([tensors[group.sites[m]] for m in members], 1).transpose(2, 3)
            yield group, tuple(members), stack.expand(batch, -1, -1, -1, -1)


def _unstack(result: Tensors, group: ColumnGroup, members: Sequence[int], stack: Tensor) -> None:
    for m, tensor in zip(members, stack.transpose(2, 3).contiguous().unbind(1), strict=True):
        result[group.sites[m]] = tensor


def _pick(blocks: Tensor, rows: object, kind: str) -> Tensor:
    """The matrices of one block of every site, stacked vertically: (batch, sites, terms * 2, 2)."""
    return blocks[:, rows][:, :, : _terms(kind)].flatten(2, 3)  # type: ignore[index]


def _terms(kind: str) -> int:
    """Matrices of a block: the dimension of the bond that it opens, closes or passes."""
    return 1 if kind == ROTATE else 4 if kind.endswith(WIDE) else 2


def _put(kind: str, products: Tensor, shape: torch.Size) -> Tensor:
    """Products (batch, sites, terms * 2, left * right), the bond index first, as the stack after the block."""
    batch, sites, _, left, right = shape
    if kind == ROTATE:
        return products.view(shape)
    terms = _terms(kind)
    products = products.view(batch, sites, terms, 2, left, right)  # bond index, qubit
    if kind.startswith(OPEN):
        return products.permute(0, 1, 3, 4, 5, 2).reshape(batch, sites, 2, left, terms * right)
    if kind.startswith(CLOSE):
        return products.permute(0, 1, 3, 4, 2, 5).reshape(batch, sites, 2, terms * left, right)
    assert kind.startswith(PASS)
    stack = products.new_zeros(batch, sites, 2, left, terms, right, terms)
    for term in range(terms):
        stack[..., term, :, term] = products[:, :, term]
    return stack.view(batch, sites, 2, terms * left, terms * right)


def _take(kind: str, stack: Tensor, shape: torch.Size) -> Tensor:
    """The transpose of `_put`; ``shape`` is the shape before the block."""
    batch, sites, _, left, right = shape
    if kind == ROTATE:
        return stack.reshape(batch, sites, 2, left * right)
    terms = _terms(kind)
    if kind.startswith(OPEN):
        products = stack.reshape(batch, sites, 2, left, right, terms).permute(0, 1, 5, 2, 3, 4)
    elif kind.startswith(CLOSE):
        products = stack.reshape(batch, sites, 2, left, terms, right).permute(0, 1, 4, 2, 3, 5)
    else:
        split = stack.reshape(batch, sites, 2, left, terms, right, terms)
        products = torch.stack([split[..., term, :, term] for term in range(terms)], 2)
    return products.reshape(batch, sites, terms * 2, left * right)
