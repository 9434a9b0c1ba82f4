"""sQUlearn: LowLevelQNN on the executor that is asked for.

It gives the derivative of every value by every weight ("dfdp"), which is then multiplied by the cotangent.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from _protocol import Runner, Task, serve


class SqulearnRunner(Runner):
    """The whole batch in one call of `evaluate`, without its cache of results."""

    def __init__(self, task: Task, executor: str) -> None:
        from squlearn import Executor
        from squlearn.observables import CustomObservable
        from squlearn.qnn.lowlevel_qnn import LowLevelQNN

        if task.dtype != "double":
            raise ValueError("this adapter computes in double precision only")
        self._task = task
        words = [_words(task.num_qubits, terms) for terms in task.observables]
        observables = [CustomObservable(task.num_qubits, word) for word in words]
        self._qnn = LowLevelQNN(
            _encoding(task), observables, Executor(executor), task.inputs.shape[1], caching=False
        )  # fmt: skip

    def forward(self) -> np.ndarray:
        return self._evaluate("f")["f"]

    def combined(self) -> tuple[np.ndarray, np.ndarray]:
        answer = self._evaluate("f", "dfdp")
        return answer["f"], np.einsum("sm,smk->k", self._task.cotangent, answer["dfdp"])

    def _evaluate(self, *what: str) -> dict[str, np.ndarray]:
        """Values (samples, M) and derivatives (samples, M, K)."""
        answer = self._qnn.evaluate(self._task.inputs, self._task.weights, [], *what)
        return {key: np.real(answer[key]) for key in what}


def _encoding(task: Task) -> Any:
    from qc_executor import QuantumCircuit
    from squlearn.encoding_circuit.encoding_circuit_base import EncodingCircuitBase

    class Encoding(EncodingCircuitBase):
        """The circuit of the task, in sQUlearn's own kind of circuit."""

        @property
        def num_encoding_slots(self) -> int:
            return task.inputs.shape[1]

        @property
        def num_parameters(self) -> int:
            return len(task.weights)

        def get_circuit(self, features: Any, parameters: Any) -> Any:
            circuit = QuantumCircuit(task.num_qubits)
            for gate in task.gates:
                angle = () if gate.angle is None else (_angle(task, gate.angle, features, parameters),)
                getattr(circuit, gate.name)(*gate.qubits, *angle)
            return circuit

    return Encoding(task.num_qubits)


def _angle(task: Task, place: int, features: Any, parameters: Any) -> Any:
    """`const + scale * input * weight`."""
    angle: Any = float(task.scale[place])
    if task.input_of[place] < task.inputs.shape[1]:
        angle = angle * features[int(task.input_of[place])]
    if task.weight_of[place] < len(task.weights):
        angle = angle * parameters[int(task.weight_of[place])]
    const = float(task.const[place])
    return angle + const if const else angle


def _words(num_qubits: int, terms: list[Any]) -> list[str]:
    """Pauli words as text; this package weighs words by trainable parameters only."""
    if any(coefficient != 1.0 for coefficient, _ in terms):
        raise ValueError("this adapter takes sums of Pauli words with coefficients of one")
    words = []
    for _, word in terms:
        letters = ["I"] * num_qubits
        for pauli, qubit in word:
            letters[qubit] = pauli
        words.append("".join(letters))
    return words


def build(task: Task, options: argparse.Namespace) -> Runner:
    return SqulearnRunner(task, options.executor)


OPTIONS = {"--executor": {"choices": ["pennylane", "statevector_simulator", "qulacs"], "default": "qulacs"}}

if __name__ == "__main__":
    serve("squlearn", ("squlearn", "pennylane", "qulacs", "qiskit", "numpy"), build, OPTIONS)
