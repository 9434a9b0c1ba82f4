"""Memory that is kept between calls: used again, and bounded over all circuits together."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit.library import real_amplitudes

from qtm import FastEstimator, FastSampler
from qtm._engines.statevector.buffer_pool import BufferPool
from qtm._kept_memory import KEPT, ByteCache, KeptMemory, bytes_of


def test_a_returned_buffer_is_reused_once():
    pool, buffer = BufferPool(KeptMemory(100)), object()
    assert pool.take("kind") is None
    pool.give("kind", buffer, 60)
    assert pool.take("other") is None
    assert pool.take("kind") is buffer
    assert pool.take("kind") is None
    assert pool.memory.used == 0


def test_the_limit_covers_all_kinds_and_evicts_the_oldest_first():
    pool = BufferPool(KeptMemory(100))
    for number in range(10):
        pool.give(number, number, 30)
        assert pool.memory.used <= 100
    assert [pool.take(number) for number in range(10)] == [None] * 7 + [7, 8, 9]
    pool.give("large", "large", 101)
    assert pool.take("large") is None


@pytest.mark.parametrize("limit", [10, 100, 1000])
def test_random_use_never_shares_a_buffer(limit, rng):
    """Against a plain record of what is out, from several threads at once."""
    pool, out, wrong = BufferPool(KeptMemory(limit)), set(), []

    def use(seed: int) -> None:
        draw = np.random.default_rng(seed)
        for _ in range(500):
            kind = int(draw.integers(5))
            buffer = pool.take(kind) or (kind, object())
            if buffer in out or buffer[0] != kind:
                wrong.append(buffer)
            out.add(buffer)
            out.discard(buffer)
            pool.give(kind, buffer, 7 + kind)
            if pool.memory.used > limit + 50:  # another thread may be about to make room
                wrong.append(pool.memory.used)

    threads = [threading.Thread(target=use, args=(int(seed),)) for seed in rng.integers(1 << 30, size=4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert pool.memory.used == sum(size for same in pool._spare.values() for _, size in same) <= limit


def test_caches_of_all_kinds_share_one_bound():
    memory = KeptMemory(10_000)
    caches, pool = [ByteCache(50, memory) for _ in range(3)], BufferPool(memory)
    for number in range(30):
        assert caches[number % 3].find(number, lambda: np.zeros(250)).nbytes == 2000
        pool.give(number, number, 1500)
        assert memory.used <= 10_000
    # Each of 2.1 kB; the newest value has not been measured. Spare buffers of 1.5 kB have what is left.
    assert sorted(number for cache in caches for number in cache._entries) == [25, 26, 27, 28, 29]
    assert [pool.take(number) for number in range(28, 30)] == [None, 29]


def test_a_value_that_is_used_stays_and_one_too_large_pushes_none_out():
    memory = KeptMemory(10_000)
    cache = ByteCache(50, memory)
    often = cache.find("often", lambda: np.zeros(250))
    for number in range(20):
        cache.find(number, lambda: np.zeros(250))
        assert cache.find("often", lambda: None) is often
    cache.find("next", lambda: np.zeros(1))
    before = {*cache._entries}
    cache.find("large", lambda: np.zeros(5000))
    cache.find("last", lambda: np.zeros(1))
    assert {*cache._entries} == {*before, "last"}


def test_a_cache_that_is_gone_takes_no_room():
    memory = KeptMemory(10_000)
    for _ in range(5):
        cache = ByteCache(50, memory)
        for number in range(5):
            cache.find(number, lambda: np.zeros(250))
    assert sorted(cache._entries) == [0, 1, 2, 3, 4]


def test_a_cache_has_a_bound_by_number_too():
    cache = ByteCache(3, KeptMemory(10_000))
    for number in range(9):
        cache.find(number, lambda: np.zeros(1))
    assert sorted(cache._entries) == [6, 7, 8]
    assert cache.memory.used < 1000


def test_threads_get_one_value():
    cache, found = ByteCache(50, KeptMemory(10_000)), []
    start = threading.Barrier(4)

    def use():
        start.wait()
        found.extend((number, id(cache.find(number % 40, object))) for number in range(200))

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({identity for number, identity in found if number % 40 == 7}) == 1


def test_bytes_are_those_that_an_object_takes():
    whole = np.zeros(1000)
    slots = type("Slots", (), {"__slots__": ("a",)})()
    slots.a = {"view": whole[10:20], "again": [whole, torch.zeros(100, dtype=torch.float64)]}
    assert 8000 + 800 < bytes_of(slots) < 8000 + 800 + 1500
    assert bytes_of(slots, shared=(dict,)) < 200


@pytest.mark.parametrize("run", ["FastEstimator", "FastSampler"])
@pytest.mark.slow
def test_cached_simulations_stay_within_the_bound(run, monkeypatch):
    """Sixteen circuits of 440 rotations: without a bound of bytes their simulations would take some 15 MiB."""

    def ask(circuit: QuantumCircuit) -> None:
        if run == "FastEstimator":
            estimator.run([(circuit, "Z" * 10)]).result()
        else:
            sampler.run([circuit.measure_all(inplace=False)], shots=1).result()

    estimator, sampler = FastEstimator(num_threads=1), FastSampler(seed=1, num_threads=1)
    circuits = [real_amplitudes(10, reps=40) for _ in range(16)]
    circuits = [c.assign_parameters(np.full(c.num_parameters, 0.1 + k)) for k, c in enumerate(circuits)]
    ask(circuits[0])
    limit = 3 << 20
    monkeypatch.setattr(KEPT, "limit", limit)
    tracemalloc.start()
    try:
        for circuit in circuits[1:]:
            ask(circuit)
            assert KEPT.used <= limit
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < limit + (2 << 20)  # the newest is not counted yet


# Peak and kept memory of a process of its own. `ru_maxrss` is in KiB on Linux.
SHUFFLED = """
import gc, resource, torch
from qiskit.circuit.library import real_amplitudes
from qtm import FastEstimator, QuantumModule

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

ansatz = real_amplitudes(10, reps=1)
module = QuantumModule(ansatz, None, ansatz.parameters, seed_init=0, num_threads_forward=1, num_threads_backward=1)
encoder = QuantumModule(ansatz, ansatz.parameters[:5], ansatz.parameters[5:], seed_init=0, num_threads_forward=2,
                        num_threads_backward=2)
encoder(torch.zeros(2000, 5)).sum().backward()
before = peak()
for batch in range(1000, 2000, 9):  # every size has buffers of its own
    encoder(torch.zeros(batch, 5)).sum().backward()
print((peak() - before) / 2**20)
"""


@pytest.mark.slow
def test_shuffled_batch_sizes_stay_within_the_bound():
    done = subprocess.run([sys.executable, "-c", SHUFFLED], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 400  # MiB: the pool's 256, and what one step takes


MANY = """
import resource
import numpy as np
from qiskit.circuit.library import real_amplitudes
from qtm import FastEstimator

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

estimator = FastEstimator(num_threads=1)
def run(circuit):
    estimator.run([(circuit, "Z" * circuit.num_qubits, np.zeros(circuit.num_parameters))]).result()

run(real_amplitudes(20, reps=1))
before = peak()
for reps in range(2, 42):
    circuit = real_amplitudes(20, reps=1)
    circuit.ry(0.1 * reps, 0)
    run(circuit)
print((peak() - before) / 2**20)
"""


@pytest.mark.slow
def test_many_cached_simulations_stay_within_the_bound():
    """40 circuits of 20 qubits, whose states take 8 or 16 MiB each."""
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 320  # MiB
