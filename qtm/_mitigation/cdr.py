"""Clifford data regression: learn the map from noisy to exact values on near-Clifford circuits.

Each training circuit is the circuit itself with other angles. So all of them, at all points of a PUB, are one
parametrised circuit with one array of angles: one PUB, with the layout and the gates of the original.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.primitives.base import BaseEstimatorV2
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.observables_array import ObservablesArray

from qtm._circuit.angle_map import AngleMap
from qtm._circuit.expressions import compile_angles
from qtm._errors import CircuitError, ParameterError
from qtm._mitigation.folding import fold_global
from qtm._mitigation.method import (
    Drawing,
    Floats,
    Mitigated,
    Steps,
    check_scales,
    padded_values,
    stacked,
    with_angles,
)

# Gate -> the step between angles at which it is a Clifford gate. All its parameters are such angles.
CLIFFORD_STEPS: dict[str, float] = {
    **dict.fromkeys(("rx", "ry", "rz", "p", "u1", "u", "u2", "u3", "r"), math.pi / 2),
    **dict.fromkeys(("rxx", "ryy", "rzz", "rzx"), math.pi / 2),
    **dict.fromkeys(("crx", "cry", "crz", "cp", "cu1"), math.pi),
}
# An angle within this distance of a Clifford angle counts as Clifford and is not replaced.
_CLIFFORD_TOLERANCE = 1e-9
# Training values whose relative spread is below this do not determine a slope.
_LEAST_SPREAD = 1e-3


@dataclass(frozen=True)
class CliffordData(Drawing):
    """Clifford data regression (Czarnik et al., arXiv:2005.10189).

    With more than one scale factor it is variable-noise CDR (Lowe et al., arXiv:2011.01157). Each point of a
    PUB has its own training circuits and its own fit.

    Args:
        num_training_circuits: number of training circuits per point.
        fraction_non_clifford: fraction of the non-Clifford angles that each training circuit keeps.
        fit: "linear" (slope and intercept) or "proportional" (no intercept).
        scale_factors: noise scales used in the fit; (1, 3) is variable-noise CDR.
        sigma: width in radians; an angle is replaced by a Clifford angle at distance d with probability
            proportional to ``exp(-(d / sigma)^2)``.
        seed: seed of the training circuits; every PUB draws new ones.
    """

    num_training_circuits: int = 20
    fraction_non_clifford: float = 0.2
    fit: str = "linear"
    scale_factors: Sequence[float] = (1,)
    sigma: float = 0.5
    seed: int | None = None

    def __post_init__(self) -> None:
        check_training(self.num_training_circuits, self.fraction_non_clifford, self.sigma)
        if self.fit not in ("linear", "proportional"):
            raise ParameterError(f"unknown fit {self.fit!r}; choose one of linear, proportional")
        if list(self.scale_factors) != [1]:
            check_scales(self.scale_factors)
        self._start()

    def steps(self, pub: EstimatorPub) -> Steps:
        """Run each point and its training circuits at each scale; fit; apply."""
        rng = self._draws.next()
        template = Template(pub.circuit)
        here = template.angles(padded_values(pub))  # (*shape, angles)
        near = self._training_angles(here, template.clifford_steps, rng)
        angles = np.concatenate((here[None], near))  # (1 + training, *shape, angles)
        scaled = [fold_global(template.circuit, scale, rng) for scale in self.scale_factors]
        results = yield [with_angles(c, pub.observables, angles, pub.precision) for c in scaled]
        exact = exact_values(with_angles(template.circuit, pub.observables, near, None))
        evs, stds = stacked(results)  # (scales, 1 + training, *shape)
        sizes = np.broadcast_to(largest_values(pub.observables), pub.shape)
        slopes, intercept = fit_linear(evs[:, 1:], stds[:, 1:], exact, sizes, self.fit)
        mitigated = (slopes * evs[:, 0]).sum(axis=0) + intercept
        of_fit = fit_error(evs[:, 1:], stds[:, 1:], exact, sizes, self.fit, evs[:, 0])
        errors = np.sqrt((slopes**2 * stds[:, 0] ** 2).sum(axis=0) + of_fit**2)
        return Mitigated(mitigated, errors, evs[0, 0], {"slopes": slopes, "intercept": intercept})

    def _training_angles(self, angles: Floats, steps: Floats, rng: np.random.Generator) -> Floats:
        """Angles (training, *shape, angles) near ``angles`` (*shape, angles), most of them Clifford."""
        shape = (self.num_training_circuits, *angles.shape)
        kept = keep_some(shape, self.fraction_non_clifford, rng)
        return np.where(kept, angles, nearby_clifford(angles, steps, shape, self.sigma, rng))


class Template:
    """A circuit with one free parameter for each angle that is not a Clifford one.

    Attributes:
        circuit: the template; its parameters sort in the order of the angles.
        clifford_steps: (angles,) step between the Clifford values of each angle, in radians.
        key: equal for circuits with the same template.
    """

    def __init__(self, circuit: QuantumCircuit) -> None:
        self.circuit = circuit.copy_empty_like()
        self.circuit.global_phase = 0  # no effect on expectation values; in a transpiled circuit it contains parameters
        self._source = list(circuit.parameters)
        self._expressions: list[object] = []
        steps: list[float] = []
        key: list[Hashable] = [circuit.num_qubits]
        for item in circuit.data:
            operation = item.operation
            step = CLIFFORD_STEPS.get(operation.name)
            params = list(operation.params)
            if step is not None:
                params = [p if _is_clifford(p, step) else self._free(p, step, steps) for p in params]
                operation = operation.to_mutable()
                operation.params = params
            elif any(getattr(p, "parameters", None) for p in params):
                raise CircuitError(
                    f"the angles of {operation.name!r} have no known Clifford values; decompose or transpile "
                    f"the circuit to gates among {', '.join(CLIFFORD_STEPS)}"
                )
            self.circuit.append(operation, item.qubits)
            fixed = tuple(str(p) for p in params if not isinstance(p, Parameter))
            key.append((operation.name, tuple(circuit.find_bit(q).index for q in item.qubits), fixed))
        if not steps:
            raise CircuitError("the circuit has no angle to vary, so it has no training circuits")
        self.clifford_steps = np.array(steps)
        self.key: Hashable = tuple(key)
        self._map: AngleMap = compile_angles(self._expressions, self._source)

    def _free(self, value: object, step: float, steps: list[float]) -> Parameter:
        self._expressions.append(value)
        steps.append(step)
        return Parameter(f"angle_{len(steps):06d}")

    def angles(self, parameter_values: Floats) -> Floats:
        """Angles (*shape, angles) of the original circuit for parameter values (*shape, parameters)."""
        return np.asarray(self._map.numpy(parameter_values), dtype=float)


def _is_clifford(value: object, step: float) -> bool:
    if getattr(value, "parameters", None):
        return False
    turns = float(value) / step  # type: ignore[arg-type]
    return abs(turns - round(turns)) * step < _CLIFFORD_TOLERANCE


def nearby_clifford(
    angles: Floats, steps: Floats, shape: tuple[int, ...], sigma: float, rng: np.random.Generator
) -> Floats:
    """Clifford angles of ``shape`` = (training, *shape, angles); nearer ones are more likely."""
    turns = np.round(2 * math.pi / steps).astype(int)  # Clifford values per turn, 4 or 2
    j = np.arange(turns.max())
    distance = angles[..., None] - j * steps[:, None]
    distance = (distance + math.pi) % (2 * math.pi) - math.pi  # (*shape, angles, values), in [-pi, pi)
    logits = np.where(j < turns[:, None], -((distance / sigma) ** 2), -np.inf)
    choice = np.argmax(logits + rng.gumbel(size=(*shape, len(j))), axis=-1)  # drawn with weights exp(logits)
    moves = np.broadcast_to(distance, (*shape, len(j)))
    return angles - np.take_along_axis(moves, choice[..., None], -1)[..., 0]


def keep_some(shape: tuple[int, ...], fraction: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """True for that fraction of the last axis, at random for each element of the others."""
    rank = np.argsort(np.argsort(rng.random(shape), axis=-1), axis=-1)
    return rank < round(fraction * shape[-1])


def fit_linear(noisy: Floats, stds: Floats, exact: Floats, sizes: Floats, fit: str) -> tuple[Floats, Floats]:
    """Slopes (scales, *shape) and intercept (*shape) of ``exact ~ sum_s slope_s noisy_s + intercept``.

    ``noisy`` and its errors are (scales, training, *shape), ``exact`` is (training, *shape), ``sizes`` the
    largest values the observables can take (*shape). Least squares on the *correction* ``exact - noisy_0``,
    truncated to directions in which the training data differ by more than their errors; of the remaining solutions
    the smallest correction, where an intercept is ten times as costly as a slope.
    """
    x, y, unit = _columns(noisy, exact, sizes, fit)
    u, inverse, vt = _decomposed(x, stds, sizes, unit)
    target = np.einsum("...ts,...t->...s", u, y) * inverse
    found = np.einsum("...st,...s->...t", vt, target)  # (*shape, scales + 1)
    slopes, intercept = found[..., :-1], unit * found[..., -1]
    slopes[..., 0] += 1
    return np.moveaxis(slopes, -1, 0), intercept


def fit_error(noisy: Floats, stds: Floats, exact: Floats, sizes: Floats, fit: str, at: Floats) -> Floats:
    """Standard error of the line of `fit_linear` at the values ``at`` (scales, *shape): (*shape).

    That of least squares, from the residuals of the training data, which include shot noise and nonlinearity in the
    noise.
    """
    x, y, unit = _columns(noisy, exact, sizes, fit)
    u, inverse, vt = _decomposed(x, stds, sizes, unit)
    target = np.einsum("...ts,...t->...s", u, y) * (inverse > 0)
    residuals = y - np.einsum("...ts,...s->...t", u, target)  # (*shape, training)
    freedom = np.maximum(y.shape[-1] - (inverse > 0).sum(axis=-1), 1)
    here = np.concatenate((np.moveaxis(at, 0, -1), unit[..., None]), axis=-1)  # (*shape, scales + 1)
    leverage = ((np.einsum("...st,...t->...s", vt, here) * inverse) ** 2).sum(axis=-1)
    return np.sqrt(leverage * (residuals**2).sum(axis=-1) / freedom)


def _columns(noisy: Floats, exact: Floats, sizes: Floats, fit: str) -> tuple[Floats, Floats, Floats]:
    """Noisy values (*shape, training, scales), corrections (*shape, training), unit of the intercept (*shape)."""
    x = np.moveaxis(noisy, (0, 1), (-1, -2))
    return x, np.moveaxis(exact, 0, -1) - x[..., 0], 0.1 * sizes * (fit == "linear")


def _decomposed(x: Floats, stds: Floats, sizes: Floats, unit: Floats) -> tuple[Floats, Floats, Floats]:
    """Singular vectors and inverse singular values of the columns; 0 for directions within the noise."""
    column = np.broadcast_to(unit[..., None, None], (*x.shape[:-1], 1))
    u, s, vt = np.linalg.svd(np.concatenate((x, column), axis=-1), full_matrices=False)
    noise = np.sqrt((stds**2).mean(axis=(0, 1)))
    floor = np.maximum(3 * noise, _LEAST_SPREAD * sizes)[..., None] * math.sqrt(x.shape[-2])
    return u, np.where(s > floor, 1 / np.maximum(s, 1e-300), 0.0), vt


def largest_values(observables: ObservablesArray) -> Floats:
    """Sum of the sizes of the coefficients of each observable, in their shape."""
    sums = [sum(abs(c) for c in observable.values()) for observable in observables.ravel()]
    return np.array(sums, dtype=float).reshape(observables.shape)


def check_training(count: int, fraction: float, sigma: float) -> None:
    """Reject training sets that cannot be fitted."""
    if count < 2 or count != int(count):
        raise ParameterError(f"at least 2 training circuits are needed for a fit, got {count!r}")
    if not 0 <= fraction <= 1:
        raise ParameterError(f"fraction_non_clifford must be in [0, 1], got {fraction!r}")
    if not sigma > 0:
        raise ParameterError(f"sigma must be positive (radians), got {sigma!r}")


def exact_values(pub: EstimatorPub) -> Floats:
    """Exact values of a PUB; qubits that neither the circuit nor an observable touches are left out."""
    circuit = pub.circuit
    labels = {label for observable in pub.observables.ravel() for label in observable}
    used = {circuit.find_bit(q).index for item in circuit.data for q in item.qubits
            if item.operation.name != "barrier"}  # fmt: skip
    used |= {len(label) - 1 - i for label in labels for i, letter in enumerate(label) if letter != "I"}
    kept = sorted(used) or [0]
    small = QuantumCircuit(len(kept))
    for item in circuit.data:
        if item.operation.name != "barrier":
            small.append(item.operation, [kept.index(circuit.find_bit(q).index) for q in item.qubits])
    observables = np.empty(pub.observables.shape, dtype=object)
    for index in np.ndindex(observables.shape):
        observables[index] = {_picked(k, kept): v for k, v in pub.observables[index].items()}
    values = pub.parameter_values.as_array(circuit.parameters)
    columns = [list(circuit.parameters).index(p) for p in small.parameters]
    result = _exact_estimator().run([(small, ObservablesArray(observables), values[..., columns])]).result()
    return np.asarray(result[0].data.evs, dtype=float)


def _picked(label: str, qubits: Sequence[int]) -> str:
    return "".join(label[len(label) - 1 - q] for q in reversed(qubits))


def _exact_estimator() -> BaseEstimatorV2:
    from qtm.primitives import FastEstimator

    return FastEstimator()
