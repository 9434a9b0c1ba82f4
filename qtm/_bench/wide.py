"""A training step of circuits too wide for one state: bricks by causal cones, in double precision."""

from __future__ import annotations

from collections.abc import Callable

from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp

from qtm._bench.compare import Row, now
from qtm._bench.timing import alternate, clock
from qtm.modules import QuantumModule

TITLE = "Value and gradient of an XXZ chain after a brick of RY, RZ and CX, 4 layers: all bonds, by causal cones"
SIZES = (20, 50, 100, 200, 500, 1000)
QUICK = (20, 30)
REFERENCE = 100  # qubits; what the others are compared with, to see that the time is linear
_LAYERS = 4
Step = Callable[[], float]


def brick(num_qubits: int, layers: int = _LAYERS) -> QuantumCircuit:
    """Layers of RY and RZ on every qubit, and of CX on every other pair in turn."""
    angles = iter(ParameterVector("t", 2 * num_qubits * layers))
    circuit = QuantumCircuit(num_qubits)
    for layer in range(layers):
        for gate in ("ry", "rz"):
            for qubit in range(num_qubits):
                getattr(circuit, gate)(next(angles), qubit)
        for qubit in range(layer % 2, num_qubits - 1, 2):
            circuit.cx(qubit, qubit + 1)
    return circuit


def xxz(num_qubits: int, anisotropy: float = 0.5) -> SparsePauliOp:
    """The XXZ chain: XX + YY + anisotropy ZZ on every bond."""
    bonds = [(p, [q, q + 1], c) for q in range(num_qubits - 1) for p, c in (("XX", 1), ("YY", 1), ("ZZ", anisotropy))]
    return SparsePauliOp.from_sparse_list(bonds, num_qubits)


def step(num_qubits: int, threads: int) -> Step:
    """Value and gradient, and the seconds that they take."""
    circuit = brick(num_qubits)
    module = QuantumModule(
        circuit, None, circuit.parameters, observables=[xxz(num_qubits)], seed_init=0,
        num_threads_forward=threads, num_threads_backward=threads,
    ).double()  # fmt: skip

    def run() -> None:
        module.zero_grad()
        module().sum().backward()

    return lambda: clock(run)


def row(num_qubits: int, reference: Step, threads: int, repeats: int) -> Row:
    """The step of a size beside that of the reference."""
    own, other = alternate([step(num_qubits, threads), reference], repeats)
    found = Row(num_qubits, "combined", f"qtm, {REFERENCE} qubits", "double", "reverse", 1, threads, measured=now())
    found.qtm_ms, found.peer_ms, found.samples, found.repeats = own.summary(), other.summary(), 1, repeats
    return found
