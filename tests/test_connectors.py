"""TorchConnector over networks of qiskit-machine-learning and ours: what its users rely on, and what was wrong."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from network_cases import Case, differences, pass_manager, random_case
from qiskit import QuantumCircuit
from qiskit.circuit.library import real_amplitudes
from qiskit.primitives import StatevectorEstimator, StatevectorSampler
from torch import Tensor, nn

import qtm.connectors as ours
from qtm._errors import ParameterError, QtmError, ShapeError
from qtm.connectors import TorchConnector
from qtm.primitives import FastEstimator, FastSampler

peer = pytest.importorskip("qiskit_machine_learning.neural_networks")
peer_connectors = pytest.importorskip("qiskit_machine_learning.connectors")
peer_primitives = pytest.importorskip("qiskit_machine_learning.primitives")

WEIGHTS = np.array([0.25, -1.125, 0.75, 2.0])  # exact in single precision
PACKAGES = [ours, peer]


def parity(outcome: int) -> int:
    return outcome.bit_count() % 2


def in_pairs(outcome: int) -> tuple[int, int]:
    return outcome % 2, outcome // 2


# name of the network, and what it is made of beside circuit and parameters
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "default": ("EstimatorQNN", {}),
    "observables": ("EstimatorQNN", {"observables": ["ZIX", "IYI"]}),
    "outcomes": ("SamplerQNN", {}),
    "parity": ("SamplerQNN", {"interpret": parity, "output_shape": 2}),
    "pairs": ("SamplerQNN", {"interpret": in_pairs, "output_shape": (2, 4)}),
}


def network(package: Any, kind: str, case: Case | None = None, **change: Any) -> Any:
    name, arguments = KINDS[kind]
    if package is peer and "observables" in arguments:
        from qiskit.quantum_info import SparsePauliOp

        arguments = {"observables": [SparsePauliOp(o) for o in arguments["observables"]]}
    case = random_case(30) if case is None else case
    return getattr(package, name)(**{**case.arguments(), "input_gradients": True, **arguments, **change})


def expected(kind: str, x: Any, w: Any, case: Case | None = None) -> np.ndarray:
    """Outputs (batch, outputs) from Statevector."""
    case = random_case(30) if case is None else case
    if kind == "default":
        return case.expectations(x, w, ["ZZZ"])
    if kind == "observables":
        return case.expectations(x, w, ["ZIX", "IYI"])
    p = case.probabilities(x, w)
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    return {
        "outcomes": lambda: p,
        "parity": lambda: np.stack([p[:, [0, 3, 5, 6]].sum(1), p[:, [1, 2, 4, 7]].sum(1)], 1),
        "pairs": lambda: p[:, order],
    }[kind]()


each_kind = pytest.mark.parametrize("kind", KINDS)
each_package = pytest.mark.parametrize("package", PACKAGES, ids=["ours", "theirs"])
each_dtype = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-10)])
SHAPES = [(2,), (1, 2), (5, 2), (2, 3, 2), (2, 1, 2, 2), (0, 2), (2, 0, 2)]


def data(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


@each_package
@each_kind
@each_dtype
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.thinned(5)
def test_values(package: Any, kind: str, dtype: torch.dtype, tolerance: float, shape: tuple[int, ...]) -> None:
    """1-D, 2-D, N-D and empty inputs; the dtype is that of the weights."""
    layer = TorchConnector(network(package, kind), WEIGHTS).to(dtype)
    assert layer.execution == "fast"
    x = data(*shape, dtype=dtype)
    out = layer(x)
    output_shape = layer.neural_network.output_shape
    assert out.shape == (*shape[:-1], *output_shape) and out.dtype == dtype
    out.sum().backward()
    assert x.grad.shape == x.shape and x.grad.dtype == dtype
    assert layer.weight.grad.shape == (4,) and layer.weight.grad.dtype == dtype
    flat = x.detach().numpy().astype(float).reshape(-1, 2)
    if len(flat):
        want = expected(kind, flat, layer.weight.detach().numpy().astype(float))
        assert abs(out.detach().numpy().reshape(want.shape) - want).max() < tolerance


GRADCHECKS = [(package, kind, "fast") for package in PACKAGES for kind in KINDS]
GRADCHECKS += [(ours, kind, "network") for kind in KINDS] + [(peer, "default", "network")]


@pytest.mark.parametrize(("package", "kind", "execution"), GRADCHECKS)
@pytest.mark.thinned(4)
def test_gradcheck(package: Any, kind: str, execution: str) -> None:
    """By inputs and weights. In their connector a tuple output_shape with input gradients raises."""
    layer = TorchConnector(network(package, kind), WEIGHTS, execution=execution).double()

    def function(x: Tensor, w: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": w}, (x,))

    w = layer.weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(function, (data(2, 2), w), eps=1e-5, atol=1e-5)


@each_kind
@each_dtype
@pytest.mark.parametrize("seed", [41, 42])
@pytest.mark.slow
def test_agrees_with_their_connector(kind: str, dtype: torch.dtype, tolerance: float, seed: int) -> None:
    case = random_case(seed)
    theirs = network(peer, kind, case)
    layers = [TorchConnector(theirs, WEIGHTS), TorchConnector(network(ours, kind, case), WEIGHTS)]
    other = peer_connectors.TorchConnector(theirs, torch.tensor(WEIGHTS))
    x = torch.randn(3, 2, dtype=dtype)
    values, jacobian = theirs.forward(x.numpy(), WEIGHTS), theirs.backward(x.numpy(), WEIGHTS)
    shape = theirs.output_shape
    cotangent = torch.randn(3, *shape, dtype=dtype)
    flat = cotangent.double().numpy().reshape(3, -1)
    by_x, by_w = (np.einsum("bm,bmk->bk", flat, j.reshape(3, flat.shape[1], -1)) for j in jacobian)
    for layer in layers:
        layer.to(dtype)
        inputs = x.clone().requires_grad_()
        out = layer(inputs)
        out.backward(cotangent)
        scale = 10 if dtype == torch.float32 else 1  # of sums over samples and outputs
        assert out.detach().numpy() == pytest.approx(values, abs=tolerance)
        assert inputs.grad.numpy() == pytest.approx(by_x, abs=tolerance * scale)
        assert layer.weight.grad.numpy() == pytest.approx(by_w.sum(0), abs=tolerance * scale)
        assert out.detach().float() == pytest.approx(other(x.float()).detach(), abs=2e-6)


# ---------------------------------------------------------------- the constructor


def test_initial_weights_are_drawn_as_theirs() -> None:
    qnn = network(peer, "default")
    torch.manual_seed(5)
    theirs = peer_connectors.TorchConnector(qnn).weight
    torch.manual_seed(5)
    mine = TorchConnector(qnn).weight
    assert (theirs == mine).all() and mine.dtype == torch.float32 and isinstance(mine, nn.Parameter)


@pytest.mark.parametrize("given", [WEIGHTS, WEIGHTS.tolist(), torch.tensor(WEIGHTS), torch.tensor(WEIGHTS).float()])
def test_initial_weights(given: Any) -> None:
    layer = TorchConnector(network(ours, "default"), given)
    assert layer.weight.dtype == torch.float32 and layer.weight.tolist() == pytest.approx(WEIGHTS)
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    assert layer._weights is layer.weight


@pytest.mark.parametrize("given", [[1.0], np.zeros(5), torch.zeros(2, 4)])
def test_a_wrong_number_of_initial_weights(given: Any) -> None:
    with pytest.raises(ShapeError, match="the network has 4"):
        TorchConnector(network(peer, "default"), given)


@each_package
def test_a_wrong_width(package: Any) -> None:
    from qiskit_machine_learning import QiskitMachineLearningError

    layer = TorchConnector(network(package, "parity"))
    for x in (torch.ones(1, 3), torch.ones(1), torch.tensor(1.0), None):
        with pytest.raises(QiskitMachineLearningError, match=r"expects \(\.\.\., 2\)") as caught:
            layer(x)
        assert isinstance(caught.value, ShapeError) and isinstance(caught.value, QtmError)


@each_package
@pytest.mark.parametrize("kind", ["default", "outcomes"])
def test_no_input(package: Any, kind: str) -> None:
    case = random_case(30)
    bound = case.circuit.assign_parameters(dict(zip(case.inputs, [0.2, 1.4], strict=True)))
    case = Case(bound, [], case.weights)
    layer = TorchConnector(network(package, kind, case), WEIGHTS).double()
    want = expected(kind, np.array([[0.2, 1.4]]), WEIGHTS)[0]
    assert layer().shape == layer.neural_network.output_shape
    assert layer().detach().numpy() == pytest.approx(want, abs=1e-7)
    assert layer(torch.zeros(3, 0)).shape == (3, *layer.neural_network.output_shape)
    layer().sum().backward()
    assert layer.weight.grad is not None


@each_package
def test_no_weights(package: Any) -> None:
    case = random_case(30)
    case = Case(case.circuit, [*case.inputs, *case.weights], [])
    layer = TorchConnector(network(package, "default", case))
    x = torch.tensor([[0.2, 1.4, *WEIGHTS]], requires_grad=True)
    out = layer(x)
    out.sum().backward()
    want = expected("default", np.array([[0.2, 1.4]]), WEIGHTS)
    assert out.detach().numpy() == pytest.approx(want, abs=1e-6) and x.grad.abs().max() > 0.01
    assert not list(layer.parameters()) or layer.weight.numel() == 0


def test_whole_numbers_and_lists_as_inputs() -> None:
    layer = TorchConnector(network(peer, "default"), WEIGHTS)
    want = pytest.approx(expected("default", [[1, 2]], WEIGHTS), abs=1e-6)
    for x in (torch.tensor([[1, 2]]), [[1, 2]], np.array([[1.0, 2.0]])):
        assert layer(x).detach().numpy() == want


# ---------------------------------------------------------------- which way it goes

# network, its arguments, the way
WAYS: list[tuple[str, dict[str, Any], str]] = [
    ("default", {"estimator": None}, "fast"),
    ("default", {"estimator": StatevectorEstimator()}, "fast"),
    ("default", {"estimator": FastEstimator()}, "fast"),
    ("default", {"estimator": peer_primitives.QMLEstimator()}, "fast"),
    ("default", {"estimator": peer_primitives.QMLEstimator(), "default_precision": 0.1}, "fast"),
    ("default", {"estimator": StatevectorEstimator(), "default_precision": 0.1}, "network"),
    ("default", {"estimator": StatevectorEstimator(default_precision=0.1)}, "network"),
    ("default", {"estimator": peer_primitives.QMLEstimator(default_precision=0.1)}, "network"),
    ("default", {"estimator": type("Mine", (StatevectorEstimator,), {})()}, "network"),
    ("parity", {"sampler": None}, "fast"),
    ("parity", {"sampler": StatevectorSampler()}, "fast"),
    ("parity", {"sampler": FastSampler(seed=1)}, "fast"),
    ("parity", {"sampler": peer_primitives.QMLSampler()}, "fast"),
    ("parity", {"sampler": peer_primitives.QMLSampler(shots=100)}, "network"),
    ("parity", {"sampler": StatevectorSampler(default_shots=100)}, "network"),
    ("parity", {"sampler": FastSampler(default_shots=100)}, "network"),
]


@each_package
@pytest.mark.parametrize(("kind", "change", "way"), WAYS)
def test_the_way_is_chosen_and_visible(package: Any, kind: str, change: dict[str, Any], way: str) -> None:
    layer = TorchConnector(network(package, kind, **change), WEIGHTS)
    assert layer.execution == way and f"execution={way!r}" in repr(layer)


def test_the_way_follows_the_estimator() -> None:
    qnn = network(peer, "default")
    layer = TorchConnector(qnn)
    qnn.estimator = StatevectorEstimator(default_precision=0.1)
    assert layer.execution == "network"


def test_the_way_can_be_forced() -> None:
    noisy = network(peer, "default", estimator=StatevectorEstimator(default_precision=0.1, seed=1))
    x = torch.randn(3, 2)
    want = pytest.approx(expected("default", x.double().numpy(), WEIGHTS), abs=1e-6)
    assert TorchConnector(noisy, WEIGHTS, execution="fast")(x).detach().numpy() == want
    assert TorchConnector(noisy, WEIGHTS)(x).detach().numpy() != want
    with pytest.raises(ParameterError, match="'fast', 'network' or None"):
        TorchConnector(noisy, execution="slow")


class Doubler(peer.NeuralNetwork):
    """A network without a circuit: outputs x * w, for each input."""

    def __init__(self, gives_input_gradients: bool = True) -> None:
        super().__init__(2, 2, False, 2)
        self.gives_input_gradients = gives_input_gradients

    def _forward(self, input_data: Any, weights: Any) -> Any:
        return input_data * weights

    def _backward(self, input_data: Any, weights: Any) -> Any:
        by_w = np.stack([np.diag(row) for row in input_data])
        gives = self.input_gradients and self.gives_input_gradients
        return (np.stack([np.diag(weights)] * len(input_data)) if gives else None), by_w


def test_any_network() -> None:
    layer = TorchConnector(Doubler(), [2.0, 3.0])
    assert layer.execution == "network"
    x = torch.tensor([[1.0, 4.0], [5.0, 6.0]], requires_grad=True)
    out = layer(x)
    assert out.tolist() == [[2, 12], [10, 18]]
    out.sum().backward()
    # Input gradients, though the network was not made with input_gradients=True: theirs leaves them out.
    assert x.grad.tolist() == [[2, 3], [2, 3]] and layer.weight.grad.tolist() == [6, 10]
    assert not layer.neural_network.input_gradients
    with pytest.raises(ParameterError, match="Doubler"):
        TorchConnector(Doubler(), execution="fast")


def test_a_network_without_input_gradients_is_never_silent() -> None:
    layer = TorchConnector(Doubler(gives_input_gradients=False), [2.0, 3.0])
    layer(torch.ones(1, 2)).sum().backward()
    with pytest.raises(RuntimeError, match="detach"):
        layer(torch.ones(1, 2, requires_grad=True)).sum().backward()


def test_a_subclass_with_its_own_forward_keeps_it() -> None:
    class Shifted(peer.EstimatorQNN):
        def _forward(self, input_data: Any, weights: Any) -> Any:
            return super()._forward(input_data, weights) + 1

    case = random_case(30)
    layer = TorchConnector(Shifted(**case.arguments()), WEIGHTS)
    assert layer.execution == "network"
    assert layer([[0.1, 0.2]]).item() == pytest.approx(1 + expected("default", [[0.1, 0.2]], WEIGHTS).item(), abs=1e-6)


def test_networks_that_cannot_be_simulated_run_by_themselves(caplog: pytest.LogCaptureFixture) -> None:
    case = random_case(30)
    case.circuit.reset(0)
    with caplog.at_level(logging.INFO, "qtm"):
        assert TorchConnector(peer.EstimatorQNN(**case.arguments())).execution == "network"
    assert "reset" in caplog.text


def test_inputs_get_gradients_without_a_flag() -> None:
    """Theirs gives none unless the network was made with input_gradients=True; a layer before it does not learn."""
    for package in PACKAGES:
        model = nn.Sequential(nn.Linear(3, 2), TorchConnector(network(package, "default", input_gradients=False)))
        model(torch.ones(4, 3)).sum().backward()
        assert model[0].weight.grad.abs().max() > 1e-4


def test_a_changed_interpretation_is_followed() -> None:
    for package in PACKAGES:
        qnn = network(package, "parity")
        layer = TorchConnector(qnn, WEIGHTS).double()
        layer([[0.1, 0.2]])
        qnn.set_interpret(lambda outcome: 0, 1)
        assert layer([[0.1, 0.2]]).tolist() == [[pytest.approx(1.0)]]


# ---------------------------------------------------------------- layouts, on their networks


@pytest.mark.parametrize(("width", "layout"), [(3, (2, 0, 1)), (5, (4, 2, 3))])
def test_default_observables_follow_the_layout(width: int, layout: tuple[int, ...]) -> None:
    case = random_case(31)
    for change, circuit in (
        ({"pass_manager": pass_manager(width, layout)}, case.circuit),
        ({}, pass_manager(width, layout).run(case.circuit)),
    ):
        qnn = peer.EstimatorQNN(**{**case.arguments(), "circuit": circuit}, **change)
        layer = TorchConnector(qnn, WEIGHTS).double()
        assert layer.execution == "fast"
        x = torch.randn(3, 2, dtype=torch.float64)
        assert layer(x).detach().numpy() == pytest.approx(case.expectations(x.numpy(), layer.weight.tolist(), ["ZZZ"]))


def test_a_register_of_any_name_and_a_measured_isa_circuit() -> None:
    case = random_case(32)
    measured = QuantumCircuit(3, 3)  # its register is called "c": theirs averages over the batch
    measured.compose(case.circuit, inplace=True)
    measured.measure([0, 1, 2], [0, 1, 2])
    x = torch.randn(3, 2, dtype=torch.float64)
    for circuit in (measured, pass_manager(5, (4, 2, 3)).run(measured)):
        qnn = peer.SamplerQNN(**{**case.arguments(), "circuit": circuit})
        layer = TorchConnector(qnn, WEIGHTS).double()
        assert layer.execution == "fast"
        want = case.probabilities(x.numpy(), layer.weight.tolist())
        assert layer(x).detach().numpy() == pytest.approx(want, abs=1e-10)


def test_amplitude_encoding() -> None:
    """Theirs raises in backward."""
    library = pytest.importorskip("qiskit_machine_learning.circuit.library")
    features, ansatz = library.raw_feature_vector(4), real_amplitudes(2, reps=1)
    circuit = QuantumCircuit(2)
    circuit.compose(features, inplace=True)
    circuit.compose(ansatz, inplace=True)
    for package in PACKAGES:
        for name in ("EstimatorQNN", "SamplerQNN"):
            qnn = getattr(package, name)(
                circuit=circuit, input_params=features.parameters, weight_params=ansatz.parameters
            )
            layer = TorchConnector(qnn, WEIGHTS).double()
            assert layer.execution == "fast"
            x = torch.tensor([[0.5, -1.0, 2.0, 0.25], [1.0, 1.0, 0.1, -3.0]], dtype=torch.float64, requires_grad=True)
            assert torch.autograd.gradcheck(layer, (x,), eps=1e-6, atol=1e-6)
            layer(x)[..., 0].sum().backward()
            slope = differences(lambda w, f=layer, at=x: _with(f, w, at), layer.weight.detach().numpy())
            assert layer.weight.grad.numpy() == pytest.approx(slope, abs=1e-6)


def _with(layer: TorchConnector, weights: np.ndarray, x: Tensor) -> np.ndarray:
    with torch.no_grad():
        out = torch.func.functional_call(layer, {"weight": torch.from_numpy(weights)}, (x,))
    return out[..., 0].sum().numpy()


# ---------------------------------------------------------------- sparse


@each_package
@pytest.mark.parametrize("kind", ["outcomes", "parity", "pairs"])
@pytest.mark.parametrize("execution", ["fast", "network"])
@pytest.mark.thinned(5)
def test_sparse(package: Any, kind: str, execution: str) -> None:
    if package is peer or execution == "network":
        pytest.importorskip("sparse")
    sparse_net, dense_net = network(package, kind, sparse=True), network(package, kind)
    layer = TorchConnector(sparse_net, WEIGHTS, execution=execution)
    assert layer.sparse and layer.execution == execution
    dense = TorchConnector(dense_net, WEIGHTS)
    x = torch.randn(4, 2)
    out, other = layer(x), dense(x)
    assert out.is_sparse and out.shape == other.shape
    assert torch.allclose(out.to_dense(), other, atol=1e-6)
    out.to_dense().pow(2).sum().backward()
    other.pow(2).sum().backward()
    assert layer.weight.grad.is_sparse
    assert torch.allclose(layer.weight.grad.to_dense(), dense.weight.grad, atol=1e-5)
    dense_out = TorchConnector(sparse_net, WEIGHTS, sparse=False, execution=execution)(x)
    assert not dense_out.is_sparse and torch.allclose(dense_out, other, atol=1e-6)


def test_sparse_gradients_in_and_of_inputs() -> None:
    layer = TorchConnector(network(ours, "outcomes", sparse=True), WEIGHTS)
    dense = TorchConnector(network(ours, "outcomes"), WEIGHTS)
    x, y = (torch.randn(3, 2).requires_grad_() for _ in range(2))
    y.data.copy_(x.data)
    torch.sparse.sum(layer(x)).backward(retain_graph=True)
    layer(x.detach().to_sparse()).to_dense()  # sparse inputs
    cotangent = torch.randn(3, 8)
    x.grad = None
    torch.autograd.backward(layer(x), cotangent.to_sparse())
    dense(y).backward(cotangent)
    assert x.grad.is_sparse and torch.allclose(x.grad.to_dense(), y.grad, atol=1e-5)
    model = nn.Sequential(nn.Linear(3, 2), layer)
    model(torch.ones(4, 3)).to_dense().pow(2).sum().backward()
    assert model[0].weight.grad.abs().max() > 0


@each_package
def test_sparse_needs_a_sparse_network(package: Any) -> None:
    from qiskit_machine_learning import QiskitMachineLearningError

    with pytest.raises(QiskitMachineLearningError, match="sparse"):
        TorchConnector(network(package, "parity"), sparse=True)
