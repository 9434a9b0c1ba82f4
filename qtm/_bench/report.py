"""The results of a benchmark: a JSON file that records where and how it was measured, and a table to read."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from qtm._engines.statevector.kernels import simd
from qtm._errors import ParameterError, require
from qtm._machine import available_cores

_PACKAGES = ("qtm-torch", "qiskit", "torch", "numpy", "numba", "llvmlite")
_KEYS = ("x", "mode", "peer", "dtype", "gradient", "batch", "threads", "what")


def machine() -> dict[str, Any]:
    """The processor, its cores and vectors, and the system."""
    return {
        "processor": _processor(),
        "cores": available_cores(),
        "vector_bits": 8 * simd.VECTOR_BYTES,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,  # when the run began
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """qtm and what it runs on."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed: run from the checkout"
    return found


def commit() -> str | None:
    """The commit that is checked out, with a + where files differ from it; None outside a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        answers = [
            subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--", "qtm"))
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return answers[0] + ("+" if answers[1] else "")


class Report:
    """The results of one benchmark, saved row by row.

    Args:
        benchmark: Its name.
        path: A JSON file, or None to keep it in memory. Rows that the file holds already stay unless they are
            measured again, so that a long benchmark can be run in parts.
        head: Data common to all rows: title, axis, commands, threads.

    Raises:
        ParameterError: the file contains another benchmark.
    """

    def __init__(self, benchmark: str, path: Path | None, head: dict[str, Any]) -> None:
        self.path = path
        before = json.loads(path.read_text(encoding="utf-8")) if path is not None and path.exists() else {}
        if before and before.get("benchmark") != benchmark:
            raise ParameterError(
                f"{path} contains results of {before.get('benchmark')!r}, not of {benchmark!r}; use another file"
            )
        self.commit = commit()
        self.content: dict[str, Any] = {
            "benchmark": benchmark,
            **head,
            "commands": list(dict.fromkeys([*before.get("commands", []), *head["commands"]])),
            "machine": machine(),
            "versions": versions(),
            "peers": before.get("peers", {}),
            "trainings": before.get("trainings", []),
            "rows": before.get("rows", []),
        }

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows so far."""
        rows: list[dict[str, Any]] = self.content["rows"]
        return rows

    def add(self, row: dict[str, Any]) -> None:
        """Add a row, in place of an earlier one of the same thing, and save."""
        row = {**row, "commit": self.commit}
        same = [i for i, other in enumerate(self.rows) if _key(other) == _key(row)]
        if same:
            self.rows[same[0]] = row
        else:
            self.rows.append(row)
        self.save()

    def training(self, row: dict[str, Any]) -> None:
        """Add the result of a training, in place of an earlier one of the same, and save."""
        others = [r for r in self.content["trainings"] if (r["what"], r.get("seed")) != (row["what"], row.get("seed"))]
        self.content["trainings"] = [*others, {**row, "commit": self.commit}]
        self.save()

    def about(self, peer: str, words: dict[str, Any]) -> None:
        """Record what a peer reports about itself."""
        if words:
            self.content["peers"][peer] = {key: words[key] for key in ("python", "threads", "versions")}
            self.save()

    def save(self) -> None:
        """Write the whole file atomically."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(self.path.name + ".part")
        beside.write_text(json.dumps(self.content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(beside, self.path)


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in _KEYS)


# --- Numbers as text --------------------------------------------------------------------------------------------


def number(value: float | None) -> str:
    """Three significant digits, thousands apart: 0.0123, 4.56, 789, 12,300."""
    if value is None:
        return ""
    if value == 0:
        return "0"
    rounded = round(value, 2 - _exponent(value))
    return f"{rounded:,.{max(2 - _exponent(rounded), 0)}f}"


def _exponent(value: float) -> int:
    return int(f"{abs(value):e}".partition("e")[2])


def peer_time(row: dict[str, Any]) -> str:
    """The peer's milliseconds, ">" a bound if it was cut off, or why there are none."""
    if row["peer_ms"] is None:
        return str(row["status"]) if row["peer"].partition(",")[0] != "qtm" else ""
    return ("> " if row["status"] == "cut off" else "") + number(row["peer_ms"]["median"])


def ratio(row: dict[str, Any]) -> str:
    """Ratio of the peer's time to qtm's; ">" marks a lower bound if it was cut off."""
    return "" if row["ratio"] is None else ("> " if row["status"] == "cut off" else "") + number(row["ratio"]) + "x"


