"""Real-time mitigation: a map from noisy to exact values, kept during training and refitted when it drifts."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit.primitives import PubResult
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.observables_array import ObservablesArray

from qtm._errors import ParameterError
from qtm._mitigation.cdr import (
    Template,
    check_training,
    exact_values,
    fit_linear,
    keep_some,
    largest_values,
    nearby_clifford,
)
from qtm._mitigation.method import Draws, Floats, Mitigated, Steps, padded_values, values, with_angles
from qtm._primitives.job_usage import precision_of

_log = logging.getLogger("qtm")
# Candidates per training circuit: those whose exact values differ most determine the slope best.
_CANDIDATES = 4


@dataclass(frozen=True)
class RealTime:
    """Real-time mitigation with a cached linear map (qiboml, section II.E.2).

    The map is fitted on near-Clifford versions of the circuit, at points drawn from the first PUB (including its
    shifts), and then applied to every PUB with the same gates and observables, forward and shifted values alike.
    There is one slope and intercept per observable. Source: Robbiati et al., arXiv:2311.05680; as in its importance
    sampling, circuits with the most different exact values are preferred.

    Args:
        threshold: the map is refitted when the mitigated value of a reference circuit, a new near-Clifford version
            of the current one, differs from its exact value by more than this.
        min_iterations: number of expectation values between two checks (a check takes one more circuit).
        n_training_samples: number of circuits in a fit.
        shots: shots of each training circuit and of the reference; None means the precision of the PUB.
        fraction_non_clifford: fraction of the non-Clifford angles that a training circuit keeps.
        sigma: width in radians of the replacement of the other angles, as in "cdr".
        seed: seed of the training circuits.
    """

    threshold: float = 0.1
    min_iterations: int = 1000
    n_training_samples: int = 50
    shots: int | None = None
    fraction_non_clifford: float = 0.2
    sigma: float = 0.5
    seed: int | None = None
    _maps: dict[str, _Map] = field(default_factory=dict, init=False, repr=False, compare=False)
    _draws: Draws = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_training(self.n_training_samples, self.fraction_non_clifford, self.sigma)
        if not self.threshold > 0 or self.min_iterations < 1 or (self.shots is not None and self.shots < 1):
            raise ParameterError(
                "threshold must be positive and min_iterations and shots at least 1; got "
                f"threshold={self.threshold!r}, min_iterations={self.min_iterations!r}, shots={self.shots!r}"
            )
        object.__setattr__(self, "_draws", Draws(self.seed))

    def steps(self, pub: EstimatorPub) -> Steps:
        """Run the PUB, with the training circuits the first time and the reference when a check is due."""
        template = Template(pub.circuit)
        points = template.angles(padded_values(pub)).reshape(-1, len(template.clifford_steps))
        known = self._map_for(template, pub.observables)
        if known.fit is None:
            training = known.training(template, points, self.n_training_samples)
            results = yield [pub, training.pub]
            known.learn(training, results[1])
        elif known.served < self.min_iterations:
            results = yield [pub]
        else:
            reference = known.reference(template, points)
            results = yield [pub, reference.pub]
            if known.drifted(reference, results[1], self.threshold):
                training = known.training(template, points, self.n_training_samples)
                again = yield [training.pub]
                known.learn(training, again[0])
        return known.applied(*values(results[0]), pub.observables)

    def assume_run(self, pub: EstimatorPub) -> None:
        """Fit the map, or check it, without values."""
        known = self._map_for(Template(pub.circuit), pub.observables)
        known.assume_run(math.prod(pub.shape))

    def state_dict(self) -> dict[str, Any]:
        """The seed, and every map."""
        maps = {key: kept.state_dict() for key, kept in self._maps.items()}
        return {"seed": self._draws.seed, "draws": self._draws.count, "maps": maps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state returned by `state_dict`."""
        self._draws.seed, self._draws.count = state_dict["seed"], state_dict["draws"]
        self._maps.clear()
        self._maps.update({key: _Map.of(self, kept) for key, kept in state_dict["maps"].items()})

    def forget(self) -> None:
        """Fit every map again, at its next PUB."""
        for kept in self._maps.values():
            kept.fit = None

    def _map_for(self, template: Template, observables: ObservablesArray) -> _Map:
        distinct = {_key(observable): observable for observable in observables.ravel()}
        key = sha256(repr((template.key, sorted(distinct))).encode()).hexdigest()
        if key not in self._maps:
            self._maps[key] = _Map(self, [distinct[k] for k in sorted(distinct)], self._draws.next())
        return self._maps[key]


@dataclass(frozen=True)
class _Training:
    """Near-Clifford circuits and their exact values (observables, training)."""

    pub: EstimatorPub
    exact: Floats


