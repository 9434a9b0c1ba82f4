"""Quanvolution: a circuit slides over images, in place of a layer of filters.

    python examples/quanvolution.py          # about 10 s on two cores; writes quanvolution.png
    python examples/quanvolution.py --quick

M. Henderson et al., Quantum Machine Intelligence 2, 2 (2020): 2 x 2 pixels as angles of 4 qubits, whose expectation
values are 4 channels. Compared on the same digits: fixed random filters, as in the paper, trained filters, and a
classical convolution of the same shape.
Needs: pip install -e ".[demo]"
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

import qtm
from qtm.circuits import angle_encoding, strongly_entangling_ansatz


class Quanvolution(nn.Module):
    """Images (batch, 8, 8) to channels (batch, 4, 4, 4): the circuit reads 2 x 2 pixels at a time, without overlap."""

    def __init__(self, trained: bool) -> None:
        super().__init__()
        parts = [angle_encoding(4), strongly_entangling_ansatz(4, 2)]
        self.circuit = qtm.QuantumModule.from_parts(parts, seed_init=0)
        self.circuit.requires_grad_(trained)

    def forward(self, images: Tensor) -> Tensor:
        patches = images.unfold(1, 2, 2).unfold(2, 2, 2).flatten(-2)  # (batch, 4, 4, 4 pixels)
        return self.circuit(torch.pi * patches).permute(0, 3, 1, 2)


class Convolution(nn.Module):
    """The classical layer of the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Sequential(nn.Conv2d(1, 4, 2, stride=2), nn.Tanh())

    def forward(self, images: Tensor) -> Tensor:
        return self.filters(images.unsqueeze(1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few images, one epoch")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the plot")
    options = parser.parse_args()
    epochs, count = (1, 100) if options.quick else (25, 1797)
    torch.set_num_threads(1)
    pixels, digits = load_digits(return_X_y=True)
    images, labels = (
        torch.tensor(pixels[:count] / 16, dtype=torch.float32).reshape(-1, 8, 8),
        torch.tensor(digits[:count]),
    )
    parts = train_test_split(images, labels, test_size=0.3, random_state=0)
    train_images, held_out_images, train_labels, held_out_labels = parts
    ways = {
        "random circuit": lambda: Quanvolution(False),
        "trained circuit": lambda: Quanvolution(True),
        "convolution": Convolution,
    }
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", width_ratios=(1.2, 1))
    for name, layer in ways.items():
        torch.manual_seed(0)
        model = nn.Sequential(layer(), nn.Flatten(), nn.Linear(64, 10))
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
        accuracies = []
        for _ in range(epochs):
            for batch in torch.randperm(len(train_images)).split(64):
                loss = nn.functional.cross_entropy(model(train_images[batch]), train_labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                accuracies.append((model(held_out_images).argmax(1) == held_out_labels).double().mean().item())
        print(f"{name}: held-out accuracy {accuracies[-1]:.1%}")
        left.plot(range(1, epochs + 1), accuracies, marker=".", label=f"{name}: {accuracies[-1]:.1%}")
        if name == "trained circuit":
            channels = model[0](held_out_images[:3]).detach()
    left.set(xlabel="epoch", ylabel="held-out accuracy", title="Digits, a linear layer behind 4 channels")
    left.grid(alpha=0.25)
    left.legend()
    shown = [
        [torch.nn.functional.pad(c, (0, 1), value=1.0) for c in (channels[i, k] for k in range(4))] for i in range(3)
    ]
    rows = [torch.cat([held_out_images[i, ::2, ::2] * 2 - 1, torch.ones(4, 1), *shown[i]], 1) for i in range(3)]
    right.imshow(torch.cat(rows).numpy(), cmap="viridis", vmin=-1, vmax=1)
    right.set_title("Three digits (coarse) and their 4 trained channels")
    right.axis("off")
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "quanvolution.png", dpi=110)
    print(f"wrote {options.out / 'quanvolution.png'}")


if __name__ == "__main__":
    main()
