"""Tagging jets with a graph network whose attention is a circuit: Minkowski dot products in, quark or gluon out.

    python examples/jets.py                  # about 40 s on two cores; writes jets.png
    python examples/jets.py --quick

Qiboml (M. Robbiati et al., 2025), section III-D: messages between particles are made of Lorentz-invariant products of
their four-momenta, and a circuit of 4 layers (phase encoding, RY and RZ, entangling gates) weighs the neighbours:
x_i <- x_i + c sum_j phi(m_ij) x_j. Jets are synthetic here: "gluons" radiate more and wider than "quarks". Because the
network sees invariants only, it answers alike for jets that are boosted; a network that reads momenta does not.
Needs: pip install -e ".[demo]"
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor, nn

import qtm
from qtm.circuits import hardware_efficient_ansatz, phase_encoding

PARTICLES, QUBITS = 6, 3
METRIC = torch.tensor([1.0, -1.0, -1.0, -1.0])


def jets(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Four-momenta (count, 6, 4) of massless particles, the total energy being 1, and labels (count,): 1 for gluons."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    softness = np.where(labels, 0.65, 0.45)[:, None]  # share of the energy that goes on at a splitting
    shares = softness ** np.arange(PARTICLES) * rng.lognormal(0, 0.5, (count, PARTICLES))
    energies = shares / shares.sum(1, keepdims=True)
    angles = rng.normal(0, np.where(labels, 0.45, 0.30)[:, None], (count, PARTICLES)) / np.sqrt(1 + 5 * energies)
    around = rng.uniform(0, 2 * np.pi, (count, PARTICLES))
    directions = [np.sin(angles) * np.cos(around), np.sin(angles) * np.sin(around), np.cos(angles)]
    momenta = energies[..., None] * np.stack([np.ones_like(angles), *directions], -1)
    return torch.tensor(momenta, dtype=torch.float32), torch.tensor(labels, dtype=torch.float32)


def boosted(momenta: Tensor, rapidity: float) -> Tensor:
    """The same jets seen by an observer who moves along x."""
    matrix = torch.eye(4)
    matrix[0, 0] = matrix[1, 1] = np.cosh(rapidity)
    matrix[0, 1] = matrix[1, 0] = np.sinh(rapidity)
    return momenta @ matrix


def products(x: Tensor) -> Tensor:
    """Minkowski products (jets, particles, particles) of four-vectors (jets, particles, 4)."""
    return torch.einsum("nid,d,njd->nij", x, METRIC, x)


class JetNetwork(nn.Module):
    """Two rounds of attention; ``attention`` maps messages (.., 3) to weights (.., 1)."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self.message = nn.Sequential(nn.Linear(2, 12), nn.ReLU(), nn.Linear(12, QUBITS), nn.Tanh())
        self.readout = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, momenta: Tensor) -> Tensor:
        x = momenta
        for _ in range(2):
            p = products(x)
            size = p.diagonal(dim1=1, dim2=2)
            invariants = torch.stack([p, size.unsqueeze(1) + size.unsqueeze(2)], -1)
            phi = self.attention(self.message(torch.asinh(20 * invariants))).squeeze(-1)
            x = x + torch.einsum("nij,njd->nid", phi, x) / PARTICLES
        p = products(x)
        moments = [p.mean((1, 2)), p.square().mean((1, 2)).sqrt(), p.amax((1, 2)), p.std((1, 2))]
        return self.readout(torch.asinh(20 * torch.stack(moments, -1))).squeeze(-1)


def circuit_attention(seed: int) -> nn.Module:
    parts = [phase_encoding(QUBITS), hardware_efficient_ansatz(QUBITS)] * 4
    z = ["Z" * QUBITS]
    return qtm.QuantumModule.from_parts(parts, observables=z, seed_init=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few jets, one epoch")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the plot")
    options = parser.parse_args()
    count, epochs, seeds = (64, 2, 1) if options.quick else (1000, 20, 3)
    torch.set_num_threads(1)
    train, held_out = jets(count, 0), jets(1000 if not options.quick else 100, 1)
    ways = {
        "circuit as attention": lambda seed: JetNetwork(circuit_attention(seed)),
        "perceptron as attention": lambda seed: JetNetwork(nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1))),
        "perceptron on momenta": lambda seed: nn.Sequential(
            nn.Flatten(), nn.Linear(4 * PARTICLES, 16), nn.ReLU(), nn.Linear(16, 1), nn.Flatten(0)
        ),
    }
    rapidities = np.linspace(0, 1, 5)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for name, build in ways.items():
        curves, moved = [], []
        for seed in range(seeds):
            torch.manual_seed(seed)
            model, accuracies = build(seed), []

            @torch.no_grad()
            def accuracy(rapidity: float = 0.0, model: nn.Module = model) -> float:
                return ((model(boosted(held_out[0], rapidity)) > 0) == (held_out[1] > 0.5)).double().mean().item()

            optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
            for _ in range(epochs):
                for batch in torch.randperm(count).split(50):
                    loss = nn.functional.binary_cross_entropy_with_logits(model(train[0][batch]), train[1][batch])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                accuracies.append(accuracy())
            curves.append(accuracies)
            moved.append([accuracy(r) for r in rapidities])
        weights = sum(p.numel() for p in model.parameters())
        print(f"{name}: {weights} weights, accuracy {np.mean(curves, 0)[-1]:.3f}, boosted {np.mean(moved, 0)[-1]:.3f}")
        left.errorbar(range(1, epochs + 1), np.mean(curves, 0), np.std(curves, 0), label=f"{name} ({weights} weights)")
        right.plot(rapidities, np.mean(moved, 0), marker="o", label=name)
    left.set(xlabel="epoch", ylabel="held-out accuracy", title=f"{count} synthetic jets, {seeds} seeds")
    right.set(xlabel="rapidity of the observer", ylabel="held-out accuracy", title="Boosted jets")
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.legend()
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "jets.png", dpi=110)
    print(f"wrote {options.out / 'jets.png'}")


if __name__ == "__main__":
    main()
