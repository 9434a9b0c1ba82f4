"""Threads of the engine: interrupts leave none behind, idle ones hold on to nothing, forked children do not wait."""

from __future__ import annotations

import ast
import gc
import re
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import qtm
from qtm import _locks
from qtm._engines.statevector import thread_pool
from qtm._engines.statevector.thread_pool import run_together

PACKAGE = Path(qtm.__file__).parent


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("qtm-")]


def settled(most: int) -> int:
    """How many threads there are, once those that have nothing to do had time to end."""
    deadline = time.monotonic() + 60
    gc.collect()
    while len(threads()) > most and time.monotonic() < deadline:
        time.sleep(0.01)
    return len(threads())


def rest() -> None:
    """Return when no worker is at work."""
    deadline = time.monotonic() + 60
    while len(threads()) > len(thread_pool._IDLE) and time.monotonic() < deadline:
        time.sleep(0.001)


# Interrupts


class InterruptedAt:
    """Raises KeyboardInterrupt in this thread before one bytecode instruction of the pool's own functions."""

    def __init__(self, place: int) -> None:
        self.left, self.strikes = place, 0

    def trace(self, frame, event, argument):
        if frame.f_code.co_filename != thread_pool.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.left -= 1
            if self.left == 0:
                self.strikes += 1
                raise KeyboardInterrupt
        return self.trace


def traced(calls, interrupt):
    before = sys.gettrace()
    sys.settrace(interrupt.trace)
    try:
        return run_together(calls, partial([].append, 1))
    finally:
        sys.settrace(before)


@pytest.mark.slow
@pytest.mark.parametrize("idle", [0, 3])
def test_an_interrupt_anywhere_leaves_no_thread_behind(idle):
    """Before every third instruction in turn: no thread is lost, and those that wait for another are let go."""
    thread_pool._IDLE.clear()  # those of other tests, which are not counted here
    run_together([partial(pow, number, 2) for number in range(4)])
    calls = [partial(pow, number, 2) for number in range(3)]
    traced(calls, InterruptedAt(-1))  # Python 3.12 shows single instructions only from the second trace on
    struck, place = True, bool(idle)
    while struck:
        place += 3
        if not idle:
            thread_pool._IDLE.clear()
        interrupt = InterruptedAt(place)
        with suppress(KeyboardInterrupt):
            results = traced(calls, interrupt)
        struck = interrupt.strikes > 0
        rest()  # a worker that has not finished yet would not be taken again: the pool would grow
    assert place > 100 and results == [0, 1, 4]
    assert settled(len(thread_pool._IDLE)) == len(thread_pool._IDLE) <= 8
    assert run_together(calls) == [0, 1, 4]


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_those_that_wait_for_a_call_that_fails_are_let_go(bad):
    gone = threading.Event()

    def work(number: int) -> None:
        if number == bad:
            raise ValueError("on purpose")
        assert gone.wait(60)

    with pytest.raises(ValueError, match="on purpose"):
        run_together([partial(work, number) for number in range(3)], gone.set)


@pytest.mark.slow
def test_a_thousand_interrupts_in_a_row():
    def interrupted() -> None:
        raise KeyboardInterrupt

    before = settled(len(thread_pool._IDLE))
    for _ in range(1000):
        with pytest.raises(KeyboardInterrupt):
            run_together([interrupted, partial(pow, 2, 2), partial(pow, 3, 2)])
    assert settled(before + 2) <= before + 2


# Memory


def test_an_idle_thread_holds_on_to_nothing():
    """Neither to what its last call was given, nor to what it returned or raised."""

    def work(array: np.ndarray, fails: bool) -> np.ndarray:
        if fails:
            raise ValueError("on purpose")
        return array + 1

    for fails in (False, True):
        given = np.zeros(10)
        seen = [weakref.ref(given)]
        try:
            results = run_together([partial(pow, 1, 1), partial(work, given, fails)])
            seen.append(weakref.ref(results[1]))
            del results
        except ValueError:
            pass
        del given
        gc.collect()
        assert [reference() for reference in seen] == [None] * len(seen)


