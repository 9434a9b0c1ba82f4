"""Noisy expectation values: Aer's simulator with a noise model, as an ``EstimatorV2``.

``noisy_estimator`` differs from ``qiskit_aer.primitives.EstimatorV2`` where results would be misleading:

* values include the readout errors of the noise model (Aer's estimator saves expectation values without
  measuring, and so without readout errors);
* shots are ``+1`` / ``-1`` outcomes drawn with the correct probability (Aer's estimator adds Gaussian noise of
  a fixed width);
* a gate that the noise model lacks is translated, or an error is raised; it never runs without noise.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qiskit import transpile
from qiskit.circuit import CircuitInstruction, Gate, QuantumCircuit
from qiskit.circuit.library import get_standard_gate_name_mapping
from qiskit.exceptions import QiskitError
from qiskit.primitives import DataBin, PrimitiveJob, PrimitiveResult, PubResult
from qiskit.primitives.base import BaseEstimatorV2
from qiskit.primitives.containers.estimator_pub import EstimatorPub, EstimatorPubLike
from qiskit.providers import BackendV2
from qiskit.quantum_info import Pauli

from qtm._arguments import check_generator_seed, checked_choice, checked_int, checked_number, refused
from qtm._errors import CircuitError, ObservableError, OutOfMemory, ParameterError, require
from qtm._primitives.aer_circuits import binding_backend, closed_name
from qtm._primitives.pubs import estimator_pubs

if TYPE_CHECKING:
    from qiskit_aer import AerSimulator
    from qiskit_aer.noise import NoiseModel

Floats = NDArray[np.float64]

_FREE_OF_NOISE = {"barrier", "delay"}  # always allowed: no effect unless the model gives them an error
_METHODS = ("auto", "density_matrix", "statevector", "matrix_product_state", "stabilizer")
_MAX_READOUT_TERMS = 2**14
_CHANCES = "give one number, or numbers by letter as {'X': 0.01, 'Z': 0.02}"
# The letters of Qiskit's observables that are not Paulis, as {Pauli: coefficient}.
_PROJECTORS = {
    "0": {"I": 0.5, "Z": 0.5},
    "1": {"I": 0.5, "Z": -0.5},
    "+": {"I": 0.5, "X": 0.5},
    "-": {"I": 0.5, "X": -0.5},
    "r": {"I": 0.5, "Y": 0.5},
    "l": {"I": 0.5, "Y": -0.5},
}


def noisy_estimator(
    noise: NoiseModel | BackendV2, shots: int | None = None, method: str = "auto", *, seed: int | None = None
) -> NoisyEstimator:
    """Return an ``EstimatorV2`` that simulates a noisy device with Aer.

    Args:
        noise: an Aer ``NoiseModel``; gates outside its basis are translated to it (without optimisation).
            Or a backend, whose noise model is used and which requires ISA circuits.
        shots: number of outcomes drawn for *each Pauli term* of each observable; None gives exact values.
            ``run(..., precision=p)`` draws ``1 / p**2`` shots instead; ``precision=0`` is exact.
        method: ``"density_matrix"`` is exact; ``"statevector"``, ``"matrix_product_state"`` and
            ``"stabilizer"`` sample one trajectory per shot and need ``shots``. ``"auto"`` uses the density
            matrix, or trajectories if ``shots`` is given and they are cheaper.
        seed: seed of all random numbers; makes a sequence of calls reproducible.

    Readout errors of single qubits are included: a measured Pauli factor ``P`` is read as ``a P + b`` with
    ``a = 1 - p(1|0) - p(0|1)`` and ``b = p(0|1) - p(1|0)``.

    Raises:
        MissingPackage: qiskit-aer is not installed.
        ParameterError: ``shots`` or ``method`` is unusable.

    Example:
        >>> from qiskit import QuantumCircuit
        >>> circuit = QuantumCircuit(1)
        >>> _ = circuit.x(0)
        >>> estimator = noisy_estimator(local_pauli_noise(0.01))
        >>> float(estimator.run([(circuit, "Z")]).result()[0].data.evs.round(6))
        -0.96
    """
    return NoisyEstimator(noise, shots, method, seed)


def local_pauli_noise(probabilities: float | Mapping[str, float], *, gates: Sequence[str] | None = None) -> NoiseModel:
    """Return a noise model that applies X, Y or Z at random to each qubit of each gate.

    Args:
        probabilities: probabilities of X, Y and Z, e.g. ``{"X": 0.01, "Z": 0.02}``; a single number is used for
            all three (the ``q`` of the Qiboml paper, section II.E.1).
        gates: names of the noisy gates; None means every standard gate of one or two qubits.

    Raises:
        ParameterError: a probability is negative, they sum to more than 1, or a key is not X, Y or Z.

    Example:
        >>> local_pauli_noise({"X": 0.01, "Z": 0.02}, gates=["ry"]).noise_instructions
        ['ry']
    """
    errors = require("qiskit_aer.noise", extra="aer")
    chances = dict(probabilities) if isinstance(probabilities, Mapping) else dict.fromkeys("XYZ", probabilities)
    chances = {letter: checked_number(p, "probabilities", _CHANCES) for letter, p in chances.items()}
    if set(chances) - set("XYZ") or min(chances.values(), default=0) < 0 or sum(chances.values()) > 1:
        raise ParameterError(f"probabilities must be of X, Y and Z, not negative, and sum to at most 1; got {chances}")
    error = errors.pauli_error([*chances.items(), ("I", 1 - sum(chances.values()))])
    return _on_gates(error, error.tensor(error), gates)


def depolarizing_noise(
    one_qubit: float, two_qubit: float | None = None, *, gates: Sequence[str] | None = None
) -> NoiseModel:
    """Return a noise model with ``rho -> (1 - p) rho + p I / 2^k`` after each gate on k qubits.

    Args:
        one_qubit: p of one-qubit gates.
        two_qubit: p of two-qubit gates; None means the same p.
        gates: names of the noisy gates; None means every standard gate of one or two qubits.

    Raises:
        ParameterError: p is outside of [0, 1].

    Example:
        >>> depolarizing_noise(0.001, 0.01).noise_qubits
        []
    """
    errors = require("qiskit_aer.noise", extra="aer")
    two_qubit = one_qubit if two_qubit is None else two_qubit
    advice = "give the probability p of the channel"
    one_qubit = checked_number(one_qubit, "one_qubit", advice, least=0, most=1)
    two_qubit = checked_number(two_qubit, "two_qubit", advice, least=0, most=1)
    return _on_gates(errors.depolarizing_error(one_qubit, 1), errors.depolarizing_error(two_qubit, 2), gates)


class NoisyEstimator(BaseEstimatorV2):
    """An ``EstimatorV2`` on Aer's noisy simulators; create it with ``noisy_estimator``."""

    def __init__(self, noise: NoiseModel | BackendV2, shots: int | None, method: str, seed: int | None) -> None:
        aer = require("qiskit_aer", extra="aer")
        _check_options(shots, method)
        check_generator_seed(seed, "seed")
        self.backend = noise if isinstance(noise, BackendV2) else None
        self.noise_model = aer.noise.NoiseModel.from_backend(noise) if self.backend else noise
        if not isinstance(self.noise_model, aer.noise.NoiseModel):
            raise refused("noise", "an Aer NoiseModel or a BackendV2", noise, "give qtm.local_pauli_noise(0.01), say")
        self.shots, self.method = shots, method
        self._rng = np.random.default_rng(seed)
        self._readout = _readout_factors(self.noise_model)
        self._simulators: dict[str, AerSimulator] = {}

    def run(
        self, pubs: Iterable[EstimatorPubLike], *, precision: float | None = None
    ) -> PrimitiveJob[PrimitiveResult[PubResult]]:
        """Return a job that runs all PUBs in one call to Aer, for any number of circuits and parameter values.

        Raises:
            CircuitError: a circuit cannot run on the backend, or cannot be translated to the noise model's gates.
            OutOfMemory: the density matrix of a circuit would not fit.
        """
        if precision is None:
            precision = 0.0 if self.shots is None else 1 / math.sqrt(self.shots)
        coerced = estimator_pubs(pubs, precision)
        tasks = [_Task(self, pub) for pub in coerced]
        seeds = self._rng.integers(2**31, size=2)
        job: PrimitiveJob[Any] = PrimitiveJob(self._run, tasks, int(seeds[0]), int(seeds[1]))
        job._submit()
        return job

    def _run(self, tasks: list[_Task], aer_seed: int, draw_seed: int) -> PrimitiveResult[PubResult]:
        rng = np.random.default_rng(draw_seed)
        saved: dict[int, dict[str, Floats]] = {}
        for (method, shots), group in _grouped(tasks).items():
            saved.update(self._simulate(group, method, shots, aer_seed))
        return PrimitiveResult([task.result(saved[id(task)], rng) for task in tasks], metadata={"version": 2})

    def _simulate(
        self, tasks: list[_Task], method: str, shots: int, seed: int
    ) -> Iterator[tuple[int, dict[str, Floats]]]:
        result = (
            self._simulator(method)
            .run(
                [task.circuit for task in tasks],
                parameter_binds=[task.bindings for task in tasks],
                shots=shots,
                seed_simulator=seed,
            )
            .result()
        )
        if not result.success:
            raise CircuitError(f"Aer could not simulate these circuits: {result.status}")
        start = 0
        for task in tasks:
            rows = [result.data(start + i) for i in range(task.points)]
            start += task.points
            yield id(task), {label: np.array([row[label] for row in rows]) for label in task.saved}

    def _simulator(self, method: str) -> AerSimulator:
        if method not in self._simulators:
            aer = require("qiskit_aer", extra="aer")
            # Points run side by side (0: as many as there are threads), not each gate of one point on all threads.
            simulator = aer.AerSimulator(method=method, noise_model=self.noise_model, max_parallel_experiments=0)
            self._simulators[method] = binding_backend(simulator)
        return self._simulators[method]

    def _native(self, circuit: QuantumCircuit, method: str) -> QuantumCircuit:
        """The circuit in gates that both the noise model and Aer know."""
        if self.backend is not None:
            _check_isa(circuit, self.backend)
            return circuit
        known = set(self._simulator(method).target.operation_names)
        basis = sorted(set(self.noise_model.basis_gates) & known)
        if all(item.name in {*basis, *_FREE_OF_NOISE} or self._has_errors(item) for item in circuit.data):
            return circuit
        try:
            return _translated(circuit, basis, lambda item: item.name not in basis and self._has_errors(item))
        except QiskitError as error:
            raise CircuitError(
                f"the circuit cannot be written in the noise model's gates {basis} ({error}); "
                "give those of its gates an error, or build the model with more basis_gates"
            ) from error

    def _has_errors(self, item: CircuitInstruction) -> bool:
        """Whether the noise model has errors for this very gate, by its label or by its name."""
        return not {item.label, closed_name(item)}.isdisjoint(self.noise_model.noise_instructions)


