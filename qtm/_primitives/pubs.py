"""Coercion of PUBs by Qiskit, with errors that name the PUB and the expected form."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Any

from qiskit.exceptions import QiskitError
from qiskit.primitives.containers.estimator_pub import EstimatorPub, EstimatorPubLike
from qiskit.primitives.containers.sampler_pub import SamplerPub, SamplerPubLike

from qtm._arguments import shown
from qtm._errors import CircuitError, DtypeError, ParameterError

_VALUES = "parameter values of shape (..., parameters of the circuit)"
_OF_ESTIMATOR = f"(circuit, observables, {_VALUES})"
_OF_SAMPLER = f"circuit, or (circuit, {_VALUES})"


def estimator_pubs(pubs: Iterable[EstimatorPubLike], precision: float | None) -> list[EstimatorPub]:
    """Coerce PUBs of an estimator; those without a precision get this one.

    Raises:
        CircuitError: a PUB is malformed.
        DtypeError: a PUB, or a part of one, is an object of a wrong kind.
        ParameterError: a precision is NaN or infinite.
    """
    read = _read(EstimatorPub, pubs, precision, _OF_ESTIMATOR)
    for pub in read:
        if pub.precision is not None and not isfinite(pub.precision):
            raise ParameterError(f"precision must be finite, not {pub.precision}; give the standard deviation to reach")
    return read


def sampler_pubs(pubs: Iterable[SamplerPubLike], shots: int | None) -> list[SamplerPub]:
    """Coerce PUBs of a sampler; those without shots get this number.

    Raises:
        CircuitError: a PUB is malformed.
        DtypeError: a PUB, or a part of one, is an object of a wrong kind.
    """
    return _read(SamplerPub, pubs, shots, _OF_SAMPLER)


def _read(kind: Any, pubs: Any, default: Any, expected: str) -> list[Any]:
    if not isinstance(pubs, Iterable):
        raise DtypeError(f"pubs must be a list of PUBs, not {shown(pubs)}; a PUB is {expected}")
    read = []
    for index, pub in enumerate(pubs):
        try:
            read.append(kind.coerce(pub, default))
        except (TypeError, AttributeError, ValueError, QiskitError) as error:
            # Code written for Qiskit's primitives expects a TypeError for some, a ValueError for most.
            named = DtypeError if isinstance(error, TypeError | AttributeError) else CircuitError
            raise named(f"PUB {index} cannot be read: {error}; expected {expected}") from error
    return read
