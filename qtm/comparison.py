"""Compare a quantum model with classical models on the same folds, and recommend one.

Needs scikit-learn: ``pip install "qtm-torch[sklearn]"``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import wilcoxon

from qtm._errors import ParameterError, require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Comparison", "Contender", "classical_models", "compare_models"]

QUANTUM = "quantum"
SIGNIFICANT = 0.05
# The smallest p value with n folds is 2**(1 - n): with fewer folds, p cannot fall below 0.05.
FEWEST_FOLDS = 6
CLASSIFICATION_METRICS = ("accuracy", "f1_macro")
REGRESSION_METRICS = ("r2", "neg_root_mean_squared_error")


@dataclass(frozen=True)
class Contender:
    """Results of one model.

    Attributes:
        name: The name of the model.
        scores: Values of each metric on the folds, `(folds,)`; larger is better.
        seconds: Training time on each fold in seconds, `(folds,)`.
    """

    name: str
    scores: Mapping[str, list[float]]
    seconds: list[float]

    def mean(self, metric: str) -> float:
        """Mean over folds."""
        return float(np.mean(self.scores[metric]))

    def spread(self, metric: str) -> float:
        """Standard deviation over folds."""
        return float(np.std(self.scores[metric], ddof=1))


@dataclass(frozen=True)
class Comparison:
    """Results of all models on the same folds, with a significance test and a recommendation.

    Attributes:
        metrics: The metrics; the first one decides.
        contenders: The quantum model, then the classical ones.
        best_classical: Name of the classical model with the best mean of the first metric.
        p_value: p value of the two-sided Wilcoxon signed-rank test between that model and the quantum model over
            paired folds.
        data: Notes about the data set, for titles and files.
    """

    metrics: tuple[str, ...]
    contenders: tuple[Contender, ...]
    best_classical: str
    p_value: float
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def quantum_is_better(self) -> bool:
        """Whether the quantum model has the better mean and the difference is significant."""
        metric, quantum = self.metrics[0], self.contenders[0]
        return quantum.mean(metric) > self._best().mean(metric) and self.p_value < SIGNIFICANT

    @property
    def recommendation(self) -> str:
        """One sentence: the model to use, and why."""
        metric, quantum, classical = self.metrics[0], self.contenders[0], self._best()
        reason = (
            f"{metric} {quantum.mean(metric):.3f} ± {quantum.spread(metric):.3f} of the quantum model against "
            f"{classical.mean(metric):.3f} ± {classical.spread(metric):.3f} of {classical.name}, "
            f"p = {self.p_value:.3g} (Wilcoxon signed-rank test, {len(quantum.scores[metric])} folds)"
        )
        if self.quantum_is_better:
            return f"Use the quantum model: {reason}."
        return f"Use {classical.name}, the classical model: {reason}; the quantum model is not significantly better."

    def table(self) -> str:
        """The results as aligned text, one line per model."""
        names = [c.name for c in self.contenders]
        width = max(map(len, names))
        lines = [" ".join([" " * width, *(f"{metric:>29}" for metric in self.metrics), f"{'training (s)':>14}"])]
        for c in self.contenders:
            cells = [f"{c.mean(m):>20.4f} ± {c.spread(m):.4f}" for m in self.metrics]
            lines.append(" ".join([f"{c.name:<{width}}", *cells, f"{np.mean(c.seconds):>14.3f}"]))
        return "\n".join(lines)

    def to_json(self) -> str:
        """All results as JSON: scores and times by fold, the test, the recommendation."""
        return json.dumps({**asdict(self), "recommendation": self.recommendation}, indent=1)

    def figure(self) -> Figure:
        """A plot of the first metric: a box and the values of all folds for each model.

        Raises:
            MissingPackage: matplotlib is not installed.
        """
        figure: Figure = require("matplotlib.figure", "viz").Figure(figsize=(7, 3.6), layout="constrained")
        axes, metric = figure.subplots(), self.metrics[0]
        columns = [c.scores[metric] for c in self.contenders]
        axes.boxplot(columns, showfliers=False, widths=0.5)
        axes.set_xticks(range(1, len(columns) + 1), [c.name for c in self.contenders])
        for place, column in enumerate(columns, start=1):
            axes.plot(place + np.linspace(-0.15, 0.15, len(column)), column, "o", ms=4, alpha=0.6)
        axes.set(ylabel=f"{metric} on each fold", title=f"{self.data.get('name', '')} p = {self.p_value:.3g}".strip())
        axes.grid(axis="y", alpha=0.25)
        return figure

    def save(self, folder: Path, name: str = "compare") -> list[Path]:
        """Write ``name.json``, ``name.txt`` and ``name.png`` into ``folder``; return their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{name}.{ending}" for ending in ("json", "txt", "png")]
        paths[0].write_text(self.to_json() + "\n", encoding="utf-8")
        paths[1].write_text(f"{self.table()}\n\n{self.recommendation}\n", encoding="utf-8")
        self.figure().savefig(paths[2], dpi=150)
        return paths

    def _best(self) -> Contender:
        return next(c for c in self.contenders if c.name == self.best_classical)


