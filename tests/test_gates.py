"""The gate table and its shift rules, row by row."""

from __future__ import annotations

import numpy as np
import pytest
from flat_oracle import check, derivative, one, unitary
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import get_standard_gate_name_mapping
from qiskit.quantum_info import Operator, random_hermitian, random_statevector

from qtm._circuit.gates import GATES, Clifford, ShiftRule

STANDARD = get_standard_gate_name_mapping()
NOT_UNITARY = {"measure", "reset"}


# The table


@pytest.mark.parametrize("name", [name for name in GATES if name != "delay"])  # it has no matrix
def test_row_equals_qiskit(name):
    rng = np.random.default_rng(1)
    params = rng.uniform(-np.pi, np.pi, len(STANDARD[name].params)).tolist()
    gate = STANDARD[name].base_class(*params)
    made = unitary(GATES[name].sequence, params, gate.num_qubits)
    phase = sum(c * p for c, p in zip(GATES[name].phase, (1, *params), strict=False))
    np.testing.assert_allclose(np.exp(1j * phase) * made, Operator(gate).data, atol=1e-13)


@pytest.mark.parametrize("name", GATES)
def test_row_is_well_formed(name):
    row, gate = GATES[name], STANDARD[name]
    used = {k for p in row.sequence if not isinstance(p, Clifford) for k, _ in p.terms}
    assert used == set(range(len(row.shifts)))
    assert len(row.shifts) == (len(gate.params) if row.sequence else 0)
    for primitive in row.sequence:
        assert set(primitive.qubits) <= set(range(gate.num_qubits))
        if not isinstance(primitive, Clifford):
            assert len(primitive.pauli) == len(primitive.qubits)
            assert set(primitive.pauli) <= set("XYZ")


@pytest.mark.parametrize("name", sorted(STANDARD.keys() - NOT_UNITARY - {"delay"}))
def test_every_standard_gate_flattens(name):
    gate = STANDARD[name].base_class(*ParameterVector("a", len(STANDARD[name].params)))
    num_qubits = gate.num_qubits + 1
    check(one(gate, num_qubits, list(range(num_qubits))[::-1][: gate.num_qubits]))


def test_every_standard_gate_is_known_or_not_unitary():
    assert STANDARD.keys() >= NOT_UNITARY
    assert GATES.keys() <= STANDARD.keys()


# Shift rules


SHIFTED = [(name, k) for name, row in GATES.items() for k in range(len(row.shifts))]


@pytest.mark.parametrize(("name", "k"), SHIFTED)
def test_shift_rule_of_every_parameter(name, k):
    rng = np.random.default_rng(5)
    gate = STANDARD[name]
    params = rng.uniform(-np.pi, np.pi, len(gate.params))
    psi = random_statevector(2**gate.num_qubits, seed=2)
    observable = random_hermitian(2**gate.num_qubits, seed=3)

    def f(angle: float) -> float:
        moved = params.copy()
        moved[k] = angle
        return psi.evolve(Operator(gate.base_class(*moved))).expectation_value(observable).real

    shifted = sum(c * f(params[k] + s) for c, s in GATES[name].shifts[k].terms)
    assert shifted == pytest.approx(derivative(f, params[k]), abs=1e-9)
    assert abs(shifted) > 1e-3


@pytest.mark.parametrize("frequencies", [(1.0,), (0.5, 1.0), (1.0, 2.0, 3.0), (0.3, 1.1, 2.5), (4.2,)])
def test_shift_rule_of_a_fourier_sum(frequencies):
    rng = np.random.default_rng(11)
    a, b = rng.normal(size=(2, len(frequencies)))
    w = np.array(frequencies)

    def f(x: float) -> float:
        return float(0.7 + a @ np.cos(w * x) + b @ np.sin(w * x))

    exact = float(b @ (w * np.cos(w * 0.4)) - a @ (w * np.sin(w * 0.4)))
    rule = ShiftRule(frequencies)
    assert sum(c * f(0.4 + s) for c, s in rule.terms) == pytest.approx(exact, abs=1e-10)
    assert len(rule.terms) == 2 * len(frequencies)


def test_shift_rules_of_the_literature():
    two, four = ShiftRule((1.0,)).terms, ShiftRule((0.5, 1.0)).terms
    np.testing.assert_allclose(two, [(0.5, np.pi / 2), (-0.5, -np.pi / 2)])
    d1, d2 = (np.sqrt(2) + 1) / (4 * np.sqrt(2)), (np.sqrt(2) - 1) / (4 * np.sqrt(2))
    quarter, three = np.pi / 2, 3 * np.pi / 2
    np.testing.assert_allclose(four, [(d1, quarter), (-d1, -quarter), (-d2, three), (d2, -three)])
