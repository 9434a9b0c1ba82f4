"""A complete mitigation method: linear extrapolation to zero noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qtm.mitigation import (
    Memoryless,
    Mitigated,
    achieved_scale,
    fold_global,
    linear_combination,
    stacked,
    with_circuit,
)


@dataclass(frozen=True)
class LinearExtrapolation(Memoryless):
    """Values at noise scales 1 and ``scale`` (by folding), extrapolated to 0. The fields are the options."""

    scale: float = 3.0

    def steps(self, pub):
        """Yield the PUBs to run, receive their results, return the mitigated values."""
        folded = fold_global(pub.circuit, self.scale)
        evs, stds = stacked((yield [pub, with_circuit(pub, folded)]))  # (2, *shape) each
        reached = achieved_scale(pub.circuit, self.scale)
        weights = np.array([reached, -1.0]) / (reached - 1.0)
        mitigated, errors = linear_combination(weights, evs, stds)
        return Mitigated(mitigated, errors, evs[0], {"scale": reached})
