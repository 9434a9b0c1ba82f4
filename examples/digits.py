"""Train a 10-qubit circuit with 220 weights to read handwritten digits: the core of `qtm demo`.

    python examples/digits.py                # about 15 s on two cores; writes digits.png
    python examples/digits.py --quick        # a few seconds

Ten qubits take an image of 10 x 10 pixels in ten layers; the expectation value of Z on qubit q is the logit of
digit q. There is no classical weight. Needs: pip install -e ".[demo]"
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn import functional
from tqdm import tqdm

import qtm
from qtm.circuits import incremental_uploading_circuit

LOGIT_SCALE = 50.0  # expectation values lie in [-1, 1], where a softmax cannot be sure of anything


def read_digits() -> list[torch.Tensor]:
    """Training images, held-out images, training labels, held-out labels of scikit-learn's digits."""
    pixels, labels = load_digits(return_X_y=True)
    squares = torch.tensor(pixels / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    images = functional.interpolate(squares, size=(10, 10), mode="bilinear").flatten(1)
    return train_test_split(images, torch.tensor(labels), test_size=0.2, stratify=labels, random_state=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--quick", action="store_true", help="two epochs")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the plot")
    options = parser.parse_args()
    epochs = 2 if options.quick else options.epochs

    torch.manual_seed(0)
    torch.set_num_threads(1)  # torch's share is small; the cores belong to the circuit
    images, held_out_images, labels, held_out_labels = read_digits()

    design = incremental_uploading_circuit(num_qubits=10, depth=10, num_features=100)
    model = qtm.QuantumModule(design.circuit, design.encoding_params, design.trainable_params, seed_init=0)
    print(model)

    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    losses, accuracies = [], []
    for _ in (bar := tqdm(range(epochs), unit="epoch")):
        for batch in torch.randperm(len(images)).split(48):
            loss = functional.cross_entropy(LOGIT_SCALE * model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        schedule.step()
        with torch.no_grad():
            correct = model(held_out_images).argmax(1) == held_out_labels
        accuracies.append(correct.double().mean().item())
        bar.set_postfix(loss=f"{losses[-1]:.3f}", held_out=f"{accuracies[-1]:.1%}")
    print(f"held-out accuracy {accuracies[-1]:.1%} ({int(correct.sum())} of {len(correct)} digits)")

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.plot(losses, lw=0.8)
    left.set(xlabel="step", ylabel="cross entropy", yscale="log", title="Loss")
    right.plot(range(1, epochs + 1), accuracies, marker="." if epochs < 100 else None)
    right.set(xlabel="epoch", ylabel="held-out accuracy", ylim=(0, 1), title=f"Accuracy: {accuracies[-1]:.1%}")
    for axes in (left, right):
        axes.grid(alpha=0.25)
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "digits.png", dpi=150)
    print(f"wrote {options.out / 'digits.png'}")


if __name__ == "__main__":
    main()