class _Map:
    """Slopes and intercepts (observables,) for one circuit structure, and how to refit them."""

    def __init__(self, options: RealTime, observables: list[Mapping[str, float]], rng: np.random.Generator) -> None:
        self.options, self.rng, self.observables = options, rng, observables
        self.positions = {_key(observable): i for i, observable in enumerate(observables)}
        self.column = ObservablesArray(np.array(observables, dtype=object)[:, None])  # against (training,)
        self.sizes = largest_values(self.column)[:, 0]
        self.fit: tuple[Floats, Floats] | None = None
        self.fits = self.checks = self.served = 0

    def state_dict(self) -> dict[str, Any]:
        fit = None if self.fit is None else [part.tolist() for part in self.fit]
        observables = [[list(term) for term in _key(observable)] for observable in self.observables]
        counts = {"fits": self.fits, "checks": self.checks, "served": self.served}
        return {"observables": observables, "fit": fit, "rng": self.rng.bit_generator.state, **counts}

    @classmethod
    def of(cls, options: RealTime, state: dict[str, Any]) -> _Map:
        """The map of a state."""
        rng = np.random.default_rng()
        rng.bit_generator.state = state["rng"]
        made = cls(options, [dict(map(tuple, terms)) for terms in state["observables"]], rng)
        made.fit = None if state["fit"] is None else (np.array(state["fit"][0]), np.array(state["fit"][1]))
        made.fits, made.checks, made.served = state["fits"], state["checks"], state["served"]
        return made

    def training(self, template: Template, points: Floats, count: int) -> _Training:
        """Circuits whose exact values are far apart."""
        angles, exact = self._candidates(template, points, count)
        spread = np.abs(exact - exact.mean(axis=1, keepdims=True)) / self.sizes[:, None]
        return self._chosen(template, angles, exact, np.argsort(-spread.sum(axis=0), kind="stable")[:count])

    def reference(self, template: Template, points: Floats) -> _Training:
        """One circuit whose exact values are large."""
        angles, exact = self._candidates(template, points, 5)
        size = np.abs(exact) / self.sizes[:, None]
        return self._chosen(template, angles, exact, np.argsort(-size.sum(axis=0), kind="stable")[:1])

    def _candidates(self, template: Template, points: Floats, count: int) -> tuple[Floats, Floats]:
        """Near-Clifford angles around ``points``; exact values (observables, candidates)."""
        options, steps = self.options, template.clifford_steps
        here = points[self.rng.integers(len(points), size=_CANDIDATES * count)]  # (candidates, angles)
        kept = keep_some(here.shape, options.fraction_non_clifford, self.rng)
        angles = np.where(kept, here, nearby_clifford(here, steps, here.shape, options.sigma, self.rng))
        return angles, exact_values(with_angles(template.circuit, self.column, angles, None))

    def _chosen(self, template: Template, angles: Floats, exact: Floats, best: NDArray[np.intp]) -> _Training:
        precision = None if self.options.shots is None else precision_of(self.options.shots)
        pub = with_angles(template.circuit, self.column, angles[best], precision)
        return _Training(pub, exact[:, best])

    def learn(self, training: _Training, result: PubResult) -> None:
        """Fit the map to the values of training circuits."""
        noisy, stds = (np.moveaxis(x, 0, -1)[None] for x in values(result))  # (1, training, observables)
        slopes, intercepts = fit_linear(noisy, stds, training.exact.T, self.sizes, "linear")
        self.fit = slopes[0], intercepts
        self.fits, self.served = self.fits + 1, 0
        _log.info("real-time mitigation: map %d fitted, slopes %s", self.fits, np.round(self.fit[0], 4))

    def drifted(self, reference: _Training, result: PubResult, threshold: float) -> bool:
        """Whether the mitigated reference is too far from its exact value."""
        slope, intercept = self._fitted()
        self.checks, self.served = self.checks + 1, 0
        mitigated = slope * values(result)[0][:, 0] + intercept
        distance = float(np.abs(mitigated - reference.exact[:, 0]).max())
        _log.info("real-time mitigation: check %d, distance %.4f", self.checks, distance)
        return distance > threshold

    def assume_run(self, count: int) -> None:
        """Count values; a map that is due is first fitted or checked, and is assumed not to have drifted."""
        if self.fit is None:
            self.fit, self.served = (np.ones(len(self.observables)), np.zeros(len(self.observables))), 0
        elif self.served >= self.options.min_iterations:
            self.served = 0
        self.served += count

    def applied(self, evs: Floats, stds: Floats, observables: ObservablesArray) -> Mitigated:
        """The mitigated values of a PUB with these observables."""
        self.served += evs.size
        index = np.array([self.positions[_key(o)] for o in observables.ravel()]).reshape(observables.shape)
        slope, intercept = (np.broadcast_to(x[index], evs.shape) for x in self._fitted())
        metadata: dict[str, Any] = {"slope": slope, "intercept": intercept}
        metadata |= {"fits": self.fits, "checks": self.checks}
        return Mitigated(slope * evs + intercept, np.abs(slope) * stds, evs, metadata)

    def _fitted(self) -> tuple[Floats, Floats]:
        if self.fit is None:
            raise RuntimeError("the map is used before it is fitted")
        return self.fit


def _key(observable: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    return tuple(sorted((label, float(np.real(weight))) for label, weight in observable.items()))
