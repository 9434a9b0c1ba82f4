"""TensorCircuit-NG's density matrix under noise, on JAX: jit of a vmap over samples, and of its gradient."""

from __future__ import annotations

import argparse

from _protocol import Runner, Task, serve
from peer_tensorcircuit import JaxRunner, apply_gate


class MixedRunner(JaxRunner):
    def __init__(self, task: Task) -> None:
        super().__init__(task, "probabilities")

    def one_sample(self, task: Task, read: str):
        """Function from weights, (K,), and one sample's factors, (angles,), to its values, (M,)."""
        import jax.numpy as jnp
        import tensorcircuit

        const = jnp.asarray(task.const.astype(task.real))
        diagonals = jnp.asarray(task.diagonals(first_qubit_is_lowest_bit=False))

        def values(weights, factors):
            angles = const + factors * jnp.append(weights, 1.0)[task.weight_of]
            circuit = tensorcircuit.DMCircuit(task.num_qubits)
            for gate in task.gates:
                apply_gate(circuit, gate, angles)
                for qubit in gate.qubits if task.pauli else ():
                    circuit.depolarizing(qubit, px=task.pauli, py=task.pauli, pz=task.pauli)
            return jnp.diagonal(circuit.densitymatrix()).real @ diagonals

        return values


def build(task: Task, options: argparse.Namespace) -> Runner:
    return MixedRunner(task)


if __name__ == "__main__":
    serve("tensorcircuit-ng-dmcircuit", ("tensorcircuit-ng", "jax", "jaxlib", "numpy"), build)
