"""Sweeps that are recorded and replayed, as in CUDA graphs: here by a recorder that runs what it noted again.

Like a graph it runs nothing while it records, reads and writes the same memory at every replay, and leaves in the
memory of its results what the last replay wrote, or before the first one nothing of use.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import real_amplitudes
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

import qtm
from qtm._circuit.observables import coerce_observables
from qtm._engines.options import Options
from qtm._engines.simulation import Simulation
from qtm._engines.triton_statevector import engine as engines
from qtm._engines.triton_statevector import graphs, launch
from qtm._engines.triton_statevector.cone_batch import Chunk, Target
from qtm._engines.triton_statevector.engine import TritonStateVector
from qtm._engines.triton_statevector.sweeps import Turns
from qtm.engines import Expectation, Probabilities, State

if (REFUSAL := launch.refusal()) is not None:
    pytest.skip(f"method 'triton' {REFUSAL}", allow_module_level=True)
if torch.cuda.is_available():
    pytest.skip("the recorder of these tests is for a machine without a GPU", allow_module_level=True)


def tensors_of(arguments: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)]


class Trace(TorchDispatchMode):
    """Notes operations of torch and launches of kernels, and keeps what was there before them."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Callable[[], object]] = []
        self.made: dict[int, Tensor] = {}  # by address: tensors that a step made
        self.before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.remember(tensors_of((args, kwargs)))
        found = function(*args, **kwargs)
        given = {t.untyped_storage().data_ptr() for t in tensors_of((args, kwargs))}
        fresh = [t for t in tensors_of(found) if t.untyped_storage().data_ptr() not in given]
        for tensor in fresh:
            self.made[tensor.untyped_storage().data_ptr()] = tensor

        def step() -> None:
            again = tensors_of(function(*args, **kwargs))
            for old, new in zip(tensors_of(found), again, strict=True):
                if any(old is one for one in fresh):
                    old.copy_(new)

        self.steps.append(step)
        return found

    def remember(self, tensors: list[Tensor]) -> None:
        for tensor in tensors:
            place = tensor.untyped_storage().data_ptr()
            if place not in self.made and place not in self.before:
                whole = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
                self.before[place] = whole, whole.clone()

    def finish(self) -> None:
        """As if nothing had run: what was there before is there again, and what was made is of no use."""
        for whole, copy in self.before.values():
            whole.copy_(copy)
        for tensor in self.made.values():
            if tensor.is_floating_point() or tensor.is_complex():
                tensor.fill_(torch.nan)


