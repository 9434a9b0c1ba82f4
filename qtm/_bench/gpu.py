"""Steps on a GPU: qtm on the GPU and the CPU, a plain-torch simulator and other packages on the same GPU."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp

from qtm._bench.compare import TOLERANCE, Row, Settings, alone, beside, now
from qtm._bench.options import at_least
from qtm._bench.peers import PEERS, parse_assignments
from qtm._bench.report import Report
from qtm._bench.timing import alternate
from qtm._bench.workloads import WORKLOADS, Case, QtmRunner, Workload
from qtm._engines.triton_statevector.engine import TritonEngine
from qtm._engines.triton_statevector.sweeps import Traffic
from qtm._errors import UnsupportedError
from qtm._executors import resolve_threads
from qtm._gradients.adjoint import EngineMethod
from qtm._parts.model_circuit import as_ansatz

BATCHES = (1, 48, 1024, 16384)
QUICK = (1, 8)
LAYERS = 10
_SHARE = 0.8  # of the memory of a GPU
_STATES = 2  # of a sample: the state and the adjoint state
_CPU_SECONDS = 20.0  # steps predicted to take longer on the CPU are skipped
_MULTIPLY_ADDS = 2e9  # that the CPU surely does in a second
_COPIED = 1 << 30  # bytes


def ising_circuit(num_qubits: int) -> QuantumCircuit:
    """Layers of exp(-i a/2 Z Z) on neighbours of a line and RX on every qubit, on an even superposition."""
    circuit, angles = QuantumCircuit(num_qubits), iter(ParameterVector("t", LAYERS * (2 * num_qubits - 1)))
    circuit.h(range(num_qubits))
    for _ in range(LAYERS):
        for q in range(num_qubits - 1):
            circuit.cx(q, q + 1)
            circuit.rz(next(angles), q + 1)
            circuit.cx(q, q + 1)
        for q in range(num_qubits):
            circuit.rx(next(angles), q)
    return circuit


def ising_energy(num_qubits: int) -> SparsePauliOp:
    """-sum Z Z - sum X."""
    bonds = [("ZZ", [q, q + 1], -1.0) for q in range(num_qubits - 1)]
    return SparsePauliOp.from_sparse_list([*bonds, *(("X", [q], -1.0) for q in range(num_qubits))], num_qubits)


def _ising(num_qubits: int, qubits: int, batch: int) -> tuple:
    circuit = ising_circuit(num_qubits)
    return as_ansatz(circuit, list(circuit.parameters)), [ising_energy(num_qubits)]


CIRCUITS: dict[str, Workload] = {
    "fig1": replace(
        WORKLOADS["fig1"], title="On a GPU: re-uploading circuit of depth 3, Z on every qubit",
        sizes=tuple(range(4, 29, 2)), quick=(4, 12), modes=("forward", "combined"), states="gpu",
    ),
    "ising": Workload(
        f"On a GPU: {LAYERS} layers of RZZ and RX on a line, the energy of the Ising chain",
        "qubits", (20,), (6,), 1, ("forward", "combined"), _ising, states="gpu",
    ),
}  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``qtm bench gpu``."""
    names = [name for name, peer in PEERS.items() if peer.states == "gpu"]
    parser.add_argument("--circuit", choices=list(CIRCUITS), default="fig1", help="default fig1")
    parser.add_argument("--qubits", type=at_least(2), nargs="+", help="default: 4 to 28 of fig1, 20 of ising")
    batches = " ".join(map(str, BATCHES))
    parser.add_argument("--batch", type=at_least(1), nargs="+", help=f"those that fit the memory of {batches}")
    parser.add_argument("--dtypes", nargs="+", choices=("double", "single"), default=["single"])
    parser.add_argument("--graphs", action="store_true", help="launches of qtm in CUDA graphs")
    parser.add_argument("--threads", type=at_least(0), default=0, help="of the CPU; 0: all cores")
    parser.add_argument(
        "--peers", nargs="+", metavar="NAME", choices=[*names, "none"],
        help=f"default: those of this list that are installed or given: {', '.join(names)}",
    )  # fmt: skip
    parser.add_argument("--peer-python", action="append", default=[], metavar="NAME=PATH", help="the Python of a peer")
    parser.add_argument("--peer-options", action="append", default=[], metavar="NAME=OPTIONS", help="of an adapter")
    parser.add_argument("--limit", type=float, default=5.0, help="seconds; a slower batch is run in part and scaled")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds; a slower call is cut off")
    parser.set_defaults(plot=None)


def asked(options: argparse.Namespace) -> tuple[Workload, Settings]:
    """The requested workload and its settings.

    Raises:
        UnsupportedError: torch finds no GPU.
    """
    if not torch.cuda.is_available():
        raise UnsupportedError(
            "qtm bench gpu measures on a GPU, and torch finds none here (torch.cuda.is_available() is False): run it "
            "where there is one, with a build of torch for it"
        )
    settings = Settings(
        resolve_threads(options.threads), 2 if options.quick else options.repeats, tuple(options.dtypes),
        options.limit, options.patience, device="cuda",
        pythons=parse_assignments(options.peer_python, "--peer-python"),
        options=parse_assignments(options.peer_options, "--peer-options"),
    )  # fmt: skip
    workload = CIRCUITS[options.circuit]
    title = f"{workload.title}; {torch.cuda.get_device_name()}"
    if options.graphs:
        return replace(workload, title=f"{title}; CUDA graphs", method=("triton", {"graphs": True})), settings
    return replace(workload, title=title), settings


