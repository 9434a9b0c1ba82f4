"""Shots and probabilities of measured bits: `FastSampler`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.primitives import BaseSamplerV2, BitArray, DataBin, PrimitiveResult, SamplerPubResult
from qiskit.primitives.containers import SamplerPubLike
from qiskit.primitives.containers.bindings_array import BindingsArrayLike
from qiskit.primitives.containers.sampler_pub import SamplerPub

from qtm._arguments import checked_int
from qtm._circuit.dynamic import static_circuit
from qtm._circuit.pauli_program import flattened
from qtm._engines.outputs import Probabilities
from qtm._engines.registry import Method
from qtm._engines.simulation import Simulation
from qtm._engines.simulation_cache import parameter_rows
from qtm._errors import CircuitError, OutOfMemory
from qtm._machine import free_memory
from qtm._noise.aer_model import Noise, in_known_gates
from qtm._primitives.finished_job import FinishedJob
from qtm._primitives.pubs import sampler_pubs
from qtm._primitives.readout import Readout
from qtm._primitives.simulating_primitive import Seed, SimulatingPrimitive

# Probabilities held at a time while shots are drawn.
_PROBABILITIES = 1 << 24


class FastSampler(SimulatingPrimitive, BaseSamplerV2):
    """Shots from the exact distribution: a drop-in replacement for Qiskit's ``StatevectorSampler``.

    The shots equal those of ``StatevectorSampler`` with the same seed. Qubits may be measured into any bits of any
    registers; bits without a measurement are 0. Mid-circuit measurement, reset, ``if_test``, ``switch`` and
    ``for_loop`` are simulated exactly, by deferred measurement.

    Args:
        default_shots: shots if neither the PUB nor the run specifies a number.
        seed: seed of the shots; an integer gives every parameter set the same random numbers.
        dtype: ``"complex128"``, or ``"complex64"`` for twice the speed and seven digits.
        num_threads: threads to use; 0 for all cores.
        noise: an Aer ``NoiseModel`` or a backend: shots of the exact distribution under its noise.
        method: simulation method: "auto" for the cheapest exact one that supports the circuit, a name such as
            "statevector", a pair of name and options, or a `qtm.engines.SimulationMethod`.

    Raises:
        DtypeError: ``dtype`` is not supported.
        ParameterError: ``num_threads`` is unusable.

    Example:
        >>> from qiskit import QuantumCircuit
        >>> bell = QuantumCircuit(2)
        >>> _ = bell.h(0), bell.cx(0, 1), bell.measure_all()
        >>> sorted(FastSampler(seed=1).run([bell], shots=10).result()[0].data.meas.get_counts())
        ['00', '11']
        >>> FastSampler().probabilities(bell).round(3)
        array([0.5, 0. , 0. , 0.5])
    """

    def __init__(
        self,
        *,
        default_shots: int = 1024,
        seed: Seed = None,
        dtype: Any = "complex128",
        num_threads: int = 0,
        noise: Noise = None,
        method: Method = "auto",
    ) -> None:
        advice = "give the number of outcomes to draw for each parameter set"
        self._default_shots = checked_int(default_shots, "default_shots", advice, least=1)
        super().__init__(seed, dtype, num_threads, None, noise, method)

    @property
    def default_shots(self) -> int:
        """Number of shots of PUBs that specify none."""
        return self._default_shots

    def run(
        self, pubs: Iterable[SamplerPubLike], *, shots: int | None = None
    ) -> FinishedJob[PrimitiveResult[SamplerPubResult]]:
        """Draw shots of PUBs ``circuit`` or ``(circuit[, parameter_values[, shots]])``.

        The ``data`` of each result has one ``BitArray`` per classical register, in the shape of the parameter sets.

        Raises:
            ValueError: a PUB is malformed.
            CircuitError: (from the job's ``result``) a circuit cannot be simulated, or measures mid-circuit.
            ParameterError: (from the job's ``result``) a parameter value is NaN or infinite.
        """
        shots = self._default_shots if shots is None else shots
        coerced = sampler_pubs(pubs, shots)
        for pub in coerced:
            if not pub.circuit.cregs:
                warnings.warn(
                    f"circuit {pub.circuit.name!r} has no classical register, so its result will be empty; "
                    "measure its qubits, as with measure_all()",
                    UserWarning,
                    stacklevel=2,
                )
        return FinishedJob(self._run, coerced)

    def probabilities(
        self, circuit: QuantumCircuit, parameter_values: BindingsArrayLike | np.ndarray | None = None
    ) -> np.ndarray:
        """Exact probabilities (..., 2**clbits) of the measured bits, bit c of an outcome being clbit c.

        Args:
            circuit: a circuit with final measurements.
            parameter_values: values (..., parameters) in radians, or any other form that a PUB accepts.

        Raises:
            CircuitError: the circuit cannot be simulated, or measures nothing.
            OutOfMemory: there are too many clbits.
            ParameterError: a parameter value is NaN or infinite.
        """
        pub = sampler_pubs([(circuit, parameter_values)], None)[0]
        known = self._known(circuit)
        readout = Readout.of(static_circuit(known, self.options.noise))
        if not readout.qubits:
            raise CircuitError(f"circuit {circuit.name!r} measures nothing; measure its qubits, as with measure_all()")
        _check_fits(pub.parameter_values.size, circuit.num_clbits)
        out = np.zeros((pub.parameter_values.size, 1 << circuit.num_clbits))
        targets = readout.clbit_outcomes()
        for first, part in self._marginals(known, pub, readout):
            out[first : first + len(part), targets] = part
        return out.reshape(*pub.shape, 1 << circuit.num_clbits)

    def _run(self, pubs: list[SamplerPub]) -> PrimitiveResult[SamplerPubResult]:
        return PrimitiveResult([self._run_pub(pub) for pub in pubs], metadata={"version": 2})

    def _run_pub(self, pub: SamplerPub) -> SamplerPubResult:
        known = self._known(pub.circuit)
        readout = Readout.of(static_circuit(known, self.options.noise))
        outcomes = np.zeros((pub.parameter_values.size, pub.shots), np.int64)
        for first, part in self._marginals(known, pub, readout):
            if readout.qubits:
                for outcome, p in zip(outcomes[first:], part, strict=False):
                    outcome[:] = np.random.default_rng(self._seed).choice(len(p), p=p, size=pub.shots)
        bits = {
            name: BitArray(_packed(outcomes, places).reshape(*pub.shape, pub.shots, -(-len(places) // 8)), len(places))
            for name, places in readout.registers.items()
        }
        return SamplerPubResult(
            DataBin(**bits, shape=pub.shape),
            metadata={"shots": pub.shots, "circuit_metadata": pub.circuit.metadata},
        )

    def _known(self, circuit: QuantumCircuit) -> QuantumCircuit:
        """In gates of the noise: what stands for its measurements is numbered as the simulation numbers it."""
        return circuit if self.options.noise is None else in_known_gates(circuit, self.options.noise)

    def _marginals(
        self, circuit: QuantumCircuit, pub: SamplerPub, readout: Readout
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Probabilities (sets, outcomes of the readout) by part, each with its first parameter set."""
        values = parameter_rows(pub.parameter_values, pub.circuit)
        output = Probabilities(readout.qubits)
        make = partial(Simulation, circuit, pub.circuit.parameters, output)
        simulation = self._simulations.find((flattened(circuit, self.options.noise), output), make)
        size = max(_PROBABILITIES >> min(len(readout.qubits), 62), 1)
        for first in range(0, len(values), size):
            p = simulation.values(values[first : first + size])
            yield first, p / p.sum(-1, keepdims=True)


def _packed(outcomes: np.ndarray, places: list[int | None]) -> np.ndarray:
    """Outcomes (sets, shots) as the bytes (sets, shots, bytes) of a register, its last bit first."""
    bits = np.zeros((*outcomes.shape, 8 * -(-len(places) // 8)), np.uint8)
    for i, place in enumerate(places):
        if place is not None:
            bits[..., -1 - i] = outcomes >> place & 1
    return np.packbits(bits, axis=-1)


def _check_fits(sets: int, num_clbits: int) -> None:
    needed = float(sets) * 2.0**num_clbits * 8
    if needed > free_memory():
        raise OutOfMemory(
            f"the probabilities of {num_clbits} clbits for {sets} parameter sets need "
            f"{needed / 2**30:.3g} GiB; measure into fewer clbits, give fewer parameter sets, or draw shots"
        )
