"""The configuration of a module."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Any

from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.passmanager import BasePassManager
from qiskit.primitives import BaseEstimatorV2, BaseSamplerV2

from qtm._arguments import check_method
from qtm._circuit.noise_map import NoiseMap
from qtm._engines.outputs import Probabilities, State
from qtm._executors import check_executor, resolve_threads
from qtm._gradients.method import GradientMethod
from qtm._primitives.job_usage import Usage


@dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """The configuration of a `QuantumModule`. Copies share it; an executor is not pickled with it."""

    circuit: QuantumCircuit
    parameters: tuple[Parameter, ...]
    observables: Any
    output: Probabilities | State | None = None  # None: expectation values of the observables
    estimator: BaseEstimatorV2 | None = None
    sampler: BaseSamplerV2 | None = None  # of probabilities
    gradient: str | tuple[str, Mapping[str, Any]] = "reverse"
    threads_forward: int = 0
    threads_backward: int = 0
    executor: Executor | None = None
    pass_manager: BasePassManager | None = None
    method: Any = "auto"
    noise: NoiseMap | None = None
    device: str = "cpu"  # type of the device of the tensors, as torch calls it
    group_sizes: tuple[int, ...] = ()  # encoding parameters, then those of every trainable set
    # Methods that run on an estimator: prepared, and transpiled, once for all dtypes and copies of a module.
    on_estimator: dict[str, GradientMethod] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        resolve_threads(self.threads_forward)
        resolve_threads(self.threads_backward)
        check_executor(self.executor)
        if self.pass_manager is not None:
            advice = "give qiskit.transpiler.generate_preset_pass_manager(...), or None"
            check_method(self.pass_manager, "pass_manager", "run", "a pass manager of Qiskit", advice)

    @property
    def primitive(self) -> BaseEstimatorV2 | BaseSamplerV2 | None:
        """The primitive that computes the outputs instead of qtm's simulator."""
        return self.sampler if self.estimator is None else self.estimator

    def with_threads(self, forward: int, backward: int) -> MethodSettings:
        return replace(self, threads_forward=forward, threads_backward=backward, on_estimator=self._kept())

    def on_device(self, device: str) -> MethodSettings:
        return self if device == self.device else replace(self, device=device)

    def _kept(self) -> dict[str, GradientMethod]:
        # The exact estimator used for None has its own threads and executor.
        return {} if self.primitive is None else self.on_estimator

    @property
    def usage(self) -> Usage:
        """Usage of the estimator."""
        return sum((method.usage for method in self.on_estimator.values()), Usage())

    def __deepcopy__(self, memo: dict[int, Any]) -> MethodSettings:
        return self

    def __getstate__(self) -> dict[str, Any]:
        kept = self._kept()
        # Qiskit's preset pass managers do not pickle, and this one is no longer needed once a method was prepared.
        passes = None if kept else self.pass_manager
        return {**self.__dict__, "executor": None, "on_estimator": kept, "pass_manager": passes}
