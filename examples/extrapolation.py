"""Zero-noise extrapolation learned by a network, beside Richardson's and a linear fit.

    python examples/extrapolation.py         # about 15 s on two cores; writes extrapolation.png
    python examples/extrapolation.py --quick

Expectation values at noise factors 1, 3, 5 (folded circuits, sampled) are extrapolated to 0. A small network learns
the map from circuits whose exact values are known from simulation (H. Liao et al., Machine learning for practical
quantum error mitigation, Nature Machine Intelligence 6, 1478 (2024)); Richardson extrapolation: K. Temme et al., PRL
119, 180509 (2017). Circuits of the test are of the same family but have other angles, and one series is deeper than
any seen.
Needs: pip install -e ".[demo,aer]"
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp
from torch import nn

import qtm
from qtm.circuits import hardware_efficient_ansatz

QUBITS, FACTORS, SHOTS = 4, (1, 3, 5), 4000
OBSERVABLES = [SparsePauliOp.from_sparse_list([("Z", [q], 1.0)], QUBITS) for q in range(QUBITS)]
OBSERVABLES += [SparsePauliOp.from_sparse_list([("ZZ", [q, q + 1], 1.0)], QUBITS) for q in range(QUBITS - 1)]
NOISE = qtm.depolarizing_noise(0.002, 0.02)


def folded(circuit: QuantumCircuit, factor: int) -> QuantumCircuit:
    """The circuit, then its inverse and itself again, until it is ``factor`` times as long."""
    long = circuit.copy()
    for _ in range((factor - 1) // 2):
        long.barrier()
        long.compose(circuit.inverse(), inplace=True)
        long.barrier()
        long.compose(circuit, inplace=True)
    return long


def values(depths: list[int], count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy values (samples, 3) at the factors, and exact values (samples,), of all observables of random circuits."""
    rng = np.random.default_rng(seed)
    device, exact = qtm.noisy_estimator(NOISE, SHOTS, seed=seed), qtm.FastEstimator()
    noisy, ideal = [], []
    for depth in depths:
        model = hardware_efficient_ansatz(QUBITS, depth, "yz", "linear")
        angles = rng.normal(0, 0.5, (count, len(model.variational_params)))
        pubs = [(folded(model.circuit, factor), [[o] for o in OBSERVABLES], angles) for factor in FACTORS]
        noisy.append(np.stack([result.data.evs.ravel() for result in device.run(pubs).result()], -1))
        ideal.append(exact.run([pubs[0]]).result()[0].data.evs.ravel())
    return np.concatenate(noisy), np.concatenate(ideal)


def learned(noisy: np.ndarray, ideal: np.ndarray, steps: int) -> nn.Module:
    """A network that corrects the value at factor 1 by what it sees at all factors."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)).double()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.003, weight_decay=1e-5)
    inputs, targets = torch.tensor(noisy), torch.tensor(ideal)
    for _ in range(steps):
        loss = nn.functional.mse_loss(inputs[:, 0] + network(inputs).squeeze(1), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few circuits and steps")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the plot")
    options = parser.parse_args()
    count, steps = (4, 50) if options.quick else (60, 3000)
    torch.set_num_threads(1)
    network = learned(*values([1, 2, 3, 4], count, 0), steps)

    @torch.no_grad()
    def by_network(noisy: np.ndarray) -> np.ndarray:
        return noisy[:, 0] + network(torch.tensor(noisy)).squeeze(1).numpy()

    ways = {
        "no mitigation": lambda noisy: noisy[:, 0],
        "linear fit": lambda noisy: np.polyfit(FACTORS, noisy.T, 1)[-1],
        "Richardson": lambda noisy: noisy @ np.array([15, -10, 3]) / 8,
        "network": by_network,
    }
    depths = [1, 2, 3, 4, 6]
    errors = {name: [] for name in ways}
    for depth in depths:
        noisy, ideal = values([depth], max(count // 3, 2), 100 + depth)
        for name, way in ways.items():
            errors[name].append(float(np.sqrt(np.mean((way(noisy) - ideal) ** 2))))
        if depth == 4:
            shown = {name: (ideal, way(noisy)) for name, way in ways.items()}
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for name in ways:
        print(f"{name}: root mean square error {np.round(errors[name], 4)} at depths {depths}")
        left.plot(depths, errors[name], marker="o", label=name)
        right.plot(*shown[name], ".", ms=3, label=name)
    left.axvspan(4.5, 6.3, color="grey", alpha=0.15, label="deeper than trained on")
    left.set(xlabel="layers", ylabel="root mean square error", title=f"{SHOTS} shots per value")
    right.plot([-1, 1], [-1, 1], color="grey", lw=0.8)
    right.set(xlabel="exact value", ylabel="mitigated value", title="4 layers")
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.legend()
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "extrapolation.png", dpi=110)
    print(f"wrote {options.out / 'extrapolation.png'}")


if __name__ == "__main__":
    main()
