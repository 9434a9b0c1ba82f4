"""Encoding parameters and named sets of trainable parameters of a circuit, in the user's order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import pi
from typing import Any

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from torch import Tensor, nn

from qtm._arguments import checked_number, checked_seed, refused, shown
from qtm._errors import ParameterError
from qtm._torch.inputs import as_numbers

# Name, defaults of its arguments, and the function that fills a tensor.
_INITIALISERS: dict[str, tuple[dict[str, float], Callable[..., Tensor]]] = {
    "constant": ({"val": 1.0}, nn.init.constant_),
    "uniform": ({"a": 0.0, "b": 2 * pi}, nn.init.uniform_),
    "normal": ({"mean": 0.0, "std": 1.0}, nn.init.normal_),
}


class ParameterSets:
    """Checked parameter lists: every circuit parameter is in exactly one of them.

    Raises:
        ParameterError: a parameter is unknown, missing or listed twice, or names do not fit the sets.
    """

    def __init__(
        self,
        circuit: QuantumCircuit,
        encoding: Sequence[Parameter] | None,
        variational: Any,
        names: str | Sequence[str] | None,
    ) -> None:
        self.encoding = _listed(encoding, "encoding_params")
        single = _is_single(variational)
        self.sets = tuple(_listed(s, "variational_params") for s in ([variational] if single else variational))
        self.names = _names(names, len(self.sets), single)
        self.order = self.encoding + tuple(p for s in self.sets for p in s)
        _check_parameters(circuit, self.order)


def _listed(parameters: Any, argument: str) -> tuple[Parameter, ...]:
    if parameters is None:
        return ()
    if isinstance(parameters, str) or not isinstance(parameters, Iterable):
        raise refused(argument, "a list of circuit parameters", parameters, "give circuit.parameters, or some of them")
    return tuple(parameters)


def _is_single(variational: Any) -> bool:
    if isinstance(variational, ParameterVector | str) or not isinstance(variational, Iterable):
        return True
    return all(isinstance(m, Parameter) for m in variational)


def _names(names: str | Sequence[str] | None, count: int, single: bool) -> tuple[str, ...]:
    if names is None:
        names = "variational"
    if isinstance(names, str):
        chosen = (names,) if single else tuple(f"{names}_{i}" for i in range(count))
    elif isinstance(names, Iterable) and not isinstance(names, Mapping):
        chosen = tuple(names)
    else:
        raise refused("variational_params_names", "a name, or a list of names", names, "name every parameter set")
    if len(chosen) != count or len(set(chosen)) != count:
        raise ParameterError(f"variational_params_names must be {count} different names, not {chosen}; name every set")
    for name in chosen:
        if not isinstance(name, str) or not name.isidentifier() or name.startswith("_") or name == "variational_":
            raise ParameterError(
                f"{shown(name)} cannot name a parameter set; use an identifier other than 'variational_', without a "
                "leading underscore"
            )
    return chosen


def _check_parameters(circuit: QuantumCircuit, order: Sequence[Parameter]) -> None:
    for parameter in order:
        if not isinstance(parameter, Parameter):
            raise ParameterError(f"{shown(parameter)} is not a circuit parameter; list objects of circuit.parameters")
    twice = sorted(p.name for p, count in Counter(order).items() if count > 1)
    if twice:
        raise ParameterError(f"listed more than once: {', '.join(twice)}; each parameter is encoding or in one set")
    known = set(circuit.parameters)
    unknown = sorted(p.name for p in order if p not in known)
    if unknown:
        raise ParameterError(f"not in the circuit: {', '.join(unknown)}; its parameters are {_short(circuit)}")
    missing = sorted(p.name for p in known - set(order))
    if missing:
        raise ParameterError(
            f"neither in encoding_params nor in variational_params: {', '.join(missing)}; bind them or list them"
        )


def _short(circuit: QuantumCircuit) -> str:
    names = [p.name for p in circuit.parameters]
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") if names else "none"


def initial_values(sets: ParameterSets, initial: Any, seed: int | None) -> list[Tensor]:
    """Initial values of every set; with a seed, the global random state is not changed.

    Raises:
        ParameterError: an initialiser is unknown, or explicit values do not fit their set.
    """
    if seed is not None:
        seed = checked_seed(seed, "seed_init")
    each = _per_set(initial, len(sets.sets))
    # A separate generator: seeding torch's takes a lock that may be locked in a forked child.
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return [_fill(len(s), i, name, generator) for s, i, name in zip(sets.sets, each, sets.names, strict=True)]


def _is_named(initial: Any) -> bool:
    if isinstance(initial, str):
        return True
    return isinstance(initial, tuple) and len(initial) == 2 and isinstance(initial[1], Mapping)


def _require_values(initial: Any) -> None:
    if isinstance(initial, Mapping) or not isinstance(initial, Iterable):
        known = ", ".join(map(repr, _INITIALISERS))
        raise ParameterError(
            f"a parameter set cannot start from {shown(initial)}; use one of {known}, (name, {{arguments}}), "
            "or a list of values"
        )


def _per_set(initial: Any, count: int) -> list[Any]:
    if _is_named(initial):
        return [initial] * count
    _require_values(initial)
    if isinstance(initial, Tensor | np.ndarray) or all(isinstance(v, int | float | np.number) for v in initial):
        return [initial] * count
    if len(initial) != count:
        raise ParameterError(f"{len(initial)} initialisers for {count} parameter sets; give one, or one for each set")
    return list(initial)


def _fill(size: int, initial: Any, name: str, generator: torch.Generator | None) -> Tensor:
    if not _is_named(initial):
        _require_values(initial)
        values = _explicit(initial, name)
        if values.shape != (size,):
            raise ParameterError(f"{tuple(values.shape)} initial values for set {name!r}; expected ({size},)")
        if not torch.isfinite(values).all():
            raise ParameterError(f"the initial values of set {name!r} must be finite; one of them is NaN or infinite")
        return values
    kind, arguments = (initial, {}) if isinstance(initial, str) else initial
    if not isinstance(kind, str) or kind not in _INITIALISERS:
        raise ParameterError(f"unknown initialiser {kind!r}; use one of {', '.join(_INITIALISERS)}, or give values")
    defaults, fill = _INITIALISERS[kind]
    if unknown := set(arguments) - set(defaults):
        wrong = ", ".join(sorted(map(str, unknown)))
        raise ParameterError(f"{kind!r} takes no {wrong}; it takes {', '.join(defaults)}")
    random = {} if kind == "constant" else {"generator": generator}
    return fill(torch.empty(size), **_checked_arguments(kind, {**defaults, **arguments}), **random)


def _explicit(initial: Any, name: str) -> Tensor:
    """The user's values, in the default dtype."""
    try:
        values = as_numbers(initial if isinstance(initial, Tensor) else np.asarray(initial, dtype=np.float64), name)
    except (TypeError, ValueError) as error:
        raise ParameterError(
            f"the initial values of set {name!r} must be a flat list of real numbers, not {shown(initial)} ({error}); "
            "give one number for each parameter"
        ) from error
    if values.is_complex():
        raise ParameterError(f"the initial values of set {name!r} must be real, not {values.dtype}; give their .real")
    return values.detach().to(torch.get_default_dtype()).clone()


def _checked_arguments(kind: str, arguments: Mapping[str, Any]) -> dict[str, float]:
    """Arguments of an initialiser as numbers, checked."""
    advice = f"give an angle in radians, as in ({kind!r}, {{{', '.join(f'{k!r}: 1.0' for k in arguments)}}})"
    found = {name: checked_number(value, f"{name} of {kind!r}", advice) for name, value in arguments.items()}
    if found.get("std", 0.0) < 0:
        raise ParameterError(f"std of 'normal' must be at least 0, not {found['std']}; give the width of the values")
    if kind == "uniform" and found["a"] > found["b"]:
        raise ParameterError(
            f"a of 'uniform' must be at most b, not {found['a']:g} with b = {found['b']:g}; exchange them, or give "
            "both (by default a is 0 and b is 2 pi)"
        )
    return found
