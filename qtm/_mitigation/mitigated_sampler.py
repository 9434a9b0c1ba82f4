"""Readout error mitigation of a sampler."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from qiskit.primitives import BasePrimitiveJob, PrimitiveJob, PrimitiveResult, PubResult
from qiskit.primitives.base import BaseSamplerV2
from qiskit.primitives.containers.sampler_pub import SamplerPub, SamplerPubLike

from qtm._arguments import refused
from qtm._errors import ShapeError
from qtm._mitigation.options import made, options_of
from qtm._mitigation.sampled_readout import SampledReadout
from qtm._primitives.aer_circuits import circuit_for
from qtm._primitives.job_usage import Usage
from qtm._primitives.pubs import sampler_pubs
from qtm._primitives.sampler_runner import shots_of_sampler

SAMPLER_METHODS: dict[str, type[SampledReadout]] = {"rem": SampledReadout}


class MitigatedSampler(BaseSamplerV2):
    """A sampler whose results have readout-mitigated quasi-probabilities in addition to their shots.

    `SamplerQNN` and `QuantumKernel` take their probabilities from them. In plain Qiskit, a result of ``run`` has
    ``quasi_probabilities()``, ``standard_errors()`` and ``quasi_probability(outcome)``.

    Args:
        sampler: any ``BaseSamplerV2``. One ``run`` submits all its circuits to it in one ``run``.
        method: "rem", inverse confusion matrices of the measured qubits.
        **options: of the method: ``confusion``, 2 x 2 matrices ``p(read i | prepared j)`` by physical qubit, with rows
            i; None measures them with two circuits, once for each qubit. ``shots`` of those two circuits; None means
            those of the PUB. ``MitigatedSampler.options("rem")`` lists them with their defaults.

    Raises:
        ParameterError: the method, or one of its options, is unknown or unusable.

    Example:
        >>> from qiskit.circuit.library import real_amplitudes
        >>> ansatz = real_amplitudes(2, reps=1)
        >>> with hardware.connect("fake_manila", shots=2000, seed_simulator=1) as device:
        ...     qnn = SamplerQNN(
        ...         circuit=ansatz,
        ...         weight_params=ansatz.parameters,
        ...         sampler=MitigatedSampler(device.sampler),
        ...         pass_manager=device.pass_manager,
        ...     )
        ...     probabilities = qnn.forward(None, [0.0, 0.0, 0.0, 0.0])
        >>> bool(abs(probabilities[0, 0] - 1) < 0.02), device.usage.circuits
        (True, 3)
    """

    def __init__(self, sampler: BaseSamplerV2, method: str = "rem", **options: Any) -> None:
        if not isinstance(sampler, BaseSamplerV2):
            raise refused("sampler", "a BaseSamplerV2", sampler, "give an object such as qtm.FastSampler()")
        self.sampler, self.method_name = sampler, method
        self.method = made(method, options, SAMPLER_METHODS)
        self._forecasting = False
        if hasattr(sampler, "keep_state"):
            sampler.keep_state(f"sampler {method}", self.method)

    @staticmethod
    def options(method: str = "rem") -> dict[str, Any]:
        """Options of a method with their defaults."""
        return options_of(method, SAMPLER_METHODS)

    @property
    def default_shots(self) -> int:
        """Number of shots of PUBs that specify none: that of the sampler."""
        return shots_of_sampler(self.sampler)

    def state_dict(self) -> dict[str, Any]:
        """The state besides the options: readout factors of the qubits.

        A connection's checkpoint saves it for every mitigated sampler on the device.
        """
        return {"method": self.method_name, "state": self.method.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state returned by `state_dict`.

        Raises:
            ParameterError: the state is not that of a mitigated sampler with this method.
        """
        if not isinstance(state_dict, dict) or state_dict.get("method") != self.method_name:
            raise refused(
                "state_dict", "a dict returned by state_dict()", state_dict, "save it with state_dict() first"
            )
        self.method.load_state_dict(state_dict["state"])

    def estimate_usage(self, pubs: Iterable[SamplerPubLike], *, shots: int | None = None) -> Usage:
        """Forecast the usage of ``run``, including mitigation, without submitting anything."""
        with self.forecast():
            wanted, missing = self._wanted(sampler_pubs(pubs, shots))
            self.method.assume_run(missing)
        if hasattr(self.sampler, "estimate_usage"):
            return self.sampler.estimate_usage(wanted)
        executions = sum(pub.parameter_values.size * (pub.shots or self.default_shots) for pub in wanted)
        circuits = sum(pub.parameter_values.size for pub in wanted)
        return Usage(min(1, len(wanted)), len(wanted), circuits, executions)

    @contextmanager
    def forecast(self) -> Iterator[None]:
        """Context: successive `estimate_usage` calls forecast successive jobs; on exit the state is restored."""
        if self._forecasting:
            yield
            return
        state, self._forecasting = self.state_dict(), True
        try:
            yield
        finally:
            self._forecasting = False
            self.load_state_dict(state)

    def run(
        self, pubs: Iterable[SamplerPubLike], *, shots: int | None = None
    ) -> BasePrimitiveJob[PrimitiveResult[PubResult], Any]:
        """Return a job whose results are `MitigatedSamplerPubResult`.

        Raises:
            CircuitError: a circuit measures nothing, or has gates that depend on measured bits.
        """
        coerced = sampler_pubs(pubs, shots)
        wanted, missing = self._wanted(coerced)
        inner = self.sampler.run(wanted)
        job: PrimitiveJob[Any] = PrimitiveJob(self._finish, inner, coerced, missing)
        job._submit()
        return job

    def _wanted(self, pubs: Sequence[SamplerPub]) -> tuple[list[SamplerPub], list[list[int]]]:
        """PUBs to run, those that calibrate qubits at the end, and the qubits that each pair of these calibrates."""
        wanted = [_with_circuit(pub, circuit_for(self.sampler, pub.circuit)) for pub in pubs]
        calibrations, missing = self.method.calibration(pubs)
        return [*wanted, *calibrations], missing

    def _finish(self, inner: Any, pubs: list[SamplerPub], missing: list[list[int]]) -> PrimitiveResult[PubResult]:
        results = list(inner.result())
        count = len(pubs) + 2 * len(missing)
        if len(results) != count:
            raise ShapeError(f"the sampler returned {len(results)} results for {count} PUBs")
        for number, qubits in enumerate(missing):
            zeros, ones = results[len(pubs) + 2 * number : len(pubs) + 2 * number + 2]
            self.method.learn(qubits, zeros.data.readout, ones.data.readout)
        mitigated = [self.method.mitigated(pub, result) for pub, result in zip(pubs, results, strict=False)]
        return PrimitiveResult(mitigated, metadata={"version": 2})


def _with_circuit(pub: SamplerPub, circuit: Any) -> SamplerPub:
    return pub if circuit is pub.circuit else SamplerPub(circuit, pub.parameter_values, pub.shots, validate=False)
