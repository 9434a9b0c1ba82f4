"""One definition of an ideal estimator: its options, its noise and its seed count wherever it is given."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from network_cases import random_case
from qiskit.circuit import QuantumCircuit
from qiskit.circuit.library import real_amplitudes
from qiskit.primitives import StatevectorEstimator
from torch.autograd import forward_ad

from qtm import EstimatorQNN, FastEstimator, FastSampler, QuantumModule, SamplerQNN, ShapeError, UnsupportedError

ANSATZ = real_amplitudes(2, reps=1)
OBSERVABLES = ["ZZ", "XI"]
X, WEIGHTS = np.array([[0.3, -0.7], [1.1, 0.2]]), [0.4, -0.2, 0.9, 1.3]


class Counting(ThreadPoolExecutor):
    submitted = 0

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        self.submitted += 1
        return super().submit(*args, **kwargs)


def module(estimator: FastEstimator | None, **settings: Any) -> QuantumModule:
    return QuantumModule(
        ANSATZ, None, ANSATZ.parameters, observables=OBSERVABLES, estimator=estimator, seed_init=0, **settings
    ).double()


def gradient_of(model: QuantumModule) -> np.ndarray:
    model().sum().backward()
    return model.variational.grad.numpy()


def test_a_module_has_the_noise_of_its_estimator_and_exact_gradients() -> None:
    noisy, exact = module(FastEstimator(default_precision=0.1, seed=7)), module(None)
    values = noisy.variational.detach().numpy()
    job = FastEstimator(default_precision=0.1, seed=7).run([(ANSATZ, OBSERVABLES, values)])
    assert noisy().detach().numpy() == pytest.approx(job.result()[0].data.evs, abs=1e-12)
    assert abs(noisy() - exact()).max() > 1e-3
    assert gradient_of(noisy) == pytest.approx(gradient_of(exact), abs=1e-12)


def test_a_module_computes_in_the_dtype_of_its_estimator() -> None:
    single, double = module(FastEstimator(dtype="complex64")), module(None)
    assert single().dtype == torch.float64
    assert 0 < abs(single() - double()).max() < 1e-5
    assert 0 < abs(gradient_of(single) - gradient_of(double)).max() < 1e-5


def test_a_module_and_the_networks_use_the_executor_of_their_primitive() -> None:
    case = random_case(1)
    with Counting(2) as pool:
        module(FastEstimator(executor=pool, num_threads=2))()
        assert pool.submitted
        before = pool.submitted
        fast = FastEstimator(executor=pool, num_threads=2)
        EstimatorQNN(**case.arguments(), estimator=fast).forward(np.tile(X, (8, 1)), WEIGHTS)
        assert pool.submitted > before


def test_networks_compute_with_the_threads_of_their_primitive() -> None:
    case = random_case(1)
    estimator = EstimatorQNN(**case.arguments(), estimator=FastEstimator(num_threads=1))
    sampler = SamplerQNN(**case.arguments(), sampler=FastSampler(num_threads=1))
    assert estimator.exact_method("complex128").simulation.engine.options.num_threads == 1
    assert sampler.exact_method("complex128").simulation.engine.options.num_threads == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", [StatevectorEstimator, FastEstimator])
def test_the_noise_of_a_seed_cancels_in_gradients_as_in_qiskit_machine_learning(kind: Any) -> None:
    peer = pytest.importorskip("qiskit_machine_learning.neural_networks")
    case = random_case(2)
    arguments = {**case.arguments(), "observables": [*map(peer_operator, ["XIZ", "IYI"])]}
    ours = EstimatorQNN(**arguments, estimator=kind(default_precision=0.1, seed=5), default_precision=0.1)
    theirs = peer.EstimatorQNN(
        **arguments, estimator=StatevectorEstimator(default_precision=0.1, seed=5), default_precision=0.1
    )
    assert ours.forward(X, WEIGHTS) == pytest.approx(theirs.forward(X, WEIGHTS), abs=1e-10)
    assert abs(ours.forward(X, WEIGHTS) - EstimatorQNN(**arguments).forward(X, WEIGHTS)).max() > 1e-3
    exact = EstimatorQNN(**arguments).backward(X, WEIGHTS)[1]
    assert ours.backward(X, WEIGHTS)[1] == pytest.approx(exact, abs=1e-10)


def peer_operator(label: str) -> Any:
    from qiskit.quantum_info import SparsePauliOp

    return SparsePauliOp(label)


@pytest.mark.parametrize("frozen", [True, False])
def test_forward_mode_is_exact_or_refused_and_never_none(frozen: bool) -> None:
    circuit = QuantumCircuit(1)
    from qiskit.circuit import Parameter

    x, w = Parameter("x"), Parameter("w")
    circuit.ry(x, 0)
    circuit.rx(w, 0)
    for gradient in ("reverse", "param-shift"):
        model = QuantumModule(circuit, [x], [w], gradient=gradient).double()
        model.requires_grad_(not frozen)
        with forward_ad.dual_level():
            inputs = forward_ad.make_dual(torch.ones(2, 1).double(), torch.ones(2, 1).double())
            if gradient == "param-shift":
                with pytest.raises(UnsupportedError, match="reverse mode"):
                    model(inputs)
                continue
            tangent = forward_ad.unpack_dual(model(inputs)).tangent
        expected = -torch.sin(torch.ones(2, 1).double()) * torch.cos(model.variational.detach())  # <Z> = cos x cos w
        torch.testing.assert_close(tangent, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("index", [-1, (-1,), 2, (2,), -3])
@pytest.mark.parametrize("sampler", [None, FastSampler(default_shots=100, seed=1)])
def test_an_interpretation_outside_of_the_shape_is_refused(index: Any, sampler: Any) -> None:
    qnn = SamplerQNN(
        circuit=ANSATZ, weight_params=ANSATZ.parameters, sampler=sampler, interpret=lambda _: index, output_shape=2
    )
    with pytest.raises(ShapeError, match="outside"):
        qnn.forward(None, WEIGHTS)
