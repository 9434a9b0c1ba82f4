"""mitigation.py: what every method keeps to, how much error it takes away, and what is refused."""

from __future__ import annotations

import copy
import pickle
import sys
from typing import Any

import numpy as np
import pytest
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import real_amplitudes
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp

from qtm import _errors
from qtm.mitigation import MITIGATION_METHODS, MitigatedEstimator
from qtm.noise import noisy_estimator

pytest.importorskip("qiskit_aer")
pytest.importorskip("mitiq")
from mitigation_oracles import (
    BACKEND,
    GATE_NOISE,
    READOUT_NOISE,
    ROWS,
    ByDepth,
    Recorder,
    ansatz,
    exact,
    no_angles,
    points,
    real_time,
    values,
)

# ---------------------------------------------------------------- every method


def test_every_method_has_a_row() -> None:
    assert set(ROWS) == set(MITIGATION_METHODS)


@pytest.mark.thinned(4)
@pytest.mark.parametrize("method", MITIGATION_METHODS)
def test_without_noise_the_values_stay_and_one_run_is_made(method: str) -> None:
    options, pubs = ROWS[method]
    inner = Recorder(StatevectorEstimator())
    circuit = ansatz()
    pub = (circuit, [["ZII", "IZI", SparsePauliOp(["XXI", "IZZ"], [0.5, -2])]], points(circuit, (4, 1)))
    result = MitigatedEstimator(inner, method, **options).run([pub, (*pub[:2], points(circuit, (1, 1)))]).result()
    np.testing.assert_allclose(result[0].data.evs, exact(*pub), atol=1e-6)
    assert result[0].data.evs.shape == result[0].data.stds.shape == (4, 3)
    assert result[1].data.evs.shape == (1, 3)
    assert len(inner.runs) == 1
    assert len(inner.runs[0]) <= 2 * pubs
    metadata = result[0].metadata
    np.testing.assert_allclose(metadata["evs_unmitigated"], exact(*pub), atol=1e-9)
    assert metadata["mitigation"] == method


@pytest.mark.thinned(3)
@pytest.mark.parametrize("method", MITIGATION_METHODS)
@pytest.mark.parametrize(
    ("observables", "shape"), [(["ZII", "IXI"], ()), ("ZZZ", (3,)), (["ZII", "IXI"], (2,)), ("ZII", ())]
)
def test_shapes_broadcast(method: str, observables: Any, shape: tuple[int, ...]) -> None:
    circuit = ansatz()
    pub = (circuit, observables, points(circuit, shape))
    estimator = MitigatedEstimator(StatevectorEstimator(), method, **ROWS[method][0])
    result = estimator.run([pub]).result()[0]
    np.testing.assert_allclose(result.data.evs, exact(*pub), atol=1e-6)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("method", MITIGATION_METHODS)
def test_estimators_copy_and_pickle(method: str) -> None:
    estimator = MitigatedEstimator(StatevectorEstimator(), method, **ROWS[method][0])
    circuit = ansatz()
    pub = (circuit, "ZII", points(circuit, (2,)))
    expected = values(estimator, *pub)
    for other in (copy.deepcopy(estimator), pickle.loads(pickle.dumps(estimator))):
        np.testing.assert_allclose(values(other, *pub), expected, atol=1e-6)


# (method, options, noise) -> at most half of the error of the plain values.
HALVED = [
    ("zne", {}, GATE_NOISE),
    ("zne", {"factory": "exp", "asymptote": 0.0}, GATE_NOISE),
    ("zne", {"fold": "gates", "factory": "linear", "scale_factors": (1, 2), "seed": 1}, GATE_NOISE),
    ("zne", {"factory": "poly", "order": 1, "scale_factors": (1, 2, 3)}, GATE_NOISE),
    ("lre", {}, GATE_NOISE),
    ("cdr", {"seed": 1}, GATE_NOISE),
    ("cdr", {"seed": 1, "scale_factors": (1, 3)}, GATE_NOISE),
    ("real-time-cdr", {"seed": 1}, GATE_NOISE),
    ("pec", {"noise": GATE_NOISE, "seed": 1}, GATE_NOISE),
    ("rem", {}, READOUT_NOISE),
    ("rem", {"shots": 100_000}, BACKEND),
]


