"""Drawings of the diagnostics, with matplotlib."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from qtm._arguments import check_method, check_type
from qtm._diagnostics.fisher import FisherInformation, effective_dimension
from qtm._diagnostics.gradients import GradientVariance
from qtm._diagnostics.random_states import EntanglingCapability, Expressibility
from qtm._errors import require


def _axes(axes: Any) -> Any:
    """The axes to draw on: those given, or new ones."""
    if axes is not None:
        advice = "give the axes of plt.subplots(), or None for new ones"
        check_method(axes, "axes", "plot", "axes of matplotlib", advice)
        return axes
    return require("matplotlib.pyplot", "viz").subplots(layout="constrained")[1]


def plot_gradient_variance(result: GradientVariance, axes: Any = None) -> Any:
    """Draw variances of gradients against the number of qubits, a line for each depth, on a logarithmic axis.

    Args:
        result: of `barren_plateau`.
        axes: axes of matplotlib; None: new ones.

    Returns:
        The axes.

    Raises:
        MissingPackage: matplotlib is not installed.
    """
    check_type(result, "result", GradientVariance, "a GradientVariance", "give what barren_plateau returns")
    axes = _axes(axes)
    for depth, variances in zip(result.depths, result.variance.T, strict=True):
        axes.semilogy(result.qubits, variances, "o-", label=f"depth {depth}")
    axes.set(xlabel="qubits", ylabel="variance of the gradient", title="Gradients at random starts")
    axes.grid(alpha=0.25)
    axes.legend()
    return axes


def plot_expressibility(result: Expressibility, axes: Any = None) -> Any:
    """Draw the histograms of fidelities, of the circuit and of Haar random states.

    Args:
        result: of `expressibility`.
        axes: axes of matplotlib; None: new ones.

    Returns:
        The axes.

    Raises:
        MissingPackage: matplotlib is not installed.
    """
    check_type(result, "result", Expressibility, "an Expressibility", "give what expressibility returns")
    axes = _axes(axes)
    axes.stairs(result.frequencies, result.edges, fill=True, alpha=0.5, label=f"circuit, D = {result.divergence:.3g}")
    axes.stairs(result.haar, result.edges, color="black", label="Haar random states")
    axes.set(xlabel="fidelity of two random states", ylabel="share", title="Expressibility")
    axes.legend()
    return axes


def plot_entangling_capability(result: EntanglingCapability, axes: Any = None) -> Any:
    """Draw the histogram of the Meyer-Wallach measure of random states.

    Args:
        result: of `entangling_capability`.
        axes: axes of matplotlib; None: new ones.

    Returns:
        The axes.

    Raises:
        MissingPackage: matplotlib is not installed.
    """
    check_type(
        result, "result", EntanglingCapability, "an EntanglingCapability", "give what entangling_capability returns"
    )
    axes = _axes(axes)
    axes.hist(result.measures, np.linspace(0, 1, 51), alpha=0.5)
    axes.axvline(result.mean, color="black", label=f"mean {result.mean:.3g}")
    axes.set(xlabel="Meyer-Wallach measure", ylabel="states", title="Entangling capability", xlim=(0, 1))
    axes.legend()
    return axes


def plot_fisher_spectrum(fisher: FisherInformation, axes: Any = None) -> Any:
    """Draw the histogram of the eigenvalues of the normalised Fisher information, over all samples.

    Args:
        fisher: of `fisher_information`.
        axes: axes of matplotlib; None: new ones.

    Returns:
        The axes.

    Raises:
        MissingPackage: matplotlib is not installed.
    """
    check_type(fisher, "fisher", FisherInformation, "a FisherInformation", "give what fisher_information returns")
    axes = _axes(axes)
    values = fisher.eigenvalues.ravel()
    axes.hist(
        values, np.linspace(0, max(values.max(), 1), 41), weights=np.full(len(values), 1 / len(values)), alpha=0.7
    )
    axes.set(xlabel="eigenvalue", ylabel="share", title="Spectrum of the normalised Fisher information")
    return axes


def plot_effective_dimension(
    fisher: FisherInformation, data_sizes: ArrayLike, axes: Any = None, *, gamma: float = 1.0, label: str | None = None
) -> Any:
    """Draw the effective dimension, as a share of the number of weights, against the number of data.

    Args:
        fisher: of `fisher_information`.
        data_sizes: numbers of data, (sizes,).
        axes: axes of matplotlib; None: new ones.
        gamma: as for `effective_dimension`.
        label: name of the line in the legend.

    Returns:
        The axes.

    Raises:
        ParameterError: a number of data is too small.
        MissingPackage: matplotlib is not installed.
    """
    check_type(fisher, "fisher", FisherInformation, "a FisherInformation", "give what fisher_information returns")
    sizes = np.asarray(data_sizes)
    shares = effective_dimension(fisher, sizes, gamma=gamma) / fisher.matrices.shape[1]
    axes = _axes(axes)
    axes.semilogx(sizes, shares, "o-", label=label)
    axes.set(xlabel="number of data", ylabel="effective dimension / weights", title="Effective dimension")
    axes.grid(alpha=0.25)
    if label is not None:
        axes.legend()
    return axes
