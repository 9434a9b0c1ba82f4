"""Diagnostics of circuits: against closed forms, Qiskit's states, and finite differences."""

from __future__ import annotations

import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from circuit_cases import differences, expectation_values, states
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import real_amplitudes
from qiskit.quantum_info import SparsePauliOp, partial_trace, random_statevector

import qtm
from qtm import diagnostics
from qtm.circuits import (
    angle_encoding,
    brick_ansatz,
    hardware_efficient_ansatz,
    reuploading_circuit,
    stack,
    strongly_entangling_ansatz,
)
from qtm.diagnostics import (
    barren_plateau,
    effective_dimension,
    entangling_capability,
    expressibility,
    fisher_information,
    gradient_variances,
)
from qtm.training import small_angles, train_layerwise


def product_circuit(qubits: int) -> QuantumCircuit:
    angles = ParameterVector("a", qubits)
    circuit = QuantumCircuit(qubits)
    for q in range(qubits):
        circuit.ry(angles[q], q)
    return circuit


# --- Gradients ------------------------------------------------------------------------------------------------------


def test_the_variance_of_a_product_of_cosines() -> None:
    """<Z0 Z1> = cos a0 cos a1: the derivative by a0 has variance 1/4, that by a2 is 0."""
    found = gradient_variances(product_circuit(3), samples=20_000, seed=0)
    np.testing.assert_allclose(found, [0.25, 0.25, 0], atol=0.01)


def test_variances_are_those_of_finite_differences() -> None:
    circuit, observable = real_amplitudes(3, reps=1), SparsePauliOp(["ZXI", "IYY"], [1, 0.5])
    parameters = list(circuit.parameters)
    rows = np.random.default_rng(5).uniform(0, 2 * np.pi, (8, len(parameters)))
    slopes = differences(lambda at: expectation_values(circuit, parameters, at, [observable]), rows)[:, 0]
    found = gradient_variances(circuit, observable, samples=8, draw=lambda generator, shape: rows)
    np.testing.assert_allclose(found, slopes.var(0), rtol=1e-6, atol=1e-12)


def test_inputs_are_drawn_and_not_differentiated_by() -> None:
    model = reuploading_circuit(2, 1)
    assert gradient_variances(model, samples=10, seed=0).shape == (len(model.trainable_params),)
    encoding = list(model.encoding_params)
    same = gradient_variances(model.circuit, encoding_params=encoding, samples=10, seed=0)
    assert same.shape == (len(model.trainable_params),)


def test_a_barren_plateau_of_products_of_all_qubits() -> None:
    """The global cost cos a0 ... cos a_(n-1) has variance 2**-n at any depth (Cerezo et al., 2021)."""
    result = barren_plateau(
        lambda n, depth: product_circuit(n), (2, 4, 6), (1,), observable=lambda n: "Z" * n, samples=20_000, seed=1
    )
    np.testing.assert_allclose(result.variance[:, 0] * 2.0 ** np.array([2, 4, 6]), 1, rtol=0.15)
    np.testing.assert_allclose(result.decay, 1, atol=0.05)
    assert (result.largest >= result.variance).all()


def test_local_costs_of_shallow_circuits_have_no_plateau() -> None:
    result = barren_plateau(brick_ansatz, (4, 8, 12), (1, 6), samples=100)
    assert result.variance.shape == (3, 2)
    assert result.decay[1] < 1  # by the mean over all parameters, more and more of which are outside of the cone


# --- Expressibility and entanglement --------------------------------------------------------------------------------


def test_an_idle_circuit_always_gives_the_same_state() -> None:
    idle = QuantumCircuit(1)
    idle.rz(ParameterVector("a", 1)[0], 0)
    result = expressibility(idle, samples=100, seed=0)
    assert result.divergence == pytest.approx(math.log(75))
    np.testing.assert_allclose(result.fidelities, 1)


def test_expressibility_of_one_qubit() -> None:
    """Rotations by three random angles are close to Haar; H RZ covers a circle of the sphere (Sim et al., fig. 1)."""
    angles = ParameterVector("a", 3)
    circle, sphere = QuantumCircuit(1), QuantumCircuit(1)
    circle.h(0)
    circle.rz(angles[0], 0)
    for gate, angle in zip((sphere.rx, sphere.ry, sphere.rz), angles, strict=True):
        gate(angle, 0)
    divergences = [expressibility(c, samples=5000, seed=0).divergence for c in (circle, sphere)]
    assert divergences[0] == pytest.approx(0.22, abs=0.06)
    assert divergences[1] < 0.05


