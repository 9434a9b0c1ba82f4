"""Gradient methods by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from qiskit.primitives import BaseEstimatorV2, BaseSamplerV2

from qtm._arguments import check_type, refused
from qtm._engines.outputs import Probabilities
from qtm._errors import ParameterError, UnsupportedError
from qtm._gradients.adjoint import adjoint_method
from qtm._gradients.estimator_methods import ParameterShiftMethod, SpsaMethod
from qtm._gradients.method import GradientMethod
from qtm._gradients.settings import MethodSettings
from qtm.primitives import FastEstimator

# Called with the settings and, as keywords, the options of the method; "reverse" takes the dtype instead.
# Public, as `qtm.gradients.GRADIENT_METHODS`: users add methods of their own.
GRADIENT_METHODS: dict[str, Callable[..., GradientMethod]] = {
    "reverse": adjoint_method,
    "param-shift": ParameterShiftMethod,
    "spsa": SpsaMethod,
}


def _read(gradient: Any) -> tuple[str, Mapping[str, Any]]:
    """Name and options of a gradient method."""
    if isinstance(gradient, str):
        return gradient, {}
    if isinstance(gradient, tuple) and len(gradient) == 2:
        name, options = gradient
        if isinstance(name, str) and isinstance(options, Mapping):
            return name, options
    raise refused(
        "gradient", "a name, or a pair of name and options", gradient, "give 'spsa' or ('spsa', {'repeats': 4}), say"
    )


def _resolved(name: str, settings: MethodSettings) -> str:
    """The method that "auto" selects: reverse on the exact simulator, parameter shift on any other estimator."""
    if name != "auto":
        return name
    return "reverse" if settings.primitive is None or isinstance(settings.primitive, FastEstimator) else "param-shift"


def make_method(settings: MethodSettings, dtype: str) -> GradientMethod:
    """The gradient method of the settings, computing in ``dtype``.

    Raises:
        ParameterError: the gradient method is unknown, or does not support the estimator.
    """
    estimator = settings.estimator
    if estimator is not None:
        advice = "give an object such as qtm.FastEstimator(), or None for qtm's own simulator"
        check_type(estimator, "estimator", BaseEstimatorV2, "None or a BaseEstimatorV2", advice)
    _check_sampler(settings)
    name, options = _read(settings.gradient)
    name = _resolved(name, settings)
    if name not in GRADIENT_METHODS:
        raise ParameterError(f"unknown gradient {name!r}; use one of {', '.join(GRADIENT_METHODS)}, auto")
    if name == "reverse" and settings.primitive is not None and not isinstance(settings.primitive, FastEstimator):
        raise ParameterError(
            f"gradient='reverse' needs the state vector, which {type(settings.primitive).__name__} does not expose; "
            "use gradient='param-shift' or 'spsa'"
        )
    _check_options(name, options)
    _check_noise(settings, name)
    _check_device(settings, name)
    if settings.output is not None and name != "reverse" and settings.sampler is None:
        raise UnsupportedError(
            f"gradient={name!r} differentiates expectation values, not {type(settings.output).__name__.lower()}; use "
            "gradient='reverse', with qtm's own simulator"
        )
    if name == "reverse":
        return adjoint_method(settings, dtype)
    if name not in settings.on_estimator:
        settings.on_estimator[name] = GRADIENT_METHODS[name](settings, **options)
    return settings.on_estimator[name]


def _check_sampler(settings: MethodSettings) -> None:
    if settings.sampler is None:
        return
    advice = "give an object such as qtm.FastSampler(), or None for qtm's own simulator"
    check_type(settings.sampler, "sampler", BaseSamplerV2, "None or a BaseSamplerV2", advice)
    if settings.estimator is not None:
        raise ParameterError("estimator= and sampler= are mutually exclusive: a sampler gives probabilities")
    if not isinstance(settings.output, Probabilities):
        raise ParameterError(
            "a sampler gives probabilities: give outputs='probabilities' with sampler=, or estimator= for expectation "
            "values"
        )


def _check_noise(settings: MethodSettings, gradient: str) -> None:
    if settings.noise is None:
        return
    if settings.primitive is not None:
        raise ParameterError(
            f"noise= applies to qtm's simulator, and {type(settings.primitive).__name__} has noise of its own: leave "
            "one of estimator= and noise= out"
        )
    if gradient != "reverse":
        raise ParameterError(
            f"with noise=, gradient='reverse' is exact, and {gradient!r} is not needed; to differentiate like a "
            "device, give estimator=qtm.noisy_estimator(noise) instead"
        )


def _check_device(settings: MethodSettings, gradient: str) -> None:
    if settings.device == "cpu":
        return
    estimator = settings.estimator
    if gradient != "reverse" or (isinstance(estimator, FastEstimator) and estimator.default_precision):
        what = f"gradient={gradient!r}" if gradient != "reverse" else "an estimator with a default_precision"
        raise UnsupportedError(
            f"{what} computes on the CPU, and the tensors are on {settings.device}; move the module and its inputs "
            "with .cpu(), or leave estimator= and gradient= out"
        )


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    known = [p.name for p in signature(GRADIENT_METHODS[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]
    if unknown := sorted(set(map(str, options)) - set(known)):
        raise ParameterError(
            f"gradient {name!r} has no option {', '.join(map(repr, unknown))}; "
            f"its options are {', '.join(known) or 'none'}"
        )
