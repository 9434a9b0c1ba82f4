"""Second derivatives and forward mode: gradgradcheck, every composition of transforms, and what is refused."""

from __future__ import annotations

import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import efficient_su2, real_amplitudes, zz_feature_map
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.circuit.library import raw_feature_vector
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap

import qtm
from qtm._engines.statevector import tiling

OUTPUTS = ("expectation", "probabilities", ("probabilities", {"qubits": [1]}), "state")
each_output = pytest.mark.parametrize("outputs", OUTPUTS, ids=str)


def encoded(**settings) -> qtm.QuantumModule:
    """Products of inputs, phases, and a global phase that holds an input and a weight."""
    features, ansatz = zz_feature_map(2, reps=1), efficient_su2(2, reps=1)
    circuit = features.compose(ansatz)
    circuit.global_phase = ansatz.parameters[0] * features.parameters[1]
    return qtm.QuantumModule(circuit, features.parameters, ansatz.parameters, seed_init=0, **settings).double()


def amplitude_encoded(**settings) -> qtm.QuantumModule:
    """Inputs as normalised amplitudes."""
    features, ansatz = ParameterVector("f", 4), efficient_su2(2, reps=1, su2_gates=["ry", "p"])
    feature_map = raw_feature_vector(4)
    circuit = QuantumCircuit(2)
    circuit.append(feature_map.to_instruction(dict(zip(feature_map.parameters, features, strict=True))), [0, 1])
    circuit.compose(ansatz, inplace=True)
    return qtm.QuantumModule(circuit, features, ansatz.parameters, seed_init=0, **settings).double()


def in_cones(**settings) -> qtm.QuantumModule:
    """Twelve qubits whose observables are many small states, equal ones in one batch."""
    circuit = efficient_su2(12, reps=1, entanglement="pairwise")
    observables = [SparsePauliOp.from_sparse_list([("ZX", [q, q + 1], 0.5), ("Y", [q], 1.0)], 12) for q in (0, 4, 9)]
    features, weights = list(circuit.parameters[:2]), list(circuit.parameters[2:])
    return qtm.QuantumModule(circuit, features, weights, seed_init=0, observables=observables, **settings).double()


def function_of(module: qtm.QuantumModule):
    return lambda x, w: functional_call(module, {"variational": w}, (x,))


