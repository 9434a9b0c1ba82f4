"""qiskit-machine-learning: EstimatorQNN in its TorchConnector, with any of three gradients."""

from __future__ import annotations

import argparse
from typing import Any

from _protocol import Runner, Task, serve


def _gradient(name: str) -> Any:
    from qiskit.primitives import StatevectorEstimator
    from qiskit_algorithms.gradients import ReverseEstimatorGradient
    from qiskit_machine_learning.gradients import ParamShiftEstimatorGradient, SPSAEstimatorGradient

    if name == "reverse":
        return ReverseEstimatorGradient()
    if name == "param_shift":
        return ParamShiftEstimatorGradient(StatevectorEstimator())
    # The settings of the paper's benchmark: one perturbation per gradient.
    return SPSAEstimatorGradient(StatevectorEstimator(), epsilon=0.1, batch_size=1)


def build(task: Task, options: argparse.Namespace) -> Runner:
    import torch
    from _qiskit import qiskit_circuit, qiskit_observables
    from _torch import TorchRunner
    from qiskit.primitives import StatevectorEstimator
    from qiskit_machine_learning.connectors import TorchConnector
    from qiskit_machine_learning.neural_networks import EstimatorQNN

    circuit, inputs, weights = qiskit_circuit(task)
    network = EstimatorQNN(
        circuit=circuit,
        estimator=StatevectorEstimator(),
        observables=qiskit_observables(task),
        input_params=list(inputs),
        weight_params=list(weights),
        gradient=_gradient(options.gradient),
        default_precision=0.0,  # its default adds shot noise to exact values
    )
    model = TorchConnector(network, initial_weights=task.weights)
    data = torch.tensor(task.inputs)

    def values(changed: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, {"weight": changed, "_weights": changed}, (data,))

    runner = TorchRunner(task, values)
    runner.exact_gradient = options.gradient != "spsa"
    return runner


GRADIENTS = {"choices": ["reverse", "param_shift", "spsa"], "default": "reverse"}

if __name__ == "__main__":
    packages = ("qiskit-machine-learning", "qiskit-algorithms", "qiskit", "torch", "numpy")
    serve("qiskit-machine-learning", packages, build, {"--gradient": GRADIENTS})
