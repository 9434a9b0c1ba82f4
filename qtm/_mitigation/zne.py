"""Zero-noise extrapolation (ZNE)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from qiskit.circuit import QuantumCircuit
from qiskit.primitives.containers.estimator_pub import EstimatorPub

from qtm._errors import ParameterError, QtmError, require
from qtm._mitigation.folding import FOLDS, achieved_scale, folding_gates
from qtm._mitigation.method import (
    Drawing,
    Floats,
    Mitigated,
    Steps,
    check_scales,
    linear_combination,
    stacked,
    with_circuit,
)

logger = logging.getLogger("qtm")

# Name -> (mitiq's factory, the options it takes, whether its limit is linear in the values).
FACTORIES: dict[str, tuple[str, tuple[str, ...], bool]] = {
    "richardson": ("RichardsonFactory", (), True),
    "fake-nodes": ("FakeNodesFactory", (), True),
    "linear": ("LinearFactory", (), True),
    "poly": ("PolyFactory", ("order",), True),
    "exp": ("ExpFactory", ("asymptote",), False),
    "poly-exp": ("PolyExpFactory", ("order", "asymptote"), False),
}


@dataclass(frozen=True)
class ZeroNoise(Drawing):
    """Zero-noise extrapolation (Temme, Bravyi, Gambetta, arXiv:1612.02058; Li, Benjamin, arXiv:1611.09301).

    Args:
        scale_factors: noise scales, starting at 1. Folding reaches a scale as closely as the number of gates allows,
            and the extrapolation uses the achieved scale.
        factory: "richardson", "linear", "poly", "exp", "poly-exp" or "fake-nodes", computed by mitiq. If "exp" or
            "poly-exp" cannot be fitted, the value is extrapolated linearly, and a warning is logged.
        fold: "global" (folds the whole circuit) or "gates" (folds each gate; a random subset for scales in between).
        order: degree of the polynomial of "poly" and "poly-exp".
        asymptote: value at infinite noise for "exp" and "poly-exp"; None fits it.
        seed: seed of the random subsets of gates.
    """

    scale_factors: Sequence[float] = (1, 3, 5)
    factory: str = "richardson"
    fold: str = "global"
    order: int = 2
    asymptote: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        _choose("factory", self.factory, FACTORIES)
        _choose("fold", self.fold, FOLDS)
        check_scales(self.scale_factors)
        require("mitiq", extra="mitigation")
        self._start()

    def steps(self, pub: EstimatorPub) -> Steps:
        """Run the circuit at each scale; extrapolate."""
        scales = [achieved_scale(pub.circuit, scale) for scale in self.scale_factors]
        if len(set(scales)) < len(scales):
            raise ParameterError(
                f"scale_factors {list(self.scale_factors)} cannot be distinguished on a circuit with "
                f"{len(folding_gates(pub.circuit))} gates; choose them further apart"
            )
        results = yield [with_circuit(pub, c) for c in self._circuits(pub.circuit)]
        evs, stds = stacked(results)
        limits, errors = self._extrapolated(scales, evs, stds)
        metadata = {"scale_factors": scales, "evs_by_scale": evs, "factory": self.factory}
        return Mitigated(limits, errors, evs[0], metadata)

    def _circuits(self, circuit: QuantumCircuit) -> list[QuantumCircuit]:
        rng = self._draws.next()
        return [FOLDS[self.fold](circuit, scale, rng) for scale in self.scale_factors]

    def _limit(self, scales: Sequence[float], factory: str) -> Callable[[Any], float]:
        name, options, _ = FACTORIES[factory]
        zne = require("mitiq.zne.inference", extra="mitigation")
        given = {option: getattr(self, option) for option in options}

        def limit(exp_values: Any) -> float:
            try:
                return getattr(zne, name).extrapolate(list(scales), list(exp_values), **given)
            except zne.ExtrapolationError as error:
                raise _NoFitError(f"{np.round(exp_values, 6).tolist()} at scales {list(scales)}: {error}") from error
            except ValueError as error:
                raise QtmError(
                    f"factory {factory!r} could not extrapolate {np.round(exp_values, 6).tolist()} at "
                    f"scales {list(scales)} ({error}); try factory='linear', or other scale_factors"
                ) from error

        return limit

    def _extrapolated(self, scales: Sequence[float], evs: Floats, stds: Floats) -> tuple[Floats, Floats]:
        limit = self._limit(scales, self.factory)
        if FACTORIES[self.factory][2]:
            return linear_combination(np.array([limit(row) for row in np.eye(len(scales))]), evs, stds)
        limits, errors = np.empty(evs.shape[1:]), np.empty(evs.shape[1:])
        for index in np.ndindex(limits.shape):
            at, by = np.moveaxis(evs, 0, -1)[index], np.moveaxis(stds, 0, -1)[index]
            try:
                limits[index], errors[index] = _with_error(limit, at, by)
            except _NoFitError as error:  # shot noise can make a fit impossible; a single such value must not end a run
                logger.warning(
                    "factory %r cannot be fitted to %s; this value is extrapolated linearly", self.factory, error
                )
                limits[index], errors[index] = _with_error(self._limit(scales, "linear"), at, by)
        return limits, errors


class _NoFitError(Exception):
    """Values to which no curve can be fitted."""


def _with_error(limit: Callable[[Any], float], at: Floats, by: Floats) -> tuple[float, float]:
    """The limit of values at the scales (scales,), and its error to first order in theirs, by one refit each."""
    found = limit(at)
    moved = [limit(at + step) - found for step in np.diag(by)[by > 0]]
    return found, float(np.linalg.norm(moved))


def _choose(option: str, value: str, table: dict[str, Any]) -> None:
    if value not in table:
        raise ParameterError(f"unknown {option} {value!r}; choose one of {', '.join(table)}")