def test_fidelities_are_those_of_qiskits_states() -> None:
    circuit = strongly_entangling_ansatz(3, 2).circuit
    parameters = list(circuit.parameters)
    rows = np.random.default_rng(3).uniform(0, 2 * np.pi, (6, 2 * len(parameters)))
    result = expressibility(circuit, samples=6, draw=lambda generator, shape: rows)
    left, right = (states(circuit, parameters, half) for half in np.split(rows, 2, axis=1))
    expected = [abs(a.inner(b)) ** 2 for a, b in zip(left, right, strict=True)]
    np.testing.assert_allclose(result.fidelities, expected, atol=1e-12)


@pytest.mark.parametrize("qubits", [1, 2, 4])
def test_the_histogram_of_haar_random_states(qubits: int) -> None:
    result = expressibility(hardware_efficient_ansatz(qubits, 1), samples=2, seed=0, bins=20)
    pairs = [random_statevector(2**qubits, seed=s) for s in range(4000)]
    fidelities = [abs(a.inner(b)) ** 2 for a, b in zip(pairs[::2], pairs[1::2], strict=True)]
    counts = np.histogram(fidelities, result.edges)[0] / len(fidelities)
    assert result.haar.sum() == pytest.approx(1)
    np.testing.assert_allclose(result.haar, counts, atol=0.03)


def test_product_states_are_not_entangled_and_ghz_states_are_maximally() -> None:
    assert entangling_capability(product_circuit(4), samples=20, seed=0).mean == pytest.approx(0, abs=1e-12)
    ghz = QuantumCircuit(3)
    ghz.h(0)
    ghz.cx(0, 1)
    ghz.cx(1, 2)
    ghz.rz(ParameterVector("a", 1)[0], 0)
    assert entangling_capability(ghz, samples=5, seed=0).mean == pytest.approx(1)


def test_the_measure_is_that_of_partial_traces() -> None:
    circuit = hardware_efficient_ansatz(3, 2).circuit
    parameters = list(circuit.parameters)
    rows = np.random.default_rng(3).uniform(0, 2 * np.pi, (5, len(parameters)))
    expected = []
    for state in states(circuit, parameters, rows):
        purities = [partial_trace(state, [q for q in range(3) if q != k]).purity().real for k in range(3)]
        expected.append(2 * (1 - np.mean(purities)))
    found = entangling_capability(circuit, samples=5, draw=lambda generator, shape: rows)
    np.testing.assert_allclose(found.measures, expected, atol=1e-12)
    assert found.mean == pytest.approx(np.mean(expected))


# --- Fisher information ---------------------------------------------------------------------------------------------


