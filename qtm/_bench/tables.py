"""The tables of the documents, generated from `benchmarks/results/*.json` and never typed.

A table is placed between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`, where NAME is a key of `TABLES`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from qtm._bench.report import goal, ground_state_lines, number, peer_time, ratio, training_lines
from qtm._errors import ParameterError

DOCUMENTS = ("README.md", "benchmarks/README.md", "docs/methods.md", "docs/performance.md", "docs/reproducing.md")
_MARKED = re.compile(r"(<!-- bench:(?P<name>[\w-]+) -->\n)(?P<body>.*?)(<!-- /bench(?::(?P=name))? -->)", re.DOTALL)
_OPENING = re.compile(r"<!-- bench:([\w-]+) -->")
Results = Mapping[str, dict[str, Any]]


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """The JSON files of a folder, by benchmark."""
    contents = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json")))
    return {content["benchmark"]: content for content in contents}


def write_tables(root: Path, change: bool) -> list[Path]:
    """Fill the tables of a checkout's documents; the documents whose text was (or would be) changed.

    Raises:
        ParameterError: a marker names no table, or is not closed.
    """
    measured = results(root / "benchmarks" / "results")
    changed = []
    for path in (root / name for name in DOCUMENTS if (root / name).exists()):
        before = path.read_text(encoding="utf-8")
        after = filled(before, measured, path.name)
        if after != before:
            changed.append(path)
            if change:
                path.write_text(after, encoding="utf-8")
    return changed


def filled(text: str, measured: Results, name: str = "the text") -> str:
    """A document with its tables regenerated.

    Raises:
        ParameterError: a marker names no table, or is not closed.
    """
    opened, closed = _OPENING.findall(text), [match["name"] for match in _MARKED.finditer(text)]
    if opened != closed:
        missing = sorted(set(opened) - set(closed)) or opened
        raise ParameterError(f"{name}: {missing[0]!r} has no closing marker <!-- /bench:{missing[0]} -->")
    unknown = sorted(set(closed) - set(TABLES))
    if unknown:
        raise ParameterError(f"{name}: there is no table {unknown[0]!r}; there are {', '.join(TABLES)}")
    return _MARKED.sub(lambda match: match[1] + _body(match["name"], measured) + match[4], text)


def _body(name: str, measured: Results) -> str:
    needed, make = TABLES[name]
    if any(benchmark not in measured for benchmark in needed):
        commands = ", ".join(f"`qtm bench {b} --json benchmarks/results/{b}.json`" for b in needed if b not in measured)
        return f"Not measured yet: {commands}.\n"
    return make(measured).rstrip("\n") + "\n"


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    head = list(header)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


# --- Tables of one benchmark ------------------------------------------------------------------------------------


def core(measured: Results) -> str:
    """All lines of `qtm bench core`."""
    rows = [
        [
            row["what"], f"{number(row['figure'])} {row['unit']}", goal(row),
            "reached" if row["ratio"] >= 1 else f"{number(row['ratio'])} of the goal", row["detail"],
        ]
        for row in measured["core"]["rows"]
    ]  # fmt: skip
    return markdown(("what", "figure", "goal", "", "in detail"), rows) + _where(measured["core"])


def comparison(measured: Results, benchmark: str, mode: str) -> str:
    """Milliseconds by package and size, with their ratios to qtm's, and notes below the table."""
    content = measured[benchmark]
    rows = [row for row in content["rows"] if row["mode"] == mode]
    sizes = sorted({row["x"] for row in rows})
    lines = []
    for key in dict.fromkeys(_series(row) for row in rows):
        cells = {row["x"]: _cell(row) for row in rows if _series(row) == key}
        lines.append([*key, *(cells.get(x, "") for x in sizes)])
    header = ("ms", "precision", *(f"{content['axis']} {x}" for x in sizes))
    return markdown(header, lines) + "\n" + "".join(f"* {note}\n" for note in _notes(rows)) + _where(content)


def _series(row: dict[str, Any]) -> tuple[str, str]:
    name = f"**{row['peer']}**" if row["peer"] == "qtm" else row["peer"]
    return name + ("" if row["gradient"] == "reverse" or row["peer"] != "qtm" else f", {row['gradient']}"), row["dtype"]


