"""A model that is invariant by construction against a plain one: accuracy over training samples, and under noise.

    python examples/invariant.py             # about 30 s on two cores; writes invariant.png
    python examples/invariant.py --quick

Five angles on a ring; the label says whether neighbours agree, so rotations and reflections of the ring do not change
it. The invariant model twirls generators and observable over that group (J. Meyer et al., PRX Quantum 4, 010328).
Both are trained without noise and run with it, once unchanged, and once with the linear layer behind the circuit
retrained on noisy values: depolarising noise shrinks all expectation values, and with them the threshold.
Needs: pip install -e ".[demo,aer]"
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from qiskit.quantum_info import SparsePauliOp

import qtm
from qtm.circuits import angle_encoding, hardware_efficient_ansatz
from qtm.symmetry import Representation, encoding_error, invariant_model

QUBITS = 5
TURN, MIRROR = [1, 2, 3, 4, 0], [4, 3, 2, 1, 0]
GROUP = Representation([TURN, MIRROR])
Z, X, Y = (SparsePauliOp.from_sparse_list([(p, [0], 1.0)], QUBITS) for p in "ZXY")
ZZ = SparsePauliOp.from_sparse_list([("ZZ", [0, 1], 1.0)], QUBITS)


def samples(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Angles (count, 5) and labels (count,): 1 where neighbours agree more than the median does."""
    rng = np.random.default_rng(seed)
    angles = rng.uniform(0, np.pi, (20 * count, QUBITS))
    agreement = np.cos(angles - np.roll(angles, 1, axis=1)).sum(1)
    labels = agreement > 1.6  # about half of all
    return torch.tensor(angles[:count], dtype=torch.float32), torch.tensor(labels[:count], dtype=torch.float32)


def invariant(seed: int, **settings) -> torch.nn.Module:
    return invariant_model(GROUP, angle_encoding(QUBITS), [X, Y, ZZ], [Z, ZZ], layers=4, seed_init=seed, **settings)


def plain(seed: int, **settings) -> torch.nn.Module:
    observables = [GROUP.twirl(Z), GROUP.twirl(ZZ)]
    parts = [angle_encoding(QUBITS), hardware_efficient_ansatz(QUBITS)] * 4
    return qtm.QuantumModule.from_parts(parts, observables=observables, seed_init=seed, **settings)


def train(circuit: torch.nn.Module, inputs: torch.Tensor, labels: torch.Tensor, steps: int) -> torch.nn.Module:
    model = torch.nn.Sequential(circuit, torch.nn.Linear(2, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(steps):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(4 * model(inputs).squeeze(1), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@torch.no_grad()
def accuracy(model: torch.nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> float:
    return ((model(inputs).squeeze(1) > 0) == (labels > 0.5)).double().mean().item()


def with_noise(model: torch.nn.Module, build, strength: float) -> torch.nn.Module:
    """The trained weights on a circuit with depolarising noise."""
    noisy = build(0, noise=qtm.depolarizing_noise(strength / 10, strength)) if strength else model[0]
    noisy.load_state_dict(model[0].state_dict())
    return torch.nn.Sequential(noisy, model[1])


def recalibrated(model: torch.nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.nn.Module:
    """The model with its linear layer trained again, on the same samples."""
    with torch.no_grad():
        values = model[0](inputs)
    scale = values.std(0)  # noise makes values small, and weights would have to become large
    layer = torch.nn.Linear(2, 1)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=100)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        found = torch.nn.functional.binary_cross_entropy_with_logits(4 * layer(values / scale).squeeze(1), labels)
        found.backward()
        return found

    optimizer.step(loss)
    layer.weight.data /= scale
    return torch.nn.Sequential(model[0], layer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few samples, steps and seeds")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the plot")
    options = parser.parse_args()
    sizes, steps, seeds = ((8, 16), 5, 1) if options.quick else ((8, 16, 32, 64, 128), 150, 4)
    strengths = (0.0, 0.05) if options.quick else (0.0, 0.02, 0.05, 0.1, 0.2)
    torch.set_num_threads(1)
    print(f"encoding is equivariant up to {encoding_error(GROUP, angle_encoding(QUBITS), [TURN, MIRROR]):.1e}")
    held_out = samples(400, 99)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    colors = {"invariant": "C0", "plain": "C1"}
    for name, build in {"invariant": invariant, "plain": plain}.items():
        scores, trained = np.zeros((len(sizes), seeds)), []
        for seed in range(seeds):
            torch.manual_seed(seed)
            for row, size in enumerate(sizes):
                model = train(build(seed), *samples(size, seed), steps)
                scores[row, seed] = accuracy(model, *held_out)
            trained.append(model)
        print(f"{name}: {trained[0][0].num_trainable_parameters} angles, accuracy {scores.mean(1).round(3)}")
        left.errorbar(sizes, scores.mean(1), scores.std(1), marker="o", capsize=3, label=name, color=colors[name])
        found = np.zeros((2, len(strengths), seeds))
        for row, strength in enumerate(strengths):
            for seed, model in enumerate(trained):
                noisy = with_noise(model, build, strength)
                again = recalibrated(noisy, *samples(sizes[-1], seed))
                found[:, row, seed] = accuracy(noisy, *held_out), accuracy(again, *held_out)
        for label, line, means, spread in zip(
            ("", ", linear layer again"), "-:", found.mean(2), found.std(2), strict=True
        ):
            print(f"    under noise{label}: {means.round(3)}")
            right.errorbar(
                strengths, means, spread, marker="o", capsize=3, linestyle=line, label=name + label, color=colors[name]
            )
    left.set(xscale="log", xlabel="training samples", ylabel="held-out accuracy", title=f"{seeds} seeds")
    right.set(
        xlabel="depolarising probability of a two-qubit gate",
        ylabel="held-out accuracy",
        title="Noise after every gate",
    )
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.legend()
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "invariant.png", dpi=110)
    print(f"wrote {options.out / 'invariant.png'}")


if __name__ == "__main__":
    main()