@pytest.mark.parametrize(("method", "options", "noise"), HALVED)
@pytest.mark.thinned(14)
def test_the_error_on_fake_manila_is_at_least_halved(method: str, options: dict[str, Any], noise: Any) -> None:
    circuit = real_amplitudes(4, reps=2, entanglement="linear")
    isa = transpile(circuit, BACKEND, optimization_level=1, seed_transpiler=1)
    labels = ["ZIII", "IZII", "IIZI", "IIIZ"]
    theta = points(circuit, (5, 1))
    observables = [[SparsePauliOp(label).apply_layout(isa.layout) for label in labels]]
    mitigated = MitigatedEstimator(noisy_estimator(noise, seed=1), method, **options)
    result = mitigated.run([(isa, observables, theta)]).result()[0]
    expected = exact(circuit, [labels], theta)
    plain = np.abs(result.metadata["evs_unmitigated"] - expected).mean()
    assert plain > 0.01
    assert np.abs(result.data.evs - expected).mean() < plain / 2


@pytest.mark.slow
def test_methods_compose() -> None:
    noisy = noisy_estimator(BACKEND)
    circuit = QuantumCircuit(5)
    for _ in range(3):
        circuit.sx(0)
        circuit.cx(0, 1)
    observables = ["IIIIZ", "IIIZI", "IIIZZ"]
    expected = exact(circuit, observables)
    both = MitigatedEstimator(MitigatedEstimator(noisy, "rem"), "zne")
    zne, rem = MitigatedEstimator(noisy, "zne"), MitigatedEstimator(noisy, "rem")
    errors = [np.abs(values(e, circuit, observables) - expected).max() for e in (both, zne, rem)]
    assert errors[0] < min(errors[1:]) / 2


@pytest.mark.slow
def test_around_ibm_runtime_in_local_mode() -> None:
    from qiskit_ibm_runtime.executor_estimator import Estimator

    circuit = transpile(ansatz(2), BACKEND, optimization_level=1, seed_transpiler=1)
    theta = points(circuit, (2,))
    observable = SparsePauliOp("ZZ").apply_layout(circuit.layout)
    inner = Estimator(mode=BACKEND, options={"simulator": {"seed_simulator": 3}})
    for method, options in (("zne", {"factory": "linear"}), ("cdr", {"num_training_circuits": 5, "seed": 1})):
        result = MitigatedEstimator(inner, method, **options).run([(circuit, observable, theta)], precision=0.03)
        found = result.result()[0]
        assert np.all(np.abs(found.data.evs - exact(ansatz(2), "ZZ", theta)) < 6 * found.data.stds + 0.05)
        assert np.all(found.data.stds > 0)


# ---------------------------------------------------------------- refusals

BAD_OPTIONS = [
    ("dream", {}, "unknown mitigation method 'dream'; choose one of zne, lre"),
    ("zne", {"scales": (1, 3)}, "no option 'scales'; its options are scale_factors, factory, fold"),
    ("zne", {"scale_factors": (1,)}, "start at 1 and rise"),
    ("zne", {"scale_factors": (2, 3)}, "start at 1 and rise"),
    ("zne", {"scale_factors": (1, 3, 2)}, "start at 1 and rise"),
    ("zne", {"factory": "magic"}, "unknown factory 'magic'; choose one of richardson"),
    ("zne", {"fold": "paper"}, "unknown fold 'paper'; choose one of global"),
    ("lre", {"degree": 0}, "degree must be"),
    ("lre", {"num_chunks": 1.5}, "num_chunks must be"),
    ("cdr", {"num_training_circuits": 1}, "at least 2 training circuits"),
    ("cdr", {"fraction_non_clifford": 1.5}, "fraction_non_clifford"),
    ("cdr", {"fit": "cubic"}, "unknown fit"),
    ("cdr", {"sigma": 0}, "sigma must be positive"),
    ("cdr", {"scale_factors": (3,)}, "start at 1"),
    ("real-time-cdr", {"threshold": 0}, "threshold must be positive"),
    ("real-time-cdr", {"min_iterations": 0}, "min_iterations"),
    ("real-time-cdr", {"n_training_samples": 1}, "at least 2"),
    ("pec", {}, "needs the option noise"),
    ("pec", {"noise": 0.1, "num_samples": 0}, "num_samples"),
    ("pec", {"noise": "lots"}, "noise must be a number"),
    ("rem", {"confusion": {0: [[0.9, 0.2], [0.2, 0.8]]}}, "sum to 1"),
    ("ddd", {"rule": "zz"}, "unknown rule"),
]


