"""The encodings and ansaetze of `qtm.circuits`, drawn, and how fast their gradients vanish.

    python examples/circuit_parts.py         # about 6 s on two cores; writes circuit_parts.png
    python examples/circuit_parts.py --quick

The last picture is the largest variance of the derivative of <Z> with respect to an angle, over random angles: it falls
exponentially with the qubits in deep hardware-efficient circuits (J. McClean et al., Nature Communications 9, 4812
(2018)), but not in shallow ones, and only polynomially where Givens rotations keep one excitation (L. Monbroussou et
al., arXiv:2309.15547).
Needs: pip install -e ".[demo]"
"""

import argparse
import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from qiskit.quantum_info import SparsePauliOp

from qtm import circuits
from qtm.diagnostics import gradient_variances

RING = SparsePauliOp(["IZZ", "ZZI", "ZIZ"])
PARTS = {
    "angle_encoding(3, 'yz', scaling=True)": circuits.angle_encoding(3, "yz", scaling=True),
    "iqp_encoding(3)": circuits.iqp_encoding(3),
    "pauli_encoding(3, repetitions=1)": circuits.pauli_encoding(3, repetitions=1),
    "hardware_efficient_ansatz(3)": circuits.hardware_efficient_ansatz(3),
    "brick_ansatz(4, 2, 'y')": circuits.brick_ansatz(4, 2, "y"),
    "strongly_entangling_ansatz(3)": circuits.strongly_entangling_ansatz(3),
    "hamming_weight_ansatz(4, weight=1)": circuits.hamming_weight_ansatz(4, weight=1),
    "alternating_operator_ansatz(ring)": circuits.alternating_operator_ansatz(RING),
}


def picture(circuit) -> np.ndarray:
    """Qiskit's drawing as an image."""
    file = io.BytesIO()
    drawing = circuit.draw("mpl", fold=-1, scale=0.7)
    drawing.savefig(file, format="png", dpi=90, bbox_inches="tight")
    plt.close(drawing)
    file.seek(0)
    return plt.imread(file)


def variance(model: circuits.ModelCircuit, samples: int) -> float:
    """The largest variance, over angles, of the derivative of Z on an even qubit in the middle by one angle."""
    n = model.circuit.num_qubits
    z = SparsePauliOp.from_sparse_list([("Z", [n // 4 * 2], 1.0)], n)
    return float(gradient_variances(model, z, samples=samples, seed=0).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer qubits and samples")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the plot")
    options = parser.parse_args()
    sizes, samples = ((2, 4), 20) if options.quick else ((2, 4, 6, 8, 10), 200)
    torch.set_num_threads(1)
    figure, axes = plt.subplots(3, 3, figsize=(15, 9), layout="constrained")
    for place, (name, model) in zip(axes.flat, PARTS.items(), strict=False):
        place.imshow(picture(model.circuit))
        place.set_title(name, fontsize=10)
        place.axis("off")
    build = {
        "hardware-efficient, 6n layers": lambda n: circuits.hardware_efficient_ansatz(n, 6 * n),
        "brick, 2 layers": lambda n: circuits.brick_ansatz(n, 2),
        "Hamming weight 1, 2n layers": lambda n: circuits.hamming_weight_ansatz(n, 2 * n, weight=1),
    }
    for name, make in build.items():
        values = [variance(make(n), samples) for n in sizes]
        print(name, [f"{v:.2g}" for v in values])
        axes[2, 2].semilogy(sizes, values, marker="o", label=name)
    axes[2, 2].set(xlabel="qubits", ylabel="largest variance of a derivative", title="Do gradients vanish?")
    axes[2, 2].legend()
    axes[2, 2].grid(alpha=0.25)
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "circuit_parts.png", dpi=110)
    print(f"wrote {options.out / 'circuit_parts.png'}")


if __name__ == "__main__":
    main()
