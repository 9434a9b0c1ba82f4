"""Sampling of a matrix product state, site by site.

A. Ferris and G. Vidal, Phys. Rev. B 85, 165146 (2012), section II.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from qtm._engines.matrix_product_state.chain import norm_environments


def sample_sites(tensors: Sequence[Tensor], shots: int, generator: np.random.Generator) -> np.ndarray:
    """Outcomes (batch, shots, sites) bool."""
    right = norm_environments(tensors)
    batch, device = len(tensors[0]), tensors[0].device
    uniform = torch.as_tensor(generator.random((len(tensors), batch, shots)), device=device)
    outcomes = torch.zeros(batch, shots, len(tensors), dtype=torch.bool, device=device)
    vectors = tensors[0].new_ones(batch, shots, 1)
    for site, a in enumerate(tensors):
        branches = (vectors @ a.flatten(2)).unflatten(2, a.shape[2:])  # (batch, shots, 2, right)
        # right is (bra, ket): the weight of an outcome is conj(branch) right branch
        weighted = (branches.flatten(1, 2) @ right[site + 1].mT).view_as(branches)
        weights = (branches.conj() * weighted).real.sum(-1).clamp_min(0)  # (batch, shots, 2)
        total = weights.sum(-1)
        ones = uniform[site] * total >= weights[..., 0]
        outcomes[..., site] = ones
        index = ones.long()[..., None, None].expand(-1, -1, 1, branches.shape[-1])
        vectors = branches.gather(2, index).squeeze(2)
        # The norm of what remains falls with every site; scaled, it neither vanishes nor overflows.
        vectors = vectors / torch.where(total > 0, total, 1.0).sqrt()[..., None]
    return outcomes.cpu().numpy()