@pytest.mark.parametrize(("method", "options", "message"), BAD_OPTIONS)
def test_bad_options_name_the_good_ones(method: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(_errors.ParameterError, match=message):
        MitigatedEstimator(StatevectorEstimator(), method, **options)


def test_only_estimators_are_wrapped() -> None:
    with pytest.raises(_errors.ParameterError, match="a BaseEstimatorV2, not"):
        MitigatedEstimator("fake_manila", "zne")  # type: ignore[arg-type]


def test_options_are_listed_with_their_defaults() -> None:
    assert MitigatedEstimator.options("real-time-cdr")["threshold"] == 0.1
    assert MitigatedEstimator.options("pec")["noise"] is ...


@pytest.mark.parametrize("method", ["zne", "lre", "cdr", "real-time-cdr", "pec", "ddd"])
def test_mitiq_missing(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mitiq", None)
    if method in ("cdr", "real-time-cdr"):  # do without
        MitigatedEstimator(StatevectorEstimator(), method)
        return
    with pytest.raises(_errors.MissingPackage, match=r'pip install "qtm-torch\[mitigation\]"'):
        MitigatedEstimator(StatevectorEstimator(), method, **ROWS[method][0])


def _measured() -> QuantumCircuit:
    circuit = QuantumCircuit(2, 1)
    circuit.rx(0.1, 0)
    circuit.measure(0, 0)
    return circuit


def _unknown_angle() -> QuantumCircuit:
    circuit = QuantumCircuit(2)
    circuit.cu(*ParameterVector("u", 4), 0, 1)
    return circuit


def _one_gate(angle: float = 0.3) -> QuantumCircuit:
    circuit = QuantumCircuit(2)
    circuit.rx(angle, 0)
    return circuit


BAD_PUBS = [
    ("zne", {}, (_measured(), "ZI"), _errors.CircuitError, "'measure' is not a gate"),
    ("lre", {}, (_measured(), "ZI"), _errors.CircuitError, "'measure' is not a gate"),
    ("zne", {}, (QuantumCircuit(2), "ZI"), _errors.CircuitError, "no gates"),
    ("cdr", {}, (no_angles(), "ZI"), _errors.CircuitError, "no angle to vary"),
    (
        "cdr",
        {},
        (_unknown_angle(), "ZI", [0.1, 0.2, 0.3, 0.4]),
        _errors.CircuitError,
        "'cu' have no known Clifford",
    ),
    ("real-time-cdr", {}, (no_angles(), "ZI"), _errors.CircuitError, "no angle to vary"),
    (
        "pec",
        {"noise": {"cx": 0.01}},
        (_one_gate(), "ZI"),
        _errors.CircuitError,
        "no gate of the circuit is noisy",
    ),
    ("pec", {"noise": 0.8}, (_one_gate(), "ZI"), _errors.ParameterError, "below 3/4"),
    ("rem", {}, (_one_gate(), {"0I": 1.0}), _errors.ObservableError, "projectors"),
    ("rem", {}, (QuantumCircuit(12), "Z" * 12), _errors.ObservableError, "stops at 10 qubits"),
]


@pytest.mark.parametrize(("method", "options", "pub", "error", "message"), BAD_PUBS)
def test_bad_circuits_are_refused_before_anything_runs(
    method: str, options: dict[str, Any], pub: Any, error: type[Exception], message: str
) -> None:
    inner = Recorder(StatevectorEstimator())
    with pytest.raises(error, match=message):
        MitigatedEstimator(inner, method, **options).run([pub])
    assert inner.runs == []


def test_extrapolation_that_fails_says_what_to_do() -> None:
    circuit = no_angles()
    estimator = MitigatedEstimator(ByDepth(lambda n: 0.3), "zne", factory="poly-exp", order=3)
    with pytest.raises(_errors.QtmError, match="could not extrapolate.*try factory='linear'"):
        estimator.run([(circuit, "ZI")]).result()


@pytest.mark.parametrize(
    ("distort", "error", "message"),
    [
        (lambda evs: evs * np.nan, _errors.QtmError, "2 of 2 values that are not finite"),
        (lambda evs: evs[:1], _errors.ShapeError, r"shape \(1,\); expected \(2,\)"),
    ],
)
def test_unusable_values_are_refused(distort: Any, error: type[Exception], message: str) -> None:
    estimator = MitigatedEstimator(Recorder(StatevectorEstimator(), distort), "zne")
    with pytest.raises(error, match=message):
        estimator.run([(_one_gate(), ["ZI", "IZ"])]).result()


def test_a_run_that_fails_midway_leaves_a_usable_estimator() -> None:
    fail = [True]

    def distort(evs: np.ndarray) -> np.ndarray:
        if fail[0]:
            raise RuntimeError("the device went away")
        return 0.7 * evs

    estimator, _ = real_time(distort)
    circuit = ansatz()
    pub = (circuit, "ZII", points(circuit, (2,)))
    with pytest.raises(RuntimeError, match="went away"):
        estimator.run([pub]).result()
    fail[0] = False
    np.testing.assert_allclose(values(estimator, *pub), exact(*pub), atol=1e-9)