def _cell(row: dict[str, Any]) -> str:
    if row["peer"] == "qtm":
        return f"**{number(row['qtm_ms']['median'])}**" if row["qtm_ms"] else row["status"]
    factor = ratio(row)
    return peer_time(row) + (f" ({factor})" if factor else "")


def _notes(rows: list[dict[str, Any]]) -> list[str]:
    """Notes of the rows, each once, with the sizes that it applies to."""
    said: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        if row["note"]:
            said.setdefault((row["peer"], row["note"]), []).append(row["x"])
    notes = [f"{peer}, {', '.join(map(str, sizes))}: {note}." for (peer, note), sizes in said.items()]
    compiled: dict[str, list[float]] = {}
    for row in rows:
        if row["compile_s"] is not None:
            compiled.setdefault(row["peer"], []).append(row["compile_s"])
    return notes + [f"{p} compiles for {number(min(s))} to {number(max(s))} s before." for p, s in compiled.items()]


def threads(measured: Results) -> str:
    """Speed over one thread."""
    rows = [
        [
            str(r["x"]),
            str(r["batch"]),
            str(r["threads"]),
            *(number(r[who]["median"]) for who in ("peer_ms", "qtm_ms")),
            ratio(r),
        ]
        for r in measured["threads"]["rows"]
    ]
    return markdown(("qubits", "batch", "threads", "ms on one", "ms", "speed"), rows) + _where(measured["threads"])


def with_training(measured: Results, benchmark: str) -> str:
    """A comparison of steps, and the results of the trainings."""
    lines = "".join(f"* {line}.\n" for line in training_lines(measured[benchmark]))
    return comparison(measured, benchmark, "combined") + "\n" + lines


def memory(measured: Results, benchmark: str) -> str:
    """Peak memory of a process that computes one step, by package and size."""
    rows = [row for row in measured[benchmark]["rows"] if row.get("qtm_mib") or row.get("peer_mib")]
    sizes = sorted({row["x"] for row in rows})
    lines = []
    for peer in dict.fromkeys(row["peer"] for row in rows):
        found = {row["x"]: number(row.get("qtm_mib") or row.get("peer_mib")) for row in rows if row["peer"] == peer}
        lines.append([f"**{peer}**" if peer == "qtm" else peer, *(found.get(x, "") for x in sizes)])
    return markdown(("MiB", *(f"{measured[benchmark]['axis']} {x}" for x in sizes)), lines)


def ground_states(measured: Results) -> str:
    """How the trainings of Fig. 9 ended."""
    return "".join(f"* {line}.\n" for line in ground_state_lines(measured["mps"])) + _where(measured["mps"])


def _where(content: dict[str, Any]) -> str:
    machine, versions = content["machine"], content["versions"]
    commits = ", ".join(dict.fromkeys(str(row["commit"]) for row in content["rows"] or content["trainings"]))
    threads_text = f"{content['threads']} threads, " if content["threads"] else ""
    return (
        f"\n{machine['processor']}, {machine['cores']} cores, {machine['vector_bits']}-bit vectors, {threads_text}"
        f"torch {versions['torch']}, commit {commits}. `qtm bench {content['benchmark']}`\n"
    )


def _ratios(content: dict[str, Any], mode: str = "combined") -> list[dict[str, Any]]:
    return [row for row in content["rows"] if row["mode"] == mode and row["ratio"]]


def headline(measured: Results) -> str:
    """One sentence: a step on ten qubits here and with qiskit-machine-learning."""
    content = measured["fig1"]
    rows = [r for r in _ratios(content) if r["peer"] == "qiskit-machine-learning"]
    if not rows:
        return "Not measured yet: `qtm bench fig1`.\n"
    row = max((r for r in rows if r["x"] <= 10), key=lambda r: r["x"], default=rows[0])
    note = f" ({row['note']})" if row["note"] else ""
    return (
        f"Values and gradients of {row['batch']} samples on the paper's re-uploading circuit with {row['x']} qubits: "
        f"**{number(row['qtm_ms']['median'])} ms**, where qiskit-machine-learning's reverse gradient takes "
        f"{number(row['peer_ms']['median'] / 1e3)} s{note}, **{number(row['ratio'])} times** as long. "
        f"Measured on {content['machine']['processor']}, {content['threads']} cores, with `qtm bench fig1`.\n"
    )


