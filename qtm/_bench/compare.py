"""qtm compared with its peers: same circuit, same data, results checked, times taken in turns."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any

import numpy as np

from qtm._bench.peers import PEERS, CutOff, Peer, PeerFailed, PeerProcess, python_of
from qtm._bench.process_memory import peak_mib
from qtm._bench.timing import alternate
from qtm._bench.workloads import Case, QtmRunner, Workload

TOLERANCE = {"double": 1e-7, "single": 2e-3}
Summary = dict[str, float]


@dataclass(frozen=True)
class Settings:
    """Settings of `qtm bench NAME`; ``limit``, ``patience`` and ``stop`` are seconds."""

    threads: int
    repeats: int = 7
    dtypes: tuple[str, ...] = ("double",)
    limit: float = 5.0  # a call of a whole batch that takes longer is run on fewer samples
    patience: float = 60.0  # a call that takes longer is cut off
    stop: float = inf  # a peer whose call takes longer, or whose compilation ten times as long, gets no larger size
    batch: int | None = None
    qubits: int | None = None
    device: str = "cpu"  # of qtm
    pythons: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)


@dataclass
class Row:
    """One measurement; milliseconds of the whole batch, with their quartiles.

    ``status`` is "ok", "cut off" (``peer_ms`` is then a lower bound), "not tried" (a smaller size was slow enough),
    "wrong", "failed" or "not installed".
    """

    x: int
    mode: str
    peer: str
    dtype: str
    gradient: str
    batch: int
    threads: int
    qtm_ms: Summary | None = None
    peer_ms: Summary | None = None
    status: str = "ok"
    note: str = ""
    samples: int | None = None
    repeats: int = 0
    compile_s: float | None = None
    qtm_mib: float | None = None  # peak memory of a process of its own
    peer_mib: float | None = None
    measured: str = ""

    @property
    def ratio(self) -> float | None:
        """Ratio of the peer's time to qtm's."""
        return self.peer_ms["median"] / self.qtm_ms["median"] if self.peer_ms and self.qtm_ms else None

    def as_dict(self) -> dict[str, Any]:
        """The row as an entry of a JSON file."""
        return asdict(self) | {"ratio": self.ratio}


def disagreement(
    ours: tuple[np.ndarray, np.ndarray], theirs: dict[str, Any], dtype: str, tolerance: float | None = None
) -> str | None:
    """How a peer's results differ from ours, or None if they agree.

    Args:
        ours: values (samples, observables) and gradient (weights,).
        theirs: the answer to a `check` job.
        dtype: "double" or "single".
        tolerance: relative to the largest number; by default that of the dtype.
    """
    allowed = tolerance or TOLERANCE[dtype]
    for name, mine, answered in zip(("values", "gradient"), ours, (theirs["values"], theirs["gradient"]), strict=True):
        other = np.asarray(answered, float)
        if name == "gradient" and not theirs["exact_gradient"]:
            continue
        if other.shape != mine.shape:
            return f"{name} have shape {other.shape}, not {mine.shape}"
        if name == "gradient" and theirs.get("measured_weights") is not None:
            mine, other = mine[theirs["measured_weights"]], other[theirs["measured_weights"]]
        off = float(np.abs(other - mine).max(initial=0.0))
        if not off <= allowed * max(float(np.abs(mine).max(initial=0.0)), 1.0):  # also where it is NaN
            return f"{name} are off by {off:.1e}"
    return None


class Comparison:
    """Runs one peer through the sizes of a workload, in one precision and one process."""

    def __init__(self, name: str, workload: Workload, dtype: str, settings: Settings) -> None:
        self.name, self.workload, self.dtype, self.settings = name, workload, dtype, settings
        self.peer: Peer = PEERS[name]
        self._samples, self._note = 0, ""

    def run(self, sizes: Sequence[int], done: Callable[[Row], None]) -> dict[str, Any]:
        """Measure, passing every row to ``done``; returns what the peer reports about itself.

        A peer that is cut off is not timed on the larger sizes.
        """
        python = python_of(self.name, self.settings.pythons)
        if python is None:
            note = f"{self.peer.package} is not installed; see --peer-python"
            self._fill([(x, mode) for x in sizes for mode in self.workload.modes], "not installed", note, done)
            return {}
        todo = [(x, mode) for x in sizes for mode in self.workload.modes]
        try:
            with PeerProcess(
                self.name, python, self.settings.threads, tuple(self.settings.options.get(self.name, "").split())
            ) as self.process:
                for x in sizes:
                    slow = ""
                    for row in self._rows(self.workload.case(x, self.settings.batch, self.settings.qubits)):
                        done(row)
                        todo.remove((row.x, row.mode))
                        slow = slow or self._too_slow(row)
                    if slow:
                        self._fill(todo, "not tried", f"{slow} at {x}", done)
                        break
                return self.process.about
        except CutOff as error:
            self._stopped(todo, error, done)
        except PeerFailed as error:
            self._fill(todo, "failed", str(error), done)
        return {}

    def _too_slow(self, row: Row) -> str:
        """Why larger sizes are not timed; empty if they are."""
        if row.peer_ms and row.peer_ms["median"] > 1e3 * self.settings.stop:
            return f"{row.peer_ms['median'] / 1e3:.1f} s a step"
        if row.compile_s is not None and row.compile_s > 10 * self.settings.stop:
            return f"{row.compile_s:.0f} s to compile"
        return ""

    def _stopped(self, todo: list[tuple[int, str]], error: CutOff, done: Callable[[Row], None]) -> None:
        (x, _), *_ = todo
        reached = [(other, mode) for other, mode in todo if other == x]
        bound = None
        if error.seconds is not None and self._samples:
            bound = 1e3 * error.seconds * self.workload.case(x, self.settings.batch).batch / self._samples
        for other, mode in reached:
            row = self._row(other, mode, "cut off", str(error))
            row.peer_ms = None if bound is None else {"median": bound, "low": bound, "high": bound}
            done(row)
        self._fill([pair for pair in todo if pair[0] != x], "cut off", f"not tried: cut off at {x}", done)

    def _fill(self, todo: list[tuple[int, str]], status: str, note: str, done: Callable[[Row], None]) -> None:
        for x, mode in todo:
            done(self._row(x, mode, status, note))

    def _row(self, x: int, mode: str, status: str = "ok", note: str = "") -> Row:
        batch = self.settings.batch or self.workload.batch
        return Row(
            x, mode, self.name, self.dtype, self.peer.gradient, batch, self.settings.threads,
            status=status, note=note, measured=now(),
        )  # fmt: skip

    def _rows(self, case: Case) -> Iterator[Row]:
        modes = self.workload.modes
        try:
            samples = self._fit(case)
            # Before the check, which is a combined call and would include compilation.
            calls = dict.fromkeys((*modes, "combined") if self.peer.compiles else modes)
            first = {mode: float(self._ask("compile", mode)["seconds"]) for mode in calls}
            problem = self._check(case, samples)
            status = "wrong" if problem else "ok"
        except CutOff:
            raise
        except PeerFailed as error:
            status, problem = "failed", str(error)
        for mode in modes:
            yield self._row(case.x, mode, status, problem) if problem else self._measured(case, mode, first[mode])

    def _fit(self, case: Case) -> int:
        """Load the case with as many samples as a call computes within the limit."""
        few = min(case.batch, self.settings.threads)
        if self.peer.compiles or self.peer.whole or case.batch == few:
            return self._load(case, case.batch)
        self._load(case, few)
        self._ask("compile", "combined")
        seconds = float(self._ask("run", "combined")["seconds"])  # of the whole batch
        fraction = min(self.settings.limit / seconds, 1.0)
        return self._load(case, max(few, int(case.batch * fraction) // few * few))

    def _load(self, case: Case, samples: int) -> int:
        answer = self.process.load(case, self.dtype, samples, self.settings.patience)
        self._samples, self._note = int(answer["samples"]), str(answer.get("note", ""))
        return self._samples

    def _check(self, case: Case, samples: int) -> str:
        """What is wrong with the peer's results, if anything."""
        theirs = self.process.ask({"job": "check"}, self.settings.patience)
        device = self.settings.device
        ours = QtmRunner(case, "double", self.settings.threads, samples=samples, device=device).result()
        return disagreement(ours, theirs, self.dtype, self.peer.tolerance) or ""

    def _measured(self, case: Case, mode: str, first: float) -> Row:
        row = self._row(case.x, mode)
        device = self.settings.device
        ours = QtmRunner(case, self.dtype, self.settings.threads, self.peer.gradient, device=device)
        mine, theirs = alternate(
            [lambda: ours.timed(mode), lambda: float(self._ask("run", mode)["seconds"])], self.settings.repeats
        )
        row.qtm_ms, row.peer_ms = mine.summary(), theirs.summary()
        row.samples, row.repeats = self._samples, self.settings.repeats
        row.compile_s = first if self.peer.compiles else None
        if self.workload.memory:
            row.peer_mib = float(self.process.ask({"job": "memory"}, self.settings.patience)["mib"])
        notes = [self._note] if self._note and mode == "combined" else []
        if self._samples < case.batch:
            notes.append(f"timed on {self._samples} of {case.batch} samples and scaled")
        if mode == "backward" and self._ask("run", mode)["includes_forward"]:
            notes.append("includes the forward pass")
        row.note = "; ".join(notes)
        return row

    def _ask(self, job: str, mode: str) -> dict[str, Any]:
        # A call that compiles may take longer, which does not count as slow.
        patience = self.settings.patience * (5 if self.peer.compiles and job == "compile" else 1)
        return self.process.ask({"job": job, "mode": mode}, patience)


