"""Training under noise and shots, with and without real-time error mitigation.

    python examples/noisy_training.py                # seconds; writes noisy_training.png and .json
    python examples/noisy_training.py --seeds 20     # as recorded in benchmarks/, and as in the paper's figures
    python examples/noisy_training.py --quick        # seconds

Two tasks from Robbiati et al., "Qiboml: towards the orchestration of quantum-classical machine learning":
a qubit learns f(x) = sin^2 x - 0.3 cos x (section III.A, Fig. 5), and a variational eigensolver finds the ground
state of -sum Z (III.B, Fig. 6). Each is trained in four set-ups, which differ in `estimator=` and nothing else:
exact; shots; noise and shots; noise and shots with real-time mitigation. Lines are medians over the seeds, bands
median absolute deviations. All run on qtm's own simulators: exact values under noise, and drawn outcomes on top.
Needs: pip install -e ".[aer,demo]"
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import qiskit
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.quantum_info import SparsePauliOp
from tqdm import tqdm

import qtm
from qtm.circuits import hardware_efficient_circuit


@dataclass(frozen=True)
class Task:
    """The settings of a figure; those of the mitigation are the paper's."""

    figure: str
    pauli_error: float  # probability of X, of Y and of Z on each qubit of each gate
    learning_rate: float
    threshold: float
    min_iterations: int
    training_shots: int  # of the circuits that the mitigation learns from
    epochs: int = 50
    shots: int = 1024
    training_circuits: int = 100


# The paper does not say how many layers, points and shots it takes. Two layers are the fewest that hold the two
# frequencies of f; 1024 shots are those of its section II.E.1. The noise of Fig. 5 is depolarising in its text and X, Y
# or Z with 0.01 each in table I, which is depolarising as well. It gives Fig. 6 three qubits in the text and five in
# table II, and q = 0.008 in the text and 0.01 in the table: this is the text.
FIT = Task("Fig. 5", 0.01, 0.2, threshold=0.1, min_iterations=5000, training_shots=5000)
EIGENSOLVER = Task("Fig. 6", 0.008, 0.1, threshold=0.2, min_iterations=500, training_shots=10_000)
LAYERS, POINTS, QUBITS = 2, 12, 3
COLOURS = {
    "exact": "#2e9d5b",
    "shots": "#2a6fbb",
    "noise + shots": "#c8372d",
    "noise + shots + mitigation": "#e3a008",
}
GRID = torch.linspace(-np.pi, np.pi, 41, dtype=torch.double)[:, None]


class Outcome(NamedTuple):
    """What a training run gives: its curve in the figure, and its error."""

    curve: np.ndarray  # Fig. 5: predictions (grid,); Fig. 6: energies (epochs + 1,)
    error: float


def estimator_for(setup: str, task: Task, seed: int):
    """The estimator of a set-up; None is the exact simulator."""
    if setup == "exact":
        return None
    noise = None if setup == "shots" else qtm.local_pauli_noise(task.pauli_error)
    draws = np.random.default_rng(seed)  # an integer would draw the same shots in every step
    noisy = qtm.FastEstimator(shots=task.shots, sampling="multinomial", noise=noise, seed=draws)
    if setup == "shots":
        return noisy
    if setup == "noise + shots":
        return noisy
    return qtm.MitigatedEstimator(
        noisy,
        "real-time-cdr",
        threshold=task.threshold,
        min_iterations=task.min_iterations,
        n_training_samples=task.training_circuits,
        shots=task.training_shots,
        seed=seed,
    )


def make_module(circuit, inputs, weights, setup: str, task: Task, seed: int, **options) -> qtm.QuantumModule:
    """The same weights in every set-up, by the seed. Off the simulator, two jobs to a step."""
    estimator = estimator_for(setup, task, seed)
    gradient = "reverse" if estimator is None else "param-shift"
    return qtm.QuantumModule(
        circuit, inputs, weights, estimator=estimator, gradient=gradient, seed_init=seed, **options
    ).double()


