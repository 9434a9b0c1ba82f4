"""Networks whose tensors are on a GPU: the kernels run in Triton's interpreter where there is none."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from qiskit.circuit.library import real_amplitudes, z_feature_map

import qtm
from qtm._demo import classifier
from qtm._engines.triton_statevector import launch
from qtm._torch.autograd import expectation_values
from qtm.connectors import TorchConnector

pytestmark = pytest.mark.skipif(launch.refusal() is not None, reason=f"method 'triton' {launch.refusal()}")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
FEATURES, ANSATZ = z_feature_map(2, reps=1), real_amplitudes(2, reps=1)
NETWORKS: dict[str, tuple[type, dict[str, Any]]] = {
    "default": (qtm.EstimatorQNN, {}),
    "observables": (qtm.EstimatorQNN, {"observables": ["ZX", "IY"]}),
    "outcomes": (qtm.SamplerQNN, {}),
    "parity": (qtm.SamplerQNN, {"interpret": lambda k: k.bit_count() % 2, "output_shape": 2}),
}


def network(kind: str, **settings: Any) -> Any:
    made, arguments = NETWORKS[kind]
    circuit = FEATURES.compose(ANSATZ)
    return made(
        circuit=circuit, input_params=FEATURES.parameters, weight_params=ANSATZ.parameters, **arguments, **settings
    )


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(("dtype", "name"), [(torch.float64, "complex128"), (torch.float32, "complex64")])
def test_outputs_and_derivatives_are_those_of_the_cpu(kind: str, dtype: torch.dtype, name: str) -> None:
    made, found = network(kind), []
    generator = torch.Generator().manual_seed(2)
    given = [torch.randn(shape, generator=generator, dtype=dtype) for shape in ((3, 2), (4,))]
    for device in ("cpu", "cuda"):
        method = made.exact_method(name, device)
        engine = method.simulation.engine
        assert (method.fused is None) == (device == "cuda") == (type(engine).__module__.count("triton") == 1)
        x, w = (t.to(DEVICE if device == "cuda" else "cpu").requires_grad_() for t in given)
        values = expectation_values(method, x, [w], 3, (True, True))
        found.append([t.cpu() for t in (values, *torch.autograd.grad(values.square().sum(), [x, w]))])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12 if dtype == torch.float64 else 2e-5, rtol=0)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_connector_follows_its_weights(kind: str) -> None:
    layer = TorchConnector(network(kind))
    assert layer._follows(layer._chosen(), layer.weight)
    assert not layer._follows(None, layer.weight)  # the network's own methods compute
    assert not layer._follows(layer._chosen(), layer.weight.half())


def test_what_a_gpu_does_not_simulate_stays_on_the_cpu_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    layer = TorchConnector(network("default", noise=qtm.local_pauli_noise(0.01)))
    with caplog.at_level(logging.INFO, "qtm"):
        for _ in range(2):
            assert not layer._follows(layer._neural_network, layer.weight)
    assert sum("computes on the CPU" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_connector_on_a_gpu(kind: str) -> None:
    layer = TorchConnector(network(kind))
    x = torch.rand(3, 2)
    expected = layer(x)
    layer.cuda()
    for inputs in (x, x.cuda()):
        values = layer(inputs)
        assert values.is_cuda
        torch.testing.assert_close(values.cpu(), expected, atol=2e-5, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
def test_the_demo_trains_on_a_gpu_and_saves_weights_for_the_cpu(tmp_path: Path) -> None:
    made = classifier.Classifier(classifier.Settings(epochs=1, device="cuda"))
    for step in made.train():
        if step.number == 3:
            break
    made.history.accuracies.append(0.5)
    made.history.held_out_accuracies.append(made.held_out_accuracy())
    saved = made.save(tmp_path)[0]
    weights = torch.load(saved, weights_only=True)
    assert all(value.is_cpu for value in weights.values())
    assert made.confusion().sum() == len(made.digits.held_out_labels)
