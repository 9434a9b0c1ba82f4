"""TensorCircuit-NG on JAX: jit of a vmap over samples, and of its vector-Jacobian product.

`--values probabilities` reads observables made of Z from |psi|^2; `words` asks the library's `expectation_ps`
for one Pauli word at a time, and `lightcone` does so without the gates that the word does not see.

`--step vjp` gives the values and the gradient by the weights; `loss` differentiates the scalar loss of the batch by
inputs and weights, both arrays of the device, as one writes it in JAX.
"""

from __future__ import annotations

import argparse

import numpy as np
from _protocol import Gate, Runner, Task, serve


class JaxRunner(Runner):
    def __init__(self, task: Task, read: str, step: str = "vjp") -> None:
        import jax
        import tensorcircuit

        # The default contractor stays: finding a good contraction order is what makes this library fast.
        tensorcircuit.set_backend("jax")
        tensorcircuit.set_dtype({"double": "complex128", "single": "complex64"}[task.dtype])
        values = jax.vmap(self.one_sample(task, read), in_axes=(None, 0))

        def value_and_gradient(weights, factors, cotangent):
            result, pullback = jax.vjp(lambda changed: values(changed, factors), weights)
            return result, pullback(cotangent)[0]

        put = jax.numpy.asarray
        self._forward, self._combined = jax.jit(values), jax.jit(value_and_gradient)
        self._weights = put(task.weights.astype(task.real))
        self._input_factors = self._factors = put(task.input_factors.astype(task.real))
        self._cotangent = put(task.cotangent.astype(task.real))
        if step == "loss":
            self._combined, self._factors = self._loss(task, values), put(task.inputs.astype(task.real))

    def _loss(self, task: Task, values):
        """The step by a scalar loss: values and the gradient by the weights, that by the inputs being left out."""
        import jax
        import jax.numpy as jnp

        def loss(weights, inputs, cotangent):
            padded = jnp.concatenate([inputs, jnp.ones((task.samples, 1), inputs.dtype)], axis=1)
            result = values(weights, jnp.asarray(task.scale.astype(task.real)) * padded[:, task.input_of])
            return jnp.sum(cotangent * result), result

        gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))

        def combined(weights, inputs, cotangent):
            (_, result), by = gradients(weights, inputs, cotangent)
            jax.block_until_ready(by)
            return result, by[0]

        return combined

    def one_sample(self, task: Task, read: str):
        """Function from weights, (K,), and one sample's factors, (angles,), to its values, (M,)."""
        return _one_sample(task, read)

    def forward(self) -> np.ndarray:
        return np.asarray(self._forward(self._weights, self._input_factors))

    def combined(self) -> tuple[np.ndarray, np.ndarray]:
        values, gradient = self._combined(self._weights, self._factors, self._cotangent)
        return np.asarray(values), np.asarray(gradient)


def _one_sample(task: Task, read: str):
    """Function from weights, (K,), and one sample's factors, (angles,), to its values, (M,)."""
    import jax.numpy as jnp
    import tensorcircuit

    const = jnp.asarray(task.const.astype(task.real))
    by_words = read != "probabilities" or not task.is_diagonal
    diagonals = None if by_words else jnp.asarray(task.diagonals(first_qubit_is_lowest_bit=False))

    def values(weights, factors):
        angles = const + factors * jnp.append(weights, 1.0)[task.weight_of]
        circuit = tensorcircuit.Circuit(task.num_qubits)
        for gate in task.gates:
            apply_gate(circuit, gate, angles)
        if diagonals is None:
            return jnp.stack([_expectation(circuit, terms, read == "lightcone") for terms in task.observables])
        state = circuit.state()
        return (state.real**2 + state.imag**2) @ diagonals

    return values


def apply_gate(circuit, gate: Gate, angles) -> None:
    if gate.angle is None:
        getattr(circuit, gate.name)(*gate.qubits)
    else:
        getattr(circuit, gate.name)(*gate.qubits, theta=angles[gate.angle])


def _expectation(circuit, terms, lightcone: bool):
    """Coefficient-weighted sum of Pauli words, each in its light cone or all from one state."""
    total = 0.0
    for coefficient, word in terms:
        places = {axis: [qubit for pauli, qubit in word if pauli == axis.upper()] for axis in "xyz"}
        total = (
            total + coefficient * circuit.expectation_ps(**places, reuse=not lightcone, enable_lightcone=lightcone).real
        )
    return total


def build(task: Task, options: argparse.Namespace) -> Runner:
    return JaxRunner(task, options.values, options.step)


if __name__ == "__main__":
    values = {"choices": ["probabilities", "words", "lightcone"], "default": "probabilities"}
    steps = {"choices": ["vjp", "loss"], "default": "vjp"}
    packages = ("tensorcircuit-ng", "jax", "jaxlib", "numpy")
    serve("tensorcircuit-ng", packages, build, {"--values": values, "--step": steps})
