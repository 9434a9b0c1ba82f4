"""Qiskit primitives on qtm's simulator: `FastEstimator` and `FastSampler`."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator
from concurrent.futures import Executor
from functools import partial
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.primitives import BaseEstimatorV2, DataBin, PrimitiveResult, PubResult
from qiskit.primitives.containers import EstimatorPubLike
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.quantum_info import SparseObservable

from qtm._arguments import checked_choice, checked_int, checked_precision
from qtm._circuit.observables import coerce_observables
from qtm._circuit.pauli_program import flattened
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation
from qtm._engines.registry import Method
from qtm._engines.shot_noise import SAMPLINGS
from qtm._engines.simulation import Simulation
from qtm._engines.simulation_cache import parameter_rows
from qtm._errors import ParameterError
from qtm._noise.aer_model import Noise
from qtm._primitives.fast_sampler import FastSampler
from qtm._primitives.finished_job import FinishedJob
from qtm._primitives.pubs import estimator_pubs
from qtm._primitives.simulating_primitive import Seed, SimulatingPrimitive

__all__ = ["FastEstimator", "FastSampler"]

# Evaluating unrequested (parameter set, observable) pairs is cheaper than building a second schedule up to this many
# products of an amplitude and a Pauli term (about 1 ms).
_CHEAP = 1 << 22


class FastEstimator(SimulatingPrimitive, BaseEstimatorV2):
    """Exact expectation values: a drop-in replacement for Qiskit's ``StatevectorEstimator``.

    If a precision is requested, normally distributed noise of that standard deviation is added; the values equal
    those of ``StatevectorEstimator`` with the same seed. A PUB is evaluated as one batch, in which each parameter
    set is evolved once for all its observables. Final measurements are ignored.

    Args:
        default_precision: standard deviation of the noise if neither the PUB nor ``run`` gives one; 0 is exact.
        shots: shots in each measurement basis, instead of ``default_precision``: values have the sampling noise of a
            device with this number of shots. A PUB or run with a precision p then takes 1/p**2 shots. Pauli strings
            that commute qubit by qubit share a basis.
        sampling: how shots become noise. "gaussian" (the default with ``shots``) adds normally distributed noise with
            the variance of the outcomes, independently for each observable. "multinomial" draws the outcomes, which
            observables that are measured together share. "fixed" adds noise whose standard deviation is the precision,
            as ``StatevectorEstimator`` does.
        seed: seed of the noise; an integer gives every PUB the same noise.
        dtype: ``"complex128"``, or ``"complex64"`` for twice the speed and about seven digits.
        num_threads: number of threads; 0 means all cores.
        executor: a ``concurrent.futures.Executor`` that evaluates the batch instead of threads.
        noise: an Aer ``NoiseModel`` or a backend: exact values under its noise, including readout errors.
        method: simulation method: "auto" for the cheapest exact method that supports the circuit, a name such as
            "statevector", a pair of name and options, or a `qtm.engines.SimulationMethod`.

    Raises:
        DtypeError: ``dtype`` is not supported.
        ParameterError: ``num_threads`` or ``executor`` is unusable.

    Example:
        >>> import numpy as np
        >>> from qiskit.circuit.library import real_amplitudes
        >>> circuit = real_amplitudes(2, reps=1)
        >>> job = FastEstimator().run([(circuit, [["ZZ"], ["XX"]], np.zeros((5, 4)))])
        >>> job.result()[0].data.evs.shape
        (2, 5)
    """

    def __init__(
        self,
        *,
        default_precision: float = 0.0,
        shots: int | None = None,
        sampling: str | None = None,
        seed: Seed = None,
        dtype: Any = "complex128",
        num_threads: int = 0,
        executor: Executor | None = None,
        noise: Noise = None,
        method: Method = "auto",
    ) -> None:
        self._default_precision = checked_precision(default_precision, "default_precision")
        if shots is not None:
            if default_precision:
                raise ParameterError("shots= and default_precision= are mutually exclusive; give one of them")
            advice = "give the outcomes to draw in each measurement basis"
            self._default_precision = 1 / math.sqrt(checked_int(shots, "shots", advice, least=1))
        self._sampling = "fixed" if shots is None else "gaussian"
        if sampling is not None:
            self._sampling = checked_choice(sampling, "sampling", SAMPLINGS)
        super().__init__(seed, dtype, num_threads, executor, noise, method)

    @property
    def default_precision(self) -> float:
        """Precision of PUBs that do not specify one."""
        return self._default_precision

    @property
    def sampling(self) -> str:
        """How shots become noise: "fixed", "gaussian" or "multinomial"."""
        return self._sampling

    def run(
        self, pubs: Iterable[EstimatorPubLike], *, precision: float | None = None
    ) -> FinishedJob[PrimitiveResult[PubResult]]:
        """Estimate expectation values of PUBs ``(circuit, observables[, parameter_values[, precision]])``.

        Each result has ``data.evs`` and ``data.stds``, in the broadcast shape of observables and parameters.

        Raises:
            ValueError: a PUB is malformed.
            CircuitError: (from the job's ``result``) a circuit cannot be simulated.
            ParameterError: (from the job's ``result``) a parameter value is NaN or infinite.
        """
        if precision is None:
            precision = self._default_precision
        return FinishedJob(self._run, estimator_pubs(pubs, precision))

    def _run(self, pubs: list[EstimatorPub]) -> PrimitiveResult[PubResult]:
        return PrimitiveResult([self._run_pub(pub) for pub in pubs], metadata={"version": 2})

    def _run_pub(self, pub: EstimatorPub) -> PubResult:
        if self._sampling != "fixed" and pub.precision:
            return self._sampled(pub, shots_for(pub.precision))
        evs = self._values(pub).reshape(pub.shape)
        if pub.precision != 0:
            evs = np.asarray(np.random.default_rng(self._seed).normal(evs, pub.precision))
        data = DataBin(evs=evs, stds=np.full(pub.shape, pub.precision, float), shape=pub.shape)
        return PubResult(data, metadata={"target_precision": pub.precision, "circuit_metadata": pub.circuit.metadata})

    def _sampled(self, pub: EstimatorPub, shots: int) -> PubResult:
        evs, stds = np.zeros(pub.size), np.zeros(pub.size)
        if pub.size:
            plan, rng = _Plan(pub), np.random.default_rng(self._seed)
            make = partial(_simulation, pub.circuit, plan.operators)
            simulation = self._simulations.find((flattened(pub.circuit), tuple(plan.keys)), make)
            arguments = simulation.arguments(parameter_rows(pub.parameter_values, pub.circuit))
            found = simulation.shots(self._sampling).estimates(*arguments, shots, rng)  # (sets, observables) each
            evs, stds = (part[plan.set, plan.column] for part in found)
        data = DataBin(evs=evs.reshape(pub.shape), stds=stds.reshape(pub.shape), shape=pub.shape)
        metadata = {"target_precision": pub.precision, "shots": shots, "circuit_metadata": pub.circuit.metadata}
        return PubResult(data, metadata=metadata)

    def _values(self, pub: EstimatorPub) -> np.ndarray:
        """Exact values (pairs,) of a PUB, flattened."""
        evs = np.zeros(pub.size)
        if not pub.size:
            return evs
        flat, values = flattened(pub.circuit), parameter_rows(pub.parameter_values, pub.circuit)
        plan = _Plan(pub)
        for sets, observables, pairs in plan.blocks():
            keys = tuple(plan.keys[m] for m in observables)
            operators = [plan.operators[m] for m in observables]
            make = partial(_simulation, pub.circuit, operators)
            table = self._simulations.find((flat, keys), make).values(values[sets])  # (sets, observables)
            rows, columns = (
                np.searchsorted(sets, plan.set[pairs]),
                np.searchsorted(observables, plan.column[pairs]),
            )
            evs[pairs] = table[rows, columns]
        return evs


def shots_for(precision: float) -> int:
    """Shots that an outcome of variance 1 needs for a standard deviation."""
    return math.ceil(1 / precision**2 - 1e-6)  # tolerate the rounding of the square


def _simulation(circuit: QuantumCircuit, operators: list[SparseObservable], options: Options) -> Simulation:
    output = Expectation(coerce_observables(operators, circuit.num_qubits))
    return Simulation(circuit, circuit.parameters, output, options)


def _content(operator: SparseObservable) -> Hashable:
    """A key that equal operators share; converting them to bit masks takes twenty times longer."""
    arrays = operator.coeffs, operator.bit_terms, operator.indices, operator.boundaries
    return tuple(np.asarray(array).tobytes() for array in arrays)


class _Plan:
    """The pairs (parameter set, distinct observable) that a PUB requests."""

    def __init__(self, pub: EstimatorPub) -> None:
        operators = pub.observables.sparse_observables_array()
        keys = [_content(operator) for operator in operators.ravel()]
        distinct = dict(zip(keys, operators.ravel(), strict=True))
        self.keys, self.operators = list(distinct), list(distinct.values())
        number = {key: m for m, key in enumerate(self.keys)}
        columns = np.array([number[key] for key in keys]).reshape(operators.shape)
        sets = np.arange(pub.parameter_values.size).reshape(pub.parameter_values.shape)
        self.num_sets = sets.size
        self.set = np.broadcast_to(sets, pub.shape).ravel()  # (pairs,)
        self.column = np.broadcast_to(columns, pub.shape).ravel()  # (pairs,)
        terms = max(operator.num_terms for operator in self.operators)
        self.cheap = (_CHEAP >> min(pub.circuit.num_qubits, 62)) // max(terms, 1)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Blocks of parameter sets and observables (both ascending) to evaluate together, with their pairs.

        Each set is in exactly one block, so that it is evolved once.
        """
        if self.num_sets * len(self.keys) <= max(self.cheap, 2 * len(self.set)):
            yield np.arange(self.num_sets), np.arange(len(self.keys)), np.arange(len(self.set))
            return
        blocks = _merged(self._by_observables(), self.cheap)
        block_of = np.zeros(self.num_sets, np.int64)
        for number, (sets, _) in enumerate(blocks):
            block_of[sets] = number
        pairs = np.argsort(block_of[self.set], kind="stable")
        ends = np.cumsum(np.bincount(block_of[self.set], minlength=len(blocks)))
        for (sets, columns), found in zip(blocks, np.split(pairs, ends[:-1]), strict=True):
            yield np.sort(sets), np.sort(list(columns)), found

    def _by_observables(self) -> dict[frozenset[int], list[int]]:
        """Parameter sets grouped by the observables requested for them."""
        wanted: list[set[int]] = [set() for _ in range(self.num_sets)]
        for number, column in zip(self.set.tolist(), self.column.tolist(), strict=True):
            wanted[number].add(column)
        groups: dict[frozenset[int], list[int]] = {}
        for number, columns in enumerate(wanted):
            groups.setdefault(frozenset(columns), []).append(number)
        return groups


def _merged(groups: dict[frozenset[int], list[int]], limit: int) -> list[tuple[list[int], frozenset[int]]]:
    """Merge neighbouring groups while they have at most ``limit`` pairs together."""
    blocks: list[tuple[list[int], frozenset[int]]] = []
    for columns, sets in groups.items():
        if blocks and (len(blocks[-1][0]) + len(sets)) * len(blocks[-1][1] | columns) <= limit:
            before = blocks.pop()
            blocks.append((before[0] + sets, before[1] | columns))
        else:
            blocks.append((sets, columns))
    return blocks
