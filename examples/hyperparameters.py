"""QAOA in a search of discrete hyper-parameters, beside Optuna's samplers on the same budget.

    python examples/hyperparameters.py       # about 12 s on two cores; writes hyperparameters.png
    python examples/hyperparameters.py --quick

A quadratic model of the score in the bits of a choice is fitted to the trials so far, and the next trial is the best
shot of QAOA on that model (as in R. Baptista and M. Poloczek, Bayesian optimization of combinatorial structures, ICML
2018, with QAOA as the solver). Random search and Optuna's TPE (T. Akiba et al., KDD 2019) get as many trials.
The search space is small enough to know its true optimum. Needs: pip install -e ".[demo]" optuna
"""

import argparse
from itertools import combinations, product
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import optuna
import torch
from qiskit.quantum_info import SparsePauliOp
from sklearn.datasets import load_wine
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_score
from sklearn.svm import SVC

import qtm
from qtm.circuits import alternating_operator_ansatz

BITS = 6  # three for C, three for gamma: 64 choices


def score_table() -> np.ndarray:
    """Cross-validated accuracy (64,) of an SVM on the raw wine data, for every choice of C and gamma."""
    X, y = load_wine(return_X_y=True)
    grid = product(10.0 ** np.linspace(-3, 4, 8), 10.0 ** np.linspace(-7, 0, 8))
    return np.array([cross_val_score(SVC(C=C, gamma=gamma), X, y, cv=3).mean() for C, gamma in grid])


def bits_of(choice: int) -> np.ndarray:
    return np.array([choice >> q & 1 for q in range(BITS)])


def features(choices: list[int]) -> np.ndarray:
    """Spins and products of two spins (choices, 21)."""
    spins = 1 - 2 * np.array([bits_of(c) for c in choices])
    pairs = [spins[:, a] * spins[:, b] for a, b in combinations(range(BITS), 2)]
    return np.column_stack([spins, *pairs])


def qaoa_choice(tried: list[int], scores: list[float], seed: int, steps: int) -> int:
    """The untried choice that the fitted model likes best among 64 shots of QAOA; a random one if all were tried."""
    model = Ridge(alpha=0.1).fit(features(tried), scores)
    places = [[q] for q in range(BITS)] + [list(pair) for pair in combinations(range(BITS), 2)]
    scale = np.abs(model.coef_).max() + 1e-9
    terms = [("Z" * len(place), place, w / scale) for place, w in zip(places, model.coef_, strict=True)]
    cost = SparsePauliOp.from_sparse_list(terms, BITS)
    design = alternating_operator_ansatz(cost, 2)
    module = qtm.QuantumModule(
        design.circuit, None, design.trainable_params, observables=[cost], seed_init=seed,
        variational_params_initial=("normal", {"std": 0.3}),
    )  # fmt: skip
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        (-module().sum()).backward()
        optimizer.step()
    circuit = design.circuit.assign_parameters(
        dict(zip(design.trainable_params, module.variational.tolist(), strict=True))
    )
    circuit.measure_all()
    shots = qtm.FastSampler(seed=seed).run([circuit], shots=64).result()[0].data.meas.get_counts()
    fresh = sorted({int(bits, 2) for bits in shots} - set(tried)) or sorted(set(range(2**BITS)) - set(tried))
    return fresh[int(np.argmax(model.predict(features(fresh))))]


def qaoa_search(table: np.ndarray, trials: int, seed: int, steps: int) -> list[float]:
    rng = np.random.default_rng(seed)
    tried = [int(c) for c in rng.choice(2**BITS, 4, replace=False)]
    while len(tried) < trials:
        tried.append(qaoa_choice(tried, [table[c] for c in tried], seed, steps))
    return [table[c] for c in tried[:trials]]


def optuna_search(table: np.ndarray, trials: int, sampler: optuna.samplers.BaseSampler) -> list[float]:
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(lambda t: table[8 * t.suggest_int("C", 0, 7) + t.suggest_int("gamma", 0, 7)], n_trials=trials)
    return [trial.value for trial in study.trials]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few trials, one seed")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the plot")
    options = parser.parse_args()
    trials, seeds, steps = (6, 1, 5) if options.quick else (24, 8, 40)
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    table = score_table()
    ways = {
        "QAOA on a quadratic model": lambda seed: qaoa_search(table, trials, seed, steps),
        "Optuna, TPE": lambda seed: optuna_search(table, trials, optuna.samplers.TPESampler(seed=seed)),
        "Optuna, random": lambda seed: optuna_search(table, trials, optuna.samplers.RandomSampler(seed=seed)),
    }
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, search in ways.items():
        gaps = table.max() - np.maximum.accumulate([search(seed) for seed in range(seeds)], axis=1)
        print(f"{name}: {gaps[:, -1].mean():.4f} below the optimum after {trials} trials (mean of {seeds} seeds)")
        axes.plot(range(1, trials + 1), gaps.mean(0), label=name)
    axes.set(xlabel="trials", ylabel="accuracy below the optimum", title=f"SVM on wine: best is {table.max():.3f}")
    axes.grid(alpha=0.25)
    axes.legend()
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "hyperparameters.png", dpi=110)
    print(f"wrote {options.out / 'hyperparameters.png'}")


if __name__ == "__main__":
    main()
