"""Calls like an earlier one skip its checks: whatever was called before, a call gives what a new module gives."""

import pickle
import random
from copy import deepcopy

import pytest
import torch
from qiskit.circuit.library import real_amplitudes, z_feature_map
from torch.autograd import forward_ad
from torch.func import functional_call

from qtm import QuantumModule, TrainableNoise
from qtm._errors import QtmError

FEATURES, ANSATZ = z_feature_map(2, reps=1), real_amplitudes(2, reps=1)
CIRCUIT = FEATURES.compose(ANSATZ)


def module(**settings):
    if settings.pop("weightless", False):
        return QuantumModule(FEATURES, FEATURES.parameters, [], **settings)
    sets = (
        [list(ANSATZ.parameters)[:1], list(ANSATZ.parameters)[1:]] if settings.pop("two", False) else ANSATZ.parameters
    )
    return QuantumModule(CIRCUIT, FEATURES.parameters, sets, seed_init=1, **settings)


def rows(*shape, dtype=torch.float32):
    return torch.linspace(-1, 2, torch.Size(shape).numel()).reshape(shape).to(dtype)


def gradients(made, inputs):
    values = made(inputs)
    wanted = [t for t in (inputs, *made.parameters()) if t.requires_grad]
    needed = torch.tensor(values.requires_grad)
    return values, needed, *(torch.autograd.grad(values.abs().square().sum(), wanted) if needed else ())


def without_gradient(made, inputs):
    with torch.no_grad():
        values = made(inputs)
    return values, torch.tensor(values.requires_grad)


def frozen(made, inputs):
    own = list(made.parameters())
    for parameter in own:
        parameter.requires_grad_(False)
    try:
        values = made(inputs)
        return values, torch.tensor(values.requires_grad)
    finally:
        for parameter in own:
            parameter.requires_grad_(True)


def in_double(made, inputs):
    return gradients(made.double(), inputs.double()) + gradients(made.float(), inputs)


def pushed_forward(made, inputs):
    with forward_ad.dual_level():
        values = made(forward_ad.make_dual(inputs, torch.ones_like(inputs)))
        return tuple(forward_ad.unpack_dual(values))


def mapped(made, inputs):
    return (torch.func.vmap(made)(inputs),)


def with_other_weights(made, inputs):
    weights = {name: value + 1 for name, value in made.named_parameters()}
    return (functional_call(made, weights, inputs),)


def twice_differentiated(made, inputs):
    weights = next(made.parameters())
    (first,) = torch.autograd.grad(made(inputs).abs().square().sum(), weights, create_graph=True)
    return first, *torch.autograd.grad(first.square().sum(), weights)


def of_a_copy(made, inputs):
    return gradients(deepcopy(made), inputs) + gradients(pickle.loads(pickle.dumps(made)), inputs)


def on_one_thread(made, inputs):
    made.set_num_threads_forward(1)
    return gradients(made, inputs)


INPUTS = {
    "rows": lambda: rows(3, 2),
    "rows to differentiate by": lambda: rows(3, 2).requires_grad_(),
    "more rows": lambda: rows(5, 2),
    "no rows": lambda: rows(0, 2),
    "one row": lambda: rows(2),
    "three axes": lambda: rows(2, 3, 2),
    "doubles": lambda: rows(3, 2, dtype=torch.float64),
    "halves": lambda: rows(3, 2, dtype=torch.float16),
    "integers": lambda: torch.ones(3, 2, dtype=torch.int64),
    "complex": lambda: rows(3, 2).to(torch.complex64),
    "columns": lambda: rows(2, 3).t(),
    "too wide": lambda: rows(3, 3),
    "sparse": lambda: rows(3, 2).to_sparse(),
    "nested": lambda: torch.nested.nested_tensor([rows(2), rows(2)]),
    "a list": lambda: rows(3, 2).tolist(),
    "nothing": lambda: None,
    "not finite": lambda: torch.full((3, 2), torch.nan),
    "on no device": lambda: rows(3, 2).to("meta"),
}
USES = (
    gradients, without_gradient, frozen, in_double, pushed_forward, mapped, with_other_weights, twice_differentiated,
    of_a_copy, on_one_thread,
)  # fmt: skip
CALLS = [(gradients, name) for name in INPUTS] + [(use, "rows") for use in USES[1:]] + [(without_gradient, "one row")]


def result(made, call):
    use, name = call
    try:
        return use(made, INPUTS[name]())
    except (QtmError, RuntimeError, TypeError, AttributeError) as error:
        return type(error), str(error)


def assert_same(found, expected, call):
    assert len(found) == len(expected), call
    for one, other in zip(found, expected, strict=True):
        if isinstance(other, torch.Tensor):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6, msg=lambda text: f"{call}: {text}")
        else:
            assert one == other, call


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"two": True},
        {"weightless": True},
        {"encoding_gradients_flag": False},
        {"outputs": "probabilities"},
        {"outputs": "state"},
        {"gradient": "param-shift"},
        {"noise": TrainableNoise({"ry": "depolarizing"})},
    ],
    ids=str,
)
def test_calls_before_a_call_do_not_change_it(settings):
    expected = [result(module(**settings), call) for call in CALLS]
    made, order = module(**settings), random.Random(0)
    for _ in range(3):
        numbers = list(range(len(CALLS)))
        order.shuffle(numbers)
        for number in numbers:
            assert_same(result(made, CALLS[number]), expected[number], CALLS[number])


def test_a_repeated_call_skips_the_checks(monkeypatch):
    made = module()
    made(rows(3, 2))

    def unexpected(*arguments):
        raise AssertionError("checked again")

    monkeypatch.setattr(made, "_checked_outputs", unexpected)
    made(rows(7, 2)).sum().backward()
    with pytest.raises(AssertionError, match="checked again"):
        made(rows(3, 2, dtype=torch.float64))
    made.set_num_threads_backward(1)
    with pytest.raises(AssertionError, match="checked again"):
        made(rows(3, 2))
