"""What the tests of devices share: a circuit, its PUBs, and connections to the mock service."""

from __future__ import annotations

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp
from qiskit_ibm_runtime.fake_provider import FakeManilaV2

from qtm import hardware

MANILA = FakeManilaV2()
UNMITIGATED = {"resilience_level": 0}


def ansatz() -> QuantumCircuit:
    angles = ParameterVector("angle", 3)
    circuit = QuantumCircuit(2, name="ansatz")
    circuit.ry(angles[0], 0)
    circuit.cx(0, 1)
    circuit.rx(0.5 * angles[1] + angles[2], 1)
    return circuit


def pub_for(device, points, paulis=("ZZ", "XX", "ZI")):
    """A PUB of the ansatz: observables (len(paulis),), parameters (points, 1, 3)."""
    isa = device.pass_manager.run(ansatz())
    observables = [SparsePauliOp(pauli).apply_layout(isa.layout) for pauli in paulis]
    return isa, observables, np.asarray(points)[:, None, :]


def exact(points, paulis=("ZZ", "XX", "ZI")):
    pub = (ansatz(), [SparsePauliOp(pauli) for pauli in paulis], np.asarray(points)[:, None, :])
    return StatevectorEstimator().run([pub]).result()[0].data.evs


POINTS = np.random.default_rng(0).uniform(-3, 3, (4, 3))


def on_mock(service, **settings):
    defaults = {"shots": 64, "options": {"resilience_level": 0}, "seed_transpiler": 1, "backoff": 0.0}
    return hardware.connect("ibm_mock", service=service, **(defaults | settings))
