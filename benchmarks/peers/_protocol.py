"""How the harness talks to a peer: one JSON job per line on stdin, one JSON answer per line on stdout.

A peer runs in an interpreter of its own, so this file needs Python 3.10 or later and numpy, nothing else::

    PYTHON benchmarks/peers/NAME.py [--threads T] [options of the peer]

Threads are an argument, not part of a job, because libraries read their number when they are imported.
The first line out is `{"ready": {"peer", "python", "threads", "options", "versions"}}`. Then, per job:

* `{"job": "load", "circuit": {...}, "data": FILE.npz, "dtype": "double" or "single", "samples": k}`
  makes a task ready: `{"loaded": true, "seconds": s, "samples": k, "batch": B}`.
* `{"job": "compile", "mode": MODE}` is the first call, apart from the times that count: `{"seconds": s}`.
* `{"job": "run", "mode": MODE}` is one repetition: `{"seconds": s, "samples": k, "includes_forward": bool}`; a short
  call is made twice, and the second counts.
* `{"job": "check"}` is what the peer computes, an error if its modes disagree:
  `{"values": (k, M), "gradient": (K,), "exact_gradient": bool, "samples": k}`.
* `{"job": "memory"}` is the peak of the process so far: `{"mib": m}`.
* `{"job": "quit"}`, or the end of the input, ends the process.

What goes wrong is answered as `{"error": "..."}`, and the process waits for the next job.

MODE is `forward` (values), `combined` (values and gradient) or `backward` (the gradient after a forward pass
that is not timed; a peer that cannot separate the two times its combined call and says `includes_forward`).
Seconds are those of all B samples: with `samples` k < B only k are run and the time is multiplied by B / k,
which is fair only to a peer that takes samples one after the other. A peer that computes the derivatives by some of
the weights only says so (`measured_weights`, and a `note` in the answer to `load`), and its time is that of all.

`data` holds `inputs` (B, F), `weights` (K,), `cotangent` (B, M) in double precision; in place of the file the
job may carry the three as nested lists. The gradient is that of `sum(cotangent * values)` by the weights.

`circuit` is `{"num_qubits": n, "gates": [[name, [qubits], angle or null], ...], "observables": [...]}`: gates
h, cx, cz, rx, ry, rz; `angle = const + scale * inputs[input] * weights[weight]` in radians, where `input` and
`weight` may be null (a factor of 1); an observable is a list of `[coefficient, [["Z", qubit], ...]]`. With
`"pauli": p`, X, Y and Z strike with probability p each after every gate, on each of its qubits; only adapters of
mixed states take that.
"""

from __future__ import annotations

import os
import sys


def _threads_asked() -> int:
    """`--threads T`, read before numpy starts its thread pool; all cores by default."""
    arguments = sys.argv[1:]
    for position, argument in enumerate(arguments):
        if argument.startswith("--threads="):
            return int(argument.partition("=")[2])
        if argument == "--threads":
            return int(arguments[position + 1])
    return len(_cores())


