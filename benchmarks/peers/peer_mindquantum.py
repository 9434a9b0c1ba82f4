"""MindQuantum: mqvector's adjoint gradients, samples over its own batch threads."""

from __future__ import annotations

import argparse

import numpy as np
from _protocol import THREADS, Runner, Task, serve


class MindQuantumRunner(Runner):
    """Every angle is an encoder parameter, because an angle cannot be a weight times an input.

    The library returns derivatives of each observable apart; the cotangent and the chain rule come after.
    One sample (`vqe`) has its angles as the ansatz, which leaves all threads to the state.
    """

    def __init__(self, task: Task) -> None:
        import mindquantum

        self._task = task
        dtype = {"double": mindquantum.complex128, "single": mindquantum.complex64}[task.dtype]
        circuit = _circuit(task)
        observables = [_observable(terms, dtype) for terms in task.observables]
        self._simulator = mindquantum.Simulator("mqvector", task.num_qubits, dtype=dtype)
        circuit = circuit.as_ansatz() if task.samples == 1 else circuit.as_encoder()
        self._circuit = circuit
        self._observables = observables
        self._gradient = self._simulator.get_expectation_with_grad(
            observables, circuit, parallel_worker=1 if task.samples == 1 else THREADS
        )
        # The library orders parameters by first use, which is the order of the angles.
        self._point = (lambda angles: angles[0]) if task.samples == 1 else (lambda angles: angles)

    def forward(self) -> np.ndarray:
        return np.array([self._sample(row) for row in self._task.angles()])

    def _sample(self, row: np.ndarray) -> list[float]:
        self._simulator.reset()
        angles = dict(zip(self._circuit.params_name, row, strict=True))
        self._simulator.apply_circuit(self._circuit, angles)
        return [self._simulator.get_expectation(each).real for each in self._observables]

    def combined(self) -> tuple[np.ndarray, np.ndarray]:
        self._simulator.reset()  # the library starts from whatever state the simulator holds
        values, derivatives = self._gradient(self._point(self._task.angles()))
        by_angles = np.einsum("bm,bma->ba", self._task.cotangent, derivatives.real)
        return values.real, self._task.weight_gradient(by_angles)


def _circuit(task: Task):
    import mindquantum

    circuit = mindquantum.Circuit()
    rotations = {"rx": mindquantum.RX, "ry": mindquantum.RY, "rz": mindquantum.RZ}
    fixed = {"h": mindquantum.H, "cx": mindquantum.X, "cz": mindquantum.Z}
    for gate in task.gates:
        *controls, target = gate.qubits
        if gate.angle is None:
            circuit += fixed[gate.name].on(target, controls)
        else:
            circuit += rotations[gate.name](f"a{gate.angle}").on(target)
    return circuit


def _observable(terms, dtype):
    import mindquantum

    total = mindquantum.QubitOperator()
    for coefficient, word in terms:
        total += mindquantum.QubitOperator(" ".join(f"{pauli}{qubit}" for pauli, qubit in word), coefficient)
    return mindquantum.Hamiltonian(total, dtype=dtype)


def build(task: Task, options: argparse.Namespace) -> Runner:
    return MindQuantumRunner(task)


if __name__ == "__main__":
    serve("mindquantum", ("mindquantum", "numpy"), build)
