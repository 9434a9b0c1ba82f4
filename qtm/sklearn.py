"""Quantum models as scikit-learn estimators: for pipelines, cross-validation and grid search.

Needs scikit-learn: ``pip install "qtm-torch[sklearn]"``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.nn import functional

from qtm._errors import ParameterError, require
from qtm._models.kernel_machine import KernelMachine
from qtm._models.learner import Learner, validated
from qtm.kernels import kernel_target_alignment, svc_loss

require("sklearn.base", "sklearn")
from sklearn.base import ClassifierMixin, RegressorMixin  # noqa: E402 (require names the extra)
from sklearn.svm import SVC, SVR  # noqa: E402
from sklearn.utils.multiclass import check_classification_targets  # noqa: E402

__all__ = ["QuantumClassifier", "QuantumKernelClassifier", "QuantumKernelRegressor", "QuantumRegressor"]


class QuantumClassifier(ClassifierMixin, Learner):
    """Variational quantum classifier for any number of classes: logits from expectation values, cross entropy.

    Args:
        num_qubits: Number of qubits. None: the number of features, at most 8.
        layers: Number of times that all features are uploaded, ``num_qubits`` at a time, each upload followed by an
            ansatz.
        encoding: "reuploading" (RY RZ with trainable factors), "angle", "phase", "iqp", "zz", "amplitude" (once, then
            ``layers`` ansaetze), a function that maps a number of features to a `qtm.circuits.ModelCircuit`, or one
            `ModelCircuit` for all features. Features are angles in radians: scale them, e.g. with `StandardScaler`.
        ansatz: "hardware_efficient", "brick", "strongly_entangling", "hamming_weight", a function that maps a
            number of qubits to a `ModelCircuit`, a `ModelCircuit`, or None for no ansatz.
        encoder: A classical network in front of the circuit, trained with it, for data with more features than
            qubits. The width of a hidden layer or a tuple of widths; (): a single linear layer; None: no encoder.
        head: "linear": a trainable linear map of Z on all qubits; "scaled": the logit of class k is Z on qubit k with
            a trainable factor, 50 at first, and offset.
        epochs: Passes over the training set, with Adam and a cosine schedule.
        batch_size: Number of samples per step.
        learning_rate: Initial learning rate of Adam.
        method: Simulation method, as for `QuantumModule`.
        estimator: A `BaseEstimatorV2` that evaluates the circuit, such as a device. None: the exact simulator.
        noise: An Aer `NoiseModel` or a Qiskit backend, to train and predict under its noise, simulated by Aer.
        shots: Shots with ``noise``; None: exact expectation values of the noisy circuit.
        gradient: As for `QuantumModule`. None: "reverse" on the exact simulator, "param-shift" elsewhere.
        num_threads: Number of threads of the simulator; 0: all cores. Use 1 inside a grid search with several jobs.
        random_state: Seed of the initial weights and of the order of samples; an integer makes the fit reproducible.

    Attributes:
        classes_: Labels of the classes, sorted, `(classes,)`.
        network_: The trained `torch.nn.Module` in float64; its circuit is ``network_.quantum``, a `QuantumModule`.
        loss_curve_: Mean loss of each epoch.

    Raises:
        ParameterError: (from ``fit``) an argument is invalid, or there is only one class.
        CircuitError: (from ``fit``) the circuit cannot be built.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.pipeline import make_pipeline
        >>> from sklearn.preprocessing import StandardScaler
        >>> from qtm.sklearn import QuantumClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> model = make_pipeline(StandardScaler(), QuantumClassifier(epochs=10, random_state=0))
        >>> model.fit(X, y).predict_proba(X).shape
        (150, 3)
    """

    _output_scale = 50.0

    def fit(self, X: ArrayLike, y: ArrayLike) -> QuantumClassifier:
        """Train on samples (samples, features) and labels (samples,) of any type."""
        features, labels = validated(self, X, y)
        check_classification_targets(labels)
        self.classes_, positions = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ParameterError(f"a classifier needs at least 2 classes, y has one class: {self.classes_[0]!r}")
        self._fit_network(features, torch.as_tensor(positions), len(self.classes_), functional.cross_entropy)
        return self

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Labels (samples,) of samples (samples, features)."""
        outputs = self._outputs(X)
        labels: NDArray[Any] = self.classes_[outputs.argmax(1).numpy()]
        return labels

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probabilities (samples, classes) of samples (samples, features), in the order of ``classes_``."""
        probabilities: NDArray[np.float64] = self._outputs(X).softmax(1).numpy()
        return probabilities

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Logits (samples, classes); with two classes (samples,), positive for the second class."""
        logits: NDArray[np.float64] = self._outputs(X).numpy()
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits


