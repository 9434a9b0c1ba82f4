"""Fig. 9 of [2]: the ground state of a 50-qubit XXZ ring, trained as a matrix product state.

[2] M. Robbiati et al., Qiboml: towards the orchestration of quantum-classical machine learning (2025), section III-E:
three layers of RY, RZ and CX; Adam at 0.01 and 100 epochs in the listing; ten starts; bonds of 32 or a cutoff of 1e-10.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from math import pi
from typing import Any

import torch
from qiskit import QuantumCircuit
from torch import Tensor

from qtm._bench import matrix_product_states as circuits
from qtm._bench.matrix_product_states import ring_energy, xxz
from qtm._torch.parameter_sets import ParameterSets, initial_values
from qtm.modules import QuantumModule
from qtm.mps import TruncationWarning

TITLE = "Fig. 9 of [2]: XXZ ring trained as a matrix product state"
RATE = 0.01
TRUNCATIONS: dict[str, dict[str, Any]] = {"max_bond 32": {"max_bond": 32}, "cutoff 1e-10": {"cutoff": 1e-10}}
OPTIMIZERS = ("adam", "l-bfgs")
CHECK_BOND = 96  # of the final energy, three times the bond of the training
_ITERATIONS = 10  # of L-BFGS, before there is something to show
_PRETRAINING = 300  # iterations of L-BFGS


@dataclass(frozen=True)
class Ansatz:
    """A circuit and where its training starts.

    Attributes:
        circuit: of a number of qubits.
        start: initial values, as in `QuantumModule`.
        small_ring: qubits of the ring on which a state vector finds the start; None if the start is the initial values.
    """

    circuit: Callable[[int], QuantumCircuit]
    start: Any
    small_ring: int | None = None


ANSATZE = {
    "hardware-efficient": Ansatz(circuits.hardware_efficient, "uniform"),
    "qiboml": Ansatz(circuits.qiboml, ("uniform", {"b": pi})),
    "dimerized": Ansatz(circuits.dimerized, ("normal", {"std": 0.01})),
    "staircase": Ansatz(circuits.staircase, ("normal", {"std": 0.3})),
    "dimer-ring": Ansatz(circuits.dimer_ring, ("normal", {"std": 0.1}), 4 * circuits.LAYERS + 4),
}


@dataclass(frozen=True)
class Training:
    """One training.

    Attributes:
        errors: relative error of the energy at every evaluation; an epoch of Adam is one evaluation.
        step_seconds: median time of an evaluation of one start.
        pretraining: relative errors per qubit while the start was found on the small ring.
        checked_error: relative error of the last energy with bonds of `CHECK_BOND`; None before the end.
    """

    truncation: str
    ansatz: str
    seed: int
    errors: tuple[float, ...]
    step_seconds: float
    pretraining: tuple[float, ...] = ()
    checked_error: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The training as an entry of a JSON file, errors to six digits."""
        rounded = {name: [float(f"{e:.6g}") for e in getattr(self, name)] for name in ("errors", "pretraining")}
        return asdict(self) | rounded


def train(
    num_qubits: int,
    ansatz: str,
    truncation: str,
    epochs: int,
    seeds: Sequence[int],
    rate: float = RATE,
    optimizer: str = "adam",
) -> Iterator[list[Training]]:
    """Train from one start per seed; yields what there is so far, in the order of the seeds.

    Adam takes all starts in one batch: it treats every weight by itself, so each start goes its own way. L-BFGS takes
    one start after the other. The last energies are computed again with more bonds, so that truncation cannot pass as
    a lower energy.
    """
    problem = _Problem(num_qubits, ansatz, truncation)
    if optimizer == "adam":
        yield from problem.together(seeds, epochs, rate)
        return
    done: list[Training] = []
    for seed in seeds:
        latest: list[Training] = []
        for latest in problem.alone(seed, epochs):
            yield done + latest
        done += latest


