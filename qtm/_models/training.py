"""The training loop of the estimators."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from qtm._errors import ParameterError

_LOGGER = logging.getLogger("qtm")
Loss = Callable[[Tensor, Tensor], Tensor]


def train(
    network: nn.Module,
    loss_function: Loss,
    inputs: Tensor,
    targets: Tensor,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> list[float]:
    """Train with Adam and a cosine schedule; returns the mean loss of each epoch.

    Args:
        network: inputs (batch, features) to outputs (batch, outputs).
        loss_function: mean loss of outputs and targets.
        inputs: (samples, features).
        targets: (samples,) or (samples, outputs).
        epochs: passes over the samples.
        batch_size: samples per step.
        learning_rate: initial learning rate of Adam.
        seed: seed of the order of the samples.

    Raises:
        ParameterError: the loss is no longer finite.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    steps = epochs * -(-len(inputs) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order = torch.Generator().manual_seed(seed)
    means = []
    for epoch in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(inputs), generator=order).split(batch_size):
            loss = loss_function(network(inputs[batch]), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        means.append(total / len(inputs))
        if not torch.isfinite(torch.tensor(means[-1])):
            raise ParameterError(f"the loss of epoch {epoch} is {means[-1]}; scale the data, or lower learning_rate")
        _LOGGER.debug("epoch %d of %d: loss %.4f", epoch + 1, epochs, means[-1])
    return means
