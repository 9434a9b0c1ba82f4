"""noise.py against Qiskit's density matrices: values, readout, shots, and what is refused."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Parameter
from qiskit.circuit.library import efficient_su2
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import DensityMatrix, Pauli, SparsePauliOp, SuperOp

from qtm import _errors, noise

qiskit_aer = pytest.importorskip("qiskit_aer")
from qiskit_aer.noise import NoiseModel, ReadoutError, depolarizing_error  # noqa: E402
from qiskit_ibm_runtime.fake_provider import FakeManilaV2  # noqa: E402

PAULIS = {"X": 0.02, "Y": 0.005, "Z": 0.03}


def pauli_channel(num_qubits: int) -> SuperOp:
    """The local Pauli channel, from its definition."""
    kraus = {"I": 1 - sum(PAULIS.values()), **PAULIS}
    one = sum(p * SuperOp(Pauli(name)).data for name, p in kraus.items())
    single = SuperOp(one)
    return single if num_qubits == 1 else single.tensor(single)


def noisy_state(circuit: QuantumCircuit) -> DensityMatrix:
    state = DensityMatrix.from_label("0" * circuit.num_qubits)
    for item in circuit.data:
        qubits = [circuit.find_bit(q).index for q in item.qubits]
        state = state.evolve(item.operation, qubits).evolve(pauli_channel(len(qubits)), qubits)
    return state


def random_circuit(num_qubits: int, seed: int) -> QuantumCircuit:
    rng = np.random.default_rng(seed)
    circuit = QuantumCircuit(num_qubits)
    for _ in range(4):
        for q in range(num_qubits):
            getattr(circuit, rng.choice(["rx", "ry", "rz"]))(rng.uniform(-3, 3), q)
        a, b = rng.choice(num_qubits, 2, replace=False).tolist()
        getattr(circuit, rng.choice(["cx", "cz", "swap"]))(a, b)
    return circuit


def run(estimator: Any, *pub: Any) -> np.ndarray:
    return estimator.run([pub]).result()[0].data.evs


def readout_model(p10: float = 0.08, p01: float = 0.02) -> NoiseModel:
    model = NoiseModel()
    model.add_all_qubit_readout_error(ReadoutError([[1 - p10, p10], [p01, 1 - p01]]))
    return model


@pytest.mark.parametrize("seed", range(5))
def test_exact_values_are_those_of_the_channels(seed: int) -> None:
    circuit = random_circuit(3, seed)
    observable = SparsePauliOp(["XIZ", "YYI", "ZZZ", "IIX", "III"], [0.3, -1.2, 0.7, 2.0, 0.5])
    expected = noisy_state(circuit).expectation_value(observable).real
    result = noise.noisy_estimator(noise.local_pauli_noise(PAULIS)).run([(circuit, observable)]).result()[0]
    assert result.data.evs == pytest.approx(expected, abs=1e-10)
    assert result.data.stds == 0
    assert result.metadata["simulation_method"] == "density_matrix"


def test_one_probability_applies_to_all_three() -> None:
    circuit = random_circuit(2, 1)
    one = run(noise.noisy_estimator(noise.local_pauli_noise(0.01)), circuit, "XY")
    three = run(noise.noisy_estimator(noise.local_pauli_noise(dict.fromkeys("XYZ", 0.01))), circuit, "XY")
    assert one == three


def test_depolarizing_noise_shrinks_the_bloch_vector() -> None:
    circuit = QuantumCircuit(2)
    circuit.ry(0.7, 0)
    circuit.cx(0, 1)
    estimator = noise.noisy_estimator(noise.depolarizing_noise(0.1, 0.2))
    assert run(estimator, circuit, "IZ") == pytest.approx(0.9 * 0.8 * np.cos(0.7), abs=1e-10)
    only_cx = noise.noisy_estimator(noise.depolarizing_noise(0.1, 0.2, gates=["cx"]))
    ry = QuantumCircuit(1)
    ry.ry(0.7, 0)
    assert run(only_cx, ry, "Z") == pytest.approx(np.cos(0.7), abs=1e-10)


@pytest.mark.parametrize("label", ["IZ", "ZI", "ZZ", "II"])
def test_readout_error_is_included(label: str) -> None:
    circuit = random_circuit(2, 3)
    confusion = np.array([[0.92, 0.02], [0.08, 0.98]])  # seen, prepared
    seen = np.kron(confusion, confusion) @ DensityMatrix(circuit).probabilities()
    signs = np.real(np.diag(Pauli(label).to_matrix()))
    value = run(noise.noisy_estimator(readout_model()), circuit, label)
    assert value == pytest.approx(signs @ seen, abs=1e-10)


def test_readout_error_of_one_qubit_stays_on_it() -> None:
    model = NoiseModel()
    model.add_readout_error(ReadoutError([[0.9, 0.1], [0.1, 0.9]]), [1])
    evs = run(noise.noisy_estimator(model), QuantumCircuit(3), ["IIZ", "IZI", "ZII"])
    np.testing.assert_allclose(evs, [1, 0.8, 1], atol=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_idle_qubits_do_not_disturb_the_others(seed: int) -> None:
    """Aer itself returns wrong values here for Pauli strings on a subset of the qubits (its issue 2442)."""
    small, wide = random_circuit(3, seed), QuantumCircuit(40)
    qubits = [5, 11, 30]
    wide.compose(small, qubits, inplace=True)
    labels = ["XIZ", "YYI", "ZZZ", "IIX"]
    padded = [SparsePauliOp.from_sparse_list([(s[::-1], qubits, 1)], num_qubits=40) for s in labels]
    estimator = noise.noisy_estimator(noise.local_pauli_noise(PAULIS))
    np.testing.assert_allclose(run(estimator, wide, padded), run(estimator, small, labels), atol=1e-10)
    idle = SparsePauliOp.from_sparse_list([("Z", [20], 1)], num_qubits=40)
    assert run(estimator, wide, idle) == pytest.approx(1)


def test_all_pubs_and_parameter_values_are_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = qiskit_aer.AerSimulator.run

    def recorded(self: Any, circuits: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(len(circuits))
        return original(self, circuits, *args, **kwargs)

    monkeypatch.setattr(qiskit_aer.AerSimulator, "run", recorded)
    monkeypatch.setattr(noise.NoisyEstimator, "_gate_noise", lambda self: None)  # as where qtm has no such errors
    circuit = efficient_su2(2, reps=1)
    values = np.random.default_rng(0).uniform(-3, 3, (4, 1, circuit.num_parameters))
    estimator = noise.noisy_estimator(noise.local_pauli_noise(PAULIS))
    fixed = QuantumCircuit(2)
    result = estimator.run([(circuit, [["ZZ", "XI", "IY"]], values), (fixed, "ZI", [[]] * 3)]).result()
    assert calls == [2]
    assert result[0].data.evs.shape == (4, 3)
    np.testing.assert_allclose(result[1].data.evs, [1, 1, 1])
    for row, value in zip(result[0].data.evs, values[:, 0], strict=True):
        state = noisy_state(circuit.assign_parameters(value).decompose())
        expected = [state.expectation_value(Pauli(p)).real for p in ("ZZ", "XI", "IY")]
        np.testing.assert_allclose(row, expected, atol=1e-10)


def test_projectors_are_expanded() -> None:
    circuit = random_circuit(2, 5)
    estimator = noise.noisy_estimator(noise.local_pauli_noise(PAULIS))
    expected = noisy_state(circuit).probabilities()[0b01]
    assert run(estimator, circuit, {"01": 1.0}) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("method", ["density_matrix", "statevector"])
@pytest.mark.thinned(2)
def test_shots_are_outcomes(method: str) -> None:
    circuit = QuantumCircuit(1)
    circuit.ry(Parameter("angle"), 0)
    model = noise.local_pauli_noise(0.05)
    model.add_all_qubit_readout_error(ReadoutError([[0.92, 0.08], [0.02, 0.98]]))
    exact = run(noise.noisy_estimator(model), circuit, "Z", [1.1])
    shots, repeats = 50, 400
    points = np.full((repeats, 1), 1.1)
    estimator = noise.noisy_estimator(model, shots=shots, method=method, seed=7)
    result = estimator.run([(circuit, "Z", points)]).result()[0]
    width = np.sqrt((1 - exact**2) / shots)
    assert result.data.evs.mean() == pytest.approx(exact, abs=4 * width / np.sqrt(repeats))
    assert result.data.evs.std() == pytest.approx(width, rel=0.15)
    assert result.data.stds.mean() == pytest.approx(width, rel=0.1)
    single = estimator.run([(circuit, "Z", points)], precision=1.0).result()[0]
    assert set(np.unique(single.data.evs)) == {-1.0, 1.0}


@pytest.mark.slow
def test_trajectories_agree_with_the_density_matrix() -> None:
    circuit = random_circuit(3, 2)
    model = noise.local_pauli_noise(PAULIS)
    exact = run(noise.noisy_estimator(model), circuit, ["ZZI", "XIY"])
    estimator = noise.noisy_estimator(model, shots=4000, method="statevector", seed=3)
    result = estimator.run([(circuit, ["ZZI", "XIY"])]).result()[0]
    assert np.all(np.abs(result.data.evs - exact) < 4 * result.data.stds)


def test_auto_follows_trajectories_where_they_cost_less() -> None:
    circuit = QuantumCircuit(8)
    circuit.x(range(8))
    estimator = noise.noisy_estimator(noise.local_pauli_noise(0.01), shots=100, seed=1)
    assert estimator.run([(circuit, "Z" * 8)]).result()[0].metadata["simulation_method"] == "statevector"
    exact = estimator.run([(circuit, "Z" * 8)], precision=0).result()[0]
    assert exact.metadata["simulation_method"] == "density_matrix"
    assert exact.metadata["shots"] is None


def test_a_seed_makes_the_calls_reproducible_and_different() -> None:
    circuit = random_circuit(2, 1)

    def calls() -> list[float]:
        estimator = noise.noisy_estimator(noise.local_pauli_noise(0.01), shots=1000, seed=5)
        return [float(run(estimator, circuit, "ZZ")) for _ in range(2)]

    first, second = calls(), calls()
    assert first == second
    assert first[0] != first[1]


def test_gates_outside_the_model_are_translated_not_run_free_of_noise() -> None:
    model = NoiseModel()
    model.add_all_qubit_quantum_error(depolarizing_error(0.1, 1), ["sx"])
    circuit = QuantumCircuit(1)
    circuit.ry(0.7, 0)
    by_hand = transpile(circuit, basis_gates=["rz", "sx"], optimization_level=0)
    assert by_hand.count_ops()["sx"] == 2
    expected = 0.9**2 * np.cos(0.7)
    assert run(noise.noisy_estimator(model), circuit, "Z") == pytest.approx(expected, abs=1e-10)


@pytest.mark.slow
def test_a_backend_gives_its_noise_and_wants_isa_circuits() -> None:
    backend = FakeManilaV2()
    circuit = random_circuit(3, 4)
    isa = transpile(circuit, backend, optimization_level=1, seed_transpiler=1)
    observable = SparsePauliOp("ZZI").apply_layout(isa.layout)
    exact = DensityMatrix(circuit).expectation_value(Pauli("ZZI")).real
    estimator = noise.noisy_estimator(backend)
    value = float(run(estimator, isa, observable))
    without_readout = NoiseModel.from_backend(backend, readout_error=False)
    gates_only = float(run(noise.noisy_estimator(without_readout), isa, observable))
    assert 0 < abs(gates_only - exact) < abs(value - exact) < 0.3
    with pytest.raises(_errors.CircuitError, match=r"not an instruction of fake_manila.*transpile first"):
        estimator.run([(circuit, "ZZI")])
    with pytest.raises(_errors.CircuitError, match="6 qubits are too many"):
        estimator.run([(QuantumCircuit(6), "ZIIIII")])


def test_too_wide_for_a_density_matrix() -> None:
    circuit = efficient_su2(20, reps=3, entanglement="linear").assign_parameters(np.arange(160) / 7)
    estimator = noise.noisy_estimator(noise.local_pauli_noise(0.01))
    with pytest.raises(_errors.OutOfMemory, match=r"20 qubits needs 16,384\.0 GiB.*shots="):
        estimator.run([(circuit, "Y" * 20)])


BAD = [
    (lambda: noise.noisy_estimator(NoiseModel(), shots=0), "shots must be"),
    (lambda: noise.noisy_estimator(NoiseModel(), shots=1.5), "shots must be"),
    (lambda: noise.noisy_estimator(NoiseModel(), shots=9, method="tensor"), "one of .auto."),
    (lambda: noise.noisy_estimator(NoiseModel(), method="statevector"), "needs shots="),
    (lambda: noise.noisy_estimator("manila"), "noise must be an Aer NoiseModel, a BackendV2 or the name"),
    (lambda: noise.local_pauli_noise(0.4), "sum to at most 1"),
    (lambda: noise.local_pauli_noise({"X": -0.1}), "not negative"),
    (lambda: noise.local_pauli_noise({"I": 0.1}), "of X, Y and Z"),
    (lambda: noise.depolarizing_noise(1.5), "one_qubit must be .* at most 1, not 1.5"),
    (lambda: noise.depolarizing_noise(0.1, gates=["cxx"]), "cxx"),
    (lambda: noise.depolarizing_noise(0.1, gates=["ccx"]), "ccx"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_input_says_what_is_wrong(make: Any, message: str) -> None:
    with pytest.raises(_errors.ParameterError, match=message):
        make()


def test_correlated_readout_is_refused() -> None:
    model = NoiseModel()
    model.add_readout_error(ReadoutError(np.eye(4) * 0.8 + 0.05), [0, 1])
    with pytest.raises(_errors.CircuitError, match="single qubits"):
        noise.noisy_estimator(model)


def test_aer_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = NoiseModel()
    monkeypatch.setitem(sys.modules, "qiskit_aer", None)
    with pytest.raises(_errors.MissingPackage, match=r"qtm-torch\[aer\]"):
        noise.noisy_estimator(model)


@pytest.mark.parametrize("gate", ["x", "y", "z", "h", "sx", "swap", "cz"])
def test_unlisted_gates_stay_noiseless(gate: str) -> None:
    """An X is not rewritten as the noisy rotation that it equals."""
    circuit = QuantumCircuit(2)
    getattr(circuit, gate)(*range(2 if gate in ("swap", "cz") else 1))
    noisy = noise.noisy_estimator(noise.local_pauli_noise({"X": 0.03, "Y": 0.01, "Z": 0.05}, gates=["ry", "cx"]))
    labels = ["IZ", "ZI", "IX", "XX"]
    found, expected = (e.run([(circuit, labels)]).result()[0].data.evs for e in (noisy, StatevectorEstimator()))
    np.testing.assert_allclose(found, expected, atol=1e-9)
