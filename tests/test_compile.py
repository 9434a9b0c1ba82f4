"""Modules under torch's compiler: one graph, the weights of eager training, export, and what is refused."""

from __future__ import annotations

import copy
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import real_amplitudes
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from qtm import FastEstimator, HybridModule, QuantumModule, TrainableNoise, UnsupportedError, depolarizing_noise
from qtm._engines.statevector.buffer_pool import POOL
from qtm._torch.compiled_modules import module_named
from qtm._torch.operators import outputs as outputs_of_a_module
from qtm._torch.operators import pull_back

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
# Inductor writes C++.
BACKENDS = ["aot_eager", pytest.param("inductor", marks=pytest.mark.skipif(not shutil.which("g++"), reason="no g++"))]
X, W, V = ParameterVector("x", 2), ParameterVector("w", 3), ParameterVector("v", 2)


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def circuit(*, sine: bool = False) -> QuantumCircuit:
    """Two qubits; with ``sine``, an angle that is no sum of monomials."""
    made = QuantumCircuit(2)
    made.ry(X[0] * V[0], 0)
    made.rx(X[1].sin() if sine else X[1], 1)
    made.rz(W[0], 0)
    made.cx(0, 1)
    made.ry(W[1] + V[1], 1)
    made.rx(W[2], 0)
    made.global_phase = W[0] / 2
    return made


def module(*, sine: bool = False, dtype: torch.dtype = torch.float64, **settings) -> QuantumModule:
    return QuantumModule(circuit(sine=sine), list(X), [list(W), list(V)], seed_init=3, **settings).to(dtype)


def rows(count: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, 2, dtype=dtype, generator=torch.Generator().manual_seed(count))


def loss(values: Tensor) -> Tensor:
    return (values * torch.arange(1, values.shape[-1] + 1)).abs().square().sum() + (values * (0.3 + 0.1j)).real.sum()


def trained(
    model: nn.Module, called: nn.Module, inputs: Tensor, steps: int = 4, kind: type = torch.optim.Adam
) -> tuple[list[Tensor], Tensor]:
    """Weights of ``model`` after steps on what ``called`` gives, and the last derivative by the inputs."""
    optimizer = kind(model.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        inputs.grad = None
        loss(called(inputs)).backward()
        optimizer.step()
    by_inputs = torch.zeros(0) if inputs.grad is None else inputs.grad
    return [p.detach().clone() for p in model.parameters()], by_inputs


@pytest.mark.parametrize("by_inputs", [False, True])
@pytest.mark.parametrize(
    ("outputs", "dtype", "sine"),
    [
        ("expectation", torch.float64, False),
        ("expectation", torch.float32, True),
        ("probabilities", torch.float64, True),
        ("state", torch.float64, False),
        ("state", torch.float32, True),
    ],
)
def test_training_compiled_gives_the_weights_of_eager_training(outputs, by_inputs, dtype, sine):
    model = module(outputs=outputs, dtype=dtype, sine=sine)
    eager = copy.deepcopy(model)
    found = trained(
        model, torch.compile(model, backend="aot_eager", fullgraph=True), rows(5, dtype).requires_grad_(by_inputs)
    )
    expected = trained(eager, eager, rows(5, dtype).requires_grad_(by_inputs))
    tolerance = 1e-12 if dtype is torch.float64 else 1e-5
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("backend", ["eager", *BACKENDS])
def test_a_hybrid_module_is_one_graph(backend):
    torch.manual_seed(1)
    model = HybridModule(circuit(), list(X), [list(W), list(V)], 3, 2, seed_init=0).double()
    eager, inputs = copy.deepcopy(model), torch.randn(6, 3, dtype=torch.float64)
    assert torch._dynamo.explain(model)(inputs).graph_break_count == 0
    torch._dynamo.reset()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    # Inductor rounds linear layers in another way, and Adam would blow the last digits of small derivatives up.
    found = trained(model, compiled, inputs.clone().requires_grad_(), kind=torch.optim.SGD)
    expected = trained(eager, eager, inputs.requires_grad_(), kind=torch.optim.SGD)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(2,), (3, 2), (2, 3, 2), (0, 2)])
