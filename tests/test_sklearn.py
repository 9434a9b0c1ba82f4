"""Classifier and regressor in scikit-learn's conventions."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from qiskit.quantum_info import SparsePauliOp, Statevector
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris, load_wine, make_blobs
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import qtm
from qtm._models.architecture import ANSAETZE, ENCODINGS
from qtm.circuits import incremental_uploading_circuit, reuploading_circuit, strongly_entangling_ansatz
from qtm.sklearn import QuantumClassifier, QuantumRegressor

X, y = load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X)
BRIEF: dict[str, Any] = {"num_qubits": 2, "epochs": 2, "batch_size": 64, "num_threads": 1, "random_state": 0}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [QuantumClassifier, QuantumRegressor])
def test_the_checks_of_scikit_learn(kind: type) -> None:
    """All of them; with two uploads, since one cannot tell the three blobs of one check apart."""
    results = check_estimator(
        kind(layers=2, epochs=25, learning_rate=0.05, num_threads=1, random_state=0), on_skip=None
    )
    assert len(results) > 40
    assert {r["check_name"] for r in results if r["status"] != "passed"} <= {"check_array_api_input"}


@pytest.mark.thinned(3)
@pytest.mark.parametrize(("load", "least"), [(load_iris, 0.9), (load_wine, 0.85)])
def test_it_learns(load: Any, least: float) -> None:
    features, labels = load(return_X_y=True)
    model = make_pipeline(StandardScaler(), QuantumClassifier(num_qubits=4, num_threads=1, random_state=0))
    assert cross_val_score(model, features, labels, cv=3).mean() > least


@pytest.mark.parametrize("kind", [QuantumClassifier, QuantumRegressor])
def test_the_output_of_a_sample_does_not_depend_on_the_others(kind: type) -> None:
    model = kind(2, epochs=1, num_threads=1, random_state=0).fit(X, y)
    outputs = model.decision_function if kind is QuantumClassifier else model.predict
    one_by_one = np.concatenate([outputs(X[i : i + 1]) for i in range(len(X))])
    np.testing.assert_allclose(outputs(X), one_by_one, rtol=0, atol=1e-12)


def test_probabilities_are_those_of_the_circuit_in_qiskit() -> None:
    model = QuantumClassifier(3, epochs=2, num_threads=1, random_state=0).fit(X, y)  # 4 features in two uploads
    network = model.network_
    weights = {
        parameter: value
        for parameters, values in zip(network.quantum.variational_parameters, network.quantum.variational_, strict=True)
        for parameter, value in zip(parameters, values.tolist(), strict=True)
    }
    rows = []
    for sample in X[:5]:
        data = dict(zip(network.quantum.encoding_parameters, sample, strict=True))
        state = Statevector(network.quantum.circuit.assign_parameters({**weights, **data}))
        rows.append([state.expectation_value(SparsePauliOp(z)).real for z in ("IIZ", "IZI", "ZII")])
    logits = network.head(torch.tensor(rows, dtype=torch.float64))
    np.testing.assert_allclose(model.predict_proba(X[:5]), logits.softmax(1).detach(), atol=1e-10)
    np.testing.assert_allclose(model.decision_function(X[:5]), logits.detach(), atol=1e-10)
    np.testing.assert_array_equal(model.predict(X[:5]), logits.argmax(1))


def test_labels_of_any_type_and_two_classes() -> None:
    names = np.array(["setosa", "other"])[(y > 0).astype(int)]
    model = QuantumClassifier(**{**BRIEF, "epochs": 20}).fit(X, names)
    assert list(model.classes_) == ["other", "setosa"] and model.score(X, names) > 0.9
    np.testing.assert_array_equal(model.predict(X) == "setosa", model.decision_function(X) > 0)


def test_the_same_seed_gives_the_same_fit_and_another_seed_another() -> None:
    fits = [QuantumClassifier(**{**BRIEF, "random_state": seed}).fit(X, y) for seed in (0, 0, 1)]
    curves = [fit.loss_curve_ for fit in fits]
    assert curves[0] == curves[1] != curves[2] and len(curves[0]) == fits[0].n_iter_ == 2


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    QuantumClassifier(**BRIEF).fit(X, y)
    assert torch.equal(before, torch.get_rng_state())


def test_grid_search_in_a_pipeline() -> None:
    pipeline = make_pipeline(StandardScaler(), QuantumClassifier(**BRIEF))
    search = GridSearchCV(pipeline, {"quantumclassifier__layers": [1, 2]}, cv=2).fit(X, y)
    assert search.best_params_["quantumclassifier__layers"] in (1, 2)


def test_clones_and_pickles() -> None:
    model = QuantumClassifier(encoding=reuploading_circuit(4, 1), ansatz=None, estimator=qtm.FastEstimator(), epochs=1)
    copy = clone(model)
    assert copy.get_params() == model.get_params() and copy.encoding is model.encoding
    fitted = QuantumClassifier(**BRIEF).fit(X, y)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))


@pytest.mark.parametrize("encoding", [*ENCODINGS, "amplitude", *ENCODINGS.values()])
@pytest.mark.parametrize("num_qubits", [None, 2, 3])
def test_every_encoding(encoding: Any, num_qubits: int | None) -> None:
    model = QuantumClassifier(num_qubits, encoding=encoding, epochs=1, num_threads=1).fit(X[::10], y[::10])
    assert model.network_.quantum.circuit.num_qubits == (num_qubits or (2 if encoding == "amplitude" else 4))


@pytest.mark.parametrize("ansatz", [*ANSAETZE, None, strongly_entangling_ansatz(2), strongly_entangling_ansatz])
def test_every_ansatz(ansatz: Any) -> None:
    QuantumClassifier(**BRIEF, ansatz=ansatz).fit(X[::10], y[::10])


def test_an_encoder_brings_many_features_to_few_qubits() -> None:
    features, labels = load_breast_cancer(return_X_y=True)
    features = StandardScaler().fit_transform(features)
    for encoder, linear_layers in [((), 1), (8, 2), ((8, 6), 3)]:
        model = QuantumClassifier(4, encoder=encoder, epochs=5, num_threads=1, random_state=0).fit(features, labels)
        assert sum(isinstance(part, torch.nn.Linear) for part in model.network_.encoder) == linear_layers
        assert model.network_.quantum.input_size == 4 and model.score(features, labels) > 0.9


def test_the_network_of_the_demonstration() -> None:
    """100 features on 10 qubits, and nothing classical but a factor and an offset per class."""
    circuit = incremental_uploading_circuit(10, 10, 100)
    model = QuantumClassifier(encoding=circuit, ansatz=None, head="scaled", epochs=1)
    rng = np.random.default_rng(0)
    model.fit(rng.uniform(size=(20, 100)), np.arange(20) % 10)
    assert model.network_.quantum.num_trainable_parameters == 220
    assert sum(p.numel() for p in model.network_.parameters()) == 240


def test_noise_and_estimators() -> None:
    noise = qtm.depolarizing_noise(0.05, 0.1)
    few = (X[::15], y[::15])
    clean, noisy = (
        QuantumClassifier(2, encoding="angle", epochs=1, num_threads=1, noise=model, random_state=0).fit(*few)
        for model in (None, noise)
    )
    inputs = torch.zeros(1, 4)
    with torch.no_grad():
        noisy.network_.quantum.load_state_dict(clean.network_.quantum.state_dict())
        values = [m.network_.quantum(inputs).abs().sum().item() for m in (clean, noisy)]
    assert values[1] < 0.9 * values[0], "noise damps expectation values"
    exact = QuantumClassifier(
        2, encoding="angle", epochs=1, num_threads=1, estimator=qtm.FastEstimator(), random_state=0
    ).fit(*few)
    np.testing.assert_allclose(exact.predict_proba(X), clean.predict_proba(X), atol=1e-4)
    assert "param-shift" in repr(exact.network_.quantum)


@pytest.mark.slow
def test_regression_scales_targets_back() -> None:
    x = np.linspace(-1.5, 1.5, 60)[:, None]
    target = 1000 + 50 * np.sin(2 * x[:, 0])
    for head in ("linear", "scaled"):
        model = QuantumRegressor(1, layers=2, head=head, epochs=150, num_threads=1, random_state=0).fit(x, target)
        assert model.score(x, target) > 0.95
        assert model.predict(x).shape == (60,) and 900 < model.predict(x).min() < model.predict(x).max() < 1100


def test_a_constant_target_is_learned() -> None:
    model = QuantumRegressor(**{**BRIEF, "epochs": 40}).fit(X, np.full(len(X), 3.0))
    np.testing.assert_allclose(model.predict(X), 3.0, atol=0.5)


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"encoding": "agnle"}, qtm.ParameterError, "unknown encoding 'agnle'"),
    ({"ansatz": "brik"}, qtm.ParameterError, "unknown ansatz 'brik'"),
    ({"encoding": reuploading_circuit(3, 1)}, qtm.ParameterError, "takes 3, the data have 4 features"),
    ({"encoding": lambda n: "no circuit"}, qtm.ParameterError, "takes str"),
    ({"encoder": -1}, qtm.ParameterError, "encoder=.*expected None"),
    ({"encoder": "mlp"}, qtm.ParameterError, "encoder='mlp'"),
    ({"head": "softmax"}, qtm.ParameterError, "unknown head 'softmax'"),
    ({"head": "scaled"}, qtm.ParameterError, "3 outputs off a qubit of its own, and there are 2"),
    ({"layers": 0}, qtm.ParameterError, "layers=0"),
    ({"epochs": 1.5}, qtm.ParameterError, "epochs=1.5"),
    ({"batch_size": True}, qtm.ParameterError, "batch_size=True"),
    ({"learning_rate": 0}, qtm.ParameterError, "learning_rate=0"),
    ({"shots": 100}, qtm.ParameterError, "shots= belongs to noise="),
    ({"gradient": "revers"}, qtm.ParameterError, "unknown gradient"),
    ({"method": "statevectro"}, qtm.QtmError, "statevectro"),
    ({"num_qubits": -2}, qtm.QtmError, "-2"),
    ({"num_qubits": 1, "encoding": "amplitude"}, qtm.CircuitError, "4 features do not fit"),
    ({"estimator": qtm.FastEstimator(), "noise": 1}, qtm.ParameterError, "not both"),
]


@pytest.mark.parametrize(("arguments", "error", "words"), BAD)
def test_unusable_arguments(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        QuantumClassifier(**{**BRIEF, **arguments}).fit(X, y)


def test_unusable_data() -> None:
    with pytest.raises(qtm.ParameterError, match="at least 2 classes"):
        QuantumClassifier(**BRIEF).fit(X, np.zeros(len(X)))
    with pytest.raises(ValueError, match="NaN"):
        QuantumClassifier(**BRIEF).fit(np.full_like(X, np.nan), y)
    with pytest.raises(ValueError, match="3 features"):
        QuantumClassifier(**BRIEF).fit(X, y).predict(X[:, :3])
    blobs, groups = make_blobs(20, random_state=0)
    with pytest.raises(qtm.ParameterError, match="no longer resolves angles"):
        QuantumRegressor(**{**BRIEF, "learning_rate": 1e30, "epochs": 3}).fit(blobs, groups * 1.0)


@pytest.mark.slow
def test_importing_qtm_does_not_import_scikit_learn() -> None:
    code = (
        "import sys, qtm; assert 'sklearn' not in sys.modules; qtm.QuantumClassifier; assert 'sklearn' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_without_scikit_learn_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['sklearn'] = sys.modules['sklearn.base'] = None\n"
        "import qtm\n"
        "try: qtm.QuantumClassifier\n"
        "except qtm.MissingPackage as error: assert 'qtm-torch[sklearn]' in str(error)\n"
        "else: raise SystemExit('imported')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