def now() -> str:
    """The time in UTC, as in JSON files."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def beside(
    name: str, workload: Workload, sizes: Sequence[int], settings: Settings, done: Callable[[Row], None]
) -> dict[str, Any]:
    """Measure one peer against qtm over all sizes, in every requested precision that it supports.

    Returns:
        What the peer reports about itself: its Python and versions.
    """
    peer = PEERS[name]
    about: dict[str, Any] = {}
    for dtype in [d for d in settings.dtypes if d in peer.dtypes] or peer.dtypes[:1]:
        about |= Comparison(name, workload, dtype, settings).run(sizes, done)
    return about


def alone(workload: Workload, sizes: Sequence[int], settings: Settings, done: Callable[[Row], None]) -> None:
    """Measure qtm by itself, in every mode, precision and gradient of the workload."""
    for x in sizes:
        case = workload.case(x, settings.batch, settings.qubits)
        for gradient in workload.gradients:
            for dtype in settings.dtypes:
                ours = QtmRunner(case, dtype, settings.threads, gradient, device=settings.device)
                for mode in workload.modes:
                    row = _own_row(case, ours, mode, dtype, gradient, settings)
                    if workload.memory and row.status == "ok":
                        row.qtm_mib = peak_mib(workload.memory, x, case.batch, settings.threads)
                    done(row)


def _own_row(case: Case, ours: QtmRunner, mode: str, dtype: str, gradient: str, settings: Settings) -> Row:
    row = Row(case.x, mode, "qtm", dtype, gradient, case.batch, settings.threads, measured=now())
    # Again, as the first call may have compiled.
    if ours.timed(mode) > settings.patience / 5 and ours.timed(mode) > settings.patience / 5:
        row.status, row.note = "cut off", f"takes more than {settings.patience / 5:g} s"
        return row
    (times,) = alternate([lambda: ours.timed(mode)], settings.repeats)
    row.qtm_ms, row.samples, row.repeats = times.summary(), case.batch, settings.repeats
    return row
