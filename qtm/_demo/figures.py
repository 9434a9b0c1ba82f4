"""Figures of `qtm demo`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qiskit import QuantumCircuit

from qtm._errors import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from qtm._demo.history import History

BLUE, ORANGE, GREY = "#2a6fbb", "#d9622b", "#8a8f98"
# Colours of gates: data, weights, neither.
_GATE_COLOURS = {
    "rx": (ORANGE, "#ffffff"),
    "ry": (BLUE, "#ffffff"),
    "rz": (BLUE, "#ffffff"),
    "h": (GREY, "#ffffff"),
    "cx": ("#50555e", "#ffffff"),
}


def training_figure(history: History, steps_per_epoch: int, confusion: np.ndarray) -> Figure:
    """Loss, accuracies and confusion matrix side by side.

    Args:
        history: the course of the training.
        steps_per_epoch: batches in the training set.
        confusion: counts (true classes, predicted classes).

    Raises:
        MissingPackage: matplotlib is not installed.
    """
    figure = require("matplotlib.figure", "demo").Figure(figsize=(14, 4.4), layout="constrained")
    loss, accuracy, matrix = figure.subplots(1, 3, width_ratios=(1, 1, 1.05))
    for axes in (loss, accuracy):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.set_xlabel("epoch")
    _draw_loss(loss, history, steps_per_epoch)
    _draw_accuracy(accuracy, history)
    _draw_confusion(matrix, confusion)
    return figure


def _draw_loss(axes: Any, history: History, steps_per_epoch: int) -> None:
    losses = np.array(history.losses)
    whole = len(losses) // steps_per_epoch
    times = np.arange(1, len(losses) + 1) / steps_per_epoch
    axes.plot(times, losses, color=BLUE, alpha=0.25, lw=0.8, label="batch")
    means = losses[: whole * steps_per_epoch].reshape(whole, steps_per_epoch).mean(1)
    middles = np.arange(whole) + 0.5
    axes.plot(middles, means, color=BLUE, lw=2, marker=_marker(whole), label="mean of the epoch")
    axes.set(title="Loss", ylabel="cross entropy", yscale="log")
    formatter = require("matplotlib.ticker", "demo").FuncFormatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(formatter)
    axes.yaxis.set_minor_formatter("")
    axes.legend(frameon=False)


def _marker(points: int) -> str | None:
    """Dots for short curves, because a line through one point is invisible."""
    return "o" if points < 10 else None


def _draw_accuracy(axes: Any, history: History) -> None:
    epochs = np.arange(1, len(history.accuracies) + 1)
    held_out = np.array(history.held_out_accuracies)
    marker = _marker(len(epochs))
    axes.plot(epochs, 100 * np.array(history.accuracies), color=BLUE, lw=2, marker=marker, label="training")
    axes.plot(epochs, 100 * held_out, color=ORANGE, lw=2, marker=marker, label="held out")
    axes.axhline(10, color=GREY, ls=":", lw=1.2, label="guessing")
    axes.set_title(f"Accuracy: {100 * held_out[-1]:.1f}% held out")
    axes.set(ylabel="recognised digits (%)", ylim=(0, 101))
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 0.12))


def _draw_confusion(axes: Any, confusion: np.ndarray) -> None:
    classes = np.arange(len(confusion))
    axes.imshow(confusion, cmap="Blues", norm=require("matplotlib.colors", "demo").PowerNorm(0.5))
    for (row, column), count in np.ndenumerate(confusion):
        if count:
            colour = "white" if count > confusion.max() / 3 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=9)
    axes.set(title="Held-out digits", xlabel="predicted", ylabel="true", xticks=classes, yticks=classes)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def circuit_figure(circuit: QuantumCircuit) -> Figure:
    """Qiskit's drawing of the circuit, with gates coloured by their role.

    Raises:
        MissingPackage: matplotlib or pylatexenc is not installed.
    """
    for package in ("matplotlib", "pylatexenc"):
        require(package, "demo")
    figure: Figure = circuit.draw("mpl", fold=40, scale=0.6, style={"name": "iqp", "displaycolor": _GATE_COLOURS})
    # Qiskit draws with pyplot, which would keep the figure, and show it in a notebook.
    require("matplotlib.pyplot", "demo").close(figure)
    return figure
