"""A complete gradient method: central differences on any estimator."""

from __future__ import annotations

import numpy as np

from qtm.gradients import PointMethod, Rule


class CentralDifference(Rule):
    """The rule: shift each parameter alone by ``epsilon`` radians, up and down."""

    def __init__(self, wanted, epsilon):
        self.wanted, self.epsilon, self.num_parameters = np.flatnonzero(wanted), epsilon, len(wanted)

    def points(self, at):
        """Points (batch, 2 * wanted, parameters): all shifted up, then all shifted down."""
        steps = self.epsilon * np.eye(at.shape[1])[self.wanted]
        return at[:, None, :] + np.concatenate([steps, -steps])

    def combine(self, values, cotangent):
        """Derivative (batch, parameters) from the values (batch, 2 * wanted, observables) at the points."""
        up, down = np.split(np.einsum("bpm,bm->bp", values, cotangent), 2, axis=1)
        gradient = np.zeros((len(values), self.num_parameters))
        gradient[:, self.wanted] = (up - down) / (2 * self.epsilon)
        return gradient


class CentralDifferenceMethod(PointMethod):
    """The method; its keyword arguments are its options."""

    def __init__(self, settings, *, epsilon=1e-4, precision=None, max_points=None):
        super().__init__(settings, precision=precision, max_points=max_points)
        self.step = epsilon

    def points_per_sample(self):
        return 2 * int(self.wanted.sum())

    def rule(self, at):
        return CentralDifference(self.wanted, self.step)
