"""A complete gradient method: central differences on any estimator. The example of "Adding a gradient method"."""

from __future__ import annotations

import numpy as np

from qtm._gradients.estimator_methods import SpsaMethod


class CentralDifference:
    """The rule: each parameter is moved by ``epsilon`` radians up and down, the others stay."""

    def __init__(self, wanted, epsilon):
        self.wanted, self.epsilon, self.num_parameters = np.flatnonzero(wanted), epsilon, len(wanted)

    def points(self, at):
        """(batch, 2 * wanted, parameters): all up, then all down."""
        steps = self.epsilon * np.eye(at.shape[1])[self.wanted]
        return at[:, None, :] + np.concatenate([steps, -steps])

    def combine(self, values, cotangent):
        """Derivative (batch, parameters), by values (batch, 2 * wanted, observables) of the points."""
        up, down = np.split(np.einsum("bpm,bm->bp", values, cotangent), 2, axis=1)
        gradient = np.zeros((len(values), self.num_parameters))
        gradient[:, self.wanted] = (up - down) / (2 * self.epsilon)
        return gradient


class CentralDifferenceMethod(SpsaMethod):
    """The method: coordinates are the circuit's parameters, as for SPSA; keyword arguments are its options."""

    def __init__(self, settings, *, epsilon=1e-4, precision=None, max_points=None):
        super().__init__(settings, precision=precision, max_points=max_points)
        self.step = epsilon

    def _points_per_sample(self):
        return 2 * int(self._wanted.sum())

    def _rule(self, at):
        return CentralDifference(self._wanted, self.step)