def classical_models(task: str = "classification", seed: int = 0) -> dict[str, Any]:
    """The classical models of a comparison, unfitted: an SVM with RBF kernel, gradient boosting and an MLP.

    Features are standardised if the model needs it.

    Args:
        task: "classification" or "regression".
        seed: Seed of the models that draw random numbers.

    Raises:
        ParameterError: ``task`` is unknown.

    Example:
        >>> from qtm.comparison import classical_models
        >>> list(classical_models())
        ['SVM-RBF', 'gradient boosting', 'MLP']
    """
    if task not in ("classification", "regression"):
        raise ParameterError(f"task={task!r}; expected 'classification' or 'regression'")
    kind = "Classifier" if task == "classification" else "Regressor"
    svm = getattr(require("sklearn.svm", "sklearn"), "SVC" if task == "classification" else "SVR")
    boosting = getattr(require("sklearn.ensemble", "sklearn"), f"HistGradientBoosting{kind}")
    perceptron = getattr(require("sklearn.neural_network", "sklearn"), f"MLP{kind}")
    return {
        "SVM-RBF": _standardised(svm()),
        "gradient boosting": boosting(random_state=seed),
        "MLP": _standardised(perceptron(max_iter=500, early_stopping=True, random_state=seed)),
    }


def compare_models(
    X: ArrayLike,
    y: ArrayLike,
    quantum: Any = None,
    classical: Mapping[str, Any] | None = None,
    *,
    folds: int = 10,
    repeats: int = 1,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    data: Mapping[str, Any] | None = None,
) -> Comparison:
    """Train a quantum model and classical ones on the same folds, and test whether the difference is significant.

    The quantum model is compared with the best classical model (by mean) in a two-sided Wilcoxon signed-rank test
    over paired folds. Folds share training samples, so p is optimistic. To be fair, tune both sides equally or
    neither.

    Args:
        X: Samples (samples, features).
        y: Labels or targets (samples,).
        quantum: The quantum model, any scikit-learn estimator. None: `QuantumClassifier` on standardised features,
            with 6 qubits and a linear encoder.
        classical: Classical models by name. None: :func:`classical_models`.
        folds: Number of folds, stratified for a classifier. ``folds * repeats`` must be at least 6, as otherwise no
            difference could be significant.
        repeats: Number of times that the samples are split into folds.
        metrics: Names of scikit-learn scorers; the first one decides. None: accuracy and macro F1, or R2 and RMSE.
        seed: Seed of the folds and of the default models.
        data: Notes to keep with the results, such as ``{"name": "digits"}``.

    Raises:
        ParameterError: There are too few folds, or there is no classical model.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from qtm.comparison import classical_models, compare_models
        >>> X, y = load_iris(return_X_y=True)
        >>> models = classical_models()
        >>> result = compare_models(X, y, models["MLP"], {"SVM-RBF": models["SVM-RBF"]}, folds=6)
        >>> result.recommendation[:11]
        'Use SVM-RBF'
    """
    if folds * repeats < FEWEST_FOLDS:
        raise ParameterError(
            f"folds * repeats = {folds * repeats} is too few: below {FEWEST_FOLDS} no difference is significant"
        )
    X, y = np.asarray(X), np.asarray(y)
    quantum = default_quantum_model(seed) if quantum is None else quantum
    is_classifier = require("sklearn.base", "sklearn").is_classifier(quantum)
    task = "classification" if is_classifier else "regression"
    classical = classical_models(task, seed) if classical is None else classical
    if not classical:
        raise ParameterError("no classical model to compare with; give at least one, or None for the defaults")
    metrics = tuple(metrics or (CLASSIFICATION_METRICS if is_classifier else REGRESSION_METRICS))
    selection = require("sklearn.model_selection", "sklearn")
    deal = selection.RepeatedStratifiedKFold if is_classifier else selection.RepeatedKFold
    splits = list(deal(n_splits=folds, n_repeats=repeats, random_state=seed).split(X, y))
    contenders = tuple(_run(n, m, X, y, splits, metrics) for n, m in {QUANTUM: quantum, **classical}.items())
    best = max(contenders[1:], key=lambda contender: contender.mean(metrics[0]))
    p_value = _p_value(contenders[0].scores[metrics[0]], best.scores[metrics[0]])
    return Comparison(metrics, contenders, best.name, p_value, dict(data or {}))


def default_quantum_model(seed: int = 0) -> Any:
    """A `QuantumClassifier` of 6 qubits and two uploads on standardised features, with a linear encoder."""
    from qtm.sklearn import QuantumClassifier

    return _standardised(QuantumClassifier(6, 2, encoder=(), epochs=30, random_state=seed))


def _standardised(model: Any) -> Any:
    scaler = require("sklearn.preprocessing", "sklearn").StandardScaler()
    return require("sklearn.pipeline", "sklearn").make_pipeline(scaler, model)


def _run(
    name: str, model: Any, X: NDArray[Any], y: NDArray[Any], splits: list[Any], metrics: tuple[str, ...]
) -> Contender:
    clone = require("sklearn.base", "sklearn").clone
    scorers = {metric: require("sklearn.metrics", "sklearn").get_scorer(metric) for metric in metrics}
    scores: dict[str, list[float]] = {metric: [] for metric in metrics}
    seconds = []
    for train, test in splits:
        began = time.perf_counter()
        fitted = clone(model).fit(X[train], y[train])
        seconds.append(time.perf_counter() - began)
        for metric, scorer in scorers.items():
            scores[metric].append(float(scorer(fitted, X[test], y[test])))
    return Contender(name, scores, seconds)


def _p_value(quantum: list[float], classical: list[float]) -> float:
    """Two-sided p value; 1 if all folds are equal, where the test is undefined."""
    differences = np.subtract(quantum, classical)
    return float(wilcoxon(differences).pvalue) if np.any(differences) else 1.0
