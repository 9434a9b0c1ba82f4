"""quimb on JAX: every Pauli word contracted in its light cone, jit of the value and its gradient."""

from __future__ import annotations

import argparse

import numpy as np
from _protocol import Runner, Task, serve

_CONSTANT = {
    "h": np.array([[1, 1], [1, -1]]) / 2**0.5,
    "cx": np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]),
    "cz": np.diag([1, 1, 1, -1]),
}
_PAULIS = {
    "X": np.array([[0, 1], [1, 0]], complex),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1, -1]).astype(complex),
}


class QuimbRunner(Runner):
    def __init__(self, task: Task) -> None:
        import jax

        jax.config.update("jax_enable_x64", task.dtype == "double")
        values = jax.vmap(_one_sample(task), in_axes=(None, 0))

        def value_and_gradient(weights, factors, cotangent):
            result, pullback = jax.vjp(lambda changed: values(changed, factors), weights)
            return result, pullback(cotangent)[0]

        put = jax.numpy.asarray
        self._forward, self._combined = jax.jit(values), jax.jit(value_and_gradient)
        self._weights = put(task.weights.astype(task.real))
        self._factors = put(task.input_factors.astype(task.real))
        self._cotangent = put(task.cotangent.astype(task.real))

    def forward(self) -> np.ndarray:
        return np.asarray(self._forward(self._weights, self._factors))

    def combined(self) -> tuple[np.ndarray, np.ndarray]:
        values, gradient = self._combined(self._weights, self._factors, self._cotangent)
        return np.asarray(values), np.asarray(gradient)


def _one_sample(task: Task):
    """Function from weights, (K,), and one sample's factors, (angles,), to its values, (M,)."""
    import jax.numpy as jnp
    import quimb.tensor as qtn

    const = jnp.asarray(task.const.astype(task.real))

    def values(weights, factors):
        angles = const + factors * jnp.append(weights, 1.0)[task.weight_of]
        # Whole gates: splitting them by a decomposition asks for values, which are traced.
        options = {"contract": False}
        circuit = qtn.Circuit(task.num_qubits, dtype=np.dtype(task.complex).name, gate_opts=options)
        for gate in task.gates:
            if gate.angle is None:
                matrix = jnp.asarray(_CONSTANT[gate.name].astype(task.complex))
            else:  # quimb's own gates would turn traced angles into arrays of NumPy
                half = angles[gate.angle] / 2
                generator = jnp.asarray(_PAULIS[gate.name[1].upper()].astype(task.complex))
                matrix = jnp.cos(half) * jnp.eye(2) - 1j * jnp.sin(half) * generator
            circuit.apply_gate_raw(matrix, gate.qubits)
        return jnp.stack([_expectation(task, circuit, terms) for terms in task.observables])

    return values


def _expectation(task: Task, circuit, terms):
    """Sum of the words, those on the same qubits as one operator; arrays are traced, so ranks alone are simplified."""
    import jax.numpy as jnp

    by_place: dict[tuple[int, ...], np.ndarray] = {}
    for coefficient, word in terms:
        matrix = np.ones((1, 1), complex)
        for pauli, _ in word:
            matrix = np.kron(matrix, _PAULIS[pauli])
        where = tuple(qubit for _, qubit in word)
        by_place[where] = by_place.get(where, 0) + coefficient * matrix
    total = 0.0
    for where, matrix in by_place.items():
        operator = jnp.asarray(matrix.astype(task.complex))
        total += circuit.local_expectation(operator, where, simplify_sequence="R", optimize="greedy").real
    return total


def build(task: Task, options: argparse.Namespace) -> Runner:
    return QuimbRunner(task)


if __name__ == "__main__":
    serve("quimb", ("quimb", "cotengra", "jax", "jaxlib", "numpy"), build)
