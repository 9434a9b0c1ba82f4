"""Kernel matrices with entries estimated from shots."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from qiskit.passmanager import BasePassManager
from qiskit.primitives import BaseSamplerV2
from torch import Tensor

from qtm._arguments import check_method, check_type
from qtm._kernels.compute_uncompute import SampledOverlap, ZerosRunner
from qtm._kernels.feature_maps import FeatureMap
from qtm._kernels.progress import Tick, no_tick
from qtm._primitives.job_usage import Usage
from qtm._torch.autograd import expectation_values


def with_shots(exact: Tensor, shots: int, generator: np.random.Generator, *, symmetric: bool, skip: Tensor) -> Tensor:
    """Fidelities (rows, columns) with the shot noise of noiseless compute-uncompute circuits.

    ``skip`` (rows, columns) bool: entries that are 1 and not measured.
    """
    chances = exact.detach().double().clamp(0, 1).numpy()
    drawn = generator.binomial(shots, chances) / shots
    if symmetric:
        drawn = np.triu(drawn) + np.triu(drawn, 1).T
    drawn[skip.numpy()] = 1.0
    return torch.from_numpy(drawn).to(exact.dtype)


class PairSampler:
    """Entries of kernel matrices from a sampler; each pair of a symmetric matrix is measured once."""

    def __init__(
        self,
        sampler: BaseSamplerV2,
        feature_map: FeatureMap,
        shots: int | None,
        max_points: int | None,
        pass_manager: BasePassManager | None,
    ) -> None:
        advice = "give an object such as qtm.FastSampler(), or None for the exact simulator"
        check_type(sampler, "sampler", BaseSamplerV2, "None or a BaseSamplerV2", advice)
        if pass_manager is not None:
            advice = "give qiskit.transpiler.generate_preset_pass_manager(...), or None"
            check_method(pass_manager, "pass_manager", "run", "a pass manager of Qiskit", advice)
        make = partial(ZerosRunner, sampler, shots=shots, max_points=max_points, pass_manager=pass_manager)
        self._method = SampledOverlap(feature_map.circuit, feature_map.features, feature_map.trained, make)

    @property
    def usage(self) -> Usage:
        """Usage of the sampler."""
        return self._method.usage

    def preview(self, pairs: int) -> Usage:
        """Forecast usage for a number of entries."""
        return self._method.runner.preview(pairs)

    def matrix(self, left: Tensor, right: Tensor | None, weights: Tensor, wanted: Tensor, tick: Tick) -> Tensor:
        """The differentiable matrix (rows, columns).

        ``wanted`` (rows, columns) bool: entries to measure; all others are 1. Without ``right`` the matrix is
        symmetric, and they are on and above the diagonal.
        """
        rows, columns = wanted.nonzero(as_tuple=True)
        other = left if right is None else right
        pairs = torch.cat([left[rows], other[columns]], dim=1)
        matrix = left.new_ones(wanted.shape)
        if not len(pairs):
            return matrix
        runner = self._method.runner
        runner.tick = tick
        try:
            by = (pairs.requires_grad, weights.requires_grad)
            found = expectation_values(self._method, pairs, [weights.to(pairs.dtype)], len(pairs), by)[:, 0]
        finally:
            runner.tick = no_tick
        matrix = matrix.index_put((rows, columns), found)
        return matrix if right is not None else matrix.index_put((columns, rows), found)