def _translated(
    circuit: QuantumCircuit, basis: list[str], keeps: Callable[[CircuitInstruction], bool]
) -> QuantumCircuit:
    """The circuit in gates of the basis, but for the instructions to keep."""
    out = circuit.copy_empty_like()
    for kept, items in groupby(circuit.data, keeps):
        part = circuit.copy_empty_like()
        part.global_phase = 0
        for item in items:
            part.append(item)
        out.compose(part if kept else transpile(part, basis_gates=basis, optimization_level=0), inplace=True)
    return out


class _Task:
    """One PUB: the circuit that Aer runs for it, and the result computed from the saved values."""

    def __init__(self, estimator: NoisyEstimator, pub: EstimatorPub) -> None:
        self.pub = pub
        self.precision = float(pub.precision or 0)
        self.shots = round(1 / self.precision**2) if self.precision else None
        self.method = _pick_method(estimator.method, _active_qubits(pub.circuit), self.shots)
        self.terms = [_pauli_terms(observable) for observable in pub.observables.ravel()]
        self.labels = sorted({label for terms in self.terms for label in terms})
        self.seen = {label: _as_measured(label, estimator._readout) for label in self.labels}
        self.saved = sorted({label for terms in self.seen.values() for label in terms})
        native = estimator._native(pub.circuit, self.method)
        self.circuit = self._with_saves(native)
        values = pub.parameter_values.as_array(native.parameters)  # (*shape, parameters)
        columns = values.reshape(math.prod(values.shape[:-1]), native.num_parameters).T
        self.bindings = dict(zip(native.parameters, columns.tolist(), strict=True))
        self.points = columns.shape[1] if native.num_parameters else 1

    @property
    def trajectories(self) -> bool:
        return self.method != "density_matrix"

    def _with_saves(self, circuit: QuantumCircuit) -> QuantumCircuit:
        # Always full-width strings: Aer 0.17 and 0.18 return values of the wrong qubits for a string on a
        # subset when other qubits are idle (qiskit-aer issue 2442).
        circuit = circuit.copy()
        for label in self.saved:
            circuit.save_expectation_value(
                Pauli(label), range(circuit.num_qubits), label=label, pershot=self.trajectories
            )
        return circuit

    def result(self, saved: dict[str, Floats], rng: np.random.Generator) -> PubResult:
        """Values of the observables from the saved Pauli values of each point."""
        means, variances = self._outcomes(saved, rng)  # (points, labels) each
        shape = (*self.pub.parameter_values.shape, len(self.labels))
        means, variances = (np.broadcast_to(_shaped(x, shape), shape) for x in (means, variances))
        weights = np.array([[terms.get(label, 0.0) for label in self.labels] for terms in self.terms])
        weights = weights.reshape(*self.pub.observables.shape, len(self.labels))
        evs = np.einsum("...l,...l->...", weights, means)
        stds = np.sqrt(np.einsum("...l,...l->...", weights**2, variances))
        metadata = {
            "shots": self.shots,
            "target_precision": self.precision,
            "simulation_method": self.method,
            "circuit_metadata": self.pub.circuit.metadata,
        }
        return PubResult(DataBin(evs=evs, stds=stds, shape=evs.shape), metadata=metadata)

    def _outcomes(self, saved: dict[str, Floats], rng: np.random.Generator) -> tuple[Floats, Floats]:
        columns = [self._outcome(terms, saved, rng) for terms in self.seen.values()]
        return np.stack([c[0] for c in columns], axis=-1), np.stack([c[1] for c in columns], axis=-1)

    def _outcome(
        self, terms: dict[str, float], saved: dict[str, Floats], rng: np.random.Generator
    ) -> tuple[Floats, Floats]:
        """Mean (points,) and variance of the mean (points,) of one measured Pauli."""
        values = np.asarray(sum(weight * saved[label] for label, weight in terms.items()), dtype=float)
        if self.shots is None:
            return values, np.zeros_like(values)
        chance = np.clip((1 + values) / 2, 0, 1)  # of the outcome +1
        if self.trajectories:  # (points, shots), or one column where no noise was met
            chance = np.broadcast_to(chance, (len(chance), self.shots))
            mean = 2 * (rng.random(chance.shape) < chance).mean(axis=1) - 1
        else:
            mean = 2 * rng.binomial(self.shots, chance) / self.shots - 1
        return mean, (1 - mean**2) / self.shots