def _cores() -> list[int]:
    """Cores this process may use; the affinity calls exist on Linux only."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


THREADS = _threads_asked()
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
for _variable in THREAD_VARIABLES:
    os.environ[_variable] = str(THREADS)
# Not every library has a setting for its threads (XLA has none): the set of cores bounds them all.
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, _cores()[:THREADS])

import argparse  # noqa: E402
import itertools  # noqa: E402
import json  # noqa: E402
import multiprocessing  # noqa: E402
import time  # noqa: E402
import traceback  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import dataclass, replace  # noqa: E402
from functools import cached_property  # noqa: E402
from importlib.metadata import PackageNotFoundError, version  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402

GATES = {
    "h": (1, False),
    "cx": (2, False),
    "cz": (2, False),
    "rx": (1, True),
    "ry": (1, True),
    "rz": (1, True),
}
SHORT = 0.05  # seconds; a call shorter than this is made once more before the one that counts
Pauli = tuple[str, int]
Term = tuple[float, list[Pauli]]


@dataclass(frozen=True)
class Gate:
    """One gate; `angle` is its place among the angles of the circuit, None for a gate without one."""

    name: str
    qubits: tuple[int, ...]
    angle: int | None


@dataclass(frozen=True)
class Task:
    """A circuit with its data: what every adapter translates for its library."""

    num_qubits: int
    gates: list[Gate]
    observables: list[list[Term]]
    const: np.ndarray  # (angles,)
    scale: np.ndarray  # (angles,)
    input_of: np.ndarray  # (angles,), F where an angle has no input
    weight_of: np.ndarray  # (angles,), K where an angle has no weight
    inputs: np.ndarray  # (samples, F)
    weights: np.ndarray  # (K,)
    cotangent: np.ndarray  # (samples, M)
    dtype: str
    pauli: float = 0.0

    @property
    def samples(self) -> int:
        return len(self.inputs)

    @property
    def real(self) -> Any:
        return {"double": np.float64, "single": np.float32}[self.dtype]

    @property
    def complex(self) -> Any:
        return {"double": np.complex128, "single": np.complex64}[self.dtype]

    @cached_property
    def input_factors(self) -> np.ndarray:
        """What multiplies the weight in each angle's product, (samples, angles)."""
        padded = np.concatenate([self.inputs, np.ones((self.samples, 1))], axis=1)
        return self.scale * padded[:, self.input_of]

    def angles(self) -> np.ndarray:
        """All angles in radians, (samples, angles)."""
        return self.const + self.input_factors * np.append(self.weights, 1.0)[self.weight_of]

    def weight_gradient(self, by_angles: np.ndarray) -> np.ndarray:
        """Chain rule from derivatives by angles, (samples, angles), to the gradient by weights, (K,)."""
        products = (self.input_factors * by_angles).sum(axis=0)
        return np.bincount(self.weight_of, products, len(self.weights) + 1)[:-1]

    @property
    def is_diagonal(self) -> bool:
        return all(pauli == "Z" for terms in self.observables for _, word in terms for pauli, _ in word)

    def diagonals(self, first_qubit_is_lowest_bit: bool) -> np.ndarray:
        """Diagonals of the observables, (2^n, M), for a library's order of bits in an amplitude's index."""
        if not self.is_diagonal:
            raise ValueError("this adapter takes observables made of Z only")
        index = np.arange(2**self.num_qubits)
        columns = np.zeros((len(index), len(self.observables)))
        for column, terms in enumerate(self.observables):
            for coefficient, word in terms:
                sign = np.full(len(index), coefficient)
                for _, qubit in word:
                    shift = qubit if first_qubit_is_lowest_bit else self.num_qubits - 1 - qubit
                    sign *= 1.0 - 2.0 * (index >> shift & 1)
                columns[:, column] += sign
        return columns.astype(self.real)

    def part(self, samples: slice) -> Task:
        return replace(self, inputs=self.inputs[samples], cotangent=self.cotangent[samples])


class Runner:
    """A task made ready in a library. Subclasses say how to run it."""

    exact_gradient = True
    measured_weights: list[int] | None = None  # those by which `combined` differentiates; None: all
    note = ""

    def scaled_seconds(self) -> float | None:
        """Seconds of a combined call with all weights, where only some are measured."""
        return None

    def forward(self) -> np.ndarray:
        """Values, (samples, M)."""
        raise NotImplementedError

    def combined(self) -> tuple[np.ndarray, np.ndarray]:
        """Values, (samples, M), and the gradient by the weights, (K,)."""
        raise NotImplementedError

    def pullback(self) -> Callable[[], np.ndarray] | None:
        """Do a forward pass; return what computes the gradient from there, or None."""
        return None


Build = Callable[[Task, argparse.Namespace], Runner]


def parse(job: dict[str, Any]) -> Task:
    """The task of a `load` job."""
    circuit = job["circuit"]
    data = np.load(job["data"]) if "data" in job else job
    inputs, weights, cotangent = (np.asarray(data[k], float) for k in ("inputs", "weights", "cotangent"))
    angles = [angle for _, _, angle in circuit["gates"] if angle is not None]
    gates, count = [], 0
    for name, qubits, angle in circuit["gates"]:
        if GATES.get(name) != (len(qubits), angle is not None):
            raise ValueError(f"gate {name!r} on {len(qubits)} qubits is not one of {sorted(GATES)}")
        gates.append(Gate(name, tuple(qubits), None if angle is None else count))
        count += angle is not None
    terms = [[(float(c), [(p, int(q)) for p, q in word]) for c, word in o] for o in circuit["observables"]]
    whole = Task(
        num_qubits=circuit["num_qubits"],
        gates=gates,
        observables=terms,
        const=np.array([angle["const"] for angle in angles]),
        scale=np.array([angle["scale"] for angle in angles]),
        input_of=_places(angles, "input", inputs.shape[1]),
        weight_of=_places(angles, "weight", len(weights)),
        inputs=inputs,
        weights=weights,
        cotangent=cotangent,
        dtype=job["dtype"],
        pauli=float(circuit.get("pauli", 0.0)),
    )
    return whole.part(slice(job.get("samples") or len(inputs)))


