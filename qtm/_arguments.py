"""Checks of arguments of public classes and functions.

All messages have one form: ``<argument> must be <what is expected>, not <what was given>; <what to do>``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import inf, isfinite
from typing import Any

import numpy as np

from qtm._errors import ParameterError

_SHOWN = 60  # characters of a value that a message quotes
_LARGEST_SEED = 2**63 - 1  # accepted by torch, NumPy, Aer and SQLite alike


def is_whole(value: Any) -> bool:
    """Whether this is a Python or NumPy integer, and not a bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_plain(value: Any) -> bool:
    """Whether ``repr`` shows the value; for other objects it shows an address, or fails."""
    if type(value) in (list, tuple, set):
        return all(map(_is_plain, value))
    if type(value) is dict:
        return all(map(_is_plain, value.items()))
    return value is None or isinstance(value, str | bytes | int | float | complex | np.generic)


def shown(value: Any) -> str:
    """A value as quoted in messages: the value itself if it is short, otherwise its type.

    Example:
        >>> shown("high"), shown([0] * 100), shown(dict)
        ("'high'", 'a list', 'the class dict')
    """
    if isinstance(value, type):
        return f"the class {value.__name__}"
    text = repr(value) if _is_plain(value) else ""
    return text if 0 < len(text) <= _SHOWN else f"a {type(value).__name__}"


def refused(argument: str, expected: str, value: Any, advice: str) -> ParameterError:
    """The error for an invalid value of an argument."""
    return ParameterError(f"{argument} must be {expected}, not {shown(value)}; {advice}")


def checked_int(value: Any, argument: str, advice: str, *, least: int = 0, most: float = inf) -> int:
    """Return an integer (of Python or NumPy) from ``least`` to ``most`` as an ``int``.

    Raises:
        ParameterError: the value is anything else, including a bool or a float.
    """
    if is_whole(value) and least <= value <= most:
        return int(value)
    bounds = f"of at least {least}" if most == inf else f"from {least} to {most}"
    raise refused(argument, f"an integer {bounds}", value, advice)


def checked_number(
    value: Any, argument: str, advice: str, *, least: float = -inf, above: float = -inf, most: float = inf
) -> float:
    """Return a finite real number, at least ``least`` and more than ``above``, as a ``float``.

    Raises:
        ParameterError: the value is anything else.
    """
    if (is_whole(value) or isinstance(value, float | np.floating)) and isfinite(value):
        number = float(value)
        if least <= number <= most and number > above:
            return number
    limits = ((least, f"of at least {least:g}"), (above, f"above {above:g}"), (most, f"of at most {most:g}"))
    bounds = " and ".join(text for limit, text in limits if isfinite(limit))
    raise refused(argument, f"a finite number {bounds}".rstrip(), value, advice)


def checked_precision(value: Any, argument: str) -> float:
    """Return a standard deviation: finite and not negative.

    Raises:
        ParameterError: the value is anything else.
    """
    return checked_number(value, argument, "give the standard deviation to reach, such as 0.01", least=0)


def checked_flag(value: Any, argument: str) -> bool:
    """Return a Python or NumPy bool as True or False; other truthy objects are refused.

    Raises:
        ParameterError: it is not a bool.
    """
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise refused(argument, "True or False", value, "give one of the two")


def checked_seed(value: Any, argument: str) -> int:
    """Return an integer that can seed every random generator.

    Raises:
        ParameterError: it is negative, too large, or not an integer.
    """
    advice = "give an integer to repeat a run, or None for different numbers each time"
    return checked_int(value, argument, advice, most=_LARGEST_SEED)


def check_generator_seed(value: Any, argument: str) -> None:
    """Refuse a seed that ``numpy.random.default_rng`` does not accept.

    Raises:
        ParameterError: the seed is invalid.
    """
    try:
        np.random.default_rng(value)
    except (TypeError, ValueError) as error:
        raise refused(
            argument,
            "an integer of at least 0, a numpy.random.Generator, or None",
            value,
            "give an integer to repeat a run, or None for different numbers each time",
        ) from error


def checked_choice(value: Any, argument: str, choices: Iterable[str]) -> str:
    """Return a name that is one of ``choices``.

    Raises:
        ParameterError: it is not one of them.
    """
    names = tuple(choices)
    if isinstance(value, str) and value in names:
        return value
    raise refused(argument, "one of " + ", ".join(map(repr, names)), value, "choose one of these")


def check_type(value: Any, argument: str, kinds: type | tuple[type, ...], expected: str, advice: str) -> None:
    """Refuse an object of another class.

    Raises:
        ParameterError: the object is not an instance of these classes.
    """
    if not isinstance(value, kinds):
        raise refused(argument, expected, value, advice)


def check_method(value: Any, argument: str, name: str, expected: str, advice: str) -> None:
    """Refuse an object that has no method of this name, or is a class instead of an object.

    Raises:
        ParameterError: it has no such method.
    """
    if isinstance(value, type) or not callable(getattr(value, name, None)):
        raise refused(argument, expected, value, advice)


def checked_options(
    options: Mapping[str, Any], defaults: Mapping[str, Any], checks: Mapping[str, Callable[[Any, str], Any]]
) -> None:
    """Run the checks of options; None is accepted where it is the default.

    Raises:
        ParameterError: a value is unusable.
    """
    for name in options.keys() & checks.keys():
        if options[name] is not None or defaults[name] is not None:
            checks[name](options[name], name)
