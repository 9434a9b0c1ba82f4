"""Matrix product states as values: for inspection, comparison and as initial states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qtm._engines.matrix_product_state.chain import bond_dimensions, dense, overlap
from qtm._engines.matrix_product_state.sampling import sample_sites
from qtm._errors import ParameterError, ShapeError, UnsupportedError, require

_MAX_DENSE_QUBITS = 26


class MPS:
    """A batch of matrix product states, one site for every qubit; site q is qubit q.

    Args:
        tensors: site tensors (left, 2, right), or (batch, left, 2, right); arrays or tensors, real or complex. The
            first left and the last right bond have dimension 1. The state is normalised.
        discarded_weight: (batch,) weight that truncation has discarded so far, for information.

    Raises:
        ShapeError: the shapes do not fit each other.
        ParameterError: an entry or the norm is not finite, or the norm is zero.

    Example:
        >>> import numpy as np
        >>> ghz = [np.eye(2).reshape(1, 2, 2), np.eye(2).reshape(2, 2, 1)]
        >>> MPS(ghz).amplitudes(["00", "01"]).real.round(decimals=3)
        tensor([[0.7071, 0.0000]], dtype=torch.float64)
    """

    def __init__(self, tensors: Sequence[Any], discarded_weight: Tensor | None = None) -> None:
        self.tensors = _checked(tensors)
        norm = overlap(self.tensors, self.tensors).real.sqrt()
        if not (torch.isfinite(norm).all() and (norm > 0).all()):
            raise ParameterError(f"the norm of a matrix product state is {norm.tolist()}; it must be finite, not zero")
        self.tensors[0] = self.tensors[0] / norm[:, None, None, None]
        self.discarded_weight = norm.new_zeros(len(norm)) if discarded_weight is None else discarded_weight

    @classmethod
    def from_quimb(cls, state: Any) -> MPS:
        """A `quimb.tensor.MatrixProductState` of qubits, with open boundaries."""
        arrays = [np.asarray(state.arrays[0])[None]] if state.L == 1 else None
        if arrays is None:
            ordered = state.copy()
            ordered.permute_arrays("lpr")
            first, *inner, last = [np.asarray(a) for a in ordered.arrays]
            arrays = [first[None, ...], *inner, last[..., None]]
        return cls([a if a.ndim == 3 else a[..., None] for a in arrays])

    def to_quimb(self) -> Any:
        """As a `quimb.tensor.MatrixProductState`; only for a batch of one.

        Raises:
            MissingPackage: quimb is not installed.
            UnsupportedError: the batch is not one.
        """
        if len(self.tensors[0]) != 1:
            raise UnsupportedError(f"a quimb state is a single state, and this is a batch of {len(self.tensors[0])}")
        quimb = require("quimb.tensor", "mps")
        arrays = [t[0].cpu().numpy() for t in self.tensors]
        if len(arrays) == 1:
            return quimb.MatrixProductState([arrays[0][0, :, 0]], shape="lpr")
        return quimb.MatrixProductState([arrays[0][0], *arrays[1:-1], arrays[-1][..., 0]], shape="lpr")

    @property
    def num_qubits(self) -> int:
        """Number of sites."""
        return len(self.tensors)

    @property
    def bond_dimensions(self) -> tuple[int, ...]:
        """Dimensions of the inner bonds, (qubits - 1,)."""
        return bond_dimensions(self.tensors)

    def overlap(self, other: MPS) -> Tensor:
        """<self|other>, complex (batch,); a batch of one is broadcast against the other."""
        if other.num_qubits != self.num_qubits:
            raise ShapeError(f"cannot compute the overlap of states of {self.num_qubits} and {other.num_qubits} qubits")
        return overlap(*_same_dtype(self.tensors, other.tensors))

    def amplitudes(self, outcomes: Sequence[str]) -> Tensor:
        """Amplitudes (batch, outcomes) of bit strings, qubit 0 rightmost as in Qiskit.

        Raises:
            ParameterError: a string is not made of as many 0 and 1 as there are qubits.
        """
        for text in outcomes:
            if len(text) != self.num_qubits or set(text) - {"0", "1"}:
                raise ParameterError(
                    f"{text!r} is not an outcome of {self.num_qubits} qubits; give one 0 or 1 for each"
                )
        bits = torch.tensor([[int(b) for b in reversed(text)] for text in outcomes]).reshape(-1, self.num_qubits)
        row = self.tensors[0].new_ones(len(self.tensors[0]), len(bits), 1, 1)
        for site, tensor in enumerate(self.tensors):
            row = row @ tensor[:, :, bits[:, site].to(tensor.device)].transpose(1, 2)
        return row[:, :, 0, 0]

    def sample(self, shots: int, seed: int | None = None) -> np.ndarray:
        """Outcomes (batch, shots, qubits) bool; column q is qubit q."""
        return sample_sites(self.tensors, shots, np.random.default_rng(seed))

    def statevector(self) -> Tensor:
        """All amplitudes (batch, 2**qubits), as `qiskit.quantum_info.Statevector` orders them.

        Raises:
            UnsupportedError: there are more than 26 qubits.
        """
        if self.num_qubits > _MAX_DENSE_QUBITS:
            raise UnsupportedError(
                f"a state vector of {self.num_qubits} qubits is too large; use amplitudes or overlap"
            )
        axes = [1 + q for q in reversed(range(self.num_qubits))]
        return dense(self.tensors).reshape(-1, *[2] * self.num_qubits).permute(0, *axes).flatten(1)

    def __repr__(self) -> str:
        bond = max(self.bond_dimensions, default=1)
        return f"MPS(qubits={self.num_qubits}, batch={len(self.tensors[0])}, max_bond={bond})"


def _checked(tensors: Sequence[Any]) -> list[Tensor]:
    found = [torch.as_tensor(t) for t in tensors]
    if not found:
        raise ShapeError("a matrix product state needs at least one site tensor")
    found = [t[None] if t.ndim == 3 else t for t in found]
    bond = 1
    for site, tensor in enumerate(found):
        if tensor.ndim != 4 or tensor.shape[1] != bond or tensor.shape[2] != 2:
            raise ShapeError(
                f"site {site} has shape {tuple(tensor.shape)}; expected (batch, {bond}, 2, right), the left bond being "
                "the right bond of the site before"
            )
        bond = tensor.shape[3]
    if bond != 1:
        raise ShapeError(f"the last site has a right bond of dimension {bond}; open boundaries end with 1")
    kind = torch.complex64 if all(t.dtype in (torch.complex64, torch.float32) for t in found) else torch.complex128
    return [t.to(kind) for t in found]


def _same_dtype(a: Sequence[Tensor], b: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    kind = torch.promote_types(a[0].dtype, b[0].dtype)
    return [t.to(kind) for t in a], [t.to(kind) for t in b]
