"""Products with the metric of states beside the Jacobian of states."""

from __future__ import annotations

import copy

import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import efficient_su2
from torch.func import functional_call, jacrev

import qtm
from qtm._optim.metric import StateGeometry


def from_states(module: qtm.QuantumModule, weights: torch.Tensor, inputs: torch.Tensor | None) -> torch.Tensor:
    """The mean metric from the Jacobian of states."""
    name = next(iter(dict(module.named_parameters())))

    def run(w: torch.Tensor) -> torch.Tensor:
        return torch.view_as_real(functional_call(module, {name: w}, () if inputs is None else (inputs,)))

    jacobian = torch.view_as_complex(jacrev(run)(weights).movedim(-2, -1).contiguous())
    states = torch.view_as_complex(run(weights))
    slopes, psi = (t.reshape(-1, *t.shape[t.ndim - k :]) for t, k in ((jacobian, 2), (states, 1)))
    berry = torch.einsum("ba,bak->bk", psi.conj(), slopes)
    metric = torch.einsum("bai,bak->bik", slopes.conj(), slopes) - berry.conj()[:, :, None] * berry[:, None]
    return metric.real.mean(0)


def matrix(module: qtm.QuantumModule, inputs: torch.Tensor | None = None) -> torch.Tensor:
    products, weights = StateGeometry(module).at(inputs), module.variational
    return torch.stack([products(unit) for unit in torch.eye(len(weights), dtype=weights.dtype)])


def test_it_is_a_mean_over_inputs():
    """Also where weights share angles with inputs, and in a phase that states have and the metric has not."""
    circuit, x, w = QuantumCircuit(2), ParameterVector("x", 2), ParameterVector("w", 4)
    circuit.global_phase = w[0] * 3
    circuit.h([0, 1])
    circuit.p(x[0] * w[0], 0)
    circuit.ry(w[1] + w[0] ** 2, 1)
    circuit.cx(0, 1)
    circuit.u(w[2], x[1], w[3], 0)
    circuit.ry(w[1], 0)
    module = qtm.QuantumModule(circuit, x, w, seed_init=0, outputs="state").double()
    inputs = torch.linspace(-1, 2, 10, dtype=torch.float64).reshape(5, 2)
    expected = from_states(module, module.variational.detach(), inputs)
    torch.testing.assert_close(matrix(module, inputs), expected)
    torch.testing.assert_close(matrix(module, inputs.reshape(5, 1, 2)), expected)
    vector = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    torch.testing.assert_close(StateGeometry(module).at(inputs)(vector), expected @ vector)
    single = StateGeometry(copy.deepcopy(module).float()).at(inputs)(vector.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected @ vector, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("threads", [1, 2])
def test_large_states(threads):
    circuit = efficient_su2(13, reps=1, su2_gates=["rx", "p"], entanglement="pairwise")
    settings = {"num_threads_forward": threads, "num_threads_backward": threads, "seed_init": 0}
    module = qtm.QuantumModule(circuit, None, circuit.parameters, **settings).double()
    product = StateGeometry(module).at(None)
    state = qtm.QuantumModule(circuit, None, circuit.parameters, outputs="state", **settings)
    vector = torch.cos(torch.arange(circuit.num_parameters, dtype=torch.float64))
    state.double()
    found = product(vector)
    slope = torch.func.jvp(
        lambda w: functional_call(state, {"variational": w}, ()), (state.variational.detach(),), (vector,)
    )[1]
    psi = state().detach()
    rest = slope - psi * torch.vdot(psi, slope)
    assert torch.dot(found, vector).item() == pytest.approx(torch.vdot(rest, rest).real.item(), abs=1e-10)
    other = torch.sin(torch.arange(circuit.num_parameters, dtype=torch.float64))
    torch.testing.assert_close(torch.dot(product(other), vector), torch.dot(found, other))