# --- Goals ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Goal:
    """A ratio that every row of a set should reach; the worst row is shown."""

    what: str
    least: float
    benchmark: str
    sizes: tuple[int, ...]
    peers: tuple[str, ...] = ()  # none: all but the two of the paper
    mode: str = "combined"

    def line(self, measured: Results) -> list[str]:
        """What, goal, measured, verdict."""
        rows = [row for row in _ratios(measured[self.benchmark], self.mode) if self._covers(row)]
        asked = f">= {self.least:,.0f}x"
        if not rows:
            return [self.what, asked, "not measured", ""]
        sizes = sorted({row["x"] for row in rows})
        by_size = [min((r for r in rows if r["x"] == x), key=_ratio_of) for x in sizes]
        said = [f"{r['x']}: {ratio(r)}" + ("" if self.peers else f" ({r['peer']}, {r['dtype']})") for r in by_size]
        reached = [r["ratio"] >= self.least for r in by_size]
        missing = [x for x in self.sizes if x not in sizes]
        if missing:
            said.append(f"{', '.join(map(str, missing))}: not measured")
        worst = min(map(_ratio_of, by_size)) / self.least
        verdict = (
            "reached" + " where measured" * bool(missing)
            if all(reached)
            else f"at {sum(reached)} of {len(reached)} sizes; at worst {worst:.0%} of it"
        )
        return [self.what, asked, "; ".join(said), verdict]

    def _covers(self, row: dict[str, Any]) -> bool:
        others = ("qtm", "original", "qiskit-machine-learning")
        known = row["peer"] in self.peers if self.peers else not row["peer"].startswith(others)
        return bool(known and row["x"] in self.sizes)


def _ratio_of(row: dict[str, Any]) -> float:
    return float(row["ratio"])


_SMALL, _LARGE, _STATES = (4, 6, 8, 10), (12, 14, 16), (16, 18, 20, 22)
GOALS = (
    Goal("step over qiskit-machine-learning, reverse", 20_000, "fig1", (*_SMALL, 12), ("qiskit-machine-learning",)),
    Goal("step over the original qiskit-torch-module", 4_000, "fig1", (*_SMALL, 12), ("original",)),
    Goal("step over the fastest other package, up to 10 qubits", 20, "fig1", _SMALL),
    Goal("the same, from 12 qubits on", 10, "fig1", _LARGE),
    Goal("one state over lightning.qubit", 15, "vqe", _STATES, ("lightning",)),
    Goal("one state over the fastest package", 8, "vqe", _STATES),
)


def goals(measured: Results) -> str:
    """Goals in comparison with other packages, and whether they were reached."""
    return markdown(("what", "goal", "measured", ""), [*(g.line(measured) for g in GOALS), *_times(measured)])


