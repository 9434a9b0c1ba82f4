"""One training step through a TorchConnector, before and after changing the import.

Both packages run in this process, in turn, on the same networks, weights and data, and their gradients are compared
before a time counts. qiskit-machine-learning is timed on fewer samples, and its time is scaled: it computes sample by
sample. `python benchmarks/migration.py` writes `benchmarks/migration.json` and the table of MIGRATION.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from qiskit.quantum_info import SparsePauliOp
from qiskit_algorithms.gradients import ReverseEstimatorGradient
from qiskit_machine_learning.connectors import TorchConnector as TheirConnector
from qiskit_machine_learning.neural_networks import EstimatorQNN, SamplerQNN

from qtm import TorchConnector
from qtm.circuits import reuploading_circuit

BATCH = 48
RESULTS = Path(__file__).with_suffix(".json")
DOCUMENT = Path(__file__).parent.parent / "MIGRATION.md"
MARKED = re.compile(r"(<!-- migration -->\n).*?(<!-- /migration -->)", re.DOTALL)
# Largest difference of two gradients in single precision, of sums over the batch and all outputs.
TOLERANCE = 1e-4


def parity(outcome: int) -> int:
    return outcome.bit_count() % 2


def networks(qubits: int) -> dict[str, tuple[Any, float]]:
    """Networks of qiskit-machine-learning, each with the speed-up aimed at."""
    model = reuploading_circuit(qubits, 3)
    common = {
        "circuit": model.circuit,
        "input_params": list(model.encoding_params),
        "weight_params": model.trainable_params,
    }
    each_z = [SparsePauliOp.from_sparse_list([("Z", [q], 1)], num_qubits=qubits) for q in range(qubits)]
    return {
        "EstimatorQNN, Z on each qubit, ReverseEstimatorGradient": (
            EstimatorQNN(**common, observables=each_z, gradient=ReverseEstimatorGradient()), 20_000
        ),
        "SamplerQNN, parity, its own gradient": (SamplerQNN(**common, interpret=parity, output_shape=2), 2_000),
        f"SamplerQNN, all {2**qubits} outcomes, its own gradient": (SamplerQNN(**common), 2_000),
    }  # fmt: skip


def step(layer: torch.nn.Module, inputs: torch.Tensor, cotangent: torch.Tensor) -> float:
    """Seconds of a forward and a backward pass."""
    layer.zero_grad()
    began = time.perf_counter()
    layer(inputs).backward(cotangent)
    return time.perf_counter() - began


def measure(network: Any, samples: int, repeats: int) -> dict[str, float]:
    torch.manual_seed(0)
    inputs = torch.randn(BATCH, network.num_inputs)
    cotangent = torch.randn(BATCH, *network.output_shape)
    mine = TorchConnector(network)
    theirs = TheirConnector(network, mine.weight.detach().numpy())
    few = inputs[:samples], cotangent[:samples]
    before: list[float] = []
    after: list[float] = []
    step(mine, inputs, cotangent)
    for _ in range(repeats):
        before.append(step(theirs, *few) * BATCH / samples)
        step(mine, inputs, cotangent)
        after.append(statistics.median(step(mine, inputs, cotangent) for _ in range(20)))
    step(mine, *few)
    difference = (mine.weight.grad - theirs.weight.grad).abs().max().item()
    if difference > TOLERANCE:
        raise ValueError(f"the gradients differ by {difference}: the times would compare different things")
    return {
        "before_ms": statistics.median(before) * 1e3,
        "after_ms": statistics.median(after) * 1e3,
        "difference": difference,
    }


def machine() -> str:
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [row.split(":")[1].strip() for row in cpuinfo.read_text().splitlines() if row.startswith("model name")]
        name = names[0] if names else name
    return f"{name}, {os.cpu_count()} cores"


def filled(text: str, result: dict[str, Any]) -> str:
    """The document with its table made from a result."""
    rows = [
        f"| {row['name']} | {row['before_ms'] / 1e3:.3g} s | {row['after_ms']:.3g} ms | {row['ratio']:,.0f} |"
        for row in result["rows"]
    ]
    note = (
        f"One step (forward and backward) on {result['batch']} samples in single precision: the re-uploading circuit "
        f"of 8 qubits and 3 layers, 112 weights. {result['machine']}; medians of {result['repeats']} turns, with a "
        f"load of {result['load']:.1f} on the machine. Before: timed on {result['timed_samples']} sample(s) and scaled."
    )
    head = ["| network | before | after | times |", "| --- | ---: | ---: | ---: |"]
    return MARKED.sub(lambda match: match[1] + "\n".join([*head, *rows, "", note]) + "\n" + match[2], text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="4 qubits, to see that it runs; writes nothing")
    parser.add_argument("--samples", type=int, default=1, help="of the batch, timed on the other package")
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name, (network, goal) in networks(4 if chosen.quick else 8).items():
        row = measure(network, chosen.samples, chosen.repeats)
        ratio = row["before_ms"] / row["after_ms"]
        rows.append({"name": name, **row, "ratio": ratio, "goal": goal})
        print(
            f"| {name} | {row['before_ms'] / 1e3:.3g} s | {row['after_ms']:.3g} ms | {ratio:,.0f} |"
            f"  (goal {goal:,}; gradients differ by {row['difference']:.1e})",
            flush=True,
        )
    result = {
        "machine": machine(),
        "load": os.getloadavg()[0],
        "batch": BATCH,
        "timed_samples": chosen.samples,
        "repeats": chosen.repeats,
        "rows": rows,
    }
    if not chosen.quick:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        DOCUMENT.write_text(filled(DOCUMENT.read_text(encoding="utf-8"), result), encoding="utf-8")


if __name__ == "__main__":
    main()