class _Problem:
    """A ring, a circuit and a truncation."""

    def __init__(self, num_qubits: int, ansatz: str, truncation: str) -> None:
        self.num_qubits, self.ansatz, self.truncation = num_qubits, ansatz, truncation
        self._exact = ring_energy(num_qubits)
        self._energies = self._module(TRUNCATIONS[truncation])

    def together(self, seeds: Sequence[int], epochs: int, rate: float) -> Iterator[list[Training]]:
        """One batch of starts through Adam."""
        starts = [self._start(seed) for seed in seeds]
        weights = torch.stack([weights for weights, _ in starts]).requires_grad_()
        adam = torch.optim.Adam([weights], lr=rate)
        errors: list[Tensor] = []
        seconds: list[float] = []
        for _ in range(epochs):
            began = time.perf_counter()
            errors.append(self._evaluate(weights))
            seconds.append((time.perf_counter() - began) / len(seeds))
            adam.step()
            yield self._trainings(seeds, starts, errors, seconds)
        yield self._checked(self._trainings(seeds, starts, errors, seconds), weights)

    def alone(self, seed: int, epochs: int) -> Iterator[list[Training]]:
        """One start through L-BFGS, with at least ``epochs`` evaluations."""
        start = self._start(seed)
        weights = start[0][None].requires_grad_()
        errors: list[Tensor] = []
        seconds: list[float] = []

        def evaluate() -> float:
            began = time.perf_counter()
            errors.append(self._evaluate(weights))
            seconds.append(time.perf_counter() - began)
            return float(errors[-1])

        steps = _lbfgs(weights, min(_ITERATIONS, epochs))
        while len(errors) < epochs:
            before = len(errors)
            steps.step(evaluate)
            yield self._trainings([seed], [start], errors, seconds)
            if len(errors) == before + 1:  # converged
                break
        yield self._checked(self._trainings([seed], [start], errors, seconds), weights)

    def _evaluate(self, weights: Tensor) -> Tensor:
        """Relative errors (starts,); leaves their derivatives in ``weights.grad`` (starts, weights)."""
        weights.grad = None
        errors: Tensor = (self._energies(weights)[:, 0] - self._exact) / abs(self._exact)
        errors.sum().backward()
        return errors.detach()

    def _module(self, options: dict[str, Any]) -> QuantumModule:
        """The energy of a batch of weights, which are the inputs of the circuit."""
        circuit = ANSATZE[self.ansatz].circuit(self.num_qubits)
        method = ("matrix_product_state", {**options, "tolerance": 1.0})
        energies = [xxz(self.num_qubits)]
        return QuantumModule(circuit, list(circuit.parameters), [], observables=energies, method=method).double()

    def _start(self, seed: int) -> tuple[Tensor, tuple[float, ...]]:
        """Weights to start from, (weights,), and the errors on the small ring on the way to them."""
        ansatz = ANSATZE[self.ansatz]
        circuit = ansatz.circuit(self.num_qubits)
        sets = ParameterSets(circuit, None, list(circuit.parameters), None)
        (weights,) = initial_values(sets, ansatz.start, seed)
        weights = weights.double()
        if ansatz.small_ring is None:
            return weights, ()
        return _pretrained(ansatz, min(ansatz.small_ring, self.num_qubits), weights, self._exact / self.num_qubits)

    def _trainings(
        self,
        seeds: Sequence[int],
        starts: Sequence[tuple[Tensor, tuple[float, ...]]],
        errors: Sequence[Tensor],
        seconds: Sequence[float],
    ) -> list[Training]:
        by_start = torch.stack(list(errors), 1).tolist()
        step = statistics.median(seconds)
        return [
            Training(self.truncation, self.ansatz, seed, tuple(found), step, pretraining)
            for seed, found, (_, pretraining) in zip(seeds, by_start, starts, strict=True)
        ]

    def _checked(self, trainings: list[Training], weights: Tensor) -> list[Training]:
        """The same with the error of ``weights`` at a bond of `CHECK_BOND`, which discards less than the training."""
        energies = self._module({"max_bond": CHECK_BOND})
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncationWarning)
            found = (torch.cat([energies(w[None])[:, 0] for w in weights]) - self._exact) / abs(self._exact)
        return [replace(t, checked_error=e) for t, e in zip(trainings, found.tolist(), strict=True)]


def _pretrained(ansatz: Ansatz, num_qubits: int, weights: Tensor, exact: float) -> tuple[Tensor, tuple[float, ...]]:
    """Weights trained on a small ring as a state vector, and the errors relative to the energy ``exact`` per qubit."""
    circuit = ansatz.circuit(num_qubits)
    energy = QuantumModule(
        circuit, None, list(circuit.parameters), variational_params_initial=weights.tolist(),
        observables=[xxz(num_qubits)], method="statevector",
    ).double()  # fmt: skip
    errors: list[float] = []

    def evaluate() -> Tensor:
        error: Tensor = (energy()[0] / num_qubits - exact) / abs(exact)
        energy.zero_grad()
        error.backward()
        errors.append(error.item())
        return error

    (trained,) = energy.parameters()
    _lbfgs(trained, _PRETRAINING).step(evaluate)
    return trained.detach().clone(), tuple(errors)


def _lbfgs(weights: Tensor, iterations: int) -> torch.optim.LBFGS:
    return torch.optim.LBFGS(
        [weights], max_iter=iterations, max_eval=2 * iterations, history_size=20, line_search_fn="strong_wolfe",
        tolerance_grad=1e-9, tolerance_change=1e-12,
    )  # fmt: skip