def test_any_shape(shape):
    model, inputs = module(), torch.rand(shape, dtype=torch.float64)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(inputs), model(inputs), rtol=0, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(compiled(inputs), model(inputs), rtol=0, atol=1e-12)


@pytest.mark.parametrize("by_inputs", [False, True])
def test_matrix_product_states(by_inputs):
    """They are torch code, and take conjugates, which torch's dispatcher leaves to later."""
    model = module(method="matrix_product_state")
    eager, inputs = copy.deepcopy(model), rows(3)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(inputs), eager(inputs), rtol=0, atol=1e-12)
    found = trained(model, compiled, inputs.clone().requires_grad_(by_inputs), steps=2)
    expected = trained(eager, eager, inputs.requires_grad_(by_inputs), steps=2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_circuit_without_inputs():
    made = circuit().assign_parameters({X[0]: 0.3, X[1]: 0.4})
    model = QuantumModule(made, None, [list(W), list(V)], seed_init=0)
    eager = copy.deepcopy(model)
    model.compile(backend="aot_eager", fullgraph=True)
    for each in (model, eager):
        each().sum().backward()
    torch.testing.assert_close([p.grad for p in model.parameters()], [p.grad for p in eager.parameters()])


def test_trained_noise():
    model = module(noise=TrainableNoise({"cx": "depolarizing"}))
    eager = copy.deepcopy(model)
    found = trained(model, torch.compile(model, backend="aot_eager", fullgraph=True), rows(4))
    torch.testing.assert_close(found, trained(eager, eager, rows(4)), rtol=0, atol=1e-12)


def test_batches_of_any_size_share_a_graph():
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    model = module()
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for count in (5, 3, 8, 48):
        inputs = rows(count)
        torch._dynamo.mark_dynamic(inputs, 0)
        torch.testing.assert_close(compiled(inputs), model(inputs), rtol=0, atol=1e-12)
        loss(compiled(inputs)).backward()
    assert counter.frame_count == 1


def test_a_graph_belongs_to_one_module():
    """Modules of one class share their code, and so would share a graph that did not say whose it is."""
    models = [module(), module(observables=["XX", "YZ"])]
    models.append(copy.deepcopy(models[0]))
    models.append(pickle.loads(pickle.dumps(models[1])))
    with torch.no_grad():
        models[2].variational_0 += 0.5
    assert len({m._operator_name for m in models}) == len(models)
    for each in models:
        compiled = torch.compile(each, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(rows(3)), each(rows(3)), rtol=0, atol=1e-12)


def test_threads_may_change_after_compiling():
    model = module()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    before = compiled(rows(3))
    model.set_num_threads_forward(1)
    torch.testing.assert_close(compiled(rows(3)), before, rtol=0, atol=1e-12)


def test_a_second_backward_pass():
    model, inputs = module(), rows(3).requires_grad_()
    value = loss(torch.compile(model, backend="aot_eager", fullgraph=True)(inputs))
    (first,) = torch.autograd.grad(value, inputs, retain_graph=True)
    (second,) = torch.autograd.grad(value, inputs)
    torch.testing.assert_close(second, first, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("outputs", "dtype", "by"),
    [
        ("expectation", torch.float64, (False, False, False)),
        ("expectation", torch.float32, (True, True, True)),
        ("probabilities", torch.float64, (False, True, True)),
        ("state", torch.float64, (True, False, True)),
    ],
)
def test_the_operators_keep_their_contract(outputs, dtype, by):
    model = module(outputs=outputs, dtype=dtype)
    model(rows(1, dtype))
    torch.compile(model, backend="eager")(rows(1, dtype))  # defines the operators
    tensors = [rows(3, dtype), *(p.detach().clone() for p in model.parameters())]
    inputs, *sets = [t.requires_grad_(wanted) for t, wanted in zip(tensors, by, strict=True)]
    arguments = model._operator_name, inputs, sets, list(by)
    torch.library.opcheck(torch.ops.qtm.outputs.default, arguments)
    values, ticket = torch.ops.qtm.outputs(*arguments)
    fixed = arguments[0], inputs.detach(), [s.detach() for s in sets], list(by), ticket, values.detach()
    if any(by):
        torch.library.opcheck(torch.ops.qtm.pull_back.default, fixed)


@pytest.mark.parametrize("strict", [False, True])
def test_export(strict):
    model = nn.Sequential(nn.Linear(3, 2), module(dtype=torch.float32), nn.Linear(2, 1))
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (torch.rand(3, 3),), dynamic_shapes=({0: batch},), strict=strict)
    inputs = torch.rand(7, 3)
    torch.testing.assert_close(program.module()(inputs), model(inputs))


