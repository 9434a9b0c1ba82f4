"""Common base of `FastEstimator` and `FastSampler`: a seed, and simulations with their options."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Any

import numpy as np

from qtm._arguments import check_generator_seed
from qtm._engines.options import Options, checked_options
from qtm._engines.registry import Method, simulation_method
from qtm._engines.simulation_cache import Simulations
from qtm._noise.aer_model import Noise, read_noise

Seed = np.random.Generator | int | None


class SimulatingPrimitive:
    """A primitive that runs on qtm's simulator and caches recent simulations."""

    def __init__(
        self, seed: Seed, dtype: Any, num_threads: int, executor: Executor | None, noise: Noise, method: Method
    ) -> None:
        check_generator_seed(seed, "seed")
        self._seed = seed
        simulation_method(method)  # raise an error for an unknown method here, not at the first run
        self._simulations = Simulations(checked_options(dtype, num_threads, executor, method, read_noise(noise)))

    @property
    def seed(self) -> Seed:
        """Seed of the noise of values, or of shots."""
        return self._seed

    @property
    def options(self) -> Options:
        """Dtype, workers, simulation method and noise model."""
        return self._simulations.options
