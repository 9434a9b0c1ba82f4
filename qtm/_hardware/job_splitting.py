"""PUBs for a device: checks against the backend, jobs within its limits, and their joined results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from qiskit.circuit import QuantumCircuit
from qiskit.primitives import DataBin, PrimitiveResult, PubResult
from qiskit.primitives.containers.bindings_array import BindingsArray
from qiskit.primitives.containers.estimator_pub import EstimatorPub, EstimatorPubLike
from qiskit.primitives.containers.sampler_pub import SamplerPub
from qiskit.providers import BackendV2

from qtm._errors import CircuitError, ParameterError
from qtm._primitives.job_usage import Usage
from qtm._primitives.pubs import estimator_pubs

_ALWAYS_ALLOWED = frozenset({"barrier", "store"})
Slices = tuple[slice, ...]


@dataclass(frozen=True)
class Limits:
    """Limits of one job; None is no limit.

    Attributes:
        circuits: Circuits of a job (`Usage.circuits`).
        executions: Circuit executions of a job. IBM's service takes 10 million
            (quantum.cloud.ibm.com/docs/guides/job-limits).
        depth: Depth of a circuit; deeper ones raise an error.
        two_qubit_gates: Two-qubit gates of a circuit; IBM's service takes 400000 (same page).
    """

    circuits: int | None = None
    executions: int | None = 10_000_000
    depth: int | None = None
    two_qubit_gates: int | None = 400_000

    def allow(self, usage: Usage) -> bool:
        """Return whether a job of this size is within the limits."""
        pairs = ((usage.circuits, self.circuits), (usage.executions, self.executions))
        return all(limit is None or used <= limit for used, limit in pairs)


def coerce_pubs(pubs: Iterable[EstimatorPubLike], precision: float | None) -> list[EstimatorPub]:
    """Coerce PUBs; an error names the PUB and what to do.

    Raises:
        CircuitError: A PUB's circuit, observables and parameter values do not fit together.
        DtypeError: A PUB, or a part of one, is an object of a wrong kind.
        ParameterError: A parameter value is NaN or infinite.
    """
    coerced = estimator_pubs(pubs, precision)
    for index, pub in enumerate(coerced):
        check_values(index, pub)
    return [without_global_phase(pub) for pub in coerced]


def without_global_phase(pub: Any) -> Any:
    """Return the PUB without its circuit's global phase, and without the parameters that occur only in the phase.

    The phase has no effect on measurements. Transpiling moves parameters into it, and the runtime, which drops the
    phase, then rejects their values.
    """
    if not getattr(pub.circuit.global_phase, "parameters", None):
        return pub
    circuit = pub.circuit.copy()
    circuit.global_phase = 0
    values = pub.parameter_values.as_array(pub.circuit.parameters)  # (..., parameters)
    used = set(circuit.parameters)
    columns = [k for k, parameter in enumerate(pub.circuit.parameters) if parameter in used]
    data = {tuple(circuit.parameters): values[..., columns]} if columns else {}
    return with_circuit(pub, circuit, BindingsArray(data, shape=values.shape[:-1]))


def with_circuit(pub: Any, circuit: QuantumCircuit, bindings: BindingsArray) -> Any:
    """Return the PUB of another circuit, with parameter values for it."""
    if isinstance(pub, SamplerPub):
        return SamplerPub(circuit, bindings, pub.shots, validate=False)
    return EstimatorPub(circuit, pub.observables, bindings, pub.precision, validate=False)


def check_values(index: int, pub: EstimatorPub | SamplerPub) -> None:
    """Reject values that are not finite angles.

    Raises:
        ParameterError: A parameter value is NaN or infinite, or a precision is not above 0.
    """
    values = pub.parameter_values.as_array(pub.circuit.parameters)  # (..., parameters)
    if not np.isfinite(values).all():
        names = [
            p.name for p, bad in zip(pub.circuit.parameters, ~np.isfinite(_rows(values)).all(0), strict=True) if bad
        ]
        raise ParameterError(
            f"PUB {index} has a NaN or infinite value for {', '.join(names[:5])}; expected finite angles in "
            "radians: look for a diverged optimizer or missing data"
        )
    if isinstance(pub, EstimatorPub) and pub.precision is not None and pub.precision <= 0:
        raise ParameterError(f"PUB {index} requests precision {pub.precision}; a device needs a precision above 0")


def _rows(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, values.shape[-1])  # (sets, parameters)


def check_circuits(pubs: Sequence[Any], backend: BackendV2, limits: Limits) -> None:
    """Reject circuits that the backend would reject after they have queued.

    Raises:
        CircuitError: A circuit is too wide, has an instruction that the backend does not know, or is
            deeper or larger than the limits; the message names the PUB and the way out.
    """
    checked: set[int] = set()
    for index, pub in enumerate(pubs):
        if id(pub.circuit) in checked:
            continue
        checked.add(id(pub.circuit))
        for problem in _CHECKS:
            if (message := problem(pub.circuit, backend, limits)) is not None:
                raise CircuitError(f"PUB {index}, circuit {pub.circuit.name!r}: {message}")


def _too_wide(circuit: QuantumCircuit, backend: BackendV2, limits: Limits) -> str | None:
    if backend.num_qubits is None or circuit.num_qubits <= backend.num_qubits:
        return None
    return (
        f"{circuit.num_qubits} qubits do not fit on {backend.name}, which has {backend.num_qubits}; "
        "use fewer qubits, or connect(...) to a larger device"
    )


def _not_isa(circuit: QuantumCircuit, backend: BackendV2, limits: Limits) -> str | None:
    bits = {bit: position for position, bit in enumerate(circuit.qubits)}
    target = backend.target  # Aer's simulator creates a new one at each access
    for item in circuit.data:
        qubits, name = tuple(bits[bit] for bit in item.qubits), item.operation.name
        if name not in _ALWAYS_ALLOWED and not target.instruction_supported(name, qubits):
            return (
                f"{backend.name} has no instruction {name!r} on qubits {qubits}; transpile the circuit with "
                "connection.pass_manager.run(circuit) and lay the observables out with "
                "observable.apply_layout(circuit.layout)"
            )
    return None


def _too_deep(circuit: QuantumCircuit, backend: BackendV2, limits: Limits) -> str | None:
    if limits.depth is None or (depth := circuit.depth()) <= limits.depth:
        return None
    return (
        f"depth {depth} is over max_depth={limits.depth}; use fewer layers, a higher optimization_level or "
        "a larger max_depth"
    )


def _too_large(circuit: QuantumCircuit, backend: BackendV2, limits: Limits) -> str | None:
    gates = sum(item.operation.num_qubits == 2 for item in circuit.data)
    if limits.two_qubit_gates is None or gates <= limits.two_qubit_gates:
        return None
    return f"{gates} two-qubit gates, and the service takes {limits.two_qubit_gates}; use fewer layers"


_CHECKS: tuple[Callable[[QuantumCircuit, BackendV2, Limits], str | None], ...] = (
    _too_wide, _not_isa, _too_deep, _too_large,
)  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """A part of a PUB: the index of the PUB and the slices of its broadcast shape."""

    index: int
    slices: Slices
    pub: Any  # an EstimatorPub or a SamplerPub


Cost = Callable[[list[Any]], Usage]


def split(pubs: Sequence[Any], limits: Limits, cost: Cost) -> list[list[Piece]]:
    """Split PUBs into as few jobs as the limits allow.

    A PUB is cut only along its broadcast shape, parameter sets first, so that observables stay together.
    PUBs with different precisions, or shots, go into different jobs, as the runtime requires.

    Args:
        pubs: The PUBs, checked.
        limits: The limits of one job.
        cost: The usage of a list of PUBs as one job.

    Raises:
        CircuitError: One parameter set with one observable exceeds the limits.
    """
    jobs: list[list[Piece]] = []
    for asked in dict.fromkeys(map(_asked, pubs)):
        chosen = [_whole(i, pub) for i, pub in enumerate(pubs) if _asked(pub) == asked and pub.size]
        jobs += _fill_jobs(chosen, limits, cost)
    return jobs


def _asked(pub: EstimatorPub | SamplerPub) -> float | None:
    """The precision, or the shots, which all PUBs of a job must share."""
    return pub.precision if isinstance(pub, EstimatorPub) else pub.shots


def _whole(index: int, pub: Any) -> Piece:
    return Piece(index, tuple(slice(0, length) for length in pub.shape), pub)


def _fill_jobs(pieces: list[Piece], limits: Limits, cost: Cost) -> list[list[Piece]]:
    if pieces and limits.allow(cost([piece.pub for piece in pieces])):
        return [pieces]  # the usual case; adding piece by piece takes time quadratic in their number
    jobs: list[list[Piece]] = []
    job: list[Piece] = []
    todo = pieces[::-1]
    while todo:
        piece = todo.pop()
        fits, rest = _largest_that_fits(job, piece, limits, cost)
        if fits is None and not job:
            fits, rest = None, _one_row_and_the_rest(piece, limits, cost([piece.pub]))
        job += [fits] if fits is not None else []
        todo += rest[::-1]
        if rest and job:
            jobs, job = [*jobs, job], []
    return [*jobs, job] if job else jobs


def _largest_that_fits(job: list[Piece], piece: Piece, limits: Limits, cost: Cost) -> tuple[Piece | None, list[Piece]]:
    """Return the longest prefix of ``piece`` that fits in the job, and the remainder."""

    def fits(part: Piece) -> bool:
        return limits.allow(cost([p.pub for p in job] + [part.pub]))

    if fits(piece):
        return piece, []
    axis = _first_axis(piece.slices)
    low, high = 0, 0 if axis is None else piece.slices[axis].stop - piece.slices[axis].start
    while high - low > 1:  # `low` rows fit, `high` rows do not
        middle = (low + high) // 2
        low, high = (middle, high) if fits(_cut(piece, middle)[0]) else (low, middle)
    if low == 0:
        return None, [piece]
    head, tail = _cut(piece, low)
    return head, [tail]


def _one_row_and_the_rest(piece: Piece, limits: Limits, usage: Usage) -> list[Piece]:
    if _first_axis(piece.slices) is None:
        raise CircuitError(
            f"PUB {piece.index}: one parameter set with one observable needs {usage.circuits} circuits and "
            f"{usage.executions} executions; a job takes {limits.circuits} and {limits.executions}. "
            "Ask for fewer shots, or group the observable's terms into smaller observables"
        )
    row, rest = _cut(piece, 1)
    return [row, rest]


def _first_axis(slices: Slices) -> int | None:
    return next((axis for axis, s in enumerate(slices) if s.stop - s.start > 1), None)


def _cut(piece: Piece, rows: int) -> tuple[Piece, Piece]:
    axis = _first_axis(piece.slices)
    assert axis is not None
    here, length = piece.slices[axis], piece.slices[axis].stop - piece.slices[axis].start
    return tuple(  # type: ignore[return-value]
        Piece(
            piece.index,
            (*piece.slices[:axis], slice(here.start + a, here.start + b), *piece.slices[axis + 1 :]),
            _sliced(piece.pub, axis, slice(a, b)),
        )
        for a, b in ((0, rows), (rows, length))
    )


def _sliced(pub: Any, axis: int, rows: slice) -> EstimatorPub:
    """Cut along one axis of the broadcast shape; an array that is broadcast along it stays whole."""

    def cut(array: Any) -> Any:
        own = axis - (len(pub.shape) - array.ndim)
        if own < 0 or array.shape[own] == 1:
            return array
        return array[(slice(None),) * own + (rows,)]

    if isinstance(pub, SamplerPub):
        return SamplerPub(pub.circuit, cut(pub.parameter_values), pub.shots)
    return EstimatorPub(pub.circuit, cut(pub.observables), cut(pub.parameter_values), pub.precision)


def join(pubs: Sequence[EstimatorPub], jobs: Iterable[tuple[list[Piece], PrimitiveResult]]) -> PrimitiveResult:
    """Put the results of the jobs back into the order and the shapes of the PUBs."""
    data: list[dict[str, np.ndarray]] = [{} for _ in pubs]
    metadata: list[dict[str, Any]] = [{} for _ in pubs]
    for pieces, result in jobs:
        for piece, part in zip(pieces, result, strict=True):
            metadata[piece.index] = metadata[piece.index] or part.metadata
            for name, values in part.data.items():
                _place(data[piece.index], name, values, pubs[piece.index].shape, piece.slices)
    for pub, columns in zip(pubs, data, strict=True):
        if not columns:  # a PUB without parameter sets was in no job
            columns |= {name: np.empty(pub.shape) for name in ("evs", "stds")}
    bins = [DataBin(shape=pub.shape, **columns) for pub, columns in zip(pubs, data, strict=True)]
    results = [PubResult(values, notes) for values, notes in zip(bins, metadata, strict=True)]
    return PrimitiveResult(results, metadata={"version": 2})


def _place(into: dict[str, np.ndarray], name: str, values: np.ndarray, shape: tuple[int, ...], at: Slices) -> None:
    if name not in into:
        into[name] = np.empty(shape + values.shape[len(shape) :], dtype=values.dtype)
    into[name][at] = values
