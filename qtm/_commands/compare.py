"""The command `qtm compare`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from qtm._errors import ParameterError, require

# Data sets that scikit-learn ships, by the name of the option.
DATA_SETS = ("breast_cancer", "digits", "iris", "wine")
Say = Callable[[str], None]


def add_arguments(commands: Any, at_least: Callable[[int], Callable[[str], int]]) -> argparse.ArgumentParser:
    """Add `compare` to the commands of `qtm`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "compare",
        help="compare a quantum model with classical models on your data",
        description="Train a quantum classifier, an SVM with RBF kernel, gradient boosting and an MLP on the same "
        "folds, test the difference, and recommend one.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "data",
        nargs="*",
        default=["breast_cancer", "digits"],
        help=f"{', '.join(DATA_SETS)}, or a CSV file with a header, whose last column is the label",
    )
    parser.add_argument("--folds", type=at_least(2), default=10, help="folds of the cross-validation")
    parser.add_argument("--repeats", type=at_least(1), default=1, help="number of different splits into folds")
    parser.add_argument("--qubits", type=at_least(1), default=6, help="qubits of the quantum classifier")
    parser.add_argument("--layers", type=at_least(1), default=2, help="uploads of the quantum classifier")
    parser.add_argument("--epochs", type=at_least(1), default=30, help="training epochs of the quantum classifier")
    parser.add_argument("--seed", type=at_least(0), default=0, help="seed of the folds and of the models")
    parser.add_argument(
        "--out", type=Path, default=Path("qtm-compare"), metavar="FOLDER", help="folder for the results"
    )
    return parser


def run(options: argparse.Namespace, say: Say) -> None:
    """Compare on each of the data sets; results go to ``say`` and into files."""
    from qtm.comparison import compare_models
    from qtm.sklearn import QuantumClassifier

    scaler = require("sklearn.preprocessing", "sklearn").StandardScaler
    pipeline = require("sklearn.pipeline", "sklearn").make_pipeline
    require("matplotlib", "viz")  # fail now, not after the training
    for data, (X, y) in {data: read_data(data) for data in options.data}.items():
        model = QuantumClassifier(
            options.qubits, options.layers, encoder=(), epochs=options.epochs, random_state=options.seed
        )
        name = Path(data).stem
        notes = {"name": name, "samples": len(X), "features": X.shape[1], "classes": len(np.unique(y))}
        result = compare_models(
            X, y, pipeline(scaler(), model),
            folds=options.folds, repeats=options.repeats, seed=options.seed, data=notes,
        )  # fmt: skip
        say(f"{name}: {len(X)} samples, {X.shape[1]} features, {notes['classes']} classes\n{result.table()}")
        say(result.recommendation)
        for path in result.save(options.out, f"compare-{name}"):
            say(f"wrote {path}")


def read_data(data: str) -> tuple[np.ndarray, np.ndarray]:
    """Samples (samples, features) and labels (samples,) of a data set's name or a CSV file.

    Raises:
        ParameterError: there is no such data set or file, or a feature is not a number.
    """
    if data in DATA_SETS:
        X, y = getattr(require("sklearn.datasets", "sklearn"), f"load_{data}")(return_X_y=True)
        return X, y
    if not Path(data).is_file():
        raise ParameterError(f"no data set or file {data!r}; give a CSV file or one of {', '.join(DATA_SETS)}")
    rows = np.loadtxt(data, delimiter=",", dtype=str, skiprows=1, ndmin=2)
    try:
        X = rows[:, :-1].astype(np.float64)
    except ValueError as error:
        raise ParameterError(f"{data}: {error}; all columns but the last have to be numbers") from error
    if X.size == 0:
        raise ParameterError(f"{data} has no samples, or no columns but one; expected features, then the label")
    return X, rows[:, -1]
