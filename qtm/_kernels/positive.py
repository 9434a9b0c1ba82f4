"""Check that a matrix is positive semi-definite, and repair one that shots or noise made indefinite."""

from __future__ import annotations

from typing import Any

import numpy as np

from qtm._errors import DtypeError, ParameterError, ShapeError

_TOLERANCE = 1e-6  # allowed negative eigenvalue relative to the largest one: rounding in single precision


def checked_symmetric(matrix: Any, argument: str = "the kernel matrix") -> np.ndarray:
    """A symmetric matrix of finite real numbers, (samples, samples), as an array in double precision.

    Raises:
        ShapeError: it is not square, or not symmetric.
        DtypeError: it is not of real numbers.
        ParameterError: an entry is NaN or infinite.
    """
    try:
        found = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DtypeError(f"{argument} must be a matrix of real numbers ({error}); give kernel.evaluate(X)") from error
    if found.ndim != 2 or found.shape[0] != found.shape[1]:
        raise ShapeError(f"{argument} has shape {found.shape}; expected (samples, samples), as of kernel.evaluate(X)")
    if not np.isfinite(found).all():
        raise ParameterError(f"{argument} has entries that are NaN or infinite; look for missing data")
    if not np.allclose(found, found.T, atol=1e-6):
        raise ShapeError(
            f"{argument} is not symmetric; expected the kernel matrix of one set of samples, kernel.evaluate(X)"
        )
    return found


def closest_psd(matrix: Any) -> np.ndarray:
    """The positive semi-definite matrix closest to a symmetric one: negative eigenvalues become 0.

    Closest in the Frobenius norm (Higham, Linear Algebra Appl. 103, 103 (1988), theorem 2.1). Shots and noise make
    kernel matrices indefinite, and support vector machines need a positive semi-definite one.

    Args:
        matrix: symmetric, (samples, samples).

    Returns:
        The repaired matrix (samples, samples), float64.

    Raises:
        ShapeError: the matrix is not square, or not symmetric.
        ParameterError: an entry is NaN or infinite.

    Example:
        >>> from qtm.kernels import closest_psd
        >>> closest_psd([[1.0, 2.0], [2.0, 1.0]])
        array([[1.5, 1.5],
               [1.5, 1.5]])
    """
    found = checked_symmetric(matrix)
    values, vectors = np.linalg.eigh((found + found.T) / 2)
    if not len(values) or values[0] >= 0:
        return found
    repaired = (vectors * np.maximum(values, 0)) @ vectors.T
    result: np.ndarray = (repaired + repaired.T) / 2
    return result


def check_psd(matrix: Any) -> None:
    """Raise an error for a matrix with negative eigenvalues.

    Raises:
        ParameterError: it has one; the message states it.
        ShapeError: it is not square, or not symmetric.
    """
    found = checked_symmetric(matrix)
    if not len(found):
        return
    values = np.linalg.eigvalsh(found)
    if values[0] < -_TOLERANCE * max(values[-1], 1.0):
        raise ParameterError(
            f"the kernel matrix is not positive semi-definite: its smallest eigenvalue is {values[0]:.3g}; repair it "
            "with qtm.kernels.closest_psd, or give the kernel enforce_psd=True or more shots"
        )