def train(
    model: qtm.QuantumModule, loss: Callable[[], torch.Tensor], task: Task, epochs: int, bar: tqdm
) -> list[float]:
    """Losses before each epoch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=task.learning_rate)
    losses = []
    for _ in range(epochs):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
        bar.set_postfix_str(f"loss {losses[-1]:+.3f}, {model.usage.jobs} jobs", refresh=False)
        bar.update()
    return losses


def target(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(x) ** 2 - 0.3 * torch.cos(x)


def fit(setup: str, task: Task, epochs: int, seed: int, bar: tqdm) -> Outcome:
    """One qubit that re-uploads x learns f; its error is the mean distance from f over the grid."""
    x, weights = Parameter("x"), ParameterVector("w", 2 * LAYERS)
    circuit = QuantumCircuit(1)
    for first, second in zip(weights[::2], weights[1::2], strict=True):
        circuit.ry(first, 0)
        circuit.rz(second, 0)
        circuit.rx(x, 0)
    model = make_module(circuit, [x], list(weights), setup, task, seed)
    points = torch.linspace(-np.pi, np.pi, POINTS, dtype=torch.double)[:, None]
    train(model, lambda: torch.nn.functional.mse_loss(model(points), target(points)), task, epochs, bar)
    with torch.no_grad():
        predictions = model(GRID)
    return Outcome(predictions.numpy().ravel(), float((predictions - target(GRID)).abs().mean()))


def find_ground_state(setup: str, task: Task, epochs: int, seed: int, bar: tqdm) -> Outcome:
    """Energies of -sum Z; the error is the distance of the last one from the ground state."""
    design = hardware_efficient_circuit(QUBITS, LAYERS)
    energy = SparsePauliOp.from_sparse_list([("Z", [q], -1.0) for q in range(QUBITS)], QUBITS)
    model = make_module(design.circuit, None, design.variational_params, setup, task, seed, observables=[energy])
    energies = train(model, lambda: model().squeeze(), task, epochs, bar)
    with torch.no_grad():
        energies.append(model().item())
    return Outcome(np.array(energies), abs(energies[-1] + QUBITS))


def deviation(values: np.ndarray) -> np.ndarray:
    """Median absolute deviation over the first axis."""
    return np.median(np.abs(values - np.median(values, axis=0)), axis=0)


Outcomes = dict[str, list[Outcome]]


def summary(task: Task, epochs: int, outcomes: Outcomes) -> dict:
    """Numbers of a figure, for the JSON file."""
    errors = {setup: np.array([run.error for run in runs]) for setup, runs in outcomes.items()}
    medians = {setup: float(np.median(e)) for setup, e in errors.items()}
    return {
        "settings": {**asdict(task), "epochs": epochs},
        "error": {
            setup: {"median": medians[setup], "deviation": float(deviation(e)), "per_seed": e.tolist()}
            for setup, e in errors.items()
        },
        "mitigated_over_unmitigated": medians["noise + shots + mitigation"] / medians["noise + shots"],
    }


def draw(axes, x: np.ndarray, outcomes: Outcomes) -> None:
    for setup, runs in outcomes.items():
        curves = np.stack([run.curve for run in runs])  # (seeds, x)
        middle, spread = np.median(curves, axis=0), deviation(curves)
        error = np.median([run.error for run in runs])
        axes.plot(x, middle, color=COLOURS[setup], label=f"{setup}: error {error:.3f}")
        axes.fill_between(x, middle - spread, middle + spread, color=COLOURS[setup], alpha=0.2, lw=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def plot(path: Path, fits: Outcomes, energies: Outcomes, seeds: int) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    grid = GRID.numpy().ravel()
    left.plot(grid, target(GRID).numpy().ravel(), color="black", ls="--", lw=1.2, label="target")
    draw(left, grid, fits)
    ticks = {-np.pi: "-π", -np.pi / 2: "-π/2", 0: "0", np.pi / 2: "π/2", np.pi: "π"}
    left.set_xticks(list(ticks), list(ticks.values()))
    left.set(xlabel="x", ylabel="prediction", ylim=(-0.6, 1.7))
    left.set_title("Regression of sin²x - 0.3 cos x, 1 qubit")
    epochs = np.arange(len(energies["exact"][0].curve))
    right.axhline(-QUBITS, color="black", ls="--", lw=1.2, label="ground state")
    draw(right, epochs, energies)
    right.set(xlabel="epoch", ylabel="energy", title=f"Ground state of -ΣZ, {QUBITS} qubits")
    for axes in (left, right):
        axes.legend(frameon=False, fontsize="small", loc="upper right")
    figure.suptitle(f"Median and median absolute deviation of {seeds} seed{'s' * (seeds != 1)}", fontsize="medium")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="repetitions of every training run")
    parser.add_argument("--quick", action="store_true", help="2 seeds, 3 epochs")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the plot and the results")
    options = parser.parse_args()
    seeds = 2 if options.quick else options.seeds
    torch.set_num_threads(1)  # torch's share is small

    began = time.perf_counter()
    outcomes: list[Outcomes] = []
    results = {}
    for task, run in ((FIT, fit), (EIGENSOLVER, find_ground_state)):
        epochs = 3 if options.quick else task.epochs
        found: Outcomes = {setup: [] for setup in COLOURS}
        with tqdm(total=len(COLOURS) * seeds * epochs, unit="step") as bar:
            for setup in COLOURS:
                bar.set_description(f"{task.figure}, {setup}")
                found[setup] = [run(setup, task, epochs, seed, bar) for seed in range(seeds)]
        outcomes.append(found)
        results[task.figure] = summary(task, epochs, found)
        for setup, error in results[task.figure]["error"].items():
            print(f"  {setup:<27} error {error['median']:.4f} ± {error['deviation']:.4f}")
        print(f"  mitigated / unmitigated: {results[task.figure]['mitigated_over_unmitigated']:.2f}")

    options.out.mkdir(parents=True, exist_ok=True)
    plot(options.out / "noisy_training.png", *outcomes, seeds)
    versions = {"qtm": qtm.__version__, "qiskit": qiskit.__version__, "python": platform.python_version()}
    report = {"seeds": seeds, "figures": results, "seconds": time.perf_counter() - began, "versions": versions}
    (options.out / "noisy_training.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    print(f"wrote {options.out / 'noisy_training.png'} and noisy_training.json")


if __name__ == "__main__":
    main()