def _places(angles: list[dict[str, Any]], key: str, absent: int) -> np.ndarray:
    return np.array([absent if angle[key] is None else angle[key] for angle in angles], dtype=np.int64)


class Sharded(Runner):
    """Deals samples to worker processes of one thread each: for libraries that run one sample at a time."""

    def __init__(self, build: Build, task: Task, options: argparse.Namespace) -> None:
        bounds = np.linspace(0, task.samples, min(THREADS, task.samples) + 1).astype(int)
        context = multiprocessing.get_context("fork")
        self._pipes = []
        for start, stop in itertools.pairwise(bounds):
            ours, theirs = context.Pipe()
            arguments = (theirs, build, task.part(slice(start, stop)), options)
            context.Process(target=_work, args=arguments, daemon=True).start()
            theirs.close()
            self._pipes.append(ours)
        self._ask(None)

    def forward(self) -> np.ndarray:
        return np.concatenate(self._ask("forward"))

    def combined(self) -> tuple[np.ndarray, np.ndarray]:
        values, gradients = zip(*self._ask("combined"), strict=True)
        return np.concatenate(values), np.sum(gradients, axis=0)

    def pullback(self) -> Callable[[], np.ndarray] | None:
        if not all(self._ask("prepare")):
            return None
        return lambda: np.sum(self._ask("backward"), axis=0)

    def _ask(self, mode: str | None) -> list[Any]:
        """Answers of all workers; `None` only waits until they are built."""
        if mode is not None:
            for pipe in self._pipes:
                pipe.send(mode)
        answers = [pipe.recv() for pipe in self._pipes]
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers


def _work(pipe: Any, build: Build, task: Task, options: argparse.Namespace) -> None:
    """Worker process of `Sharded`; libraries are imported here, after the thread variables are set."""
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    pending: Callable[[], Any] | None = None
    try:
        runner = build(task, options)
        pipe.send(None)
        while True:
            mode = pipe.recv()
            if mode == "prepare":
                pending = runner.pullback()
                pipe.send(pending is not None)
            elif mode == "backward":
                assert pending is not None
                pipe.send(pending())
            else:
                pipe.send(getattr(runner, mode)())
    except EOFError:  # the parent has closed the pipe: no more work
        return
    except Exception as error:  # noqa: BLE001 (it is raised again in the parent)
        pipe.send(RuntimeError(f"worker: {type(error).__name__}: {error}"))


class Session:
    """The task that is loaded, and the answers to jobs about it."""

    def __init__(self, build: Build, options: argparse.Namespace) -> None:
        self._build, self._options = build, options
        self._runner: Runner | None = None
        self._task: Task | None = None
        self._batch = 0
        self._latest: dict[str, float] = {}  # seconds of the latest call in each mode

    def answer(self, job: dict[str, Any]) -> dict[str, Any]:
        jobs = {
            "load": self._load,
            "compile": self._compile,
            "run": self._run,
            "check": self._check,
            "memory": self._memory,
        }
        if job["job"] not in jobs:
            raise ValueError(f"job {job['job']!r} is not one of {sorted(jobs)}")
        return jobs[job["job"]](job)

    def _load(self, job: dict[str, Any]) -> dict[str, Any]:
        self._runner = self._task = None  # the old states make room first
        self._latest = {}
        task = parse(job)
        # The batch the times are for is that of the job, before `samples` cuts it.
        self._batch = len(np.load(job["data"])["inputs"] if "data" in job else job["inputs"])
        start = time.perf_counter()
        self._runner, self._task = self._build(task, self._options), task
        seconds = time.perf_counter() - start
        note = self._runner.note
        return {"loaded": True, "seconds": seconds, "samples": task.samples, "batch": self._batch, "note": note}

    def _ready(self) -> tuple[Runner, Task]:
        if self._runner is None or self._task is None:
            raise ValueError("no task is loaded: send a load job first")
        return self._runner, self._task

    def _compile(self, job: dict[str, Any]) -> dict[str, Any]:
        seconds, _ = _time(self._ready()[0], job["mode"])
        return {"seconds": seconds}

    def _run(self, job: dict[str, Any]) -> dict[str, Any]:
        runner, task = self._ready()
        mode = job["mode"]
        if self._latest.get(mode, SHORT) < SHORT:  # the wait for the job has put threads and caches to sleep
            _time(runner, mode)
        seconds, includes_forward = _time(runner, mode)
        self._latest[mode] = seconds
        scaled = seconds * self._batch / task.samples
        return {"seconds": scaled, "samples": task.samples, "includes_forward": includes_forward}

    def _check(self, job: dict[str, Any]) -> dict[str, Any]:
        runner, task = self._ready()
        values, gradient = (np.asarray(array, float) for array in runner.combined())
        _agree("values of forward and combined", runner.forward(), values)
        pullback = runner.pullback()
        if pullback is not None and runner.exact_gradient:
            _agree("gradients of backward and combined", pullback(), gradient)
        return {
            "values": values.tolist(),
            "gradient": gradient.tolist(),
            "exact_gradient": runner.exact_gradient,
            "measured_weights": runner.measured_weights,
            "samples": task.samples,
        }

    def _memory(self, job: dict[str, Any]) -> dict[str, Any]:
        return {"mib": _peak_mib()}


