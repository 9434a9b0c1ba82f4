"""The simulation method `matrix_product_state` and its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from qtm._circuit.flatten import FlatCircuit
from qtm._engines.engine import SAMPLES, VALUES, VJP, Cost, Engine, Plan, SimulationMethod
from qtm._engines.matrix_product_state.engine import MatrixProductStateEngine, Truncation
from qtm._engines.matrix_product_state.evolution import Limits
from qtm._engines.matrix_product_state.gate_columns import GateColumns, gate_columns
from qtm._engines.matrix_product_state.initial_chain import Register, initial_bits
from qtm._engines.matrix_product_state.pauli_mpo import pauli_mpo
from qtm._engines.matrix_product_state.readouts import (
    ExpectationReadout,
    ProbabilityReadout,
    Readout,
    StateReadout,
)
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation, Output, Probabilities, Samples, State

_FREE_BITS = 7  # without a limit, truncate once bonds are larger than 2**7


@dataclass(frozen=True)
class MatrixProductState(SimulationMethod):
    name: ClassVar[str] = "matrix_product_state"
    devices: ClassVar[frozenset[str]] = frozenset({"cpu", "cuda"})
    gives: ClassVar[Mapping[type, frozenset[str]]] = {
        Expectation: frozenset({VALUES, VJP}),
        Probabilities: frozenset({VALUES, VJP}),
        State: frozenset({VALUES, VJP}),
        Samples: frozenset({SAMPLES}),
    }

    max_bond: int | None = None
    cutoff: float = 1e-12
    adjoint_bond: int | None = None
    tolerance: float = 1e-6

    def cost(self, circuit: FlatCircuit, output: Output, options: Options) -> Cost:
        return Cost(0, 0)

    def compile(self, circuit: FlatCircuit, output: Output, options: Options) -> Engine:
        n = circuit.num_qubits
        registers = [Register(p.qubits) for p in circuit.initial]
        free = min(n // 2 + 2, _FREE_BITS)
        limit_bits = free if self.max_bond is None else self.max_bond.bit_length() - 1
        columns = gate_columns(n, circuit.operations, initial_bits(n, registers), limit_bits)
        dtype = torch.complex64 if options.dtype == "complex64" else torch.complex128
        cutoff = max(self.cutoff, 1e-6 if dtype == torch.complex64 else 0.0)
        bound = self.max_bond or 2**limit_bits
        adjoint = self.adjoint_bond or self.max_bond
        truncation = Truncation(
            Limits(self.max_bond, bound, cutoff),
            Limits(adjoint, adjoint or bound, cutoff),
            self.tolerance,
        )
        return MatrixProductStateEngine(
            columns, registers, None, output, _readout(output, columns), truncation, Plan(self.name, (), 0, 0), dtype
        )


def _readout(output: Output, columns: GateColumns) -> Readout | None:
    if isinstance(output, Expectation):
        return ExpectationReadout(pauli_mpo(output.observables, columns.site_of))
    if isinstance(output, Probabilities):
        return ProbabilityReadout(output.qubits, columns.site_of)
    if isinstance(output, State):
        return StateReadout(columns.site_of)
    return None
