"""Sampled Pauli errors against the exact density matrix: every single error exactly, averages within their error."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from noise_cases import noisy
from test_density_matrix import angles_of, observed

from qtm._circuit.channels import Channel
from qtm._engines.density_matrix.engine import DensityMatrix
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation, Probabilities
from qtm._engines.trajectories.engine import Trajectories
from qtm._engines.trajectories.errors import Errors, ErrorTable, draw
from qtm._errors import ParameterError

PAULI = ["bit_flip", "phase_flip", "bit_phase_flip", "pauli", "two_qubit_pauli", "depolarizing"]


def test_every_error_flips_the_right_signs() -> None:
    """The sum over all errors of three channels, weighted by their probabilities, is the exact value."""
    flat = noisy(2, 3, 10, ["pauli"])
    places = [i for i, o in enumerate(flat.operations) if isinstance(o, Channel)]
    dropped = {places[j] for j in range(len(places)) if j not in (0, len(places) // 2, len(places) - 1)}
    flat = replace(flat, operations=tuple(o for i, o in enumerate(flat.operations) if i not in dropped))
    output = Expectation(observed(2, 3))
    angles = angles_of(flat, 1)
    engine = Trajectories(count=1).compile(flat, output, Options())
    total = torch.zeros(1, 3, dtype=torch.float64)
    for drawn in product(range(4), repeat=3):
        chance, flips = 1.0, np.zeros(engine.errors[0].flips.shape[1], bool)
        for error, string in zip(engine.errors, drawn, strict=True):
            chance *= error.chances[string]
            flips = flips ^ error.flips[string]
        engine._signs = lambda batch, f=flips: np.where(f, -1, 1).astype(np.int8)[None]  # type: ignore[method-assign]
        total += chance * engine.forward(angles, ())[0]
    exact = DensityMatrix().compile(flat, output, Options()).forward(angles, ())[0]
    torch.testing.assert_close(total, exact, rtol=0, atol=1e-12)


def test_averages_and_derivatives_are_unbiased() -> None:
    flat = replace(noisy(4, 3, 12, PAULI), readout=((0.02, 0.05), (0.0, 0.0), (0.1, 0.03)))
    output, angles = Expectation(observed(4, 3)), angles_of(flat, 2)
    exact = DensityMatrix().compile(flat, output, Options())
    engine = Trajectories(count=20_000, seed=0).compile(flat, output, Options())
    values, kept = engine.forward(angles, (), keep=True)
    scale = sum(float(np.abs(o.coeffs).sum()) for o in output.observables)
    bound = 5 * scale / np.sqrt(20_000)
    torch.testing.assert_close(values, exact.forward(angles, ())[0], rtol=0, atol=bound)
    cotangent = torch.ones_like(values)
    gradient = engine.vjp(angles, (), cotangent, kept)[0]
    torch.testing.assert_close(gradient, exact.vjp(angles, (), cotangent)[0], rtol=0, atol=2 * bound)
    torch.testing.assert_close(engine.vjp(angles, (), cotangent)[0], gradient)  # the same seed, the same errors


def test_derivatives_are_those_of_the_trajectories_drawn() -> None:
    flat = noisy(5, 3, 10, PAULI)
    output, angles = Expectation(observed(5, 3)), angles_of(flat, 2)
    engine = Trajectories(count=3, seed=1).compile(flat, output, Options())
    values, kept = engine.forward(angles, (), keep=True)
    gradient = engine.vjp(angles, (), torch.ones_like(values), kept)[0]
    for angle in range(angles.shape[1]):
        step = torch.zeros_like(angles)
        step[:, angle] = 1e-5
        up, down = (engine.forward(angles + s * step, ())[0].sum(1) for s in (1, -1))
        torch.testing.assert_close((up - down) / 2e-5, gradient[:, angle], rtol=0, atol=1e-7)


def test_twirling_is_on_request() -> None:
    flat, output = noisy(5, 3, 10, ["thermal_relaxation"]), Expectation(observed(5, 3))
    assert "twirl" in str(Trajectories().refuses(flat, output, Options()))
    method = Trajectories(count=4, twirl=True)
    assert method.refuses(flat, output, Options()) is None
    engine = method.compile(flat, output, Options())
    assert any("twirled" in note for note in engine.plan(1).notes)
    assert "gives no Probabilities" in str(method.refuses(flat, Probabilities((0,)), Options()))
    with pytest.raises(ParameterError, match="positive number"):
        Trajectories(count=0)


def test_errors_are_drawn_with_their_probabilities() -> None:
    """Also where a channel always errs, or nearly never; channels do not depend on each other."""
    rows = 200_000
    chances = [[0.0, 0.2, 0.5, 0.3], [1 - 1e-9, 1e-9, 0.0, 0.0], [0.7, 0.1, 0.1, 0.1], [0.99, 0.01], [1.0, 0.0]]
    flips = iter(np.eye(12, dtype=bool))  # every error has a sign of its own
    errors = []
    for row in chances:
        none = np.zeros((1, 12), bool)
        errors.append(Errors(np.array(row), np.concatenate([none, *[next(flips)[None] for _ in row[1:]]])))
    signs = draw(ErrorTable.of(errors, 12), rows, 7) < 0
    expected = np.array([p for row in chances for p in row[1:]] + [0.0])
    deviation = np.sqrt(expected * (1 - expected) / rows)
    assert (np.abs(signs.mean(0) - expected) <= 5 * deviation + 1e-5).all()
    assert (signs[:, :3].sum(1) == 1).all()
    both = (signs[:, 0] & signs[:, 6]).mean()
    assert abs(both - 0.2 * 0.1) < 5 * np.sqrt(0.02 / rows)
    assert np.corrcoef(signs[:-1, 1], signs[1:, 1])[0, 1] < 5 / np.sqrt(rows)
    other = draw(ErrorTable.of(errors, 12), rows, 8) < 0
    assert abs((signs[:, 1] & other[:, 1]).mean() - 0.25) < 5 * np.sqrt(0.25 / rows)
    assert (draw(ErrorTable.of(errors[4:], 12), 5, 7) == 1).all()
    assert draw(ErrorTable.of([], 3), 0, 7).shape == (0, 3)
