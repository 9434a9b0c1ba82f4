"""A batch split over the workers of an executor, for engines that do not split batches themselves."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qtm import _executors
from qtm._engines.engine import Engine, Plan


class DealtEngine(Engine):
    """An engine on an executor: every worker computes a share of the batch. A pickled copy has no executor.

    Args:
        engine: computes a share; it is pickled with every task, so it has no executor itself.
        executor: where shares are computed.
        workers: number of shares; 0: the number of workers of the executor.
    """

    def __init__(self, engine: Engine, executor: Executor, workers: int) -> None:
        self.engine, self.executor, self.output = engine, executor, engine.output
        self.workers = workers or _executors.workers_of(executor)

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self.engine,)

    def forward(self, angles: Tensor, prepared: Sequence[Tensor], *, keep: bool = False) -> tuple[Tensor, Any]:
        """See `Engine.forward`; states stay in the workers, and there are no residuals."""
        if not len(angles):
            return self.engine.forward(angles, prepared)
        parts = self._map(_forward, angles, prepared)
        return torch.cat([torch.from_numpy(values) for values in parts]), None

    def vjp(
        self,
        angles: Tensor,
        prepared: Sequence[Tensor],
        cotangent: Tensor,
        residuals: Any = None,
        *,
        by_prepared: bool = False,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """See `Engine.vjp`; the states are recomputed."""
        if not len(angles):
            return self.engine.vjp(angles, prepared, cotangent, by_prepared=by_prepared)
        parts = self._map(_vjp, angles, prepared, cotangent, by_prepared)
        by_angles = torch.cat([torch.from_numpy(part[0]) for part in parts])
        if not by_prepared:
            return by_angles, None
        columns = zip(*[part[1] for part in parts], strict=True)
        return by_angles, tuple(_joined(column, given) for column, given in zip(columns, prepared, strict=True))

    def sample(
        self, angles: Tensor, prepared: Sequence[Tensor], shots: int, generator: np.random.Generator
    ) -> np.ndarray:
        """See `Engine.sample`; samples are drawn in this process, from one stream of random numbers."""
        return self.engine.sample(angles, prepared, shots, generator)

    def plan(self, batch: int) -> Plan:
        """See `Engine.plan`."""
        return self.engine.plan(batch)

    def _map(self, function: Any, angles: Tensor, prepared: Sequence[Tensor], *more: Any) -> list[Any]:
        tasks = []
        for first, last in _executors.deal(len(angles), self.workers):
            own = [_array(p if len(p) == 1 else p[first:last]) for p in prepared]
            rest = [_array(m[first:last]) if isinstance(m, Tensor) else m for m in more]
            tasks.append((self.engine, _array(angles[first:last]), own, *rest))
        return _executors.executor_map(self.executor, function, tasks)


def _array(tensor: Tensor) -> np.ndarray:
    found: np.ndarray = tensor.detach().contiguous().numpy()
    return found


def _joined(parts: Sequence[np.ndarray], given: Tensor) -> Tensor:
    """Gradients with respect to amplitudes: one row per sample, or the sum if all samples share them."""
    found = [torch.from_numpy(part) for part in parts]
    return torch.cat(found) if len(given) != 1 else torch.stack(found).sum(0)


def _forward(engine: Engine, angles: np.ndarray, prepared: list[np.ndarray]) -> np.ndarray:
    return _array(engine.forward(torch.from_numpy(angles), [torch.from_numpy(p) for p in prepared])[0])


def _vjp(
    engine: Engine, angles: np.ndarray, prepared: list[np.ndarray], cotangent: np.ndarray, by_prepared: bool
) -> tuple[np.ndarray, list[np.ndarray]]:
    tensors = torch.from_numpy(angles), [torch.from_numpy(p) for p in prepared], torch.from_numpy(cotangent)
    by_angles, by_amplitudes = engine.vjp(*tensors, by_prepared=by_prepared)
    return _array(by_angles), [_array(g) for g in by_amplitudes or ()]


def _itself(engine: Engine) -> Engine:
    return engine
