"""A script of qiskit-machine-learning, run twice: as it is, and with the one import changed.

    python examples/migrate.py               # about 20 s on two cores; writes migrate.png
    python examples/migrate.py --quick

A hybrid network tells two handwritten digits of scikit-learn apart: linear layers around an EstimatorQNN. Both runs
have the same seed, and so the same losses; what differs is the time of a step.
Needs: pip install -e ".[bench]"
"""

import argparse
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from qiskit import QuantumCircuit
from qiskit.circuit.library import real_amplitudes, z_feature_map
from qiskit_machine_learning.connectors import TorchConnector as TheirConnector
from qiskit_machine_learning.neural_networks import EstimatorQNN
from sklearn.datasets import load_digits
from torch import nn
from tqdm import tqdm

import qtm


def network(qubits: int) -> EstimatorQNN:
    """Features by Z rotations, then RY rotations that are trained: the parity of all qubits is the output."""
    features, ansatz = z_feature_map(qubits, reps=1), real_amplitudes(qubits, reps=1)
    circuit = QuantumCircuit(qubits)
    circuit.compose(features, inplace=True)
    circuit.compose(ansatz, inplace=True)
    return EstimatorQNN(
        circuit=circuit, input_params=features.parameters, weight_params=ansatz.parameters, input_gradients=True
    )


def train(connector: type, qubits: int, steps: int, bar: tqdm) -> tuple[list[float], float]:
    """Losses, and seconds of a step."""
    digits = load_digits(n_class=2)
    pixels, labels = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    torch.manual_seed(0)
    layers = [nn.Linear(64, qubits), connector(network(qubits)), nn.Linear(1, 2)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses: list[float] = []
    began = time.perf_counter()
    for step in range(steps):
        rows = torch.arange(step * 8, step * 8 + 8) % len(pixels)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(pixels[rows]), labels[rows])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        bar.update()
        bar.set_postfix(loss=f"{losses[-1]:.3f}")
    return losses, (time.perf_counter() - began) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two qubits and few steps")
    parser.add_argument("--out", type=Path, default=Path("."), help="where the plot goes")
    chosen = parser.parse_args()
    qubits, steps = (2, 6) if chosen.quick else (4, 60)
    with tqdm(total=2 * steps, desc="training twice") as bar:
        train(qtm.TorchConnector, qubits, 1, bar)  # compiles the kernels, where that was never done
        bar.reset()
        after, fast = train(qtm.TorchConnector, qubits, steps, bar)
        before, slow = train(TheirConnector, qubits, steps, bar)
    difference = max(abs(a - b) for a, b in zip(after, before, strict=True))
    print(f"losses differ by {difference:.1e} at most; a step took {slow * 1e3:.0f} ms, and now {fast * 1e3:.1f} ms")
    plt.figure(figsize=(6, 4), layout="constrained")
    plt.plot(before, lw=5, alpha=0.3, label=f"qiskit-machine-learning, {slow * 1e3:.0f} ms a step")
    plt.plot(after, "k", lw=1, label=f"qtm, {fast * 1e3:.1f} ms a step")
    plt.xlabel("step")
    plt.ylabel("loss")
    plt.legend()
    chosen.out.mkdir(parents=True, exist_ok=True)
    plt.savefig(chosen.out / "migrate.png", dpi=120)


if __name__ == "__main__":
    main()
