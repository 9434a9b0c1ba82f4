"""Support vector machines on quantum kernels in scikit-learn's conventions."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris, make_moons
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR
from sklearn.utils.estimator_checks import check_estimator

import qtm
from qtm._models.architecture import ENCODINGS
from qtm.circuits import reuploading_circuit
from qtm.sklearn import QuantumKernelClassifier, QuantumKernelRegressor

X, y = load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X)
FEW = slice(0, None, 5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [QuantumKernelClassifier, QuantumKernelRegressor])
def test_the_checks_of_scikit_learn(kind: type) -> None:
    results = check_estimator(kind(encoding="angle", C=100.0, num_threads=1, random_state=0), on_skip=None)
    assert len(results) > 40
    assert {r["check_name"] for r in results if r["status"] != "passed"} <= {"check_array_api_input"}


def test_it_is_a_machine_on_the_precomputed_kernel() -> None:
    model = QuantumKernelClassifier(encoding="zz", num_threads=1).fit(X, y)
    kernel = model.kernel_.evaluate(X)
    direct = SVC(kernel="precomputed").fit(kernel, y)
    np.testing.assert_array_equal(model.predict(X), direct.predict(kernel))
    np.testing.assert_allclose(model.decision_function(X), direct.decision_function(kernel), atol=1e-9)
    targets = X[:, 0] * 30 + 1000
    regressor = QuantumKernelRegressor(encoding="angle", num_threads=1).fit(X, targets)
    standard = (targets - targets.mean()) / targets.std()
    matrix = regressor.kernel_.evaluate(X)
    expected = SVR(kernel="precomputed").fit(matrix, standard).predict(matrix) * targets.std() + targets.mean()
    np.testing.assert_allclose(regressor.predict(X), expected, rtol=1e-9)
    assert regressor.score(X, targets) > 0.9


@pytest.mark.parametrize("kind", ["fidelity", "projected"])
@pytest.mark.parametrize("encoding", [*ENCODINGS, "amplitude", reuploading_circuit(4, 1)])
def test_every_encoding(kind: str, encoding: Any) -> None:
    model = QuantumKernelClassifier(encoding=encoding, kind=kind, num_threads=1, random_state=0).fit(X[FEW], y[FEW])
    assert model.predict(X).shape == (150,)


def test_training_the_kernel_helps() -> None:
    features, labels = make_moons(60, noise=0.15, random_state=0)
    for training in ("alignment", "svc"):
        arguments: dict[str, Any] = {"encoding": "reuploading", "ansatz": "hardware_efficient", "layers": 2}
        model = QuantumKernelClassifier(training=training, steps=30, num_threads=1, random_state=0, **arguments)
        model.fit(features, labels)
        assert len(model.loss_curve_) == 30 and model.loss_curve_[-1] < model.loss_curve_[0]
        assert model.score(features, labels) > 0.85
    x = np.linspace(-2, 2, 30)[:, None]
    regressor = QuantumKernelRegressor(1, 2, encoding="reuploading", training="alignment", steps=20, random_state=0)
    regressor.fit(x, np.sin(3 * x[:, 0]))
    assert regressor.loss_curve_[-1] < regressor.loss_curve_[0]


def test_names_grids_clones_and_pickles() -> None:
    names = np.array(["setosa", "other"])[(y > 0).astype(int)]
    model = QuantumKernelClassifier(2, encoding="angle", num_threads=1).fit(X[FEW], names[FEW])
    assert list(model.classes_) == ["other", "setosa"]
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert clone(model).get_params() == model.get_params()
    pipeline = make_pipeline(StandardScaler(), model)
    search = GridSearchCV(pipeline, {"quantumkernelclassifier__C": [0.1, 10.0]}, cv=2).fit(X[FEW], y[FEW])
    assert search.best_score_ > 0.5


def test_samplers_shots_and_noise() -> None:
    few: dict[str, Any] = {"encoding": "angle", "num_threads": 1, "random_state": 0}
    noise = qtm.depolarizing_noise(0.01, 0.02)
    features, labels = X[::10], y[::10]
    for options in (
        {"shots": 200}, {"sampler": qtm.FastSampler(seed=0, default_shots=200)}, {"noise": noise, "shots": 200},
        {"kind": "projected", "noise": noise}, {"kind": "projected", "estimator": qtm.FastEstimator()},
    ):  # fmt: skip
        assert QuantumKernelClassifier(**few, **options).fit(features, labels).score(features, labels) > 0.7


def test_only_support_vectors_are_measured_for_predictions() -> None:
    model = QuantumKernelClassifier(
        encoding="angle", sampler=qtm.FastSampler(seed=0), shots=100, C=100.0, random_state=0
    )
    model.fit(X[::10], y[::10])
    assert model.kernel_.usage.circuits == 15 * 14 // 2
    model.predict(X[:4])
    assert model.kernel_.usage.circuits == 15 * 14 // 2 + 4 * len(model.machine_.support_)
    assert len(model.machine_.support_) < 15


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"encoding": "agnle"}, qtm.ParameterError, "unknown encoding"),
        ({"layers": 0}, qtm.ParameterError, "layers=0"),
        ({"training": "mse"}, qtm.ParameterError, "'alignment', 'svc'"),
        ({"training": "svc"}, qtm.ParameterError, "nothing to train"),
        ({"kind": "gauss"}, qtm.ParameterError, "'fidelity', 'projected'"),
        ({"noise": 1, "sampler": qtm.FastSampler()}, qtm.ParameterError, "not both"),
        ({"estimator": qtm.FastEstimator()}, qtm.ParameterError, "kind='projected'"),
        ({"C": -1.0}, ValueError, "C"),
    ],
)
def test_unusable_arguments(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        QuantumKernelClassifier(num_threads=1, **arguments).fit(X[FEW], y[FEW])


def test_one_class_is_refused() -> None:
    with pytest.raises(qtm.ParameterError, match="at least 2 classes"):
        QuantumKernelClassifier().fit(X, np.zeros(len(X)))
