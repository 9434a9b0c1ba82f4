"""Dealing a batch over threads, processes and clusters; no share of it is ever silently missing."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from threading import Thread

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector

from qtm import QuantumModule
from qtm._engines.statevector import tiling
from qtm._engines.statevector.thread_pool import run_together
from qtm._errors import ParameterError, QtmError, ShapeError, WorkerError
from qtm._executors import deal, executor_map, resolve_threads, workers_of
from qtm._machine import available_cores

X, W = ParameterVector("x", 3), ParameterVector("w", 6)


def circuit() -> QuantumCircuit:
    made = QuantumCircuit(3)
    for layer in range(2):
        for qubit in range(3):
            made.ry(X[qubit] * W[3 * layer + qubit], qubit)
            made.rz(W[3 * layer + qubit], qubit)
        made.cx(0, 1)
        made.cx(1, 2)
    return made


def module(**options) -> QuantumModule:
    return QuantumModule(circuit(), X, W, **{"seed_init": 0, "observables": ["ZXI", "IYZ"], **options}).double()


def step(made: QuantumModule, batch: int = 11) -> list[torch.Tensor]:
    """Values and gradients of one training step."""
    inputs = torch.linspace(-3, 3, 3 * batch, dtype=torch.float64).reshape(batch, 3).requires_grad_()
    made.zero_grad()
    values = made(inputs)
    values.square().sum().backward()
    return [values.detach(), inputs.grad, made.variational.grad.clone()]


def same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


@pytest.fixture
def _many_threads(monkeypatch):
    monkeypatch.setattr(tiling, "WORTH_A_THREAD", 0)


# Dealing


@pytest.mark.parametrize("workers", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("tasks", [1, 2, 6, 7, 48, 100])
def test_shares_are_even_contiguous_and_complete(tasks, workers):
    shares = deal(tasks, workers)
    sizes = [last - first for first, last in shares]
    assert [first for first, _ in shares] == [0, *(last for _, last in shares[:-1])]
    assert shares[-1][1] == tasks and len(shares) == min(tasks, workers)
    more = tasks - len(shares) * (tasks // len(shares))
    assert sizes == [tasks // len(shares) + (i < more) for i in range(len(shares))]


def test_nothing_to_deal():
    assert deal(0, 3) == []


def test_requested_threads_are_used():
    assert resolve_threads(3) == 3
    assert resolve_threads(0) == available_cores() >= 1
    for bad in (-1, 1.5, "2", None):
        with pytest.raises(ParameterError, match="0 .all cores. or a positive integer"):
            resolve_threads(bad)


# Threads


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("pause", [0.0, 0.05], ids=["awake", "asleep"])
def test_results_come_in_order(count, pause):
    for _ in range(3):
        time.sleep(pause)
        assert run_together([partial(pow, number, 2) for number in range(count)]) == [n * n for n in range(count)]


@pytest.mark.parametrize("bad", [0, 1, 3])
def test_an_error_in_a_thread_is_raised_once_all_are_done(bad):
    done = []

    def work(number: int) -> None:
        if number == bad:
            raise ValueError("in a thread")
        time.sleep(0.02)
        done.append(number)

    with pytest.raises(ValueError, match="in a thread"):
        run_together([partial(work, number) for number in range(4)])
    assert sorted(done) == [number for number in range(4) if number != bad]
    assert run_together([partial(pow, 2, number) for number in range(4)]) == [1, 2, 4, 8]


def test_calls_within_calls():
    def outer(number: int) -> list[int]:
        return run_together([partial(pow, number, power) for power in (1, 2, 3)])

    assert run_together([partial(outer, number) for number in (2, 3)]) == [[2, 4, 8], [3, 9, 27]]


@pytest.mark.parametrize(("forward", "backward"), [(1, 2), (2, 1), (2, 2), (3, 0), (0, 0)])
@pytest.mark.usefixtures("_many_threads")
def test_threads_agree_with_one_thread(forward, backward):
    expected = step(module(num_threads_forward=1, num_threads_backward=1), 48)
    made = module(num_threads_forward=forward, num_threads_backward=backward)
    same(step(made, 48), expected)
    made.set_num_threads_forward(2)
    made.set_num_threads_backward(1)
    same(step(made, 48), expected)


@pytest.mark.usefixtures("_many_threads")
def test_one_module_in_many_threads_at_once():
    made = module(num_threads_forward=2, num_threads_backward=2)
    rng = np.random.default_rng(0)
    inputs = [torch.from_numpy(rng.normal(size=(20, 3))) for _ in range(8)]
    expected = [made(i).detach() for i in inputs]
    wrong = []

    def run(number: int) -> None:
        for _ in range(20):
            tracked = inputs[number].clone().requires_grad_()
            values = made(tracked)
            torch.autograd.grad(values.sum(), tracked)
            if not torch.allclose(values, expected[number]):
                wrong.append(number)

    threads = [Thread(target=run, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


TEAMS = """
import faulthandler, sys, threading, torch
from qiskit.circuit.library import efficient_su2
from qtm import QuantumModule
from qtm._engines.statevector import tiling
faulthandler.dump_traceback_later(60, exit=True)
sys.setswitchinterval(1e-6)
tiling.WORTH_A_TEAM = 0
ansatz = efficient_su2(6, reps=1)
def build(threads):
    return QuantumModule(ansatz, None, ansatz.parameters, num_threads_forward=threads,
                         num_threads_backward=threads, seed_init=0).double()
