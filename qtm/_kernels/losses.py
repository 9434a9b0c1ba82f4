"""Losses of kernel matrices, as differentiable torch functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from qtm._arguments import checked_number
from qtm._errors import ParameterError, ShapeError, require
from qtm._kernels.positive import check_psd


def kernel_target_alignment(matrix: Tensor, labels: Any, *, centered: bool = False) -> Tensor:
    """Agreement of a kernel matrix with the labels: 1 if it separates the classes perfectly.

    ``<K, T> / (|K| |T|)`` in the Frobenius product, with T = y y^T for two classes y = -1, 1 (Cristianini et al., NIPS
    14 (2001), def. 1). With c classes T is 1 for samples of one class and -1/(c-1) otherwise. To train, minimise
    ``1 - kernel_target_alignment(...)``.

    Args:
        matrix: symmetric kernel matrix of the samples, (samples, samples).
        labels: their classes, (samples,), of any type.
        centered: centre both matrices first (Cortes et al., J. Mach. Learn. Res. 13, 795 (2012)); better for
            classes of different sizes.

    Returns:
        A real scalar from -1 to 1, differentiable with respect to ``matrix``.

    Raises:
        ShapeError: the matrix is not square, or the number of labels differs.
        ParameterError: all labels are the same.

    Example:
        >>> import torch
        >>> from qtm.kernels import kernel_target_alignment
        >>> kernel_target_alignment(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]), ["a", "b"]).item()
        1.0
    """
    classes, positions = _classes(matrix, labels)
    same = torch.from_numpy(positions[:, None] == positions)
    target = matrix.new_full(same.shape, -1 / (len(classes) - 1)).masked_fill(same, 1.0)
    if centered:
        matrix, target = _centered(matrix), _centered(target)
    return (matrix * target).sum() / (matrix.norm() * target.norm())


def _centered(matrix: Tensor) -> Tensor:
    return matrix - matrix.mean(0) - matrix.mean(1, keepdim=True) + matrix.mean()


def svc_loss(matrix: Tensor, labels: Any, *, C: float = 1.0) -> Tensor:
    """The optimum of the dual problem of a support vector classifier: smaller for a wider margin.

    ``sum_i a_i - 1/2 sum_ij a_i a_j y_i y_j K_ij`` at the optimal multipliers a, like ``SVCLoss`` of
    qiskit-machine-learning (Glick et al., Nat. Phys. 20, 479 (2024)). With three or more classes, the sum over
    one-versus-rest problems. The derivative treats the multipliers as constants, which is exact at the optimum.

    Args:
        matrix: symmetric, positive semi-definite kernel matrix of the samples, (samples, samples).
        labels: their classes, (samples,), of any type.
        C: upper bound of the multipliers, above 0.

    Returns:
        A real scalar, differentiable with respect to ``matrix``.

    Raises:
        ShapeError: the matrix is not square and symmetric, or the number of labels differs.
        ParameterError: all labels are the same, the matrix has a negative eigenvalue, or ``C`` is unusable.
        MissingPackage: scikit-learn is not installed.
    """
    checked_number(C, "C", "give the bound of the multipliers, such as 1.0", above=0)
    classes, positions = _classes(matrix, labels)
    fixed = matrix.detach().double().numpy()
    check_psd(fixed)
    total = matrix.new_zeros(())
    for k in range(1 if len(classes) == 2 else len(classes)):
        total = total + _dual_optimum(matrix, fixed, positions == k, C)
    return total


def _dual_optimum(matrix: Tensor, fixed: np.ndarray, member: np.ndarray, bound: float) -> Tensor:
    """The optimum for one class against the rest."""
    machine = require("sklearn.svm", "sklearn").SVC(kernel="precomputed", C=bound).fit(fixed, member)
    signed = torch.as_tensor(machine.dual_coef_[0], dtype=matrix.dtype)  # a_i y_i of the support vectors
    support = torch.as_tensor(machine.support_, dtype=torch.long)
    return signed.abs().sum() - signed @ matrix[support][:, support] @ signed / 2


def _classes(matrix: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """The classes, and the class (samples,) of every sample."""
    if not isinstance(matrix, Tensor) or matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        shape = tuple(getattr(matrix, "shape", ())) or type(matrix).__name__
        raise ShapeError(f"the kernel matrix is {shape}; expected a tensor (samples, samples), such as kernel(X)")
    flat = np.asarray(labels).reshape(-1)
    if len(flat) != len(matrix):
        raise ShapeError(f"{len(flat)} labels for {len(matrix)} samples; give one for each row of the matrix")
    classes, positions = np.unique(flat, return_inverse=True)
    if len(classes) < 2:
        raise ParameterError("all labels are the same; at least 2 classes are needed")
    return classes, positions
