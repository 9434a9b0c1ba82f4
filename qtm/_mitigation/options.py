"""Options of mitigation methods: known names, checked values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from numbers import Real
from typing import Any, TypeVar

from qtm._arguments import (
    check_type,
    checked_flag,
    checked_int,
    checked_number,
    checked_options,
    checked_seed,
    refused,
    shown,
)
from qtm._errors import ParameterError

T = TypeVar("T")


def options_of(method: str, table: Mapping[str, type[T]]) -> dict[str, Any]:
    """Return the options of a method with their defaults; ``...`` marks a required option.

    Raises:
        ParameterError: The table has no such method.
    """
    if not isinstance(method, str) or method not in table:
        raise ParameterError(f"unknown mitigation method {shown(method)}; choose one of {', '.join(table)}")
    return {f.name: _default(f) for f in fields(table[method]) if f.init}  # type: ignore[arg-type]


def made(method: str, options: dict[str, Any], table: Mapping[str, type[T]]) -> T:
    """Return a method of the table with these options.

    Raises:
        ParameterError: The method, or one of its options, is unknown or unusable.
    """
    valid = options_of(method, table)
    unknown = [name for name in options if name not in valid]
    if unknown:
        raise ParameterError(
            f"method {method!r} has no option {', '.join(map(repr, unknown))}; its options are {', '.join(valid)}"
        )
    needed = [name for name, default in valid.items() if default is ... and name not in options]
    if needed:
        raise ParameterError(f"method {method!r} needs the option {', '.join(needed)}")
    checked_options(options, valid, _CHECKS)
    return table[method](**options)


def _default(option: Any) -> Any:
    return ... if option.default is MISSING else option.default


def _whole(value: Any, name: str) -> None:
    checked_int(value, name, "give a count", least=1)


def _number(value: Any, name: str) -> None:
    checked_number(value, name, "give a number")


def _text(value: Any, name: str) -> None:
    check_type(value, name, str, "a name", "MitigatedEstimator.options(method) shows the default")


def _scales(value: Any, name: str) -> None:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise refused(name, "a list of numbers", value, "start at 1 and rise, as (1, 3, 5)")
    for scale in value:
        _number(scale, name)


def _confusion(value: Any, name: str) -> None:
    check_type(value, name, Mapping, "a mapping of qubits to matrices", "give {0: [[0.98, 0.05], [0.02, 0.95]]}, say")


def _pec_noise(value: Any, name: str) -> None:
    for chance in value.values() if isinstance(value, Mapping) else [value] if isinstance(value, Real) else []:
        checked_number(chance, name, "give the probability of an error", least=0, most=1)


# Checks common to all methods; each method checks the rest.
_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    **dict.fromkeys(("degree", "fold_multiplier", "num_chunks", "order", "shots"), _whole),
    **dict.fromkeys(("num_training_circuits", "n_training_samples", "min_iterations", "num_samples"), _whole),
    **dict.fromkeys(("fraction_non_clifford", "sigma", "threshold", "asymptote"), _number),
    **dict.fromkeys(("factory", "fold", "fit", "rule"), _text),
    "scale_factors": _scales,
    "seed": checked_seed,
    "keep_raw": checked_flag,
    "confusion": _confusion,
    "noise": _pec_noise,
}
