"""Layer-wise training against a barren plateau.

    python examples/layerwise.py             # about 15 s on two cores; writes layerwise.png
    python examples/layerwise.py --quick

A. Skolik et al., Quantum Machine Intelligence 3, 5 (2021): layers are added one at a time, starting at zero, and only
the newest are trained, before all are. The task is the ground state of an Ising chain of 10 spins, read through a
deep circuit. Beside it: all layers from random angles, which start on a plateau, and all from zero.
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


def ising(n: int) -> SparsePauliOp:
    bonds = [("ZZ", [q, q + 1], -1.0) for q in range(n - 1)]
    return SparsePauliOp.from_sparse_list([*bonds, *(("X", [q], -1.0) for q in range(n))], n)


def module(qubits: int, layers: int, start) -> qtm.QuantumModule:
    """Each layer is a parameter set of its own: variational_0, variational_1, ..."""
    parts = [hardware_efficient_ansatz(qubits, 1, "xy", "linear", "cz")] * layers
    names = ["variational"] if layers == 1 else [f"variational_{k}" for k in range(layers)]
    initial = dict(zip(names, start, strict=True))
    return qtm.QuantumModule.from_parts(parts, observables=[ising(qubits)], variational_params_initial=initial)


def train(model: qtm.QuantumModule, trained: list[torch.nn.Parameter], steps: int) -> tuple[list[float], list[float]]:
    """Energies and squared norms of the gradient by the parameters in ``trained``."""
    optimizer = torch.optim.Adam(trained, lr=0.05)
    for parameter in model.variational_:
        parameter.requires_grad_(any(parameter is t for t in trained))
    energies, norms = [], []
    for _ in range(steps):
        energy = model().sum()
        optimizer.zero_grad()
        energy.backward()
        optimizer.step()
        energies.append(energy.item())
        norms.append(float(sum(t.grad.square().sum() for t in trained)))
    return energies, norms


def layerwise(qubits: int, layers: int, steps: int, at_once: int = 2) -> tuple[list[float], list[float]]:
    """Half of the steps on the growing circuit, the ``at_once`` newest layers at a time; the rest on all layers."""
    rng, angles, energies, norms = np.random.default_rng(0), [], [], []
    growth = steps // (2 * (layers // at_once))
    for total in range(at_once, layers + 1, at_once):
        angles += [rng.normal(0, 0.1, 2 * qubits) for _ in range(at_once)]
        model = module(qubits, total, angles)
        for found, new in zip((energies, norms), train(model, model.variational_[-at_once:], growth), strict=True):
            found += new
        angles = [parameter.detach().numpy() for parameter in model.variational_]
    rest = train(model, model.variational_, steps - len(energies))
    return energies + rest[0], norms + rest[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer qubits, layers and steps")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the plot")
    options = parser.parse_args()
    qubits, layers, steps = (4, 4, 8) if options.quick else (10, 16, 320)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    exact = float(np.linalg.eigvalsh(ising(qubits).to_matrix())[0])

    def all_at_once(start) -> tuple[list[float], list[float]]:
        model = module(qubits, layers, [start] * layers)
        return train(model, model.variational_, steps)

    ways = {
        "layer by layer": lambda: layerwise(qubits, layers, steps),
        "all layers, random angles": lambda: all_at_once("uniform"),
        "all layers, angles near 0": lambda: all_at_once(("normal", {"std": 0.1})),
    }
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for name, run in ways.items():
        energies, norms = run()
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
