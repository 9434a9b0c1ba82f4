"""Angles from expressions: against Qiskit's own binding, and differentiated by torch."""

from __future__ import annotations

import copy
import math
import operator
import pickle
import random
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from qiskit.circuit import Parameter, ParameterExpression, ParameterVector

from qtm._circuit.expressions import _read, compile_angles
from qtm._errors import ParameterError, ShapeError

NAMES = ("a10", "a9", "a1", "θ", "φ[0]", "x y", "lambda", "pi", "I", "sin", "$\\beta$", "(q)", "a+b", "1x")
AWKWARD = [Parameter(name) for name in NAMES]
INPUTS = [*ParameterVector("x", 3)]
WEIGHTS = [*ParameterVector("w", 12), *AWKWARD]
P = [*INPUTS, *WEIGHTS]
x, w = INPUTS, WEIGHTS
a, b, c = P[0], P[5], P[9]

# Every operation of a ParameterExpression, smooth on (0, 1): the same table serves the gradient checks.
EXPRESSIONS: dict[str, ParameterExpression | complex] = {
    "bare": a,
    "constant": 0.25,
    "integer": 3,
    "zero": 0.0,
    "complex with no imaginary part": 1.5 + 0j,
    "cancelled": a - a,
    "bound": (a * 2).bind({a: 0.3}),
    "scaled": 2.5 * b,
    "negated": -c,
    "affine": 2 * a - b / 3 + 0.5,
    "reflected difference": 1 - b,
    "bilinear": a * b * 0.5,
    "bilinear sum": a * b + b * c - 2 * c * a + 1,
    "square": a**2,
    "cube of a product": (a * b) ** 3,
    "high power": b**7,
    "fractional power": b**0.5,
    "zeroth power": b**0,
    "product of sums": (math.pi - a) * (math.pi - b),
    "square of a sum": (a + b) ** 2,
    "scaled sum": (a + 2 * b) * c,
    "ratio": a / (1 + b),
    "reciprocal": 2 / c,
    "power of a number": 2**a,
    "power of a parameter": a**b,
    "difference of functions": a.sin() - b.cos(),
    "function in the exponent": a ** b.sin(),
    "divided by a function": a / b.exp(),
    "tan": a.tan(),
    "arcsin": a.arcsin(),
    "arccos": b.arccos(),
    "arctan": (3 * c).arctan(),
    "exp": (a * b).exp(),
    "log": c.log(),
    "abs": (a - 2).abs(),
    "sign": (a - 2).sign() * b,
    "conjugate": a.conjugate() * b,
    "nested": ((a.sin() * b + 1).log() / 3).cos(),
    "product of imaginaries": (1j * a) * (1j * b),
    "real by conjugation": (1j * a).exp() * (-1j * a).exp() * b,
    "derivative": (a * b).gradient(a),
    "substituted": (a * b + 1).subs({a: c.sin()}),
}  # fmt: skip


def bound(expression: ParameterExpression | complex, values: Sequence[float], parameters: Sequence[Parameter]) -> float:
    """The oracle: Qiskit's own value of one expression at one point."""
    if not isinstance(expression, ParameterExpression):
        return complex(expression).real
    value_of = dict(zip(parameters, values, strict=True))
    number = complex(expression.bind({p: value_of[p] for p in expression.parameters}).numeric())
    assert abs(number.imag) < 1e-9
    return number.real


def table(expressions: Sequence[Any], values: np.ndarray, parameters: Sequence[Parameter] = P) -> np.ndarray:
    return np.array([[bound(e, row, parameters) for e in expressions] for row in values])


