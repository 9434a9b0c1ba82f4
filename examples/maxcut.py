"""QAOA for MaxCut: how the cut grows with the number of layers.

    python examples/maxcut.py                # about 8 s on two cores; writes maxcut.png
    python examples/maxcut.py --quick

E. Farhi et al., arXiv:1411.4028, on a random 3-regular graph of 10 nodes; each depth starts from the angles of the
one before, interpolated (L. Zhou et al., Physical Review X 10, 021067 (2020)). At this size all cuts can be searched in
no time: the example shows how QAOA works, not an advantage.
Needs: pip install -e ".[demo]"
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import torch
from qiskit.quantum_info import SparsePauliOp

import qtm
from qtm.circuits import alternating_operator_ansatz


def cut_operator(graph: nx.Graph) -> SparsePauliOp:
    """The number of cut edges: sum of (1 - Z_i Z_j) / 2."""
    n = graph.number_of_nodes()
    edges = [("ZZ", list(edge), -0.5) for edge in graph.edges]
    return SparsePauliOp.from_sparse_list([*edges, ("", [], 0.5 * graph.number_of_edges())], n)


def deeper(angles: np.ndarray, layers: int) -> np.ndarray:
    """Angles (layers - 1, 2) interpolated to (layers, 2)."""
    old, new = np.linspace(0, 1, len(angles)), np.linspace(0, 1, layers)
    return np.column_stack([np.interp(new, old, column) for column in angles.T])


def optimise(cost: SparsePauliOp, start: np.ndarray, steps: int) -> tuple[float, np.ndarray, qtm.QuantumModule]:
    model = alternating_operator_ansatz(cost, len(start))
    module = qtm.QuantumModule(
        model.circuit, None, model.trainable_params, observables=[cost], variational_params_initial=start.ravel()
    ).double()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.03)
    for _ in range(steps):
        loss = -module().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module().item(), module.variational.detach().numpy().reshape(-1, 2), module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smaller graph, few layers")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the plot")
    options = parser.parse_args()
    nodes, depths, steps = (6, 2, 10) if options.quick else (10, 6, 150)
    torch.set_num_threads(1)
    graph = nx.random_regular_graph(3, nodes, seed=1)
    cost = cut_operator(graph)
    cuts = cost.to_matrix(sparse=True).diagonal().real  # of all 2**nodes partitions
    best = cuts.max()
    expected, angles = [], np.array([[-0.5, 0.4]])
    for layers in range(1, depths + 1):
        angles = deeper(angles, layers) if layers > 1 else angles
        value, angles, module = optimise(cost, angles, steps)
        expected.append(value / best)
        print(f"{layers} layers: expected cut {value:.3f} of {best:.0f}")
    values = dict(zip(module.variational_parameters[0], module.variational.tolist(), strict=True))
    circuit = module.circuit.assign_parameters(values)
    circuit.measure_all()
    counts = qtm.FastSampler(seed=0).run([circuit], shots=500).result()[0].data.meas.get_counts()
    found = max(counts, key=lambda bits: cuts[int(bits, 2)])
    shot_cuts = np.repeat([cuts[int(bits, 2)] for bits in counts], list(counts.values()))
    print(f"best of 500 shots {shot_cuts.max():.0f}, mean {shot_cuts.mean():.2f}, random {cuts.mean():.2f}")

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    left.plot(range(1, depths + 1), expected, marker="o", label="QAOA, expectation value")
    left.axhline(0.878, color="grey", ls=":", label="Goemans-Williamson's guarantee")
    left.axhline(cuts.mean() / best, color="grey", ls="--", label="random")
    left.set(xlabel="layers", ylabel="share of the largest cut", ylim=(0.4, 1.02), title="Approximation ratio")
    left.legend()
    middle.hist(shot_cuts, bins=np.arange(-0.5, best + 1.5), density=True, alpha=0.7, label="500 shots of QAOA")
    middle.hist(cuts, bins=np.arange(-0.5, best + 1.5), density=True, alpha=0.5, label="all cuts")
    middle.set(xlabel="edges cut", ylabel="share", title=f"{depths} layers")
    middle.legend()
    colours = ["tab:blue" if found[::-1][node] == "1" else "tab:orange" for node in graph.nodes]
    nx.draw(graph, nx.spring_layout(graph, seed=2), right, node_color=colours, with_labels=True)
    right.set_title(f"Best cut found: {cuts[int(found, 2)]:.0f} of {graph.number_of_edges()} edges")
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "maxcut.png", dpi=110)
    print(f"wrote {options.out / 'maxcut.png'}")


if __name__ == "__main__":
    main()