def test_the_fisher_information_of_one_rotation() -> None:
    """p = cos^2 a/2, sin^2 a/2: the information is 1 at every angle."""
    found = fisher_information(product_circuit(1), samples=20, seed=0)
    np.testing.assert_allclose(found.matrices, np.ones((20, 1, 1)), atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("qubits", [None, (2, 0)])
def test_the_fisher_information_is_that_of_its_definition(qubits: tuple[int, ...] | None) -> None:
    model = reuploading_circuit(3, 1)
    inputs = np.random.default_rng(0).normal(size=(2, 3))
    order = [*model.encoding_params, *model.trainable_params]
    weights = np.random.default_rng(1).uniform(0, 2 * np.pi, (2, len(model.trainable_params)))
    found = fisher_information(model, inputs, qubits=qubits, samples=2, draw=lambda generator, shape: weights)

    def chances(rows: np.ndarray) -> np.ndarray:
        read = list(qubits) if qubits else None
        return np.array([s.probabilities(read) for s in states(model.circuit, order, rows)])

    for matrix, w in zip(found.matrices, weights, strict=True):
        rows = np.concatenate([inputs, np.tile(w, (2, 1))], axis=1)
        slopes, p = differences(chances, rows)[:, :, 3:], chances(rows)
        expected = np.einsum("xyk,xyl,xy->kl", slopes, slopes, 1 / p) / 2
        np.testing.assert_allclose(matrix, expected, atol=1e-6 * np.abs(expected).max())


def test_the_normalised_spectrum() -> None:
    model = stack([angle_encoding(2), hardware_efficient_ansatz(2)])
    found = fisher_information(model, samples=6, seed=0)
    assert np.trace(found.normalised, axis1=1, axis2=2).mean() == pytest.approx(4)
    np.testing.assert_allclose(found.eigenvalues.sum(1), np.trace(found.normalised, axis1=1, axis2=2))
    assert (np.diff(found.eigenvalues, axis=1) >= 0).all()


def test_the_effective_dimension_of_independent_weights() -> None:
    """F = 1 at every angle: d = P log(1 + kappa) / log kappa."""
    fisher = fisher_information(product_circuit(3), samples=5, seed=0)
    sizes = np.array([100, 10_000, 10**8])
    kappa = sizes / (2 * np.pi * np.log(sizes))
    np.testing.assert_allclose(effective_dimension(fisher, sizes), 3 * np.log1p(kappa) / np.log(kappa), rtol=1e-6)
    assert effective_dimension(fisher, 1000, gamma=0.5).shape == (1,)


def test_weights_that_change_nothing_do_not_count() -> None:
    circuit = product_circuit(2)
    circuit.rz(ParameterVector("b", 1)[0], 0)
    fisher = fisher_information(circuit, samples=5, seed=0)
    assert effective_dimension(fisher, 10**9)[0] == pytest.approx(2, abs=0.2)


# --- Drawings -------------------------------------------------------------------------------------------------------


def drawings() -> dict[str, Any]:
    fisher = fisher_information(product_circuit(2), samples=3, seed=0)
    return {
        "plot_gradient_variance": (barren_plateau(brick_ansatz, (2, 4), (1, 2), samples=5),),
        "plot_expressibility": (expressibility(product_circuit(2), samples=20, seed=0),),
        "plot_entangling_capability": (entangling_capability(brick_ansatz(2, 2), samples=20, seed=0),),
        "plot_fisher_spectrum": (fisher,),
        "plot_effective_dimension": (fisher, [100, 1000]),
    }


def test_every_result_is_drawn() -> None:
    made = drawings()
    assert set(made) == {name for name in diagnostics.__all__ if name.startswith("plot_")}
    for name, arguments in made.items():
        plot = getattr(diagnostics, name)
        axes = plot(*arguments)
        assert axes.lines or axes.patches, name
        assert axes.get_xlabel() and axes.get_ylabel(), name
        given = plt.figure().subplots()
        assert plot(*arguments, axes=given) is given
        with pytest.raises(qtm.ParameterError, match="axes of matplotlib"):
            plot(*arguments, axes="here")
        with pytest.raises(qtm.ParameterError, match="must be a"):
            plot("nothing", *arguments[1:])
        plt.close("all")


# --- Small angles, layer by layer -----------------------------------------------------------------------------------


def test_small_angles_are_an_initialiser() -> None:
    circuit = real_amplitudes(4, reps=20)
    name, options = small_angles(20, 2)
    assert options["std"] == pytest.approx(1 / math.sqrt(8 * 22))
    module = qtm.QuantumModule(
        circuit, None, circuit.parameters, variational_params_initial=(name, options), seed_init=0
    )
    assert module.variational.std().item() == pytest.approx(options["std"], rel=0.2)


def test_small_angles_have_larger_gradients() -> None:
    def ansatz(n: int) -> Any:
        return hardware_efficient_ansatz(n, 8, "yz", "linear", "cz")

    std = small_angles(8, 2)[1]["std"]
    random = gradient_variances(ansatz(8), samples=100, seed=0)
    small = gradient_variances(ansatz(8), samples=100, seed=0, draw=lambda rng, shape: rng.normal(0, std, shape))
    mean_square = small.max()
    assert mean_square > random.max() / 10  # the start is near a stationary point of this observable, not on a plateau


def test_layers_are_trained_one_after_another() -> None:
    seen = []

    def build(layers: int) -> qtm.QuantumModule:
        return qtm.QuantumModule.from_parts([hardware_efficient_ansatz(2)] * layers, observables=["ZZ"])

    def train(module: qtm.QuantumModule, parameters: list[torch.nn.Parameter]) -> int:
        frozen = [not p.requires_grad for p in module.variational_]
        seen.append((frozen, [any(p is c for c in parameters) for p in module.variational_]))
        with torch.no_grad():
            for parameter in parameters:
                parameter += 10 * len(seen)
        return len(module.variational_)

    module, results = train_layerwise(build, 5, train, at_once=2, std=0.0, seed=0)
    assert results == [2, 4, 5, 5]
    for frozen, trained in seen:
        assert [not f for f in frozen] == trained
    assert [sum(trained) for _, trained in seen] == [2, 2, 1, 5]
    assert all(p.requires_grad for p in module.variational_)
    assert [p.mean().item() for p in module.variational_] == [50.0, 50.0, 60.0, 60.0, 70.0]


# --- Bad input ------------------------------------------------------------------------------------------------------

ANSATZ = brick_ansatz(2, 1)
FISHER = fisher_information(product_circuit(1), samples=1, seed=0)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: gradient_variances("circuit"), qtm.CircuitError, "qiskit.QuantumCircuit"),
        (lambda: gradient_variances(QuantumCircuit(2)), qtm.ParameterError, "no trainable parameters"),
        (lambda: gradient_variances(angle_encoding(2)), qtm.ParameterError, "no trainable parameters"),
        (lambda: gradient_variances(ANSATZ, "ZZZ"), qtm.ObservableError, "qubits"),
        (lambda: gradient_variances(ANSATZ, samples=1), qtm.ParameterError, "samples"),
        (lambda: gradient_variances(ANSATZ, seed=-1), qtm.ParameterError, "seed"),
        (lambda: gradient_variances(ANSATZ, draw=3), qtm.ParameterError, "draw"),
        (lambda: gradient_variances(ANSATZ, draw=lambda g, s: np.zeros(3)), qtm.ShapeError, "draw gave"),
        (lambda: gradient_variances(ANSATZ, draw=lambda g, s: np.full(s, np.nan)), qtm.ParameterError, "NaN"),
        (
            lambda: gradient_variances(product_circuit(2), encoding_params=ParameterVector("z", 1)),
            qtm.ParameterError, "not in the circuit",
        ),
        (lambda: barren_plateau(3, (2,), (1,)), qtm.ParameterError, "build"),
        (lambda: barren_plateau(brick_ansatz, 4, (1,)), qtm.ParameterError, "qubits"),
        (lambda: barren_plateau(brick_ansatz, (2, 0), (1,)), qtm.ParameterError, "qubits"),
        (lambda: barren_plateau(brick_ansatz, (2,), ()), qtm.ParameterError, "depths is empty"),
        (lambda: barren_plateau(brick_ansatz, (2,), (1,), samples=5).decay, qtm.ParameterError, "at least two"),
        (lambda: expressibility(ANSATZ, bins=0), qtm.ParameterError, "bins"),
        (lambda: expressibility(ANSATZ, samples=0), qtm.ParameterError, "samples"),
        (lambda: entangling_capability(ANSATZ, samples=0.5), qtm.ParameterError, "samples"),
        (lambda: fisher_information(reuploading_circuit(2, 1), np.zeros((3, 1))), qtm.ShapeError, r"\(inputs, 2\)"),
        (lambda: fisher_information(ANSATZ, qubits=(0, 0)), qtm.CircuitError, "0 to 1"),
        (lambda: fisher_information(ANSATZ, qubits=(2,)), qtm.CircuitError, "0 to 1"),
        (lambda: effective_dimension(FISHER, 10), qtm.ParameterError, "data_sizes"),
        (lambda: effective_dimension(FISHER, 1000, gamma=2), qtm.ParameterError, "gamma"),
        (lambda: small_angles(0), qtm.ParameterError, "depth"),
        (lambda: train_layerwise(3, 2, print), qtm.ParameterError, "build"),
        (lambda: train_layerwise(lambda n: 3, 2, print), qtm.ParameterError, "QuantumModule"),
        (
            lambda: train_layerwise(
                lambda n: qtm.QuantumModule(ANSATZ.circuit, None, ANSATZ.variational_params), 2, print
            ),
            qtm.ParameterError, "parameter sets",
        ),
    ],
)  # fmt: skip
def test_unusable_arguments_are_named(call: Any, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_states_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from qtm._diagnostics import circuits

    monkeypatch.setattr(circuits._machine, "free_memory", lambda: 1000)
    with pytest.raises(qtm.OutOfMemory, match="fewer qubits"):
        expressibility(brick_ansatz(6, 1), samples=5)


def test_a_model_without_information_is_refused() -> None:
    circuit = QuantumCircuit(1)
    circuit.rz(ParameterVector("a", 1)[0], 0)
    with pytest.raises(qtm.ParameterError, match="no outcome depends"):
        fisher_information(circuit, samples=2, seed=0).eigenvalues  # noqa: B018
