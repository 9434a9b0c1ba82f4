"""Aer's noisy simulators as an ``EstimatorV2``; exact values come from qtm's own density matrix if possible."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby, product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qiskit import transpile
from qiskit.circuit import CircuitInstruction, QuantumCircuit
from qiskit.exceptions import QiskitError
from qiskit.primitives import DataBin, PrimitiveJob, PrimitiveResult, PubResult
from qiskit.primitives.base import BaseEstimatorV2
from qiskit.primitives.containers.estimator_pub import EstimatorPub, EstimatorPubLike
from qiskit.providers import BackendV2
from qiskit.quantum_info import Pauli

from qtm._arguments import check_generator_seed, checked_choice, checked_int, refused
from qtm._circuit.noise_map import NoiseMap
from qtm._circuit.observables import coerce_observables
from qtm._circuit.pauli_program import flattened
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation
from qtm._engines.simulation import Simulation
from qtm._engines.simulation_cache import Simulations
from qtm._errors import CircuitError, ObservableError, OutOfMemory, ParameterError, UnsupportedError, require
from qtm._noise.aer_model import GateNoise
from qtm._primitives.aer_circuits import binding_backend, closed_name
from qtm._primitives.pubs import estimator_pubs

if TYPE_CHECKING:
    from qiskit_aer import AerSimulator
    from qiskit_aer.noise import NoiseModel

Floats = NDArray[np.float64]

_FREE_OF_NOISE = {"barrier", "delay"}  # always allowed: without an error in the model they do nothing
_METHODS = ("auto", "density_matrix", "statevector", "matrix_product_state", "stabilizer")
_MAX_READOUT_TERMS = 2**14
# The letters of Qiskit's observables that are not Paulis, as {Pauli: coefficient}.
_PROJECTORS = {
    "0": {"I": 0.5, "Z": 0.5},
    "1": {"I": 0.5, "Z": -0.5},
    "+": {"I": 0.5, "X": 0.5},
    "-": {"I": 0.5, "X": -0.5},
    "r": {"I": 0.5, "Y": 0.5},
    "l": {"I": 0.5, "Y": -0.5},
}


class NoisyEstimator(BaseEstimatorV2):
    """An ``EstimatorV2`` on Aer's noisy simulators, created by ``noisy_estimator``."""

    def __init__(self, noise: NoiseModel | BackendV2, shots: int | None, method: str, seed: int | None) -> None:
        aer = require("qiskit_aer", extra="aer")
        _check_options(shots, method)
        check_generator_seed(seed, "seed")
        self.backend = noise if isinstance(noise, BackendV2) else None
        self.noise_model = aer.noise.NoiseModel.from_backend(noise) if self.backend else noise
        if not isinstance(self.noise_model, aer.noise.NoiseModel):
            raise refused(
                "noise",
                "an Aer NoiseModel, a BackendV2 or the name of a backend",
                noise,
                "give qtm.local_pauli_noise(0.01), say",
            )
        self.shots, self.method = shots, method
        self._rng = np.random.default_rng(seed)
        self._readout = _readout_factors(self.noise_model)
        self._simulators: dict[str, AerSimulator] = {}
        self._simulations = Simulations(Options(method="density_matrix", noise=self._gate_noise()))

    def _gate_noise(self) -> NoiseMap | None:
        """The noise of the gates for qtm's density matrix; None if only Aer can simulate it."""
        try:
            return GateNoise(self.noise_model, self.backend)
        except CircuitError:
            return None

    def run(
        self, pubs: Iterable[EstimatorPubLike], *, precision: float | None = None
    ) -> PrimitiveJob[PrimitiveResult[PubResult]]:
        """Return the job of all PUBs.

        Exact values come from qtm's own density matrix if it supports all errors of a circuit, and from one call to Aer
        for all other circuits together. ``metadata["simulator"]`` of a result names the simulator.

        Raises:
            CircuitError: a circuit cannot run on the backend, or in the noise model's gates.
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
        saved = {id(task): task.exact() for task in tasks if task.simulation is not None}
        for (method, shots), group in _grouped([task for task in tasks if task.simulation is None]).items():
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
            # Run points in parallel (0: one per thread), not each gate of one point on all threads.
            simulator = aer.AerSimulator(method=method, noise_model=self.noise_model, max_parallel_experiments=0)
            self._simulators[method] = binding_backend(simulator)
        return self._simulators[method]

    def _native(self, circuit: QuantumCircuit, method: str) -> QuantumCircuit:
        """The circuit in gates that both the noise model and Aer support."""
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

    def _simulation(self, circuit: QuantumCircuit, labels: list[str]) -> Simulation | None:
        """Values of Pauli strings from qtm's density matrix, without readout errors; None if not supported."""
        noise = self._simulations.options.noise
        if noise is None or not labels:
            return None

        def make(options: Options) -> Simulation:
            output = Expectation(coerce_observables(labels, circuit.num_qubits))
            return Simulation(circuit, circuit.parameters, output, options)

        try:
            return self._simulations.find((flattened(circuit, noise), *labels), make)
        except (CircuitError, ObservableError, UnsupportedError, OutOfMemory):  # Aer runs it, or reports why not
            return None

    def _has_errors(self, item: CircuitInstruction) -> bool:
        """Whether the noise model has errors for this very gate, by its label or by its name."""
        return not {item.label, closed_name(item)}.isdisjoint(self.noise_model.noise_instructions)