def split(values: np.ndarray, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """Values (batch, P) that agree in the weights, as inputs (batch, 3) and weights (W,)."""
    inputs = torch.tensor(values[:, : len(x)], dtype=dtype, requires_grad=True)
    return inputs, torch.tensor(values[0, len(x) :], dtype=dtype, requires_grad=True)


def sample(rng: np.random.Generator, batch: int = 4) -> np.ndarray:
    values = rng.uniform(0.1, 0.9, (batch, len(P)))
    values[:, len(x) :] = values[0, len(x) :]
    return values


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_each_expression(name: str, rng: np.random.Generator) -> None:
    values, expressions = sample(rng), [EXPRESSIONS[name]]
    angles, expected = compile_angles(expressions, P), table([EXPRESSIONS[name]], values)
    np.testing.assert_allclose(angles.numpy(values), expected, rtol=1e-13, atol=1e-14)
    got = angles.torch(*split(values), batch=4)
    np.testing.assert_allclose(got.detach().numpy(), expected, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(angles.numpy(values[0]), expected[0], rtol=1e-13, atol=1e-14)


def test_all_expressions_at_once(rng: np.random.Generator) -> None:
    values, expressions = sample(rng), [*EXPRESSIONS.values()] * 2
    angles = compile_angles(expressions, P)
    expected = table(expressions, values)
    np.testing.assert_allclose(angles.numpy(values), expected, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(angles.torch(*split(values)).detach().numpy(), expected, rtol=1e-13, atol=1e-14)
    stacked = angles.numpy(values.reshape(2, 1, 2, -1))
    np.testing.assert_array_equal(stacked.reshape(4, -1), angles.numpy(values))


@pytest.mark.thinned(4)
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_first_and_second_derivatives(name: str, rng: np.random.Generator) -> None:
    # Bare neighbours, so that the result always depends on inputs and weights.
    angles = compile_angles([w[1], EXPRESSIONS[name], x[1]], P)
    points = split(sample(rng, 2))
    assert torch.autograd.gradcheck(angles.torch, points)
    assert torch.autograd.gradgradcheck(angles.torch, points, atol=1e-4)


UNARY = ("sin", "cos", "tan", "arcsin", "arccos", "arctan", "exp", "log", "abs", "conjugate", "sign")
BINARY = (operator.add, operator.sub, operator.mul, operator.truediv, operator.pow)


def random_expression(depth: int, draw: random.Random) -> Any:
    if depth == 0 or draw.random() < 0.15:
        return draw.choice(P) if draw.random() < 0.8 else draw.choice((2, 3, 0.5, -1.3, 1))
    left = random_expression(depth - 1, draw)
    if draw.random() < 0.25:
        return getattr(left, draw.choice(UNARY))() if isinstance(left, ParameterExpression) else left
    operation: Callable[[Any, Any], Any] = draw.choice(BINARY)
    return operation(left, random_expression(depth - 1, draw))


def usable(draw: random.Random, values: np.ndarray) -> Any:
    """A random expression with a real value at the point (P,), or None if this draw has none."""
    try:
        expression = random_expression(draw.choice((1, 2, 3, 4)), draw)
        number = complex(bound_complex(expression, values))
    except (ZeroDivisionError, RuntimeError, OverflowError):
        return None  # Qiskit refuses to build or to bind it
    return expression if abs(number.imag) == 0 and abs(number) < 1e6 else None


def bound_complex(expression: Any, values: np.ndarray) -> complex:
    if not isinstance(expression, ParameterExpression):
        return complex(expression)
    value_of = dict(zip(P, values, strict=True))
    return complex(expression.bind({p: value_of[p] for p in expression.parameters}).numeric())


@pytest.mark.slow
def test_random_expressions(rng: np.random.Generator) -> None:
    draw, values = random.Random(5), sample(rng, 1)
    expressions = [e for e in (usable(draw, values[0]) for _ in range(1500)) if e is not None]
    assert len(expressions) > 1000
    with np.errstate(all="ignore"):
        got = compile_angles(expressions, P).numpy(values[0])
    expected = np.array([bound_complex(e, values[0]).real for e in expressions])
    # A complex intermediate value with a real result (the square of sqrt(-1)) is NaN in real arithmetic.
    real = np.isfinite(got)
    assert real.sum() > 0.95 * len(got)
    np.testing.assert_allclose(got[real], expected[real], rtol=1e-9, atol=1e-9)
    again = compile_angles(expressions, P).torch(*split(values)).detach().numpy()[0]
    np.testing.assert_allclose(again[real], expected[real], rtol=1e-9, atol=1e-9)


def test_parameters_follow_the_given_order() -> None:
    vector = ParameterVector("a", 12)
    order = [*vector][::-1]
    angles = compile_angles([*vector], order)
    np.testing.assert_array_equal(angles.numpy(np.arange(12.0)), np.arange(12.0)[::-1])


def test_parameters_of_equal_name_are_distinguished() -> None:
    first, second = Parameter("t"), Parameter("t")
    angles = compile_angles([2 * second, first], [first, second])
    np.testing.assert_array_equal(angles.numpy(np.array([1.0, 5.0])), [10.0, 1.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "expressions",
    [
        [*x, *w],  # in order
        [*w[::-1], *x, *w],  # gathered
        [*x],
        [*w, *w],
        [w[i] * x[i % 3] for i in range(12)],
        [x[0].sin(), x[1].sin(), x[2].sin()],
        [x[0] * 2, w[1].exp() * 3, 0.5, w[2].exp() * 7, x[1] + 1],
        [0.5, 1.5],
        [],
    ],
)
def test_every_kind_of_plan(expressions: list[Any], dtype: torch.dtype, rng: np.random.Generator) -> None:
    values, angles = sample(rng), compile_angles(expressions, P)
    inputs, weights = split(values, dtype)
    expected = table(expressions, values)
    np.testing.assert_allclose(angles.numpy(values), expected, rtol=1e-14)
    got = angles.torch(inputs, weights, batch=4)
    assert got.shape == (4, len(expressions))
    assert got.dtype == dtype
    tolerance = 1e-14 if dtype is torch.float64 else 1e-6
    np.testing.assert_allclose(got.detach().numpy(), expected, rtol=tolerance)


def test_rows_without_inputs() -> None:
    angles = compile_angles([w[0], w[1] * 2], w)
    weights = torch.arange(float(len(w)))
    assert angles.torch(None, weights).tolist() == [[0.0, 2.0]]
    assert angles.torch(None, weights, batch=3).tolist() == [[0.0, 2.0]] * 3
    assert angles.torch(None, weights, batch=0).shape == (0, 2)
    with_inputs = compile_angles([w[0]], P)
    assert with_inputs.torch(torch.zeros(5, 3), weights).shape == (1, 1)


def test_empty_batch_and_no_parameters() -> None:
    angles = compile_angles([x[0] * w[0] + 1, x[1].sin()], P)
    assert angles.torch(torch.zeros(0, 3), torch.zeros(len(w))).shape == (0, 2)
    assert angles.numpy(np.zeros((0, len(P)))).shape == (0, 2)
    constants = compile_angles([0.5, 2], [])
    np.testing.assert_array_equal(constants.numpy(np.zeros((2, 0))), [[0.5, 2.0]] * 2)
    assert constants.torch(None, torch.zeros(0), batch=2).tolist() == [[0.5, 2.0]] * 2


def test_functional_transforms(rng: np.random.Generator) -> None:
    """First call inside the transform: what a map keeps between calls must outlive it."""
    expressions = [x[0] * w[0] + 1, w[1].sin() * x[1], w[2].sin() * 3, (w[3] * 2).exp(), x[2], w[4] + w[5]]
    inputs, weights = (t.detach() for t in split(sample(rng)))
    plain = compile_angles(expressions, P)
    expected = torch.autograd.functional.jacobian(plain.torch, (inputs, weights))

    for transform in (torch.func.jacrev, torch.func.jacfwd):
        angles = compile_angles(expressions, P)
        got = transform(angles.torch, argnums=(0, 1))(inputs, weights)
        torch.testing.assert_close(got, expected)
        torch.testing.assert_close(angles.torch(inputs, weights), plain.torch(inputs, weights))

    angles = compile_angles(expressions, P)
    each = torch.func.vmap(lambda row: angles.torch(row[None], weights)[0])(inputs)
    torch.testing.assert_close(each, plain.torch(inputs, weights))
    models = torch.stack([weights, weights + 0.1])
    ensemble = torch.func.vmap(angles.torch, in_dims=(None, 0))(inputs, models)
    torch.testing.assert_close(ensemble[1], plain.torch(inputs, models[1]))
    per_sample = torch.func.vmap(
        torch.func.grad(lambda v, row: angles.torch(row[None], v).square().sum()), in_dims=(None, 0)
    )(weights, inputs)
    assert per_sample.shape == (4, len(w))
    assert per_sample.abs().sum() > 0


def test_a_first_call_in_inference_mode_leaves_training_possible(rng: np.random.Generator) -> None:
    angles = compile_angles([2 * w[0] + 1, w[1].sin() * 3, w[2].sin() * 4, x[0] * w[0]], P)
    inputs, weights = split(sample(rng))
    with torch.inference_mode():
        angles.torch(inputs.detach(), weights.detach())
    angles.torch(inputs, weights).sum().backward()
    assert weights.grad is not None
    assert weights.grad[0] == pytest.approx(8 + inputs[:, 0].sum().item())


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_equal_and_work(duplicate: Callable[[Any], Any], rng: np.random.Generator) -> None:
    angles, values = compile_angles(list(EXPRESSIONS.values()), P), sample(rng)
    expected = angles.numpy(values)
    angles.torch(*split(values))  # a used map holds plans and tensors; they stay behind
    other = duplicate(angles)
    assert other == angles
    assert hash(other) == hash(angles)
    assert other != compile_angles([a], P)
    np.testing.assert_array_equal(other.numpy(values), expected)


def test_what_an_angle_depends_on() -> None:
    angles = compile_angles([x[0], 0.5, x[1] * w[0], w[1].sin() + w[0], x[0] - x[0]], P)
    assert angles.used == ({0}, set(), {1, 3}, {3, 4}, set())
    assert angles.depends_on(range(3)).tolist() == [True, False, True, False, False]
    assert angles.depends_on([4]).tolist() == [False, False, False, True, False]
    assert angles.num_angles == 5
    assert angles.num_parameters == len(P)


def test_long_sums() -> None:
    linear = sum((i * p for i, p in enumerate(w[1:], 1)), start=w[0] * 0.5)
    waves = sum((p.sin() for p in w[1:] * 20), start=w[0])
    weights = np.linspace(0, 1, len(w))
    np.testing.assert_allclose(
        compile_angles([linear, waves], w).numpy(weights),
        table([linear, waves], weights[None], w)[0],
        rtol=1e-12,
    )


def test_equal_shapes_run_together() -> None:
    """The number of array operations does not grow with the number of angles."""
    many = [w[i % 12].sin() * x[i % 3] * (i + 2) for i in range(60)]
    angles = compile_angles(many, P)
    _, plan, _ = angles._plan(torch.zeros(len(w)), len(x))
    assert len(plan.groups) == 1


@pytest.mark.parametrize(
    ("expressions", "parameters", "message"),
    [
        ([a * b], [a], "w\\[2\\].*add them"),
        ([w[0], Parameter("zz") + Parameter("aa")], w, "aa, zz"),
        ([a], [a, b, a], "'x\\[0\\]' is listed twice, at positions 0 and 2"),
        ([1j], [], "complex"),
        ([2 + 1e-3j], [], "complex"),
        ([1j * a], [a], "x\\[0\\] is complex"),
        ([(1j * a).exp()], [a], "complex"),
        ([a.sin() * 2j + 1], [a], "complex"),
        ([float("nan")], [], "not finite"),
        ([float("inf")], [], "not finite"),
        (["0.5"], [], "'0.5' is neither a number"),
        ([None], [], "neither a number"),
    ],
)
def test_bad_expressions(expressions: list[Any], parameters: list[Parameter], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        compile_angles(expressions, parameters)


def test_bad_widths() -> None:
    angles = compile_angles([a * b], [a, b])
    with pytest.raises(ShapeError, match="got 3 parameter values; expected 2"):
        angles.numpy(np.zeros((4, 3)))
    with pytest.raises(ShapeError, match="got 2 inputs \\+ 1 parameter values; expected 2"):
        angles.torch(torch.zeros(4, 2), torch.zeros(1))


def test_outside_the_real_domain_an_angle_is_nan() -> None:
    angles = compile_angles([w[0].log()], [w[0]])
    assert torch.isnan(angles.torch(None, torch.tensor([-1.0]))).all()


@pytest.mark.parametrize("reflected", [("SUB", "RSUB"), ("DIV", "RDIV"), ("POW", "RPOW")])
def test_both_records_of_an_operation_with_a_result_on_its_right(reflected: tuple[str, str]) -> None:
    """Qiskit 2.3 records a - sin(b) with its left operand, later versions as reflected: the same program."""
    a, b = Parameter("a"), Parameter("b")
    opcode = type((a + b)._qpy_replay[0].op)
    sine = SimpleNamespace(op=opcode.SIN, lhs=b, rhs=None)
    older = SimpleNamespace(op=getattr(opcode, reflected[0]), lhs=a, rhs=None)
    newer = SimpleNamespace(op=getattr(opcode, reflected[1]), lhs=None, rhs=a)
    programs = [_read(SimpleNamespace(_qpy_replay=[sine, step]), {a: 0, b: 1}) for step in (older, newer)]
    assert programs[0] == programs[1]