def step(made):
    values = made()
    return torch.autograd.grad(values.square().sum(), made.variational)[0]
expected, made, right = step(build(1)), build(4), []
def run():
    for _ in range(100):
        right.append(torch.allclose(step(made), expected))
threads = [threading.Thread(target=run) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(right), all(right))
"""


def run_alone(program: str) -> str:
    """What a program prints, in a process of its own: where it hangs, the test fails."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_teams_on_one_state_do_not_wait_for_each_other():
    """Members of a team meet after every pass; two teams that share a pool must not get half of it each."""
    assert run_alone(TEAMS) == "400 True\n"


INTERRUPTED = """
import threading
from functools import partial
from qiskit.circuit.library import real_amplitudes
from qtm import QuantumModule
from qtm._engines.statevector import sweeps, tiling

tiling.WORTH_A_TEAM = 0
ansatz = real_amplitudes(8, reps=2)
module = QuantumModule(ansatz, None, ansatz.parameters, seed_init=0, num_threads_forward=2, num_threads_backward=2)
expected, kernel = module(), sweeps.EVALUATE

def interrupted(kind, *args):
    if threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt
    assert args[-1].size == 2  # a team
    return kernel.for_kind(*kind)(*args)

class Interrupted:
    def for_kind(self, *kind):
        return partial(interrupted, kind)

sweeps.EVALUATE = Interrupted()
try:
    module()
except KeyboardInterrupt:
    print("interrupted", end=" ")
sweeps.EVALUATE = kernel
print(bool((module() == expected).all()))
"""


@pytest.mark.slow
def test_a_team_does_not_wait_for_a_member_that_was_interrupted():
    assert run_alone(INTERRUPTED) == "interrupted True\n"


# Executors


@pytest.fixture(scope="module")
def forked():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        yield pool


@pytest.mark.parametrize("batch", [1, 2, 11])
def test_a_process_pool_forked_after_threads_have_run(batch):
    expected = step(module(num_threads_forward=2), batch)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        same(step(module(executor=pool), batch), expected)


@pytest.mark.slow
def test_a_spawned_process_pool():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        same(step(module(executor=pool)), step(module()))


class Counting(Executor):
    """Runs at once, and remembers how much it was asked for."""

    def __init__(self, workers: int | None = None) -> None:
        self.calls = 0
        if workers:
            self._max_workers = workers

    def submit(self, function, /, *args, **kwargs):
        self.calls += 1
        future: Future = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 (as executors do)
            future.set_exception(error)
        return future


@pytest.mark.parametrize(("workers", "threads", "shares"), [(5, 0, 5), (5, 3, 3), (100, 0, 11), (None, 4, 4)])
def test_the_batch_is_split_over_the_workers_of_the_executor(workers, threads, shares):
    executor = Counting(workers)
    made = module(executor=executor, num_threads_forward=threads, num_threads_backward=threads)
    same(step(made), step(module()))
    assert executor.calls == 2 * shares  # forward and backward


def test_thread_pool_as_an_executor():
    with ThreadPoolExecutor(3) as pool:
        same(step(module(executor=pool)), step(module()))


def test_single_precision_and_initial_states_on_an_executor(forked):
    made, expected = module(executor=forked).float(), module().float()
    inputs = torch.randn(7, 3)
    torch.testing.assert_close(made(inputs), expected(inputs))
    library = pytest.importorskip("qiskit_machine_learning.circuit.library")
    features = library.raw_feature_vector(8).compose(circuit().assign_parameters(dict.fromkeys(X, 0.5)))
    inputs = [p for p in features.parameters if p not in set(W)]
    results = []
    for executor in (None, forked):
        encoder = QuantumModule(features, inputs, W, executor=executor, seed_init=0).double()
        values = torch.linspace(0.1, 1, 40, dtype=torch.float64).reshape(5, 8).requires_grad_()
        encoder(values).square().sum().backward()
        results.append((values.grad, encoder.variational.grad))
    same(*results)


