"""A noise model learned from calibration circuits: known strengths, recovered from counts.

    python examples/learned_noise.py             # seconds; writes learned_noise.png
    python examples/learned_noise.py --quick

A "device" of three qubits has noise of its own on every pair of qubits and on every readout. Twenty circuits are run on
it, and `qtm.noise.fit` finds the strengths from the counts. Then the learned model predicts circuits that it was not
fitted to, compared with a model of the average error alone.
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

import qtm

QUBITS = 3
PAIRS = [(0, 1), (1, 2)]


def unknown_noise() -> qtm.TrainableNoise:
    """What is known of the device: which errors it has, and not how strong they are."""
    relaxation = ("amplitude_damping", {"excited": 0.0})
    pairs = {("cx", pair): "two_qubit_depolarizing" for pair in PAIRS}
    qubits = {("ry", (q,)): relaxation for q in range(QUBITS)}
    return qtm.TrainableNoise({**pairs, **qubits}, readout=range(QUBITS))


def device(seed: int = 3) -> qtm.TrainableNoise:
    """The same noise with strengths of its own, up to three times stronger or weaker than where a fit starts."""
    noise = unknown_noise().double()
    with torch.no_grad():
        noise.raw += torch.tensor(np.random.default_rng(seed).uniform(-1, 1, len(noise.raw)))
    return noise


def random_circuit(depth: int, seed: int) -> QuantumCircuit:
    rng = np.random.default_rng(seed)
    circuit = QuantumCircuit(QUBITS)
    for _ in range(depth):
        for q in range(QUBITS):
            circuit.ry(rng.uniform(0, np.pi), q)
        for pair in PAIRS:
            circuit.cx(*pair)
    circuit.measure_all()
    return circuit


def calibration_circuits() -> list[QuantumCircuit]:
    """All states of the bits, for the readout, and random circuits of several depths, for the gates."""
    circuits = []
    for bits in range(2**QUBITS):
        circuit = QuantumCircuit(QUBITS)
        for q in range(QUBITS):
            if bits >> q & 1:
                circuit.x(q)
        circuit.measure_all()
        circuits.append(circuit)
    return circuits + [random_circuit(depth, 10 * depth + k) for depth in (1, 2, 4, 8) for k in range(3)]


def distance(model, truth, depth: int) -> float:
    """Mean total variation distance between the outcomes of two noises, on circuits that no fit has seen."""
    circuits = [random_circuit(depth, 1000 + k) for k in range(5)]
    both = [[qtm.FastSampler(noise=noise).probabilities(c) for c in circuits] for noise in (model, truth)]
    return float(np.abs(np.subtract(*both)).sum(-1).mean() / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer shots")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of the plot")
    options = parser.parse_args()
    shots = 20_000 if options.quick else 1_000_000

    truth, circuits = device(), calibration_circuits()
    measured = qtm.FastSampler(noise=truth, seed=0).run(circuits, shots=shots).result()
    data = [(circuit, part.data.meas) for circuit, part in zip(circuits, measured, strict=True)]
    start = unknown_noise()
    found = qtm.noise.fit(unknown_noise(), data)
    known = truth.strengths
    worst = max(abs(found.strengths[name] - known[name]) for name in known)
    print(f"{len(known)} strengths from {len(circuits)} circuits of {shots} shots in {len(found.losses)} evaluations")
    print(f"largest error of a strength: {worst:.1e}")

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    rows = np.arange(len(known))
    left.barh(rows, list(known.values()), color="#c9d6e8", label="the device")
    left.plot(list(found.strengths.values()), rows, "o", color="#c8372d", label="learned")
    left.axvline(0.01, color="grey", ls=":", lw=1, label="start of the fit")
    left.set_yticks(rows, list(known), fontsize="x-small")
    left.set(xlabel="strength", title=f"Largest error {worst:.1e}")
    depths = [1, 2, 4, 8, 16]
    for model, label, colour in ((start, "start of the fit", "grey"), (found.noise, "learned", "#c8372d")):
        right.semilogy(depths, [distance(model, truth, d) for d in depths], "o-", color=colour, label=label)
    right.set(xlabel="depth", ylabel="distance from the device", title="Circuits that the fit has not seen")
    for axes in (left, right):
        axes.legend(frameon=False, fontsize="small")
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "learned_noise.png", dpi=150)


if __name__ == "__main__":
    main()
