"""Base of the kernel estimators: a feature map made of parts, its kernel, and a support vector machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from qtm._errors import ParameterError, require
from qtm._models.architecture import circuit_parts
from qtm.circuits import stack
from qtm.kernels import QuantumKernel, train_kernel

require("sklearn.base", "sklearn")
from sklearn.base import BaseEstimator  # noqa: E402 (require names the extra where the package is missing)
from sklearn.utils import check_random_state  # noqa: E402
from sklearn.utils.validation import check_is_fitted, validate_data  # noqa: E402

Loss = Callable[[Tensor, Any], Tensor]


class KernelMachine(BaseEstimator):
    """A support vector machine on a `QuantumKernel`, in scikit-learn's conventions."""

    def __init__(
        self,
        num_qubits: int | None = None,
        layers: int = 1,
        *,
        encoding: Any = "zz",
        ansatz: Any = None,
        kind: str = "fidelity",
        gamma: float = 1.0,
        C: float = 1.0,
        training: Any = None,
        steps: int = 50,
        learning_rate: float = 0.1,
        batch_size: int | None = None,
        sampler: Any = None,
        estimator: Any = None,
        noise: Any = None,
        shots: int | None = None,
        method: Any = "auto",
        num_threads: int = 0,
        random_state: Any = None,
    ) -> None:
        self.num_qubits = num_qubits
        self.layers = layers
        self.encoding = encoding
        self.ansatz = ansatz
        self.kind = kind
        self.gamma = gamma
        self.C = C
        self.training = training
        self.steps = steps
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.sampler = sampler
        self.estimator = estimator
        self.noise = noise
        self.shots = shots
        self.method = method
        self.num_threads = num_threads
        self.random_state = random_state

    def __sklearn_clone__(self) -> KernelMachine:
        # Circuits, samplers and estimators are never changed by a fit, and those of devices cannot be copied.
        return type(self)(**self.get_params(deep=False))

    def _fit_machine(self, machine: Any, X: NDArray[np.float64], y: NDArray[Any], losses: dict[str, Loss]) -> None:
        """Train the kernel if requested, and fit the machine; sets ``kernel_`` and ``machine_``."""
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.kernel_ = self._make_kernel(X.shape[1], seed)
        self.loss_curve_: list[float] = []
        if self.training is not None:
            loss = losses.get(self.training, self.training) if isinstance(self.training, str) else self.training
            if not callable(loss):
                known = ", ".join(map(repr, losses))
                raise ParameterError(f"unknown training {self.training!r}; use None, {known}, or a loss function")
            self.loss_curve_ = train_kernel(
                self.kernel_, X, y,
                loss=loss, steps=self.steps, learning_rate=self.learning_rate, batch_size=self.batch_size, seed=seed,
            )  # fmt: skip
        self.machine_ = machine.fit(self.kernel_.evaluate(X), y)
        self._support = X[self.machine_.support_]
        self._num_samples = len(X)

    def _make_kernel(self, num_features: int, seed: int) -> QuantumKernel:
        _check_layers(self.layers)
        parts = stack(circuit_parts(num_features, self.num_qubits, self.layers, self.encoding, self.ansatz))
        sampler, noise = self.sampler, self.noise
        if self.kind == "fidelity" and noise is not None:
            if sampler is not None:
                raise ParameterError("give sampler= or noise=, not both; a noisy sampler has its noise already")
            from qtm.primitives import FastSampler

            generator = np.random.default_rng(seed)
            sampler, noise = FastSampler(noise=noise, num_threads=self.num_threads, seed=generator), None
        return QuantumKernel(
            parts,
            kind=self.kind, gamma=self.gamma, sampler=sampler, estimator=self.estimator, noise=noise, shots=self.shots,
            method=self.method, num_threads=self.num_threads, seed_init=seed, seed=seed,
        )  # fmt: skip

    def _columns(self, X: Any) -> NDArray[np.float64]:
        """The matrix (samples, training samples): entries other than those of support vectors are not needed."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        matrix = np.zeros((len(X), self._num_samples))
        if len(self._support):
            matrix[:, self.machine_.support_] = self.kernel_.evaluate(X, self._support)
        return matrix


def _check_layers(layers: Any) -> None:
    if isinstance(layers, bool) or not isinstance(layers, int | np.integer) or layers < 1:
        raise ParameterError(f"layers={layers!r}; expected an integer of at least 1")
