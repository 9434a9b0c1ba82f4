"""Angles of any size mean what Qiskit takes them for, up to where a double tells angles no longer apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from array_simulation import ArraySimulation
from circuit_cases import expectation_values
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import Pauli

from qtm._circuit.expressions import LARGEST_ANGLE
from qtm._circuit.observables import coerce_observables
from qtm._engines.options import Options
from qtm._errors import ParameterError
from qtm.modules import QuantumModule
from qtm.primitives import FastEstimator

A, B, UNSEEN = Parameter("a"), Parameter("b"), Parameter("unseen")
OBSERVABLES = [Pauli("ZI"), Pauli("IZ"), Pauli("XY")]
SIZES = [1e2, 1e5, 1e7, 2e7, 1.7e9, 1.7e12, 6e13]


def circuit() -> QuantumCircuit:
    """Angles with offsets, in sums, and with coefficients of one half."""
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.rx(A, 0)
    circuit.crx(B, 0, 1)
    circuit.h(1)
    circuit.rz(A, 1)
    circuit.p(B, 0)
    circuit.ry(A, 1)
    circuit.cp(B, 0, 1)
    circuit.r(A, B, 0)
    return circuit


def values_near(size: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-size, size, (4, 2))


@pytest.mark.parametrize("lanes", ["sample", "amplitude"])
@pytest.mark.parametrize("size", SIZES)
def test_values_and_gradients_at_large_angles(size, lanes):
    built, values = circuit(), values_near(size, 3)
    simulation = ArraySimulation(
        built, [A, B], coerce_observables(OBSERVABLES, 2), Options("complex128", lane_kind=lanes)
    )
    np.testing.assert_allclose(
        simulation.values(values), expectation_values(built, [A, B], values, OBSERVABLES), atol=2e-12, rtol=0
    )
    # A whole turn of 4 pi less: the remainder of the double, in many digits.
    angles = simulation.numpy_angles(values)
    jacobian = simulation.engine.jacobian(angles)
    moderate = np.vectorize(remainder)(angles)
    np.testing.assert_allclose(jacobian, simulation.engine.jacobian(moderate), atol=2e-12, rtol=0)


def remainder(angle: float) -> float:
    """The angle modulo 4 pi, by integers: 4 pi to 300 bits, from Machin's formula."""
    bits = 300

    def arctan_of_inverse(n: int) -> int:
        total = term = (1 << bits) // n
        k, sign = 3, -1
        while term:
            term //= n * n
            total += sign * (term // k)
            k, sign = k + 2, -sign
        return total

    turn = 16 * (4 * arctan_of_inverse(5) - arctan_of_inverse(239))
    numerator, denominator = float(angle).as_integer_ratio()
    return ((numerator << bits) // denominator % turn) / (1 << bits)


@pytest.mark.parametrize("value", [LARGEST_ANGLE * 1.01, -1e16, 1e18, 1e300, np.inf, np.nan])
def test_angles_that_mean_nothing_are_refused_by_name(value):
    built = circuit()
    with pytest.raises(ParameterError, match="b"):
        FastEstimator().run([(built, "ZI", [0.1, value])]).result()
    module = QuantumModule(built, [A], [B]).double()
    module.variational.data.fill_(value)
    with pytest.raises(ParameterError, match="angle b is"):
        module(torch.zeros(1, 1, dtype=torch.float64))


@pytest.mark.parametrize("place", ["idle qubit", "global phase"])
def test_a_parameter_that_no_observable_sees_must_be_finite(place):
    built = QuantumCircuit(2)
    built.rx(A, 0)
    if place == "idle qubit":
        built.rx(UNSEEN, 1)
    else:
        built.global_phase = UNSEEN
    with pytest.raises(ParameterError, match="'unseen' is nan"):
        FastEstimator().run([(built, "IZ", {A: 0.1, UNSEEN: np.nan})]).result()


def test_an_angle_that_no_observable_sees_must_be_finite_in_a_module():
    built = QuantumCircuit(2)
    built.rx(A, 0)
    built.rx(UNSEEN, 1)
    module = QuantumModule(built, [A], [UNSEEN], observables=["IZ"])
    module.variational.data.fill_(float("nan"))
    with pytest.raises(ParameterError, match="unseen"):
        module(torch.zeros(1, 1))
