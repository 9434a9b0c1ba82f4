"""Diagnostics of circuits: gradients at random parameters, expressibility, entanglement, Fisher information.

For every diagnostic, one function returns numbers and another one draws them (with matplotlib, ``pip install
"qtm-torch[viz]"``). All random parameter values are one batch of the simulator.

| function | question | drawn by |
| --- | --- | --- |
| `barren_plateau`, `gradient_variances` | do gradients vanish with qubits and depth? | `plot_gradient_variance` |
| `expressibility` | how evenly do its states cover all states? | `plot_expressibility` |
| `entangling_capability` | how entangled are its states? | `plot_entangling_capability` |
| `fisher_information` | in how many directions is the loss curved? | `plot_fisher_spectrum` |
| `effective_dimension` | how large is the model for a given number of samples? | `plot_effective_dimension` |
"""

from __future__ import annotations

from qtm._diagnostics.fisher import FisherInformation, effective_dimension, fisher_information
from qtm._diagnostics.gradients import GradientVariance, barren_plateau, gradient_variances
from qtm._diagnostics.plots import (
    plot_effective_dimension,
    plot_entangling_capability,
    plot_expressibility,
    plot_fisher_spectrum,
    plot_gradient_variance,
)
from qtm._diagnostics.random_states import EntanglingCapability, Expressibility, entangling_capability, expressibility

__all__ = [
    "EntanglingCapability",
    "Expressibility",
    "FisherInformation",
    "GradientVariance",
    "barren_plateau",
    "effective_dimension",
    "entangling_capability",
    "expressibility",
    "fisher_information",
    "gradient_variances",
    "plot_effective_dimension",
    "plot_entangling_capability",
    "plot_expressibility",
    "plot_fisher_spectrum",
    "plot_gradient_variance",
]
