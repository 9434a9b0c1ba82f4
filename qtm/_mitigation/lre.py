"""Layerwise Richardson extrapolation (LRE)."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from qiskit.primitives.containers.estimator_pub import EstimatorPub

from qtm._errors import ParameterError, require
from qtm._mitigation.folding import fold_chunks, folding_gates, layers
from qtm._mitigation.method import Floats, Memoryless, Mitigated, Steps, linear_combination, stacked, with_circuit

logger = logging.getLogger("qtm")


@dataclass(frozen=True)
class LayerwiseRichardson(Memoryless):
    """Layer-wise Richardson extrapolation (Russo, Mari, arXiv:2402.04000), coefficients by mitiq.

    The method amplifies shot noise by the norm of its coefficients, which grows with ``degree`` and ``num_chunks``, and
    does not correct readout errors, as folding does not scale them: on FakeManila it increased errors by a factor of
    1.35 with shots, and of 1.66 under readout noise. Mitigate readout errors first, and use many shots. A warning is
    logged where the amplified shot noise exceeds the correction.

    Args:
        degree: degree of the polynomial in the scales of all chunks.
        fold_multiplier: step between scales, in foldings.
        num_chunks: number of groups of consecutive layers that are scaled separately; ``binomial(num_chunks + degree,
            degree)`` circuits are run. Shallower circuits use one chunk per layer.
    """

    degree: int = 2
    fold_multiplier: int = 1
    num_chunks: int = 4

    def __post_init__(self) -> None:
        for name in ("degree", "fold_multiplier", "num_chunks"):
            if getattr(self, name) != int(getattr(self, name)) or getattr(self, name) < 1:
                raise ParameterError(f"{name} must be an integer of at least 1, got {getattr(self, name)!r}")
        require("mitiq", extra="mitigation")

    def steps(self, pub: EstimatorPub) -> Steps:
        """Run the circuit for each vector of scales; combine linearly."""
        folding_gates(pub.circuit)  # raises an error for operations that cannot be folded
        found = layers(pub.circuit)
        groups = np.array_split(np.arange(len(found)), min(self.num_chunks, len(found)))
        chunks = [[i for layer in group for i in found[layer]] for group in groups]
        vectors, coefficients = self._plan(len(chunks))
        results = yield [with_circuit(pub, fold_chunks(pub.circuit, chunks, v)) for v in vectors]
        evs, stds = stacked(results)
        limits, errors = linear_combination(coefficients, evs, stds)
        if np.linalg.norm(errors) > np.linalg.norm(limits - evs[0]):
            logger.warning(
                "lre: the shot noise, amplified by a factor of %.1f, exceeds the correction; use more shots or "
                "a lower degree", float(np.linalg.norm(coefficients)),
            )  # fmt: skip
        return Mitigated(limits, errors, evs[0], {"scale_factor_vectors": vectors})

    def _plan(self, chunks: int) -> tuple[list[tuple[int, ...]], Floats]:
        cirq = require("cirq", extra="mitigation")
        folding = require("mitiq.lre.multivariate_scaling.layerwise_folding", extra="mitigation")
        richardson = require("mitiq.lre.inference.multivariate_richardson", extra="mitigation")
        # mitiq requires a circuit, of which it uses the number of layers only.
        counted = cirq.Circuit(cirq.Moment(cirq.X(cirq.LineQubit(0))) for _ in range(chunks))
        options = {"degree": self.degree, "fold_multiplier": self.fold_multiplier}
        vectors = folding.get_scale_factor_vectors(counted, **options)
        return vectors, np.array(richardson.multivariate_richardson_coefficients(counted, **options))
