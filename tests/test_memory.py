"""Memory that is kept between calls: used again, and bounded over all circuits together."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

from qtm._engines.statevector.buffer_pool import BufferPool


def test_what_is_given_back_is_used_again_by_one():
    pool, buffer = BufferPool(100), object()
    assert pool.take("kind") is None
    pool.give("kind", buffer, 60)
    assert pool.take("other") is None
    assert pool.take("kind") is buffer
    assert pool.take("kind") is None
    assert pool.spare_bytes == 0


def test_the_bound_holds_over_all_kinds_and_the_oldest_goes_first():
    pool = BufferPool(100)
    for number in range(10):
        pool.give(number, number, 30)
        assert pool.spare_bytes <= 100
    assert [pool.take(number) for number in range(10)] == [None] * 7 + [7, 8, 9]
    pool.give("large", "large", 101)
    assert pool.take("large") is None


@pytest.mark.parametrize("limit", [10, 100, 1000])
def test_random_use_never_hands_a_buffer_to_two(limit, rng):
    """Against a plain record of what is out, from several threads at once."""
    pool, out, wrong = BufferPool(limit), set(), []

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
            if pool.spare_bytes > limit + 50:  # another thread may be about to make room
                wrong.append(pool.spare_bytes)

    threads = [threading.Thread(target=use, args=(int(seed),)) for seed in rng.integers(1 << 30, size=4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert pool.spare_bytes == sum(7 + kind for kind, same in pool._spare.items() for _ in same) <= limit


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
