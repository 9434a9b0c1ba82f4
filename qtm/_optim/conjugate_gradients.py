"""Linear equations with a symmetric positive definite matrix, given by its products with vectors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]


def conjugate_gradients(
    product: Product, right: Tensor, start: Tensor, *, tolerance: float, max_iterations: int
) -> tuple[Tensor, int]:
    """Solve ``A x = right``; returns the solution and the number of products.

    Hestenes and Stiefel, J. Res. Natl. Bur. Stand. 49, 409 (1952). Stops where the residual is ``tolerance`` times the
    right-hand side, or rounding makes the matrix indefinite.

    Args:
        product: A times a vector (size,).
        right: (size,).
        start: initial guess (size,).
        tolerance: tolerance of the residual, relative to ``right``.
        max_iterations: maximum number of products.
    """
    x, used = start.clone(), 0
    if bool((x != 0).any()):
        residual, used = right - product(x), 1
    else:
        residual = right.clone()
    direction, square = residual.clone(), residual @ residual
    enough = tolerance**2 * (right @ right)
    while used < max_iterations and square > enough:
        image = product(direction)
        used += 1
        curvature = direction @ image
        if not curvature > 0:
            break
        x = x + (square / curvature) * direction
        residual = residual - (square / curvature) * image
        before, square = square, residual @ residual
        direction = residual + (square / before) * direction
    return x, used


def blockwise(product: Product, members: list[Tensor]) -> list[tuple[Tensor, Product]]:
    """For each block of coordinates (size,) bool, the coordinates and the product restricted to them."""

    def restricted(inside: Tensor) -> Product:
        return lambda vector: product(torch.where(inside, vector, 0)) * inside

    return [(inside, restricted(inside)) for inside in members]
