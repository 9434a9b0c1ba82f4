"""Layer-wise training and small angles against a barren plateau.

    python examples/layerwise.py             # about 15 s on two cores; writes layerwise.png
    python examples/layerwise.py --quick

A. Skolik et al., Quantum Machine Intelligence 3, 5 (2021): layers are added one at a time, starting at zero, and only
the newest are trained, before all are. The task is the ground state of an Ising chain of 10 spins, read through a
deep circuit. Beside it: all layers from random angles, which start on a plateau, and all from the small angles of
K. Zhang et al., Adv. Neural Inf. Process. Syst. 35, 18612 (2022).
Needs: pip install -e ".[demo]"
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
from qtm.circuits import hardware_efficient_ansatz
from qtm.training import small_angles, train_layerwise


def ising(n: int) -> SparsePauliOp:
    bonds = [("ZZ", [q, q + 1], -1.0) for q in range(n - 1)]
    return SparsePauliOp.from_sparse_list([*bonds, *(("X", [q], -1.0) for q in range(n))], n)


def build(qubits: int, layers: int, start="uniform") -> qtm.QuantumModule:
    """Each layer is a parameter set of its own: variational_0, variational_1, ..."""
    parts = [hardware_efficient_ansatz(qubits, 1, "xy", "linear", "cz")] * layers
    names = ["variational"] if layers == 1 else [f"variational_{k}" for k in range(layers)]
    initial = dict.fromkeys(names, start)
    return qtm.QuantumModule.from_parts(parts, observables=[ising(qubits)], variational_params_initial=initial)


def train(model: qtm.QuantumModule, trained: list[torch.nn.Parameter], steps: int) -> list[tuple[float, float]]:
    """Energies, and squared norms of the gradient by the parameters in ``trained``."""
    optimizer = torch.optim.Adam(trained, lr=0.05)
    history = []
    for _ in range(steps):
        energy = model().sum()
        optimizer.zero_grad()
        energy.backward()
        optimizer.step()
        history.append((energy.item(), float(sum(t.grad.square().sum() for t in trained))))
    return history


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer qubits, layers and steps")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the plot")
    options = parser.parse_args()
    qubits, layers, steps = (4, 4, 8) if options.quick else (10, 40, 120)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    exact = float(np.linalg.eigvalsh(ising(qubits).to_matrix())[0])

    def all_at_once(start) -> list[tuple[float, float]]:
        model = build(qubits, layers, start)
        return train(model, model.variational_, steps)

    def layer_by_layer() -> list[tuple[float, float]]:
        """Half of the steps on the growing circuit, the two newest layers at a time; the rest on all layers."""
        growth = steps // layers  # for each of layers / 2 pairs

        def stage(model: qtm.QuantumModule, trained: list[torch.nn.Parameter]) -> list[tuple[float, float]]:
            return train(model, trained, steps // 2 if len(trained) == layers else growth)

        _, stages = train_layerwise(lambda count: build(qubits, count), layers, stage, at_once=2, seed=0)
        return [point for stage in stages for point in stage]

    ways = {
        "layer by layer": layer_by_layer,
        "all layers, random angles": lambda: all_at_once("uniform"),
        "all layers, small angles": lambda: all_at_once(small_angles(layers, locality=2)),
    }
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for name, run in ways.items():
        energies, norms = zip(*run(), strict=True)
        print(f"{name}: {energies[-1] - exact:.4f} above the ground state, first squared gradient {norms[0]:.2g}")
        left.semilogy(np.array(energies) - exact, label=name)
        right.semilogy(norms, lw=0.8, label=name)
    left.set(xlabel="step", ylabel="energy above the ground state", title=f"{qubits} qubits, {layers} layers")
    right.set(xlabel="step", ylabel="squared norm of the gradient", title="Gradients of the trained layers")
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.legend()
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "layerwise.png", dpi=110)
    print(f"wrote {options.out / 'layerwise.png'}")


if __name__ == "__main__":
    main()
