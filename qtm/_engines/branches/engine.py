"""Dynamic circuits by sampled measurement outcomes: unbiased expectation values, with their derivatives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from qtm._arguments import checked_int
from qtm._circuit.branching import DynamicCircuit, Measurement, Segment, Step, every_step
from qtm._circuit.causal_cone import MAX_BITS
from qtm._circuit.flatten import FlatCircuit, GlobalPhase, Preparation
from qtm._circuit.observables import Observable
from qtm._engines.branches.walk import Walk
from qtm._engines.engine import VALUES, VJP, Cost, Engine, Plan, SimulationMethod
from qtm._engines.memory import rows_that_fit
from qtm._engines.options import Options, real_dtype
from qtm._engines.outputs import Expectation, Output, State
from qtm._engines.statevector.engine import FORWARD_AND_REVERSE, StateVector

_ALIVE = 4  # states of a trajectory at a time, besides those kept for derivatives


@dataclass(frozen=True)
class Branches(SimulationMethod):
    """Averages over ``count`` sampled branches of a dynamic circuit for every sample.

    A trajectory draws the outcome of every measurement and reset with its probability at the current parameters, and
    continues with the projected state: 2**n amplitudes for n qubits, whatever the number of measurements. Exact methods
    defer measurements, which takes one more qubit for each of them.

    Values and derivatives are unbiased; their standard deviation falls with the square root of ``count``. With the
    unnormalised state K_m |0> of the outcomes m, <O> = sum_m f_m with f_m = <0| K_m' O K_m |0>, and outcomes are drawn
    with the probability p_m. The derivative of f_m / p_m at constant p_m is an unbiased estimate of that of <O>: it is
    the derivative of the branch's own value, plus that value times the score, the derivative of log p_m (the
    score-function or REINFORCE estimator). The mean value of a sample's other trajectories is subtracted from the value
    before it multiplies the score: an unbiased baseline that lowers the variance (Kool, van Hoof and Welling 2019,
    leave-one-out). With a fixed seed, finite differences of values differ from these derivatives, because outcomes
    change discontinuously.

    Attributes:
        count: trajectories for every sample. Those with the same outcomes are simulated once.
        seed: of the outcomes; with an integer all calls draw the same numbers, with None they follow torch's random
            state.
    """

    count: int = 64
    seed: int | None = None
    name: ClassVar[str] = "branches"
    is_exact: ClassVar[bool] = False
    takes_control_flow: ClassVar[bool] = True
    gives: ClassVar[Mapping[type, frozenset[str]]] = {Expectation: frozenset({VALUES, VJP})}

    def __post_init__(self) -> None:
        checked_int(self.count, "count", "give the trajectories to average over", least=1)
        if self.seed is not None:
            checked_int(self.seed, "seed", "give None to follow torch's random state")

    def refuses(self, circuit: FlatCircuit, output: Output, options: Options) -> str | None:
        """Why the method cannot simulate this: noise, an executor, or more qubits than any memory holds."""
        if not isinstance(output, Expectation):
            return f"gives no {type(output).__name__}, only expectation values; leave method= out"
        why = super().refuses(circuit, output, options)
        if why is not None:
            return why
        if options.executor is not None:
            return "follows all samples in this process, and takes no executor; leave executor= out"
        if circuit.num_qubits > MAX_BITS:
            return f"needs states of 2^{circuit.num_qubits} amplitudes; use fewer qubits"
        return None

    def cost(self, circuit: FlatCircuit, output: Output, options: Options) -> Cost:
        """The cost if no two trajectories share a branch."""
        steps = every_step(_steps(circuit))
        rotations = sum(len(step.circuit.operations) for step in steps if isinstance(step, Segment))
        size = 2.0**circuit.num_qubits
        return Cost(
            self.count * FORWARD_AND_REVERSE * rotations * size, _ALIVE * size * 2 * real_dtype(options.dtype).itemsize
        )

    def compile(self, circuit: FlatCircuit, output: Output, options: Options) -> BranchEngine:
        """The engine for one output."""
        assert isinstance(output, Expectation)
        return BranchEngine(self, circuit, output, options)


class Residuals(NamedTuple):
    """Residuals of a forward pass, for one `vjp`."""

    uniform: np.ndarray  # (measurements, trajectories): the random numbers
    values: np.ndarray  # (trajectories, observables), of terms other than the identity


class BranchEngine(Engine):
    """A dynamic circuit compiled into an engine for each of its segments."""

    def __init__(self, method: Branches, circuit: FlatCircuit, output: Expectation, options: Options) -> None:
        self.method, self.circuit, self.output, self.options = method, circuit, output, options
        self.steps = _steps(circuit)
        self.measurements = sum(isinstance(step, Measurement) for step in every_step(self.steps))
        self.count = method.count if self.measurements else 1  # otherwise all are the same
        last = self.steps[-1]
        self.last = last if isinstance(last, Segment) and len(self.steps) > 1 else _nothing(circuit)
        self.walked = self.steps[:-1] if self.last is last else self.steps
        parts = [_without_identity(observable) for observable in output.observables]
        self.constants = np.array([constant for _, constant in parts])
        self._plain = replace(options, noise=None, method="statevector")
        self._engines = dict(self._compiled(Expectation(tuple(observable for observable, _ in parts))))
        self._saved = sum(isinstance(step, Segment) for step in every_step(self.steps))

    def __reduce__(self) -> tuple[Any, ...]:
        return BranchEngine, (self.method, self.circuit, self.output, self.options)

    def _compiled(self, measured: Expectation) -> Iterator[tuple[Segment, Engine]]:
        """The engine of every segment: all but the last compute the final state; equal segments share an engine."""
        everything = Preparation(tuple(range(self.circuit.num_qubits)), (), False)
        shared: dict[Any, Engine] = {}
        for step in (*every_step(self.walked), self.last):
            if not isinstance(step, Segment):
                continue
            if step is self.steps[0]:
                yield step, StateVector().compile(step.circuit, State(), self._plain)
                continue
            output: Output = measured if step is self.last else State()
            key = step.circuit.operations, len(step.circuit.angles), output
            if key not in shared:
                started = replace(step.circuit, initial=(everything,))
                shared[key] = StateVector().compile(started, output, self._plain)
            yield step, shared[key]

    def forward(self, angles: Tensor, prepared: Sequence[Tensor], *, keep: bool = False) -> tuple[Tensor, Any]:
        """Averages over the trajectories (batch, observables); the residuals hold the random numbers."""
        drawn = self._drawn(angles, prepared)
        means = drawn.values.reshape(len(angles), self.count, len(self.constants)).mean(1) + self.constants
        return torch.from_numpy(means).to(angles.dtype), drawn if keep else None

    def vjp(
        self,
        angles: Tensor,
        prepared: Sequence[Tensor],
        cotangent: Tensor,
        residuals: Any = None,
        *,
        by_prepared: bool = False,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """Pull a cotangent back along the trajectories of ``residuals``, or along new ones."""
        drawn: Residuals = residuals or self._drawn(angles, prepared)
        weights = cotangent.numpy(force=True).astype(np.float64) / self.count
        baseline = self._baseline(drawn.values)
        by_angles = np.zeros(angles.shape, np.float64)
        by_amplitudes = [torch.zeros_like(p) for p in prepared]
        for part in self._parts(len(angles), self._saved):
            walk = self._walk(angles, prepared, part, drawn.uniform[:, part], keep=True)
            own = weights[part // self.count]  # (trajectories, observables)
            walk.differentiate(own, -(own * baseline[part]).sum(1), by_angles, by_amplitudes)
        gradient = torch.from_numpy(by_angles).to(angles.dtype)
        return gradient, tuple(by_amplitudes) if by_prepared else None

    def plan(self, batch: int) -> Plan:
        """Memory and arithmetic of a batch if no two trajectories share a branch."""
        n, cost = self.circuit.num_qubits, self.method.cost(self.circuit, self.output, self.options)
        state = 2.0 * real_dtype(self.options.dtype).itemsize * 2.0**n
        memory = (_ALIVE + self._saved) * state * self._together(batch, self._saved)
        note = f"averages over {self.count} sampled branches for each sample: unbiased, not exact"
        return Plan(
            Branches.name, ((float(n), self.count),), memory, batch * cost.multiply_adds,
            (note,) if self.measurements else (),
        )  # fmt: skip

    # Trajectories: number t belongs to sample t // count

    def _drawn(self, angles: Tensor, prepared: Sequence[Tensor]) -> Residuals:
        """Draw outcomes and compute their values."""
        seed = self.method.seed
        if seed is None:
            seed = int(torch.randint(2**62, (1,)))
        total = len(angles) * self.count
        uniform = np.random.default_rng(seed).random((self.measurements, total))
        values = np.zeros((total, len(self.constants)))
        for part in self._parts(len(angles), 0):
            values[part] = self._walk(angles, prepared, part, uniform[:, part]).values()
        return Residuals(uniform, values)

    def _walk(
        self, angles: Tensor, prepared: Sequence[Tensor], part: np.ndarray, uniform: np.ndarray, keep: bool = False
    ) -> Walk:
        """Follow the trajectories of ``part`` up to the last segment."""
        bits = self.circuit.num_bits if isinstance(self.circuit, DynamicCircuit) else 0
        walk = Walk(self._engines, self.last, angles.detach(), prepared, uniform, keep)
        walk.start(self.steps[0], part // self.count, bits)
        walk.follow(self.walked[1:], np.ones(len(part), bool))
        return walk

    def _baseline(self, values: np.ndarray) -> np.ndarray:
        """The mean (trajectories, observables) over the other trajectories of the same sample."""
        if self.count == 1:
            return np.zeros_like(values)
        own = values.reshape(-1, self.count, values.shape[1])
        return ((own.sum(1, keepdims=True) - own) / (self.count - 1)).reshape(values.shape)

    def _parts(self, batch: int, saved: int) -> list[np.ndarray]:
        """Numbers of trajectories whose states fit in memory together; ``saved``: states kept of each."""
        total = batch * self.count
        return np.array_split(np.arange(total), -(-total // self._together(batch, saved))) if total else []

    def _together(self, batch: int, saved: int) -> int:
        needed = (_ALIVE + saved) * (2 * real_dtype(self.options.dtype).itemsize << self.circuit.num_qubits)
        return rows_that_fit("the states of one trajectory", batch * self.count, needed, self.options.memory)


def _steps(circuit: FlatCircuit) -> tuple[Step, ...]:
    return circuit.steps if isinstance(circuit, DynamicCircuit) else (Segment(circuit, 0),)


def _nothing(circuit: FlatCircuit) -> Segment:
    """A segment without gates."""
    return Segment(FlatCircuit(circuit.num_qubits, (), (), (), (), (), phase=GlobalPhase()), 0)


def _without_identity(observable: Observable) -> tuple[Observable, float]:
    """The other terms, and the coefficient of the identity, which does not depend on the outcomes."""
    others = np.array([bool(x or z) for x, z in zip(observable.x, observable.z, strict=True)], bool)
    arrays = (array[others] for array in (observable.coeffs, observable.x, observable.z, observable.k))
    return Observable(observable.num_qubits, *arrays), float(observable.coeffs[~others].sum())
