"""What torch does with modules: saving, copying, loading in workers, compiling, training in several processes."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from torch import nn
from torch.utils.data import DataLoader, Dataset

from qtm import HybridModule, QuantumModule

X, W, V = ParameterVector("x", 2), ParameterVector("w", 3), ParameterVector("v", 2)


def circuit() -> QuantumCircuit:
    made = QuantumCircuit(2)
    made.ry(X[0] * W[0], 0)
    made.rx(X[1], 1)
    made.cx(0, 1)
    made.rz(W[1] + V[0], 1)
    made.ry(W[2].sin(), 0)
    made.crx(V[1], 1, 0)
    return made


def module(**options) -> QuantumModule:
    return QuantumModule(circuit(), X, [W, V], **{"seed_init": 0, **options})


def hybrid(**options) -> HybridModule:
    return HybridModule(circuit(), X, [W, V], 4, 3, **{"seed_init": 0, **options})


MODULES = {"quantum": (module, 2), "hybrid": (hybrid, 4)}


@pytest.fixture(params=MODULES)
def made(request):
    build, width = MODULES[request.param]
    return build(), build(seed_init=1), torch.linspace(-2, 2, 5 * width).reshape(5, width)


# Saving and copying


def test_state_dict(made):
    source, target, inputs = made
    assert not torch.equal(source(inputs), target(inputs))
    result = target.load_state_dict(source.state_dict())
    assert not result.missing_keys and not result.unexpected_keys
    torch.testing.assert_close(source(inputs), target(inputs))
    assert set(module().state_dict()) == {"variational_0", "variational_1"}


def test_torch_save_of_weights(made, tmp_path):
    source, target, inputs = made
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    target.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    torch.testing.assert_close(source(inputs), target(inputs))


def test_torch_save_of_the_module(made, tmp_path):
    source, _, inputs = made
    torch.save(source, tmp_path / "module.pt")
    torch.testing.assert_close(torch.load(tmp_path / "module.pt", weights_only=False)(inputs), source(inputs))


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda m: pickle.loads(pickle.dumps(m))}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("used", [False, True])
def test_copies(made, how, used):
    source, _, inputs = made
    if used:
        source(inputs).sum().backward()
        source.zero_grad()
    other = COPIES[how](source)
    torch.testing.assert_close(other(inputs), source(inputs))
    for mine, theirs in zip(source.parameters(), other.parameters(), strict=True):
        assert mine is not theirs and mine.data_ptr() != theirs.data_ptr()
    with torch.no_grad():
        next(other.parameters()).add_(0.5)
    assert not torch.equal(other(inputs), source(inputs))
    assert repr(other) == repr(source)
    other(inputs).sum().backward()


@pytest.mark.parametrize("how", COPIES)
def test_an_executor_is_shared_by_copies_and_left_behind_by_pickles(how):
    with ThreadPoolExecutor(2) as pool:
        source = module(executor=pool)
        other = COPIES[how](source)
        torch.testing.assert_close(other(torch.ones(3, 2)), source(torch.ones(3, 2)))
        assert other._settings.executor is (pool if how == "deepcopy" else None)


def test_moving_averages_of_weights():
    source = hybrid()
    averaged = torch.optim.swa_utils.AveragedModel(source)
    averaged.update_parameters(source)
    torch.testing.assert_close(averaged(torch.ones(2, 4)), source(torch.ones(2, 4)))


# dtypes


def test_dtype_follows_the_parameters(made):
    source, _, inputs = made
    single = source(inputs)
    assert single.dtype == torch.float32
    double = source.double()(inputs)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, atol=1e-5, rtol=0)
    assert not torch.equal(double, single.double())  # it is computed in double, not only returned so
    torch.testing.assert_close(source.float()(inputs.double()), single)
    assert source.to(torch.float64)(inputs).dtype == torch.float64


def test_the_default_dtype_of_torch():
    torch.set_default_dtype(torch.float64)
    try:
        made = module()
        assert made.variational_0.dtype == torch.float64 and made(torch.ones(1, 2)).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


# DataLoader workers


class Encoded(Dataset):
    """Samples that a module computes in the worker, with their gradients."""

    def __init__(self, source: QuantumModule) -> None:
        self.module, self.inputs = source, torch.linspace(-2, 2, 12).reshape(6, 2)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, number: int) -> torch.Tensor:
        inputs = self.inputs[number].clone().requires_grad_()
        values = self.module(inputs)
        values.sum().backward()
        return torch.cat([values.detach(), inputs.grad])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_dataloader_workers(method):
    data = Encoded(module(num_threads_forward=2))
    expected = torch.stack([data[i] for i in range(6)])  # kernels and threads have run before workers start
    loader = DataLoader(data, batch_size=2, num_workers=2, multiprocessing_context=method)
    torch.testing.assert_close(torch.cat(list(loader)), expected)


# Distributed data-parallel training


def train(rank: int, world: int, port: int, results) -> None:
    import torch.distributed as distributed
    from torch.nn.parallel import DistributedDataParallel

    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    try:
        results.put((rank, _trained(DistributedDataParallel(hybrid(num_threads_forward=1)), rank, world)))
    finally:
        distributed.destroy_process_group()


def _trained(model: nn.Module, rank: int, world: int) -> list:
    inputs = torch.linspace(-2, 2, 32).reshape(8, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(inputs[rank::world]).square().mean().backward()
        optimizer.step()
    return [p.detach().tolist() for p in model.parameters()]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_two_process_data_parallel_training():
    context = multiprocessing.get_context("spawn")
    results, port = context.Queue(), _free_port()
    workers = [context.Process(target=train, args=(rank, 2, port, results)) for rank in range(2)]
    for worker in workers:
        worker.start()
    found = dict(results.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    alone = _trained(hybrid(), 0, 1)
    for rank in range(2):
        for mine, expected in zip(found[rank], alone, strict=True):
            torch.testing.assert_close(torch.tensor(mine), torch.tensor(expected), atol=1e-5, rtol=1e-4)


# Other parts of torch


def test_in_a_sequential_with_hooks_and_modes():
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), module(), nn.BatchNorm1d(2), nn.Linear(2, 1))
    seen = []
    model[2].register_forward_hook(lambda m, i, o: seen.append(o.shape))
    model[2].register_full_backward_hook(lambda m, i, o: seen.append(o[0].shape))
    model.train()(torch.randn(4, 3)).sum().backward()
    assert seen == [torch.Size([4, 2])] * 2
    assert all(p.grad is not None for p in model.parameters())
    assert model.eval()(torch.randn(4, 3)).shape == (4, 1)


def test_share_memory():
    source = module().share_memory()
    assert source.variational_0.is_shared()
    source(torch.ones(1, 2)).sum().backward()


def test_checkpointing_recomputes():
    from torch.utils.checkpoint import checkpoint

    source, inputs = module(), torch.randn(3, 2, requires_grad=True)
    expected = torch.autograd.grad(source(inputs).sum(), inputs)[0]
    values = checkpoint(source, inputs, use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(values.sum(), inputs)[0], expected)


def test_parametrized_weights():
    """Weights are looked up when the module is called, by their registered names."""
    from torch.nn.utils import parametrize

    class Wrapped(nn.Module):
        def forward(self, angles):
            return torch.remainder(angles, 1.0)

    source = module()
    expected = torch.func.functional_call(
        source, {"variational_0": torch.remainder(source.variational_0, 1.0)}, torch.ones(1, 2)
    )
    parametrize.register_parametrization(source, "variational_0", Wrapped())
    torch.testing.assert_close(source(torch.ones(1, 2)), expected)


def test_replaced_and_frozen_weights():
    source = module()
    source.variational_0 = nn.Parameter(torch.zeros(3))
    source.requires_grad_(False)
    assert not source(torch.ones(1, 2)).requires_grad
    torch.testing.assert_close(source(torch.zeros(1, 2))[0, 1], torch.tensor(1.0))


def test_optimizers_and_schedules():
    for build in (torch.optim.Adam, torch.optim.AdamW, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)):
        source = module()
        optimizer = build(source.parameters())
        before = source(torch.ones(1, 2)).sum().item()
        for _ in range(10):
            optimizer.zero_grad()
            source(torch.ones(1, 2)).sum().backward()
            optimizer.step()
        assert source(torch.ones(1, 2)).sum().item() < before


def test_lbfgs_calls_back():
    source = module().double()
    optimizer = torch.optim.LBFGS(source.parameters(), max_iter=10)

    def closure():
        optimizer.zero_grad()
        loss = source(torch.ones(1, 2)).sum()
        loss.backward()
        return loss

    before = closure().item()
    optimizer.step(closure)
    assert closure().item() < before
