"""Gate angles as sums of monomials of inputs and weights, and the derivative of them: `evaluate` and `pull_back`.

A term is ``coefficient * product of inputs * product of weights``. What the weights contribute does not depend on the
sample, so it is multiplied once. Terms without inputs come first: they are added up once, for all samples.

Cost of a sample: a copy of its angles, and a multiply-add for every input of every term; twice that in reverse.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qtm._engines.statevector.kernels.compilation import jit

NO_FACTOR = -1


class Monomials(NamedTuple):
    """Sums of monomials as plain arrays."""

    constant: np.ndarray  # (angles,) float64
    angle: np.ndarray  # (terms,) int64, that a term is added to; terms without inputs come first
    coefficient: np.ndarray  # (terms,) float64
    weights: np.ndarray  # (terms, weight factors) int64, NO_FACTOR where a term has fewer
    inputs: np.ndarray  # (terms with inputs, input factors) int64, likewise


@jit
def evaluate(
    sums: Monomials,
    inputs: np.ndarray,  # (samples, inputs); not read where no term has an input
    weights: np.ndarray,  # (weights,)
    scaled: np.ndarray,  # (terms,) float64, gets coefficient * product of weights
    shared: np.ndarray,  # (angles,) float64, scratch: what all samples have in common
    angles: np.ndarray,  # (samples, angles), is overwritten
) -> float:
    """Fill ``angles``; returns the sum of their squares, which is NaN or infinite where one of them is."""
    alone = scaled.size - sums.inputs.shape[0]  # terms without inputs
    for angle in range(shared.size):
        shared[angle] = sums.constant[angle]
    for term in range(scaled.size):
        factor = sums.coefficient[term]
        for place in range(sums.weights.shape[1]):
            number = sums.weights[term, place]
            if number != NO_FACTOR:
                factor *= weights[number]
        scaled[term] = factor
        if term < alone:
            shared[sums.angle[term]] += factor
    squares = 0.0
    for sample in range(angles.shape[0]):
        for angle in range(shared.size):
            angles[sample, angle] = shared[angle]
        for row in range(sums.inputs.shape[0]):
            value = scaled[alone + row]
            for place in range(sums.inputs.shape[1]):
                number = sums.inputs[row, place]
                if number != NO_FACTOR:
                    value *= inputs[sample, number]
            angles[sample, sums.angle[alone + row]] += value
        for angle in range(shared.size):
            squares += angles[sample, angle] * angles[sample, angle]
    return squares


@jit
def pull_back(
    sums: Monomials,
    inputs: np.ndarray,  # (samples, inputs)
    weights: np.ndarray,  # (weights,)
    scaled: np.ndarray,  # (terms,) float64 from `evaluate`
    by_angles: np.ndarray,  # (samples, angles)
    by_terms: np.ndarray,  # (terms,) float64, zeros: scratch
    by_shared: np.ndarray,  # (angles,) float64, zeros: scratch
    by_inputs: np.ndarray,  # (samples or 0, inputs), zeros; without rows where it is not wanted
    by_weights: np.ndarray,  # (weights,), zeros
) -> None:
    """Derivatives by inputs and weights from those by angles, summed over the samples for the weights."""
    alone = scaled.size - sums.inputs.shape[0]
    for sample in range(by_angles.shape[0]):
        for angle in range(by_shared.size):
            by_shared[angle] += by_angles[sample, angle]
        for row in range(sums.inputs.shape[0]):
            cotangent = by_angles[sample, sums.angle[alone + row]]
            product = cotangent
            for place in range(sums.inputs.shape[1]):
                number = sums.inputs[row, place]
                if number != NO_FACTOR:
                    product *= inputs[sample, number]
            by_terms[alone + row] += product
            if by_inputs.shape[0]:
                _by_factors(sums.inputs, row, inputs[sample], cotangent * scaled[alone + row], by_inputs[sample])
    for term in range(scaled.size):
        if term < alone:
            by_terms[term] = by_shared[sums.angle[term]]
        _by_factors(sums.weights, term, weights, by_terms[term] * sums.coefficient[term], by_weights)


@jit
def _by_factors(factors: np.ndarray, term: int, values: np.ndarray, cotangent: float, gradient: np.ndarray) -> None:
    """gradient[f] += cotangent * product of the other factors, for every factor f of the term."""
    for place in range(factors.shape[1]):
        number = factors[term, place]
        if number != NO_FACTOR:
            product = cotangent
            for other in range(factors.shape[1]):
                if other != place and factors[term, other] != NO_FACTOR:
                    product *= values[factors[term, other]]
            gradient[number] += product
