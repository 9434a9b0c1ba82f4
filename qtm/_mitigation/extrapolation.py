"""Zero-noise extrapolation of one scale (ZNE) and of one scale per chunk of layers (LRE)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from qiskit.circuit import QuantumCircuit
from qiskit.primitives.containers.estimator_pub import EstimatorPub

from qtm._errors import ParameterError, QtmError, require
from qtm._mitigation.folding import FOLDS, achieved_scale, fold_chunks, folding_gates, layers
from qtm._mitigation.steps import Floats, Mitigated, Steps, stacked, with_circuit

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
class ZeroNoise:
    """Zero-noise extrapolation (Temme, Bravyi, Gambetta, arXiv:1612.02058; Li, Benjamin, arXiv:1611.09301).

    Args:
        scale_factors: noise scales, from 1 up; a scale is reached as nearly as the number of gates allows,
            and the scale that was reached is the one extrapolated from.
        factory: "richardson", "linear", "poly", "exp", "poly-exp" or "fake-nodes", computed by mitiq.
        fold: "global" (the whole circuit back and forth) or "gates" (each gate, some at random in between).
        order: of "poly" and "poly-exp".
        asymptote: value at infinite noise for "exp" and "poly-exp"; None fits it.
        seed: for the random gates.
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

    def steps(self, pub: EstimatorPub) -> Steps:
        """Run the circuit at each scale; extrapolate."""
        scales = [achieved_scale(pub.circuit, scale) for scale in self.scale_factors]
        if len(set(scales)) < len(scales):
            raise ParameterError(
                f"scale_factors {list(self.scale_factors)} cannot be told apart on a circuit with "
                f"{len(folding_gates(pub.circuit))} gates; choose them further apart"
            )
        results = yield [with_circuit(pub, c) for c in self._circuits(pub.circuit)]
        evs, stds = stacked(results)
        limits, errors = self._extrapolated(scales, evs, stds)
        metadata = {"scale_factors": scales, "evs_by_scale": evs, "factory": self.factory}
        return Mitigated(limits, errors, evs[0], metadata)

    def _circuits(self, circuit: QuantumCircuit) -> list[QuantumCircuit]:
        rng = np.random.default_rng(self.seed)
        return [FOLDS[self.fold](circuit, scale, rng) for scale in self.scale_factors]

    def _limit(self, scales: Sequence[float]) -> Callable[[Any], float]:
        name, options, _ = FACTORIES[self.factory]
        zne = require("mitiq.zne.inference", extra="mitigation")
        given = {option: getattr(self, option) for option in options}

        def limit(exp_values: Any) -> float:
            try:
                return getattr(zne, name).extrapolate(list(scales), list(exp_values), **given)
            except (zne.ExtrapolationError, ValueError) as error:
                raise QtmError(
                    f"factory {self.factory!r} could not extrapolate {np.round(exp_values, 6).tolist()} at "
                    f"scales {list(scales)} ({error}); try factory='linear', or other scale_factors"
                ) from error

        return limit

    def _extrapolated(self, scales: Sequence[float], evs: Floats, stds: Floats) -> tuple[Floats, Floats]:
        limit = self._limit(scales)
        if FACTORIES[self.factory][2]:
            return linear_combination(np.array([limit(row) for row in np.eye(len(scales))]), evs, stds)
        limits, errors = np.empty(evs.shape[1:]), np.empty(evs.shape[1:])
        for index in np.ndindex(limits.shape):
            at, by = np.moveaxis(evs, 0, -1)[index], np.moveaxis(stds, 0, -1)[index]
            limits[index] = limit(at)
            # First order in the errors of the values, by one refit for each.
            moved = [limit(at + step) - limits[index] for step in np.diag(by)[by > 0]]
            errors[index] = np.linalg.norm(moved)
        return limits, errors


@dataclass(frozen=True)
class LayerwiseRichardson:
    """Layer-wise Richardson extrapolation (Russo, Mari, arXiv:2402.04000), coefficients by mitiq.

    Args:
        degree: of the polynomial in the scales of all chunks.
        fold_multiplier: step between scales, in foldings.
        num_chunks: groups of consecutive layers that are scaled on their own; ``binomial(num_chunks + degree,
            degree)`` circuits are run. Shallower circuits use one chunk per layer.
    """

    degree: int = 2
    fold_multiplier: int = 1
    num_chunks: int = 4

    def __post_init__(self) -> None:
        for name in ("degree", "fold_multiplier", "num_chunks"):
            if getattr(self, name) != int(getattr(self, name)) or getattr(self, name) < 1:
                raise ParameterError(f"{name} must be a whole number from 1 up, got {getattr(self, name)!r}")
        require("mitiq", extra="mitigation")

    def steps(self, pub: EstimatorPub) -> Steps:
        """Run the circuit for each vector of scales; combine linearly."""
        folding_gates(pub.circuit)  # raises for what cannot be folded
        found = layers(pub.circuit)
        groups = np.array_split(np.arange(len(found)), min(self.num_chunks, len(found)))
        chunks = [[i for layer in group for i in found[layer]] for group in groups]
        vectors, coefficients = self._plan(len(chunks))
        results = yield [with_circuit(pub, fold_chunks(pub.circuit, chunks, v)) for v in vectors]
        evs, stds = stacked(results)
        limits, errors = linear_combination(coefficients, evs, stds)
        return Mitigated(limits, errors, evs[0], {"scale_factor_vectors": vectors})

    def _plan(self, chunks: int) -> tuple[list[tuple[int, ...]], Floats]:
        cirq = require("cirq", extra="mitigation")
        folding = require("mitiq.lre.multivariate_scaling.layerwise_folding", extra="mitigation")
        richardson = require("mitiq.lre.inference.multivariate_richardson", extra="mitigation")
        # mitiq asks for a circuit and only counts its layers.
        counted = cirq.Circuit(cirq.Moment(cirq.X(cirq.LineQubit(0))) for _ in range(chunks))
        options = {"degree": self.degree, "fold_multiplier": self.fold_multiplier}
        vectors = folding.get_scale_factor_vectors(counted, **options)
        return vectors, np.array(richardson.multivariate_richardson_coefficients(counted, **options))


def linear_combination(weights: Floats, evs: Floats, stds: Floats) -> tuple[Floats, Floats]:
    """Sum over the first axis with weights; the errors are independent and add in squares."""
    errors = np.sqrt(np.einsum("i,i...->...", weights**2, stds**2))
    return np.einsum("i,i...->...", weights, evs), errors


def check_scales(scales: Sequence[float]) -> None:
    """Refuse noise scales that do not start at 1 and rise."""
    steps = list(scales)
    if len(steps) < 2 or steps[0] != 1 or any(b <= a for a, b in pairwise(steps)):
        raise ParameterError(f"scale_factors must start at 1 and rise, e.g. (1, 3, 5); got {steps}")


def _choose(option: str, value: str, table: dict[str, Any]) -> None:
    if value not in table:
        raise ParameterError(f"unknown {option} {value!r}; choose one of {', '.join(table)}")
