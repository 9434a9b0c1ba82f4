"""Quantum Boltzmann machine: a Hamiltonian whose Gibbs state has the correlations of the data.

    python examples/boltzmann.py             # about 4 s on two cores; writes boltzmann.png
    python examples/boltzmann.py --quick

H. J. Kappen, Journal of Physics A 53, 214001 (2020): the derivative of the likelihood with respect to a coefficient is
the difference of two expectation values, in the data's state and in the Gibbs state. The Gibbs state is exact (4
qubits): its purification is encoded in the amplitudes of 8 qubits, and all correlations are read from it at once. The
data's state is the superposition of the patterns, which only a machine with X terms can reach.
Needs: pip install -e ".[demo]"
"""

import argparse
from itertools import combinations
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from qiskit.quantum_info import SparsePauliOp
from scipy.linalg import eigh

import qtm
from qtm.circuits import amplitude_encoding

QUBITS = 4


def operators(quantum: bool) -> list[SparsePauliOp]:
    """Z, ZZ and, for a quantum machine, X and XX."""
    terms = []
    for letter in "ZX" if quantum else "Z":
        terms += [(letter, [q]) for q in range(QUBITS)]
        terms += [(2 * letter, list(pair)) for pair in combinations(range(QUBITS), 2)]
    return [SparsePauliOp.from_sparse_list([(*term, 1.0)], QUBITS) for term in terms]


def pattern_amplitudes(rng: np.random.Generator) -> np.ndarray:
    """Square roots of the frequencies (16,) of noisy patterns: all alike, or one of two stripes."""
    patterns = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1]])
    seen = patterns[rng.choice(3, 2000, p=[0.4, 0.4, 0.2])] ^ (rng.random((2000, QUBITS)) < 0.05)
    return np.sqrt(np.bincount(seen @ (1 << np.arange(QUBITS)), minlength=2**QUBITS) / 2000)


def train(terms: list[SparsePauliOp], data: np.ndarray, steps: int) -> tuple[list[float], np.ndarray]:
    """Differences of the correlations by step, and the Gibbs state (16, 16) of the trained machine."""
    matrices = np.array([term.to_matrix().real for term in terms])
    gibbs_circuit, data_circuit = amplitude_encoding(4**QUBITS), amplitude_encoding(2**QUBITS)
    on_system = [SparsePauliOp("I" * QUBITS).tensor(term) for term in terms]  # the system is the lower qubits
    gibbs = qtm.QuantumModule(gibbs_circuit.circuit, gibbs_circuit.encoding_params, [], observables=on_system).double()
    pure = qtm.QuantumModule(data_circuit.circuit, data_circuit.encoding_params, [], observables=terms).double()
    target = pure(torch.tensor(data)).detach().numpy()
    weights, errors = np.zeros(len(terms)), []
    for _ in range(steps):
        energies, states = eigh(np.tensordot(weights, matrices, 1))
        boltzmann = np.exp(-(energies - energies.min()))
        probabilities = boltzmann / boltzmann.sum()
        root = (states * np.sqrt(probabilities)) @ states.T  # the square root of the Gibbs state, a purification
        difference = gibbs(torch.tensor(root.ravel())).detach().numpy() - target
        weights += 0.3 * difference  # H grows where the Gibbs state has more of a term than the data
        errors.append(float(np.abs(difference).max()))
    return errors, root @ root


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few steps")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the plot")
    options = parser.parse_args()
    steps = 5 if options.quick else 400
    torch.set_num_threads(1)
    data = pattern_amplitudes(np.random.default_rng(0))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    right.bar(np.arange(16) - 0.3, data**2, 0.3, label="data")
    for place, (name, quantum) in enumerate({"classical: Z, ZZ": False, "quantum: X, XX too": True}.items()):
        errors, state = train(operators(quantum), data, steps)
        probabilities, fidelity = np.diag(state), data @ state @ data
        p, q = data**2, np.maximum(probabilities, 1e-12)
        divergence = np.sum(p[p > 0] * np.log(p[p > 0] / q[p > 0]))
        print(
            f"{name}: largest difference of a correlation {errors[-1]:.1e}, relative entropy {divergence:.4f}, "
            f"fidelity with the superposition {fidelity:.3f}"
        )
        left.semilogy(errors, label=name)
        right.bar(np.arange(16) + 0.3 * place, probabilities, 0.3, label=f"{name}; fidelity {fidelity:.2f}")
    left.set(xlabel="step", ylabel="largest difference of a correlation", title="Training")
    right.set(xlabel="pattern", ylabel="probability", title="What the machines learned")
    for axes in (left, right):
        axes.legend()
    left.grid(alpha=0.25)
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "boltzmann.png", dpi=110)
    print(f"wrote {options.out / 'boltzmann.png'}")


if __name__ == "__main__":
    main()
