"""Quantum natural SPSA: natural gradients from a few values, for estimators and devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from qiskit.circuit import ParameterVector
from qiskit.passmanager import BasePassManager
from qiskit.primitives import BaseSamplerV2
from torch import Tensor, nn

from qtm._arguments import check_type, checked_int, checked_number, checked_seed
from qtm._errors import ParameterError, ShapeError
from qtm._optim.natural_gradient import LastInputs, Params, check_sets
from qtm._parts.model_circuit import ModelCircuit
from qtm.kernels import QuantumKernel
from qtm.modules import QuantumModule


class QNSPSA(torch.optim.Optimizer):
    """Natural gradient descent from six values per step, two losses and four fidelities, for any number of parameters.

    Gacon et al., Quantum 5, 567 (2021): the gradient is estimated as by SPSA, the metric from fidelities of the states
    at parameters that are displaced along two random directions, averaged over all steps, and made positive:
    ``sqrt(g g) + damping``. Use it with values from an estimator, and fidelities from a sampler.

    Args:
        params: parameter sets of the module, or groups of them with their own ``lr``.
        module: the `QuantumModule`.
        lr: learning rate, above 0.
        damping: added to the diagonal of the metric, above 0.
        epsilon: displacement in radians.
        repeats: number of direction pairs that are averaged in a step.
        sampler: any ``BaseSamplerV2``, for the fidelities; None: exact.
        shots: shots of a fidelity; None: exact, or the sampler's default.
        pass_manager: transpiles the circuits of the fidelities for the sampler's backend.
        seed: seed of the directions.

    Raises:
        ParameterError: a parameter is not one of the module's sets, or a number is unusable.

    Example:
        >>> from qiskit.circuit.library import real_amplitudes
        >>> from qtm import QuantumModule
        >>> from qtm.optim import QNSPSA
        >>> ansatz = real_amplitudes(2, reps=1)
        >>> module = QuantumModule(ansatz, None, ansatz.parameters, observables=["ZZ"], seed_init=0)
        >>> optimizer = QNSPSA(module.parameters(), module, lr=0.05, seed=0)
        >>> losses = [optimizer.step(lambda: module().sum()).item() for _ in range(50)]
        >>> losses[-1] < losses[0]
        True
    """

    def __init__(
        self,
        params: Params,
        module: QuantumModule,
        *,
        lr: float = 0.05,
        damping: float = 1e-2,
        epsilon: float = 0.1,
        repeats: int = 1,
        sampler: BaseSamplerV2 | None = None,
        shots: int | None = None,
        pass_manager: BasePassManager | None = None,
        seed: int | None = None,
    ) -> None:
        check_type(module, "module", QuantumModule, "a QuantumModule", "give the module whose parameters are trained")
        self._module = module
        self._damping = checked_number(damping, "damping", "give a small number, such as 0.01", above=0)
        self._epsilon = checked_number(epsilon, "epsilon", "give a distance in radians, such as 0.1", above=0)
        self._repeats = checked_int(repeats, "repeats", "give the pairs of directions of a step", least=1)
        self._random = np.random.default_rng(None if seed is None else checked_seed(seed, "seed"))
        super().__init__(params, {"lr": lr})
        for group in self.param_groups:
            checked_number(group["lr"], "lr", "give a learning rate, such as 0.05", above=0)
        check_sets(self.param_groups, module)
        self._last = LastInputs()
        module.register_forward_pre_hook(self._last)
        weights = [p for parameters in module.variational_parameters for p in parameters]
        coordinates = [
            *module.encoding_parameters,
            *weights,
        ]  # states depend on inputs and weights; all are features here
        none = ParameterVector("none", 0)
        model = ModelCircuit(module.circuit, coordinates, none, none)
        self._fidelities = QuantumKernel(
            model, sampler=sampler, shots=shots, pass_manager=pass_manager, evaluate_duplicates="all",
            seed=seed, num_threads=module.num_threads_forward, progress=False,
        )  # fmt: skip

    @torch.no_grad()
    def step(self, closure: Callable[[], Any], *, inputs: Any = None) -> Any:  # type: ignore[override]
        """Take a step; return the mean of the losses at the displaced parameters.

        Args:
            closure: returns the loss at the module's parameters; no gradient of it is taken.
            inputs: inputs (..., input_size) over which the metric is averaged; None: those of the module's last call,
                in ``closure`` or before it.
        """
        if not callable(closure):
            raise ParameterError("QNSPSA evaluates the loss itself; give step a function that returns it")
        sets = [p for group in self.param_groups for p in group["params"]]
        start = torch.cat([s.detach().double() for s in sets])
        losses, slope, metric = [], torch.zeros_like(start), torch.zeros(len(start), len(start), dtype=torch.float64)
        for _ in range(self._repeats):
            first, second = (torch.from_numpy(self._random.choice([-1.0, 1.0], len(start))) for _ in range(2))
            up, down = (self._loss(closure, sets, start + sign * self._epsilon * first) for sign in (1, -1))
            slope += (up - down) / (2 * self._epsilon * self._repeats) * first
            losses += [up, down]
            self._write(sets, start)
            metric += self._sample_of_metric(sets, start, first, second, inputs) / self._repeats
        direction = torch.linalg.solve(self._averaged(metric), slope)
        rates = torch.cat([torch.full_like(p, g["lr"]).double() for g in self.param_groups for p in g["params"]])
        self._write(sets, start - rates * direction)
        return torch.stack(losses).mean()

    def _loss(self, closure: Callable[[], Any], sets: list[nn.Parameter], at: Tensor) -> Tensor:
        self._write(sets, at)
        with torch.enable_grad():  # so that the hook records the inputs
            return torch.as_tensor(closure()).detach().double()

    def _write(self, sets: list[nn.Parameter], values: Tensor) -> None:
        for one, part in zip(sets, values.split([s.numel() for s in sets]), strict=True):
            one.copy_(part)

    def _sample_of_metric(
        self, sets: list[nn.Parameter], start: Tensor, first: Tensor, second: Tensor, inputs: Any
    ) -> Tensor:
        """An estimate of the metric (parameters, parameters) from four fidelities with the present state.

        The metric is -1/2 of the Hessian of the fidelity; its entry along two directions is a
        difference of differences.
        """
        one, two = self._epsilon * first, self._epsilon * second
        points = torch.stack([start + one + two, start + one, start - one + two, start - one])
        rows, at = self._inputs(inputs), self._everything(sets, start[None])
        moved = self._everything(sets, points)
        values = [
            self._fidelities.evaluate(torch.cat([row[None], at], 1), torch.cat([row.expand(4, -1), moved], 1))[0]
            for row in rows
        ]
        plus_both, plus, minus_both, minus = np.mean(values, axis=0)
        curvature = (plus_both - plus - minus_both + minus) / (2 * self._epsilon**2)
        outer = torch.outer(first, second)
        return -0.5 * curvature * (outer + outer.T) / 2

    def _everything(self, sets: list[nn.Parameter], points: Tensor) -> Tensor:
        """Rows of all weights of the module, with those of ``sets`` from ``points`` (rows, trained)."""
        found = torch.cat([s.detach().double() for s in self._module.variational_]).repeat(len(points), 1)
        places = {}
        begin = 0
        for one in self._module.variational_:
            places[id(one)] = slice(begin, begin + one.numel())
            begin += one.numel()
        for one, part in zip(sets, points.split([s.numel() for s in sets], dim=1), strict=True):
            found[:, places[id(one)]] = part
        return found

    def _inputs(self, inputs: Any) -> Tensor:
        """Inputs (rows, input_size) over which the metric is averaged; one empty row if there are none."""
        size = self._module.input_size
        if not size:
            return torch.zeros(1, 0, dtype=torch.float64)
        chosen = self._last.inputs if inputs is None else torch.as_tensor(inputs)
        if chosen is None or chosen.shape[-1] != size or not chosen.numel():
            raise ShapeError(
                f"the metric needs inputs (..., {size}): call the module in closure, or give step(inputs=...)"
            )
        return chosen.detach().double().reshape(-1, size)

    def _averaged(self, metric: Tensor) -> Tensor:
        """The mean over all steps, made positive: ``sqrt(g g) + damping``."""
        state = self.state["metric"]  # type: ignore[index]
        steps = state.get("steps", 0)
        mean = metric if not steps else (state["mean"] * steps + metric) / (steps + 1)
        state["mean"], state["steps"] = mean, steps + 1
        values, vectors = torch.linalg.eigh(mean)
        positive: Tensor = (vectors * (values.abs() + self._damping)) @ vectors.T
        return positive
