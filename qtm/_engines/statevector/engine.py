"""State vectors on the CPU: one for the circuit, or one for each group of overlapping causal cones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, from_numpy

from qtm._circuit.causal_cone import MAX_BITS, Cone, ConeProgram
from qtm._circuit.flatten import FlatCircuit
from qtm._circuit.pauli_program import PauliProgram, program_of
from qtm._engines.engine import (
    JVP,
    METRIC,
    SAMPLES,
    SECOND,
    VALUES,
    VJP,
    ArrayBatch,
    Cost,
    Engine,
    Plan,
    SimulationMethod,
)
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation, Output, Probabilities, Samples, State
from qtm._engines.statevector.cone_groups import cones_of
from qtm._engines.statevector.expectations import ExpectationEngine
from qtm._engines.statevector.outcomes import OutcomeEngine
from qtm._engines.statevector.whole_state import StateEngine
from qtm._kept_memory import KEPT, ByteCache

FORWARD_AND_REVERSE = 16  # real multiply-adds for a rotation and an amplitude, of both sweeps
_STATES = 2  # states of a sample that exist at the same time
_CONES: ByteCache[tuple[Cone, ...]] = ByteCache(256, KEPT, shared=(FlatCircuit,))


def known_cones(program: PauliProgram, output: Output) -> tuple[Cone, ...]:
    """The cones that together give an output; computed once."""
    return _CONES.find((program, output), lambda: cones_of(program, output))


@dataclass(frozen=True)
class StateVector(SimulationMethod):
    """Exact state vectors: 2**r amplitudes for a group of observables whose causal cone has rank r."""

    name: ClassVar[str] = "statevector"
    gives: ClassVar[Mapping[type, frozenset[str]]] = {
        Expectation: frozenset({VALUES, VJP, JVP, SECOND}),
        Probabilities: frozenset({VALUES, VJP, JVP, SECOND}),
        State: frozenset({VALUES, VJP, JVP, SECOND, METRIC}),
        Samples: frozenset({SAMPLES}),
    }

    def refuses(self, circuit: FlatCircuit, output: Output, options: Options) -> str | None:
        """Why the method cannot simulate this: a cone has a larger rank than any memory holds."""
        if (why := super().refuses(circuit, output, options)) is not None:
            return why
        if isinstance(output, State) and circuit.num_qubits > MAX_BITS:
            return f"gives a state vector of at most {MAX_BITS} qubits, not {circuit.num_qubits}"
        bits = max(cone.program.num_bits for cone in known_cones(program_of(circuit), output))
        if bits <= MAX_BITS:
            return None
        return (
            f"needs 2^{bits} amplitudes, because the observables depend on {bits} bits of the circuit; use fewer "
            "layers, observables on fewer qubits, or method='matrix_product_state'"
        )

    def cost(self, circuit: FlatCircuit, output: Output, options: Options) -> Cost:
        """Rotations times amplitudes, over all cones."""
        cones = known_cones(program_of(circuit), output)
        return Cost(_multiply_adds(cones), _bytes(cones, options))

    def compile(self, circuit: FlatCircuit, output: Output, options: Options) -> Engine:
        """The engine for one output."""
        return StateVectorEngine(circuit, output, options)


class StateVectorEngine(Engine):
    """A circuit compiled for the state-vector kernels: tensors in, tensors out, NumPy arrays inside."""

    def __init__(self, circuit: FlatCircuit, output: Output, options: Options) -> None:
        self.circuit, self.output, self.options = circuit, output, options
        self.program = program_of(circuit)
        self.cones = known_cones(self.program, output)
        self.arrays: Any = _arrays(circuit, self.program, self.cones, output, options)

    def __reduce__(self) -> tuple[Any, ...]:
        return StateVectorEngine, (self.circuit, self.output, self.options)

    def small_batch(self, batch: int) -> ArrayBatch | None:
        """See `Engine.small_batch`."""
        return self.arrays.small_batch(batch) if isinstance(self.arrays, ExpectationEngine) else None

    def forward(self, angles: Tensor, prepared: Sequence[Tensor], *, keep: bool = False) -> tuple[Tensor, Any]:
        """See `Engine.forward`."""
        values, kept = self.arrays.forward(_array(angles), [_array(p) for p in prepared], keep)
        return from_numpy(values), kept

    def vjp(
        self,
        angles: Tensor,
        prepared: Sequence[Tensor],
        cotangent: Tensor,
        residuals: Any = None,
        *,
        by_prepared: bool = False,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """See `Engine.vjp`."""
        amplitudes = [_array(p) for p in prepared]
        by_angles, by_amplitudes = self.arrays.vjp(
            _array(angles), amplitudes, _array(cotangent), residuals, by_prepared and bool(amplitudes)
        )
        found = None if by_amplitudes is None else tuple(from_numpy(np.asarray(a)) for a in by_amplitudes)
        return from_numpy(by_angles), found

    def jvp(
        self,
        angles: Tensor,
        prepared: Sequence[Tensor],
        tangent: Tensor,
        prepared_tangents: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """See `Engine.jvp`."""
        found = self.arrays.jvp(_array(angles), _arrays_of(prepared), _array(tangent), _arrays_of(prepared_tangents))
        return from_numpy(found)

    def second(
        self,
        angles: Tensor,
        prepared: Sequence[Tensor],
        cotangent: Tensor,
        tangent: Tensor,
        prepared_tangents: Sequence[Tensor] | None = None,
        *,
        by_prepared: bool = False,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """See `Engine.second`."""
        by_angles, by_amplitudes = self.arrays.second(
            _array(angles), _arrays_of(prepared), _array(cotangent), _array(tangent),
            _arrays_of(prepared_tangents), by_prepared and bool(prepared),
        )  # fmt: skip
        found = None if by_amplitudes is None else tuple(from_numpy(np.asarray(a)) for a in by_amplitudes)
        return from_numpy(by_angles), found

    def metric_product(self, angles: Tensor, prepared: Sequence[Tensor], tangent: Tensor) -> Tensor:
        """See `Engine.metric_product`."""
        if not isinstance(self.arrays, StateEngine):
            return super().metric_product(angles, prepared, tangent)
        return from_numpy(self.arrays.metric_product(_array(angles), _arrays_of(prepared), _array(tangent)))

    def sample(
        self, angles: Tensor, prepared: Sequence[Tensor], shots: int, generator: np.random.Generator
    ) -> np.ndarray:
        """See `Engine.sample`."""
        bits: np.ndarray = self.arrays.sample(_array(angles), [_array(p) for p in prepared], shots, generator)
        return bits

    def plan(self, batch: int) -> Plan:
        """See `Engine.plan`."""
        sizes: dict[float, int] = {}
        for cone in self.cones:
            sizes[float(cone.program.num_bits)] = sizes.get(float(cone.program.num_bits), 0) + 1
        states = tuple(sorted(sizes.items(), reverse=True))
        return Plan("statevector", states, batch * _bytes(self.cones, self.options), batch * _multiply_adds(self.cones))


def _arrays(
    circuit: FlatCircuit, program: PauliProgram, cones: Sequence[Cone], output: Output, options: Options
) -> ExpectationEngine | OutcomeEngine | StateEngine:
    if isinstance(output, Expectation):
        return ExpectationEngine(circuit, program, cones, output, options)
    if isinstance(output, State):
        return StateEngine(circuit, program, cones, options)
    assert isinstance(output, Probabilities | Samples)
    return OutcomeEngine(circuit, program, cones, output, options)


def _array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.numpy(force=True)
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _arrays_of(tensors: Sequence[Tensor] | None) -> Any:
    return None if tensors is None else [_array(t) for t in tensors]


def _multiply_adds(cones: Sequence[Cone]) -> float:
    return sum(FORWARD_AND_REVERSE * _rotations(cone.program) * 2.0**cone.program.num_bits for cone in cones)


def _bytes(cones: Sequence[Cone], options: Options) -> float:
    size = 8 if options.dtype == "complex64" else 16
    return sum(_STATES * size * 2.0**cone.program.num_bits for cone in cones)


def _rotations(program: ConeProgram) -> int:
    return sum(len(phase.rotations) + len(phase.diagonal) for phase in program.phases)
