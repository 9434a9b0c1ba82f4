"""What `FastEstimator` and `FastSampler` have in common: a seed, and simulations with their options."""

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
    """A primitive that runs on qtm's simulator; the simulations used last are kept."""

    def __init__(
        self, seed: Seed, dtype: Any, num_threads: int, executor: Executor | None, noise: Noise, method: Method
    ) -> None:
        check_generator_seed(seed, "seed")
        self._seed = seed
        simulation_method(method)  # raises here, not at the first run, if the method is unknown
        self._simulations = Simulations(checked_options(dtype, num_threads, executor, method, read_noise(noise)))

    @property
    def seed(self) -> Seed:
        """Seed of what is drawn: the noise of values, or shots."""
        return self._seed

    @property
    def options(self) -> Options:
        """Dtype, workers, simulation method and noise model."""
        return self._simulations.options