def _times(measured: Results) -> list[list[str]]:
    rows = [
        _limit("table 2: training step of 48 digits", 2.0, _training(measured, "table2", "classifier on digits")),
        _limit("table 3: values and gradient of 10 states", 0.25, _own(measured, "table3", "combined")),
    ]
    by_rates = {
        name: [r for r in measured["table3"]["trainings"] if r["what"] == name]
        for name in dict.fromkeys(r["what"] for r in measured["table3"]["trainings"])
    }
    if len(by_rates) == 2:
        medians = [sorted(r["steps"] for r in found)[len(found) // 2] for found in by_rates.values()]
        verdict = "reached" if medians[1] < medians[0] else "not reached"
        said = f"{medians[1]:,} against {medians[0]:,}"
        rows.append(["table 3: steps to solve, separate rates against one", "fewer", said, verdict])
    return rows


def _training(measured: Results, benchmark: str, what: str) -> float | None:
    return next((1e3 * r["step_seconds"] for r in measured[benchmark]["trainings"] if r["what"] == what), None)


def _own(measured: Results, benchmark: str, mode: str) -> float | None:
    rows = (r for r in measured[benchmark]["rows"] if r["peer"] == "qtm" and r["mode"] == mode and r["qtm_ms"])
    return next((r["qtm_ms"]["median"] for r in rows), None)


def _limit(what: str, most: float, found: float | None) -> list[str]:
    if found is None:
        return [what, f"<= {most:g} ms", "not measured", ""]
    verdict = "reached" if found <= most else f"{found / most:.1f} times it"
    return [what, f"<= {most:g} ms", f"{number(found)} ms", verdict]


# --- Which method -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """A line of the table that helps to choose a method: a row of a benchmark and its description."""

    case: str
    method: str
    gradient: str
    benchmark: str
    qubits: int
    peer: str = "qtm"
    differentiated: str = "reverse"
    own: bool = True  # the time of qtm in the row, not that of what it is compared with

    def line(self, measured: Results) -> list[str] | None:
        """Case, qubits, samples, method, gradient, milliseconds; None where it was not measured."""
        head = [self.case, str(self.qubits)]
        tail = [self.method, self.gradient]
        for row in measured.get(self.benchmark, {"rows": []})["rows"]:
            known = (row["x"], row["peer"], row["gradient"], row["mode"], row["dtype"])
            if known == (self.qubits, self.peer, self.differentiated, "combined", "double"):
                time = row["qtm_ms"] if self.own else row["peer_ms"]
                return [*head, str(row["batch"]), *tail, number(time["median"]) if time else row["status"]]
        return None


_VECTOR, _NOISELESS = "`statevector`", "qtm, without noise"
CHOICES = (
    *(Choice("re-uploading, depth 3", _VECTOR, "reverse", "fig1", n) for n in (4, 10, 16)),
    *(Choice("hardware-efficient, 3 layers", _VECTOR, "reverse", "vqe", n) for n in (16, 22)),
    *(Choice("the same", _VECTOR, "param-shift", "vqe", n, differentiated="param-shift") for n in (16, 22)),
    *(Choice("brick, 4 layers, all bonds", _VECTOR + ", causal cones", "reverse", "wide", n)
      for n in (100, 1000)),
    *(Choice("1% noise, 3 layers", "`density_matrix`", "reverse", "noise", n, _NOISELESS) for n in (4, 6, 8)),
    *(Choice("the same", "64 `trajectories`", "reverse", "noise", n, "qtm, 64 trajectories", own=False)
      for n in (4, 6, 8)),
    Choice("the same", "Qiskit Aer", "param-shift", "noise", 4, "qiskit-aer, parameter shift", own=False),
    Choice("the same, without noise", _VECTOR, "reverse", "noise", 8, _NOISELESS, own=False),
    *(Choice("chain, 3 layers", "`matrix_product_state`, bonds of 32", "reverse", "mps-step", n)
      for n in (50, 100, 200)),
)  # fmt: skip


def methods(measured: Results) -> str:
    """A training step by circuit, batch, method and gradient."""
    rows = filter(None, (choice.line(measured) for choice in CHOICES))
    lines = markdown(("circuit", "qubits", "samples", "method", "gradient", "ms"), rows)
    names = dict.fromkeys(choice.benchmark for choice in CHOICES if choice.benchmark in measured)
    return lines + "".join(_where(measured[name]) for name in names)


TABLES: dict[str, tuple[tuple[str, ...], Callable[[Results], str]]] = {
    "headline": (("fig1",), headline),
    "goals": (("fig1", "vqe", "table2", "table3"), goals),
    "methods": (("fig1", "vqe"), methods),
    "core": (("core",), core),
    "fig1": (("fig1",), partial(comparison, benchmark="fig1", mode="combined")),
    "fig1-forward": (("fig1",), partial(comparison, benchmark="fig1", mode="forward")),
    "fig1-backward": (("fig1",), partial(comparison, benchmark="fig1", mode="backward")),
    "fig2": (("fig2",), partial(comparison, benchmark="fig2", mode="backward")),
    "table1": (("table1",), partial(comparison, benchmark="table1", mode="backward")),
    "table1-forward": (("table1",), partial(comparison, benchmark="table1", mode="forward")),
    "table2": (("table2",), partial(with_training, benchmark="table2")),
    "table3": (("table3",), partial(with_training, benchmark="table3")),
    "threads": (("threads",), threads),
    "noise": (("noise",), partial(comparison, benchmark="noise", mode="combined")),
    "wide": (("wide",), partial(comparison, benchmark="wide", mode="combined")),
    "vqe": (("vqe",), partial(comparison, benchmark="vqe", mode="combined")),
    "latency": (("latency",), partial(comparison, benchmark="latency", mode="combined")),
    "mps": (("mps",), ground_states),
    "mps-step": (("mps-step",), partial(comparison, benchmark="mps-step", mode="combined")),
    "mps-step-memory": (("mps-step",), partial(memory, benchmark="mps-step")),
    "latency-forward": (("latency",), partial(comparison, benchmark="latency", mode="forward")),
}
