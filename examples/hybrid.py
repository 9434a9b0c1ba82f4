"""A circuit between two linear layers: tell benign from malignant tumours (30 measurements, 569 patients).

    python examples/hybrid.py                # about 6 s on two cores; writes hybrid.png
    python examples/hybrid.py --quick

The linear layer in front turns 30 features into the angles of 4 qubits, the one behind turns their 4 expectation
values into 2 logits; all three parts are trained together, the circuit with its own learning rate.
Needs: pip install -e ".[demo]"
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch.nn import functional
from tqdm import tqdm

import qtm
from qtm.circuits import reuploading_circuit


def read_patients() -> list[torch.Tensor]:
    """Training features, held-out features, training labels, held-out labels, each feature standardised."""
    features, labels = load_breast_cancer(return_X_y=True)
    train, held_out, *targets = train_test_split(features, labels, stratify=labels, random_state=0)
    scaler = StandardScaler().fit(train)
    scaled = [torch.tensor(scaler.transform(part), dtype=torch.float32) for part in (train, held_out)]
    return scaled + [torch.tensor(part) for part in targets]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--quick", action="store_true", help="three epochs")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the plot")
    options = parser.parse_args()
    epochs = 3 if options.quick else options.epochs

    torch.manual_seed(0)
    torch.set_num_threads(1)  # torch's share is small; the cores belong to the circuit
    features, held_out_features, labels, held_out_labels = read_patients()

    design = reuploading_circuit(num_qubits=4, depth=2)
    model = qtm.HybridModule(
        design.circuit,
        design.encoding_params,
        design.trainable_params,
        input_size=features.shape[1],
        output_size=2,
        seed_init=0,
    )
    print(
        f"{model.num_trainable_parameters_classical} classical weights, "
        f"{model.num_trainable_parameters_quantum} quantum weights"
    )
    optimizer = torch.optim.Adam(
        [
            {"params": model.pre_parameters_ + model.post_parameters_, "lr": 0.005},
            {"params": model.quantum_parameters_, "lr": 0.02},
        ]
    )
    losses, accuracies = [], []
    for _ in (bar := tqdm(range(epochs), unit="epoch")):
        for batch in torch.randperm(len(features)).split(32):
            loss = functional.cross_entropy(model(features[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        with torch.no_grad():
            correct = model(held_out_features).argmax(1) == held_out_labels
        accuracies.append(correct.double().mean().item())
        bar.set_postfix(loss=f"{losses[-1]:.3f}", held_out=f"{accuracies[-1]:.1%}")
    print(f"held-out accuracy {accuracies[-1]:.1%} ({int(correct.sum())} of {len(correct)} patients)")

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.plot(losses, lw=0.8)
    left.set(xlabel="step", ylabel="cross entropy", title="Loss")
    right.plot(range(1, epochs + 1), accuracies, marker=".")
    right.axhline(held_out_labels.double().mean(), color="grey", ls=":", label="always benign")
    right.set(xlabel="epoch", ylabel="held-out accuracy", ylim=(0.5, 1), title=f"Accuracy: {accuracies[-1]:.1%}")
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.25)
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "hybrid.png", dpi=150)
    print(f"wrote {options.out / 'hybrid.png'}")


if __name__ == "__main__":
    main()