class QuantumRegressor(RegressorMixin, Learner):
    """Variational quantum regressor: the target from expectation values, with the squared error as loss.

    Targets are standardised for training, and predictions are scaled back.

    Args:
        num_qubits: All arguments are as for `QuantumClassifier`.
        layers: Number of times that all features are uploaded.
        encoding: Name, function or `ModelCircuit`.
        ansatz: Name, function, `ModelCircuit` or None.
        encoder: None, or widths of the hidden layers of a classical network in front of the circuit.
        head: "linear": a trainable linear map of Z on all qubits; "scaled": Z on qubit 0 with a trainable factor, 2
            standard deviations of the targets at first, and offset.
        epochs: Passes over the training set.
        batch_size: Number of samples per step.
        learning_rate: Initial learning rate of Adam.
        method: Simulation method, as for `QuantumModule`.
        estimator: A `BaseEstimatorV2`, or None.
        noise: An Aer `NoiseModel`, a Qiskit backend, or None.
        shots: Shots with ``noise``.
        gradient: As for `QuantumModule`.
        num_threads: Number of threads of the simulator; 0: all cores.
        random_state: Seed.

    Attributes:
        network_: The trained `torch.nn.Module` in float64, which outputs standardised targets.
        loss_curve_: Mean loss of each epoch, on standardised targets.

    Raises:
        ParameterError: (from ``fit``) an argument is invalid.
        CircuitError: (from ``fit``) the circuit cannot be built.

    Example:
        >>> import numpy as np
        >>> from qtm.sklearn import QuantumRegressor
        >>> X = np.linspace(-2, 2, 40)[:, None]
        >>> model = QuantumRegressor(num_qubits=1, epochs=50, random_state=0).fit(X, np.sin(2 * X[:, 0]))
        >>> model.score(X, np.sin(2 * X[:, 0])) > 0.9
        True
    """

    _output_scale = 2.0

    def fit(self, X: ArrayLike, y: ArrayLike) -> QuantumRegressor:
        """Train on samples (samples, features) and targets (samples,)."""
        features, targets = validated(self, X, y, y_numeric=True)
        targets = targets.astype(np.float64)
        self._mean, spread = targets.mean(), targets.std()
        self._spread = spread if spread > 0 else 1.0
        standardised = torch.as_tensor((targets - self._mean) / self._spread, dtype=torch.get_default_dtype())
        self._fit_network(features, standardised[:, None], 1, functional.mse_loss)
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Targets (samples,) of samples (samples, features)."""
        outputs: NDArray[np.float64] = self._outputs(X).squeeze(1).numpy()
        return self._mean + self._spread * outputs


class QuantumKernelClassifier(ClassifierMixin, KernelMachine):
    """Support vector classifier on a quantum kernel, for any number of classes.

    Args:
        num_qubits: Number of qubits. None: as many as features, at most 8.
        layers: How often all features are uploaded, ``num_qubits`` of them at a time.
        encoding: "zz", "angle", "phase", "iqp", "reuploading", "amplitude", a function of a number of features that
            gives a `qtm.circuits.ModelCircuit`, or one `ModelCircuit` for all features. Features are angles, in
            radians: scale them, as with `StandardScaler`.
        ansatz: None, or an ansatz after each upload, whose weights are random unless ``training`` trains them: as for
            `QuantumClassifier`.
        kind: "fidelity" or "projected": as for `QuantumKernel`.
        gamma: Inverse width of a projected kernel, above 0.
        C: Regularisation of the support vector machine; the smaller, the wider the margin.
        training: None, "alignment", "svc", or a loss of the kernel matrix and the labels: trains the weights of the
            feature map before the fit, as `qtm.kernels.train_kernel` does.
        steps: Number of training steps, with Adam.
        learning_rate: Learning rate of the training, in radians.
        batch_size: Samples in a training step. None: all.
        sampler: A `BaseSamplerV2`, such as a device, for a fidelity kernel. None: the exact simulator.
        estimator: A `BaseEstimatorV2`, for a projected kernel. None: the exact simulator.
        noise: An Aer `NoiseModel` or a Qiskit backend to simulate: with shots for a fidelity kernel, exactly for a
            projected one.
        shots: Shots for each entry of a fidelity kernel. None: exact, or the sampler's default.
        method: Simulation method, as for `QuantumModule`.
        num_threads: Threads of the simulator; 0: all cores.
        random_state: Seed of the initial weights, the training and the shots.

    Attributes:
        classes_: Labels of the classes, sorted, `(classes,)`.
        kernel_: The `QuantumKernel`, with its trained weights.
        machine_: The fitted `sklearn.svm.SVC`.
        loss_curve_: Losses of the training of the kernel; empty without one.

    Raises:
        ParameterError: (from ``fit``) an argument is unusable, or there is only one class.
        CircuitError: (from ``fit``) the circuit cannot be built.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.pipeline import make_pipeline
        >>> from sklearn.preprocessing import StandardScaler
        >>> from qtm.sklearn import QuantumKernelClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> model = make_pipeline(StandardScaler(), QuantumKernelClassifier(encoding="angle", random_state=0))
        >>> model.fit(X, y).score(X, y) > 0.9
        True
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> QuantumKernelClassifier:
        """Fit to samples (samples, features) and labels (samples,) of any type."""
        features, labels = validated(self, X, y)
        check_classification_targets(labels)
        self.classes_ = np.unique(labels)
        if len(self.classes_) < 2:
            raise ParameterError(f"a classifier needs at least 2 classes, y has one class: {self.classes_[0]!r}")
        losses = {"alignment": lambda matrix, y: 1 - kernel_target_alignment(matrix, y), "svc": svc_loss}
        self._fit_machine(SVC(kernel="precomputed", C=self.C), features, labels, losses)
        return self

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Labels (samples,) of samples (samples, features)."""
        matrix = self._columns(X)
        labels: NDArray[Any] = self.machine_.predict(matrix)
        return labels

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Signed distances to the margins (samples, classes); with two classes (samples,), positive for the second."""
        matrix = self._columns(X)
        distances: NDArray[np.float64] = self.machine_.decision_function(matrix)
        return distances


