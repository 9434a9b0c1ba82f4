"""Probabilities, states and samples of modules, beside Qiskit's ``Statevector``."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from circuit_cases import UNITARY, random_circuit
from qiskit import QuantumCircuit
from qiskit.circuit import ClassicalRegister, ParameterVector
from qiskit.circuit.library import efficient_su2, real_amplitudes, zz_feature_map
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import Statevector
from qiskit_machine_learning.circuit.library import raw_feature_vector
from torch.func import functional_call

import qtm
from qtm.states import fidelity, renyi_2_entropy

BITS = {torch.float32: 2e-5, torch.float64: 1e-12}


def encoded() -> tuple[QuantumCircuit, list, list]:
    """Three features and a global phase that holds a feature and a weight."""
    features, ansatz = zz_feature_map(3, reps=1), efficient_su2(3, reps=1)
    circuit = features.compose(ansatz)
    circuit.global_phase = ansatz.parameters[0] * features.parameters[1]
    return circuit, list(features.parameters), list(ansatz.parameters)


def amplitude_encoded() -> tuple[QuantumCircuit, list, list]:
    """Eight features as amplitudes, which are normalised."""
    features = ParameterVector("f", 4)
    weights = ParameterVector("w", 4)
    circuit = QuantumCircuit(2)
    feature_map = raw_feature_vector(4)
    circuit.append(feature_map.to_instruction(dict(zip(feature_map.parameters, features, strict=True))), [0, 1])
    for qubit in range(2):
        circuit.ry(weights[qubit], qubit)
        circuit.p(weights[2 + qubit], qubit)
    circuit.cx(0, 1)
    circuit.sx(1)
    return circuit, list(features), list(weights)


def module_of(made, **settings) -> qtm.QuantumModule:
    circuit, features, weights = made
    return qtm.QuantumModule(circuit, features, weights, seed_init=0, **settings)


def statevectors(made, inputs: torch.Tensor, weights: torch.Tensor) -> list[Statevector]:
    circuit, features, own = made
    rows = [[*row, *weights.tolist()] for row in inputs.double().tolist()]
    return [Statevector(circuit.assign_parameters(dict(zip([*features, *own], row, strict=True)))) for row in rows]


@pytest.mark.parametrize("dtype", BITS)
def test_values(dtype):
    made = encoded()
    x = torch.linspace(-2, 2, 18, dtype=dtype).reshape(2, 3, 3)
    psi = module_of(made, outputs="state").to(dtype)
    some = module_of(made, outputs=("probabilities", {"qubits": [2, 0]})).to(dtype)
    every = module_of(made, outputs="probabilities").to(dtype)
    assert (psi.output_size, some.output_size, every.output_size) == (8, 4, 8)
    found = psi(x)
    assert found.shape == (2, 3, 8) and found.is_complex() and found.real.dtype == dtype
    for i, state in enumerate(statevectors(made, x.reshape(6, 3), psi.variational)):
        np.testing.assert_allclose(found.detach().reshape(6, 8)[i], state.data, atol=BITS[dtype])
        row = every(x).detach().reshape(6, 8)[i]
        np.testing.assert_allclose(row, state.probabilities(), atol=BITS[dtype])
        row = some(x).detach().reshape(6, 4)[i]
        np.testing.assert_allclose(row, state.probabilities([2, 0]), atol=BITS[dtype])


@pytest.mark.parametrize("make", [encoded, amplitude_encoded])
@pytest.mark.parametrize("outputs", ["state", "probabilities", ("probabilities", {"qubits": [1]})])
def test_derivatives_by_inputs_and_weights(make, outputs):
    """Any cotangent: gradcheck pulls back every unit vector, real and imaginary."""
    made = make()
    module = module_of(made, outputs=outputs).double()
    x = torch.linspace(0.3, 1.4, 2 * len(made[1]), dtype=torch.float64).reshape(2, -1).requires_grad_()
    weights = module.variational.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: functional_call(module, {"variational": w}, (x,)), (x, weights))


@pytest.mark.parametrize("outputs", ["state", "probabilities"])
def test_without_inputs(outputs):
    circuit = random_circuit(3, 3, 12, UNITARY)
    module = qtm.QuantumModule(circuit, None, circuit.parameters, outputs=outputs, seed_init=0).double()
    bound = circuit.assign_parameters(dict(zip(circuit.parameters, module.variational.tolist(), strict=True)))
    state = Statevector(bound)
    expected = state.data if outputs == "state" else state.probabilities()
    np.testing.assert_allclose(module().detach(), expected, atol=1e-12)


def test_a_phase_that_no_gate_has():
    circuit = QuantumCircuit(1)
    t = ParameterVector("t", 2)
    circuit.global_phase = t[0].sin() * 2
    circuit.ry(t[1], 0)
    module = qtm.QuantumModule(circuit, None, t, outputs="state", variational_params_initial=[0.4, 0.6]).double()
    (module()[0].imag).backward()
    expected = [np.cos(0.3) * np.cos(2 * np.sin(0.4)) * 2 * np.cos(0.4), -0.5 * np.sin(0.3) * np.sin(2 * np.sin(0.4))]
    np.testing.assert_allclose(module.variational.grad, expected, atol=1e-7)


def test_a_loss_of_states_trains():
    circuit, features, weights = encoded()
    module = module_of((circuit, features, weights), outputs="state")
    target = torch.zeros(8)
    target[5] = 1.0
    x = torch.zeros(4, 3)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    start = fidelity(module(x), target).mean().item()
    for _ in range(60):
        optimizer.zero_grad()
        psi = module(x)
        loss = 1 - fidelity(psi, target).mean() + 0.01 * renyi_2_entropy(psi, [0]).mean()
        loss.backward()
        optimizer.step()
    assert fidelity(module(x), target).mean().item() > start + 0.3


@pytest.mark.parametrize("batch", [1, 5, 40])
@pytest.mark.parametrize("threads", [(1, 1), (2, 2), (1, 2)])
def test_large_states_in_threads_and_lanes(batch, threads):
    """Sample and amplitude lanes, and teams, give what one thread and Qiskit give."""
    circuit = efficient_su2(11, reps=1, entanglement="pairwise")
    features, weights = list(circuit.parameters[:3]), list(circuit.parameters[3:])
    made = circuit, features, weights
    forward, backward = threads
    module = module_of(made, outputs="state", num_threads_forward=forward, num_threads_backward=backward).double()
    x = torch.linspace(-1, 1, 3 * batch, dtype=torch.float64).reshape(batch, 3)
    psi = module(x)
    np.testing.assert_allclose(psi[-1].detach(), statevectors(made, x[-1:], module.variational)[0].data, atol=1e-12)
    target = torch.full((2048,), 2048**-0.5)
    fidelity(psi, target).sum().backward()
    values = module_of(made, outputs="probabilities").double()
    np.testing.assert_allclose(values(x).detach(), psi.detach().abs() ** 2, atol=1e-12)
    slow = module_of(made, outputs="state", num_threads_forward=1, num_threads_backward=1).double()
    for row in x:
        fidelity(slow(row), target).backward()
    torch.testing.assert_close(module.variational.grad, slow.variational.grad, atol=1e-10, rtol=0)


def test_samples():
    made = encoded()
    module = module_of(made, outputs=("probabilities", {"qubits": [2, 0]}))
    x = torch.rand(2, 2, 3)
    bits = module.sample(x, shots=4000, seed=1)
    assert bits.shape == (2, 2, 4000, 2) and bits.dtype == torch.bool
    torch.testing.assert_close(module.sample(x, shots=4000, seed=1), bits)
    assert not torch.equal(module.sample(x, shots=4000, seed=2), bits)
    outcomes = (bits[..., 0].long() + 2 * bits[..., 1].long()).reshape(4, -1)
    counts = torch.stack([torch.bincount(row, minlength=4) for row in outcomes]) / 4000
    torch.testing.assert_close(counts, module(x).detach().reshape(4, 4), atol=0.05, rtol=0)
    assert module_of(made).sample(x, shots=3, seed=1).shape == (2, 2, 3, 3)


def test_other_methods_compute_what_they_declare():
    made = encoded()
    x = torch.rand(2, 3)
    exact = module_of(made, outputs="probabilities")(x)
    for method in ("density_matrix", "matrix_product_state"):
        torch.testing.assert_close(module_of(made, outputs="probabilities", method=method)(x), exact)
        assert module_of(made, method=method).sample(x, shots=5, seed=0).shape == (2, 5, 3)
    psi = module_of(made, outputs="state", method="matrix_product_state")(x)
    torch.testing.assert_close(psi, module_of(made, outputs="state")(x))
    with pytest.raises(qtm.UnsupportedError, match="gives no State"):
        module_of(made, outputs="state", method="density_matrix")


def test_probabilities_with_noise():
    made = encoded()
    module = module_of(made, outputs="probabilities", noise=qtm.local_pauli_noise(0.05))
    exact = module_of(made, outputs="probabilities")
    x = torch.rand(2, 3)
    assert (module(x) - exact(x)).abs().max() > 1e-3
    torch.testing.assert_close(module(x).sum(-1), torch.ones(2))
    with pytest.raises(qtm.UnsupportedError, match="no State"):
        module_of(made, outputs="state", noise=qtm.local_pauli_noise(0.05))


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ("amplitudes", "outputs must be a name"),
        (3, "outputs must be a name"),
        (("state", {"qubits": [0]}), "no option 'qubits'"),
        (("probabilities", {"qubit": [0]}), "no option 'qubit'"),
        (("probabilities", {"qubits": [0, 3]}), "holds 3; the qubits of the circuit are 0 to 2"),
        (("probabilities", {"qubits": [1, 1]}), "names a qubit twice"),
        (("probabilities", {"qubits": []}), "a list of qubit numbers"),
        (("probabilities", {"qubits": [0.5]}), "a list of qubit numbers"),
    ],
)
def test_unknown_outputs(outputs, message):
    with pytest.raises(qtm.ParameterError, match=message):
        module_of(encoded(), outputs=outputs)


def test_what_cannot_be_had():
    made = encoded()
    with pytest.raises(qtm.ParameterError, match="has no observables"):
        module_of(made, outputs="state", observables=["ZZZ"])
    with pytest.raises(qtm.UnsupportedError, match="differentiates expectation values"):
        module_of(made, outputs="state", gradient="param-shift")
    with pytest.raises(qtm.UnsupportedError, match="gives expectation values; leave estimator= out"):
        module_of(made, outputs="probabilities", estimator=qtm.FastEstimator(default_precision=0.1))
    shots = module_of(made, estimator=StatevectorEstimator(), gradient="param-shift")
    with pytest.raises(qtm.UnsupportedError, match="StatevectorEstimator gives expectation values"):
        shots.sample(torch.zeros(3), shots=3)
    module = module_of(made)
    with pytest.raises(qtm.ParameterError, match="shots"):
        module.sample(torch.zeros(3), shots=-1)
    with pytest.raises(qtm.ShapeError, match="encoding parameters"):
        module.sample()
    wide = real_amplitudes(50, reps=1)
    with pytest.raises(qtm.OutOfMemory, match="50 qubits"):
        qtm.QuantumModule(wide, None, wide.parameters, outputs="state")
    with pytest.raises(qtm.OutOfMemory, match="50 qubits"):
        qtm.QuantumModule(wide, None, wide.parameters, outputs="probabilities")
    idle, angle = QuantumCircuit(45), ParameterVector("t", 1)  # few amplitudes, in a state of very many
    idle.ry(angle[0], 0)
    for outputs in ("state", "probabilities"):
        with pytest.raises(qtm.OutOfMemory, match="of 1 samples need"):
            qtm.QuantumModule(idle, None, angle, outputs=outputs)()
    dynamic = QuantumCircuit(2)
    dynamic.add_register(ClassicalRegister(1))
    t = ParameterVector("t", 1)
    dynamic.ry(t[0], 0)
    dynamic.measure(0, 0)
    dynamic.x(0)
    with pytest.raises(qtm.CircuitError, match="mixed state"):
        qtm.QuantumModule(dynamic, None, t, outputs="state")
    assert qtm.QuantumModule(dynamic, None, t, outputs="probabilities")().shape == (4,)
