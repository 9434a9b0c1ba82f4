"""A complete mitigation method: a straight line to zero noise. The example of "Adding a mitigation method"."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qtm._mitigation.folding import achieved_scale, fold_global
from qtm._mitigation.method import Memoryless, Mitigated, linear_combination, stacked, with_circuit


@dataclass(frozen=True)
class LinearExtrapolation(Memoryless):
    """Values at noise scales 1 and ``scale`` (circuits folded), extrapolated to 0. Fields are the options."""

    scale: float = 3.0

    def steps(self, pub):
        """Yield the PUBs to run, receive their results, return the mitigated values."""
        folded = fold_global(pub.circuit, self.scale, np.random.default_rng(0))
        evs, stds = stacked((yield [pub, with_circuit(pub, folded)]))  # (2, *shape) each
        reached = achieved_scale(pub.circuit, self.scale)
        weights = np.array([reached, -1.0]) / (reached - 1.0)
        mitigated, errors = linear_combination(weights, evs, stds)
        return Mitigated(mitigated, errors, evs[0], {"scale": reached})
