"""Wide devices in local mode: only the qubits in use are simulated."""

from __future__ import annotations

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit.library import real_amplitudes
from qiskit.primitives import StatevectorEstimator
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import SparsePauliOp

from qtm import hardware
from qtm._hardware.local_mode import on_used_qubits, target_on

pytestmark = pytest.mark.filterwarnings("ignore:.*no effect in local testing mode")


def scattered(width: int, qubits: tuple[int, int, int]) -> tuple[QuantumCircuit, list[SparsePauliOp]]:
    circuit = QuantumCircuit(width).compose(real_amplitudes(3, reps=1), qubits)
    circuit.barrier()
    labels = ["ZII", "IXZ", "YIY"]
    return circuit, [SparsePauliOp(label).apply_layout(list(qubits), width) for label in labels]


def test_pubs_on_used_qubits_have_the_same_values() -> None:
    """On a width that the oracle can simulate whole; the PUBs of a job share their qubits."""
    rng = np.random.default_rng(1)
    pubs = []
    for qubits, shape in (((7, 2, 9), (4, 1)), ((2, 9, 0), (1,)), ((9, 7, 2), (3,))):
        circuit, observables = scattered(11, qubits)
        values = rng.uniform(-3, 3, (*shape, 6))
        pubs.append(EstimatorPub.coerce((circuit, observables, values)))
    idle = EstimatorPub.coerce((QuantumCircuit(11), "IIIIIIIIZII"))
    moved, part = on_used_qubits([*pubs, idle], GenericBackendV2(11, seed=1))
    assert part.num_qubits == 4 and {pub.circuit.num_qubits for pub in moved} == {4}
    for before, after in zip([*pubs, idle], moved, strict=True):
        found, expected = (StatevectorEstimator().run([pub]).result()[0].data.evs for pub in (after, before))
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_part_of_a_target_keeps_errors_and_durations() -> None:
    target = GenericBackendV2(9, coupling_map=[[k, k + 1] for k in range(8)], seed=3).target
    part = target_on(target, [2, 3, 6])
    assert part.num_qubits == 3 and part.dt == target.dt
    assert set(part["cx"]) == {(0, 1)}
    for name, here, there in (("cx", (0, 1), (2, 3)), ("sx", (2,), (6,)), ("measure", (1,), (3,))):
        assert part[name][here] == target[name][there]


def test_narrow_devices_are_simulated_completely() -> None:
    backend = GenericBackendV2(5, seed=1)
    pub = EstimatorPub.coerce((QuantumCircuit(5), "IIIIZ"))
    assert on_used_qubits([pub], backend) == ([pub], backend)


@pytest.mark.slow
def test_a_device_of_133_qubits_runs_here() -> None:
    settings = {"shots": 2000, "seed_simulator": 1, "seed_transpiler": 1, "options": {"resilience_level": 0}}
    circuit, theta = real_amplitudes(3, reps=1), np.linspace(0.1, 1.3, 6)
    with hardware.connect("fake_torino", **settings) as device:
        isa = device.pass_manager.run(circuit)
        observables = [SparsePauliOp(label).apply_layout(isa.layout) for label in ("ZZZ", "IXI")]
        found = device.estimator.run([(isa, observables, theta)]).result()[0].data.evs
    expected = StatevectorEstimator().run([(circuit, ["ZZZ", "IXI"], theta)]).result()[0].data.evs
    np.testing.assert_allclose(found, expected, atol=0.25)
    assert not np.allclose(found, expected, atol=1e-6)
