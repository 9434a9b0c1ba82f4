"""qtm: train Qiskit circuits in PyTorch, with fast exact gradients, and run them on IBM devices."""

from qtm.modules import HybridModule, QuantumModule

__version__ = "0.1.0"
__all__ = ["HybridModule", "QuantumModule"]
