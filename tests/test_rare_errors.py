"""Errors and edge cases that no other test meets: of public functions, by what they say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit.library import real_amplitudes, zz_feature_map
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp

import qtm
from qtm._kernels.positive import check_psd
from qtm._models.training import train
from qtm.circuits import pauli_encoding, strongly_entangling_ansatz
from qtm.kernels import QuantumKernel, train_kernel
from qtm.mps import simulate
from qtm.optim import NaturalGradient
from qtm.postselection import PostSelectedModule
from qtm.states import fidelity

ANSATZ, FEATURES = real_amplitudes(2, reps=1), zz_feature_map(2)
SAMPLES, LABELS = np.linspace(0, 1, 8).reshape(4, 2), [0, 1, 0, 1]


def trainable() -> QuantumKernel:
    circuit = FEATURES.compose(ANSATZ)
    return QuantumKernel(circuit, training_parameters=list(ANSATZ.parameters), seed_init=0)


class OneResult(qtm.FastEstimator):
    """An estimator that forgets all results but the first."""

    def run(self, pubs: Any, *, precision: float | None = None) -> Any:
        return super().run(list(pubs)[:1], precision=precision)


class OtherBits(qtm.FastSampler):
    """A sampler whose results have the given bits in place of those of the register ``meas``."""

    def __init__(self, data: Any) -> None:
        super().__init__(seed=0)
        self._found = data

    def run(self, pubs: Any, *, shots: int | None = None) -> Any:
        return SimpleNamespace(result=lambda: [SimpleNamespace(data=self._found)], job_id=lambda: "job")


class NoManager:
    def run(self, circuit: QuantumCircuit) -> QuantumCircuit:
        raise RuntimeError("the target has no such gate")


def projected(outputs: str) -> None:
    qtm.QuantumModule(ANSATZ, None, ANSATZ.parameters, outputs=(outputs, {"qubits": [0, None]}))


def on_sampler(**settings: Any) -> None:
    QuantumKernel(FEATURES, shots=10, **settings).evaluate(SAMPLES)


CASES = {
    "states of one number": (lambda: fidelity(torch.ones(2) + 0j, 1.0), qtm.ShapeError, "not one number"),
    "columns of values": (lambda: simulate(ANSATZ, torch.zeros(3, 2)), qtm.ShapeError, r"expected \(batch, 4\)"),
    "no circuit": (lambda: PostSelectedModule("circuit", None, [], given={0: 0}), qtm.ParameterError, "circuit must"),
    "no qubit": (lambda: projected("probabilities"), qtm.ParameterError, "list of qubit numbers"),
    "no string": (lambda: pauli_encoding(1, ["ZZ"]), qtm.CircuitError, "none of the strings"),
    "results that are missing": (
        lambda: qtm.MitigatedEstimator(OneResult(), "zne").run([(ANSATZ, "ZZ", [0.1] * 4)]).result(),
        qtm.ShapeError,
        "returned 1 results for",
    ),
    "labels that are missing": (
        lambda: train_kernel(trainable(), SAMPLES, LABELS[:3]),
        qtm.ShapeError,
        "3 labels for 4 samples",
    ),
    "a loss that is not finite": (
        lambda: train_kernel(trainable(), SAMPLES, LABELS, loss=lambda matrix, labels: matrix.sum() * float("nan")),
        qtm.ParameterError,
        "the loss of step 0 is nan",
    ),
    "bits of another register": (
        lambda: on_sampler(sampler=OtherBits(SimpleNamespace(c=None))),
        qtm.JobError,
        "no bits of the register 'meas'",
    ),
    "bits of another shape": (
        lambda: on_sampler(sampler=OtherBits(SimpleNamespace(meas=SimpleNamespace(array=np.zeros((2, 3)))))),
        qtm.JobError,
        r"shape \(2, 3\)",
    ),
    "a pass manager that fails": (
        lambda: on_sampler(sampler=qtm.FastSampler(), pass_manager=NoManager()),
        qtm.CircuitError,
        "the target has no such gate",
    ),
    "a mean loss that is not finite": (
        lambda: train(
            torch.nn.Linear(2, 1),
            lambda outputs, targets: outputs.sum() * float("inf"),
            torch.ones(4, 2),
            torch.ones(4),
            epochs=1,
            batch_size=2,
            learning_rate=0.1,
            seed=0,
        ),
        qtm.ParameterError,
        "the loss of epoch 0",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_with_the_reason(case: str) -> None:
    call, error, words = CASES[case]
    with pytest.raises(error, match=words):
        call()


def test_an_empty_matrix_is_positive_semidefinite() -> None:
    check_psd(np.zeros((0, 0)))


def test_one_qubit_has_no_entangling_gates() -> None:
    ansatz = strongly_entangling_ansatz(1, 2)
    assert ansatz.circuit.num_nonlocal_gates() == 0 and len(ansatz.variational_params) == 6


def test_the_exact_simulator_uses_nothing() -> None:
    """Jobs of a kernel: none on the simulator, those of an estimator for a projected kernel."""
    assert QuantumKernel(FEATURES).estimate_usage(5, 3).jobs == 0
    noisy = QuantumKernel(FEATURES, kind="projected", estimator=StatevectorEstimator(default_precision=0.1, seed=0))
    assert noisy.estimate_usage(5, 3).circuits >= 8


def test_a_natural_gradient_without_damping_is_the_shortest_solution() -> None:
    """Of a circuit with a redundant angle: the metric is singular, and both angles share the step."""
    circuit = QuantumCircuit(1)
    angles = real_amplitudes(1, reps=1).parameters
    circuit.ry(angles[0], 0)
    circuit.ry(angles[1], 0)
    module = qtm.QuantumModule(circuit, None, list(angles), variational_params_initial=[0.3, 0.4]).double()
    optimizer = NaturalGradient(module.parameters(), module, lr=1.0, damping=0.0)
    module().sum().backward()
    before = module.variational.detach().clone()
    optimizer.step()
    change = before - module.variational.detach()
    # E = cos(a + b), and all entries of g are 1/4: the shortest solution is d = -2 sin(a + b) (1, 1).
    torch.testing.assert_close(change, torch.full((2,), -2 * np.sin(0.7)).double())


def test_an_observable_without_terms_is_zero_given_a_bit() -> None:
    circuit = QuantumCircuit(1, 1)
    circuit.h(0)
    circuit.measure(0, 0)
    module = PostSelectedModule(circuit, None, [], given={0: 1}, observables=[SparsePauliOp(["I"], [0.0]), "Z"])
    assert module().tolist() == pytest.approx([0.0, -1.0])