class Notes:
    """The recorder. ``current`` is the stream, None while somebody else records."""

    def __init__(self) -> None:
        self.current: Any = "first"
        self.recorded, self.replays, self.joined = 0, 0, list[Any]()
        self.fails: type[Exception] | None = None
        self.trace: Trace | None = None

    def stream(self) -> Any:
        return self.current

    def join(self, stream: Any) -> None:
        self.joined.append(stream)

    def record(self, warm_up: Callable[[], object], compute: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        warm_up()
        if self.fails is not None:
            raise self.fails("no room")
        with Trace() as self.trace:
            found = compute()
        trace, self.trace = self.trace, None
        trace.finish()
        self.recorded += 1

        def replay() -> None:
            self.replays += 1
            for step in trace.steps:
                step()

        return replay, found

    @contextmanager
    def noted(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with monkeypatch.context() as patched:
            for name in ("launch_tiles", "launch_elements"):
                patched.setattr(launch, name, self.launched(getattr(launch, name)))
            patched.setattr(engines, "recorder_for", lambda _: self)
            yield

    def launched(self, run: Callable[..., None]) -> Callable[..., None]:
        def noting(*arguments: Any, **constants: Any) -> None:
            with _disable_current_modes():
                if self.trace is not None:
                    self.trace.remember(tensors_of(arguments))
                    self.trace.steps.append(lambda: run(*arguments, **constants))
                run(*arguments, **constants)

        return noting


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Notes]:
    made = Notes()
    with made.noted(monkeypatch):
        yield made


def ansatz() -> QuantumCircuit:
    made, angles = QuantumCircuit(2), ParameterVector("t", 3)
    made.ry(angles[0], 0)
    made.rx(angles[1], 1)
    made.rzz(angles[2], 0, 1)
    return made


OUTPUTS = [Expectation(coerce_observables(["ZI", "XX"], 2)), Probabilities((1,)), State()]
VALUES = OUTPUTS[0]


def engine(
    made: QuantumCircuit | None = None, output: Any = VALUES, *, tiles: int = 1, recorded: bool = True, **options
):
    made = ansatz() if made is None else made
    method = TritonStateVector(tiles, graphs=recorded)
    return Simulation(made, list(made.parameters), output, Options("complex128", 1, method=method, **options)).engine


class Toy:
    """What an engine does with `Graphs`, or without, for a reverse sweep that overwrites states, in little time."""

    def __init__(self, notes: Notes | None = None) -> None:
        sweeps: Any = ToySweeps()
        self.runs = sweeps if notes is None else graphs.Graphs(sweeps, notes, torch.device("cpu"), None)

    def forward(self, angles: Tensor, prepared: Any, keep: bool = False) -> tuple[Tensor, Any]:
        return self.runs.forward(angles, prepared, keep)

    def vjp(self, angles: Tensor, prepared: Any, cotangent: Tensor, kept: Any = None, by_prepared: bool = False) -> Any:
        return self.runs.vjp(Target(angles, prepared, by_prepared), cotangent, kept)


class ToySweeps:
    """The sine of twice the angles."""

    def bytes_of(self, samples: int) -> int:
        return 48 * samples

    def forward(self, angles: Tensor, prepared: Any, keep: bool) -> tuple[Tensor, Any]:
        state = 2 * angles
        values = state.sin()
        return values, [[Chunk(slice(0, len(angles)), Turns(angles, angles), values, state)]] if keep else None

    def vjp(self, target: Target, cotangent: Tensor, kept: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        kept = self.forward(target.angles, target.prepared, True)[1] if kept is None else kept
        state = kept[0].pop().final
        return cotangent * 2 * state.cos_(), ()


def angles_of(seed: int, batch: int = 2, count: int = 3) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(-3, 3, (batch, count)))


def step(one: Any, angles: Tensor, prepared: Any = (), *, by_prepared: bool = False) -> list[Tensor]:
    values, kept = one.forward(angles, prepared, keep=True)
    cotangent = torch.linspace(0.5, 1, values.numel(), dtype=torch.float64).reshape(values.shape).to(values.dtype)
    cotangent = cotangent * angles.sum()  # another one for other angles
    by_angles, by_amplitudes = one.vjp(angles, prepared, cotangent, kept, by_prepared=by_prepared)
    return [values, by_angles, *(by_amplitudes or ())]


def assert_same(found: Any, expected: Any) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("output", OUTPUTS, ids=["values", "probabilities", "state"])
@pytest.mark.parametrize("tiles", [1, 11])
def test_replays_with_other_angles_give_what_launches_give(output, tiles, notes):
    recorded, plain = engine(None, output, tiles=tiles), engine(None, output, tiles=tiles, recorded=False)
    results = []
    for seed in range(4):
        assert_same(step(recorded, angles_of(seed)), step(plain, angles_of(seed)))
        results.append((step(recorded, angles_of(seed)), seed))
    for found, seed in results:  # results are copies, which later replays leave alone
        assert_same(found, step(plain, angles_of(seed)))
    assert notes.recorded == 2 and notes.replays == 2 * 7  # the first call of a shape is not recorded


def test_results_are_copies(notes):
    recorded, plain = Toy(notes), Toy()
    results = [step(recorded, angles_of(seed)) for seed in range(4)]
    for seed, found in enumerate(results):
        assert_same(found, step(plain, angles_of(seed)))
    assert (notes.recorded, notes.replays) == (2, 6)


def test_values_without_residuals(notes):
    recorded, plain = Toy(notes), Toy()
    for seed in range(3):
        found, kept = recorded.forward(angles_of(seed), [], keep=False)
        assert_same([found], [plain.forward(angles_of(seed), [])[0]])
        assert kept is None
    assert (notes.recorded, notes.replays) == (1, 2)


def test_residuals_survive_later_sweeps(notes):
    """Up to four recordings are in use at a time, and more calls are launched."""
    recorded, plain = Toy(notes), Toy()
    step(recorded, angles_of(0))
    cotangent = torch.ones(2, 3, dtype=torch.float64)
    kept = [recorded.forward(angles_of(seed), [], keep=True)[1] for seed in range(6)]
    assert [isinstance(one, graphs.Pending) for one in kept] == [True] * 4 + [False] * 2
    for seed in (3, 0, 5, 1, 4, 2):
        found, _ = recorded.vjp(angles_of(seed), [], cotangent, kept[seed])
        assert_same([found], [plain.vjp(angles_of(seed), [], cotangent)[0]])
    with pytest.raises(RuntimeError, match="consumed by a reverse sweep"):
        recorded.vjp(angles_of(0), [], cotangent, kept[0])
    assert notes.recorded == 8
    step(recorded, angles_of(7))
    assert notes.recorded == 8


def test_dropped_residuals_free_their_buffers(notes):
    recorded = Toy(notes)
    for seed in range(8):
        recorded.forward(angles_of(seed), [], keep=True)
    assert (notes.recorded, notes.replays) == (1, 7)


@pytest.mark.slow
def test_engines_and_batches_have_their_own_buffers(notes):
    other = real_amplitudes(2, reps=0)
    pairs = [(engine(made), engine(made, recorded=False), made.num_parameters) for made in (ansatz(), other)]
    for seed in range(3):
        for batch in (1, 3):
            pending = []
            for recorded, _, count in pairs:
                at = angles_of(seed, batch, count)
                pending.append((at, *recorded.forward(at, [], keep=True)))
            for (recorded, plain, _), (at, values, kept) in zip(pairs, pending, strict=True):
                slope, _ = recorded.vjp(at, [], torch.ones_like(values), kept)
                wanted = plain.forward(at, [])[0], plain.vjp(at, [], torch.ones_like(values))[0]
                assert_same([values, slope], wanted)
    assert notes.recorded == 2 * 2 * 2


def test_the_oldest_shapes_are_forgotten(notes, monkeypatch):
    monkeypatch.setattr(graphs, "_MOST_SHAPES", 2)
    recorded, plain = Toy(notes), Toy()
    pending = []
    for batch in (1, 1, 2, 2, 3, 3):
        at = angles_of(batch, batch)
        pending.append((at, recorded.forward(at, [], keep=True)))
    assert notes.recorded == 3 and len(recorded.runs._shapes) == 2
    for at, (values, kept) in pending:
        slope, _ = recorded.vjp(at, [], torch.ones_like(values), kept)
        assert_same([slope], [plain.vjp(at, [], torch.ones_like(values))[0]])


def test_nothing_is_recorded_or_replayed_while_somebody_else_records(notes):
    recorded, plain = Toy(notes), Toy()
    step(recorded, angles_of(0))
    values, kept = recorded.forward(angles_of(1), [], keep=True)
    assert isinstance(kept, graphs.Pending)
    counts = notes.recorded, notes.replays
    notes.current = None
    assert_same(step(recorded, angles_of(2)), step(plain, angles_of(2)))
    found, _ = recorded.vjp(angles_of(1), [], torch.ones_like(values), kept)
    assert_same([found], [plain.vjp(angles_of(1), [], torch.ones_like(values))[0]])
    assert (notes.recorded, notes.replays) == counts and not notes.joined
    notes.current = "first"
    step(recorded, angles_of(3))  # the buffers that the other graph reads are left alone
    assert notes.recorded == counts[0] + 2


def test_a_reverse_sweep_on_another_stream(notes):
    recorded, plain = Toy(notes), Toy()
    step(recorded, angles_of(0))
    values, kept = recorded.forward(angles_of(1), [], keep=True)
    notes.current = "second"
    found, _ = recorded.vjp(angles_of(1), [], torch.ones_like(values), kept)
    assert_same([found], [plain.vjp(angles_of(1), [], torch.ones_like(values))[0]])
    assert notes.joined == ["first"] and notes.recorded == 1
    for seed in range(3):  # this stream has recordings of its own
        assert_same(step(recorded, angles_of(seed)), step(plain, angles_of(seed)))
    assert notes.recorded == 3


@pytest.mark.parametrize("limit", ["_LARGEST", "_MOST_BYTES"])
def test_states_that_are_too_large_are_launched(limit, notes, monkeypatch):
    monkeypatch.setattr(graphs, limit, 90)
    recorded, plain = Toy(notes), Toy()
    for seed in range(3):
        assert_same(step(recorded, angles_of(seed)), step(plain, angles_of(seed)))
    assert notes.recorded == 0


def test_without_memory_for_buffers_sweeps_are_launched(notes, monkeypatch, caplog):
    recorded, plain = Toy(notes), Toy()
    step(recorded, angles_of(0))
    monkeypatch.setattr(launch, "budget", lambda *_: 10)
    step(recorded, angles_of(1))
    assert notes.recorded == 0
    monkeypatch.undo()
    others = Notes()
    others.fails = torch.OutOfMemoryError
    with caplog.at_level(logging.WARNING, "qtm"):
        recorded = Toy(others)
        for seed in range(4):
            assert_same(step(recorded, angles_of(seed)), step(plain, angles_of(seed)))
    assert [record.message.count("forward sweep") for record in caplog.records] == [1]  # it is tried once


def test_without_memory_for_a_reverse_sweep_it_is_launched(notes, caplog):
    recorded, plain = Toy(notes), Toy()
    step(recorded, angles_of(0))
    values, kept = recorded.forward(angles_of(1), [], keep=True)
    notes.fails = torch.OutOfMemoryError
    with caplog.at_level(logging.WARNING, "qtm"):
        found, _ = recorded.vjp(angles_of(1), [], torch.ones_like(values), kept)
    assert_same([found], [plain.vjp(angles_of(1), [], torch.ones_like(values))[0]])
    assert "reverse sweep" in caplog.text


def test_other_errors_of_a_recording_are_raised(notes):
    recorded = Toy(notes)
    step(recorded, angles_of(0))
    notes.fails = RuntimeError
    with pytest.raises(RuntimeError, match="no room"):
        step(recorded, angles_of(1))


@pytest.mark.slow
def test_prepared_amplitudes(notes):
    made = QuantumCircuit(2)
    made.prepare_state([0.6, 0.8j], 1)
    made = made.compose(ansatz())
    recorded, plain = engine(made), engine(made, recorded=False)
    for seed in range(4):
        start = torch.randn(2, 2, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))
        by_prepared = seed != 2
        found, expected = (step(one, angles_of(seed), [start], by_prepared=by_prepared) for one in (recorded, plain))
        assert_same(found, expected)
    assert notes.recorded == 3  # a reverse sweep with the derivatives by amplitudes, and one without