# Forks

FORKED = """
import faulthandler, os, sys, threading, time
from qiskit.circuit.library import real_amplitudes
from qtm import QuantumModule, _locks

def build(reps):
    ansatz = real_amplitudes(4, reps=reps)
    return QuantumModule(ansatz, None, ansatz.parameters, seed_init=0, num_threads_forward=1)()

def child_is_well(reps):
    child = os.fork()
    if not child:
        faulthandler.dump_traceback_later(120, exit=True)
        build(reps)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0

build(1)
held, done = threading.Event(), threading.Event()
def hold():
    from contextlib import ExitStack
    with ExitStack() as stack:
        for lock in list(_locks._LOCKS):
            stack.enter_context(lock)
        held.set()
        done.wait()
holder = threading.Thread(target=hold)
holder.start()
held.wait()
print(len(_locks._LOCKS) >= 2, child_is_well(2))
done.set()
holder.join()

stop = threading.Event()
def keep_building():
    reps = 10
    while not stop.is_set():
        build(reps := reps + 1)
builder = threading.Thread(target=keep_building)
builder.start()
well = 0
for number in range(8):
    time.sleep(0.03)
    well += child_is_well(3 + number)
stop.set()
builder.join()
print(well)
"""


@pytest.mark.slow
def test_a_fork_while_another_thread_builds_modules():
    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=900, check=False
    )  # fmt: skip
    assert done.stdout == "True True\n8\n", done.stderr[-3000:]


COMPILING = """
import faulthandler, os, threading, time
from numba import njit
from numba.core import event
from qtm._engines.statevector.kernels import compilation

@njit
def slow(x):
    return x + 1

started = threading.Event()
class Listener(event.Listener):
    def on_start(self, _):
        started.set()
        time.sleep(0.5)
    def on_end(self, _):
        pass
event.register("numba:compile", Listener())
thread = threading.Thread(target=slow, args=(1,))
thread.start()
started.wait()
child = os.fork()
if not child:
    faulthandler.dump_traceback_later(120, exit=True)
    compilation.jit(lambda x: x + 2)(1.5)
    os._exit(0)
print(os.waitpid(child, 0)[1])
"""


@pytest.mark.slow
def test_a_fork_while_another_thread_compiles():
    done = subprocess.run(
        [sys.executable, "-c", COMPILING], capture_output=True, text=True, timeout=900, check=False
    )  # fmt: skip
    assert done.stdout == "0\n", done.stderr[-3000:]


# Where a lock need not be renewed: a worker's own, and the journal of jobs, whose database no child may use.
OWN_LOCKS = {
    "_locks.py",
    "_engines/statevector/thread_pool.py",
    "_hardware/journal.py",
    "_hardware/device_primitive.py",
}


def test_locks_are_those_that_a_child_finds_free():
    """`functools.cached_property` counts: in Python 3.11 it holds a lock while it computes."""
    others = {}
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if not re.search("Lock|Condition|Semaphore|cached_property", text):
            continue
        names = {
            getattr(node, "id", getattr(node, "attr", getattr(node, "name", None)))
            for node in ast.walk(ast.parse(text))
        }
        ours = "cached_property" in names and "from qtm._locks import cached_property" in text
        taken = names & {"Lock", "RLock", "Condition", "Semaphore", *(() if ours else ("cached_property",))}
        name = path.relative_to(PACKAGE).as_posix()
        others |= {name: taken} if taken and name not in OWN_LOCKS else {}
    assert not others, "use qtm._locks instead"


def test_a_cached_property_is_computed_once():
    class Squares:
        computed = 0

        @_locks.cached_property
        def nine(self) -> int:
            """Three squared."""
            self.computed += 1
            return 9

    first, second = Squares(), Squares()
    assert (first.nine, first.nine, first.computed, second.computed) == (9, 9, 1, 0)
    assert Squares.nine.__doc__ == "Three squared."