def _translated(
    circuit: QuantumCircuit, basis: list[str], keeps: Callable[[CircuitInstruction], bool]
) -> QuantumCircuit:
    """The circuit in gates of the basis, except for the instructions to keep."""
    out = circuit.copy_empty_like()
    for kept, items in groupby(circuit.data, keeps):
        part = circuit.copy_empty_like()
        part.global_phase = 0
        for item in items:
            part.append(item)
        out.compose(part if kept else transpile(part, basis_gates=basis, optimization_level=0), inplace=True)
    return out


class _Task:
    """One PUB: the circuit that Aer runs for it, and the combination of its saved values."""

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
        self.simulation = None if self.trajectories else estimator._simulation(native, self.saved)
        if self.simulation is None and not self.trajectories:
            _check_memory(_active_qubits(pub.circuit))
        self.circuit = self._with_saves(native)
        values = pub.parameter_values.as_array(native.parameters)  # (*shape, parameters)
        columns = values.reshape(math.prod(values.shape[:-1]), native.num_parameters).T
        self._values = np.ascontiguousarray(columns.T)  # (points, parameters)
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

    def exact(self) -> dict[str, Floats]:
        """Values of each saved Pauli string from qtm's density matrix, (points,)."""
        assert self.simulation is not None
        # Without parameters one point stands for all, as it does in Aer.
        rows = self._values if self._values.shape[1] else np.zeros((1, 0))
        return dict(zip(self.saved, self.simulation.values(rows).T, strict=True))

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
            "simulator": "qiskit-aer" if self.simulation is None else "qtm",
            "circuit_metadata": self.pub.circuit.metadata,
        }
        return PubResult(DataBin(evs=evs, stds=stds, shape=evs.shape), metadata=metadata)

    def _outcomes(self, saved: dict[str, Floats], rng: np.random.Generator) -> tuple[Floats, Floats]:
        columns = [self._outcome(terms, saved, rng) for terms in self.seen.values()]
        return np.stack([c[0] for c in columns], axis=-1), np.stack([c[1] for c in columns], axis=-1)

    def _outcome(
        self, terms: dict[str, float], saved: dict[str, Floats], rng: np.random.Generator
    ) -> tuple[Floats, Floats]:
        """Mean and its variance of one measured Pauli, (points,) each."""
        values = np.asarray(sum(weight * saved[label] for label, weight in terms.items()), dtype=float)
        if self.shots is None:
            return values, np.zeros_like(values)
        chance = np.clip((1 + values) / 2, 0, 1)  # of the outcome +1
        if self.trajectories:  # (points, shots), or one column if no noise occurred
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


def _readout_factors(model: NoiseModel) -> dict[int | None, tuple[float, float]]:
    """Qubit -> (a, b) of its measured Paulis ``a P + b``; the key None stands for all other qubits."""
    factors: dict[int | None, tuple[float, float]] = {None: (1.0, 0.0)}
    default = model._default_readout_error
    # `to_dict` has the same, and spells out every gate error of a device: seconds.
    every = {(None,): default} if default is not None else {}
    for qubits, error in {**every, **model._local_readout_errors}.items():
        if len(error.probabilities) != 2:
            raise CircuitError(f"readout errors of single qubits are supported, not of {qubits} together")
        (_, flip_0), (flip_1, _) = error.probabilities.tolist()  # rows: prepared 0, prepared 1
        factors[qubits[0]] = 1 - flip_0 - flip_1, flip_1 - flip_0
    return factors


def _as_measured(label: str, readout: dict[int | None, tuple[float, float]]) -> dict[str, float]:
    """What the measured Pauli string estimates, as {Pauli string: weight}."""
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
    """The observable in Pauli strings only: projectors 0, 1, +, -, r, l are expanded."""
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
    if method != "density_matrix" and shots is None:
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
        raise CircuitError(f"{circuit.num_qubits} qubits are too many for {backend.name}: {backend.num_qubits}")
    target = backend.target  # Aer's simulator creates a new one at each access
    for item in circuit.data:
        qubits = tuple(circuit.find_bit(q).index for q in item.qubits)
        name = item.operation.name
        if name not in _FREE_OF_NOISE and not target.instruction_supported(name, qubits):
            raise CircuitError(
                f"{name!r} on qubits {qubits} is not an instruction of {backend.name}: transpile first, with "
                "qiskit.transpiler.generate_preset_pass_manager(optimization_level=1, backend=backend)"
            )


def _grouped(tasks: list[_Task]) -> dict[tuple[str, int], list[_Task]]:
    """Tasks that Aer can run in one call: same method and, for trajectories, same number of them."""
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