def point_of(module: qtm.QuantumModule, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.linspace(0.3, 1.7, batch * module.input_size, dtype=torch.float64).reshape(batch, -1)
    return x.requires_grad_(), module.variational.detach().clone().requires_grad_()


def number_of(values: torch.Tensor) -> torch.Tensor:
    """A loss whose second derivative holds values, first and second derivatives."""
    real = torch.view_as_real(values) if values.is_complex() else values
    return (real.square() * torch.arange(1.0, real.numel() + 1).reshape(real.shape)).sum()


@each_output
@pytest.mark.parametrize("make", [encoded, amplitude_encoded])
@pytest.mark.thinned(24)
def test_gradgradcheck(make, outputs):
    module = make(outputs=outputs)
    run, point = function_of(module), point_of(module)
    assert gradcheck(run, point, check_forward_ad=True)
    assert gradgradcheck(run, point, check_fwd_over_rev=True)


def test_many_cones():
    module = in_cones()
    assert len(module.plan().states) > 1 or module.plan().states[0][1] > 1
    run, point = function_of(module), point_of(module)
    assert gradcheck(run, point, check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(run, point, check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.thinned(4)
@each_output
@pytest.mark.parametrize("make", [encoded, amplitude_encoded])
def test_every_way_to_a_hessian(make, outputs):
    module = make(outputs=outputs)
    run, (x, w) = function_of(module), point_of(module)
    x, w = x.detach(), w.detach()

    def loss(w: torch.Tensor) -> torch.Tensor:
        return number_of(run(x, w))

    expected = torch.autograd.functional.hessian(loss, w)
    torch.testing.assert_close(expected, expected.T)
    assert expected.abs().max() > 0.1
    for found in (hessian(loss), jacrev(jacrev(loss)), jacrev(jacfwd(loss)), jacfwd(jacfwd(loss))):
        torch.testing.assert_close(found(w), expected)
    direction = torch.linspace(-1, 1, len(w), dtype=torch.float64)
    torch.testing.assert_close(jvp(grad(loss), (w,), (direction,))[1], expected @ direction)
    _, product = torch.autograd.functional.hvp(loss, w, direction)
    torch.testing.assert_close(product, expected @ direction)


@each_output
def test_forward_mode_is_reverse_mode(outputs):
    module = encoded(outputs=outputs)
    run, (x, w) = function_of(module), point_of(module)
    x, w = x.detach(), w.detach()

    def real(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        values = run(x, w)
        return torch.view_as_real(values) if values.is_complex() else values

    for place in (0, 1):
        torch.testing.assert_close(jacfwd(real, place)(x, w), jacrev(real, place)(x, w))
    many = torch.stack([w, w + 0.3])
    found = vmap(lambda w: jvp(run, (x, w), (torch.ones_like(x), torch.ones_like(w)))[1])(many)
    for row, own in zip(found, many, strict=True):
        torch.testing.assert_close(row, jvp(run, (x, own), (torch.ones_like(x), torch.ones_like(own)))[1])
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        tangent = torch.autograd.forward_ad.unpack_dual(run(dual, w)).tangent
    torch.testing.assert_close(tangent, jvp(run, (x, w), (torch.ones_like(x), torch.zeros_like(w)))[1])


def test_gradient_penalties_train():
    """The derivative by the weights of a loss that holds the derivative by the inputs."""
    module = encoded()
    x, _ = point_of(module)

    def loss() -> torch.Tensor:
        (slope,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
        return slope.square().sum() + module(x).square().sum()

    loss().backward()
    found = module.variational.grad.clone()
    step = 1e-5
    for place in range(3):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                module.variational[place] += sign * step
            values.append(loss().item())
            with torch.no_grad():
                module.variational[place] -= sign * step
        assert found[place].item() == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-7)


def test_second_derivatives_by_the_inputs():
    """u'' of cos(x) is -cos(x), whatever is done with u' in between."""
    circuit, x = QuantumCircuit(1), ParameterVector("x", 1)
    circuit.ry(x[0], 0)
    module = qtm.QuantumModule(circuit, x, [], observables=["Z"]).double()
    at = torch.linspace(-2, 2, 7, dtype=torch.float64).reshape(-1, 1).requires_grad_()
    (first,) = torch.autograd.grad(module(at).sum(), at, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), at)
    torch.testing.assert_close(first, -at.sin())
    torch.testing.assert_close(second, -at.detach().cos())
    assert vmap(hessian(lambda t: module(t[None]).sum()))(at.detach()).shape == (7, 1, 1)


@pytest.mark.parametrize("make", [real_amplitudes, efficient_su2])
@pytest.mark.parametrize("batch", [1, 20])
@pytest.mark.parametrize("threads", [1, 2])
def test_large_states_in_threads_and_lanes(make, batch, threads, monkeypatch):
    """Sample and amplitude lanes, and a team that shares one state, agree with differences of first derivatives."""
    monkeypatch.setattr(tiling, "WORTH_A_THREAD", 0)
    monkeypatch.setattr(tiling, "WORTH_A_TEAM", 0)
    circuit = make(13, reps=2)
    features, weights = list(circuit.parameters[:1]), list(circuit.parameters[1:])
    observables = ["Z" * 13, "IX" * 6 + "Y"]
    settings = {"num_threads_forward": threads, "num_threads_backward": threads, "observables": observables}
    module = qtm.QuantumModule(circuit, features, weights, seed_init=0, **settings).double()
    run, (x, w) = function_of(module), point_of(module, batch)
    direction = torch.cos(torch.arange(len(w), dtype=torch.float64))
    (first,) = torch.autograd.grad(number_of(run(x, w)), w, create_graph=True)
    (found,) = torch.autograd.grad(first, w, direction)
    moved = []
    for sign in (1, -1):
        at = (w + sign * 1e-4 * direction).detach().requires_grad_()
        moved.append(torch.autograd.grad(number_of(run(x.detach(), at)), at)[0])
    torch.testing.assert_close(found, (moved[0] - moved[1]) / 2e-4, rtol=1e-6, atol=1e-5)


@pytest.mark.slow
def test_single_precision():
    module = encoded()
    run, (x, w) = function_of(module), point_of(module)
    expected = hessian(lambda w: number_of(run(x.detach(), w)))(w.detach())
    single = function_of(encoded().float())
    found = hessian(lambda w: number_of(single(x.detach().float(), w)))(w.detach().float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=2e-3, rtol=1e-3)


def test_an_ideal_estimator_has_them_too():
    plain = encoded()
    module = encoded(estimator=qtm.FastEstimator())
    x, _ = point_of(module)
    for made in (plain, module):
        (first,) = torch.autograd.grad(made(x).square().sum(), x, create_graph=True)
        made.zero_grad()
        first.square().sum().backward()
    torch.testing.assert_close(module.variational.grad, plain.variational.grad)


def test_third_derivatives_are_refused():
    module = encoded()
    run, (x, w) = function_of(module), point_of(module)
    (first,) = torch.autograd.grad(run(x, w).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x, create_graph=True)
    with pytest.raises(qtm.UnsupportedError, match="not third ones"):
        second.sum().backward()
    for derivative in (jacrev, jacfwd):
        with pytest.raises(qtm.UnsupportedError, match="not third ones"):
            derivative(hessian(lambda v: run(x.detach(), v).sum()))(w.detach())


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "matrix_product_state"},
        {"method": "density_matrix"},
        {"noise": qtm.local_pauli_noise(0.01)},
        {"estimator": StatevectorEstimator(), "gradient": "param-shift"},
    ],
    ids=["matrix_product_state", "density_matrix", "noise", "estimator"],
)
def test_missing_second_derivatives_raise_errors(settings):
    module = encoded(**settings)
    x, _ = point_of(module)
    values = module(x)
    (first,) = torch.autograd.grad(values.sum(), x, create_graph=True)
    with pytest.raises(qtm.UnsupportedError, match="first derivatives"):
        first.sum().backward()
    with pytest.raises(qtm.UnsupportedError, match="forward mode|reverse mode only"):
        jvp(module, (x.detach(),), (torch.ones_like(x),))
