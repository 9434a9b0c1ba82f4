"""Pretraining as a matrix product state: a ground state of 20 qubits, found cheaply, then refined as a state vector.

    python examples/mps_pretraining.py       # about 35 s on two cores; writes mps_pretraining.png
    python examples/mps_pretraining.py --quick

The same module is trained twice: first with `method="matrix_product_state"` and small bonds, then with the same
weights and `method="statevector"`. Beside it, the state vector alone, from random angles.
Needs: pip install -e ".[demo]"
"""

import argparse
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from qiskit.circuit.library import efficient_su2
from qiskit.quantum_info import SparsePauliOp
from tqdm import tqdm

import qtm
from qtm.mps import TruncationWarning


def heisenberg_chain(qubits: int, anisotropy: float = 0.5) -> SparsePauliOp:
    """H = sum X X + Y Y + anisotropy * Z Z over neighbours of an open chain."""
    weights = (("XX", 1.0), ("YY", 1.0), ("ZZ", anisotropy))
    terms = [(pauli, [q, q + 1], weight) for q in range(qubits - 1) for pauli, weight in weights]
    return SparsePauliOp.from_sparse_list(terms, num_qubits=qubits)


def module(ansatz, energy: SparsePauliOp, method) -> qtm.QuantumModule:
    """The energy of the ansatz as a module without input, in double precision."""
    return qtm.QuantumModule(ansatz, None, ansatz.parameters, observables=[energy], seed_init=1, method=method).double()


def train(model: qtm.QuantumModule, steps: int, bar: tqdm) -> list[float]:
    """Energies over the steps of Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    energies = []
    for _ in range(steps):
        energy = model()[0]
        optimizer.zero_grad()
        energy.backward()
        optimizer.step()
        energies.append(energy.item())
        bar.set_postfix_str(f"energy {energies[-1]:.4f}", refresh=False)
        bar.update()
    return energies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few steps on 8 qubits")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of the plot")
    options = parser.parse_args()
    qubits, before, after, bond = (8, 10, 6, 4) if options.quick else (20, 100, 30, 8)
    warnings.simplefilter("ignore", TruncationWarning)  # the small bonds are meant

    ansatz = efficient_su2(qubits, reps=3, entanglement="linear")
    energy = heisenberg_chain(qubits)
    with tqdm(total=before + 2 * after, desc="pretraining") as bar:
        cheap = module(ansatz, energy, ("matrix_product_state", {"max_bond": bond}))
        pretraining = train(cheap, before, bar)
        exact = module(ansatz, energy, "statevector")
        exact.load_state_dict(cheap.state_dict())
        refined = train(exact, after, bar)
        alone = train(module(ansatz, energy, "statevector"), after, bar)

    print(f"after {after} steps of the state vector: {refined[-1]:.4f} pretrained, {alone[-1]:.4f} from random angles")
    figure, axes = plt.subplots(figsize=(7, 4))
    axes.plot(range(-before, 0), pretraining, label=f"matrix product state, bonds of {bond}")
    axes.plot(range(after), refined, label="state vector, pretrained")
    axes.plot(range(after), alone, label="state vector, random angles")
    axes.set(xlabel="steps", ylabel="energy", title=f"Anisotropic Heisenberg chain of {qubits} qubits")
    axes.legend()
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "mps_pretraining.png", dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    main()
