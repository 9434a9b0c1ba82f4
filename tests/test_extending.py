"""The examples of the page "Extending": each goes into its table, and does what the page promises."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from central_difference import CentralDifferenceMethod
from linear_extrapolation import LinearExtrapolation
from qiskit.circuit.library import real_amplitudes, zz_feature_map
from qiskit.primitives import StatevectorEstimator

import qtm
from qtm.gradients import GRADIENT_METHODS
from qtm.mitigation import MITIGATION_METHODS

FEATURES, ANSATZ = zz_feature_map(2), real_amplitudes(2, reps=1)
EXAMPLES = ("dense_engine", "central_difference", "linear_extrapolation")


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GRADIENT_METHODS, "central-difference", CentralDifferenceMethod)
    monkeypatch.setitem(MITIGATION_METHODS, "linear", LinearExtrapolation)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_imports_public_names_only(example: str) -> None:
    source = (Path(__file__).parent / f"{example}.py").read_text(encoding="utf-8")
    modules = re.findall(r"^(?:from|import) (qtm\S*)", source, re.MULTILINE)
    assert modules
    assert [module for module in modules if "._" in module] == []


def gradients(**options: object) -> tuple[torch.Tensor, torch.Tensor]:
    """Derivatives of a loss by the inputs (5, 2) and the weights (4,)."""
    circuit = FEATURES.compose(ANSATZ)
    module = qtm.QuantumModule(circuit, FEATURES.parameters, ANSATZ.parameters, seed_init=0, **options).double()
    inputs = torch.linspace(0, 1, 10, dtype=torch.float64).reshape(5, 2).requires_grad_()
    (module(inputs) ** 2).sum().backward()
    return inputs.grad, module.variational.grad


@pytest.mark.parametrize("estimator", [None, StatevectorEstimator()], ids=["qtm", "qiskit"])
def test_a_gradient_method_agrees_with_the_reverse_sweep(estimator: object) -> None:
    for found, expected in zip(gradients(gradient="central-difference", estimator=estimator), gradients(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_options_reach_a_gradient_method() -> None:
    """The error of a central difference is of second order in its displacement."""
    exact = gradients()[0]
    errors = [(gradients(gradient=("central-difference", {"epsilon": e}))[0] - exact).abs().max() for e in (1e-2, 1e-3)]
    assert 90 < errors[0] / errors[1] < 110


def test_a_gradient_method_spends_nothing_on_frozen_parameters() -> None:
    circuit = FEATURES.compose(ANSATZ)
    options = {"estimator": StatevectorEstimator(), "gradient": "central-difference"}
    module = qtm.QuantumModule(circuit, FEATURES.parameters, ANSATZ.parameters, **options)
    module(torch.zeros(3, 2)).sum().backward()
    assert module.usage.circuits == 3 * (1 + 2 * ANSATZ.num_parameters)


def test_options_of_a_gradient_method_are_checked() -> None:
    with pytest.raises(qtm.ParameterError, match="its options are epsilon, precision, max_points"):
        gradients(gradient=("central-difference", {"step": 1.0}))


def test_a_mitigation_method_removes_most_of_the_error() -> None:
    values = np.random.default_rng(0).uniform(-1, 1, (6, ANSATZ.num_parameters))
    pub = (ANSATZ, [["ZZ"], ["XX"]], values)
    noisy = qtm.noisy_estimator(qtm.depolarizing_noise(0.002, 0.01))
    exact = qtm.FastEstimator().run([pub]).result()[0].data.evs
    result = qtm.MitigatedEstimator(noisy, "linear").run([pub]).result()[0]
    before, after = (np.abs(v - exact).max() for v in (result.metadata["evs_unmitigated"], result.data.evs))
    assert result.data.evs.shape == (2, 6)
    assert 0 < after < before / 4
