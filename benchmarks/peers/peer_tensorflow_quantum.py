"""TensorFlow Quantum: batched expectation op with its adjoint differentiator, single precision only."""

from __future__ import annotations

import argparse

import numpy as np
from _protocol import THREADS, Runner, Task, serve


class TfqRunner(Runner):
    def __init__(self, task: Task) -> None:
        import tensorflow as tf
        import tensorflow_quantum as tfq

        if task.dtype != "single":
            raise ValueError("tensorflow-quantum computes in single precision only")
        program, names, paulis = _program(task)
        operation = tfq.differentiators.Adjoint().generate_differentiable_op(analytic_op=tfq.get_expectation_op())
        programs = tfq.convert_to_tensor([program] * task.samples)
        sums = tfq.convert_to_tensor([paulis] * task.samples)
        symbols = tf.constant(names)
        const, factors = (tf.constant(array, tf.float32) for array in (task.const, task.input_factors))
        self._weights = tf.Variable(task.weights, dtype=tf.float32)
        cotangent = tf.constant(task.cotangent, tf.float32)

        @tf.function
        def values():
            angles = const + factors * tf.gather(tf.concat([self._weights, [1.0]], 0), task.weight_of)
            return operation(programs, symbols, angles, sums)

        @tf.function
        def value_and_gradient():
            with tf.GradientTape() as tape:
                result = values()
            gradient = tape.gradient(result, self._weights, output_gradients=cotangent)
            return result, tf.convert_to_tensor(gradient)

        self._forward, self._combined = values, value_and_gradient

    def forward(self) -> np.ndarray:
        return self._forward().numpy()

    def combined(self) -> tuple[np.ndarray, np.ndarray]:
        values, gradient = self._combined()
        return values.numpy(), gradient.numpy()


def _program(task: Task):
    """Circuit with a symbol for every angle, the symbols' names, and the observables."""
    import cirq
    import sympy

    qubits = cirq.GridQubit.rect(1, task.num_qubits)
    make = {"h": cirq.H, "cx": cirq.CNOT, "cz": cirq.CZ, "rx": cirq.rx, "ry": cirq.ry, "rz": cirq.rz}
    names = [f"a{angle}" for angle in range(len(task.const))]
    circuit = cirq.Circuit()
    for gate in task.gates:
        operation = make[gate.name] if gate.angle is None else make[gate.name](sympy.Symbol(names[gate.angle]))
        circuit.append(operation(*(qubits[qubit] for qubit in gate.qubits)))
    return circuit, names, [_pauli_sum(cirq, qubits, terms) for terms in task.observables]


def _pauli_sum(cirq, qubits, terms):
    total = cirq.PauliSum()
    for coefficient, word in terms:
        total += cirq.PauliString(coefficient, {qubits[qubit]: getattr(cirq, pauli) for pauli, qubit in word})
    return total


def build(task: Task, options: argparse.Namespace) -> Runner:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    return TfqRunner(task)


if __name__ == "__main__":
    serve("tensorflow-quantum", ("tensorflow-quantum", "tensorflow", "cirq-core", "numpy"), build)
