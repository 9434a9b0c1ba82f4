"""Second derivatives, products with the metric, and states, compared with the gradient of expectation values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from qtm._bench.compare import Row, now
from qtm._bench.timing import alternate, clock
from qtm._bench.workloads import Case, QtmRunner
from qtm._optim.metric import StateGeometry

TITLE = "Hessian-vector products, metric-vector products and states, in gradients"


def rows(case: Case, dtype: str, threads: int, repeats: int) -> Iterator[Row]:
    """One row for each, with its time in place of a peer's, beside the time of a gradient."""
    gradient = QtmRunner(case, dtype, threads)
    for name, call in _calls(case, dtype, threads, gradient).items():
        own, other = alternate([partial(gradient.timed, "combined"), partial(clock, call)], repeats)
        row = Row(case.x, "combined", name, dtype, "reverse", case.batch, threads, measured=now())
        row.qtm_ms, row.peer_ms, row.samples, row.repeats = own.summary(), other.summary(), case.batch, repeats
        yield row


def _calls(case: Case, dtype: str, threads: int, gradient: QtmRunner) -> dict[str, Callable[[], object]]:
    weights, inputs = gradient.module.variational_[0], gradient.inputs
    direction = torch.cos(torch.arange(weights.numel(), dtype=weights.dtype))

    def first() -> torch.Tensor:
        values = gradient.module(inputs)
        return torch.autograd.grad(values, weights, gradient.cotangent, create_graph=True)[0]

    held = first()
    products = StateGeometry(gradient.module).at(inputs)
    states = QtmRunner(case, dtype, threads, outputs="state")
    ones = torch.ones_like(states.module(inputs).detach())
    return {
        "Hessian-vector product": lambda: torch.autograd.grad(held, weights, direction, retain_graph=True),
        "gradient and Hessian-vector product": lambda: torch.autograd.grad(first(), weights, direction),
        "metric-vector product": lambda: products(direction),
        "step with outputs='state'": lambda: torch.autograd.grad(
            states.module(inputs), states.module.variational_, ones
        ),
    }