def spread(summary: dict[str, float] | None) -> str:
    """Half the distance of the quartiles, relative to the median."""
    if not summary:
        return ""
    return f"±{50 * (summary['high'] - summary['low']) / summary['median']:.0f}%"


# --- The terminal -----------------------------------------------------------------------------------------------


def comparison_table(content: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a comparison, for `show`."""
    header = [content["axis"], "batch", "mode", "against", "precision", "qtm ms", "", "peer ms", "", "ratio", "note"]
    with_memory = any(_mib(row) for row in content["rows"])
    header[-1:] = ["MiB", "note"] if with_memory else ["note"]
    table = []
    for row in content["rows"]:
        mine = row["qtm_ms"]
        table.append([
            str(row["x"]), str(row["batch"]),
            row["mode"] + ("" if row["gradient"] == "reverse" else f", {row['gradient']}"),
            "" if row["peer"] == "qtm" else row["peer"], row["dtype"],
            number(mine["median"]) if mine else row["status"], spread(mine),
            peer_time(row), spread(row["peer_ms"]) if row["status"] == "ok" else "", ratio(row),
            *([_mib(row)] if with_memory else []), row["note"],
        ])  # fmt: skip
    return header, table


def training_lines(content: dict[str, Any]) -> list[str]:
    """The results of the trainings, one line each; medians over seeds."""
    lines = []
    for what in dict.fromkeys(row["what"] for row in content["trainings"]):
        rows = [row for row in content["trainings"] if row["what"] == what]
        milliseconds = number(1e3 * statistics.median(r["step_seconds"] for r in rows))
        steps = f"{statistics.median(r['steps'] for r in rows):,.0f}"
        if "seed" in rows[0]:
            solved = sum(r["solved"] for r in rows)
            lines.append(f"{what}: solved {solved} of {len(rows)}, median {steps} steps, {milliseconds} ms per step")
        else:
            accuracy = f"{rows[0]['held_out_accuracy']:.1%}"
            lines.append(f"{what}: {accuracy} of held-out images, {steps} steps, {milliseconds} ms per step")
    return lines


def _mib(row: dict[str, Any]) -> str:
    """Peak memory of the package that the row is about."""
    return number(row.get("qtm_mib") or row.get("peer_mib"))


def ground_state_lines(content: dict[str, Any]) -> list[str]:
    """How the trainings of Fig. 9 ended, one line for all starts of a kind."""
    lines = []
    for what in dict.fromkeys(row["what"] for row in content["trainings"]):
        rows = [row for row in content["trainings"] if row["what"] == what]
        last = [row["errors"][-1] for row in rows]
        checked = [row["checked_error"] for row in rows if row.get("checked_error") is not None]
        again = f", checked with larger bonds {statistics.median(checked):.2%}" if checked else ""
        lines.append(
            f"{what}: median error of {len(rows)} start{'s' * (len(rows) > 1)} {statistics.median(last):.2%} "
            f"({min(last):.2%} to {max(last):.2%}){again}, "
            f"{number(1e3 * statistics.median(row['step_seconds'] for row in rows))} ms a step and start"
        )
    return lines


def core_table(content: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of `qtm bench core`, for `show`."""
    table = [
        [row["what"], f"{number(row['figure'])} {row['unit']}", goal(row), number(row["ratio"]), row["detail"]]
        for row in content["rows"]
    ]
    return ["what", "figure", "goal", "ratio", "detail"], table


def goal(row: dict[str, Any]) -> str:
    """A goal with its direction."""
    return f"{'>=' if row['more_is_better'] else '<='} {row['goal']:g}"


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as text, drawn by rich where it is installed."""
    if importlib.util.find_spec("rich") is not None:
        return _rich(title, header, rows)
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in (header, *rows)]
    return "\n".join([title, lines[0], "-" * len(lines[0]), *lines[1:]])


def _rich(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    table = require("rich.table", "bench").Table(title=title, title_justify="left")
    for position, name in enumerate(header):
        table.add_column(name, justify="left" if position in (1, 2, 3, len(header) - 1) else "right")
    for row in rows:
        table.add_row(*row)
    out = io.StringIO()
    console = require("rich.console", "bench").Console(file=out, width=_width())
    console.print(table)
    return out.getvalue()


def _width() -> int:
    try:
        return max(os.get_terminal_size().columns, 100)
    except OSError:
        return 150
