"""The simulation method `matrix_product_state` and its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log2
from typing import Any, ClassVar

import torch

from qtm._circuit.flatten import FlatCircuit
from qtm._circuit.gates import Clifford, PauliRotation
from qtm._engines.engine import SAMPLES, VALUES, VJP, Cost, Engine, Plan, SimulationMethod
from qtm._engines.matrix_product_state.engine import MatrixProductStateEngine, Truncation
from qtm._engines.matrix_product_state.evolution import Limits
from qtm._engines.matrix_product_state.gate_columns import GateColumns, gate_columns
from qtm._engines.matrix_product_state.initial_chain import Register, initial_bits
from qtm._engines.matrix_product_state.pauli_mpo import pauli_mpo
from qtm._engines.matrix_product_state.predicted_cost import Prediction, predict
from qtm._engines.matrix_product_state.readouts import (
    ExpectationReadout,
    Overlap,
    OverlapReadout,
    ProbabilityReadout,
    Readout,
    StateReadout,
)
from qtm._engines.matrix_product_state.states import MPS
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation, Output, Probabilities, Samples, State
from qtm._engines.phase_factor import PhasedEngine, PhaseFactor
from qtm._errors import ParameterError
from qtm._machine import free_memory

_FREE_BITS = 7  # without a limit, bonds up to 2**7 are not decomposed
_MAX_OUTCOME_QUBITS = 12
_MAX_STATE_QUBITS = 26
_SINGLE_CUTOFF = 1e-6  # singular values below this are rounding in single precision
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


@dataclass(frozen=True)
class MatrixProductState(SimulationMethod):
    """States of many qubits and little entanglement, on a chain in the order of the qubits.

    Exact as long as no bond needs more than ``max_bond``. Derivatives come from the adjoint method; where truncation
    discards weight, they are as approximate as the state.

    Args:
        max_bond: the largest bond dimension to keep; None for as many as the circuit needs.
        cutoff: a bond that is truncated also loses singular values below this fraction of its largest one.
        adjoint_bond: the largest bond dimension of the adjoint state of a derivative; by default three times
            ``max_bond``, beyond which the truncation of the state itself dominates the error.
        tolerance: warn (`TruncationWarning`) if the discarded weight of a sample exceeds this.
        initial: the state to start from instead of all zeros; a batch of one.

    Raises:
        ParameterError: an option is out of range.
    """

    name: ClassVar[str] = "matrix_product_state"
    devices: ClassVar[frozenset[str]] = frozenset({"cpu", "cuda"})
    gives: ClassVar[Mapping[type, frozenset[str]]] = {
        Expectation: frozenset({VALUES, VJP}),
        Probabilities: frozenset({VALUES, VJP}),
        State: frozenset({VALUES, VJP}),
        Overlap: frozenset({VALUES, VJP}),
        Samples: frozenset({SAMPLES}),
    }

    max_bond: int | None = None
    cutoff: float = 1e-12
    adjoint_bond: int | None = None
    tolerance: float = 1e-6
    initial: MPS | None = None

    def __post_init__(self) -> None:
        for name in ("max_bond", "adjoint_bond"):
            bond = getattr(self, name)
            if bond is not None and (not isinstance(bond, int) or bond < 1):
                raise ParameterError(f"{name} is {bond!r}; give an integer of 1 or more, or None for no limit")
        if not 0 <= self.cutoff < 1:
            raise ParameterError(f"cutoff is {self.cutoff!r}; give a number from 0 up to 1")
        if not self.tolerance >= 0:
            raise ParameterError(f"tolerance is {self.tolerance!r}; give a discarded weight of 0 or more")
        if self.initial is not None and (not isinstance(self.initial, MPS) or len(self.initial.tensors[0]) != 1):
            raise ParameterError(f"initial is {self.initial!r}; give a qtm.mps.MPS with a batch of one")

    def refuses(self, circuit: FlatCircuit, output: Output, options: Options) -> str | None:
        why = super().refuses(circuit, output, options) or self._refuses_shape(circuit, output, options)
        if why is not None:
            return why
        prediction = self._predict(circuit, output, options)
        memory = free_memory() if options.memory is None else options.memory
        if prediction.memory <= memory:
            return None
        most = max(range(len(prediction.bonds)), key=prediction.bonds.__getitem__)
        return (
            f"needs a bond of dimension 2^{log2(prediction.bonds[most]):.0f} between qubits {most} and {most + 1}, "
            f"which {prediction.crossings[most]} gates cross, and {_bytes(prediction.memory)} a sample, of which "
            f'{_bytes(memory)} are free; truncate the bonds, as in ("{self.name}", {{"max_bond": 64}}), or order the '
            "qubits so that fewer gates cross"
        )

    def _refuses_shape(self, circuit: FlatCircuit, output: Output, options: Options) -> str | None:
        if circuit.num_qubits == 0:
            return "needs at least one qubit"
        if options.executor is not None:
            return "computes in the threads of torch, and takes no executor; leave executor= out"
        if isinstance(output, Probabilities) and len(output.qubits) > _MAX_OUTCOME_QUBITS:
            return f"gives probabilities of at most {_MAX_OUTCOME_QUBITS} qubits, not {len(output.qubits)}; use samples"
        if isinstance(output, State) and circuit.num_qubits > _MAX_STATE_QUBITS:
            return f"gives a state vector of at most {_MAX_STATE_QUBITS} qubits, not {circuit.num_qubits}"
        for state in (self.initial, output.target if isinstance(output, Overlap) else None):
            if state is not None and state.num_qubits != circuit.num_qubits:
                return (
                    f"has a matrix product state of {state.num_qubits} qubits for {circuit.num_qubits} in the circuit"
                )
        if self.initial is not None and circuit.initial:
            return "starts from the matrix product state given as initial, so the circuit cannot prepare amplitudes"
        return None

    def cost(self, circuit: FlatCircuit, output: Output, options: Options) -> Cost:
        prediction = self._predict(circuit, output, options)
        return Cost(prediction.multiply_adds, prediction.memory)

    def compile(self, circuit: FlatCircuit, output: Output, options: Options) -> Engine:
        count, bits = circuit.num_qubits, self._free_bits(circuit.num_qubits)
        registers = [Register(p.qubits) for p in circuit.initial]
        entering = [a + b for a, b in zip(initial_bits(count, registers), self._start_bits(count), strict=True)]
        gates = [op for op in circuit.operations if isinstance(op, Clifford | PauliRotation)]  # noise is refused
        columns = gate_columns(count, gates, entering, bits, rename=not isinstance(output, Overlap))
        start = None if self.initial is None else self.initial.tensors
        dtype = torch.complex64 if options.dtype == "complex64" else torch.complex128
        engine = MatrixProductStateEngine(
            columns, registers, start, output, _readout(output, columns), self._truncation(count, dtype),
            self._plan(circuit, output, options, columns), dtype,
        )  # fmt: skip
        is_state = isinstance(output, State)
        return PhasedEngine(engine, PhaseFactor.of(circuit.phase, options.dtype)) if is_state else engine

    def _truncation(self, count: int, dtype: torch.dtype) -> Truncation:
        cutoff = max(self.cutoff, _SINGLE_CUTOFF if dtype == torch.complex64 else 0.0)
        free = 2 ** self._free_bits(count)
        adjoint = self.adjoint_bond or (None if self.max_bond is None else 3 * self.max_bond)
        state = Limits(self.max_bond, self.max_bond or free, cutoff)
        return Truncation(state, Limits(adjoint, adjoint or free, cutoff), self.tolerance)

    def _free_bits(self, count: int) -> int:
        """log2 of the bond dimension up to which nothing is decomposed."""
        return min(count // 2 + 2, _FREE_BITS) if self.max_bond is None else self.max_bond.bit_length() - 1

    def _start_bits(self, count: int) -> list[int]:
        if self.initial is None:
            return [0] * (count - 1)
        return [(d - 1).bit_length() for d in self.initial.bond_dimensions]

    def _predict(self, circuit: FlatCircuit, output: Output, options: Options) -> Prediction:
        count, itemsize = circuit.num_qubits, 8 if options.dtype == "complex64" else 16
        return predict(circuit, output, self.max_bond, self._free_bits(count), self._start_bits(count), itemsize)

    def _plan(self, circuit: FlatCircuit, output: Output, options: Options, columns: GateColumns) -> Plan:
        prediction = self._predict(circuit, output, options)
        largest = max(prediction.bonds, default=1.0)
        numbers = sum(2 * a * b for a, b in zip((1.0, *prediction.bonds), (*prediction.bonds, 1.0), strict=True))
        notes = [f"bonds of dimension {largest:.6g} or less"]
        if len(columns.segments) > 1:
            notes.append(f"truncated up to {len(columns.segments)} times")
        states = ((log2(numbers), 1 + len(columns.segments)),)
        return Plan(self.name, states, prediction.memory, prediction.multiply_adds, tuple(notes))


def _bytes(number: float) -> str:
    power = 0
    while number >= 1024 and power < len(_UNITS) - 1:
        number, power = number / 1024, power + 1
    return f"{number:.3g} {_UNITS[power]}"


def _readout(output: Any, columns: GateColumns) -> Readout | None:
    if isinstance(output, Expectation):
        return ExpectationReadout(pauli_mpo(output.observables, columns.site_of))
    if isinstance(output, Probabilities):
        return ProbabilityReadout(output.qubits, columns.site_of)
    if isinstance(output, State):
        return StateReadout(columns.site_of)
    if isinstance(output, Overlap):
        return OverlapReadout(output.target)
    return None
