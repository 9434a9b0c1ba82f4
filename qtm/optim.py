"""Optimizers in the geometry of quantum states, for `torch` training loops.

| optimizer | cost of a step | suited to |
| --- | --- | --- |
| `NaturalGradient` | a gradient, and products with the metric (two gradients each) | the exact simulator |
| `QNSPSA` | two values of the loss and four fidelities | estimators and devices |

`metric_tensor` gives the dense metric, for inspection.
"""

from __future__ import annotations

from qtm._optim.metric import metric_tensor
from qtm._optim.natural_gradient import NaturalGradient
from qtm._optim.qn_spsa import QNSPSA

__all__ = ["QNSPSA", "NaturalGradient", "metric_tensor"]
