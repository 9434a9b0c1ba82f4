"""Symmetric kernel matrices, compared with the kernels of other packages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from qtm._bench.compare import Row, Settings, now
from qtm._bench.peers import KERNEL_PEERS, CutOff, PeerFailed, PeerProcess, python_of
from qtm._bench.timing import alternate, clock
from qtm._bench.workloads import Case
from qtm.circuits import reuploading_circuit
from qtm.kernels import QuantumKernel

TITLE = "Fidelity kernel matrices of the re-uploading circuit of depth 2: N samples with themselves"
QUBITS = (4, 6, 8, 10, 12, 14, 16)
SAMPLES = (100, 1000, 4000)
QUICK = ((2, 3), (10,))
_DEPTH = 2
_FEW = 16  # samples by which a peer's time for more is predicted
_CHECKED = 8  # samples whose matrix is compared
_TOLERANCE = 1e-6
Done = Callable[[Row], None]


def case(num_qubits: int, samples: int) -> Case:
    """The circuit with its fixed weights, and the samples."""
    return Case(num_qubits, reuploading_circuit(num_qubits, _DEPTH, input_scaling=False), (), samples)


def own_kernel(one: Case, threads: int) -> QuantumKernel:
    """The kernel of qtm."""
    weights = one.data.weights
    return QuantumKernel(one.model, training_parameters_initial=weights, num_threads=threads, progress=False).double()


def alone(qubits: Sequence[int], samples: Sequence[int], settings: Settings, done: Done) -> None:
    """Time qtm by itself."""
    for one in _cases(qubits, samples):
        row = _row(one, "qtm", settings)
        _time_own(row, one, settings)
        done(row)


def beside(peer: str, qubits: Sequence[int], samples: Sequence[int], settings: Settings, done: Done) -> dict[str, Any]:
    """Time qtm and a peer in turns; returns what the peer reports about itself.

    A peer whose calls take longer than the limit is timed on fewer samples, and its time extrapolated: states cost in
    proportion to N, pairs to N^2.
    """
    python = python_of(peer, settings.pythons, KERNEL_PEERS)
    if python is None:
        note = f"{KERNEL_PEERS[peer].package} is not installed; see --peer-python"
        for one in _cases(qubits, samples):
            done(_row(one, peer, settings, status="not installed", note=note))
        return {}
    arguments = tuple(settings.options.get(peer, "").split())
    with PeerProcess(peer, python, settings.threads, arguments, KERNEL_PEERS) as process:
        for one in _cases(qubits, samples):
            row = _row(one, peer, settings)
            try:
                _measure(row, process, one, settings)
            except CutOff as error:
                row.status, row.note = "cut off", str(error)
                done(row)
                return process.about
            except PeerFailed as error:
                row.status, row.note = "failed", str(error)
            done(row)
        return process.about


def _cases(qubits: Sequence[int], samples: Sequence[int]) -> Iterator[Case]:
    return (case(n, count) for n in qubits for count in samples)


def _row(one: Case, peer: str, settings: Settings, **more: Any) -> Row:
    mode = f"{one.batch} samples"
    return Row(one.x, mode, peer, "double", "reverse", one.batch, settings.threads, measured=now(), **more)


def _time_own(row: Row, one: Case, settings: Settings) -> None:
    kernel, inputs = own_kernel(one, settings.threads), one.data.inputs
    kernel.evaluate(inputs)  # compiles
    (times,) = alternate([lambda: clock(lambda: kernel.evaluate(inputs))], settings.repeats)
    row.qtm_ms, row.samples, row.repeats = times.summary(), one.batch, settings.repeats


def _measure(row: Row, process: PeerProcess, one: Case, settings: Settings) -> None:
    """Check a peer's matrix, then time it."""
    few = case(one.x, min(_CHECKED, one.batch))
    process.load(few, "double", None, settings.patience)
    answered = np.asarray(process.ask({"job": "check"}, settings.patience)["values"], float)
    expected = own_kernel(few, settings.threads).evaluate(few.data.inputs)
    if answered.shape != expected.shape or not np.abs(answered - expected).max() <= _TOLERANCE:
        row.status, row.note = "wrong", "its matrix is another one"
        return
    row.compile_s = _seconds(process, one.x, _CHECKED, settings)
    _time_own(row, one, settings)
    size = _affordable(_seconds(process, one.x, _FEW, settings), one.batch, settings.limit)
    times = [_seconds(process, one.x, size, settings) for _ in range(settings.repeats if size == one.batch else 3)]
    row.samples = size
    if size < one.batch:
        halves = [_seconds(process, one.x, size // 2, settings) for _ in range(3)]
        times = [extrapolated(size, np.median(times), np.median(halves), one.batch)]  # type: ignore[arg-type]
        row.note = f"timed on {size} samples and extrapolated"
    milliseconds = np.array(times) * 1e3
    low, middle, high = np.quantile(milliseconds, (0.25, 0.5, 0.75))
    row.peer_ms = {"median": float(middle), "low": float(low), "high": float(high)}


def _seconds(process: PeerProcess, num_qubits: int, samples: int, settings: Settings) -> float:
    """Seconds for the matrix of this many samples."""
    process.load(case(num_qubits, samples), "double", None, settings.patience)
    return float(process.ask({"job": "run", "mode": "forward"}, settings.patience)["seconds"])


def _affordable(seconds: float, samples: int, limit: float) -> int:
    """An even number of samples whose matrix takes at most ``limit`` seconds, if that of a few takes ``seconds``."""
    most = int(_FEW * math.sqrt(limit / max(seconds, 1e-9)))
    return samples if most >= samples else max(most // 2 * 2, _FEW)


def extrapolated(size: int, seconds: float, half: float, samples: int) -> float:
    """Seconds ``a N + b N^2`` of ``samples``, from those of ``size`` and of half as many samples."""
    square = max((seconds - 2 * half) / (size**2 / 2), 0.0)
    return (seconds - square * size**2) / size * samples + square * samples**2
