"""Base of classifier and regressor: their arguments, and the network built from them and trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qtm._errors import ParameterError, require
from qtm._models.architecture import Network, build_network
from qtm._models.training import Loss, train

require("sklearn.base", "sklearn")
from sklearn.base import BaseEstimator  # noqa: E402 (require names the extra where the package is missing)
from sklearn.utils import check_random_state  # noqa: E402
from sklearn.utils.validation import check_is_fitted, validate_data  # noqa: E402


class Learner(BaseEstimator):
    """A circuit with optional classical layers around it, trained by gradients, in scikit-learn's conventions."""

    _output_scale = 1.0

    def __init__(
        self,
        num_qubits: int | None = None,
        layers: int = 1,
        *,
        encoding: Any = "reuploading",
        ansatz: Any = "hardware_efficient",
        encoder: Any = None,
        head: str = "linear",
        epochs: int = 60,
        batch_size: int = 32,
        learning_rate: float = 0.03,
        method: Any = "auto",
        estimator: Any = None,
        noise: Any = None,
        shots: int | None = None,
        gradient: Any = None,
        num_threads: int = 0,
        random_state: Any = None,
    ) -> None:
        self.num_qubits = num_qubits
        self.layers = layers
        self.encoding = encoding
        self.ansatz = ansatz
        self.encoder = encoder
        self.head = head
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.method = method
        self.estimator = estimator
        self.noise = noise
        self.shots = shots
        self.gradient = gradient
        self.num_threads = num_threads
        self.random_state = random_state

    def __sklearn_clone__(self) -> Learner:
        # Circuits and estimators are never changed by a fit, and estimators of devices cannot be copied.
        return type(self)(**self.get_params(deep=False))

    def _fit_network(self, X: NDArray[np.float64], targets: Tensor, num_outputs: int, loss: Loss) -> None:
        """Train on samples (samples, features); sets ``network_``, ``loss_curve_`` and ``n_iter_``."""
        _check_numbers(self)
        random = check_random_state(self.random_state)
        seed, seed_of_order = (int(random.randint(2**31 - 1)) for _ in range(2))
        estimator, gradient = self._execution(seed)
        self.network_: Network = build_network(
            X.shape[1], num_outputs,
            num_qubits=self.num_qubits, layers=self.layers, encoding=self.encoding, ansatz=self.ansatz,
            encoder=self.encoder, head=self.head, output_scale=self._output_scale, seed=seed,
            seed_init=seed, method=self.method, estimator=estimator, gradient=gradient,
            num_threads_forward=self.num_threads, num_threads_backward=self.num_threads,
        )  # fmt: skip
        self.loss_curve_ = train(
            self.network_, loss, torch.tensor(X, dtype=torch.get_default_dtype()), targets,
            epochs=self.epochs, batch_size=self.batch_size, learning_rate=self.learning_rate, seed=seed_of_order,
        )  # fmt: skip
        # In single precision the outputs of a sample would depend on those predicted with it, by 1e-7.
        self.network_.double()
        self.n_iter_ = self.epochs

    def _execution(self, seed: int) -> tuple[Any, Any]:
        """The estimator that evaluates the circuit, and its gradient method."""
        if self.estimator is not None and self.noise is not None:
            raise ParameterError("give estimator= or noise=, not both; a noisy estimator has its noise already")
        if self.shots is not None and self.noise is None:
            raise ParameterError(
                "shots= belongs to noise=; an estimator= has its own, and without either values are exact"
            )
        estimator = self.estimator
        if self.noise is not None:
            from qtm.noise import noisy_estimator

            estimator = noisy_estimator(self.noise, self.shots, seed=seed)
        return estimator, self.gradient or ("reverse" if estimator is None else "param-shift")

    def _outputs(self, X: Any) -> Tensor:
        """Outputs (samples, outputs) of samples (samples, features)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        with torch.no_grad():
            outputs: Tensor = self.network_(torch.tensor(X))
        return outputs


def validated(learner: Learner, X: Any, y: Any, **options: Any) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Samples (samples, features) in double precision, and targets (samples,), checked by scikit-learn."""
    X, y = validate_data(learner, X, y, dtype=np.float64, **options)
    return X, y


def _check_numbers(learner: Learner) -> None:
    for name in ("layers", "epochs", "batch_size"):
        value = getattr(learner, name)
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ParameterError(f"{name}={value!r}; expected an integer of at least 1")
    if not learner.learning_rate > 0:
        raise ParameterError(f"learning_rate={learner.learning_rate!r}; expected a number above 0")
