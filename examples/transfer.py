"""Transfer learning: a classical network is trained on one task, a circuit on top of it on another with few samples.

    python examples/transfer.py              # about 15 s on two cores; writes transfer.png
    python examples/transfer.py --quick

A. Mari et al., Quantum 4, 340 (2020): "dressed" circuits behind a frozen feature extractor. Here the extractor
learns the digits 0 to 7, and the new task is 8 against 9. Compared with a linear layer on the same features, and with
the circuit on features of an untrained extractor.
Needs: pip install -e ".[demo]"
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import qtm
from qtm.circuits import angle_encoding, hardware_efficient_ansatz

WIDTH, QUBITS = 16, 4


class AsAngles(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return torch.pi / 2 * torch.tanh(values)


def dressed_circuit(seed: int) -> nn.Module:
    parts = [angle_encoding(QUBITS), hardware_efficient_ansatz(QUBITS, 2, "y")]
    circuit = qtm.QuantumModule.from_parts(parts, seed_init=seed)
    return nn.Sequential(nn.Linear(WIDTH, QUBITS), AsAngles(), circuit, nn.Linear(QUBITS, 2))


def fit(model: nn.Module, inputs: Tensor, labels: Tensor, steps: int, rate: float = 0.02) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for _ in range(steps):
        batch = torch.randint(len(inputs), (32,))
        loss = nn.functional.cross_entropy(model(inputs[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@torch.no_grad()
def accuracy(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    return (model(inputs).argmax(1) == labels).double().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few steps, one seed")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the plot")
    options = parser.parse_args()
    sizes, seeds, steps = ((4, 16), 1, 10) if options.quick else ((4, 8, 16, 32, 64), 5, 200)
    torch.set_num_threads(1)
    pixels, digits = load_digits(return_X_y=True)
    images, labels = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(digits)
    old, new = labels < 8, labels >= 8
    new_images, new_labels = images[new], labels[new] - 8
    scores: dict[str, np.ndarray] = {
        name: np.zeros((seeds, len(sizes)))
        for name in (
            "circuit on the trained extractor",
            "linear layer on the trained extractor",
            "circuit, no transfer",
        )
    }
    for seed in range(seeds):
        torch.manual_seed(seed)
        untrained = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, WIDTH), nn.ReLU())
        extractor = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, WIDTH), nn.ReLU())
        fit(nn.Sequential(extractor, nn.Linear(WIDTH, 8)), images[old], labels[old], 5 * steps, 0.005)
        with torch.no_grad():
            features, plain = (net(new_images) for net in (extractor, untrained))
        order = torch.randperm(len(new_images))
        for column, size in enumerate(sizes):
            few, held_out = order[:size], order[100:]
            ways = zip(scores, (dressed_circuit(seed), nn.Linear(WIDTH, 2), dressed_circuit(seed)), strict=True)
            for (name, model), inputs in zip(ways, (features, features, plain), strict=True):
                fit(model, inputs[few], new_labels[few], steps)
                scores[name][seed, column] = accuracy(model, inputs[held_out], new_labels[held_out])
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, values in scores.items():
        print(f"{name}: accuracy {values.mean(0).round(3)} for {sizes} samples")
        axes.errorbar(sizes, values.mean(0), values.std(0), marker="o", capsize=3, label=name)
    axes.set(xscale="log", xlabel="samples of the new task", ylabel="held-out accuracy", title="8 against 9")
    axes.grid(alpha=0.25)
    axes.legend()
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "transfer.png", dpi=110)
    print(f"wrote {options.out / 'transfer.png'}")


if __name__ == "__main__":
    main()
