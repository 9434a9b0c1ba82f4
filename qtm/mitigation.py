"""Error mitigation as an estimator that wraps an estimator, and as a sampler that wraps a sampler.

``MitigatedEstimator`` is a ``BaseEstimatorV2``: it works in training, in gradients and in plain Qiskit, and it
composes. Readout mitigation inside zero-noise extrapolation is
``MitigatedEstimator(MitigatedEstimator(estimator, "rem"), "zne")``. ``MitigatedSampler`` is a ``BaseSamplerV2`` with
readout mitigation.

To add a method of your own, write a class with the other names of this module and add it to `MITIGATION_METHODS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
from qiskit.primitives import DataBin, PrimitiveJob, PrimitiveResult, PubResult
from qiskit.primitives.base import BaseEstimatorV2
from qiskit.primitives.containers.estimator_pub import EstimatorPub, EstimatorPubLike

from qtm._arguments import refused
from qtm._errors import ParameterError, QtmError, ShapeError
from qtm._mitigation.cdr import CliffordData
from qtm._mitigation.ddd import Decoupling
from qtm._mitigation.folding import achieved_scale, fold_global
from qtm._mitigation.lre import LayerwiseRichardson
from qtm._mitigation.method import (
    Drawing,
    Memoryless,
    Mitigated,
    MitigationMethod,
    Steps,
    linear_combination,
    stacked,
    with_circuit,
)
from qtm._mitigation.mitigated_sampler import MitigatedSampler
from qtm._mitigation.options import made, options_of
from qtm._mitigation.pec import ErrorCancellation
from qtm._mitigation.real_time_cdr import RealTime
from qtm._mitigation.rem import Readout
from qtm._mitigation.zne import ZeroNoise
from qtm._primitives.aer_circuits import pubs_for
from qtm._primitives.estimator_runner import shot_noise
from qtm._primitives.job_usage import Usage, measured_circuits, simulated_usage
from qtm._primitives.pubs import estimator_pubs

__all__ = [
    "MITIGATION_METHODS",
    "Drawing",
    "Memoryless",
    "Mitigated",
    "MitigatedEstimator",
    "MitigatedSampler",
    "MitigationMethod",
    "achieved_scale",
    "fold_global",
    "linear_combination",
    "stacked",
    "with_circuit",
]

MITIGATION_METHODS: dict[str, type[MitigationMethod]] = {
    "zne": ZeroNoise,
    "lre": LayerwiseRichardson,
    "cdr": CliffordData,
    "real-time-cdr": RealTime,
    "pec": ErrorCancellation,
    "rem": Readout,
    "ddd": Decoupling,
}


class MitigatedEstimator(BaseEstimatorV2):
    """An estimator that returns error-mitigated expectation values.

    Args:
        estimator: any ``BaseEstimatorV2``. One ``run`` submits all its circuits to it in one ``run``
            ("real-time-cdr" needs a second one when its map has drifted).
        method: a name in ``MITIGATION_METHODS``: "zne", "lre", "cdr", "real-time-cdr", "pec", "rem" or "ddd".
        **options: options of the method; ``MitigatedEstimator.options(method)`` lists them with their defaults.

    Circuits are modified gate by gate in Qiskit: ISA circuits stay ISA circuits and keep their layout, and
    parametrised PUBs keep their broadcast shape. The metadata of each result holds ``evs_unmitigated``,
    ``mitigation`` (the method) and diagnostics of the method; standard errors are propagated.

    Raises:
        ParameterError: the method, or one of its options, is unknown or unusable.
        MissingPackage: the method needs mitiq, which is not installed.

    Example:
        >>> from qiskit import QuantumCircuit
        >>> from qtm.noise import local_pauli_noise, noisy_estimator
        >>> circuit = QuantumCircuit(1)
        >>> circuit.rx(0.4, 0), circuit.rx(0.6, 0)  # doctest: +ELLIPSIS
        (...)
        >>> noisy = noisy_estimator(local_pauli_noise(0.01))
        >>> mitigated = MitigatedEstimator(noisy, "cdr", seed=1)
        >>> result = mitigated.run([(circuit, "Z")]).result()[0]
        >>> float(result.metadata["evs_unmitigated"].round(4)), float(result.data.evs.round(4))
        (0.4979, 0.5403)
    """

    def __init__(self, estimator: BaseEstimatorV2, method: str, **options: Any) -> None:
        if not isinstance(estimator, BaseEstimatorV2):
            raise refused("estimator", "a BaseEstimatorV2", estimator, "give an object such as qtm.FastEstimator()")
        self.estimator = estimator
        self.method_name = method
        self.method = made(method, options, MITIGATION_METHODS)
        self._forecasting = False
        _follow(estimator, method, self.method)

    @staticmethod
    def options(method: str) -> dict[str, Any]:
        """Options of a method with their defaults; ``...`` marks a required option."""
        return options_of(method, MITIGATION_METHODS)

    def estimate_usage(self, pubs: Iterable[EstimatorPubLike], *, precision: float | None = None) -> Usage:
        """Forecast the usage of ``run``, including mitigation, without submitting anything.

        Equal to what ``run`` uses, unless a check of "real-time-cdr" finds that its map has drifted: its training
        circuits are then run again, which cannot be predicted.
        """
        coerced = estimator_pubs(pubs, precision)
        with self.forecast():
            wanted = [part for pub in coerced for part in next(self.method.steps(pub))]
            for pub in coerced:
                self.method.assume_run(pub)
            if hasattr(self.estimator, "estimate_usage"):
                return self.estimator.estimate_usage(wanted, precision=precision)
        noise = shot_noise(self.estimator)
        each = [simulated_usage(measured_circuits(pub), pub.precision or noise) for pub in wanted]
        return replace(sum(each, Usage()), jobs=min(1, len(each)))

    @contextmanager
    def forecast(self) -> Iterator[None]:
        """Context in which successive `estimate_usage` calls forecast successive jobs; on exit the state is restored.

        A job draws random numbers, and the first one may calibrate the readout or fit a map.

        Example:
            >>> from qiskit.circuit.library import real_amplitudes
            >>> estimator = MitigatedEstimator(FastEstimator(), "pec", noise=0.05, num_samples=20, seed=1)
            >>> pub = (real_amplitudes(2, reps=1), "ZZ", [0.1, 0.2, 0.3, 0.4])
            >>> with estimator.forecast():
            ...     forecasts = [estimator.estimate_usage([pub]).pubs for _ in range(2)]
            >>> jobs = [estimator.run([pub]).result()[0].metadata["num_circuits"] for _ in range(2)]
            >>> forecasts == jobs
            True
        """
        if self._forecasting:
            yield
            return
        state, self._forecasting = self.state_dict(), True
        inner = self.estimator.forecast() if isinstance(self.estimator, MitigatedEstimator) else nullcontext()
        try:
            with inner:
                yield
        finally:
            self._forecasting = False
            self.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        """The state besides the options: fitted maps, readout factors, positions in random sequences.

        A connection's checkpoint saves it for every mitigated estimator on the device. For any other estimator,
        save it yourself: ``checkpoint.save(step, mitigation=estimator)``.
        """
        inner = self.estimator.state_dict() if isinstance(self.estimator, MitigatedEstimator) else None
        return {"method": self.method_name, "state": self.method.state_dict(), "estimator": inner}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state returned by `state_dict`.

        Raises:
            ParameterError: the state belongs to another method.
        """
        if not isinstance(state_dict, Mapping) or not {"method", "state", "estimator"} <= state_dict.keys():
            raise refused(
                "state_dict", "a dict returned by state_dict()", state_dict, "save it with state_dict() first"
            )
        if state_dict["method"] != self.method_name:
            raise ParameterError(
                f"the state is of method {state_dict['method']!r}, and this estimator's is {self.method_name!r}; "
                "create the estimator with the arguments it had when the state was saved"
            )
        self.method.load_state_dict(state_dict["state"])
        if isinstance(self.estimator, MitigatedEstimator):
            self.estimator.load_state_dict(state_dict["estimator"])

    def run(
        self, pubs: Iterable[EstimatorPubLike], *, precision: float | None = None
    ) -> PrimitiveJob[PrimitiveResult[PubResult]]:
        """Return a job with the mitigated values; circuits are built before it is submitted."""
        coerced = estimator_pubs(pubs, precision)
        steps = [self.method.steps(pub) for pub in coerced]
        first = [next(step) for step in steps]
        job: PrimitiveJob[Any] = PrimitiveJob(self._run, coerced, steps, first, precision)
        job._submit()
        return job

    def _run(
        self,
        pubs: list[EstimatorPub],
        steps: list[Steps],
        wanted: list[list[EstimatorPub]],
        precision: float | None,
    ) -> PrimitiveResult[PubResult]:
        done: dict[int, Mitigated] = {}
        pending = dict(enumerate(wanted))
        while pending:
            results = self._run_inner([pub for plan in pending.values() for pub in plan], precision)
            further = {}
            for i, plan in pending.items():
                try:
                    further[i] = steps[i].send([next(results) for _ in plan])
                except StopIteration as stop:
                    done[i] = stop.value
            pending = further
        return PrimitiveResult([self._result(pub, done[i]) for i, pub in enumerate(pubs)], metadata={"version": 2})

    def _run_inner(self, pubs: list[EstimatorPub], precision: float | None) -> Iterator[PubResult]:
        results = self.estimator.run(pubs_for(self.estimator, pubs), precision=precision).result()
        if len(results) != len(pubs):
            raise ShapeError(f"the estimator returned {len(results)} results for {len(pubs)} PUBs")
        for pub, result in zip(pubs, results, strict=True):
            _check(pub, result)
        return iter(results)

    def _result(self, pub: EstimatorPub, mitigated: Mitigated) -> PubResult:
        evs, stds = (np.broadcast_to(x, pub.shape).copy() for x in (mitigated.evs, mitigated.stds))
        metadata = {
            **mitigated.metadata,
            "mitigation": self.method_name,
            "evs_unmitigated": np.broadcast_to(mitigated.raw, pub.shape).copy(),
            "target_precision": pub.precision,
            "circuit_metadata": pub.circuit.metadata,
        }
        return PubResult(DataBin(evs=evs, stds=stds, shape=pub.shape), metadata=metadata)


def _follow(estimator: Any, name: str, method: MitigationMethod) -> None:
    """Register the state of a method with the journal of the device, through any number of nested estimators."""
    while isinstance(estimator, MitigatedEstimator):
        estimator = estimator.estimator
    if hasattr(estimator, "keep_state"):
        estimator.keep_state(name, method)


def _check(pub: EstimatorPub, result: PubResult) -> None:
    evs = np.asarray(result.data.evs)
    if evs.shape != pub.shape:
        raise ShapeError(f"the estimator returned values of shape {evs.shape}; expected {pub.shape}")
    bad = int(evs.size - np.isfinite(evs).sum())
    if bad:
        raise QtmError(f"the estimator returned {bad} of {evs.size} values that are not finite; nothing was mitigated")
