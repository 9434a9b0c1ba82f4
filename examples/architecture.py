"""Search for a circuit by evolution: gates are added, removed and moved; the fittest classifiers survive.

    python examples/architecture.py          # about 30 s on two cores; writes architecture.png
    python examples/architecture.py --quick

As in evolutionary circuit design (L. Franken et al., arXiv:2012.13453); a hardware-efficient circuit is the comparison.
The task is a spiral, three classes of points in a plane, on 3 qubits; fitness is the accuracy on points held out, after
a short training, less a price per gate. The winner is judged on points that neither training nor selection saw.
Needs: pip install -e ".[demo]"
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from torch import nn

import qtm
from qtm.circuits import Part, angle_encoding, hardware_efficient_ansatz

QUBITS = 3
GATES = ("rx", "ry", "rz", "cx", "cz", "upload")
Gate = tuple[str, int, int]


def spiral(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points (count, 2) on three arms, and their arms (count,)."""
    rng = np.random.default_rng(seed)
    arms, radius = rng.integers(0, 3, count), np.sqrt(rng.uniform(0.02, 1, count))
    angle = 3 * radius + 2 * np.pi / 3 * arms + rng.normal(0, 0.15, count)
    points = 2 * radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    return torch.tensor(points, dtype=torch.float32), torch.tensor(arms)


def parts_of(gates: list[Gate]) -> list[Part]:
    """Runs of gates between uploads; each upload reads x on one qubit and y on the next."""
    parts, run = [Part(angle_encoding(2, "xy", scaling=True), qubits=[0, 1])], []
    for gate in [*gates, ("upload", 0, 1)]:
        if gate[0] != "upload":
            run.append(gate)
            continue
        angles = iter(ParameterVector("w", len(run)))
        circuit = QuantumCircuit(QUBITS)
        for name, first, second in run:
            getattr(circuit, name)(*((first, second) if name.startswith("c") else (next(angles), first)))
        parts += [Part(circuit), Part(angle_encoding(2, "xy", scaling=True), qubits=[gate[1], gate[2]])]
        run = []
    return parts[:-1]


def random_gate(rng: np.random.Generator) -> Gate:
    first, second = rng.choice(QUBITS, 2, replace=False)
    return str(rng.choice(GATES, p=[0.15, 0.2, 0.15, 0.2, 0.1, 0.2])), int(first), int(second)


def mutated(gates: list[Gate], rng: np.random.Generator) -> list[Gate]:
    gates = list(gates)
    for _ in range(rng.integers(1, 4)):
        place, kind = int(rng.integers(0, len(gates) + 1)), rng.choice(["add", "add", "replace", "remove"])
        if kind == "add" or not gates:
            gates.insert(place, random_gate(rng))
        elif kind == "replace":
            gates[place % len(gates)] = random_gate(rng)
        else:
            gates.pop(place % len(gates))
    return gates


def trained(parts: list, data: tuple, steps: int) -> nn.Module:
    torch.manual_seed(0)
    circuit = qtm.QuantumModule.from_parts(parts, seed_init=0)
    model = nn.Sequential(circuit, nn.Linear(QUBITS, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(data[0]), data[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@torch.no_grad()
def accuracy(model: nn.Module, data: tuple) -> float:
    return (model(data[0]).argmax(1) == data[1]).double().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two generations of four")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the plot")
    options = parser.parse_args()
    generations, size, steps = (2, 4, 5) if options.quick else (15, 10, 50)
    torch.set_num_threads(1)
    rng, data, selection, unseen = np.random.default_rng(0), spiral(150, 0), spiral(300, 1), spiral(1000, 2)
    population = [(-1.0, [random_gate(rng) for _ in range(8)]) for _ in range(size // 2)]
    best = []
    for generation in range(generations):
        children = [mutated(population[rng.integers(len(population))][1], rng) for _ in range(size)]
        scored = [(accuracy(trained(parts_of(g), data, steps), selection) - 0.002 * len(g), g) for g in children]
        population = sorted(population + scored, key=lambda pair: -pair[0])[: size // 2]
        best.append(population[0][0])
        print(f"generation {generation + 1}: fitness {best[-1]:.3f} with {len(population[0][1])} gates")
    upload, layer = Part(angle_encoding(2, "xy", scaling=True)), Part(hardware_efficient_ansatz(QUBITS))
    ways = {"evolved": parts_of(population[0][1]), "hardware-efficient, 3 layers": [upload, layer] * 3}
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    axes[0].plot(range(1, generations + 1), best, marker="o")
    axes[0].set(xlabel="generation", ylabel="fitness of the best", title="Evolution")
    for place, (name, parts) in zip(axes[1:], ways.items(), strict=True):
        model = trained(parts, data, 4 * steps)
        score, gates = accuracy(model, unseen), model[0].circuit.size()
        print(f"{name}: {gates} gates, accuracy on unseen points {score:.3f}")
        grid = torch.cartesian_prod(torch.linspace(-2.2, 2.2, 60), torch.linspace(-2.2, 2.2, 60))
        with torch.no_grad():
            place.imshow(model(grid).argmax(1).reshape(60, 60).T, origin="lower", extent=(-2.2, 2.2) * 2, alpha=0.4)
        place.scatter(*data[0].T, c=data[1], s=8)
        place.set_title(f"{name}: {gates} gates, {score:.1%}")
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "architecture.png", dpi=110)
    print(f"wrote {options.out / 'architecture.png'}")


if __name__ == "__main__":
    main()