def _check_options(shots: int | None, method: str) -> None:
    if shots is not None:
        checked_int(shots, "shots", "give the outcomes to draw, or None for exact values", least=1)
    checked_choice(method, "method", _METHODS)
    if shots is None and method not in ("auto", "density_matrix"):
        raise ParameterError(
            f"method {method!r} samples trajectories and needs shots=; for exact values use method='density_matrix'"
        )


def _on_gates(one_qubit: Any, two_qubit: Any, gates: Sequence[str] | None) -> NoiseModel:
    standard = _standard_gates()
    if gates is not None and (isinstance(gates, str) or not isinstance(gates, Iterable)):
        raise refused("gates", "a list of names of standard gates", gates, "give ['ry', 'cx'], say")
    names = list(standard) if gates is None else list(gates)
    width = {name: gate.num_qubits for name, gate in standard.items() if name in names}
    unknown = [name for name in names if not isinstance(name, str) or width.get(name) not in (1, 2)]
    if gates is not None and unknown:
        raise ParameterError(f"gates must be names of standard gates of one or two qubits; got {unknown}")
    # Gates without an error are known as well: a circuit would otherwise be rewritten in gates that have one.
    small = [name for name, gate in standard.items() if gate.num_qubits in (1, 2)]
    model = require("qiskit_aer.noise", extra="aer").NoiseModel(basis_gates=small)
    model.add_all_qubit_quantum_error(one_qubit, [name for name in names if width[name] == 1])
    model.add_all_qubit_quantum_error(two_qubit, [name for name in names if width[name] == 2])
    return model


