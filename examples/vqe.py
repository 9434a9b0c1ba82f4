"""Ground state of the transverse-field Ising chain, three ways; no data, one state.

    python examples/vqe.py                   # about 30 s on two cores; writes vqe.png
    python examples/vqe.py --quick

`FastEstimator` in the VQE of qiskit-algorithms with differences of energies, the same with exact gradients from
`FastReverseEstimatorGradient`, and a plain torch loop over a `QuantumModule` without input.
Needs: pip install -e ".[demo]"
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from qiskit.circuit.library import real_amplitudes
from qiskit.quantum_info import SparsePauliOp
from qiskit_algorithms import VQE
from qiskit_algorithms.optimizers import L_BFGS_B
from tqdm import tqdm

import qtm


def ising_chain(qubits: int, field: float = 1.0) -> SparsePauliOp:
    """H = - sum Z_i Z_(i+1) - field * sum X_i on an open chain."""
    bonds = [("ZZ", [site, site + 1], -1.0) for site in range(qubits - 1)]
    return SparsePauliOp.from_sparse_list(bonds + [("X", [site], -field) for site in range(qubits)], num_qubits=qubits)


def run_vqe(ansatz, energy: SparsePauliOp, start: np.ndarray, steps: int, gradient, bar: tqdm) -> list[float]:
    """Energies that qiskit-algorithms' VQE evaluated, with or without a gradient."""
    energies: list[float] = []

    def note(_count: int, _parameters: np.ndarray, value: float, _metadata: dict) -> None:
        energies.append(value)
        bar.set_postfix_str(f"energy {value:.5f}", refresh=False)
        bar.update()

    optimizer = L_BFGS_B(maxiter=steps, maxfun=10**6)
    solver = VQE(qtm.FastEstimator(), ansatz, optimizer, gradient=gradient, initial_point=start, callback=note)
    solver.compute_minimum_eigenvalue(energy)
    return energies


def run_torch(ansatz, energy: SparsePauliOp, start: np.ndarray, steps: int, bar: tqdm) -> list[float]:
    """Energies of a torch loop with Adam, in double precision."""
    model = qtm.QuantumModule(
        ansatz,
        None,
        ansatz.parameters,
        variational_params_initial=start,
        observables=[energy],
    ).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    energies = []
    for _ in range(steps):
        value = model().squeeze()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        energies.append(value.item())
        bar.set_postfix_str(f"energy {energies[-1]:.5f}", refresh=False)
        bar.update()
    return energies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--qubits", type=int, default=8)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--quick", action="store_true", help="4 qubits, a few steps")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the plot")
    options = parser.parse_args()
    qubits, layers, steps = (4, 2, 10) if options.quick else (options.qubits, options.layers, 200)

    torch.set_num_threads(1)  # torch's share is small; the cores belong to the circuit
    ansatz, energy = real_amplitudes(qubits, reps=layers, entanglement="linear"), ising_chain(qubits)
    exact = float(np.linalg.eigvalsh(energy.to_matrix())[0])
    start = np.random.default_rng(0).normal(0, 0.1, ansatz.num_parameters)
    print(f"{qubits} qubits, {len(start)} angles, exact energy {exact:.6f}")

    gradient = qtm.FastReverseEstimatorGradient()
    ways: dict[str, Callable[[tqdm], list[float]]] = {
        "VQE, differences of energies": lambda bar: run_vqe(ansatz, energy, start, steps, None, bar),
        "VQE, reverse gradient": lambda bar: run_vqe(ansatz, energy, start, steps, gradient, bar),
        "torch loop, Adam": lambda bar: run_torch(ansatz, energy, start, 2 * steps, bar),
    }
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, run in ways.items():
        began = time.perf_counter()
        with tqdm(desc=name, unit="energy") as bar:
            energies = run(bar)
        seconds = time.perf_counter() - began
        best = min(energies)
        print(f"{name}: {best:.6f}, {best - exact:.1e} above the ground state, {seconds:.1f} s")
        errors = np.minimum.accumulate(energies) - exact
        axes.plot(np.arange(1, len(errors) + 1), errors, label=f"{name} ({seconds:.1f} s)")
    axes.set(xscale="log", yscale="log", xlabel="energies evaluated", ylabel="energy above the ground state")
    axes.set_title(f"Transverse-field Ising chain of {qubits} spins")
    axes.legend()
    axes.grid(alpha=0.25)
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "vqe.png", dpi=150)
    print(f"wrote {options.out / 'vqe.png'}")


if __name__ == "__main__":
    main()