# Failures


def die(function, *args):
    os._exit(3)


class Deadly(Executor):
    """A process pool one of whose tasks kills its worker."""

    def __init__(self, victim: int) -> None:
        self.pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork"))
        self._max_workers, self.victim, self.calls = 4, victim, 0

    def submit(self, function, /, *args, **kwargs):
        self.calls += 1
        return self.pool.submit(*((die, function) if self.calls == self.victim else (function,)), *args)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("victim", [1, 2, 4, 5, 8])  # 1 .. 4 are forward, 5 .. 8 backward
def test_a_worker_that_dies_is_an_error(victim):
    executor = Deadly(victim)
    with executor.pool:
        made = module(executor=executor)
        with pytest.raises(WorkerError, match=r"a worker died .*share \d of 4|accepts no more tasks"):
            step(made)
        with pytest.raises(WorkerError, match="accepts no more tasks .*create a new one"):
            step(made)


class Failing(Counting):
    def __init__(self, error: Exception) -> None:
        super().__init__(3)
        self.error = error

    def submit(self, function, /, *args, **kwargs):
        future = super().submit(function, *args)
        if self.calls == 2:
            future = Future()
            future.set_exception(self.error)
        return future


def test_a_task_that_fails_is_an_error_with_its_cause():
    with pytest.raises(WorkerError, match=r"share 2 of 3 \(OSError: disk full\)") as caught:
        module(executor=Failing(OSError("disk full")))(torch.zeros(5, 3))
    assert isinstance(caught.value.__cause__, OSError)


def test_errors_of_qtm_arrive_as_they_are():
    with pytest.raises(ShapeError, match="on purpose"):
        module(executor=Failing(ShapeError("on purpose")))(torch.zeros(5, 3))


def test_a_cancelled_task_is_an_error():
    class Cancelling(Counting):
        def submit(self, function, /, *args, **kwargs):
            future: Future = Future()
            future.cancel()
            return future

    with pytest.raises(WorkerError, match="share 1 of 2 .CancelledError"):
        module(executor=Cancelling(2))(torch.zeros(5, 3))


def test_an_executor_that_was_shut_down_is_an_error():
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(WorkerError, match="accepts no more tasks .*shutdown.*create a new one"):
        module(executor=pool)(torch.zeros(5, 3))


def test_workers_of_an_executor(forked):
    assert workers_of(forked) == forked._max_workers
    assert workers_of(Executor()) == available_cores()


def test_results_come_in_the_order_of_the_tasks(forked):
    assert executor_map(forked, pow, [(i, 2) for i in range(20)]) == [i**2 for i in range(20)]
    assert issubclass(WorkerError, QtmError | RuntimeError)


def test_values_that_are_not_finite_are_noticed_behind_an_executor(forked):
    inputs = torch.zeros(5, 3, dtype=torch.float64)
    inputs[3, 0] = float("nan")
    with pytest.raises(ParameterError, match="sample 3"):
        module(executor=forked)(inputs)


# dask


@pytest.mark.slow
@pytest.mark.parametrize("processes", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_dask(processes, tmp_path):
    distributed = pytest.importorskip("distributed")
    settings = {"n_workers": 3, "threads_per_worker": 1, "processes": processes, "dashboard_address": None}
    with (
        distributed.LocalCluster(**settings, local_directory=str(tmp_path)) as cluster,
        distributed.Client(cluster) as client,
    ):
        assert workers_of(client.get_executor()) == 3
        same(step(module(executor=client.get_executor())), step(module()))


# Processes of the user


FORK = """
import os, sys, torch
sys.path.insert(0, {tests!r})
from test_parallel import module, step, same
from qtm._engines.statevector import tiling
tiling.WORTH_A_THREAD = 0
expected = step(module(num_threads_forward=2, num_threads_backward=2), 48)
child = os.fork()
if child == 0:
    same(step(module(num_threads_forward=2, num_threads_backward=2), 48), expected)
    sys.exit(0)  # an orderly end, which joins threads
assert os.waitpid(child, 0)[1] == 0
same(step(module(num_threads_forward=2, num_threads_backward=2), 48), expected)
print("all", "well")
"""


@pytest.mark.slow
def test_forking_after_threads_have_run():
    assert run_alone(FORK.format(tests=os.path.dirname(__file__))) == "all well\n"
