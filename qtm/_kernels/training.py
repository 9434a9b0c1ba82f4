"""Training of a kernel's parameters."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qtm._arguments import checked_int, checked_number, checked_seed, refused
from qtm._errors import ParameterError, ShapeError
from qtm._kernels.losses import kernel_target_alignment, svc_loss
from qtm._torch.inputs import as_numbers

_LOGGER = logging.getLogger("qtm")
Loss = Callable[[Tensor, Any], Tensor]


def _misalignment(matrix: Tensor, labels: Any) -> Tensor:
    return 1 - kernel_target_alignment(matrix, labels)


_LOSSES: dict[str, Loss] = {"alignment": _misalignment, "svc": svc_loss}


def train_kernel(
    kernel: nn.Module,
    X: Any,
    y: Any,
    *,
    loss: str | Loss = "alignment",
    steps: int = 50,
    learning_rate: float = 0.1,
    batch_size: int | None = None,
    seed: int | None = None,
) -> list[float]:
    """Train the parameters of a kernel with Adam, in place; return the loss of every step.

    Args:
        kernel: a `QuantumKernel` with training parameters.
        X: samples (samples, features).
        y: labels (samples,).
        loss: "alignment" (``1 - kernel_target_alignment``), "svc" (`svc_loss`), or a function of the matrix, a tensor
            (samples, samples), and the labels.
        steps: number of steps.
        learning_rate: learning rate of Adam, in radians.
        batch_size: samples drawn in each step; None: all.
        seed: seed of the draws.

    Raises:
        ParameterError: there is nothing to train, an argument is unusable, or the loss is no longer finite.
        ShapeError: the numbers of labels and of samples differ.

    Example:
        >>> import numpy as np
        >>> from qtm.circuits import angle_encoding, hardware_efficient_ansatz, stack
        >>> from qtm.kernels import QuantumKernel, train_kernel
        >>> parts = [angle_encoding(2, scaling=True), hardware_efficient_ansatz(2), angle_encoding(2)]
        >>> kernel = QuantumKernel(stack(parts), seed_init=0)
        >>> X = np.random.default_rng(0).uniform(-1, 1, (20, 2))
        >>> losses = train_kernel(kernel, X, X[:, 0] * X[:, 1] > 0, steps=10)
        >>> losses[-1] < losses[0]
        True
    """
    function = _LOSSES.get(loss) if isinstance(loss, str) else loss
    if not callable(function):
        raise refused("loss", f"one of {', '.join(map(repr, _LOSSES))}, or a function", loss, "choose one of these")
    steps = checked_int(steps, "steps", "give the steps of the optimiser", least=1)
    checked_number(learning_rate, "learning_rate", "give a step in radians, such as 0.1", above=0)
    trained = [p for p in kernel.parameters() if p.requires_grad and p.numel()]
    if not trained:
        raise ParameterError("the kernel has nothing to train; give QuantumKernel training_parameters=")
    samples, labels = as_numbers(X, "X"), np.asarray(y)
    if len(samples) != len(labels):
        raise ShapeError(f"{len(labels)} labels for {len(samples)} samples; give one for each")
    size = len(samples) if batch_size is None else checked_int(batch_size, "batch_size", "give samples", least=2)
    generator = torch.Generator().manual_seed(0 if seed is None else checked_seed(seed, "seed"))
    optimizer, losses = torch.optim.Adam(trained, lr=learning_rate), []
    for step in range(steps):
        chosen = slice(None) if size >= len(samples) else torch.randperm(len(samples), generator=generator)[:size]
        value = function(kernel(samples[chosen]), labels[chosen])
        if not torch.isfinite(value):
            raise ParameterError(
                f"the loss of step {step} is {value.item()}; lower learning_rate, or scale the samples"
            )
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
        _LOGGER.debug("kernel training, step %d of %d: loss %.4f", step + 1, steps, losses[-1])
    return losses
