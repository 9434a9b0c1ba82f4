"""Natural gradient beside Adam: the ground state of an Ising ring, in steps and in seconds.

    python examples/natural_gradient.py             # a minute; writes natural_gradient.png
    python examples/natural_gradient.py --quick

A Hamiltonian variational circuit of n / 2 layers reaches the ground state of a ring of n spins exactly (Wierichs et
al., Phys. Rev. Research 2, 043246 (2020), whose task this is). Adam crosses a plateau first; the natural gradient
(Stokes et al., Quantum 4, 269 (2020)) follows the geometry of the states.
Needs: pip install -e ".[demo]"
"""

import argparse
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp

import qtm
from qtm.optim import NaturalGradient

GOAL = 1e-6  # relative error of the energy


def ising_ring(n: int) -> tuple[SparsePauliOp, float]:
    """The critical transverse-field Ising model, and its ground-state energy (free fermions)."""
    bonds = [("ZZ", [q, (q + 1) % n], -1.0) for q in range(n)]
    momenta = (np.arange(n) + 0.5) * 2 * np.pi / n
    energy = -np.sqrt(2 + 2 * np.cos(momenta)).sum()
    return SparsePauliOp.from_sparse_list([*bonds, *(("X", [q], -1.0) for q in range(n))], n), energy


def variational_circuit(n: int) -> QuantumCircuit:
    """From the state of all spins along x, n / 2 layers of both parts of the Hamiltonian."""
    angles = ParameterVector("a", n)
    circuit = QuantumCircuit(n)
    circuit.h(range(n))
    for layer in range(n // 2):
        for q in range(n):
            circuit.rzz(angles[2 * layer], q, (q + 1) % n)
        circuit.rx(angles[2 * layer + 1], range(n))
    return circuit


def train(n: int, make_optimizer, steps: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Relative errors of the energy, and the seconds of processor time, after every step."""
    observable, exact = ising_ring(n)
    circuit = variational_circuit(n)
    module = qtm.QuantumModule(
        circuit, None, circuit.parameters, observables=[observable],
        variational_params_initial=("normal", {"mean": 0.1, "std": 0.1}), seed_init=seed,
        num_threads_forward=1, num_threads_backward=1,
    ).double()  # fmt: skip
    optimizer, began, errors, seconds = make_optimizer(module), time.process_time(), [], []
    for _ in range(steps):
        energy = module().sum()
        optimizer.zero_grad()
        energy.backward()
        optimizer.step()
        errors.append((energy.item() - exact) / abs(exact))
        seconds.append(time.process_time() - began)
    return np.array(errors), np.array(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer qubits and steps")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the plot")
    options = parser.parse_args()
    qubits, starts, long, short = (4, 1, 40, 10) if options.quick else (10, 3, 600, 100)
    torch.set_num_threads(1)
    ways = {
        "Adam, rate 0.03": (lambda m: torch.optim.Adam(m.parameters(), lr=0.03), long),
        "Adam, rate 0.1": (lambda m: torch.optim.Adam(m.parameters(), lr=0.1), long),
        "natural gradient": (lambda m: NaturalGradient(m.parameters(), m, lr=0.05, damping=1e-3), short),
    }
    for make_optimizer, _ in ways.values():
        train(qubits, make_optimizer, 2, 0)  # compiles
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", sharey=True)
    for number, (name, (make_optimizer, steps)) in enumerate(ways.items()):
        for seed in range(starts):
            errors, seconds = train(qubits, make_optimizer, steps, seed)
            reached = np.flatnonzero(errors < GOAL)
            when = f"step {reached[0]}, {seconds[reached[0]]:.3f} s" if len(reached) else "not reached"
            print(f"{name}, start {seed}: {GOAL:.0e} at {when}; at the end {max(errors[-1], 0):.1e}")
            line = {"color": f"C{number}", "lw": 1, "label": name if seed == 0 else None}
            left.semilogy(errors.clip(1e-12), **line)
            right.semilogy(seconds, errors.clip(1e-12), **line)
    left.set(
        xlabel="step", ylabel="relative error of the energy", title=f"Ising ring of {qubits} spins, {starts} starts"
    )
    right.set(xlabel="seconds of one core", title="The same over time")
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.legend()
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "natural_gradient.png", dpi=110)
    print(f"wrote {options.out / 'natural_gradient.png'}")


if __name__ == "__main__":
    main()
