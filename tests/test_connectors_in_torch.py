"""TorchConnector as a torch module: checkpoints, dtypes, transforms, trainers and scripts of its users."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from network_cases import Case, differences, random_case
from qiskit import QuantumCircuit
from qiskit.circuit.library import real_amplitudes, z_feature_map, zz_feature_map
from test_connectors import KINDS, PACKAGES, WEIGHTS, each_package, network
from torch import Tensor, nn

import qtm.connectors as ours
from qtm.connectors import TorchConnector

peer = pytest.importorskip("qiskit_machine_learning.neural_networks")
peer_connectors = pytest.importorskip("qiskit_machine_learning.connectors")


# ---------------------------------------------------------------- torch: checkpoints, dtypes, transforms


def reloaded(module: nn.Module) -> dict[str, Tensor]:
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_checkpoints_go_both_ways() -> None:
    qnn = network(peer, "default")
    theirs = nn.Sequential(nn.Linear(2, 2), peer_connectors.TorchConnector(qnn))
    mine = nn.Sequential(nn.Linear(2, 2), TorchConnector(qnn))
    assert list(mine.state_dict()) == list(theirs.state_dict())
    assert mine.load_state_dict(reloaded(theirs)) == theirs.load_state_dict(theirs.state_dict())
    assert (mine[1].weight == theirs[1].weight).all()
    with torch.no_grad():
        mine[1].weight += 1
    theirs.load_state_dict(reloaded(mine))
    assert (mine[1].weight == theirs[1].weight).all()


@pytest.mark.parametrize("names", [["weight"], ["_weights"], ["weight", "_weights"]])
def test_checkpoints_under_either_name(names: list[str]) -> None:
    layer = TorchConnector(network(ours, "default"))
    state = {name: torch.tensor(WEIGHTS) for name in names}
    layer.load_state_dict(state)
    assert list(state) == names and layer.weight.tolist() == pytest.approx(WEIGHTS)
    with pytest.raises(RuntimeError, match="Missing key"):
        layer.load_state_dict({})
    with pytest.raises(RuntimeError, match="size mismatch"):
        layer.load_state_dict({"weight": torch.zeros(3)})


@each_package
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies(package: Any, copied: Any) -> None:
    layer = TorchConnector(network(package, "observables"), WEIGHTS)
    x = torch.randn(3, 2)
    values = layer(x)
    other = copied(layer)
    assert torch.equal(other(x), values)
    with torch.no_grad():
        other.weight += 1
    assert torch.equal(layer(x), values)


@each_package
def test_double_is_double(package: Any) -> None:
    layer = TorchConnector(network(package, "default"), WEIGHTS).double()
    x = torch.randn(3, 2, dtype=torch.float64)
    assert layer(x).dtype == torch.float64 and layer(x.float()).dtype == torch.float64
    assert TorchConnector(network(package, "default"))(x).dtype == torch.float32


def test_create_graph_gives_second_derivatives() -> None:
    layer = TorchConnector(network(peer, "default"), WEIGHTS).double()

    def penalty(x: Tensor) -> Tensor:
        (slope,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
        return slope.pow(2).sum()

    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(penalty, (x,), atol=1e-6)
    layer.zero_grad()
    penalty(x).backward()
    assert layer.weight.grad.abs().max() > 1e-3  # through the weights, too


def plain_case() -> Case:
    """Angles that are inputs and weights, or twice an input: those of nearly all circuits."""
    features, ansatz = z_feature_map(3, reps=1), real_amplitudes(3, reps=1)
    circuit = features.compose(ansatz)
    return Case(circuit, list(features.parameters), list(ansatz.parameters))


@each_package
@pytest.mark.parametrize("kind", KINDS)
def test_first_and_second_derivatives_in_either_mode(package: Any, kind: str) -> None:
    """Also where outcomes are interpreted: their outputs are fewer than the outcomes."""
    layer = TorchConnector(network(package, kind, plain_case())).double()

    def function(x: Tensor, w: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": w}, (x,))

    at = torch.randn(2, 3, dtype=torch.float64, requires_grad=True), torch.randn(6).double().requires_grad_()
    assert torch.autograd.gradcheck(function, at) and torch.autograd.gradgradcheck(function, at)
    along = torch.randn(6, dtype=torch.float64)
    x, w = (t.detach() for t in at)
    _, pushed = torch.func.jvp(lambda v: function(x, v), (w,), (along,))
    slope = (function(x, w + 1e-5 * along) - function(x, w - 1e-5 * along)) / 2e-5
    torch.testing.assert_close(pushed, slope, atol=1e-8, rtol=0)


@each_package
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_networks_take_the_short_way_of_modules(package: Any, kind: str, dtype: torch.dtype) -> None:
    case = plain_case()
    layer = TorchConnector(network(package, kind, case)).to(dtype)
    method = layer._chosen().exact_method("complex64" if dtype == torch.float32 else "complex128")
    assert method.fused is not None
    x = torch.randn(5, 3, dtype=dtype, requires_grad=True)
    short = layer(x)
    by = torch.autograd.grad(short.square().sum(), [x, layer.weight])
    method.fused = None
    general = layer(x)
    by_general = torch.autograd.grad(general.square().sum(), [x, layer.weight])
    for one, other in zip((short, *by), (general, *by_general), strict=True):
        torch.testing.assert_close(one, other, atol=1e-12 if dtype == torch.float64 else 2e-5, rtol=0)


@pytest.mark.slow
def test_create_graph_is_refused_where_the_network_computes() -> None:
    layer = TorchConnector(network(peer, "default"), WEIGHTS, execution="network")
    x = torch.randn(3, 2, requires_grad=True)
    (slope,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives"):
        slope.pow(2).sum().backward()


@each_package
@pytest.mark.parametrize("execution", ["fast", "network"])
@pytest.mark.parametrize("kind", ["observables", "pairs"])
@pytest.mark.thinned(6)
def test_torch_func(package: Any, kind: str, execution: str) -> None:
    layer = TorchConnector(network(package, kind), WEIGHTS, execution=execution).double()
    weights = layer.weight.detach()
    x = torch.randn(3, 2, dtype=torch.float64)

    def function(w: Tensor, row: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": w}, (row,))

    batch = layer(x).detach()
    assert torch.allclose(torch.func.vmap(function, (None, 0))(weights, x), batch)
    several = torch.stack([weights, weights + 1])
    assert torch.allclose(
        torch.func.vmap(function, (0, None))(several, x), torch.stack([function(w, x) for w in several])
    )
    by_w, by_x = torch.func.jacrev(function, argnums=(0, 1))(weights, x[0])
    slope_w = differences(lambda w: function(torch.from_numpy(w), x[0]).detach().numpy(), weights.numpy())
    slope_x = differences(lambda v: function(weights, torch.from_numpy(v)).detach().numpy(), x[0].numpy())
    assert by_w.numpy() == pytest.approx(slope_w, abs=1e-6) and by_x.numpy() == pytest.approx(slope_x, abs=1e-6)
    total = torch.func.grad(lambda w: function(w, x[0]).pow(2).sum())(weights)
    per_sample = torch.func.vmap(torch.func.grad(lambda w, row: function(w, row).pow(2).sum()), (None, 0))(weights, x)
    assert torch.allclose(per_sample[0], total)


def test_inside_a_convolution() -> None:
    """Patches as batch axes, a module of the user's around it, and interpretation by a bound method."""

    class Patches(nn.Module):
        def __init__(self, package: Any) -> None:
            super().__init__()
            case = random_case(33, num_inputs=4)
            qnn = package.SamplerQNN(**case.arguments(), interpret=self.channel, output_shape=2)
            self.qnn = TorchConnector(qnn, WEIGHTS)

        def channel(self, outcome: int) -> int:
            return outcome % 2

        def forward(self, images: Tensor) -> Tensor:
            patches = nn.functional.unfold(images, 2)  # (batch, 4, patches)
            return self.qnn(patches.permute(2, 0, 1)).permute(1, 2, 0)

    images = torch.rand(2, 1, 4, 4, requires_grad=True)
    outs = [Patches(package)(images) for package in PACKAGES]
    assert outs[0].shape == (2, 2, 9) and torch.allclose(outs[0], outs[1], atol=1e-6)
    outs[0].pow(2).sum().backward()
    assert images.grad.abs().min() > 0


