"""Points and how they combine, on functions whose derivatives are known."""

from __future__ import annotations

import numpy as np
import pytest

from qtm._circuit.gates import CONJUGATING, FOUR_TERM, TWO_TERM, ShiftRule
from qtm._gradients.gradient_rules import ParameterShift, Spsa, balanced_epsilon

RULES = (TWO_TERM, FOUR_TERM, CONJUGATING, ShiftRule((0.3, 1.0, 1.7)))


class Function:
    """Products over the angles of random Fourier sums with the frequencies of each angle's rule."""

    def __init__(self, rules: tuple[ShiftRule, ...], observables: int, seed: int = 5) -> None:
        self.rules = rules
        rng = np.random.default_rng(seed)
        self.weights = [rng.normal(size=(2 * len(r.frequencies), observables)) for r in rules]

    def factors(self, at: np.ndarray, derivative: bool) -> np.ndarray:
        """(..., observables, angles)"""
        columns = []
        for k, (rule, weights) in enumerate(zip(self.rules, self.weights, strict=True)):
            w = np.array(rule.frequencies)
            phase = at[..., k, None] * w
            pair = (-w * np.sin(phase), w * np.cos(phase)) if derivative else (np.cos(phase), np.sin(phase))
            columns.append((0 if derivative else 1) + np.concatenate(pair, axis=-1) @ weights)
        return np.stack(columns, axis=-1)

    def __call__(self, at: np.ndarray) -> np.ndarray:
        return self.factors(at, False).prod(axis=-1)

    def gradient(self, at: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
        """Derivative (batch, angles) of ``sum(cotangent * f)``."""
        plain, slopes = self.factors(at, False), self.factors(at, True)
        by_angle = [np.delete(plain, k, -1).prod(-1) * slopes[..., k] for k in range(len(self.rules))]
        return np.einsum("abm,bm->ba", by_angle, cotangent)


@pytest.fixture
def case(rng):
    return Function(RULES, observables=3), rng.uniform(-3, 3, (4, len(RULES))), rng.normal(size=(4, 3))


def test_parameter_shift_is_exact_for_every_rule(case):
    function, at, cotangent = case
    shift = ParameterShift(RULES)
    assert shift.points(at).shape == (4, shift.count, 4)
    assert shift.count == 2 * sum(len(rule.frequencies) for rule in RULES)
    found = shift.combine(function(shift.points(at)), cotangent)
    np.testing.assert_allclose(found, function.gradient(at, cotangent), atol=1e-12)


def test_unwanted_derivatives_are_zero_and_cost_no_points(case):
    function, at, cotangent = case
    wanted = np.array([False, True, False, True])
    shift = ParameterShift(RULES, wanted)
    assert shift.count == 4 + 6
    np.testing.assert_array_equal(shift.points(at)[:, :, ~wanted], np.repeat(at[:, None, ~wanted], 10, axis=1))
    found = shift.combine(function(shift.points(at)), cotangent)
    np.testing.assert_allclose(found, function.gradient(at, cotangent) * wanted, atol=1e-12)


@pytest.mark.parametrize("batch", [0, 3])
def test_no_angles_or_no_samples_give_no_points(batch):
    assert ParameterShift(()).points(np.zeros((batch, 0))).shape == (batch, 0, 0)
    assert ParameterShift(()).combine(np.zeros((batch, 0, 2)), np.zeros((batch, 2))).shape == (batch, 0)


def test_shifting_leaves_the_samples_alone(case):
    _, at, _ = case
    before = at.copy()
    ParameterShift(RULES).points(at)
    np.testing.assert_array_equal(at, before)


@pytest.mark.slow
def test_spsa_is_unbiased_over_signs_and_repetitions(case, rng):
    function, at, cotangent = case
    wanted = np.array([True, True, False, True])
    exact = function.gradient(at, cotangent) * wanted
    repeats = 40_000
    rule = Spsa.draw(rng, len(at), repeats, wanted, epsilon=1e-4)
    points = rule.points(at)
    assert points.shape == (4, 2 * repeats, 4)
    assert np.abs(points - at[:, None]).max(axis=(0, 1)) == pytest.approx([1e-4, 1e-4, 0, 1e-4])
    found = rule.combine(function(points), cotangent)
    # One repetition adds the derivatives by the other parameters with random signs.
    spread = np.linalg.norm(exact, axis=1, keepdims=True) / np.sqrt(repeats)
    assert np.all(np.abs(found - exact) < 5 * spread)
    assert np.all(found[:, ~wanted] == 0)


def test_spsa_draws_other_signs_for_every_sample_and_repetition(rng):
    steps = Spsa.draw(rng, 8, 8, np.ones(16, dtype=bool), epsilon=1.0).points(np.zeros((8, 16)))
    up, down = np.split(steps, 2, axis=1)
    np.testing.assert_array_equal(up, -down)
    assert len({row.tobytes() for row in up.reshape(64, 16)}) == 64


@pytest.mark.parametrize("noise", [1e-2, 1e-3])
@pytest.mark.parametrize("count", [1, 9])
def test_the_balanced_displacement_is_near_the_best(noise, count):
    """Mean square error along a line where f oscillates with frequency sqrt(count), over a scan."""
    frequency = np.sqrt(count)

    def error(epsilon):
        bias = np.abs(np.sin(frequency * epsilon) / epsilon - frequency)
        return bias**2 + noise**2 / (2 * epsilon**2)

    best = min(error(epsilon) for epsilon in np.geomspace(1e-3, 2, 400) / frequency)
    assert error(balanced_epsilon(noise, count)) < 1.2 * best


def test_an_exact_estimator_gets_a_displacement_for_rounding():
    assert 1e-6 < balanced_epsilon(0.0, 1) < 1e-4
    assert np.isfinite(balanced_epsilon(0.0, 0))
