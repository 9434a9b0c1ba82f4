"""PennyLane default.mixed under noise: backpropagation through JAX, compiled, or through torch; the batch broadcast."""

from __future__ import annotations

import argparse

import numpy as np
from _protocol import Runner, Task, serve


def build(task: Task, options: argparse.Namespace) -> Runner:
    return _JaxRunner(task) if options.interface == "jax" else _torch_runner(task)


def _circuit(task: Task, interface: str):
    """Function from angles, (angles,) or (angles, samples), to the values of the observables."""
    import pennylane as qml
    from _pennylane import observable, operation

    operations = [(operation(qml, gate), gate.qubits) for gate in task.gates]
    observables = [observable(qml, terms) for terms in task.observables]

    @qml.qnode(qml.device("default.mixed", wires=task.num_qubits), interface=interface, diff_method="backprop")
    def circuit(angles):
        for (make, angle), qubits in operations:
            make() if angle is None else make(angles[angle])
            for qubit in qubits if task.pauli else ():
                qml.DepolarizingChannel(3 * task.pauli, wires=qubit)
        return [qml.expval(each) for each in observables]

    return circuit


class _JaxRunner(Runner):
    def __init__(self, task: Task) -> None:
        import jax

        jax.config.update("jax_enable_x64", task.dtype == "double")
        circuit, put = _circuit(task, "jax"), jax.numpy.asarray
        const = put(task.const.astype(task.real))

        def one(weights, factors):
            angles = const + factors * jax.numpy.append(weights, 1.0)[task.weight_of]
            return jax.numpy.stack(circuit(angles))

        values = jax.vmap(one, in_axes=(None, 0))

        def value_and_gradient(weights, factors, cotangent):
            result, pullback = jax.vjp(lambda changed: values(changed, factors), weights)
            return result, pullback(cotangent.astype(result.dtype))[0]

        self._forward, self._combined = jax.jit(values), jax.jit(value_and_gradient)
        self._weights, self._factors, self._cotangent = (
            put(array.astype(task.real)) for array in (task.weights, task.input_factors, task.cotangent)
        )

    def forward(self) -> np.ndarray:
        return np.asarray(self._forward(self._weights, self._factors))

    def combined(self) -> tuple[np.ndarray, np.ndarray]:
        values, gradient = self._combined(self._weights, self._factors, self._cotangent)
        return np.asarray(values), np.asarray(gradient)


def _torch_runner(task: Task) -> Runner:
    import torch
    from _torch import TorchRunner, torch_angles

    circuit, angles_of = _circuit(task, "torch"), torch_angles(task)

    def values(weights: torch.Tensor) -> torch.Tensor:
        return torch.stack(circuit(angles_of(weights).T)).T.to(weights.dtype)

    return TorchRunner(task, values)


if __name__ == "__main__":
    interfaces = {"choices": ["jax", "torch"], "default": "jax"}
    packages = ("pennylane", "jax", "jaxlib", "torch", "numpy")
    serve("pennylane-default.mixed", packages, build, {"--interface": interfaces})
