"""The neutral circuit as a Qiskit circuit, for the peers built on Qiskit (1.0 and 2.x)."""

from __future__ import annotations

from _protocol import Task
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterExpression, ParameterVector
from qiskit.quantum_info import SparsePauliOp


def qiskit_circuit(task: Task) -> tuple[QuantumCircuit, ParameterVector, ParameterVector]:
    """Circuit, its input and its weight parameters."""
    inputs = ParameterVector("x", task.inputs.shape[1])
    weights = ParameterVector("w", len(task.weights))

    def expression(angle: int) -> ParameterExpression | float:
        product: ParameterExpression | float = float(task.scale[angle])
        for vector, place in ((inputs, task.input_of[angle]), (weights, task.weight_of[angle])):
            if place < len(vector):
                product = vector[place] if product == 1.0 else product * vector[place]
        return product + task.const[angle] if task.const[angle] else product

    circuit = QuantumCircuit(task.num_qubits)
    for gate in task.gates:
        arguments = () if gate.angle is None else (expression(gate.angle),)
        getattr(circuit, gate.name)(*arguments, *gate.qubits)
    return circuit, inputs, weights


def qiskit_observables(task: Task) -> list[SparsePauliOp]:
    """The observables, one operator each."""
    lists = [
        [("".join(p for p, _ in word), [q for _, q in word], coefficient) for coefficient, word in terms]
        for terms in task.observables
    ]
    return [SparsePauliOp.from_sparse_list(terms, num_qubits=task.num_qubits) for terms in lists]