def _standard_gates() -> dict[str, Gate]:
    return {name: gate for name, gate in get_standard_gate_name_mapping().items() if isinstance(gate, Gate)}


def _readout_factors(model: NoiseModel) -> dict[int | None, tuple[float, float]]:
    """Qubit -> (a, b) of its measured Paulis ``a P + b``; the key None stands for all other qubits."""
    factors: dict[int | None, tuple[float, float]] = {None: (1.0, 0.0)}
    for error in model.to_dict()["errors"]:
        if error["type"] != "roerror":
            continue
        qubits = error.get("gate_qubits") or [(None,)]
        if len(error["probabilities"]) != 2:
            raise CircuitError(f"readout errors of single qubits are supported, not of {qubits} together")
        (_, flip_0), (flip_1, _) = error["probabilities"]  # rows: prepared 0, prepared 1
        factors.update({q[0]: (1 - flip_0 - flip_1, flip_1 - flip_0) for q in qubits})
    return factors


def _as_measured(label: str, readout: dict[int | None, tuple[float, float]]) -> dict[str, float]:
    """Expectation of the measured Pauli string under readout errors, as {Pauli string: weight}."""
    terms = {label: 1.0}
    for position, letter in enumerate(label):
        a, b = readout.get(len(label) - 1 - position, readout[None])
        if letter == "I" or (a, b) == (1, 0):
            continue
        dropped = {t[:position] + "I" + t[position + 1 :]: b * w for t, w in terms.items() if b}
        terms = {t: a * w for t, w in terms.items()} | dropped
        if len(terms) > _MAX_READOUT_TERMS:
            raise ObservableError(
                f"the readout error of an observable on {len(label) - label.count('I')} qubits has too many "
                "terms; use a noise model without readout error"
            )
    return terms


