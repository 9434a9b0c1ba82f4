"""Compression of O|psi> by random sketches, without singular value decompositions or the bonds of the full product.

Successive randomized compression: C. Camaño, E. Epperly, J. Tropp, arXiv:2504.06475 (2025). The part of the chain right
of a bond is sketched by its overlaps with random product states; from left to right, a QR decomposition of the sketched
part gives the new site. It is exact if the bond is as large as the rank of the state.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qtm._engines.matrix_product_state.chain import Tensors, mirrored
from qtm._engines.matrix_product_state.expectation import enter, operate_entered

_SEED = 20_250_406  # the same compression every time


def compress_product(operators: Sequence[Tensor] | None, tensors: Sequence[Tensor], bond: int) -> Tensors:
    """O|psi> with bonds of at most ``bond``; left-orthonormal except for the last site.

    Args:
        operators: site tensors as in `ExpectationNetwork.operators`; None for the identity.
        tensors: site tensors of psi.
        bond: the number of sketches.
    """
    sketches = _sketches(operators, tensors, bond)
    states = 1 if operators is None else operators[0].shape[3]
    rest = _first_state(tensors[0], 1, states, 0)  # (batch, new bond, states, ket bond)
    result = []
    for site, a in enumerate(tensors):
        rest = enter(rest, a)
        rest = rest.transpose(2, 3) if operators is None else operate_entered(operators[site], rest)
        if site + 1 == len(tensors):
            result.append(rest[:, :, :, -1])
            break
        seen = rest.flatten(3).flatten(1, 2) @ sketches[site].flatten(2).mT  # (batch, bond * 2, sketches)
        q = torch.linalg.qr(seen).Q
        result.append(q.unflatten(1, (-1, 2)))
        rest = (q.mH @ rest.flatten(3).flatten(1, 2)).unflatten(2, rest.shape[3:])
    return result


def _first_state(like: Tensor, rows: int, states: int, state: int) -> Tensor:
    """Ones (batch, rows, states, 1) for one state of the operator, zeros for the others."""
    start = like.new_zeros(len(like), rows, states, 1)
    start[:, :, state] = 1
    return start


def _sketches(operators: Sequence[Tensor] | None, tensors: Sequence[Tensor], bond: int) -> Tensors:
    """Sketches (batch, sketches, states, ket bond) of the part of the chain right of every site."""
    count, like = len(tensors), tensors[0]
    generator = torch.Generator(like.device).manual_seed(_SEED)
    states = 1 if operators is None else operators[-1].shape[2]
    current = _first_state(like, min(bond, 2**count), states, -1)
    found = [current]
    flipped = mirrored(tensors)
    for site in reversed(range(1, count)):
        entered = enter(current, flipped[count - 1 - site])
        if operators is None:
            entered = entered.transpose(2, 3)
        else:
            entered = operate_entered(operators[site].transpose(2, 3), entered)
        vectors = torch.randn(current.shape[1], 2, generator=generator, device=like.device, dtype=like.real.dtype)
        current = (entered * vectors[:, :, None, None]).sum(2)
        norms = torch.linalg.vector_norm(current, dim=(2, 3), keepdim=True)
        current = current / torch.where(norms > 0, norms, 1.0)
        found.append(current)
    # A bond k sites from the right end has no more than 2^k independent sketches.
    return [s[:, : 2 ** min(k, 62)] for k, s in enumerate(found)][::-1]
