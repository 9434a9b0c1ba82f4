"""Matrix product states of circuits: amplitudes, samples, overlaps, initial and target states.

For expectation values and their gradients use ``QuantumModule(..., method="matrix_product_state")``; this module
gives access to the states themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from torch import Tensor

from qtm._engines.matrix_product_state.engine import MatrixProductStateEngine, TruncationWarning
from qtm._engines.matrix_product_state.method import MatrixProductState
from qtm._engines.matrix_product_state.readouts import Overlap
from qtm._engines.matrix_product_state.states import MPS
from qtm._engines.options import Options
from qtm._engines.simulation import Simulation
from qtm._errors import ShapeError
from qtm._torch.inputs import as_numbers

__all__ = ["MPS", "MatrixProductState", "TruncationWarning", "overlap", "simulate"]


def simulate(circuit: QuantumCircuit, values: Any = None, **options: Any) -> MPS:
    """Simulate a circuit and return its final states.

    Args:
        circuit: any circuit that qtm can simulate.
        values: parameter values (batch, parameters) or (parameters,) in radians, in the circuit's order; float32
            computes in complex64. None for a circuit without parameters.
        **options: options of `MatrixProductState`.

    Raises:
        ShapeError: the shape of ``values`` does not fit the circuit.
        UnsupportedError: the bonds would not fit in memory.

    Example:
        >>> from qiskit import QuantumCircuit
        >>> from qtm.mps import simulate
        >>> ghz = QuantumCircuit(60)
        >>> ghz.h(0)  # doctest: +ELLIPSIS
        <...>
        >>> for q in range(59):
        ...     _ = ghz.cx(q, q + 1)
        >>> state = simulate(ghz)
        >>> abs(state.amplitudes(["1" * 60])).round(decimals=3)
        tensor([[0.7071]], dtype=torch.float64)
    """
    rows = _rows(circuit, values)
    zeros = MPS([torch.eye(2)[:1, :, None].double()] * circuit.num_qubits)
    simulation = _simulation(circuit, rows, Overlap(zeros), options)
    engine = simulation.engine
    assert isinstance(engine, MatrixProductStateEngine)
    with torch.no_grad():
        tensors, discarded = engine.state(*_arguments(simulation, rows))
    return MPS(tensors, discarded)


def overlap(circuit: QuantumCircuit, values: Tensor, target: MPS, **options: Any) -> Tensor:
    """Compute <target|psi> for the final states of a circuit, differentiable with respect to the values.

    Args:
        circuit: any circuit that qtm can simulate.
        values: parameter values (batch, parameters), or (parameters,), in radians, in the circuit's order.
        target: one state, or a batch with one state for each row of values.
        **options: options of `MatrixProductState`.

    Returns:
        Complex (batch,), or a scalar if ``values`` has no batch axis. The fidelity is its ``abs()**2``.

    Raises:
        ShapeError: the shape of ``values`` does not fit the circuit.
        UnsupportedError: the bonds would not fit in memory, or the target's number of qubits differs.

    Example:
        >>> import torch
        >>> from qiskit.circuit.library import real_amplitudes
        >>> from qtm.mps import overlap, simulate
        >>> ansatz = real_amplitudes(3, reps=1)
        >>> target = simulate(ansatz, torch.full((6,), 0.5))
        >>> values = torch.full((6,), 0.4, requires_grad=True)
        >>> loss = 1 - overlap(ansatz, values, target).abs() ** 2
        >>> loss.backward()
        >>> values.grad.shape
        torch.Size([6])
    """
    rows = _rows(circuit, values)
    simulation = _simulation(circuit, rows, Overlap(target), options)
    angles, prepared = _arguments(simulation, rows)
    result: Tensor = _Overlap.apply(simulation.engine, angles, *prepared)
    return result[:, 0] if torch.as_tensor(values).ndim == 2 else result[0, 0]


class _Overlap(torch.autograd.Function):
    """The output of an engine with the engine's own derivative."""

    @staticmethod
    def forward(ctx: Any, engine: MatrixProductStateEngine, angles: Tensor, *prepared: Tensor) -> Tensor:
        output, ctx.residuals = engine.forward(angles, prepared, keep=any(ctx.needs_input_grad))
        ctx.engine = engine
        ctx.save_for_backward(angles, *prepared)
        return output

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        angles, *prepared = ctx.saved_tensors
        wanted = any(ctx.needs_input_grad[2:])
        by_angles, by_prepared = ctx.engine.vjp(angles, prepared, cotangents[0], ctx.residuals, by_prepared=wanted)
        return None, by_angles, *(by_prepared or [None] * len(prepared))


def _rows(circuit: QuantumCircuit, values: Any) -> Tensor:
    rows = torch.zeros(1, 0) if values is None else as_numbers(values, "values")
    rows = rows[None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or rows.shape[1] != circuit.num_parameters:
        raise ShapeError(
            f"values have shape {tuple(rows.shape)}; expected (batch, {circuit.num_parameters}), "
            "one column for every parameter of the circuit"
        )
    return rows if rows.dtype == torch.float32 and rows.shape[1] else rows.double()


def _simulation(circuit: QuantumCircuit, rows: Tensor, output: Overlap, options: dict[str, Any]) -> Simulation:
    kind = "complex64" if rows.dtype == torch.float32 else "complex128"
    parameters: Sequence[Parameter] = list(circuit.parameters)
    method = MatrixProductState(**options)
    return Simulation(circuit, parameters, output, Options(kind, method=method))  # type: ignore[arg-type]


def _arguments(simulation: Simulation, rows: Tensor) -> tuple[Tensor, list[Tensor]]:
    return simulation.torch_arguments(rows, rows.new_zeros(0), len(rows))
