"""A circuit with its output, compiled by a simulation method, ready to run on parameter values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from torch import Tensor, from_numpy

from qtm._circuit.branching import branching
from qtm._circuit.dynamic import is_dynamic
from qtm._circuit.expressions import check_angles, compile_angles
from qtm._circuit.flatten import FlatCircuit
from qtm._circuit.global_phase import PhaseMap
from qtm._circuit.noise_map import NoiseMap
from qtm._circuit.pauli_program import flattened
from qtm._circuit.state_preparation import PreparedAmplitudes
from qtm._circuit.trained_noise import TrainedNoiseMap
from qtm._engines.engine import Plan, SimulationMethod
from qtm._engines.memory import is_too_large
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation, Output, State
from qtm._engines.registry import choose, simulation_method
from qtm._engines.shot_noise import Shots, shots_of
from qtm._engines.statevector.engine import StateVector
from qtm._errors import CircuitError, OutOfMemory, ParameterError, UnsupportedError
from qtm._noise.aer_model import in_known_gates


class Simulation:
    """One output of a circuit.

    Args:
        circuit: any circuit that `qtm` can lower.
        parameters: all parameters of the circuit, in the order of the values.
        output: what to compute, on the qubits of the circuit.
        options: method, noise, dtype, workers and memory.

    Raises:
        CircuitError: the circuit cannot be simulated.
        OutOfMemory: mid-circuit measurements take more qubits than fit in memory.
        ParameterError: a parameter of the circuit is missing from ``parameters``, or listed twice.
        UnsupportedError: the method refuses the circuit or the output.
    """

    def __init__(
        self,
        circuit: QuantumCircuit,
        parameters: Sequence[Parameter],
        output: Output,
        options: Options | None = None,
    ) -> None:
        options = options or Options()
        self.parameters = tuple(parameters)
        if options.noise is not None:
            circuit = in_known_gates(circuit, options.noise)
        _check_readable(options.noise, output)
        named = simulation_method(options.method)
        as_it_is = named is not None and named.takes_control_flow and options.noise is None and is_dynamic(circuit)
        self.flat: FlatCircuit = branching(circuit) if as_it_is else flattened(circuit, options.noise)
        self.angles = compile_angles(self.flat.angles, self.parameters)
        self.preparations = [PreparedAmplitudes(p, self.parameters) for p in self.flat.initial]
        self.dtype, self.output, self._options = options.dtype, output, options
        self._shots: dict[str, Shots] = {}
        self.phase = PhaseMap(self.flat.phase, self.parameters) if isinstance(output, State) else None
        if isinstance(output, State) and self.flat.num_qubits != circuit.num_qubits:
            raise CircuitError(
                "a circuit with control flow, resets or mid-circuit measurements leaves its qubits in a mixed "
                "state; ask for probabilities or expectation values"
            )
        method = _chosen(self.flat, self.flat.num_qubits - circuit.num_qubits, output, options)
        self.is_exact, self.engine = method.is_exact, method.compile(self.flat, output, options)

    def values(self, values: np.ndarray) -> np.ndarray:
        """The output (batch, outputs) at parameter values (batch, parameters), in radians.

        Raises:
            ParameterError: a result is not finite, because a value was NaN or infinite.
        """
        results = self.engine.forward(*self.arguments(values))[0].numpy()
        if self.phase is not None:
            results = results * np.exp(1j * self.phase.numpy(values)).astype(results.dtype)
        check_finite(results, values, self.parameters)
        return results

    def sample(self, values: np.ndarray, shots: int, generator: np.random.Generator) -> np.ndarray:
        """Bits (batch, shots, qubits) bool at parameter values (batch, parameters)."""
        return self.engine.sample(*self.arguments(values), shots, generator)

    def shots(self, sampling: str) -> Shots:
        """The shot noise of the observables of the output; created on first use."""
        assert isinstance(self.output, Expectation)
        if sampling not in self._shots:
            self._shots[sampling] = shots_of(sampling, self.flat, self.output.observables, self._options)
        return self._shots[sampling]

    def plan(self, batch: int) -> Plan:
        """Memory and arithmetic of the engine for a batch."""
        return self.engine.plan(batch)

    def arguments(self, values: np.ndarray) -> tuple[Tensor, list[Tensor]]:
        """Angles (batch, angles) and prepared amplitudes, as the engine takes them, at values (batch, parameters)."""
        prepared = [from_numpy(p.numpy(values).astype(self.dtype)) for p in self.preparations]
        return from_numpy(np.require(self.numpy_angles(values), requirements="W")), prepared

    def numpy_angles(self, values: np.ndarray) -> np.ndarray:
        """Gate angles (batch, angles) at parameter values (batch, parameters).

        Raises:
            ParameterError: a value or an angle is not finite, or an angle is too large.
        """
        check_finite(values, values, self.parameters)  # also those that no angle holds
        angles = np.broadcast_to(self.angles.numpy(values), (len(values), self.angles.num_angles))
        check_angles(angles, self.flat.angles)
        return np.ascontiguousarray(angles)

    def with_phase(self, states: Tensor, inputs: Tensor | None, sets: Sequence[Tensor]) -> Tensor:
        """States (batch, amplitudes) times the global phase at inputs and parameter sets, differentiable."""
        assert self.phase is not None
        return self.phase.times(states, inputs, sets)

    def torch_arguments(self, inputs: Tensor | None, weights: Tensor, batch: int) -> tuple[Tensor, list[Tensor]]:
        """The same from inputs (batch, inputs) and weights (weights,), differentiable."""
        prepared = [p.torch(inputs, weights) for p in self.preparations]
        return self.angles.torch(inputs, weights, batch), prepared


def _check_readable(noise: NoiseMap | None, output: Output) -> None:
    """Check that no X or Y acts on a qubit with a trained readout error, which is simulated for Z alone."""
    if not isinstance(noise, TrainedNoiseMap) or not isinstance(output, Expectation):
        return
    for observable in output.observables:
        seen = [q for q in range(observable.num_qubits) if any(x >> q & 1 for x in observable.x.tolist())]
        if any(map(noise.is_read, seen)):
            raise UnsupportedError(
                f"a trained readout error is simulated for Z alone, and an observable has X or Y on qubits {seen}: "
                "rotate these qubits at the end of the circuit, and measure Z"
            )


def _chosen(flat: FlatCircuit, added: int, output: Output, options: Options) -> SimulationMethod:
    """The method for a circuit, ``added`` of whose qubits stand for measurements.

    Raises:
        OutOfMemory: with these qubits the state vector does not fit; the message says what else can be done.
        UnsupportedError: see `choose`.
    """
    deferred = (
        f"Deferred measurement adds {added} qubits to the {flat.num_qubits - added} of the circuit: use fewer "
        "measurements, resets and conditions"
    )
    if isinstance(output, Expectation) and not flat.is_noisy:
        deferred += ', or average over sampled outcomes with method="branches"'
    try:
        method = choose(options.method, flat, output, options)
    except UnsupportedError as error:
        if not added or simulation_method(options.method) is not None:
            raise
        raise UnsupportedError(f"{error}. {deferred}") from error
    if added and isinstance(method, StateVector):
        needed = method.cost(flat, output, options).memory
        if is_too_large(needed, options.memory):
            raise OutOfMemory(f"the states of one sample need {needed / 2**30:.3g} GiB. {deferred}")
    return method


def check_finite(results: np.ndarray, values: np.ndarray, parameters: Sequence[Parameter]) -> None:
    """Raise an error if a result is NaN or infinite, naming the parameter value that caused it."""
    if np.isfinite(results).all():
        return
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        sample, position = bad[0]
        raise ParameterError(
            f"parameter {parameters[position].name!r} is {values[sample, position]} in sample {sample}; "
            "all parameter values must be finite"
        )
    raise ParameterError("an angle of the circuit is not finite for these parameter values (a logarithm or division?)")