def module(**options) -> qtm.QuantumModule:
    made = ansatz()
    method = "triton", {"tile_bits": 1, **options}
    inputs, weights = made.parameters[:1], made.parameters[1:]
    return qtm.QuantumModule(made, inputs, weights, seed_init=0, method=method).double()


@pytest.mark.slow
@pytest.mark.parametrize("is_inference_first", [False, True])
def test_training_by_replay_gives_the_weights_of_launches(is_inference_first, notes):
    trained = []
    for model in (module(graphs=True), module()):
        optimizer = torch.optim.Adam(model.parameters(), 0.1)
        inputs = torch.linspace(0, 1, 2, dtype=torch.float64).reshape(2, 1)
        if is_inference_first:
            with torch.inference_mode():
                model(inputs), model(inputs)
        for _ in range(4):
            optimizer.zero_grad()
            loss = model(inputs).square().sum() + model(inputs + 1).sum()  # two sweeps before a reverse sweep
            loss.backward()
            optimizer.step()
        trained.append(model.variational.detach())
    torch.testing.assert_close(*trained, atol=1e-12, rtol=0)
    assert notes.replays > 10


@pytest.mark.slow
def test_a_graph_of_autograd_that_is_kept_is_computed_again(notes):
    model, plain = module(graphs=True), module()
    inputs = torch.linspace(0, 1, 2, dtype=torch.float64).reshape(2, 1)
    for _ in range(3):
        found = []
        for one in (model, plain):
            values = one(inputs).square().sum()
            found.append([torch.autograd.grad(values, one.variational, retain_graph=True)[0] for _ in range(2)])
        assert_same(*found)


