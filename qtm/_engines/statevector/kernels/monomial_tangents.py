"""Derivatives along a direction of what `monomials` computes: `push_forward` and `pull_back_tangent`.

Inputs x and weights w move along tangents; so does what is computed from them. A product of factors and its tangent
are multiplied factor by factor: (p, dp) times (x, dx) is (p x, dp x + p dx).
"""

from __future__ import annotations

import numpy as np

from qtm._engines.statevector.kernels.compilation import jit
from qtm._engines.statevector.kernels.monomials import NO_FACTOR, Monomials

_NONE = -1  # the place of no factor


@jit
def _times_factors(
    factors: np.ndarray,  # (terms, factors of a term)
    term: int,
    without: int,
    values: np.ndarray,
    moving: np.ndarray,
    product: float,
    tangent: float,
) -> tuple[float, float]:
    """A product and its tangent, times all factors of a term but the one at place ``without``."""
    for place in range(factors.shape[1]):
        number = factors[term, place]
        if place != without and number != NO_FACTOR:
            tangent = tangent * values[number] + product * moving[number]
            product *= values[number]
    return product, tangent


@jit
def push_forward(
    sums: Monomials,
    inputs: np.ndarray,  # (samples, inputs)
    weights: np.ndarray,  # (weights,)
    scaled: np.ndarray,  # (terms,) float64 from `monomials.evaluate`
    moving_inputs: np.ndarray,  # (samples, inputs)
    moving_weights: np.ndarray,  # (weights,)
    moving_scaled: np.ndarray,  # (terms,) float64, gets the tangent of ``scaled``
    shared: np.ndarray,  # (angles,) float64, zeros: scratch
    moving_angles: np.ndarray,  # (samples, angles), is overwritten
) -> None:
    """The tangents of the angles."""
    alone = scaled.size - sums.inputs.shape[0]  # terms without inputs
    for term in range(scaled.size):
        _, tangent = _times_factors(sums.weights, term, _NONE, weights, moving_weights, sums.coefficient[term], 0.0)
        moving_scaled[term] = tangent
        if term < alone:
            shared[sums.angle[term]] += tangent
    for sample in range(moving_angles.shape[0]):
        for angle in range(shared.size):
            moving_angles[sample, angle] = shared[angle]
        for row in range(sums.inputs.shape[0]):
            _, tangent = _times_factors(
                sums.inputs, row, _NONE, inputs[sample], moving_inputs[sample], scaled[alone + row],
                moving_scaled[alone + row],
            )  # fmt: skip
            moving_angles[sample, sums.angle[alone + row]] += tangent


@jit
def pull_back_tangent(
    sums: Monomials,
    inputs: np.ndarray,  # (samples, inputs)
    weights: np.ndarray,  # (weights,)
    scaled: np.ndarray,  # (terms,) float64 from `monomials.evaluate`
    moving_inputs: np.ndarray,  # (samples, inputs)
    moving_weights: np.ndarray,  # (weights,)
    moving_scaled: np.ndarray,  # (terms,) float64 from `push_forward`
    by_angles: np.ndarray,  # (samples, angles)
    moving_by_angles: np.ndarray,  # (samples, angles): their tangents
    by_terms: np.ndarray,  # (2, terms) float64, zeros: scratch
    by_shared: np.ndarray,  # (2, angles) float64, zeros: scratch
    by_inputs: np.ndarray,  # (samples or 0, inputs), zeros; without rows where it is not wanted
    by_weights: np.ndarray,  # (weights,), zeros
) -> None:
    """The tangents of the derivatives that `monomials.pull_back` computes."""
    alone = scaled.size - sums.inputs.shape[0]
    for sample in range(by_angles.shape[0]):
        for angle in range(by_shared.shape[1]):
            by_shared[0, angle] += by_angles[sample, angle]
            by_shared[1, angle] += moving_by_angles[sample, angle]
        for row in range(sums.inputs.shape[0]):
            term, values, moving = alone + row, inputs[sample], moving_inputs[sample]
            cotangent, tangent = by_angles[sample, sums.angle[term]], moving_by_angles[sample, sums.angle[term]]
            product, its_tangent = _times_factors(sums.inputs, row, _NONE, values, moving, cotangent, tangent)
            by_terms[0, term] += product
            by_terms[1, term] += its_tangent
            if by_inputs.shape[0]:
                tangent = tangent * scaled[term] + cotangent * moving_scaled[term]
                _by_factors(sums.inputs, row, values, moving, cotangent * scaled[term], tangent, by_inputs[sample])
    for term in range(scaled.size):
        if term < alone:
            by_terms[0, term], by_terms[1, term] = by_shared[0, sums.angle[term]], by_shared[1, sums.angle[term]]
        cotangent, tangent = by_terms[0, term] * sums.coefficient[term], by_terms[1, term] * sums.coefficient[term]
        _by_factors(sums.weights, term, weights, moving_weights, cotangent, tangent, by_weights)


@jit
def _by_factors(
    factors: np.ndarray,
    term: int,
    values: np.ndarray,
    moving: np.ndarray,
    cotangent: float,
    tangent: float,
    gradient: np.ndarray,
) -> None:
    """gradient[f] += the tangent of cotangent * product of the other factors, for every factor f of the term."""
    for place in range(factors.shape[1]):
        if factors[term, place] != NO_FACTOR:
            found = _times_factors(factors, term, place, values, moving, cotangent, tangent)
            gradient[factors[term, place]] += found[1]
