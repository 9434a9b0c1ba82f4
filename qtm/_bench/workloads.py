"""The workloads: circuits, sizes and data of the papers' figures and tables, and how qtm runs them.

[1] N. Meyer et al., Qiskit-Torch-Module: Fast Prototyping of Quantum Neural Networks, arXiv:2404.06314.
[2] M. Robbiati et al., Qiboml: towards the orchestration of quantum-classical machine learning (2025).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, NamedTuple

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp
from torch import Tensor

from qtm._bench.matrix_product_states import hardware_efficient, xxz
from qtm._bench.wide import brick
from qtm._locks import cached_property
from qtm._parts.model_circuit import as_ansatz
from qtm.circuits import (
    ModelCircuit,
    hardware_efficient_circuit,
    incremental_uploading_circuit,
    policy_circuit,
    reuploading_circuit,
)
from qtm.modules import QuantumModule
from qtm.noise import local_pauli_noise

DTYPES = {"double": torch.float64, "single": torch.float32}
MODES = ("forward", "backward", "combined")


class Data(NamedTuple):
    """Inputs (batch, features), weights (weights,) and cotangent (batch, observables), in double precision."""

    inputs: np.ndarray
    weights: np.ndarray
    cotangent: np.ndarray


@dataclass(frozen=True)
class Case:
    """One point of a figure: a circuit with observables and a batch.

    Attributes:
        x: Its position on the horizontal axis.
        model: The circuit and the roles of its parameters.
        observables: The observables to measure.
        batch: Number of samples.
        pauli: Probability of X, of Y and of Z after every gate, on each of its qubits.
        method: Simulation method of qtm.
    """

    x: int
    model: ModelCircuit
    observables: tuple[SparsePauliOp, ...]
    batch: int
    pauli: float = 0.0
    method: Any = "auto"

    @cached_property
    def data(self) -> Data:
        """Seeded data, the same for every package that computes this case."""
        rng = np.random.default_rng(self.model.circuit.num_qubits)
        return Data(
            rng.uniform(0, 1, (self.batch, len(self.model.encoding_params))),
            rng.uniform(-1, 1, len(self.model.trainable_params)),
            rng.normal(size=(self.batch, len(self.observables))),
        )


@dataclass(frozen=True)
class Workload:
    """One figure or table: what varies over which sizes, with its modes and peers."""

    title: str
    axis: str
    sizes: tuple[int, ...]
    quick: tuple[int, ...]
    batch: int
    modes: tuple[str, ...]
    build: Callable[[int, int, int], tuple[ModelCircuit, Sequence[SparsePauliOp]]]
    qubits: int = 0  # where another quantity varies
    gradients: tuple[str, ...] = ("reverse",)
    peers: tuple[str, ...] = field(default=())  # by default; none means all
    pauli: float = 0.0
    method: Any = "auto"
    states: str = "vector"  # of the peers
    stop: float = inf  # seconds: the default of `compare.Settings.stop`
    patience: float = 60.0  # seconds: that of `compare.Settings.patience`
    memory: str = ""  # the name of the workload, where the peak of a process of its own is measured too

    def case(self, x: int, batch: int | None = None, qubits: int | None = None) -> Case:
        """The case at ``x`` of the axis."""
        model, observables = self.build(x, qubits or self.qubits, batch or self.batch)
        return Case(x, model, tuple(observables), batch or self.batch, self.pauli, self.method)


def z_words(num_qubits: int, count: int | None = None) -> list[SparsePauliOp]:
    """Z on every qubit; beyond that, Z Z on neighbours, then on next neighbours, and so on around the ring."""
    count = num_qubits if count is None else count
    words = []
    for number in range(count):
        distance, qubit = divmod(number, num_qubits)
        qubits = sorted({qubit, (qubit + distance) % num_qubits})
        words.append(SparsePauliOp.from_sparse_list([("Z" * len(qubits), qubits, 1.0)], num_qubits))
    return words


def _minus_sum(num_qubits: int) -> list[SparsePauliOp]:
    """-sum_q Z_q, eq. 4 of [2]."""
    return [SparsePauliOp.from_sparse_list([("Z", [q], -1.0) for q in range(num_qubits)], num_qubits)]


def _tensored(num_qubits: int) -> list[SparsePauliOp]:
    return [SparsePauliOp("Z" * num_qubits)]


def _wide(num_qubits: int) -> ModelCircuit:
    circuit = brick(num_qubits)
    return as_ansatz(circuit, list(circuit.parameters))


DEPTH = 3
NOISE_LAYERS, NOISE = 3, 0.01


def noisy_circuit(num_qubits: int) -> ModelCircuit:
    """RY of the inputs, then layers of RY and RZ on every qubit and a ring of CX."""
    inputs, weights = ParameterVector("x", num_qubits), ParameterVector("w", 2 * NOISE_LAYERS * num_qubits)
    circuit, angles = QuantumCircuit(num_qubits), iter(weights)
    for q in range(num_qubits):
        circuit.ry(inputs[q], q)
    for _ in range(NOISE_LAYERS):
        for q in range(num_qubits):
            circuit.ry(next(angles), q)
            circuit.rz(next(angles), q)
        for q in range(num_qubits if num_qubits > 2 else 1):
            circuit.cx(q, (q + 1) % num_qubits)
    return ModelCircuit(circuit, inputs, weights, ParameterVector("s", 0))


def chain_circuit(num_qubits: int) -> ModelCircuit:
    """The hardware-efficient circuit of Fig. 9 of [2]."""
    circuit = hardware_efficient(num_qubits)
    (vector,) = {p.vector for p in circuit.parameters}
    return ModelCircuit(circuit, ParameterVector("x", 0), vector, ParameterVector("s", 0))


_SLOW_PEERS = ("qiskit-machine-learning", "original")

WORKLOADS: dict[str, Workload] = {
    "fig1": Workload(
        "Fig. 1 of [1]: re-uploading circuit of depth 3, Z on every qubit",
        "qubits", (4, 6, 8, 10, 12, 14, 16), (2, 4), 48, ("forward", "backward", "combined"),
        lambda x, qubits, batch: (reuploading_circuit(x, DEPTH), z_words(x)),
    ),
    "fig2": Workload(
        "Fig. 2 of [1]: gradient over the depth of the circuit, 12 qubits",
        "depth", (1, 2, 4, 6, 8, 10), (1, 2), 48, ("backward",),
        lambda x, qubits, batch: (reuploading_circuit(qubits, x), z_words(qubits)),
        qubits=12, peers=_SLOW_PEERS,
    ),
    "table1": Workload(
        "Table I of [1]: improvement over the number of observables, 12 qubits, depth 3",
        "observables", (1, 2, 4, 8, 12, 16, 24, 32), (1, 3), 48, ("forward", "backward"),
        lambda x, qubits, batch: (reuploading_circuit(qubits, DEPTH), z_words(qubits, x)),
        qubits=12, peers=_SLOW_PEERS,
    ),
    "table2": Workload(
        "Table II of [1]: the full-quantum classifier, 10 qubits, 220 weights",
        "qubits", (10,), (3,), 48, ("combined",),
        lambda x, qubits, batch: (incremental_uploading_circuit(x, 10, 10 * x), z_words(x)),
    ),
    "table3": Workload(
        "Table III of [1]: the policy of CartPole, 4 qubits, depth 1, ZZZZ",
        "qubits", (4,), (2,), 10, ("forward", "combined"),
        lambda x, qubits, batch: (policy_circuit(x), _tensored(x)),
    ),
    "vqe": Workload(
        "Sec. IV of [2]: -sum Z on a hardware-efficient circuit of 3 layers, one state",
        "qubits", (4, 8, 12, 16, 18, 20, 22), (3, 4), 1, ("combined",),
        lambda x, qubits, batch: (hardware_efficient_circuit(x, 3), _minus_sum(x)),
        gradients=("reverse", "param-shift"),
    ),
    "latency": Workload(
        "One sample: re-uploading circuit of depth 3, Z on every qubit",
        "qubits", (2, 3, 4, 5, 6, 7, 8), (2,), 1, ("forward", "combined"),
        lambda x, qubits, batch: (reuploading_circuit(x, DEPTH), z_words(x)),
    ),
    "wide": Workload(
        "An XXZ chain after a brick of RY, RZ and CX, 4 layers: all bonds, by causal cones",
        "qubits", (20, 50, 100, 200, 500, 1000), (6, 8), 1, ("combined",),
        lambda x, qubits, batch: (_wide(x), [xxz(x, ring=False)]),
        peers=("tensorcircuit-lightcone", "quimb", "lightning"),
    ),
    "noise": Workload(
        "A step under noise: 3 layers of RY, RZ and a ring of CX, 1% Pauli noise after every gate, Z on every qubit",
        "qubits", (2, 3, 4, 5, 6, 7, 8, 9, 10), (2, 3), 16, ("combined",),
        lambda x, qubits, batch: (noisy_circuit(x), z_words(x)),
        pauli=NOISE / 3, states="mixed", stop=3.0, patience=20.0, memory="noise",
    ),
    "mps-step": Workload(
        "A step of a matrix product state, bonds of 32: 3 layers of RY, RZ and a chain of CX, energy of the XXZ chain",
        "qubits", (10, 20, 50, 100, 200), (4, 6), 1, ("combined",),
        lambda x, qubits, batch: (chain_circuit(x), [xxz(x, ring=False)]),
        method=("matrix_product_state", {"max_bond": 32}), states="mps", memory="mps-step",
    ),
}  # fmt: skip


class QtmRunner:
    """A case in qtm: a `QuantumModule` and its data.

    Args:
        case: What to compute.
        dtype: "double" or "single".
        threads: Threads of the forward and the backward pass.
        gradient: Name of the gradient method.
        samples: The first samples of the batch only.
        device: Where the module and its inputs are; times include all that a GPU has to do.
        options: More options of the module.
    """

    def __init__(
        self,
        case: Case,
        dtype: str,
        threads: int,
        gradient: str = "reverse",
        samples: int | None = None,
        device: str = "cpu",
        **options: Any,
    ) -> None:
        model, data = case.model, case.data
        if case.pauli:
            options["noise"] = local_pauli_noise(case.pauli)
        if "outputs" not in options:
            options["observables"] = list(case.observables)
        self.module = QuantumModule(
            model.circuit,
            model.encoding_params,
            model.trainable_params,
            variational_params_initial=data.weights,
            gradient=gradient,
            num_threads_forward=threads,
            num_threads_backward=threads,
            **{"method": case.method, **options},
        ).to(device, DTYPES[dtype])
        self.device = device
        with torch.no_grad():  # again, past the default dtype of torch
            self.module.variational_[0].copy_(torch.tensor(data.weights))
        part = slice(samples or case.batch)
        self.inputs = torch.tensor(data.inputs[part], dtype=DTYPES[dtype], device=device)
        self.cotangent = torch.tensor(data.cotangent[part], dtype=DTYPES[dtype], device=device)
        if not self.inputs.shape[1]:
            self.cotangent = self.cotangent[0]

    def forward(self) -> Tensor:
        """Values, without a gradient."""
        with torch.no_grad():
            return self._values()

    def combined(self) -> tuple[Tensor, Tensor]:
        """Values and the gradient by the weights."""
        values = self._values()
        return values, self._gradient(values)

    def timed(self, mode: str) -> float:
        """Seconds of one call in a mode."""
        values = self._values() if mode == "backward" else None
        self._wait()
        began = time.perf_counter()
        if values is not None:
            self._gradient(values)
        elif mode == "forward":
            self.forward()
        else:
            self.combined()
        self._wait()
        return time.perf_counter() - began

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Values (samples, observables) and gradient (weights,), for comparison."""
        values, gradient = self.combined()
        return np.atleast_2d(values.detach().cpu().numpy()), gradient.cpu().numpy()

    def _values(self) -> Tensor:
        result: Tensor = self.module(self.inputs) if self.inputs.shape[1] else self.module()
        return result

    def _gradient(self, values: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(values, self.module.variational_, self.cotangent)
        return gradient
