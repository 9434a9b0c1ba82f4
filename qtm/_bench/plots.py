"""Pictures like the papers' figures: milliseconds over size, and errors over epochs, on logarithmic scales."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from qtm._bench.workloads import MODES
from qtm._errors import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OURS = "#2a6fbb"
_COLOURS = (
    "#d9622b", "#3a923a", "#c03d3e", "#9372b2", "#845b53", "#d684bd",
    "#7f7f7f", "#a9aa35", "#2eabb8", "#50555e", "#e1b12c", "#111111",
    "#8c1d40", "#5ad1a0", "#c9a0dc", "#7a4b00", "#ff9896",
)  # fmt: skip


def comparison_figure(content: dict[str, Any]) -> Figure:
    """One panel per mode and one line per package and precision, quartiles in pale; a triangle points up from a bound.

    Modes that no other package was measured in are left out, unless there is no other package.

    Args:
        content: what a benchmark saved.

    Raises:
        MissingPackage: matplotlib is not installed.
    """
    compared = {row["mode"] for row in content["rows"] if row["peer"] != "qtm"}
    modes = sorted(compared or {row["mode"] for row in content["rows"]}, key=lambda mode: (*MODES, mode).index(mode))
    figure = require("matplotlib.figure", "bench").Figure(
        figsize=(max(4.6 * len(modes), 6.4) + 2.4, 4.6), layout="constrained"
    )
    panels = figure.subplots(1, len(modes), squeeze=False)[0]
    names = list(dict.fromkeys(_name(row) for row in content["rows"]))
    others = [name for name in names if not name.startswith("qtm")]
    colour = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(others)}
    for axes, mode in zip(panels, modes, strict=True):
        for name in names:
            rows = [row for row in content["rows"] if row["mode"] == mode and _name(row) == name]
            _draw(axes, name, sorted(rows, key=lambda row: row["x"]), colour.get(name, _OURS))
        _finish(axes, mode, content)
    lines = {line.get_label(): line for axes in panels for line in axes.get_legend_handles_labels()[0]}
    shown = [name for name in names if name in lines]  # not every package is in every panel
    figure.legend([lines[n] for n in shown], shown, loc="outside right center", frameon=False, fontsize=8)
    figure.suptitle(f"{content['title']}\n{content['machine']['processor']}, {content['threads']} threads", fontsize=10)
    return figure


def _name(row: dict[str, Any]) -> str:
    shown = row["peer"] if row["gradient"] == "reverse" or row["peer"] != "qtm" else f"qtm, {row['gradient']}"
    if row["peer"] == "qtm, one thread":  # the one benchmark of several batches
        shown = f"{shown}, batch {row['batch']}"
    return shown if row["dtype"] == "double" else f"{shown}, single"


def _draw(axes: Any, name: str, rows: list[dict[str, Any]], colour: str) -> None:
    kind = "qtm_ms" if name.startswith("qtm") and not name.startswith("qtm, one") else "peer_ms"
    rows = [row for row in rows if row[kind] is not None]
    if not rows:
        return
    x = [row["x"] for row in rows]
    medians, lows, highs = ([row[kind][which] for row in rows] for which in ("median", "low", "high"))
    ours = kind == "qtm_ms"
    style = "--" if "," in name else "-"
    width, above = (2.4, 3) if ours else (1.3, 2)
    axes.plot(x, medians, style, color=colour, lw=width, marker="o", ms=4, label=name, zorder=above)
    axes.fill_between(x, lows, highs, color=colour, alpha=0.15, lw=0)
    bounds = [row for row in rows if row["status"] == "cut off"]
    axes.plot([row["x"] for row in bounds], [row[kind]["median"] for row in bounds], "^", color=colour, ms=9)


def _finish(axes: Any, mode: str, content: dict[str, Any]) -> None:
    axes.set(title=mode, xlabel=content["axis"], ylabel=f"ms, batch of {content['rows'][0]['batch']}", yscale="log")
    axes.set_xticks(sorted({row["x"] for row in content["rows"]}))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def ground_state_figure(content: dict[str, Any]) -> Figure:
    """Relative errors over the epochs: a line for the median of the starts, pale for its median absolute deviation.

    Args:
        content: what `qtm bench mps` saved.

    Raises:
        MissingPackage: matplotlib is not installed.
    """
    figure = require("matplotlib.figure", "bench").Figure(figsize=(9.2, 4.6), layout="constrained")
    axes = figure.subplots()
    whats = list(dict.fromkeys(row["what"] for row in content["trainings"]))
    for colour, what in zip((_OURS, *_COLOURS) * len(whats), whats, strict=False):
        rows = [row for row in content["trainings"] if row["what"] == what]
        # What was trained on a small ring comes first; of starts of different lengths the shortest ends the line.
        curves = [[*row.get("pretraining", ()), *row["errors"]] for row in rows]
        middle, low, high = zip(*map(_spread, zip(*curves, strict=False)), strict=True)
        axes.plot(middle, color=colour, lw=1.4, label=f"{what} ({len(rows)} starts)")
        axes.fill_between(range(len(middle)), low, high, color=colour, alpha=0.15, lw=0)
    axes.axhline(0.06, color="#444444", lw=0.8, ls=":", label="[2], about 6%")
    axes.axhline(0.02, color="#444444", lw=0.8, ls="--", label="2%")
    axes.set(xlabel="evaluations of the energy and its derivatives", ylabel="relative error of the energy")
    axes.set(yscale="log", title=content["title"])
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", frameon=False, fontsize=7)
    return figure


def _spread(errors: tuple[float, ...]) -> tuple[float, float, float]:
    """Median, and the median less and plus the median absolute deviation."""
    middle = median(errors)
    deviation = median(abs(e - middle) for e in errors)
    return middle, max(middle - deviation, min(errors)), middle + deviation
