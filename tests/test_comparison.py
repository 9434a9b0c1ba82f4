"""`qtm compare`: the same folds for all, a test over pairs, and a sentence that follows from it."""

from __future__ import annotations

import doctest
import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image
from sklearn.datasets import load_diabetes, load_iris
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score

import qtm
from qtm import comparison
from qtm.__main__ import main
from qtm.comparison import QUANTUM, Comparison, Contender, classical_models, compare_models
from qtm.sklearn import QuantumClassifier

X, y = load_iris(return_X_y=True)
GOOD, BAD = LogisticRegression(max_iter=500), DummyClassifier(strategy="most_frequent")


def contest(quantum: list[float], *classical: list[float]) -> Comparison:
    contenders = [Contender(QUANTUM, {"accuracy": quantum}, [1.0] * len(quantum))]
    contenders += [Contender(f"model {k}", {"accuracy": s}, [1.0] * len(s)) for k, s in enumerate(classical)]
    best = max(contenders[1:], key=lambda c: c.mean("accuracy"))
    p_value = comparison._p_value(quantum, list(best.scores["accuracy"]))
    return Comparison(("accuracy",), tuple(contenders), best.name, p_value)


@pytest.mark.slow
def test_scores_are_those_of_the_same_folds() -> None:
    result = compare_models(X, y, GOOD, {"dummy": BAD, "logistic": GOOD}, folds=3, repeats=2, seed=5)
    folds = RepeatedStratifiedKFold(n_splits=3, n_repeats=2, random_state=5)
    for contender, model in zip(result.contenders, (GOOD, BAD, GOOD), strict=True):
        for metric in ("accuracy", "f1_macro"):
            np.testing.assert_allclose(contender.scores[metric], cross_val_score(model, X, y, cv=folds, scoring=metric))
    assert result.best_classical == "logistic" and result.p_value == 1.0
    assert [c.name for c in result.contenders] == [QUANTUM, "dummy", "logistic"]


def test_p_is_the_share_of_sign_patterns_at_least_as_extreme() -> None:
    differences = np.array([0.01, 0.05, -0.02, 0.04, 0.03, 0.06, 0.07])  # no ties: all 2**7 patterns are equally likely
    ranks = np.argsort(np.argsort(np.abs(differences))) + 1
    sums = [sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign) for signs in product((0, 1), repeat=7)]
    observed = min(ranks[differences > 0].sum(), ranks[differences < 0].sum())
    expected = 2 * np.mean(np.array(sums) <= observed)
    assert contest(list(0.5 + differences), [0.5] * 7).p_value == pytest.approx(expected)


def test_the_quantum_model_is_recommended_only_where_it_is_significantly_better() -> None:
    steps = np.linspace(0.01, 0.08, 8)
    better, worse = contest(list(0.7 + steps), [0.7] * 8, [0.6] * 8), contest(list(0.7 - steps), [0.7] * 8)
    mixed = contest([0.9, 0.6, 0.8, 0.65, 0.71, 0.68, 0.75, 0.7], [0.7] * 8)
    assert better.quantum_is_better and better.recommendation.startswith("Use the quantum model: accuracy 0.745 ±")
    assert better.best_classical == "model 0"
    for other in (worse, mixed, contest([0.7] * 8, [0.7] * 8)):
        assert not other.quantum_is_better
        assert other.recommendation.startswith("Use model 0, the classical model") and "p = " in other.recommendation


def test_regression_is_compared_by_r2() -> None:
    features, targets = load_diabetes(return_X_y=True)
    result = compare_models(features, targets, Ridge(), {"a": Ridge(), "b": Ridge(100)}, folds=6)
    assert result.metrics[0] == "r2" and result.best_classical == "a"
    assert list(classical_models("regression")) == list(classical_models())


def test_files(tmp_path: Path) -> None:
    result = compare_models(X, y, BAD, {"logistic": GOOD}, folds=6, data={"name": "iris"})
    paths = result.save(tmp_path / "new", "iris")
    content = json.loads(paths[0].read_text())
    assert content["data"]["name"] == "iris" and content["recommendation"] == result.recommendation
    assert content["contenders"][1]["scores"]["accuracy"] == list(result.contenders[1].scores["accuracy"])
    text = paths[1].read_text()
    assert all(name in text for name in ("quantum", "logistic", "accuracy", "f1_macro", "Use logistic"))
    assert image.imread(paths[2]).std() > 0.05


@pytest.mark.slow
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "small.csv"
    np.savetxt(data, np.column_stack([X, y])[::3], delimiter=",", header="a,b,c,d,label", comments="", fmt="%g")
    arguments = ["--folds", "6", "--qubits", "2", "--layers", "1", "--epochs", "1", "--out", str(tmp_path / "out")]
    assert main(["compare", str(data), *arguments]) == 0
    printed = capsys.readouterr().out
    assert "small: 50 samples, 4 features, 3 classes" in printed
    assert all(name in printed for name in ("quantum", "SVM-RBF", "gradient boosting", "MLP", "Wilcoxon"))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        f"compare-small.{e}" for e in ("json", "png", "txt")
    ]


def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = tmp_path / "words.csv"
    words.write_text("a,b\nred,1\n")
    for data, message in [("mnits", "no data set or file 'mnits'"), (str(words), "have to be numbers")]:
        assert main(["compare", data]) == 1
        assert message in capsys.readouterr().err
    with pytest.raises(qtm.ParameterError, match="too few"):
        compare_models(X, y, GOOD, {"dummy": BAD}, folds=5)
    with pytest.raises(qtm.ParameterError, match="no classical model"):
        compare_models(X, y, GOOD, {})
    with pytest.raises(qtm.ParameterError, match="task='clustering'"):
        classical_models("clustering")


def test_the_default_quantum_model_is_one() -> None:
    model = comparison.default_quantum_model()
    assert isinstance(model[-1], QuantumClassifier) and "loss_curve_" not in vars(model[-1])


def test_examples_of_the_docstrings() -> None:
    result = doctest.testmod(comparison)
    assert result.attempted > 0 and result.failed == 0