def _peak_mib() -> float:
    """Peak resident memory of this process; on Linux ru_maxrss counts its parent, of which it was a copy at first."""
    if sys.platform == "linux":
        with open("/proc/self/status", encoding="ascii") as status:
            (line,) = (line for line in status if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    import resource  # not on every system

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _agree(what: str, found: np.ndarray, expected: np.ndarray) -> None:
    """Every mode is checked, not only the one whose results are sent; single precision is precise enough."""
    distance = np.max(np.abs(np.asarray(found) - expected), initial=0.0)
    if not distance < 1e-4 * (1.0 + np.max(np.abs(expected), initial=0.0)):
        raise RuntimeError(f"{what} differ by {distance}")


def _time(runner: Runner, mode: str) -> tuple[float, bool]:
    """Seconds of one call, and whether they include a forward pass."""
    call, includes_forward = _timed_call(runner, mode)
    if runner.measured_weights is not None and mode == "combined":
        return float(runner.scaled_seconds()), includes_forward
    start = time.perf_counter()
    call()
    return time.perf_counter() - start, includes_forward


def _timed_call(runner: Runner, mode: str) -> tuple[Callable[[], Any], bool]:
    """What to time for a mode, and whether it does a forward pass as well."""
    if mode == "forward":
        return runner.forward, True
    if mode == "combined":
        return runner.combined, True
    if mode == "backward":
        pullback = runner.pullback()
        return (runner.combined, True) if pullback is None else (pullback, False)
    raise ValueError(f"mode {mode!r} is not one of forward, backward, combined")


def serve(
    peer: str,
    packages: tuple[str, ...],
    build: Build,
    options: dict[str, dict[str, Any]] | None = None,
) -> None:
    """Answer jobs until the input ends.

    Args:
        peer: Name of the peer.
        packages: Distributions whose versions are reported.
        build: Makes a runner of a task; it imports the peer's library.
        options: Command line options of this peer, as arguments of `add_argument`.
    """
    parser = argparse.ArgumentParser(description=f"{peer} as a peer of the benchmarks; see _protocol.py")
    parser.add_argument("--threads", type=int, default=THREADS)
    for name, settings in (options or {}).items():
        parser.add_argument(name, **settings)
    parsed = parser.parse_args()
    out = _claim_stdout()

    def send(answer: dict[str, Any]) -> None:
        out.write(json.dumps(answer) + "\n")
        out.flush()

    versions = {package: _version(package) for package in packages}
    about = {"peer": peer, "python": sys.version.split()[0], "threads": THREADS, "versions": versions}
    send({"ready": {**about, "options": vars(parsed)}})
    session = Session(build, parsed)
    for line in sys.stdin:
        job = json.loads(line)
        if job.get("job") == "quit":
            return
        try:
            send(session.answer(job))
        except Exception as error:  # noqa: BLE001 (the harness is told)
            traceback.print_exc()
            send({"error": f"{type(error).__name__}: {error}"})


def _claim_stdout() -> Any:
    """Keep stdout for answers; what libraries print goes to stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return out


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