def test_an_exported_program_needs_its_module(tmp_path):
    program = torch.export.export(module(), (rows(3),))
    torch.export.save(program, tmp_path / "program.pt2")
    script = (
        "import sys, torch, qtm._torch.operators; torch.export.load(sys.argv[1]).module()(torch.rand(3, 2).double())"
    )
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path / "program.pt2")], capture_output=True, text=True)
    assert "does not exist in this process" in run.stderr


def test_an_unknown_name_is_refused():
    with pytest.raises(UnsupportedError, match=r"QuantumModule 123, which does not exist.*torch\.save"):
        module_named("123")
    name = module()._operator_name
    with pytest.raises(UnsupportedError, match="Keep the module as long as the graph"):
        module_named(name)


@pytest.mark.parametrize("backend", ["aot_eager", "eager"])
def test_second_derivatives_are_refused(backend):
    compiled, inputs = torch.compile(module(), backend=backend, fullgraph=True), rows(2).requires_grad_()
    (first,) = torch.autograd.grad(loss(compiled(inputs)), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="does not currently support double backward|second derivative.*compiled"):
        first.sum().backward()


RANDOM = {
    "estimator with shots": {"estimator": FastEstimator(default_precision=0.1, seed=1)},
    "spsa": {"gradient": ("spsa", {"seed": 1})},
    "param-shift": {"gradient": "param-shift"},
    "trajectories": {"noise": depolarizing_noise(0.1), "method": ("trajectories", {"count": 3, "seed": 1})},
}


@pytest.mark.parametrize("name", RANDOM)
def test_random_values_stay_out_of_the_graph(name):
    """A compiler takes equal calls for one; these have their own values, so the graph breaks there."""
    model, inputs = module(**RANDOM[name]), rows(2)
    assert model._operator_name is None
    whole = nn.Sequential(nn.Linear(2, 2).double(), model)
    found, expected = torch.compile(whole, backend="aot_eager")(inputs), whole(inputs)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    found.sum().backward()
    assert all(p.grad is not None for p in whole.parameters())


def test_an_exact_estimator_of_ours_is_in_the_graph():
    model = module(estimator=FastEstimator())
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(rows(2)), module()(rows(2)), rtol=0, atol=1e-12)