def _pauli_terms(observable: Mapping[str, float]) -> dict[str, float]:
    """The observable in Pauli strings only; expands the projectors 0, 1, +, -, r, l."""
    terms: dict[str, float] = {}
    for label, weight in observable.items():
        factors = [_PROJECTORS.get(letter, {letter: 1.0}) for letter in label]
        for letters in product(*factors):
            scale = math.prod(f[letter] for f, letter in zip(factors, letters, strict=True))
            key = "".join(letters)
            terms[key] = terms.get(key, 0.0) + float(np.real(weight)) * scale
    return terms


def _active_qubits(circuit: QuantumCircuit) -> int:
    return len({q for item in circuit.data if item.operation.name != "barrier" for q in item.qubits})


def _pick_method(method: str, qubits: int, shots: int | None) -> str:
    if method == "auto":
        # One trajectory costs 2^n, the density matrix 4^n once.
        method = "density_matrix" if shots is None or 2**qubits <= shots else "statevector"
    if method == "density_matrix":
        _check_memory(qubits)
    elif shots is None:
        raise ParameterError(f"method {method!r} samples trajectories and cannot give exact values")
    return method


def _check_memory(qubits: int) -> None:
    needed, free = 16 * 4**qubits, _free_bytes()
    if needed > free:
        raise OutOfMemory(
            f"the density matrix of {qubits} qubits needs {needed / 2**30:,.1f} GiB and "
            f"{free / 2**30:,.1f} GiB are free; "
            'give shots= to sample trajectories instead (method="statevector"), or use fewer qubits'
        )


def _free_bytes() -> float:
    names = getattr(os, "sysconf_names", {})
    pages = next((n for n in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES") if n in names), None)
    return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE") if pages else math.inf


def _check_isa(circuit: QuantumCircuit, backend: BackendV2) -> None:
    if circuit.num_qubits > backend.num_qubits:
        raise CircuitError(f"the circuit has {circuit.num_qubits} qubits, and {backend.name} has {backend.num_qubits}")
    for item in circuit.data:
        qubits = tuple(circuit.find_bit(q).index for q in item.qubits)
        name = item.operation.name
        if name not in _FREE_OF_NOISE and not backend.target.instruction_supported(name, qubits):
            raise CircuitError(
                f"{name!r} on qubits {qubits} is not an instruction of {backend.name}: transpile first, with "
                "qiskit.transpiler.generate_preset_pass_manager(optimization_level=1, backend=backend)"
            )


def _grouped(tasks: list[_Task]) -> dict[tuple[str, int], list[_Task]]:
    """Tasks grouped by Aer call: same method and, for trajectories, same number of shots."""
    groups: dict[tuple[str, int], list[_Task]] = {}
    for task in tasks:
        key = (task.method, task.shots or 1) if task.trajectories else (task.method, 1)
        groups.setdefault(key, []).append(task)
    return groups


def _shaped(values: Floats, shape: tuple[int, ...]) -> Floats:
    """(points, labels) to the PUB's shape; one point, of a circuit without parameters, stays one."""
    if len(values) == math.prod(shape[:-1]):
        return values.reshape(shape)
    return values.reshape(*(1 for _ in shape[:-1]), shape[-1])
