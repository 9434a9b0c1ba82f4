"""Functions of states for losses: reduced density matrices, purity, entropy, overlap and fidelity.

Differentiable functions of torch, for the outputs of ``QuantumModule(..., outputs="state")`` or any other tensor of
normalised amplitudes (..., 2**qubits), complex64 or complex128, in Qiskit's order: bit q of an index is qubit q.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qtm._arguments import shown
from qtm._errors import DtypeError, ParameterError, ShapeError

__all__ = ["fidelity", "overlap", "purity", "reduced_density_matrix", "renyi_2_entropy"]


def reduced_density_matrix(states: Tensor, qubits: Sequence[int]) -> Tensor:
    """The density matrices (..., 2**k, 2**k) of k qubits, all others traced out.

    Args:
        states: amplitudes (..., 2**n), complex.
        qubits: the qubits to keep: bit j of a row or column is qubit ``qubits[j]``.

    Raises:
        ShapeError: the last axis is not a power of 2 long.
        ParameterError: a qubit is out of range or listed twice.

    Example:
        >>> import torch
        >>> from qtm.states import reduced_density_matrix
        >>> bell = torch.tensor([1, 0, 0, 1], dtype=torch.complex128) / 2**0.5
        >>> reduced_density_matrix(bell, [0]).real
        tensor([[0.5000, 0.0000],
                [0.0000, 0.5000]], dtype=torch.float64)
    """
    matrix = _split(states, qubits)
    return matrix @ matrix.mH


def purity(density_matrices: Tensor) -> Tensor:
    """Tr rho^2 (...) of density matrices (..., d, d): 1 for pure states, 1/d for fully mixed ones.

    Raises:
        ShapeError: the last two axes are not equally long.

    Example:
        >>> import torch
        >>> from qtm.states import purity
        >>> purity(torch.eye(2, dtype=torch.complex128) / 2)
        tensor(0.5000, dtype=torch.float64)
    """
    if density_matrices.ndim < 2 or density_matrices.shape[-1] != density_matrices.shape[-2]:
        raise ShapeError(f"density matrices have shape {tuple(density_matrices.shape)}; expected (..., d, d)")
    # Tr rho^2 = sum |rho_ij|^2, because rho is Hermitian.
    real = torch.view_as_real(density_matrices) if density_matrices.is_complex() else density_matrices.unsqueeze(-1)
    return real.square().sum((-3, -2, -1))


def renyi_2_entropy(states: Tensor, qubits: Sequence[int], base: float = 2.0) -> Tensor:
    """The second Renyi entropy -log Tr rho^2 (...) of some qubits: 0 where they are not entangled with the others.

    Args:
        states: amplitudes (..., 2**n), complex.
        qubits: the qubits of the subsystem.
        base: base of the logarithm; 2 gives bits, as in `qiskit.quantum_info.entropy`.

    Raises:
        ShapeError: the last axis is not a power of 2 long.
        ParameterError: a qubit is out of range or listed twice, or the base is not a positive number other than 1.

    Example:
        >>> import torch
        >>> from qtm.states import renyi_2_entropy
        >>> bell = torch.tensor([1, 0, 0, 1], dtype=torch.complex128) / 2**0.5
        >>> renyi_2_entropy(bell, [0])
        tensor(1.0000, dtype=torch.float64)
    """
    if not (isinstance(base, int | float) and base > 0 and base != 1):
        raise ParameterError(f"base must be a positive number other than 1, not {shown(base)}; 2 gives bits")
    matrix = _split(states, qubits)
    # The smaller of the two parts has the same purity.
    smaller = matrix if matrix.shape[-2] <= matrix.shape[-1] else matrix.mT
    return -purity(smaller @ smaller.mH).log() / log(base)


def overlap(states: Tensor, target: Any) -> Tensor:
    """The overlaps <target|state> (...), complex.

    Args:
        states: amplitudes (..., 2**n), complex.
        target: amplitudes (2**n,), or (..., 2**n) for a target of each state: a tensor, an array or a
            `qiskit.quantum_info.Statevector`.

    Raises:
        ShapeError: the target has another size.

    Example:
        >>> import torch
        >>> from qtm.states import overlap
        >>> overlap(torch.tensor([0, 1j]), [0, 1])
        tensor(0.+1.j)
    """
    _check(states)
    other = _amplitudes(target, states)
    if other.shape[-1:] != states.shape[-1:]:
        raise ShapeError(f"the target has {other.shape[-1]} amplitudes, and the states have {states.shape[-1]}")
    return (other.conj() * states).sum(-1)


def fidelity(states: Tensor, target: Any) -> Tensor:
    """The fidelities ``|<target|state>|^2`` (...), from 0 to 1.

    Arguments and errors are those of `overlap`.

    Example:
        >>> import torch
        >>> from qtm.states import fidelity
        >>> fidelity(torch.tensor([[1, 0], [0, 1j]]), [0, 1])
        tensor([0., 1.])
    """
    return torch.view_as_real(overlap(states, target)).square().sum(-1)


def _check(states: Tensor) -> int:
    """Number of qubits of the states."""
    if not isinstance(states, Tensor) or not states.is_complex():
        found = states.dtype if isinstance(states, Tensor) else type(states).__name__
        raise DtypeError(f"states must be a complex tensor of amplitudes (..., 2**qubits), not {found}")
    size = states.shape[-1] if states.ndim else 0
    if size < 1 or size & (size - 1):
        raise ShapeError(f"states have shape {tuple(states.shape)}; expected (..., 2**qubits)")
    return size.bit_length() - 1


def _amplitudes(target: Any, states: Tensor) -> Tensor:
    data = target if isinstance(target, Tensor) else torch.from_numpy(np.array(target, complex))
    if data.ndim == 0:
        raise ShapeError("the target must be amplitudes (2**qubits,) or (..., 2**qubits), not one number")
    return data.to(dtype=states.dtype, device=states.device)


def _split(states: Tensor, qubits: Sequence[int]) -> Tensor:
    """Amplitudes (..., 2**k, 2**(n - k)): rows by the k qubits, columns by the others."""
    count = _check(states)
    kept = [int(q) for q in qubits]
    if len(set(kept)) < len(kept) or not all(0 <= q < count for q in kept):
        raise ParameterError(f"qubits={kept} must be different numbers from 0 to {count - 1}")
    rest = [q for q in range(count) if q not in kept]
    lead = states.ndim - 1
    # Axis lead + i of the unfolded tensor is qubit count - 1 - i: the last one is qubit 0.
    order = [lead + count - 1 - q for q in (*reversed(kept), *reversed(rest))]
    unfolded = states.reshape(*states.shape[:-1], *[2] * count).permute(*range(lead), *order)
    return unfolded.reshape(*states.shape[:-1], 1 << len(kept), 1 << len(rest))
