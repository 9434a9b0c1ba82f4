"""The metric of a module beside Qiskit Algorithms' ``LinCombQGT`` and PennyLane's conventions."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import efficient_su2, real_amplitudes, z_feature_map
from qiskit.primitives import StatevectorEstimator
from qiskit_algorithms.gradients import DerivativeType, LinCombQGT
from torch.func import functional_call, jacrev

import qtm


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


@pytest.mark.parametrize("circuit", [efficient_su2(3, reps=1), real_amplitudes(3, reps=1)])
def test_it_is_the_geometric_tensor_of_qiskit(circuit):
    module = qtm.QuantumModule(circuit, None, circuit.parameters, seed_init=0).double()
    qgt = LinCombQGT(StatevectorEstimator(), derivative_type=DerivativeType.REAL)
    expected = qgt.run([circuit], [module.variational.tolist()]).result().qgts[0]
    np.testing.assert_allclose(module.metric().matrix(), expected, atol=1e-8)


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
    torch.testing.assert_close(module.metric(inputs).matrix(), expected)
    torch.testing.assert_close(module.metric(inputs.reshape(5, 1, 2)).matrix(), expected)
    vector = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    torch.testing.assert_close(module.metric(inputs).product(vector), expected @ vector)
    single = copy.deepcopy(module).float().metric(inputs).product(vector)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected @ vector, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("threads", [1, 2])
def test_large_states(threads):
    circuit = efficient_su2(13, reps=1, su2_gates=["rx", "p"], entanglement="pairwise")
    settings = {"num_threads_forward": threads, "num_threads_backward": threads, "seed_init": 0}
    module = qtm.QuantumModule(circuit, None, circuit.parameters, **settings).double()
    metric, state = module.metric(), qtm.QuantumModule(circuit, None, circuit.parameters, outputs="state", **settings)
    vector = torch.cos(torch.arange(metric.num_parameters, dtype=torch.float64))
    state.double()
    found = metric.product(vector)
    slope = torch.func.jvp(
        lambda w: functional_call(state, {"variational": w}, ()), (state.variational.detach(),), (vector,)
    )[1]
    psi = state().detach()
    rest = slope - psi * torch.vdot(psi, slope)
    assert torch.dot(found, vector).item() == pytest.approx(torch.vdot(rest, rest).real.item(), abs=1e-10)
    other = torch.sin(torch.arange(metric.num_parameters, dtype=torch.float64))
    torch.testing.assert_close(torch.dot(metric.product(other), vector), torch.dot(found, other))


def test_several_sets_follow_one_another_and_pickles_agree():
    circuit = efficient_su2(2, reps=1)
    parameters = list(circuit.parameters)
    one = qtm.QuantumModule(circuit, None, parameters, seed_init=0).double()
    two = qtm.QuantumModule(circuit, None, [parameters[:3], parameters[3:]]).double()
    with torch.no_grad():
        for own, values in zip(two.variational_, one.variational.split([3, 5]), strict=True):
            own.copy_(values)
    torch.testing.assert_close(two.metric().matrix(), one.metric().matrix())
    copied = pickle.loads(pickle.dumps(two))
    torch.testing.assert_close(copied.metric().matrix(), one.metric().matrix())


def test_refusals():
    feature_map, ansatz = z_feature_map(2), real_amplitudes(2, reps=1)
    circuit = feature_map.compose(ansatz)
    features, weights = list(feature_map.parameters), list(ansatz.parameters)
    module = qtm.QuantumModule(circuit, features, weights)
    with pytest.raises(qtm.ShapeError, match="encoding parameters"):
        module.metric()
    with pytest.raises(qtm.ShapeError, match="expected \\(4,\\)"):
        module.metric(torch.zeros(2)).product(torch.zeros(3))
    on_shots = qtm.QuantumModule(circuit, features, weights, estimator=StatevectorEstimator(), gradient="param-shift")
    with pytest.raises(qtm.UnsupportedError, match="leave estimator= out"):
        on_shots.metric(torch.zeros(2))
    noisy = qtm.QuantumModule(circuit, features, weights, noise=qtm.local_pauli_noise(0.01))
    with pytest.raises(qtm.UnsupportedError, match="no State"):
        noisy.metric(torch.zeros(2))
    chain = qtm.QuantumModule(circuit, features, weights, method="matrix_product_state")
    with pytest.raises(qtm.UnsupportedError, match="no metric"):
        chain.metric(torch.zeros(2)).product(torch.zeros(4))
