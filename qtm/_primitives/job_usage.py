"""Cost of running PUBs: jobs, PUBs, circuits, executions, seconds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.quantum_info import PauliList

# A projector is measured in the basis of the Pauli it projects with.
_MEASURED_AS = str.maketrans("01+-rl", "ZZXXYY")


@dataclass(frozen=True)
class Usage:
    """Usage, or forecast usage, of an execution service.

    Attributes:
        jobs: Jobs submitted.
        pubs: PUBs in those jobs (a PUB split over two jobs counts in both).
        circuits: Bound circuits, each in one measurement basis: for every PUB the sum over its parameter
            sets of the groups of qubit-wise commuting observable terms measured with it, times the noise
            factors of zero-noise extrapolation.
        executions: Circuit executions as IBM counts them for its job limit: every circuit times its shots,
            with the randomizations of twirling and the circuits of readout calibration included.
        seconds: Seconds of quantum time: as reported by the service for finished jobs, else an estimate.

    Example:
        >>> str(Usage(jobs=2, pubs=2, circuits=48, executions=49152, seconds=16.3))
        '2 jobs, 2 PUBs, 48 circuits, 49152 executions, 16.3 s'
    """

    jobs: int = 0
    pubs: int = 0
    circuits: int = 0
    executions: int = 0
    seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        if not isinstance(other, Usage):
            return NotImplemented
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __mul__(self, times: int) -> Usage:
        if not isinstance(times, int):
            return NotImplemented
        return Usage(*(getattr(self, f.name) * times for f in fields(self)))

    def __str__(self) -> str:
        names = {"jobs": "job", "pubs": "PUB", "circuits": "circuit", "executions": "execution"}
        counts = ((getattr(self, name), word) for name, word in names.items())
        return ", ".join(f"{n} {word}{'s' * (n != 1)}" for n, word in counts) + f", {self.seconds:.1f} s"


def precision_of(shots: int) -> float:
    """Return the precision for which Qiskit's primitives take this number of shots.

    They round ``1 / precision**2`` up; for 1000 and 4000, say, rounding errors make that one shot too many.
    """
    precision = float(shots**-0.5)
    return precision if math.ceil(1 / precision**2) == shots else precision * (1 + 1e-12)


def simulated_usage(circuits: int, noise: float) -> Usage:
    """Return the usage of one PUB on an estimator that reports none.

    Args:
        circuits: Bound circuits, each in one basis.
        noise: Target standard deviation; 0 counts one execution of each circuit.
    """
    shots = math.ceil(1 / noise**2 - 1e-6) if noise else 1  # the square is off by rounding
    return Usage(jobs=1, pubs=1, circuits=circuits, executions=circuits * shots)


def measured_circuits(pub: EstimatorPub) -> int:
    """Count the circuits that a PUB needs: its parameter sets, each in every basis it is measured in."""
    observables = pub.observables.ravel().tolist()
    groups: dict[frozenset[int], int] = {}
    total = 0
    for chosen in _observables_of_each_set(pub).values():
        key = frozenset(chosen)
        if key not in groups:
            groups[key] = _bases(term for index in key for term in observables[index])
        total += groups[key]
    return total


def _observables_of_each_set(pub: EstimatorPub) -> dict[int, set[int]]:
    """Index of each parameter set -> indices of the observables that broadcasting pairs it with."""
    sets = np.arange(pub.parameter_values.size).reshape(pub.parameter_values.shape)
    observables = np.arange(pub.observables.size).reshape(pub.observables.shape)
    paired: dict[int, set[int]] = defaultdict(set)
    for left, right in zip(*(grid.ravel().tolist() for grid in np.broadcast_arrays(sets, observables)), strict=True):
        paired[left].add(right)
    return paired


def _bases(terms: Iterable[str]) -> int:
    distinct = sorted({term.translate(_MEASURED_AS) for term in terms})
    return len(PauliList(distinct).group_commuting(qubit_wise=True)) if distinct else 0