class QuantumKernelRegressor(RegressorMixin, KernelMachine):
    """Support vector regressor on a quantum kernel.

    Targets are standardised for the fit, and predictions scaled back. Arguments are those of `QuantumKernelClassifier`.

    Args:
        num_qubits: Number of qubits. None: as many as features, at most 8.
        layers: How often all features are uploaded.
        encoding: Name, function or `ModelCircuit`.
        ansatz: None, or as for `QuantumClassifier`.
        kind: "fidelity" or "projected".
        gamma: Inverse width of a projected kernel.
        C: Regularisation of the support vector machine.
        training: None, "alignment" (with the products of centred targets), or a loss of the kernel matrix and the
            standardised targets.
        steps: Number of training steps.
        learning_rate: Learning rate of the training, in radians.
        batch_size: Samples in a training step.
        sampler: A `BaseSamplerV2`, or None.
        estimator: A `BaseEstimatorV2`, or None.
        noise: An Aer `NoiseModel`, a Qiskit backend, or None.
        shots: Shots for each entry of a fidelity kernel.
        method: Simulation method, as for `QuantumModule`.
        num_threads: Threads of the simulator; 0: all cores.
        random_state: Seed.

    Attributes:
        kernel_: The `QuantumKernel`, with its trained weights.
        machine_: The fitted `sklearn.svm.SVR`, of standardised targets.
        loss_curve_: Losses of the training of the kernel; empty without one.

    Raises:
        ParameterError: (from ``fit``) an argument is unusable.
        CircuitError: (from ``fit``) the circuit cannot be built.

    Example:
        >>> import numpy as np
        >>> from qtm.sklearn import QuantumKernelRegressor
        >>> X = np.linspace(-2, 2, 40)[:, None]
        >>> model = QuantumKernelRegressor(encoding="angle", layers=2, random_state=0).fit(X, np.sin(2 * X[:, 0]))
        >>> model.score(X, np.sin(2 * X[:, 0])) > 0.9
        True
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> QuantumKernelRegressor:
        """Fit to samples (samples, features) and targets (samples,)."""
        features, targets = validated(self, X, y, y_numeric=True)
        targets = targets.astype(np.float64)
        self._mean, spread = targets.mean(), targets.std()
        self._spread = spread if spread > 0 else 1.0
        standardised = (targets - self._mean) / self._spread
        self._fit_machine(SVR(kernel="precomputed", C=self.C), features, standardised, {"alignment": _misalignment})
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Targets (samples,) of samples (samples, features)."""
        matrix = self._columns(X)
        outputs: NDArray[np.float64] = self.machine_.predict(matrix)
        return self._mean + self._spread * outputs


def _misalignment(matrix: torch.Tensor, targets: Any) -> torch.Tensor:
    """One minus the alignment of a centred kernel matrix with the products of centred targets."""
    y = torch.as_tensor(targets, dtype=matrix.dtype)
    y = y - y.mean()
    centred = matrix - matrix.mean(0) - matrix.mean(1, keepdim=True) + matrix.mean()
    return 1 - (y @ centred @ y) / (centred.norm() * y.square().sum())
