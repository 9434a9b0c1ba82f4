"""Inputs and parameter sets to values in one step, against the general way through torch."""

from __future__ import annotations

import pytest
import torch
from circuit_cases import EXPRESSIONS
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import real_amplitudes, z_feature_map

from qtm import FastEstimator, ParameterError, QuantumModule
from qtm._engines.monomial_angles import MonomialAngles
from qtm._torch.autograd import _by_angles
from qtm.circuits import amplitude_encoding

X, W, V = ParameterVector("x", 3), ParameterVector("w", 4), ParameterVector("v", 2)
SUMS = [
    W[0],
    X[0],
    W[0] * X[0],
    2 * X[1] - 0.3,
    X[0] * X[1] * W[1],
    X[2] ** 2 * W[2] + W[2] ** 3 - V[0] * W[1] + 0.5,
    V[0] * V[1] * X[0] - X[0] * W[0] + 3 * X[2],
    V[1] - V[0],
    W[3] * W[3],
]


def circuit(angles=SUMS) -> QuantumCircuit:
    made = QuantumCircuit(3)
    for number, angle in enumerate(angles):
        made.ry(angle, number % 3)
        made.rx(0.1 + number, (number + 1) % 3)
        made.cx(number % 3, (number + 1) % 3)
        made.rzz(angle, 0, 2)
    return made


def module(dtype=torch.float64, **options) -> QuantumModule:
    made = QuantumModule(circuit(), X, [W, V], seed_init=3, observables=["XZI", "IYZ", "ZII"], **options)
    return made.to(dtype)


def values_and_gradients(made: QuantumModule, inputs, by_angles: bool):
    """Values, and derivatives of a weighted sum by inputs (where they require one) and sets."""
    sets = list(made.parameters())
    method = made._method(sets[0].dtype)
    values = _by_angles(method, inputs, sets, len(inputs)) if by_angles else made(inputs)
    weights = torch.linspace(-1, 2, values.numel(), dtype=values.dtype).reshape(values.shape)
    leaves = [inputs, *sets] if inputs.requires_grad else sets
    return [values.detach(), *torch.autograd.grad((values * weights).sum(), leaves)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("by_inputs", [False, True])
@pytest.mark.parametrize("batch", [0, 1, 17])
def test_it_agrees_with_torch_and_the_engine(dtype, by_inputs, batch):
    made = module(dtype)
    assert made._method(dtype).fused is not None
    inputs = torch.randn(batch, 3, dtype=dtype, generator=torch.Generator().manual_seed(1)).requires_grad_(by_inputs)
    fused = values_and_gradients(made, inputs, by_angles=False)
    expected = values_and_gradients(made, inputs, by_angles=True)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    for one, other in zip(fused, expected, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one, other, atol=tolerance, rtol=0)


@pytest.mark.parametrize("number", range(len(EXPRESSIONS)))
def test_other_expressions_keep_the_general_way(number):
    parameters = [Parameter(name) for name in ("a10", "a9", "λ")]
    angle = EXPRESSIONS[number](*parameters)
    made = QuantumCircuit(1)
    for parameter in parameters:
        made.ry(parameter, 0)
    made.rx(angle, 0)
    method = QuantumModule(made, None, parameters).double()._method(torch.float64)
    assert (method.fused is not None) == MonomialAngles.fits(method.simulation.angles)


def test_an_estimator_of_another_dtype_or_with_noise_keeps_the_general_way():
    assert module(estimator=FastEstimator())._method(torch.float64).fused is not None
    assert module(estimator=FastEstimator(dtype="complex64"))._method(torch.float64).fused is None
    assert module(estimator=FastEstimator(default_precision=0.1))._method(torch.float64).fused is None


def test_prepared_amplitudes_keep_the_general_way():
    made = QuantumModule.from_parts([amplitude_encoding(2), real_amplitudes(1, reps=1)], seed_init=0)
    assert made._method(torch.float32).fused is None


@pytest.mark.parametrize("frozen", ["variational_0", "variational_1"])
def test_a_frozen_set_gets_no_gradient(frozen):
    made, inputs = module(), torch.rand(4, 3, dtype=torch.float64)
    getattr(made, frozen).requires_grad_(False)
    made(inputs).sum().backward()
    for name, values in made.named_parameters():
        assert (values.grad is None) == (name == frozen)


def test_without_any_gradient_nothing_is_recorded():
    made = module().requires_grad_(False)
    assert not made(torch.rand(4, 3)).requires_grad


def test_an_empty_set_is_no_reason_to_record():
    features = z_feature_map(2)
    assert not QuantumModule(features, features.parameters, [])(torch.rand(4, 2)).requires_grad


def test_a_second_backward_pass_computes_again():
    made, inputs = module(), torch.rand(4, 3, dtype=torch.float64)
    values = made(inputs).sum()
    first = torch.autograd.grad(values, list(made.parameters()), retain_graph=True)
    second = torch.autograd.grad(values, list(made.parameters()))
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_tensors_that_changed_since_are_refused():
    made, inputs = module(), torch.rand(4, 3, dtype=torch.float64)
    values = made(inputs).sum()
    with torch.no_grad():
        made.variational_0.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        values.backward()


def test_memory_in_another_order_or_sign():
    """Columns of a larger tensor, a transposed one, and a lazily negated one."""
    made = module()
    whole = torch.randn(7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    lazily_negated = torch.complex(whole, -whole).conj().imag[:, :3]
    assert lazily_negated.is_neg()
    for inputs in (whole[:, 1:8:3], whole.T[:, :3], lazily_negated, whole[:1, :3].expand(5, 3)):
        expected = values_and_gradients(made, inputs.clone().contiguous(), by_angles=True)
        found = values_and_gradients(made, inputs, by_angles=False)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e20])
