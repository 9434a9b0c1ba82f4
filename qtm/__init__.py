"""qtm: train Qiskit circuits in PyTorch, with fast exact gradients, and run them on IBM devices.

`QuantumModule` and `HybridModule` are torch layers. `FastEstimator`, `FastSampler` and `FastReverseEstimatorGradient`
replace Qiskit's, `TorchConnector`, `EstimatorQNN` and `SamplerQNN` those of qiskit-machine-learning. `hardware`,
`MitigatedEstimator` and `noisy_estimator` run models on devices and under noise.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from qtm._errors import (
    BudgetExceeded,
    CircuitError,
    DtypeError,
    JobError,
    MissingPackage,
    ObservableError,
    OutOfMemory,
    ParameterError,
    QtmError,
    ShapeError,
    UnsupportedError,
    WorkerError,
)
from qtm._machine import garbage_collection_paused

# A full collection visits all objects of torch and qiskit, and would take a third of the import time.
with garbage_collection_paused():
    from qtm.modules import HybridModule, QuantumModule
    from qtm.primitives import FastEstimator, FastSampler

if TYPE_CHECKING:
    from qtm import hardware, noise
    from qtm.comparison import compare_models
    from qtm.connectors import EstimatorQNN, SamplerQNN, TorchConnector
    from qtm.gradients import FastReverseEstimatorGradient
    from qtm.kernels import QuantumKernel
    from qtm.mitigation import MitigatedEstimator, MitigatedSampler
    from qtm.noise import TrainableNoise, depolarizing_noise, local_pauli_noise, noisy_estimator
    from qtm.postselection import PostSelectedModule
    from qtm.sklearn import QuantumClassifier, QuantumKernelClassifier, QuantumKernelRegressor, QuantumRegressor

__version__ = "0.1.0"
__all__ = [
    "BudgetExceeded",
    "CircuitError",
    "DtypeError",
    "EstimatorQNN",
    "FastEstimator",
    "FastReverseEstimatorGradient",
    "FastSampler",
    "HybridModule",
    "JobError",
    "MissingPackage",
    "MitigatedEstimator",
    "MitigatedSampler",
    "ObservableError",
    "OutOfMemory",
    "ParameterError",
    "PostSelectedModule",
    "QtmError",
    "QuantumClassifier",
    "QuantumKernel",
    "QuantumKernelClassifier",
    "QuantumKernelRegressor",
    "QuantumModule",
    "QuantumRegressor",
    "SamplerQNN",
    "ShapeError",
    "TorchConnector",
    "TrainableNoise",
    "UnsupportedError",
    "WorkerError",
    "compare_models",
    "depolarizing_noise",
    "hardware",
    "local_pauli_noise",
    "noise",
    "noisy_estimator",
]

# Imported on first use: their dependencies take longer to import than qtm itself.
_LAZY = {
    "EstimatorQNN": "connectors",
    "FastReverseEstimatorGradient": "gradients",
    "MitigatedEstimator": "mitigation",
    "MitigatedSampler": "mitigation",
    "PostSelectedModule": "postselection",
    "QuantumClassifier": "sklearn",
    "QuantumKernel": "kernels",
    "QuantumKernelClassifier": "sklearn",
    "QuantumKernelRegressor": "sklearn",
    "QuantumRegressor": "sklearn",
    "SamplerQNN": "connectors",
    "TorchConnector": "connectors",
    "TrainableNoise": "noise",
    "compare_models": "comparison",
    "depolarizing_noise": "noise",
    "local_pauli_noise": "noise",
    "noisy_estimator": "noise",
}


def __getattr__(name: str) -> Any:
    if name in ("hardware", "noise"):
        return import_module(f"qtm.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module 'qtm' has no attribute {name!r}")
    return getattr(import_module(f"qtm.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
