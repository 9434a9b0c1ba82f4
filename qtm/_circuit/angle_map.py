"""Angles from parameter values: a fixed, vectorised, differentiable map, the same for numpy and torch.

An angle is a *program*. Most are one row: a sum of monomials of the parameters, and all rows are gathered and
multiplied at once. The others are postfix programs on rows, and programs of equal shape run together, so the number of
array operations depends on the number of *kinds* of expressions, not on the number of angles.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from qtm._errors import ShapeError
from qtm._locks import cached_property

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# A row: ((indices of the parameters of a monomial, sorted, with repetition), its coefficient), ...
Monomials = tuple[tuple[tuple[int, ...], float], ...]
# A postfix program: ("row", Monomials), ("const", number), or (name of an operation, None).
Step = tuple[str, Any]
PostfixProgram = tuple[Step, ...]

# An imaginary part up to this, relative to 1 + |real part|, is rounding.
IMAGINARY_TOLERANCE = 1e-9

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    name: getattr(operator, name) for name in ("add", "sub", "mul", "truediv", "pow")
}


@dataclass(frozen=True)
class _Rows:
    """Sums of monomials: ``rows = segment_sum(product of factors * coefficients) + constants``.

    Factors of the weights are multiplied once, before those of the inputs of each sample; so are their derivatives.
    """

    inputs: tuple[Any, ...]  # each (terms,) indices into the inputs, or None for all of them in order
    weights: tuple[Any, ...]  # the same of the weights
    ones: tuple[bool, bool]  # whether a one is appended to the inputs, or the weights, for terms without them
    coefficients: Any  # (terms,) or None if all are 1
    segments: Any  # (terms,) row of each term, or None where each row has one term
    constants: Any  # (rows,) or None


@dataclass(frozen=True)
class _Group:
    """Programs of equal shape, run together on rows picked by ``slots``."""

    steps: tuple[str, ...]
    slots: tuple[Any, ...]  # each a _Pick of rows, a number, or (programs,) numbers
    is_complex: bool


@dataclass(frozen=True)
class _Pick:
    index: Any  # (programs,), or None for all rows in order


@dataclass(frozen=True)
class _Plan:
    """The steps of one call: the rows, the programs and the final order."""

    rows: _Rows
    num_rows: int
    groups: tuple[_Group, ...]
    direct: Any  # rows that are angles themselves, ahead of the groups' results; None for all of them
    has_direct: bool
    order: Any  # (angles,) or None


@dataclass(frozen=True)
class _Arrays:
    """The array operations that differ between NumPy and torch."""

    take: Callable[[Any, Any], Any]  # (..., n), (m,) -> (..., m)
    concatenate: Callable[[Sequence[Any]], Any]  # along the last axis
    segment_sum: Callable[[Any, Any, int], Any]  # (..., terms) -> (..., rows)
    functions: Callable[[str], Callable[[Any], Any]]
    expand: Callable[[Any, tuple[int, ...]], Any]
    convert: Callable[[np.ndarray], Any]
    is_complex: Callable[[Any], bool]
    where: Callable[[Any, Any], Any]  # (NaN where the first holds, the second elsewhere)


def _numpy_segment_sum(terms: np.ndarray, segments: np.ndarray, num_rows: int) -> np.ndarray:
    starts = np.searchsorted(segments, np.arange(num_rows))
    return np.add.reduceat(terms, starts, axis=-1)


_NUMPY = _Arrays(
    take=lambda values, index: values.take(index, axis=-1),
    concatenate=lambda parts: np.concatenate(parts, axis=-1),
    segment_sum=_numpy_segment_sum,
    functions=lambda name: getattr(np, name),
    expand=np.broadcast_to,
    convert=lambda array: array,
    is_complex=np.iscomplexobj,
    where=lambda bad, values: np.where(bad, np.nan, values),
)


def _sign(values: Tensor) -> Tensor:
    """As in numpy, NaN where a value is NaN, for which torch gives 0."""
    return values.sign().masked_fill(values.isnan(), float("nan"))


@cache
def _torch_arrays(device: torch.device, dtype: torch.dtype) -> _Arrays:
    import torch

    def convert(array: np.ndarray) -> Tensor:
        # Kept across calls: created under inference_mode they would be unusable in a later backward pass.
        with torch.inference_mode(False), torch.no_grad():
            tensor = torch.from_numpy(array)
            return tensor.to(device, dtype if tensor.is_floating_point() else None)

    def segment_sum(terms: Tensor, segments: Tensor, num_rows: int) -> Tensor:
        return terms.new_zeros((*terms.shape[:-1], num_rows)).index_add(-1, segments, terms)

    return _Arrays(
        take=lambda values, index: values.index_select(-1, index),
        concatenate=lambda parts: torch.cat(tuple(parts), -1),
        segment_sum=segment_sum,
        functions=lambda name: _sign if name == "sign" else getattr(torch, name),
        expand=lambda tensor, shape: tensor.expand(shape),
        convert=convert,
        is_complex=torch.is_complex,
        where=lambda bad, values: values.masked_fill(bad, float("nan")),
    )


def _index(arrays: _Arrays, index: Sequence[int] | np.ndarray, width: int) -> Any:
    """The indices as an array, or None for the identity."""
    indices = np.array(index, dtype=np.int64)
    return None if np.array_equal(indices, np.arange(width)) else arrays.convert(indices)


def _optional(arrays: _Arrays, numbers: Sequence[float], neutral: float) -> Any:
    if all(number == neutral for number in numbers):
        return None
    return arrays.convert(np.array(numbers, dtype=np.float64))


def _plan_rows(arrays: _Arrays, rows: Sequence[Monomials], num_inputs: int, num_weights: int) -> _Rows:
    constants = [dict(row).get((), 0.0) if len(row) > 1 else 0.0 for row in rows]
    # A row that is only a constant keeps it as its term, so that every row has a term.
    terms = [
        (i, monomial, coefficient)
        for i, row in enumerate(rows)
        for monomial, coefficient in (row or (((), 0.0),))
        if monomial or len(row) <= 1
    ]
    of_inputs = [[p for p in monomial if p < num_inputs] for _, monomial, _ in terms]
    of_weights = [[p - num_inputs for p in monomial if p >= num_inputs] for _, monomial, _ in terms]
    inputs, input_ones = _factors(arrays, of_inputs, num_inputs)
    weights, weight_ones = _factors(arrays, of_weights, num_weights)
    if not inputs and not weights:  # constants only, but their number is needed
        weights, weight_ones = (arrays.convert(np.full(len(terms), num_weights)),), True
    return _Rows(
        inputs=inputs,
        weights=weights,
        ones=(input_ones, weight_ones),
        coefficients=_optional(arrays, [c for _, _, c in terms], 1.0),
        segments=_index(arrays, [i for i, _, _ in terms], len(rows)),
        constants=_optional(arrays, constants, 0.0),
    )


def _factors(arrays: _Arrays, monomials: Sequence[Sequence[int]], width: int) -> tuple[tuple[Any, ...], bool]:
    """Indices of the first factors, of the second, ...; and whether short monomials need a one, at ``width``."""
    degrees = {len(monomial) for monomial in monomials}
    depth = max(degrees, default=0)
    ones = len(degrees) > 1
    padded = [[*monomial, *[width] * (depth - len(monomial))] for monomial in monomials]
    by_factor = np.array(padded, dtype=np.int64).reshape(len(monomials), depth).T
    return tuple(_index(arrays, factor, width + ones) for factor in by_factor), ones


def _product(arrays: _Arrays, values: Any, factors: tuple[Any, ...]) -> Any:
    first, *others = [values if f is None else arrays.take(values, f) for f in factors]
    for factor in others:
        first = first * factor
    return first


def _eval_rows(arrays: _Arrays, plan: _Plan, inputs: Any, weights: Any, one: Any) -> Any:
    rows = plan.rows
    total = rows.coefficients
    for values, factors, with_one in zip((weights, inputs), (rows.weights, rows.inputs), rows.ones[::-1], strict=True):
        if factors:
            product = _product(arrays, _with_one(arrays, values, one) if with_one else values, factors)
            total = product if total is None else product * total
    if rows.segments is not None:
        total = arrays.segment_sum(total, rows.segments, plan.num_rows)
    return total if rows.constants is None else total + rows.constants


def _with_one(arrays: _Arrays, values: Any, one: Any) -> Any:
    return arrays.concatenate((values, arrays.expand(one, (*values.shape[:-1], 1))))


def _fill(arrays: _Arrays, slot: Any, rows: Any) -> Any:
    if not isinstance(slot, _Pick):
        return slot
    return rows if slot.index is None else arrays.take(rows, slot.index)


def _eval_group(arrays: _Arrays, group: _Group, rows: Any) -> Any:
    stack: list[Any] = []
    slots = iter(group.slots)
    for name in group.steps:
        if name == "slot":
            stack.append(_fill(arrays, next(slots), rows))
        elif name in OPERATORS:
            right, left = stack.pop(), stack.pop()
            stack.append(OPERATORS[name](left, right))
        else:
            stack.append(arrays.functions(name)(stack.pop()))
    return stack.pop()


def _eval(arrays: _Arrays, plan: _Plan, inputs: Any, weights: Any, one: Any) -> Any:
    rows = _eval_rows(arrays, plan, inputs, weights, one)
    if not plan.groups:
        return rows
    parts = [rows if plan.direct is None else arrays.take(rows, plan.direct)] if plan.has_direct else []
    for group in plan.groups:
        result = _eval_group(arrays, group, rows)
        parts.append(_real_part(arrays, result) if group.is_complex else result)
    joined = parts[0] if len(parts) == 1 else arrays.concatenate(parts)
    return joined if plan.order is None else arrays.take(joined, plan.order)


def _real_part(arrays: _Arrays, result: Any) -> Any:
    """The real part; NaN where the value has an imaginary part, because an angle is real."""
    if not arrays.is_complex(result):
        return result
    excess = abs(result.imag) > IMAGINARY_TOLERANCE * (1 + abs(result.real))
    return arrays.where(excess, result.real)


def _slot(arrays: _Arrays, payloads: Sequence[Any], kind: str, row_of: dict[Monomials, int]) -> Any:
    if kind == "row":
        return _Pick(_index(arrays, [row_of[payload] for payload in payloads], len(row_of)))
    if all(payload == payloads[0] for payload in payloads):
        return payloads[0]
    return arrays.convert(np.array(payloads))


def _shape_of(program: PostfixProgram) -> tuple[Any, ...]:
    # A complex constant is part of the shape, so that a group is real or complex as a whole.
    return tuple((kind, x if isinstance(x, complex) else None) for kind, x in program)


def _group(arrays: _Arrays, programs: Sequence[PostfixProgram], row_of: dict[Monomials, int]) -> _Group:
    leaves = [[step for step in program if step[0] in ("row", "const")] for program in programs]
    return _Group(
        steps=tuple("slot" if kind in ("row", "const") else kind for kind, _ in programs[0]),
        slots=tuple(
            _slot(arrays, [payload for _, payload in slot], slot[0][0], row_of) for slot in zip(*leaves, strict=True)
        ),
        is_complex=is_complex(programs[0]),
    )


def _plan_programs(
    arrays: _Arrays, programs: Sequence[PostfixProgram], row_of: dict[Monomials, int], rows: _Rows
) -> _Plan:
    """Angles that are rows come first, then those of each group; ``order`` restores the requested order."""
    direct = [k for k, program in enumerate(programs) if len(program) == 1]
    shapes: dict[tuple[Any, ...], list[int]] = {}
    for k, program in enumerate(programs):
        if len(program) > 1:
            shapes.setdefault(_shape_of(program), []).append(k)
    order = np.argsort([*direct, *(k for group in shapes.values() for k in group)])
    return _Plan(
        rows=rows,
        num_rows=len(row_of),
        groups=tuple(_group(arrays, [programs[k] for k in group], row_of) for group in shapes.values()),
        direct=_index(arrays, [row_of[programs[k][0][1]] for k in direct], len(row_of)),
        has_direct=bool(direct),
        order=_index(arrays, order, len(programs)),
    )


def is_complex(program: PostfixProgram) -> bool:
    """Whether a program computes with complex numbers (its value may still be real)."""
    return any(isinstance(payload, complex) for _, payload in program)


def gives_complex(program: Sequence[Step]) -> bool:
    """Whether the value of a program is of a complex type; absolute values are real again."""
    stack: list[bool] = []
    for kind, payload in program:
        if kind in OPERATORS:
            stack.append(stack.pop() | stack.pop())
        elif kind in ("row", "const"):
            stack.append(isinstance(payload, complex))
        elif kind == "abs":
            stack[-1] = False
    return stack[-1]


@dataclass(frozen=True)
class AngleMap:
    """Angles (in radians) as functions of ``num_parameters`` values, in the order given at compilation.

    Immutable; equal and hashed by content; pickles and copies. Outside the real domain of an expression
    (``log`` of a negative number) an angle is NaN, as in numpy and torch.
    """

    num_parameters: int
    programs: tuple[PostfixProgram, ...]  # one per angle
    _plans: dict[Any, tuple[_Arrays, _Plan, Any]] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return (AngleMap, (self.num_parameters, self.programs))

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.num_parameters, self.programs))

    @property
    def num_angles(self) -> int:
        """Number of angles: the ``angles`` of the shapes below."""
        return len(self.programs)

    @cached_property
    def used(self) -> tuple[frozenset[int], ...]:
        """For each angle, the indices of the parameters that it depends on."""
        return tuple(
            frozenset(p for kind, x in program if kind == "row" for m, _ in x for p in m) for program in self.programs
        )

    def depends_on(self, indices: Iterable[int]) -> np.ndarray:
        """Which angles depend on any of the parameters with these indices: (angles,) bool."""
        chosen = frozenset(indices)
        return np.array([not chosen.isdisjoint(used) for used in self.used], dtype=bool)

    def numpy(self, values: np.ndarray) -> np.ndarray:
        """Angles (..., angles) for parameter values (..., num_parameters), both float.

        Raises:
            ShapeError: the last axis of ``values`` is not ``num_parameters`` long.
        """
        if values.shape[-1:] != (self.num_parameters,):
            raise self._width_error(values.shape[-1:])
        arrays, plan, one = self._plan(None, 0)
        return _eval(arrays, plan, None, values, one)

    def torch(self, inputs: Tensor | None, weights: Tensor, batch: int | None = None) -> Tensor:
        """Angles (batch, angles) for inputs (batch, inputs), or None, and weights (weights,), differentiable.

        The parameters are the inputs, then the weights. Where no angle depends on an input the result has
        ``batch`` rows (1 by default) that share memory, whatever the number of rows of ``inputs``.

        Raises:
            ShapeError: the numbers of inputs and weights do not add up to ``num_parameters``.
        """
        num_inputs = 0 if inputs is None else inputs.shape[-1]
        if num_inputs + weights.shape[-1] != self.num_parameters:
            raise self._width_error((num_inputs, weights.shape[-1]))
        arrays, plan, one = self._plan(weights, num_inputs)
        angles = _eval(arrays, plan, inputs, weights, one)
        if plan.rows.inputs:
            return angles
        return angles.unsqueeze(0) if batch is None else angles.expand(batch, -1)

    def _width_error(self, widths: tuple[int, ...]) -> ShapeError:
        return ShapeError(
            f"got {' inputs + '.join(map(str, widths))} parameter values; expected {self.num_parameters} in all"
        )

    def _plan(self, like: Tensor | None, num_inputs: int) -> tuple[_Arrays, _Plan, Any]:
        key = None if like is None else (num_inputs, like.device, like.dtype)
        found = self._plans.get(key)
        if found is None:
            arrays = _NUMPY if like is None else _torch_arrays(like.device, like.dtype)
            plan = self._build(arrays, num_inputs)
            found = self._plans[key] = (arrays, plan, arrays.convert(np.ones(1)))
        return found

    def _build(self, arrays: _Arrays, num_inputs: int) -> _Plan:
        num_weights = self.num_parameters - num_inputs
        if all(len(program) == 1 for program in self.programs):  # one row per angle, in order
            rows = _plan_rows(arrays, [program[0][1] for program in self.programs], num_inputs, num_weights)
            return _Plan(rows, len(self.programs), (), None, True, None)
        leaves = dict.fromkeys(x for program in self.programs for kind, x in program if kind == "row")
        rows = _plan_rows(arrays, list(leaves), num_inputs, num_weights)
        return _plan_programs(arrays, self.programs, {row: i for i, row in enumerate(leaves)}, rows)


def takes_complex_values(program: PostfixProgram, points: np.ndarray) -> bool:
    """Whether a program's value has an imaginary part at one of the points (points, parameters)."""
    arrays, plan, one = AngleMap(points.shape[-1], (program,))._plan(None, 0)
    with np.errstate(all="ignore"):
        rows = _eval_rows(arrays, plan, None, points, one)
        result = _eval_group(arrays, plan.groups[0], rows)
        return bool(np.any(np.abs(result.imag) > IMAGINARY_TOLERANCE * (1 + np.abs(result.real))))
