"""One parameter-shift step on Aer: qtm beside qiskit-machine-learning, on the same estimator.

    python benchmarks/shift_step.py [--repeats 7]

A step is the forward pass and the gradient by the weights: 4 qubits, 8 samples, 4 observables, 12 trained angles,
Aer's EstimatorV2 without noise. The two take turns; medians are printed. Both gradients are compared with the
reverse sweep first, so that no time is printed for a wrong result. The last rows say where qtm's step goes: the
jobs that it submits, submitted again without qtm.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import real_amplitudes
from qiskit.primitives import BaseEstimatorV2
from qiskit.quantum_info import SparsePauliOp
from qiskit_aer.primitives import EstimatorV2
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.gradients import ParamShiftEstimatorGradient
from qiskit_machine_learning.neural_networks import EstimatorQNN

from qtm import QuantumModule

QUBITS, BATCH, GOAL = 4, 8, 15.0
TOLERANCES = {"qtm": 1e-9, "qiskit-machine-learning": 1e-5}  # its connector gives gradients in single precision
OBSERVABLES = [SparsePauliOp("I" * (QUBITS - 1 - q) + "Z" + "I" * q) for q in range(QUBITS)]


class Recording(BaseEstimatorV2):
    """Counts and keeps the jobs that go to an estimator."""

    def __init__(self, estimator: BaseEstimatorV2) -> None:
        self.estimator, self.jobs = estimator, []  # type: ignore[var-annotated]

    def run(self, pubs: Any, *, precision: float | None = None) -> Any:
        self.jobs.append(list(pubs))
        return self.estimator.run(self.jobs[-1], precision=precision)


def circuit() -> tuple[QuantumCircuit, ParameterVector, Any]:
    inputs, ansatz = ParameterVector("input", QUBITS), real_amplitudes(QUBITS, reps=2)
    whole = QuantumCircuit(QUBITS)
    for qubit, angle in enumerate(inputs):
        whole.ry(angle, qubit)
    return whole.compose(ansatz), inputs, ansatz.parameters


def ours(estimator: BaseEstimatorV2, gradient: str, weights: np.ndarray) -> torch.nn.Module:
    whole, inputs, trained = circuit()
    return QuantumModule(
        whole, inputs, trained, observables=OBSERVABLES, estimator=estimator, gradient=gradient,
        variational_params_initial=weights,
    ).double()  # fmt: skip


def theirs(estimator: BaseEstimatorV2, weights: np.ndarray) -> torch.nn.Module:
    whole, inputs, trained = circuit()
    network = EstimatorQNN(
        circuit=whole, estimator=estimator, observables=OBSERVABLES, input_params=list(inputs),
        weight_params=list(trained), gradient=ParamShiftEstimatorGradient(estimator),
        default_precision=0.0,  # its default adds shot noise to exact values
    )  # fmt: skip
    return TorchConnector(network, initial_weights=weights)


def step(module: torch.nn.Module, data: torch.Tensor, cotangent: torch.Tensor) -> torch.Tensor:
    """Gradient (12,) of ``sum(cotangent * outputs)`` by the weights."""
    module.zero_grad()
    (module(data) * cotangent).sum().backward()
    (weights,) = module.parameters()
    assert weights.grad is not None
    return weights.grad


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _result(estimator: BaseEstimatorV2, pubs: list[Any]) -> Any:
    return estimator.run(pubs).result()


def checked(name: str, found: torch.Tensor, exact: torch.Tensor) -> None:
    error = float((found - exact).abs().max())
    print(f"{name:<28} error of the gradient {error:.1e}")
    if error > TOLERANCES[name]:
        raise SystemExit(f"{name} is wrong; nothing is timed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    rng = np.random.default_rng(0)
    weights, data, cotangent = (rng.normal(size=s) for s in (12, (BATCH, QUBITS), (BATCH, QUBITS)))
    values = torch.tensor(data), torch.tensor(cotangent)
    estimator = Recording(EstimatorV2())
    exact = step(ours(None, "reverse", weights), *values)
    models = {
        "qtm": ours(estimator, "param-shift", weights),
        "qiskit-machine-learning": theirs(estimator, weights),
    }
    jobs: dict[str, list[list[Any]]] = {}
    for name, model in models.items():
        estimator.jobs = []
        checked(name, step(model, *values), exact)
        jobs[name] = list(estimator.jobs)
    times: dict[str, list[float]] = {name: [] for name in (*models, "qtm, its jobs alone")}
    for _ in range(repeats):
        for name, model in models.items():
            times[name].append(seconds(partial(step, model, *values)))
        replay = [partial(_result, estimator.estimator, pubs) for pubs in jobs["qtm"]]
        times["qtm, its jobs alone"].append(sum(map(seconds, replay)))
    medians = {name: statistics.median(found) for name, found in times.items()}
    for name, median in medians.items():
        used = jobs.get(name, jobs["qtm"])
        print(f"{name:<28} {1e3 * median:9.1f} ms   {len(used)} jobs, {sum(map(len, used))} PUBs")
    ratio = medians["qiskit-machine-learning"] / medians["qtm"]
    print(f"{ratio:.0f}x (goal: {GOAL:.0f}x)")
    raise SystemExit(ratio < GOAL)


if __name__ == "__main__":
    main()