def test_threads_have_recordings_of_their_own(notes):
    recorded, plain = Toy(notes), Toy()
    expected = [step(plain, angles_of(seed)) for seed in range(2)]
    step(recorded, angles_of(0))
    step(recorded, angles_of(0))
    found: dict[int, list[Any]] = {0: [], 1: []}
    threads = [Thread(target=lambda s=seed: found[s].append(step(recorded, angles_of(s)))) for seed in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in (0, 1):
        assert_same(found[seed][0], expected[seed])


class Names(TorchDispatchMode):
    """The operations of torch outside of kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("output", OUTPUTS, ids=["values", "probabilities", "state"])
def test_a_step_waits_for_nothing_and_copies_nothing_to_a_device(output, notes, monkeypatch):
    """After the first: so a graph may hold it, and the CPU runs ahead of a GPU."""
    made = QuantumCircuit(2)
    made.prepare_state([0.6, 0.8j], 1)
    made.rz(ParameterVector("p", 1)[0], 0)  # no more than a phase
    one = engine(made.compose(ansatz()), output, recorded=False)
    start = torch.tensor([[0.6, 0.8j]])
    expected = step(one, angles_of(0, 2, 4), [start], by_prepared=True)
    at = angles_of(0, 2, 4)
    cotangent = torch.linspace(0.5, 1, expected[0].numel(), dtype=torch.float64).reshape(expected[0].shape)
    for name in ("from_numpy", "as_tensor", "tensor"):
        monkeypatch.setattr(torch, name, lambda *_, **__: pytest.fail("something comes from the CPU"))
    with Names() as mode:
        values, kept = one.forward(at, [start], keep=True)
        one.vjp(at, [start], cotangent.to(values.dtype), kept, by_prepared=True)
    assert len(mode.names) > 5
    assert not mode.names & {"_local_scalar_dense", "item", "nonzero", "lift_fresh", "is_nonzero", "equal"}


@pytest.mark.slow
def test_without_a_recorder_or_the_option_sweeps_are_launched(notes, monkeypatch):
    one, other = engine(recorded=False), engine()
    monkeypatch.setattr(engines, "recorder_for", graphs.recorder_for)  # none for the CPU
    for seed in range(3):
        assert_same(step(one, angles_of(seed)), step(other, angles_of(seed)))
    assert notes.recorded == 0


@pytest.mark.parametrize("value", [1, "yes", None])
def test_the_option_is_a_bool(value):
    with pytest.raises(qtm.ParameterError, match="graphs is .*; give True or False"):
        TritonStateVector(graphs=value)


# The recorder of a GPU, on a torch that notes what it does


class Stream:
    def __init__(self, name: Any, log: list[Any]) -> None:
        self.name, self.log = name, log

    def wait_stream(self, other: Stream) -> None:
        self.log.append((self.name, "waits for", other.name))


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a recorder does with torch."""
    found: list[Any] = []
    current = [Stream("main", found)]

    @contextmanager
    def within(entry: Any, stream: Stream | None = None) -> Iterator[None]:
        found.append(entry)
        current.append(stream or current[-1])
        yield
        current.pop()
        found.append("end")

    class Graph:
        def replay(self) -> None:
            found.append(("replay on", current[-1].name))

    fakes = {
        "Stream": lambda device: Stream("side", found),
        "current_stream": lambda: current[-1],
        "device": lambda device: within(str(device)),
        "stream": lambda stream: within(stream.name, stream),
        "CUDAGraph": Graph,
        "graph": lambda graph, stream, capture_error_mode: within(("graph", capture_error_mode), stream),
        "is_current_stream_capturing": lambda: False,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    return found


def test_a_gpu_records_on_a_side_stream_after_a_warm_up(log, monkeypatch):
    recorder = graphs.CudaRecorder(torch.device("cuda:1"))
    replay, found = recorder.record(lambda: log.append("warm-up"), lambda: log.append("compute") or "result")
    assert found == "result"
    replay()
    assert log == [
        "cuda:1", ("side", "waits for", "main"), "side", "warm-up", "end", ("main", "waits for", "side"),
        ("graph", "thread_local"), "compute", "end", "end", ("replay on", "main"),
    ]  # fmt: skip
    assert recorder.stream().name == "main"
    recorder.join(Stream("other", log))
    assert ("other", "waits for", "main") in log
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert recorder.stream() is None
    assert isinstance(graphs.recorder_for(torch.device("cuda")), graphs.CudaRecorder)
    assert graphs.recorder_for(torch.device("cpu")) is None
