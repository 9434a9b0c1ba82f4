"""Angles that are real, or refused: powers below an absolute value, complex parts, Hermitian observables."""

from __future__ import annotations

import operator

import numpy as np
import pytest
import torch
from qiskit.circuit import Parameter, ParameterExpression
from qiskit.quantum_info import SparsePauliOp

from qtm._circuit.angle_map import AngleMap
from qtm._circuit.expressions import compile_angles
from qtm._circuit.observables import coerce_observables
from qtm._errors import ObservableError, ParameterError

A, B = Parameter("a"), Parameter("b")
# Real where Qiskit's bound value is real; NaN elsewhere.
EXPRESSIONS = {
    "power": (A**B).abs(),
    "constant power": (A**0.5).abs(),
    "power of a sum": ((A - B) ** (A + 0.5)).abs(),
    "integer power": ((A + B) ** 3).abs() - A,
    "power within": (A**B * 2 - B).abs() + A,
    "power of a constant": ((-2) ** A).abs() * B,
    "imaginary for negative a": A + 1j * (A.abs() - A),
    "imaginary for positive b": A * (1 + 1j * (B.abs() + B)),
    "real at last": (1j * A) * (1j * B),
}


def bound(expression: object, values: np.ndarray) -> float:
    number = complex(expression.bind({p: v for p, v in zip((A, B), values, strict=True) if p in expression.parameters}))
    return number.real if abs(number.imag) < 1e-9 * (1 + abs(number.real)) else np.nan


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_angle_is_what_qiskit_binds_or_nan(name):
    values = np.random.default_rng(5).uniform(-2, 2, (40, 2))  # (points, parameters)
    if name == "imaginary for positive b":  # refused where it is compiled: it is complex almost everywhere
        with pytest.raises(ValueError, match="complex"):
            compile_angles([EXPRESSIONS[name]], [A, B])
        return
    angles = compile_angles([EXPRESSIONS[name]], [A, B])
    expected = np.array([[bound(EXPRESSIONS[name], row)] for row in values])
    np.testing.assert_allclose(angles.numpy(values), expected, atol=1e-12)
    found = torch.stack([angles.torch(None, torch.tensor(row))[0] for row in values])
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
    smooth = torch.tensor(next(row for row, value in zip(values, expected, strict=True) if np.isfinite(value)))
    assert torch.autograd.gradcheck(lambda w: angles.torch(None, w), smooth.requires_grad_())


UNARY = ("sin", "cos", "tan", "arctan", "exp", "log", "abs", "conjugate", "sign")
BINARY = (operator.add, operator.sub, operator.mul, operator.truediv, operator.pow)
NUMBERS = (-2, -1, -0.5, 0, 0.5, 1, 2, 3, 0.83, 1j, -1j, 1 + 1j, 0.5 - 2j, 1.4 - 0.9j)


def tree(rng: np.random.Generator, depth: int) -> object:
    """A random expression, or a number."""
    if depth == 0 or rng.random() < 0.1:
        return (A, B, NUMBERS[rng.integers(len(NUMBERS))])[rng.integers(3)]
    left = tree(rng, depth - 1)
    if rng.random() < 0.4:
        function = UNARY[rng.integers(len(UNARY))]
        return getattr(left if isinstance(left, ParameterExpression) else A * left, function)()
    return BINARY[rng.integers(len(BINARY))](left, tree(rng, depth - 1))


def random_expression(seed: int) -> ParameterExpression | None:
    rng = np.random.default_rng(seed)
    try:
        expression = tree(rng, int(rng.integers(1, 5)))
    except (ZeroDivisionError, RuntimeError):  # Qiskit does not build it
        return None
    return expression if isinstance(expression, ParameterExpression) and expression.parameters else None


def value_in_qiskit(expression: ParameterExpression, row: np.ndarray) -> complex:
    values = {p: v for p, v in zip((A, B), row.tolist(), strict=True) if p in expression.parameters}
    try:
        return complex(expression.bind(values).numeric())
    except (ZeroDivisionError, RuntimeError):  # infinite, or no number
        return complex("nan")


def compiled(expression: ParameterExpression) -> tuple[AngleMap | None, str]:
    """The map of the expression, or None and why it is refused."""
    try:
        return compile_angles([expression], [A, B]), ""
    except ParameterError as error:
        assert str(error).startswith(f"angle {expression} ")  # noqa: PT017
        return None, str(error)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
def test_random_complex_expressions_agree_or_are_refused():
    """Where Qiskit's value is real it is ours, or no number, which is refused by name; never another number."""
    agree = 0
    for seed in range(2500):
        expression = random_expression(seed)
        if expression is None:
            continue
        values = np.random.default_rng(seed).uniform(-2.5, 2.5, (4, 2))
        expected = np.array([value_in_qiskit(expression, row) for row in values])
        known = np.isfinite(expected)
        real = np.abs(expected.imag) < 1e-9 * (1 + np.abs(expected.real))
        angles, why = compiled(expression)
        if angles is None:
            assert "takes the sign" in why or not (known & real).all()
            continue
        by_torch = angles.torch(torch.tensor(values), torch.zeros(0, dtype=torch.double)).numpy()
        for found in (angles.numpy(values), by_torch):
            numbers = np.broadcast_to(found, (len(values), 1))[:, 0]
            assert not np.isfinite(numbers[known & ~real]).any(), expression
            both = known & real & np.isfinite(numbers)
            np.testing.assert_allclose(
                numbers[both], expected.real[both], rtol=1e-9, atol=1e-9, err_msg=str(expression)
            )
            agree += int(both.sum())
    assert agree > 10_000


@pytest.mark.parametrize("expression", [(1j * A).sign(), ((1j * A).sign() * B).abs(), (A + 1j).sign().cos()])
def test_the_sign_of_a_complex_number_is_refused(expression):
    with pytest.raises(ParameterError, match="takes the sign of a complex number"):
        compile_angles([expression], [A, B])


@pytest.mark.parametrize("expression", [A.log().abs() * B, (A.log() * A.arctan()).abs(), (A**B).sign()])
def test_no_number_stays_no_number(expression):
    values = np.array([[-0.5, 0.3]])
    expected = value_in_qiskit(expression, values[0])
    found = compile_angles([expression], [A, B]).torch(torch.tensor(values), torch.zeros(0, dtype=torch.double))
    wanted = expected.real if expected.imag == 0 else np.nan
    np.testing.assert_allclose(found.numpy(), [[wanted]], atol=1e-12)


@pytest.mark.parametrize("factor", [1e-9, 1.0, 1e9, 1e15])
def test_an_imaginary_coefficient_is_seen_beside_any_other(factor):
    with pytest.raises(ObservableError, match="not Hermitian"):
        coerce_observables(SparsePauliOp(["Z", "X"], [factor, 1j]), 1)


@pytest.mark.parametrize("factor", [1e-9, 1.0, 1e9, 1e15])
def test_rounding_in_a_coefficient_is_not_a_complex_observable(factor):
    operator = SparsePauliOp(["ZZ", "XI", "XI"], factor * np.array([1, 0.1 + 0.3j, 0.2 - 0.3j * (1 + 1e-15)]))
    assert coerce_observables(operator, 2)[0].num_terms == 2
