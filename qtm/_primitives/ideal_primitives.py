"""Recognition of ideal simulators, whose values equal those of qtm's own simulator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Shots of a sampler if the user specified none; any other number was chosen.
_DEFAULT_SHOTS = 1024
# Gradients that are exact if their primitive is.
_EXACT_GRADIENTS = ("ParamShift", "LinComb", "Reverse", "FastReverse")


def _is_quiet(estimator: Any) -> bool:
    return not estimator.default_precision


def _has_default_shots(sampler: Any) -> bool:
    return sampler.default_shots == _DEFAULT_SHOTS


def _is_in_exact_mode(primitive: Any) -> bool:
    return bool(primitive._exact_mode)


# Class name, and a test that the instance has neither noise nor a number of shots. By name, because the packages may
# not have been imported.
_IDEAL: dict[tuple[str, str], Callable[[Any], bool]] = {
    ("qtm", "FastEstimator"): _is_quiet,
    ("qtm", "FastSampler"): _has_default_shots,
    ("qiskit", "StatevectorEstimator"): _is_quiet,
    ("qiskit", "StatevectorSampler"): _has_default_shots,
    ("qiskit_machine_learning", "QMLEstimator"): _is_in_exact_mode,
    ("qiskit_machine_learning", "QMLSampler"): _is_in_exact_mode,
}
# It has no noise, whatever precision a network requests.
_IGNORES_PRECISION = "QMLEstimator"


def is_ideal(primitive: Any) -> bool:
    """Whether a primitive is an ideal simulator, possibly with shots or sampling noise."""
    kind = type(primitive)
    return (kind.__module__.split(".")[0], kind.__name__) in _IDEAL and noise_of(primitive) is None


def noise_of(primitive: Any) -> Any:
    """The noise of one of qtm's primitives; None if it has none."""
    options = getattr(primitive, "options", None) if type(primitive).__module__.split(".")[0] == "qtm" else None
    return getattr(options, "noise", None)


def is_exact_sampler(sampler: Any) -> bool:
    """Whether exact probabilities can replace those of a sampler."""
    kind = type(sampler)
    test = _IDEAL.get((kind.__module__.split(".")[0], kind.__name__))
    return test is not None and test(sampler)


def is_exact_estimator(estimator: Any, default_precision: bool) -> bool:
    """Whether exact values can replace those of an estimator, at the default precision of networks or 0."""
    return is_exact_sampler(estimator) and (default_precision or type(estimator).__name__ == _IGNORES_PRECISION)


def is_exact_gradient(gradient: Any) -> bool:
    """Whether a gradient (None: the default one) is the exact derivative, on a primitive that is ideal."""
    if gradient is None:
        return True
    primitive = getattr(gradient, "_estimator", None) or getattr(gradient, "_sampler", None)
    named = type(gradient).__name__.startswith(_EXACT_GRADIENTS)
    return named and (primitive is None or is_exact_sampler(primitive))
