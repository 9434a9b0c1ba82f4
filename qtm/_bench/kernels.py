"""qtm compared with the peak of the machine: `qtm bench core`.

Arithmetic is counted in real multiply-adds, in two ways. *Nominal* is the plain algorithm: one pass for every run
of one-qubit gates between entangling gates, 16 multiply-adds a pair of amplitudes forward and 44 in reverse.
*Executed* is the work of qtm's kernels: 4 and 12 per pair and rotation, 4 and 10 per amplitude and phase, and 4 in
each sweep for the product of two table entries, which rows with the same entries share.
Nominal work per second may exceed the peak of the machine, because qtm skips much of it; executed work cannot.

Single-threaded code is timed in processor time, and the best of a burst of short calls counts: these figures
describe the code, not the load of the machine. With two threads, the cores should be otherwise idle.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from qiskit import QuantumCircuit

from qtm._bench.timing import Times, alternate, clock
from qtm._bench.workloads import WORKLOADS, Case, QtmRunner
from qtm._circuit.observables import coerce_observables
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation
from qtm._engines.simulation import Simulation
from qtm._engines.statevector.buffer_pool import aligned
from qtm._engines.statevector.cone_engine import ConeEngine
from qtm._engines.statevector.kernels import peak, simd
from qtm._engines.statevector.kernels.recipe import ALIKE, BITS, COUNT, KIND, PHASE, SECOND_COUNT, Recipe

NOMINAL = 16 + 44
ROTATION, PHASED, PRODUCT = 4 + 12, 4 + 10, 4 + 4
_TURNS = 20_000  # of the peak loop: some 40 us
_REAL = {"double": np.float64, "single": np.float32}
_COMPLEX = {"double": "complex128", "single": "complex64"}


@dataclass(frozen=True)
class Figure:
    """A measured figure and its goal; ``ratio`` is at least 1 if the goal is reached."""

    what: str
    figure: float
    goal: float
    unit: str
    more_is_better: bool
    detail: str = ""

    @property
    def ratio(self) -> float:
        """Goal and figure as one number, at least 1 if the goal is reached."""
        return self.figure / self.goal if self.more_is_better else self.goal / max(self.figure, 1e-12)

    def as_dict(self) -> dict[str, Any]:
        """The figure as an entry of a JSON file."""
        return asdict(self) | {"ratio": self.ratio}


def nominal_multiply_adds(circuit: QuantumCircuit, batch: int) -> int:
    """Real multiply-adds of forward and reverse sweep by the plain algorithm.

    Example:
        >>> from qtm._bench.kernels import nominal_multiply_adds
        >>> from qtm.circuits import reuploading_circuit
        >>> nominal_multiply_adds(reuploading_circuit(4, 3).circuit, batch=1) == 60 * 4 * 4 * 2**3
        True
    """
    blocks, inside = 0, [False] * circuit.num_qubits
    for instruction in circuit.data:
        qubits = [circuit.find_bit(q).index for q in instruction.qubits]
        if len(qubits) == 1:
            blocks += not inside[qubits[0]]
        for qubit in qubits:
            inside[qubit] = len(qubits) == 1
    return NOMINAL * blocks * batch << (circuit.num_qubits - 1)


def executed_multiply_adds(recipe: Recipe, batch: int) -> int:
    """Real multiply-adds of forward and reverse sweep as `kernels/sweep.py` counts them."""
    lanes_of_a_row = 1 << recipe.lane_bits
    total = 0
    for op in recipe.ops:
        amplitudes = int(lanes_of_a_row << op[BITS])
        if op[KIND] == PHASE:
            work = PHASED * amplitudes + (PRODUCT * amplitudes // int(op[ALIKE]) if op[SECOND_COUNT] else 0)
        else:
            work = ROTATION * int(op[COUNT]) * amplitudes // 2
        total += work * recipe.parts // 2
    return total * batch


class Bare:
    """A case on the bare engine: arrays of gate angles in, arrays out."""

    def __init__(self, case: Case, dtype: str, threads: int) -> None:
        circuit = case.model.circuit
        observables = coerce_observables(list(case.observables), circuit.num_qubits)
        parameters = [*case.model.encoding_params, *case.model.trainable_params]
        simulation = Simulation(circuit, parameters, Expectation(observables), Options(_COMPLEX[dtype], threads))
        weights = np.broadcast_to(case.data.weights, (case.batch, len(case.data.weights)))
        angles = simulation.numpy_angles(np.concatenate([case.data.inputs, weights], axis=1))
        (batch,) = simulation.engine.arrays.batches  # type: ignore[attr-defined]
        self.engine: ConeEngine = batch.engine
        self.angles = angles.astype(_REAL[dtype])
        self.cotangent = case.data.cotangent.astype(_REAL[dtype])

    def step(self) -> None:
        """Values, and the derivative by all angles."""
        _, kept = self.engine.values(self.angles, keep=True)
        self.engine.vjp(self.angles, self.cotangent, kept=kept)

    @property
    def recipe(self) -> Recipe:
        """The schedule that is run for this batch."""
        return self.engine.sweeps(len(self.angles)).recipe


def peak_rate(times: Times, dtype: str) -> float:
    """Multiply-adds per second of the peak loop."""
    return _TURNS * peak.CHAINS * simd.lanes(_REAL[dtype]) / times.median


def peak_loop(dtype: str) -> Callable[[], None]:
    """A call of the peak loop, some 40 microseconds long."""
    rows = aligned(((2 + peak.CHAINS) * simd.lanes(_REAL[dtype]),), _REAL[dtype])
    rows[:] = 0.5
    return lambda: peak.multiply_add(rows, _TURNS)


def _race(*calls: Callable[[], object], repeats: int, now: Callable[[], float] = time.perf_counter) -> list[Times]:
    """Times of calls made in turn, the best of each burst."""
    return alternate([partial(clock, call, now) for call in calls], repeats, pause=0.0, of_burst=min)


def _fig1_case(qubits: int, batch: int = 48) -> Case:
    return WORKLOADS["fig1"].case(qubits, batch)


# --- The figures ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """Sizes to measure: those of the whole table, or (``quick``) a little of everything."""

    kernels: tuple[int, ...] = (8, 9, 10, 11, 12, 14, 16)
    threads: tuple[int, ...] = (10, 12, 14, 16)
    module: tuple[int, ...] = (10, 12, 14)
    state: int = 20
    imports: int = 5


QUICK = Sizes(kernels=(8,), threads=(10,), module=(10,), state=14, imports=1)


def kernels(sizes: Sizes, repeats: int) -> Iterator[Figure]:
    """Bare kernels against the peak of one core."""
    for dtype in ("double", "single"):
        for qubits in sizes.kernels:
            case = _fig1_case(qubits)
            bare = Bare(case, dtype, 1)
            loop, step = _race(peak_loop(dtype), bare.step, repeats=repeats, now=time.process_time)
            top = peak_rate(loop, dtype)
            nominal = nominal_multiply_adds(case.model.circuit, case.batch) / step.median / top
            executed = executed_multiply_adds(bare.recipe, case.batch) / step.median / top
            yield Figure(
                f"kernels, {qubits} qubits, {dtype}, one thread", 100 * nominal, 80 if qubits <= 12 else 60,
                "% of peak, nominal work", True,
                f"{1e3 * step.median:.3f} ms; by executed work {100 * executed:.0f}%; peak {2e-9 * top:.0f} GF/s",
            )  # fmt: skip


def module_over_kernels(sizes: Sizes, repeats: int) -> Iterator[Figure]:
    """`QuantumModule` against the kernels it calls."""
    for qubits in sizes.module:
        case = _fig1_case(qubits)
        bare, ours = Bare(case, "double", 0), QtmRunner(case, "double", 0)
        first, second = _race(bare.step, ours.combined, repeats=repeats)
        yield Figure(
            f"QuantumModule over bare kernels, {qubits} qubits", second.median / first.median, 1.25, "x", False,
            f"{1e3 * second.median:.3f} ms over {1e3 * first.median:.3f} ms",
        )  # fmt: skip


def two_threads(sizes: Sizes, repeats: int) -> Iterator[Figure]:
    """Two threads against one: the kernels, and the module around them."""
    for kind, build in (("kernels", Bare), ("QuantumModule", QtmRunner)):
        for qubits in sizes.threads:
            case = _fig1_case(qubits)
            steps = []
            for threads in (1, 2):
                runner: Any = build(case, "double", threads)
                steps.append(runner.step if kind == "kernels" else runner.combined)
            one, two = _race(*steps, repeats=repeats)
            yield Figure(
                f"two threads over one, {qubits} qubits, {kind}", one.median / two.median, 1.6 if qubits < 12 else 1.8,
                "x", True, f"{1e3 * one.median:.3f} ms and {1e3 * two.median:.3f} ms",
            )  # fmt: skip


def one_sample(sizes: Sizes, repeats: int) -> Iterator[Figure]:
    """Time of a single sample of four qubits."""
    ours = QtmRunner(_fig1_case(4, 1), "double", 0)
    calls = (ours.forward, 40.0, "forward, no_grad"), (ours.combined, 150.0, "forward and backward")
    for call, goal, name in calls:
        (times,) = _race(partial(_hundred, call), repeats=repeats, now=time.process_time)
        yield Figure(f"4 qubits, one sample, {name}", 1e4 * times.median, goal, "us", False)


def _hundred(call: Callable[[], object]) -> None:
    for _ in range(100):
        call()


def one_state(sizes: Sizes, repeats: int) -> Iterator[Figure]:
    """One large state: its time on one core, and the memory it takes."""
    case = _fig1_case(sizes.state, 1)
    bare = Bare(case, "double", 1)
    (times,) = _race(bare.step, repeats=repeats, now=time.process_time)
    yield Figure(f"{sizes.state} qubits, one state, one core", 1e3 * times.median, 90.0, "ms", False)
    text = _python(_MEMORY.format(qubits=sizes.state))
    if text:
        yield Figure(
            f"{sizes.state} qubits, peak memory", float(text), 2.5, "states", False, "2^n complex numbers each"
        )


def imports(sizes: Sizes, repeats: int) -> Iterator[Figure]:
    """Time that importing qtm adds to importing torch and qiskit."""
    seconds = [float(_python(_IMPORT)) for _ in range(sizes.imports)]
    yield Figure("import qtm, after torch and qiskit", statistics.median(seconds), 0.3, "s", False)


def compilation(sizes: Sizes, repeats: int) -> Iterator[Figure]:
    """Time to compile all kernels into an empty cache: the calls with an empty cache less those with a full one."""
    with tempfile.TemporaryDirectory() as folder:
        (first, lines), (again, _) = (_python(_COMPILE, NUMBA_CACHE_DIR=folder).split() for _ in range(2))
    yield Figure(
        "compiling all kernels, once per machine", float(first) - float(again), 15.0, "s", False,
        f"{lines} lines of log say so",
    )  # fmt: skip


PARTS: tuple[Callable[[Sizes, int], Iterator[Figure]], ...] = (
    kernels,
    module_over_kernels,
    two_threads,
    one_sample,
    one_state,
    imports,
    compilation,
)


def measure(sizes: Sizes, repeats: int) -> Iterator[Figure]:
    """Measure all figures, one after the other."""
    torch.set_num_threads(1)  # the angles of these batches are not worth a second one
    for part in PARTS:
        yield from part(sizes, repeats)


# --- In a process of its own ------------------------------------------------------------------------------------

_IMPORT = """
import time, torch, qiskit
began = time.process_time()
import qtm
print(time.process_time() - began)
"""

# Both precisions, both kinds of lanes, complex and real states, growing and full supports, off-diagonal observables.
_COMPILE = """
import logging, time
import qtm, torch
from qtm.circuits import reuploading_circuit
from qiskit.circuit.library import real_amplitudes
lines = []
handler = logging.Handler()
handler.emit = lambda record: lines.append(record)
logging.getLogger("qtm").addHandler(handler)
model, real = reuploading_circuit(7, 2), real_amplitudes(7, reps=2)
began = time.process_time()
for dtype in (torch.float64, torch.float32):
    for batch in (16, 1):
        module = qtm.QuantumModule(model.circuit, model.encoding_params, model.trainable_params).to(dtype)
        module(torch.zeros(batch, 7, dtype=dtype)).sum().backward()
    qtm.QuantumModule(real, None, real.parameters, observables=["XXYYZZI"]).to(dtype)().sum().backward()
print(time.process_time() - began, len(lines))
"""

# VmHWM is the most memory that was ever in use; writing 5 makes it forget. Elsewhere than on Linux: no figure.
_MEMORY = """
import pathlib, re, torch
from qtm._bench.kernels import Bare
from qtm._bench.workloads import WORKLOADS
status = pathlib.Path("/proc/self/status")
def kilobytes(name):
    return int(re.search(name + r":\\s+(\\d+)", status.read_text()).group(1))
if status.exists():
    Bare(WORKLOADS["fig1"].case(10, 1), "double", 1).step()
    bare = Bare(WORKLOADS["fig1"].case({qubits}, 1), "double", 1)
    bare.recipe
    before = kilobytes("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    bare.step()
    print((kilobytes("VmHWM") - before) * 1024 / (16 << {qubits}))
"""


def _python(code: str, **environment: str) -> str:
    """The output of a new interpreter."""
    command = [sys.executable, "-c", code]
    path = os.pathsep.join(p for p in sys.path if p)
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path, **environment}
    )
    return result.stdout.strip()
