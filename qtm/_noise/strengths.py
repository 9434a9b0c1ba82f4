"""Channel strengths within their limits, as smooth functions of unconstrained numbers."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log

import torch
from torch import Tensor

from qtm._circuit.channels import CHANNELS
from qtm._errors import ParameterError

# Channels whose strengths are probabilities of exclusive events: they sum to at most 1.
EXCLUSIVE = ("pauli", "two_qubit_pauli", "reset")
RELAXATION = "thermal_relaxation"


def strengths_of(name: str, free: Sequence[str], raw: Tensor) -> Tensor:
    """The free strengths of a channel, (strengths,), from the same number of unconstrained numbers."""
    if name in EXCLUSIVE:
        return torch.softmax(torch.cat([raw.new_zeros(1), raw]), 0)[1:]
    found: dict[str, Tensor] = {}
    for strength, number in zip(free, raw, strict=True):
        limit = limit_of(name, strength)
        found[strength] = number.exp() if limit == inf else limit * torch.sigmoid(number)
    if name == RELAXATION:  # T2 is at most 2 T1
        found["time/T2"] = found["time/T2"] + found["time/T1"] / 2
    return torch.stack(list(found.values()))


def raw_of(name: str, free: Sequence[str], values: Sequence[float]) -> list[float]:
    """The unconstrained numbers that `strengths_of` maps to these values.

    Raises:
        ParameterError: a value is not strictly within its limits.
    """
    if name in EXCLUSIVE:
        rest = 1 - sum(values)
        if min(values) <= 0 or rest <= 0:
            raise ParameterError(
                f"the strengths of {name!r} are probabilities of exclusive errors: start them above 0, with a sum "
                f"below 1; got {list(values)}"
            )
        return [log(v / rest) for v in values]
    found = []
    given = dict(zip(free, values, strict=True))
    if name == RELAXATION:
        given["time/T2"] -= given["time/T1"] / 2
    for strength, value in given.items():
        limit = limit_of(name, strength)
        if not 0 < value < limit:
            raise ParameterError(f"start {strength} of {name!r} between 0 and {limit:g}, not at {value:g}")
        found.append(log(value) if limit == inf else log(value / (limit - value)))
    return found


def limit_of(name: str, strength: str) -> float:
    """The largest value of a strength."""
    row = CHANNELS[name]
    assert row.upper is not None
    return row.upper[row.strengths.index(strength)]