TRANSFORMS = {
    "grad": lambda f, x: torch.func.grad(lambda y: loss(f(y)))(x),
    "vmap": lambda f, x: torch.func.vmap(f)(x),
    "jvp": lambda f, x: torch.func.jvp(f, (x,), (x,))[1],
    "jacrev": lambda f, x: torch.func.jacrev(f)(x),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_of_a_compiled_module(name):
    model = module()
    compiled = torch.compile(model, backend="aot_eager")
    compiled(rows(3))
    torch.testing.assert_close(TRANSFORMS[name](compiled, rows(3)), TRANSFORMS[name](model, rows(3)))


needs_vmap = pytest.mark.skipif(
    not hasattr(outputs_of_a_module, "register_vmap"), reason="torch 2.4 has no batches of custom operators"
)


@pytest.mark.parametrize("name", [pytest.param("vmap", marks=needs_vmap), "jvp"])
def test_compiled_transforms(name):
    """Not those of `torch.func.grad`, which torch refuses for operators of Python."""
    model = module()
    compiled = torch.compile(lambda x: TRANSFORMS[name](model, x), backend="aot_eager")
    torch.testing.assert_close(compiled(rows(3)), TRANSFORMS[name](model, rows(3)))


@needs_vmap
def test_vmap_over_weights():
    model = module()
    weights = {name: torch.stack([p.detach(), p.detach() + 1]) for name, p in model.named_parameters()}

    def ensemble(inputs: Tensor) -> Tensor:
        return torch.func.vmap(lambda w: torch.func.functional_call(model, w, (inputs,)))(weights)

    compiled = torch.compile(ensemble, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(rows(3)), ensemble(rows(3)), rtol=0, atol=1e-12)


def test_importing_does_not_import_the_compiler():
    script = "import sys, qtm; print('torch._dynamo' in sys.modules, 'qtm._torch.operators' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]


def test_the_compiler_does_not_trace_the_arrays_of_an_engine():
    """It read views of NumPy arrays as tensors of other sizes, and kernels wrote beyond them."""
    made = real_amplitudes(2, reps=1)
    module = QuantumModule(made, list(made.parameters[:1]), list(made.parameters[1:]), seed_init=0).double()
    inputs, tangent = torch.rand(3, 1, dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64)

    def pushed(x):
        return torch.func.jvp(module, (x,), (tangent,))[1]

    torch.testing.assert_close(torch.compile(pushed, backend="eager")(inputs), pushed(inputs), atol=1e-12, rtol=0)
    for kind, spare in POOL._spare.items():
        if str(kind).startswith("states"):
            _, tiles, numbers, _ = kind.split()
            assert {buffer.shape for buffer, _ in spare} <= {(int(tiles), int(numbers))}


# GPUs, without one


@contextmanager
def without_memory() -> Iterator[None]:
    """Tensors have a device, a shape and a dtype, and no memory: those of a GPU need none."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        yield


class Preceded(nn.Module):
    """A linear layer and a quantum module."""

    def __init__(self, quantum: nn.Module) -> None:
        super().__init__()
        self.linear, self.quantum = nn.Linear(3, 2).double(), quantum

    def forward(self, inputs: Tensor) -> Tensor:
        return self.quantum(torch.tanh(self.linear(inputs)))


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("outputs", ["expectation", "probabilities", "state"])
def test_a_module_on_a_gpu_is_one_operator(outputs, strict):
    """The whole graph, without a break; what comes out of the operator is on the GPU."""
    model = Preceded(module(outputs=outputs))
    with without_memory():
        for owner in model.modules():
            for name, parameter in list(owner.named_parameters(recurse=False)):
                moved = torch.empty(parameter.shape, dtype=torch.float64, device="cuda")
                owner._parameters[name] = nn.Parameter(moved, requires_grad=False)
        inputs = torch.empty(5, 3, dtype=torch.float64, device="cuda")
        graph = torch.export.export(model, (inputs,), strict=strict).graph
    (node,) = [node for node in graph.nodes if node.target is torch.ops.qtm.outputs.default]
    values, ticket = node.meta["val"]
    assert values.device.type == "cuda" and values.shape == (5, model.quantum.output_size)
    assert values.is_complex() == (outputs == "state") and ticket.device.type == "cpu"
    (last,) = [node for node in graph.nodes if node.op == "output"]
    assert last.args[0][0].meta["val"].device.type == "cuda"


def test_derivatives_of_a_module_on_a_gpu_stay_there():
    model = module()
    shapes = (5, 2), *(one.shape for one in model.variational_)
    with without_memory():
        inputs, *sets = (torch.empty(shape, dtype=torch.float64, device="cuda") for shape in shapes)
        values, ticket = outputs_of_a_module(model._operator_name, inputs, sets, [True] * (1 + len(sets)))
        assert (values.device.type, ticket.device.type) == ("cuda", "cpu")
        by = [True, *[False] * (len(sets) - 1), True]
        found = pull_back(model._operator_name, inputs, sets, by, ticket, values)
    assert [(f.shape, f.device.type) for f in found] == [(t.shape, "cuda") for t in (inputs, sets[-1])]


def test_operators_run_where_tensors_are():
    """Also on GPUs, where no CUDA graph of torch's compiler replays them without Python, which holds residuals."""
    for name in ("outputs", "pull_back"):
        operator = getattr(torch.ops.qtm, name).default
        for key in ("CPU", "CUDA"):
            assert torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), key)
        if hasattr(torch.Tag, "cudagraph_unsafe"):
            assert torch.Tag.cudagraph_unsafe in operator.tags