def measure(
    workload: Workload,
    options: argparse.Namespace,
    settings: Settings,
    peers: Sequence[str],
    report: Report,
    done: Callable[[Row], None],
) -> None:
    """All sizes, with the batches that fit the memory."""
    memory, speed = torch.cuda.get_device_properties(0).total_memory, bandwidth()
    batches = options.batch or (QUICK if options.quick else BATCHES)
    if workload.batch == 1:  # a circuit without inputs
        batches = [1]
    for x in options.qubits or (workload.quick if options.quick else workload.sizes):
        for batch in batches_that_fit(x, batches, settings.dtypes, memory):
            own = replace(settings, batch=batch)
            rows(workload, x, own, done, speed)
            for peer in peers:
                report.about(peer, beside(peer, workload, [x], own, done))


def batches_that_fit(qubits: int, batches: Sequence[int], dtypes: Sequence[str], memory: float) -> list[int]:
    """The batches whose states fit the memory of a GPU, in bytes."""
    size = _STATES * max({"single": 8, "double": 16}[dtype] for dtype in dtypes) * 2.0**qubits
    return [batch for batch in batches if batch * size <= _SHARE * memory]


def bandwidth() -> float:
    """Bytes per second that the GPU reads and writes when it copies within its memory."""
    numbers = torch.zeros(_COPIED // 4, device="cuda")
    other = torch.empty_like(numbers)

    def copy() -> float:
        torch.cuda.synchronize()
        began = time.perf_counter()
        other.copy_(numbers)
        torch.cuda.synchronize()
        return time.perf_counter() - began

    (times,) = alternate([copy], 5)
    return 2 * _COPIED / min(times.seconds)


def rows(
    workload: Workload, x: int, settings: Settings, done: Callable[[Row], None], bytes_per_second: float | None
) -> None:
    """qtm on the device of the settings by itself, then beside qtm on the CPU."""
    case = workload.case(x, settings.batch)

    def annotated(row: Row) -> None:
        if bytes_per_second is not None and row.qtm_ms:
            engine = _engine(QtmRunner(case, row.dtype, settings.threads, device=settings.device))
            moved = engine.traffic(case.batch, torch.device(settings.device, torch.cuda.current_device()))
            row.note = note(moved, row.mode, row.qtm_ms["median"] / 1e3, bytes_per_second)
        done(row)

    alone(workload, [x], settings, annotated)
    for dtype in settings.dtypes:
        for row in beside_cpu(case, dtype, workload.modes, settings):
            done(row)


def note(moved: Sequence[Traffic], mode: str, seconds: float, bytes_per_second: float) -> str:
    """Launches of a sweep, and the share of the bandwidth that its passes over memory take."""
    passes = sum(one.passes for one in moved)
    if passes == len(moved):
        return f"{passes} launch{'es' if passes > 1 else ''} a sweep"
    total = sum(one.forward if mode == "forward" else one.both for one in moved)
    return f"{passes} passes a sweep, {total / seconds / bytes_per_second:.0%} of the bandwidth"


def beside_cpu(case: Case, dtype: str, modes: Sequence[str], settings: Settings) -> Iterator[Row]:
    """A row for every mode, with the CPU in the place of a peer; its results are compared."""
    row = Row(case.x, "", "qtm on the CPU", dtype, "reverse", case.batch, settings.threads, measured=now())
    cpu = QtmRunner(case, dtype, settings.threads, method="statevector")
    if cpu.module.plan(case.batch).multiply_adds > _CPU_SECONDS * _MULTIPLY_ADDS * settings.threads:
        row.status, row.note = "cut off", f"not tried: it may take more than {_CPU_SECONDS:.0f} s"
        yield from (replace(row, mode=mode) for mode in modes)
        return
    gpu = QtmRunner(case, dtype, settings.threads, device=settings.device)
    off = max(float(np.abs(a - b).max(initial=0.0)) for a, b in zip(gpu.result(), cpu.result(), strict=True))
    largest = max(float(np.abs(a).max(initial=1.0)) for a in cpu.result())
    for mode in modes:
        one = replace(row, mode=mode, samples=case.batch, repeats=settings.repeats)
        if not off <= TOLERANCE[dtype] * largest:
            one.status, one.note = "wrong", f"values or gradients are off by {off:.1e}"
        else:
            mine, other = alternate([partial(each.timed, mode) for each in (gpu, cpu)], settings.repeats)
            one.qtm_ms, one.peer_ms = mine.summary(), other.summary()
        yield one


def _engine(runner: QtmRunner) -> TritonEngine:
    method = runner.module._method(runner.inputs.dtype, runner.device)
    assert isinstance(method, EngineMethod)
    assert isinstance(method.simulation.engine, TritonEngine)
    return method.simulation.engine
