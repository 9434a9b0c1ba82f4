"""Derivatives through torch: gradcheck over all gates, transforms of torch.func, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from circuit_cases import EXPRESSIONS, STANDARD, random_circuit, random_observables
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import StatePreparation, efficient_su2, real_amplitudes
from torch.autograd import gradcheck
from torch.func import functional_call, grad, jacrev, vjp, vmap

from qtm import QuantumModule
from qtm._circuit.gates import GATES

X, W, V = ParameterVector("x", 2), ParameterVector("w", 3), ParameterVector("v", 2)


def circuit() -> QuantumCircuit:
    made = QuantumCircuit(2)
    made.ry(X[0] * W[0], 0)
    made.rx(X[1].sin(), 1)
    made.cx(0, 1)
    made.rz(W[1] + V[0] * X[0], 1)
    made.ry(W[2], 0)
    made.crx(V[1], 1, 0)
    return made


def module(**options) -> QuantumModule:
    return QuantumModule(
        circuit(), X, [W, V], **{"seed_init": 0, "observables": ["ZX", "YI", "IZ"], **options}
    ).double()


def inputs_of(made: QuantumModule, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, made.input_size, dtype=torch.float64, requires_grad=True)


def function_of(made: QuantumModule):
    """The module as a function of inputs and weights."""
    names = list(dict(made.named_parameters()))

    def run(inputs, *weights):
        return functional_call(made, dict(zip(names, weights, strict=True)), (inputs,))

    return run


def checked(made: QuantumModule, batch: int = 2) -> bool:
    return gradcheck(function_of(made), (inputs_of(made, batch), *made.parameters()))


# gradcheck


def test_gradcheck():
    assert checked(module(), 3)


@pytest.mark.parametrize(
    "name", [name for name in GATES if STANDARD[name].params and name not in ("delay", "global_phase")]
)
def test_gradcheck_over_the_gate_table(name):
    """Every parameter of every gate, once as an input and once as a weight."""
    count = len(STANDARD[name].params)
    inputs, weights = ParameterVector("x", count), ParameterVector("w", count)
    made = efficient_su2(3, reps=1).assign_parameters(np.linspace(-2, 2, 12))
    for vector, qubits in ((inputs, (0, 1, 2)), (weights, (2, 0, 1))):
        made.append(STANDARD[name].base_class(*vector), qubits[: STANDARD[name].num_qubits])
    made.compose(real_amplitudes(3, reps=1).assign_parameters(np.linspace(1, 2, 6)), inplace=True)
    assert checked(QuantumModule(made, inputs, weights, seed_init=1, observables=["ZYX", "IXZ"]).double())


@pytest.mark.parametrize("number", range(len(EXPRESSIONS)))
def test_gradcheck_over_expressions(number):
    p, q, r = (Parameter(name) for name in ("a10", "a9", "λ"))
    made = QuantumCircuit(2)
    made.ry(EXPRESSIONS[number](p, q, r), 0)
    made.cx(0, 1)
    made.rx(EXPRESSIONS[number](q, r, p), 1)
    made.rz(p + q + r, 0)
    made.ry(0.3, 0)
    assert checked(QuantumModule(made, [q], [[r], [p]], seed_init=1, observables=["XX", "ZI"]).double())


@pytest.mark.parametrize("seed", range(6))
def test_gradcheck_of_random_circuits(seed):
    random = random_circuit(seed + 50, 3, 25)
    order = list(random.parameters)
    np.random.default_rng(seed).shuffle(order)
    assert checked(
        QuantumModule(random, order[:3], [order[3:7], order[7:]], observables=random_observables(seed, 3)).double()
    )


@pytest.mark.parametrize("turn", [0.0, np.pi, -np.pi, np.pi / 2, 3 * np.pi])
def test_gradcheck_at_half_turns(turn):
    ansatz = real_amplitudes(3, reps=2)
    initial = [turn] * ansatz.num_parameters
    made = QuantumModule(
        ansatz, None, ansatz.parameters, variational_params_initial=initial, observables=["XIZ"]
    ).double()
    assert gradcheck(lambda w: functional_call(made, {"variational": w}, ()), (made.variational,))


def encoded(count: int = 4) -> QuantumModule:
    features = pytest.importorskip("qiskit_machine_learning.circuit.library").raw_feature_vector(count)
    ansatz = real_amplitudes(features.num_qubits, reps=1)
    return QuantumModule(
        features.compose(ansatz), list(features.parameters), list(ansatz.parameters), seed_init=0
    ).double()


def prepared() -> QuantumModule:
    """A constant state, one row for the whole batch."""
    made = QuantumCircuit(2)
    made.append(StatePreparation([0.5, 0.5j, -0.5, 0.5]), [0, 1])
    return QuantumModule(made.compose(circuit()), X, [W, V], seed_init=0, observables=["ZX", "YI"]).double()


def trained_state() -> QuantumModule:
    """The amplitudes are weights: one row that depends on parameters serves the whole batch."""
    features = pytest.importorskip("qiskit_machine_learning.circuit.library").raw_feature_vector(4)
    inputs = ParameterVector("u", 2)
    rest = circuit().assign_parameters({X: inputs})
    sets = [[*W, *V], list(features.parameters)]
    return QuantumModule(features.compose(rest), inputs, sets, seed_init=0, observables=["ZX", "YI"]).double()


@pytest.mark.parametrize("build", [encoded, prepared, trained_state])
def test_gradcheck_of_initial_states(build):
    assert checked(build(), 3)


# Only what is required


def test_gradients_only_where_required():
    made, inputs = module(), torch.rand(3, 2, dtype=torch.float64)
    made.variational_1.requires_grad_(False)
    made(inputs).sum().backward()
    assert made.variational_0.grad is not None and made.variational_1.grad is None and inputs.grad is None
    made.requires_grad_(False)
    assert not made(inputs).requires_grad
    assert made(inputs.requires_grad_()).requires_grad


def test_encoding_gradients_flag():
    for flag, expected in ((None, True), (True, True), (False, False)):
        made = module(encoding_gradients_flag=flag)
        inputs = inputs_of(made)
        made(inputs).sum().backward()
        assert (inputs.grad is not None) == expected
        assert made.variational_0.grad is not None


@pytest.mark.slow
def test_sets_with_settings_of_their_own():
    made = module(variational_params_names=["theta", "lam"])
    groups = [{"params": made.theta, "lr": 0.01}, {"params": made.lam, "lr": 0.1}]
    optimizer = torch.optim.SGD(groups)
    before = [p.detach().clone() for p in (made.theta, made.lam)]
    made(inputs_of(made)).sum().backward()
    optimizer.step()
    for parameter, old, rate in zip((made.theta, made.lam), before, (0.01, 0.1), strict=True):
        torch.testing.assert_close(parameter.detach(), old - rate * parameter.grad)


def test_no_grad_and_inference_mode():
    made, inputs = module(), torch.rand(3, 2, dtype=torch.float64)
    expected = made(inputs).detach()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            values = made(inputs)
            torch.testing.assert_close(values, expected)
            assert not values.requires_grad
    with torch.inference_mode():
        born_inside = torch.rand(3, 2, dtype=torch.float64)
        assert made(born_inside).is_inference()
    assert made(inputs).requires_grad


# The graph


def test_a_graph_can_be_used_twice():
    made = module()
    inputs = inputs_of(made)
    loss = (made(inputs) ** 2).sum()
    first = torch.autograd.grad(loss, [inputs, *made.parameters()], retain_graph=True)
    second = torch.autograd.grad(loss, [inputs, *made.parameters()], retain_graph=True)
    third = torch.autograd.grad(loss, [inputs, *made.parameters()])
    for a, b, c in zip(first, second, third, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)
        torch.testing.assert_close(a, c, rtol=0, atol=1e-14)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, inputs)


def test_several_forward_passes_before_backward():
    made = module()
    a, b = inputs_of(made), inputs_of(made, 5)
    alone = [torch.autograd.grad(made(i).sum(), made.variational_0)[0] for i in (a, b)]
    together = torch.autograd.grad(made(a).sum() + made(b).sum(), made.variational_0)[0]
    torch.testing.assert_close(together, alone[0] + alone[1])


def test_a_part_of_the_outputs():
    made = module()
    inputs = inputs_of(made, 4)
    jacobian = torch.autograd.functional.jacobian(lambda i: made(i), inputs)  # (4, 3, 4, 2)
    for sample, output in ((0, 0), (3, 2), (1, 1)):
        gradient = torch.autograd.grad(made(inputs)[sample, output], inputs)[0]
        torch.testing.assert_close(gradient, jacobian[sample, output])
        assert not gradient[[i for i in range(4) if i != sample]].any()


def test_cotangents_of_any_layout():
    made = module()
    inputs = inputs_of(made, 4)
    cotangent = torch.randn(3, 4, dtype=torch.float64)
    expected = torch.autograd.grad(made(inputs), inputs, cotangent.t().contiguous())[0]
    torch.testing.assert_close(torch.autograd.grad(made(inputs), inputs, cotangent.t())[0], expected)
    total = torch.autograd.grad(made(inputs).sum(), inputs)[0]  # its cotangent is one number, expanded
    ones = torch.autograd.grad(made(inputs), inputs, torch.ones(4, 3, dtype=torch.float64))[0]
    torch.testing.assert_close(total, ones)


def test_cotangents_that_torch_negates_lazily():
    made = module()
    inputs = inputs_of(made)
    values = made(inputs)
    turned = torch.complex(torch.zeros_like(values), values).conj().imag
    gradient = torch.autograd.grad(turned.sum(), inputs)[0]
    torch.testing.assert_close(gradient, -torch.autograd.grad(made(inputs).sum(), inputs)[0])
    lazy = torch.complex(torch.zeros(2, 2, dtype=torch.float64), inputs.detach()).conj().imag
    assert lazy.is_neg()
    torch.testing.assert_close(made(lazy), made(-inputs))


# torch.func

MODULES = {
    "plain": module,
    "one prepared state": prepared,
    "amplitude encoding": encoded,
    "trained state": trained_state,
}


@pytest.fixture(params=MODULES)
def made(request):
    return MODULES[request.param]()


def weights_of(made: QuantumModule) -> tuple[torch.Tensor, ...]:
    return tuple(p.detach() for p in made.parameters())


def test_vmap_over_inputs(made):
    run, weights, inputs = function_of(made), weights_of(made), inputs_of(made, 5).detach()
    expected = run(inputs, *weights)
    torch.testing.assert_close(vmap(lambda i: run(i, *weights))(inputs), expected)
    pairs = inputs_of(made, 6).detach().reshape(2, 3, -1)
    torch.testing.assert_close(vmap(lambda i: run(i, *weights))(pairs), run(pairs, *weights))
    turned = pairs.movedim(0, 1)
    torch.testing.assert_close(vmap(lambda i: run(i, *weights), in_dims=1)(turned), run(pairs, *weights))
    torch.testing.assert_close(vmap(vmap(lambda i: run(i, *weights)))(pairs), run(pairs, *weights))


def test_vmap_over_weights(made):
    """An ensemble of models on the same inputs, or each on its own."""
    run, inputs = function_of(made), inputs_of(made, 3).detach()
    ensemble = tuple(torch.stack([w, w + 0.3, w - 1, 2 * w]) for w in weights_of(made))
    dims = (None, *(0 for _ in ensemble))
    expected = torch.stack([run(inputs, *(w[i] for w in ensemble)) for i in range(4)])
    torch.testing.assert_close(vmap(run, in_dims=dims)(inputs, *ensemble), expected)
    own = torch.rand(4, 3, made.input_size, dtype=torch.float64)
    expected = torch.stack([run(own[i], *(w[i] for w in ensemble)) for i in range(4)])
    torch.testing.assert_close(vmap(run)(own, *ensemble), expected)


def test_jacrev(made):
    run, weights, inputs = function_of(made), weights_of(made), inputs_of(made, 3).detach()
    numbers = tuple(range(1 + len(weights)))
    expected = torch.autograd.functional.jacobian(run, (inputs, *weights))
    for found, wanted in zip(jacrev(run, argnums=numbers)(inputs, *weights), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_jacobians_of_single_samples(made):
    run, weights, inputs = function_of(made), weights_of(made), inputs_of(made, 4).detach()
    found = vmap(jacrev(run), in_dims=(0, *(None for _ in weights)))(inputs, *weights)
    full = torch.autograd.functional.jacobian(lambda i: run(i, *weights), inputs)
    torch.testing.assert_close(found, torch.stack([full[i, :, i] for i in range(4)]))


def test_gradients_of_single_samples(made):
    """The usual way to per-sample gradients: vmap(grad)."""
    run, weights, inputs = function_of(made), weights_of(made), inputs_of(made, 4).detach()

    def loss(sample, *values):
        return run(sample, *values).square().sum()

    numbers = tuple(range(1, 1 + len(weights)))
    dims = (0, *(None for _ in weights))
    found = vmap(grad(loss, argnums=numbers), in_dims=dims)(inputs, *weights)
    for i in range(4):
        tracked = [w.clone().requires_grad_() for w in weights]
        expected = torch.autograd.grad(loss(inputs[i], *tracked), tracked)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a[i], b)


def test_gradients_of_an_ensemble(made):
    run, inputs = function_of(made), inputs_of(made, 3).detach()
    ensemble = tuple(torch.stack([w, w + 0.3]) for w in weights_of(made))

    def loss(i, *values):
        return run(i, *values).sin().sum()

    found = vmap(grad(loss), in_dims=(None, *(0 for _ in ensemble)))(inputs, *ensemble)
    for number in range(2):
        expected = grad(loss)(inputs, *(w[number] for w in ensemble))
        torch.testing.assert_close(found[number], expected)
        tracked = inputs.clone().requires_grad_()
        loss(tracked, *(w[number] for w in ensemble)).backward()
        torch.testing.assert_close(expected, tracked.grad)


def test_torch_func_vjp(made):
    run, weights, inputs = function_of(made), weights_of(made), inputs_of(made, 3).detach()
    values, pull = vjp(run, inputs, *weights)
    torch.testing.assert_close(values, run(inputs, *weights))
    cotangent = torch.randn_like(values)
    tracked = inputs.clone().requires_grad_()
    expected = torch.autograd.grad(run(tracked, *weights), tracked, cotangent)[0]
    torch.testing.assert_close(pull(cotangent)[0], expected)


def test_the_older_batching_of_autograd_is_refused():
    """It hands functions tensors without storage and without saying so; `torch.func` is the way."""
    made = module()
    inputs = inputs_of(made, 2)
    basis = torch.eye(6, dtype=torch.float64).reshape(6, 2, 3)
    with pytest.raises(RuntimeError, match="Batching rule"):
        torch.autograd.grad(made(inputs), inputs, basis, is_grads_batched=True)


# dtypes


def test_single_precision_gradients():
    made = module()
    inputs = inputs_of(made, 20)
    exact = torch.autograd.grad(made(inputs).square().sum(), [inputs, *made.parameters()])
    single, rounded = made.float(), inputs.detach().float().requires_grad_()
    found = torch.autograd.grad(single(rounded).square().sum(), [rounded, *single.parameters()])
    for a, b in zip(found, exact, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), b, atol=2e-4, rtol=1e-4)


def test_gradients_come_in_the_dtype_of_the_inputs():
    made = module().float()
    inputs = inputs_of(made)
    made(inputs).sum().backward()
    assert inputs.grad.dtype == torch.float64 and made.variational_0.grad.dtype == torch.float32
