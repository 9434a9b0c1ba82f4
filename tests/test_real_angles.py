"""Angles that are real, or refused: powers below an absolute value, complex parts, Hermitian observables."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from qiskit.circuit import Parameter
from qiskit.quantum_info import SparsePauliOp

from qtm._circuit.expressions import compile_angles
from qtm._circuit.observables import coerce_observables
from qtm._errors import ObservableError

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
def test_an_angle_is_what_qiskit_binds_or_no_number(name):
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


@pytest.mark.parametrize("factor", [1e-9, 1.0, 1e9, 1e15])
def test_an_imaginary_coefficient_is_seen_beside_any_other(factor):
    with pytest.raises(ObservableError, match="not Hermitian"):
        coerce_observables(SparsePauliOp(["Z", "X"], [factor, 1j]), 1)


@pytest.mark.parametrize("factor", [1e-9, 1.0, 1e9, 1e15])
def test_rounding_in_a_coefficient_is_not_a_complex_observable(factor):
    operator = SparsePauliOp(["ZZ", "XI", "XI"], factor * np.array([1, 0.1 + 0.3j, 0.2 - 0.3j * (1 + 1e-15)]))
    assert coerce_observables(operator, 2)[0].num_terms == 2
