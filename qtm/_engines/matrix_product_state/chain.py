"""Chains of site tensors (batch, left, 2, right): canonical form, truncation, overlaps.

U. Schollwöck, Ann. Phys. 326, 96 (2011), sections 4.1 to 4.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Tensors = list[Tensor]


def shift_right(tensors: Tensors, site: int) -> None:
    """Make ``site`` left-orthonormal; its right neighbour absorbs the remainder."""
    a = tensors[site]
    q, r = torch.linalg.qr(a.flatten(1, 2))
    tensors[site] = q.unflatten(1, a.shape[1:3])
    tensors[site + 1] = (r @ tensors[site + 1].flatten(2)).unflatten(2, tensors[site + 1].shape[2:])


def shift_left(tensors: Tensors, site: int) -> None:
    """Make ``site`` right-orthonormal; its left neighbour absorbs the remainder."""
    a = tensors[site]
    q, r = torch.linalg.qr(a.flatten(2).mH)
    tensors[site] = q.mH.unflatten(2, a.shape[2:])
    tensors[site - 1] = tensors[site - 1] @ r.mH[:, None]


def move_center(tensors: Tensors, center: int, to: int) -> None:
    """Move the orthogonality center."""
    for site in range(center, to):
        shift_right(tensors, site)
    for site in range(center, to, -1):
        shift_left(tensors, site)


def truncate(
    tensors: Tensors, first: int, last: int, bound: int, max_bond: int | None, cutoff: float, *, leftward: bool
) -> tuple[int, Tensor]:
    """Truncate the bonds between two sites; all sites outside must be orthonormal towards them.

    A sweep of QR decompositions, then a sweep of singular value decompositions back; bonds that are by then at most
    ``bound`` take a QR decomposition again. Keeps at most ``max_bond`` singular values per bond, and discards those
    below ``cutoff`` times the largest one in every sample.

    Returns:
        The new orthogonality center, and the discarded weight (batch,): the sum over the bonds of the squares of the
        discarded singular values, relative to the norm squared.
    """
    weight = tensors[first].real.new_zeros(len(tensors[first]))
    if leftward:
        move_center(tensors, first, last)
        for site in range(last, first, -1):
            weight += _split(tensors, site, bound, max_bond, cutoff, leftward=True)
        return first, weight
    move_center(tensors, last, first)
    for site in range(first, last):
        weight += _split(tensors, site, bound, max_bond, cutoff, leftward=False)
    return last, weight


def _split(tensors: Tensors, site: int, bound: int, max_bond: int | None, cutoff: float, *, leftward: bool) -> Tensor:
    """Truncate a bond of the center ``site`` and move the center across it; returns the discarded weight."""
    a = tensors[site]
    matrix = a.flatten(2) if leftward else a.flatten(1, 2)
    if min(matrix.shape[1:]) <= bound:
        (shift_left if leftward else shift_right)(tensors, site)
        return a.real.new_zeros(len(a))
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    above = (s > cutoff * s[:, :1]).sum(1).max().item() if s.numel() else s.shape[1]
    rank = max(1, min(int(above), max_bond or s.shape[1]))
    total = s.square().sum(1)
    discarded = s[:, rank:].square().sum(1) / torch.where(total > 0, total, 1.0)
    if leftward:
        tensors[site] = vh[:, :rank].unflatten(2, a.shape[2:])
        tensors[site - 1] = tensors[site - 1] @ (u[:, :, :rank] * s[:, None, :rank])[:, None]
    else:
        tensors[site] = u[:, :, :rank].unflatten(1, a.shape[1:3])
        rest = s[:, :rank, None] * vh[:, :rank]
        tensors[site + 1] = (rest @ tensors[site + 1].flatten(2)).unflatten(2, tensors[site + 1].shape[2:])
    return discarded


def mirrored(tensors: Sequence[Tensor]) -> Tensors:
    """The chain read from right to left."""
    return [t.transpose(1, 3).contiguous() for t in reversed(tensors)]


def overlap_environments(bra: Sequence[Tensor], ket: Sequence[Tensor]) -> Tensors:
    """Environments (batch, bra bond, ket bond) of <bra|ket> left of every site, and of the whole chain at the end."""
    found = [ket[0].new_ones(1, 1, 1)]
    for b, k in zip(bra, ket, strict=True):
        passed = (found[-1] @ k.flatten(2)).unflatten(2, k.shape[2:])  # (batch, bra left, 2, ket right)
        found.append(b.flatten(1, 2).mH @ passed.flatten(1, 2))
    return found


def overlap(bra: Sequence[Tensor], ket: Sequence[Tensor]) -> Tensor:
    """<bra|ket>, (batch,)."""
    return overlap_environments(bra, ket)[-1][:, 0, 0]


def norm_environments(tensors: Sequence[Tensor]) -> Tensors:
    """Environments (batch, bra bond, ket bond) of <psi|psi> right of every bond, the left end included."""
    flipped = mirrored(tensors)
    return overlap_environments(flipped, flipped)[::-1]


def overlap_gradients(bra: Sequence[Tensor], ket: Sequence[Tensor]) -> Tensors:
    """Gradients of Re <bra|ket> with respect to the tensors of the ket."""
    left = overlap_environments(bra, ket)
    right = overlap_environments(mirrored(bra), mirrored(ket))[::-1]
    gradients = []
    for site, b in enumerate(bra):
        # conj of the derivative of <bra|ket>: conj(left)^T bra conj(right)
        inner = (left[site].mH @ b.flatten(2)).unflatten(2, b.shape[2:])
        gradients.append(inner @ right[site + 1].conj()[:, None])
    return gradients


def bond_dimensions(tensors: Sequence[Tensor]) -> tuple[int, ...]:
    """Dimensions of the inner bonds, (sites - 1,)."""
    return tuple(t.shape[3] for t in tensors[:-1])


def dense(tensors: Sequence[Tensor]) -> Tensor:
    """All amplitudes (batch, 2**sites), site 0 being the most significant bit."""
    result = tensors[0].new_ones(1, 1, 1)
    for t in tensors:
        result = (result @ t.flatten(2)).unflatten(2, t.shape[2:]).flatten(1, 2)
    return result[:, :, 0]
