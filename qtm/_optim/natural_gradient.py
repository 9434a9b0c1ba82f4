"""Natural gradient descent as a torch optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from qtm._arguments import checked_choice, checked_int, checked_number
from qtm._errors import ParameterError
from qtm._optim.conjugate_gradients import blockwise, conjugate_gradients
from qtm._optim.metric import Products, StateGeometry
from qtm.modules import QuantumModule

_BLOCKS = ("full", "sets")
Params = Iterable[Any]


class LastInputs:
    """Stores the inputs of a module's last call with gradients enabled; a forward hook."""

    def __init__(self) -> None:
        self.inputs: Tensor | None = None

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if torch.is_grad_enabled() and arguments and arguments[0] is not None:
            self.inputs = torch.as_tensor(arguments[0]).detach()


def check_sets(groups: list[dict[str, Any]], module: QuantumModule) -> None:
    """Raise an error for parameters that are not parameter sets of the module.

    Raises:
        ParameterError: a parameter is not.
    """
    known = {id(p) for p in module.variational_}
    if any(id(p) not in known for group in groups for p in group["params"]):
        raise ParameterError(
            "a parameter is not one of the module's sets (module.variational_) and has no metric; train it with "
            "another optimizer, such as Adam, beside this one"
        )


class NaturalGradient(torch.optim.Optimizer):
    """Gradient descent in the geometry of the states: ``(g + damping) d = gradient``, ``parameters -= lr d``.

    g is the Fubini-Study metric of the module's states, averaged over the inputs of its last call with gradients
    enabled (Stokes et al., Quantum 4, 269 (2020)), a quarter of their quantum Fisher information. The equations are
    solved by conjugate gradients, without the matrix: a product with g costs about two gradients. g is built, from all
    tangents in one batch, only for circuits without inputs and with at most 64 parameters.

    The metric is that of the ideal states, even if the module's values come from an estimator or have noise.

    Args:
        params: parameter sets of the module, or groups of them with their own ``lr`` and ``damping``.
        module: the `QuantumModule`.
        lr: learning rate, above 0.
        damping: Tikhonov regularisation, added to the diagonal of g; at least 0.
        blocks: "full", or "sets": without the entries of g between different parameter sets, the block-diagonal form
            (with a set for each layer, that of the paper).
        max_iterations: maximum number of products with g in a step, for each block; None: the number of parameters, at
            most 50.
        tolerance: tolerance of the solution, relative to the gradient.

    Attributes:
        iterations: number of products with g in the last step.

    Raises:
        ParameterError: a parameter is not one of the module's sets, or a number is unusable.
        UnsupportedError: the states are too large to simulate, or trained parameters are amplitudes.
        ShapeError: (from ``step``) the module has inputs and has not been called.

    Example:
        >>> from qiskit.circuit.library import real_amplitudes
        >>> from qtm import QuantumModule
        >>> from qtm.optim import NaturalGradient
        >>> ansatz = real_amplitudes(3, reps=1)
        >>> module = QuantumModule(ansatz, None, ansatz.parameters, observables=["ZZZ"], seed_init=0)
        >>> optimizer = NaturalGradient(module.parameters(), module, lr=0.1)
        >>> before = module().item()
        >>> for _ in range(10):
        ...     energy = module().sum()
        ...     optimizer.zero_grad()
        ...     energy.backward()
        ...     optimizer.step()
        >>> energy.item() < before
        True
    """

    def __init__(
        self,
        params: Params,
        module: QuantumModule,
        *,
        lr: float = 0.05,
        damping: float = 1e-3,
        blocks: str = "full",
        max_iterations: int | None = None,
        tolerance: float = 1e-4,
    ) -> None:
        self._geometry = StateGeometry(module)
        self._blocks = checked_choice(blocks, "blocks", _BLOCKS)
        self._most = (
            None
            if max_iterations is None
            else checked_int(max_iterations, "max_iterations", "give the products of a step", least=1)
        )
        self._tolerance = checked_number(tolerance, "tolerance", "give 1e-4, say", above=0)
        super().__init__(params, {"lr": lr, "damping": damping})
        for group in self.param_groups:
            checked_number(group["lr"], "lr", "give a learning rate, such as 0.05", above=0)
            checked_number(group["damping"], "damping", "give a small number, such as 1e-3", least=0)
        check_sets(self.param_groups, module)
        self._geometry.prepare()
        self._last = LastInputs()
        module.register_forward_pre_hook(self._last)
        self.iterations = 0

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, *, inputs: Any = None) -> Any:
        """Take a step; return the loss of ``closure``, if given.

        Args:
            closure: evaluates the loss and its gradient again.
            inputs: inputs (..., input_size) over which the metric is averaged; None: those of the module's last call.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        chosen = self._last.inputs if inputs is None else torch.as_tensor(inputs)
        sets = self._geometry.module.variational_
        gradient = torch.cat([torch.zeros_like(s) if s.grad is None else s.grad for s in sets])
        options = self._by_coordinate(sets)
        products = self._geometry.at(chosen)
        direction = self._solve(products, gradient, sets, options)
        sizes = [s.numel() for s in sets]
        for one, solved, rate in zip(sets, direction.split(sizes), options["lr"].split(sizes), strict=True):
            if one.grad is not None:
                self.state[one]["direction"] = solved.clone()  # initial guess of the next step
                one.sub_(rate * solved)
        return loss

    def _by_coordinate(self, sets: list[nn.Parameter]) -> dict[str, Tensor]:
        """For each coordinate (parameters,) of the sets: its lr and damping, and whether it is trained."""
        groups = {id(p): group for group in self.param_groups for p in group["params"]}
        found: dict[str, list[Tensor]] = {"lr": [], "damping": [], "trained": []}
        for one in sets:
            group = groups.get(id(one)) if one.grad is not None else None
            for name, columns in found.items():
                value = float(group is not None) if name == "trained" else (group or {}).get(name, 0.0)
                columns.append(torch.full_like(one, value))
        return {name: torch.cat(columns) for name, columns in found.items()}

    def _solve(
        self, products: Products, gradient: Tensor, sets: list[nn.Parameter], options: dict[str, Tensor]
    ) -> Tensor:
        """The natural gradient (parameters,), 0 at coordinates that are not trained."""
        trained = options["trained"] != 0
        metric = products.matrix()
        if metric is not None:
            self.iterations = len(metric)
            return self._solve_dense(metric, gradient, sets, options)

        def damped(vector: Tensor) -> Tensor:
            return products(vector) + options["damping"] * vector

        before = torch.cat([self.state[s].get("direction", torch.zeros_like(s)) for s in sets])
        direction, self.iterations = torch.zeros_like(gradient), 0
        for inside, product in blockwise(damped, self._members(sets, trained)):
            most = self._most or min(int(inside.sum()), 50)
            found, used = conjugate_gradients(
                product, gradient * inside, before * inside, tolerance=self._tolerance, max_iterations=most
            )
            direction += found
            self.iterations += used
        return direction

    def _solve_dense(
        self, metric: Tensor, gradient: Tensor, sets: list[nn.Parameter], options: dict[str, Tensor]
    ) -> Tensor:
        """The same from the metric (parameters, parameters)."""
        direction = torch.zeros_like(gradient)
        for inside in self._members(sets, options["trained"] != 0):
            block = metric[inside][:, inside] + torch.diag(options["damping"][inside])
            right = gradient[inside][:, None]
            factor, failed = torch.linalg.cholesky_ex(block)
            if failed:  # singular without damping, up to rounding: take the minimum-norm solution
                direction[inside] = torch.linalg.lstsq(block, right, driver="gelsd").solution[:, 0]
            else:
                direction[inside] = torch.cholesky_solve(right, factor)[:, 0]
        return direction

    def _members(self, sets: list[nn.Parameter], trained: Tensor) -> list[Tensor]:
        """The coordinates (parameters,) bool of each block."""
        if self._blocks == "full":
            return [trained]
        which = torch.cat([torch.full_like(s, number) for number, s in enumerate(sets)])
        return [inside for number in range(len(sets)) if (inside := trained & (which == number)).any()]