@pytest.mark.parametrize("kind", ["default", "parity"])
def test_batches_and_single_samples_train_alike(kind: str) -> None:
    torch.manual_seed(0)
    outputs = 1 if kind == "default" else 2
    model = nn.Sequential(nn.Linear(4, 2), TorchConnector(network(peer, kind), WEIGHTS), nn.Linear(outputs, 1))
    x, y = torch.rand(5, 4), torch.rand(5, 1)
    gradients = []
    for loss in (
        lambda: sum(nn.functional.mse_loss(model(a), b, reduction="sum") for a, b in zip(x, y, strict=True)),
        lambda: nn.functional.mse_loss(model(x), y, reduction="sum"),
    ):
        model.zero_grad()
        loss().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


# ---------------------------------------------------------------- the same script, the one import changed


def losses(connector: Any, kind: str, steps: int) -> list[float]:
    """A hybrid classifier of digits, in the manner of a tutorial."""
    from sklearn.datasets import load_digits

    digits = load_digits(n_class=2)
    x = torch.tensor(digits.data[:40] / 16, dtype=torch.float32)
    y = torch.tensor(digits.target[:40])
    torch.manual_seed(7)
    features, ansatz = zz_feature_map(2), real_amplitudes(2, reps=1)
    circuit = QuantumCircuit(2)
    circuit.compose(features, inplace=True)
    circuit.compose(ansatz, inplace=True)
    name, more = KINDS[kind]
    qnn = getattr(peer, name)(
        circuit=circuit,
        input_params=features.parameters,
        weight_params=ansatz.parameters,
        input_gradients=True,
        **more,
    )
    outputs = qnn.output_shape[0]
    model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2), connector(qnn), nn.Linear(outputs, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    found = []
    for step in range(steps):
        rows = slice(step % 4 * 10, step % 4 * 10 + 10)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("kind", ["default", "parity"])
@pytest.mark.slow
def test_the_same_losses_with_one_import_changed(kind: str) -> None:
    pytest.importorskip("sklearn")
    mine = losses(TorchConnector, kind, 12)
    assert mine == pytest.approx(losses(peer_connectors.TorchConnector, kind, 12), abs=1e-4)
    assert mine[-1] < mine[0]


# ---------------------------------------------------------------- their trainers, and without their package


@pytest.mark.slow
def test_their_trainers_accept_our_networks() -> None:
    from qiskit_machine_learning.algorithms import NeuralNetworkClassifier, NeuralNetworkRegressor
    from qiskit_machine_learning.optimizers import L_BFGS_B

    rng = np.random.default_rng(4)
    x = rng.normal(size=(6, 2))
    y = np.where(x[:, 0] > 0, 1, -1)
    features, ansatz = z_feature_map(2, reps=1), real_amplitudes(2, reps=1)
    case = Case(features.compose(ansatz), list(features.parameters), list(ansatz.parameters))
    start = {"initial_point": WEIGHTS, "optimizer": L_BFGS_B(maxiter=2)}
    predictions = []
    for package in PACKAGES:
        binary = NeuralNetworkClassifier(network(package, "default", case), **start).fit(x, y)
        several = NeuralNetworkClassifier(network(package, "parity", case), **start).fit(x, (y + 1) // 2)
        hot = NeuralNetworkClassifier(network(package, "parity", case), one_hot=True, **start).fit(x, (y + 1) // 2)
        number = NeuralNetworkRegressor(network(package, "default", case), **start).fit(x, y * 0.5)
        predictions.append([t.weights for t in (binary, several, hot, number)] + [number.predict(x)])
    for mine, theirs in zip(*predictions, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)


@pytest.mark.slow
def test_without_qiskit_machine_learning() -> None:
    """It is no dependency: nothing imports it unless it is there."""
    code = """
import sys
sys.modules["qiskit_machine_learning"] = None  # importing it fails, and find_spec raises
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name.startswith("qiskit_machine_learning") else find(name, *a)
import torch
from qiskit.circuit.library import real_amplitudes, z_feature_map
from qtm.connectors import EstimatorQNN, SamplerQNN, TorchConnector
from qtm._errors import ShapeError
features, ansatz = z_feature_map(2), real_amplitudes(2, reps=1)
for kind in (EstimatorQNN, SamplerQNN):
    qnn = kind(circuit=features.compose(ansatz), input_params=features.parameters, weight_params=ansatz.parameters)
    layer = TorchConnector(qnn)
    layer(torch.ones(3, 2)).sum().backward()
    assert layer.execution == "fast"
    try:
        layer(torch.ones(3, 3))
    except ShapeError as error:
        assert type(error) is ShapeError
    else:
        raise AssertionError("a wrong width was accepted")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.slow
def test_importing_qtm_does_not_import_it() -> None:
    code = "import sys, qtm, qtm.connectors; assert not [m for m in sys.modules if m.startswith('qiskit_machine_l')]"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
