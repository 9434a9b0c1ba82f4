"""Kernel matrices from features of samples, in blocks: one matrix product for each block.

The features that the kernel compares are states (samples, 2**qubits) or expectation values (samples, observables).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from qtm import _machine
from qtm._errors import OutOfMemory
from qtm._kernels.progress import Tick, no_tick

Features = Callable[[Tensor], Tensor]
Combine = Callable[[Tensor, Tensor], Tensor]

_ROWS = 256  # samples of a block: few are computed twice, and the overlaps stay in the cache
_SHARE = 0.4  # share of the free memory for features


def fidelities(left: Tensor, right: Tensor) -> Tensor:
    """Squared overlaps (rows, columns) of states (rows, 2**qubits) and (columns, 2**qubits), in one product."""
    overlaps = left @ right.mH
    return overlaps.real.square() + overlaps.imag.square()


def gaussian(gamma: float) -> Combine:
    """The Gaussian kernel ``exp(-gamma / 2 |f - g|^2)`` of expectation values.

    With X, Y and Z on every qubit, half of the squared distance is the sum over qubits of the squared Frobenius
    distance of their density matrices: the projected kernel of Huang et al., Nat. Commun. 12, 2631 (2021).
    """

    def combine(left: Tensor, right: Tensor) -> Tensor:
        squares = left.square().sum(1)[:, None] + right.square().sum(1)
        # |f - g|^2 by a matrix product; rounding may make it negative.
        return (-gamma / 2 * (squares - 2 * left @ right.T).clamp(min=0)).exp()

    return combine


def whole_matrix(features: Features, combine: Combine, x: Tensor, y: Tensor | None) -> Tensor:
    """The matrix (rows, columns) in one block, differentiable; ``y`` None: of ``x`` with itself."""
    left = features(x)
    return combine(left, left if y is None else features(y))


def blocked_matrix(
    features: Features,
    combine: Combine,
    x: Tensor,
    y: Tensor | None,
    *,
    bytes_per_sample: float,
    tick: Tick = no_tick,
) -> Tensor:
    """The matrix (rows, columns) block by block, without gradients; ``y`` None: of ``x`` with itself.

    Features are computed once if they all fit in memory, otherwise again for each block. The blocks of a symmetric
    matrix below its diagonal are copies.

    Raises:
        OutOfMemory: the features of two samples do not fit in memory.
    """
    samples = len(x) + (0 if y is None else len(y))
    rows, keep = _plan(samples, bytes_per_sample)
    left = _Blocks(features, x, rows, keep)
    right = left if y is None else _Blocks(features, y, rows, keep)
    matrix = x.new_empty(len(x), len(x if y is None else y))
    for i, top in enumerate(left.slices):
        mine = left[i]
        for j, side in enumerate(right.slices):
            if y is None and j < i:
                continue
            block = combine(mine, mine if right is left and i == j else right[j])
            matrix[top, side] = block
            if y is None and i != j:
                matrix[side, top] = block.T
            tick(block.numel() * (2 if y is None and i != j else 1))
    return matrix


def _plan(samples: int, bytes_per_sample: float) -> tuple[int, bool]:
    """Samples of a block, and whether the features of all samples are kept."""
    room = _SHARE * _machine.free_memory()
    if samples * bytes_per_sample <= room:
        return _ROWS, True
    rows = int(room / (2 * bytes_per_sample))
    if rows < 1:
        raise OutOfMemory(
            f"the states of two samples need {2 * bytes_per_sample / 2**30:.3g} GiB, and {room / 2**30:.3g} GiB may be "
            "used; use fewer qubits, a projected kernel, or a sampler"
        )
    return min(rows, _ROWS), False


class _Blocks:
    """Features of samples by block, kept or recomputed on demand."""

    def __init__(self, features: Features, samples: Tensor, rows: int, keep: bool) -> None:
        self.slices = [slice(a, min(a + rows, len(samples))) for a in range(0, len(samples), rows)]
        self._features, self._samples, self._keep = features, samples, keep
        self._kept: dict[int, Tensor] = {}

    def __getitem__(self, block: int) -> Tensor:
        if block in self._kept:
            return self._kept[block]
        found = self._features(self._samples[self.slices[block]])
        if self._keep:
            self._kept[block] = found
        return found
