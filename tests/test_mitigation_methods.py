"""The mitigation methods one by one, against noise whose inverse is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from qiskit import QuantumCircuit, transpile
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import Operator, SparsePauliOp, Statevector

from qtm import _errors
from qtm._mitigation import cdr as _regression
from qtm._mitigation import folding as _folding
from qtm.mitigation import MitigatedEstimator
from qtm.noise import local_pauli_noise, noisy_estimator

pytest.importorskip("qiskit_aer")
pytest.importorskip("mitiq")
from mitigation_oracles import (
    BACKEND,
    READOUT_NOISE,
    ByDepth,
    Recorder,
    ansatz,
    exact,
    points,
    real_time,
    values,
)
from qiskit_aer.noise import NoiseModel, coherent_unitary_error

# ---------------------------------------------------------------- folding


@pytest.mark.parametrize("fold", _folding.FOLDS)
@pytest.mark.parametrize("scale", [1, 1.7, 3, 4.2])
@pytest.mark.parametrize("isa", [False, True])
def test_folding_keeps_the_meaning_and_the_gates(fold: str, scale: float, isa: bool) -> None:
    circuit = ansatz(2)
    circuit.s(0)
    circuit.sx(1)
    circuit = transpile(circuit, BACKEND, optimization_level=1, seed_transpiler=2) if isa else circuit
    folded = _folding.FOLDS[fold](circuit, scale, np.random.default_rng(0))
    theta = points(circuit, ())
    assert Operator(folded.assign_parameters(theta)).equiv(Operator(circuit.assign_parameters(theta)))
    assert folded.layout == circuit.layout
    assert list(folded.parameters) == list(circuit.parameters)
    if isa:
        assert set(folded.count_ops()) <= {"rz", "sx", "x", "cx", "barrier"}
        assert folded.count_ops()["cx"] >= scale // 1 * circuit.count_ops()["cx"] - 2
    assert _folding.achieved_scale(circuit, scale) == pytest.approx(scale, abs=2 / len(circuit.data))


def test_barriers_keep_the_pairs_from_cancelling() -> None:
    circuit = QuantumCircuit(2)
    circuit.cx(0, 1)
    folded = _folding.fold_global(circuit, 5, np.random.default_rng(0))
    assert transpile(folded, BACKEND, optimization_level=3, seed_transpiler=1).count_ops()["cx"] == 5


def test_chunks_of_layers_scale_on_their_own() -> None:
    circuit = ansatz(2)
    found = _folding.layers(circuit)
    assert sorted(i for layer in found for i in layer) == list(range(len(circuit.data)))
    chunks = [[i for layer in found[:2] for i in layer], [i for layer in found[2:] for i in layer]]
    folded = _folding.fold_chunks(circuit, chunks, [1, 5])
    theta = points(circuit, ())
    assert Operator(folded.assign_parameters(theta)).equiv(Operator(circuit.assign_parameters(theta)))
    assert folded.count_ops()["ry"] == circuit.count_ops()["ry"]
    assert folded.count_ops()["cx"] == 5


# ---------------------------------------------------------------- extrapolation


CURVES = [
    ({"factory": "linear"}, lambda n: 0.7 - 0.02 * n),
    ({"factory": "richardson"}, lambda n: 0.7 - 0.02 * n + 0.001 * n**2),
    ({"factory": "poly", "order": 1}, lambda n: 0.7 - 0.02 * n),
    ({"factory": "exp"}, lambda n: 0.2 + 0.5 * math.exp(-0.03 * n)),
    ({"factory": "exp", "asymptote": 0.1}, lambda n: 0.1 + 0.6 * math.exp(-0.03 * n)),
    ({"factory": "poly-exp", "order": 1, "asymptote": 0.1}, lambda n: 0.1 + 0.6 * math.exp(-0.03 * n)),
]


@pytest.mark.parametrize(("options", "curve"), CURVES)
def test_factories_find_the_value_without_noise(options: dict[str, Any], curve: Any) -> None:
    circuit = QuantumCircuit(2)
    for _ in range(4):
        circuit.cx(0, 1)
    estimator = MitigatedEstimator(ByDepth(curve), "zne", scale_factors=(1, 2, 3), **options)
    result = estimator.run([(circuit, [["ZI"], ["IZ"]])]).result()[0]
    np.testing.assert_allclose(result.data.evs, curve(0), atol=1e-4)
    np.testing.assert_allclose(result.metadata["evs_unmitigated"], curve(4))
    assert result.metadata["scale_factors"] == [1, 2, 3]


@pytest.mark.parametrize(("options", "curve"), CURVES)
@pytest.mark.thinned(6)
def test_errors_are_propagated(options: dict[str, Any], curve: Any) -> None:
    circuit = QuantumCircuit(2)
    for _ in range(4):
        circuit.cx(0, 1)
    std = 1e-4
    rng = np.random.default_rng(3)
    noisy = ByDepth(lambda n: curve(n) + rng.normal(0, std), std)
    estimator = MitigatedEstimator(noisy, "zne", scale_factors=(1, 2, 3), **options)
    results = [estimator.run([(circuit, "ZI")]).result()[0].data for _ in range(120)]
    spread = np.std([r.evs for r in results])
    assert np.median([r.stds for r in results]) == pytest.approx(spread, rel=0.25)


def test_a_scale_that_gates_cannot_reach_is_extrapolated_from_where_it_landed() -> None:
    circuit = QuantumCircuit(2)
    circuit.cx(0, 1)
    circuit.cx(0, 1)
    estimator = MitigatedEstimator(ByDepth(lambda n: 0.7 - 0.02 * n), "zne", scale_factors=(1, 2.2))
    result = estimator.run([(circuit, "ZI")]).result()[0]
    assert result.metadata["scale_factors"] == [1, 2]
    assert result.data.evs == pytest.approx(0.7)
    with pytest.raises(_errors.ParameterError, match="further apart"):
        MitigatedEstimator(StatevectorEstimator(), "zne", scale_factors=(1, 1.2)).run([(circuit, "ZI")])


def test_layerwise_coefficients_sum_to_one_and_use_every_vector() -> None:
    inner = Recorder(StatevectorEstimator())
    circuit = ansatz()
    result = MitigatedEstimator(inner, "lre", degree=1, num_chunks=2, fold_multiplier=2).run(
        [(circuit, "ZII", points(circuit, ()))]
    )
    assert result.result()[0].metadata["scale_factor_vectors"] == [(1, 1), (5, 1), (1, 5)]
    assert len(inner.runs[0]) == 3


# ---------------------------------------------------------------- regression


def test_training_circuits_are_near_the_circuit() -> None:
    circuit = ansatz(2)
    template = _regression.Template(circuit)
    theta = points(circuit, ())
    angles = template.angles(theta)
    original = Statevector(circuit.assign_parameters(theta))
    assert Statevector(template.circuit.assign_parameters(angles)).equiv(original)
    rng = np.random.default_rng(0)
    shape = (50, *angles.shape)
    moved = _regression.nearby_clifford(angles, template.clifford_steps, shape, 0.3, rng)
    turns = moved / (np.pi / 2)
    np.testing.assert_allclose(turns, np.round(turns), atol=1e-9)
    assert np.abs(moved - angles).max() <= np.pi
    assert np.mean(np.abs(moved - angles) < np.pi / 4 + 1e-9) > 0.9
    assert _regression.keep_some(shape, 0.25, rng).sum(axis=-1).tolist() == [2] * 50


def test_clifford_angles_of_a_circuit_stay() -> None:
    circuit = transpile(ansatz(2), BACKEND, optimization_level=1, seed_transpiler=1)
    template = _regression.Template(circuit)
    free = sum(any(getattr(p, "parameters", ()) for p in item.operation.params) for item in circuit.data)
    assert free <= template.circuit.num_parameters < circuit.count_ops()["rz"]
    assert template.circuit.count_ops() == circuit.count_ops()
    assert template.circuit.layout == circuit.layout


@pytest.mark.parametrize("name", _regression.CLIFFORD_STEPS)
def test_clifford_steps_are_clifford(name: str) -> None:
    from qiskit.circuit.library import get_standard_gate_name_mapping
    from qiskit.quantum_info import Clifford

    gate = get_standard_gate_name_mapping()[name]
    rng = np.random.default_rng(1)
    for _ in range(8):
        made = gate.to_mutable()
        made.params = [_regression.CLIFFORD_STEPS[name] * k for k in rng.integers(-4, 5, len(gate.params))]
        Clifford.from_matrix(Operator(made).data)  # raises where it is none


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("cdr", {"seed": 1, "num_training_circuits": 40, "fraction_non_clifford": 0.5}),
        ("real-time-cdr", {"seed": 1, "n_training_samples": 20}),
    ],
)
def test_linear_noise_is_removed_exactly(method: str, options: dict[str, Any]) -> None:
    noisy = Recorder(StatevectorEstimator(), lambda evs: 0.6 * evs - 0.1)
    circuit = ansatz()
    pub = (circuit, [["ZII", "IZI", "XIX"]], points(circuit, (3, 1)))
    result = MitigatedEstimator(noisy, method, **options).run([pub]).result()[0]
    np.testing.assert_allclose(result.data.evs, exact(*pub), atol=1e-9)
    np.testing.assert_allclose(result.metadata["evs_unmitigated"], 0.6 * exact(*pub) - 0.1, atol=1e-12)


def test_a_proportional_fit_has_no_intercept() -> None:
    noisy = Recorder(StatevectorEstimator(), lambda evs: 0.6 * evs)
    circuit = ansatz()
    pub = (circuit, "ZII", points(circuit, (3,)))
    result = MitigatedEstimator(noisy, "cdr", fit="proportional", seed=1).run([pub]).result()[0]
    np.testing.assert_allclose(result.data.evs, exact(*pub), atol=1e-9)
    np.testing.assert_array_equal(result.metadata["intercept"], 0)


def test_where_training_values_do_not_differ_the_fit_is_nearly_proportional() -> None:
    circuit = QuantumCircuit(1)
    circuit.rz(0.3, 0)  # <X> is 0 and <Z> is 1 whatever the angle
    noisy = Recorder(StatevectorEstimator(), lambda evs: 0.5 * evs)
    result = MitigatedEstimator(noisy, "cdr", seed=1).run([(circuit, ["X", "Z"])]).result()[0]
    np.testing.assert_allclose(result.data.evs, [0, 1], atol=1e-9)
    np.testing.assert_allclose(result.metadata["slopes"][0], [1, 2], atol=0.05)


def test_exact_values_leave_idle_qubits_out() -> None:
    small, wide = ansatz(2), QuantumCircuit(60)
    wide.compose(small, [40, 7], inplace=True)
    theta = points(small, (3,))
    observable = SparsePauliOp.from_sparse_list([("XZ", [40, 7], 2.0), ("Z", [50], 0.5)], num_qubits=60)
    from qiskit.primitives.containers.estimator_pub import EstimatorPub

    found = _regression.exact_values(EstimatorPub.coerce((wide, observable, theta)))
    np.testing.assert_allclose(found, 2 * exact(small, "ZX", theta) + 0.5, atol=1e-9)


# ---------------------------------------------------------------- real time


def test_one_map_serves_forward_and_shifted_values() -> None:
    estimator, inner = real_time(lambda evs: 0.7 * evs, min_iterations=10_000)
    circuit, theta = ansatz(), points(ansatz(), (4, 1))
    for shift in (0, np.pi / 2, -np.pi / 2):
        pub = (circuit.copy(), [["ZII", "IIX"]], theta + shift)
        np.testing.assert_allclose(values(estimator, *pub), exact(*pub), atol=1e-9)
    # The training circuits ride along with the first call; then only the circuit is run.
    assert [len(run) for run in inner.runs] == [2, 1, 1]
    assert inner.runs[0][1].shape == (2, 20)


def test_the_map_is_checked_and_kept_while_the_noise_stays() -> None:
    estimator, inner = real_time(lambda evs: 0.7 * evs)
    circuit, theta = ansatz(), points(ansatz(), (6,))
    results = [estimator.run([(circuit, "ZII", theta)]).result()[0] for _ in range(5)]
    assert [r.metadata["fits"] for r in results] == [1] * 5
    assert [r.metadata["checks"] for r in results] == [0, 0, 1, 1, 2]
    assert [len(run) for run in inner.runs] == [2, 1, 2, 1, 2]
    assert inner.runs[2][1].shape == (1, 1)


def test_a_drift_beyond_the_threshold_renews_the_map() -> None:
    strength = [0.7]
    estimator, inner = real_time(lambda evs: strength[0] * evs, threshold=0.1)
    circuit, theta = ansatz(), points(ansatz(), (12,))
    expected = exact(circuit, "ZII", theta)
    values(estimator, circuit, "ZII", theta)
    strength[0] = 0.68  # within the threshold: the old map is kept
    kept = estimator.run([(circuit, "ZII", theta)]).result()[0]
    assert (kept.metadata["fits"], kept.metadata["checks"]) == (1, 1)
    strength[0] = 0.4
    renewed = estimator.run([(circuit, "ZII", theta)]).result()[0]
    assert (renewed.metadata["fits"], renewed.metadata["checks"]) == (2, 2)
    np.testing.assert_allclose(renewed.data.evs, expected, atol=1e-9)
    assert [len(run) for run in inner.runs] == [2, 2, 2, 1]


def test_training_circuits_get_their_own_shots() -> None:
    estimator, inner = real_time(lambda evs: evs, shots=2500)
    circuit = ansatz()
    estimator.run([(circuit, "ZII", points(circuit, (2,)))], precision=0.1).result()
    assert [pub.precision for pub in inner.runs[0]] == [0.1, 0.02]


@pytest.mark.slow
def test_a_training_with_shots_and_noise_is_mitigated() -> None:
    """qiboml, section III.B: energy of -sum Z with local Pauli noise, along a gradient descent."""
    circuit = ansatz()
    energy = SparsePauliOp(["ZII", "IZI", "IIZ"], [-1, -1, -1])
    noisy = noisy_estimator(local_pauli_noise(0.02), shots=2000, seed=1)
    estimator = MitigatedEstimator(
        noisy,
        "real-time-cdr",
        threshold=0.2,
        min_iterations=500,
        n_training_samples=100,
        shots=10_000,
        seed=3,
    )
    theta, size = points(circuit, ()), circuit.num_parameters
    shifts = np.concatenate((np.zeros((1, size)), np.eye(size), -np.eye(size))) * np.pi / 2
    mitigated, plain = [], []
    for _ in range(30):
        pub = (circuit, energy, theta + shifts)
        result = estimator.run([pub]).result()[0]
        expected = exact(*pub)
        mitigated.append(np.abs(result.data.evs - expected).mean())
        plain.append(np.abs(result.metadata["evs_unmitigated"] - expected).mean())
        theta = theta - 0.2 * (result.data.evs[1 : size + 1] - result.data.evs[size + 1 :]) / 2
    assert expected[0] < -2.9
    assert np.median(mitigated) < np.median(plain) / 2


# ---------------------------------------------------------------- error cancellation


@pytest.mark.parametrize(
    "noise",
    [
        local_pauli_noise({"X": 0.03, "Y": 0.01, "Z": 0.05}, gates=["ry", "cx"]),
        local_pauli_noise(0.02, gates=["ry", "cx"]),
        0.06,
        {"ry": 0.06, "cx": 0.06},
    ],
)
@pytest.mark.thinned(5)
def test_pauli_noise_is_cancelled_up_to_sampling(noise: Any) -> None:
    circuit = QuantumCircuit(2)
    circuit.ry(0.7, 0)
    circuit.cx(0, 1)
    circuit.ry(0.4, 1)
    model = noise if isinstance(noise, NoiseModel) else local_pauli_noise(0.02, gates=["ry", "cx"])
    observables = ["IZ", "ZI", "XX", "YY"]
    estimator = MitigatedEstimator(noisy_estimator(model), "pec", noise=noise, num_samples=4000, seed=5)
    result = estimator.run([(circuit, observables)]).result()[0]
    expected = exact(circuit, observables)
    assert np.all(np.abs(result.data.evs - expected) < 4 * result.data.stds + 1e-3)
    assert np.abs(result.data.evs - expected).max() < np.abs(result.metadata["evs_unmitigated"] - expected).max() / 2
    assert result.metadata["num_circuits"] < 700
    assert 1 < result.metadata["gamma"] < 3


@pytest.mark.slow
def test_inverted_noise_leaves_no_bias() -> None:
    """An X that PEC inserts is no rotation that has noise of its own: what is left is sampling alone."""
    circuit = QuantumCircuit(2)
    circuit.ry(0.7, 0)
    circuit.cx(0, 1)
    circuit.ry(0.4, 1)
    noise = local_pauli_noise({"X": 0.03, "Y": 0.01, "Z": 0.05}, gates=["ry", "cx"])
    estimator = MitigatedEstimator(noisy_estimator(noise), "pec", noise=noise, num_samples=400_000, seed=5)
    result = estimator.run([(circuit, ["IZ", "ZI", "XX", "YY"])]).result()[0]
    errors = np.abs(result.data.evs - exact(circuit, ["IZ", "ZI", "XX", "YY"]))
    assert np.all(errors < 5 * result.data.stds) and result.data.stds.max() < 1e-3


@pytest.mark.slow
def test_the_standard_error_is_the_spread_over_seeds() -> None:
    circuit = QuantumCircuit(1)
    for _ in range(4):
        circuit.ry(0.3, 0)
    noisy = noisy_estimator(local_pauli_noise(0.03))
    runs = [
        MitigatedEstimator(noisy, "pec", noise=0.09, num_samples=50, seed=seed).run([(circuit, "Z")]).result()[0]
        for seed in range(25)
    ]
    spread = np.std([r.data.evs for r in runs])
    assert np.mean([r.data.stds for r in runs]) == pytest.approx(spread, rel=0.4)


@pytest.mark.slow
def test_inserted_paulis_are_in_the_gates_of_the_circuit() -> None:
    inner = Recorder(StatevectorEstimator())
    circuit = transpile(ansatz(2), BACKEND, optimization_level=1, seed_transpiler=1)
    estimator = MitigatedEstimator(inner, "pec", noise=BACKEND, num_samples=30, seed=1)
    estimator.run([(circuit, "IIIZZ", points(circuit, (2,)))]).result()
    assert len(inner.runs[0]) > 5
    for pub in inner.runs[0]:
        assert set(pub.circuit.count_ops()) <= {"rz", "sx", "x", "cx"}
        assert pub.circuit.layout == circuit.layout


# ---------------------------------------------------------------- readout


def test_readout_errors_are_inverted_exactly() -> None:
    circuit = ansatz(3)
    pub = (circuit, [["ZII", "XYI", "ZZZ", SparsePauliOp(["IIZ", "IZI"], [2, -1])]], points(circuit, (2, 1)))
    inner = Recorder(noisy_estimator(READOUT_NOISE))
    estimator = MitigatedEstimator(inner, "rem")
    result = estimator.run([pub]).result()[0]
    np.testing.assert_allclose(result.data.evs, exact(*pub), atol=1e-9)
    np.testing.assert_allclose(
        result.metadata["evs_unmitigated"], values(noisy_estimator(READOUT_NOISE), *pub), atol=1e-12
    )
    assert np.abs(result.metadata["evs_unmitigated"] - exact(*pub)).max() > 0.05
    # Calibrated once per qubit: the second call runs the circuit alone.
    np.testing.assert_allclose(values(estimator, *pub), exact(*pub), atol=1e-9)
    assert [len(run) for run in inner.runs] == [3, 1]


def test_known_confusion_matrices_are_used() -> None:
    confusion = {0: [[0.98, 0.07], [0.02, 0.93]], 1: [[0.9, 0.03], [0.1, 0.97]]}
    inner = Recorder(noisy_estimator(READOUT_NOISE))
    circuit = ansatz(2)
    pub = (circuit, ["ZZ", "ZI", "IX"], points(circuit, ()))
    result = MitigatedEstimator(inner, "rem", confusion=confusion).run([pub]).result()[0]
    np.testing.assert_allclose(result.data.evs, exact(*pub), atol=1e-9)
    assert [len(run) for run in inner.runs] == [1]


# ---------------------------------------------------------------- decoupling


@pytest.mark.parametrize("rule", ["xx", "yy", "xyxy"])
def test_pulses_undo_the_drift_of_waiting_qubits(rule: str) -> None:
    drift = QuantumCircuit(1)
    drift.rz(0.12, 0)
    model = NoiseModel(basis_gates=["id", "rz", "sx", "x", "y", "h", "cx"])
    model.add_all_qubit_quantum_error(coherent_unitary_error(Operator(drift).data), ["id"])
    circuit = QuantumCircuit(2)
    circuit.h(0)
    for _ in range(9):
        circuit.id(0)
        circuit.sx(1)
    circuit.barrier()
    circuit.h(0)
    estimator = MitigatedEstimator(noisy_estimator(model), "ddd", rule=rule)
    result = estimator.run([(circuit, "IZ")]).result()[0]
    plain, mitigated = abs(result.metadata["evs_unmitigated"] - 1), abs(result.data.evs - 1)
    assert plain > 0.4
    assert mitigated < plain / 2
    assert result.metadata["pulses"] >= len(rule)


def test_pulses_keep_the_meaning() -> None:
    circuit = ansatz(3)
    inner = Recorder(StatevectorEstimator())
    pub = (circuit, ["ZII", "XIX"], points(circuit, ()))
    result = MitigatedEstimator(inner, "ddd", keep_raw=False).run([pub]).result()[0]
    np.testing.assert_allclose(result.data.evs, exact(*pub), atol=1e-9)
    assert len(inner.runs[0]) == 1


@pytest.mark.slow
def test_the_error_of_clifford_data_regression_is_the_spread_over_seeds() -> None:
    """Shot noise of the training circuits included: without it, errors were 2 to 3.5 times too small."""
    circuit = ansatz(2)
    theta = points(circuit, ())
    found, said = [], []
    for seed in range(40):
        noisy = noisy_estimator(local_pauli_noise(0.01), shots=500, seed=seed)
        estimator = MitigatedEstimator(noisy, "cdr", num_training_circuits=8, seed=seed)
        result = estimator.run([(circuit, ["ZZ", "ZI"], theta)]).result()[0]
        found.append(result.data.evs)
        said.append(result.data.stds)
    ratio = np.sqrt(np.mean(np.square(said), axis=0)) / np.std(found, axis=0)
    assert ((ratio > 0.6) & (ratio < 1.7)).all(), ratio
