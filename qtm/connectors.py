"""Drop-ins for qiskit-machine-learning: its torch connector, and its two networks on circuits."""

from __future__ import annotations

from qtm._qnn.estimator_qnn import EstimatorQNN
from qtm._qnn.sampler_qnn import SamplerQNN
from qtm._qnn.torch_connector import TorchConnector

__all__ = ["EstimatorQNN", "SamplerQNN", "TorchConnector"]