def test_meaningless_angles_are_named(bad):
    made, inputs = module(), torch.zeros(3, 3, dtype=torch.float64)
    inputs[1, 1] = bad
    with pytest.raises(ParameterError, match=r"x\[1\].* in sample 1"):
        made(inputs)


def test_sets_of_two_dtypes_are_promoted():
    made = module(torch.float32)
    made.variational_1.data = made.variational_1.data.double()
    inputs = torch.rand(3, 3)
    values = made(inputs)
    assert values.dtype == torch.float64
    values.sum().backward()
    assert made.variational_0.grad.dtype == torch.float32
    assert made.variational_1.grad.dtype == torch.float64


def test_weights_alone():
    ansatz = real_amplitudes(3, reps=1)
    made = QuantumModule(ansatz, None, ansatz.parameters, seed_init=0).double()
    method = made._method(torch.float64)
    expected = _by_angles(method, None, [made.variational], 1).squeeze(0)
    torch.testing.assert_close(made(), expected, atol=1e-12, rtol=0)
    (wanted,) = torch.autograd.grad(expected.sum(), made.variational)
    (found,) = torch.autograd.grad(made().sum(), made.variational)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)


# Second derivatives


def outputs_of(made: QuantumModule, inputs, by_angles: bool):
    sets = list(made.parameters())
    return _by_angles(made._method(sets[0].dtype), inputs, sets, len(inputs)) if by_angles else made(inputs)


def second_derivatives(made: QuantumModule, inputs, leaves, by_angles: bool):
    """First derivatives of a loss by ``leaves``, and those of a weighted sum of these."""
    values = outputs_of(made, inputs, by_angles)
    weights = torch.linspace(-1, 2, values.numel(), dtype=values.dtype).reshape(values.shape)
    first = torch.autograd.grad((values.sin() * weights).sum(), leaves, create_graph=True)
    total = sum((f * torch.linspace(-2, 1, f.numel(), dtype=f.dtype).reshape(f.shape)).sum() for f in first)
    return [*[f.detach() for f in first], *torch.autograd.grad(total, leaves)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("by_inputs", [False, True])
@pytest.mark.parametrize("batch", [0, 1, 17])
def test_second_derivatives_agree_with_torch_and_the_engine(dtype, by_inputs, batch):
    made = module(dtype)
    inputs = torch.randn(batch, 3, dtype=dtype, generator=torch.Generator().manual_seed(1)).requires_grad_(by_inputs)
    sets = list(made.parameters())
    for leaves in ([inputs, *sets] if by_inputs else sets, sets[:1], [inputs] if by_inputs else sets[1:]):
        found = second_derivatives(made, inputs, leaves, by_angles=False)
        expected = second_derivatives(made, inputs, leaves, by_angles=True)
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == dtype
            torch.testing.assert_close(one, other, atol=1e-10 if dtype == torch.float64 else 1e-3, rtol=0)


def test_derivatives_where_inputs_are_functions_of_the_weights():
    """What the inputs pass on to the weights must not be counted twice."""
    made = module()
    weights = made.variational_0

    def loss(by_angles: bool):
        inputs = torch.stack([weights[:3].sin(), weights[1:] * weights[0]])
        return outputs_of(made, inputs, by_angles).square().sum()

    wanted, found = (torch.autograd.grad(loss(by_angles), weights, create_graph=True)[0] for by_angles in (True, False))
    (plain,) = torch.autograd.grad(loss(False), weights)
    direction = torch.tensor([1.0, -2.0, 0.5, 0.3], dtype=torch.float64, requires_grad=True)
    products = []
    for first in (wanted, found):
        torch.testing.assert_close(first, plain, atol=1e-12, rtol=0)
        (product,) = torch.autograd.grad(first, weights, direction, retain_graph=True)
        # A product that may itself be differentiated, by the direction in which it is linear.
        (again,) = torch.autograd.grad(first, weights, direction, create_graph=True)
        torch.testing.assert_close(again, product, atol=1e-12, rtol=0)
        (transposed,) = torch.autograd.grad(again, direction, direction.detach())
        products += [product, transposed]
    for product in products[1:]:
        torch.testing.assert_close(product, products[0], atol=1e-11, rtol=0)


def test_a_gradient_is_differentiated_more_than_once():
    made, inputs = module(), torch.rand(4, 3, dtype=torch.float64)
    weights = made.variational_0
    values = made(inputs).sin().sum()
    for _ in range(2):  # the states serve the first time
        (first,) = torch.autograd.grad(values, weights, create_graph=True)
        rows = [torch.autograd.grad(f, weights, retain_graph=True)[0] for f in first]
        torch.testing.assert_close(torch.stack(rows), torch.stack(rows).T, atol=1e-12, rtol=0)
    with torch.no_grad():
        weights.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(first.sum(), weights)
