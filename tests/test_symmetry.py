"""Twirls against sums over the whole group, and models that are invariant because they are built so."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.quantum_info import Operator, Pauli, SparsePauliOp

import qtm
from qtm import symmetry
from qtm.circuits import angle_encoding, brick_ansatz, hardware_efficient_ansatz, iqp_encoding
from qtm.symmetry import Representation, ansatz_error, encoding_error, equivariant_ansatz, invariant_model


def turn(angle: float) -> QuantumCircuit:
    circuit = QuantumCircuit(2)
    circuit.rz(angle, [0, 1])
    return circuit


def clifford_circuit() -> QuantumCircuit:
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.s(1)
    return circuit


# representation, number of elements (up to phases)
GROUPS: dict[str, tuple[Representation, int]] = {
    "swap": (Representation([[1, 0]]), 2),
    "cyclic": (Representation.cyclic(4), 4),
    "symmetric": (Representation.symmetric(4), 24),
    "dihedral": (Representation([[1, 2, 3, 0], [3, 2, 1, 0]]), 8),
    "parity": (Representation(["XXX"]), 2),
    "paulis": (Representation([Pauli("-ZZI"), "XIX"]), 4),
    "clifford": (Representation([clifford_circuit()]), 0),
    "turns by a third": (Representation([turn(2 * np.pi / 3)]), 3),
    "turns and swap": (Representation([turn(2 * np.pi / 5), [1, 0]]), 10),
}
each_group = pytest.mark.parametrize("name", GROUPS)


def random_observable(num_qubits: int) -> SparsePauliOp:
    rng = np.random.default_rng(num_qubits)
    labels = {"".join(rng.choice(list("IXYZ"), num_qubits)) for _ in range(6)}
    return SparsePauliOp(sorted(labels), rng.normal(size=len(labels)))


@each_group
def test_a_twirl_is_the_mean_over_all_elements(name: str) -> None:
    group, order = GROUPS[name]
    elements, observable = group.matrices(), random_observable(group.num_qubits)
    assert len(elements) == order or not order
    mean = sum(r @ observable.to_matrix() @ r.conj().T for r in elements) / len(elements)
    np.testing.assert_allclose(group.twirl(observable).to_matrix(), mean, atol=1e-8)


@each_group
def test_a_twirled_observable_commutes_with_the_group(name: str) -> None:
    group = GROUPS[name][0]
    observable = random_observable(group.num_qubits)
    twirled = group.twirl(observable)
    assert group.commutes(twirled)
    assert not group.commutes(observable)
    for circuit in group.circuits:
        r, matrix = Operator(circuit).data, twirled.to_matrix()
        np.testing.assert_allclose(r @ matrix, matrix @ r, atol=1e-8)


def test_permutations_move_qubits_where_they_say() -> None:
    for places in permutations(range(4)):
        moved = Representation([places])
        z = SparsePauliOp.from_sparse_list([("Z", [1], 1.0)], 4)
        r = Operator(moved.circuits[0]).data
        expected = SparsePauliOp.from_sparse_list([("Z", [places[1]], 1.0)], 4).to_matrix()
        np.testing.assert_allclose(r @ z.to_matrix() @ r.conj().T, expected, atol=1e-12)


def test_groups_too_large_to_enumerate() -> None:
    """All permutations of 20 qubits: 2.4e18 elements."""
    group = Representation.symmetric(20)
    twirled = group.twirl(SparsePauliOp("Z" + 19 * "I"))
    assert len(twirled) == 20 and np.allclose(twirled.coeffs, 1 / 20) and group.commutes(twirled)


def test_a_symmetry_that_flips_a_sign_leaves_nothing() -> None:
    twirled = Representation(["XX"]).twirl(SparsePauliOp(["IZ", "ZZ"]))
    assert twirled.paulis.to_labels() == ["ZZ"]
    assert np.abs(Representation(["XX"]).twirl(SparsePauliOp("IZ")).coeffs).max() == 0
    assert np.abs(Representation([turn(np.pi / 3)]).twirl(SparsePauliOp("IX")).coeffs).max() < 1e-12


@pytest.mark.thinned(3)
@pytest.mark.parametrize("name", ["cyclic", "symmetric", "dihedral"])
def test_an_equivariant_ansatz_commutes_and_a_plain_one_does_not(name: str) -> None:
    group = GROUPS[name][0]
    ansatz = equivariant_ansatz(group, [SparsePauliOp("IIIX"), SparsePauliOp("IIZZ"), SparsePauliOp("IIIZ")], layers=2)
    assert ansatz_error(group, ansatz) < 1e-10
    assert ansatz_error(group, hardware_efficient_ansatz(4)) > 0.1 < ansatz_error(group, brick_ansatz(4, 2))


def test_equivariance_of_encodings() -> None:
    cycle, swap = [1, 2, 0], [1, 0, 2]
    group = Representation([cycle, swap])
    assert encoding_error(group, angle_encoding(3, "yz"), [cycle, swap]) < 1e-7
    assert encoding_error(group, iqp_encoding(3), [cycle, swap]) < 1e-7
    assert encoding_error(group, iqp_encoding(3, entanglement="linear"), [cycle, swap]) > 0.1
    assert encoding_error(group, angle_encoding(3), [swap, cycle]) > 0.1, "the actions are those of other elements"
    # X on a qubit that RX turns by x: the same state, up to a phase, as a turn by x + pi.
    flip = Representation(["XX"])
    assert encoding_error(flip, angle_encoding(2, "x"), [lambda x: x + np.pi]) < 1e-7
    assert encoding_error(flip, angle_encoding(2, "x"), [lambda x: -x]) > 0.1


def test_an_invariant_model_is_invariant_and_trains() -> None:
    group = Representation([[1, 2, 3, 0], [3, 2, 1, 0]])
    generators = [SparsePauliOp("IIIX"), SparsePauliOp("IIIY"), SparsePauliOp("IIZZ")]
    observables = [SparsePauliOp("IIIZ"), SparsePauliOp("IIXX")]
    model = invariant_model(group, angle_encoding(4), generators, observables, 2, seed_init=0).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    for places in ([1, 2, 3, 0], [3, 2, 1, 0]):
        torch.testing.assert_close(model(x[:, places]), model(x), atol=1e-10, rtol=0)
    assert (model(x[:, [1, 0, 2, 3]]) - model(x)).abs().max() > 1e-3, "not all permutations are in the group"
    model(x).sum().backward()
    assert all(p.grad.abs().max() > 1e-6 for p in model.parameters())


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: Representation([]), qtm.CircuitError, "no generators"),
        (lambda: Representation([[0, 0]]), qtm.CircuitError, r"\[0, 0\] is not a permutation"),
        (lambda: Representation(["XQ"]), qtm.CircuitError, "'XQ' is not a Pauli string"),
        (lambda: Representation(["X", "XX"]), qtm.CircuitError, "1 and 2 qubits"),
        (lambda: Representation([angle_encoding(1).circuit]), qtm.CircuitError, "has parameters"),
        (lambda: Representation(["X"]).twirl(SparsePauliOp("XX")), qtm.ObservableError, "1 qubits, got 2"),
        (lambda: Representation(["X"]).commutes("X"), qtm.ObservableError, "got str"),
        (lambda: Representation([turn(1.0)]).matrices(), qtm.UnsupportedError, "not finite"),
        (lambda: Representation.cyclic(9).matrices(), qtm.UnsupportedError, "too many for matrices"),
        (
            lambda: equivariant_ansatz(Representation.cyclic(3), [SparsePauliOp("IXZ")]),
            qtm.ObservableError,
            "do not commute",
        ),
        (
            lambda: equivariant_ansatz(Representation(["XX"]), [SparsePauliOp("IZ")]),
            qtm.ObservableError,
            "every generator is zero",
        ),
        (
            lambda: invariant_model(
                Representation(["XX"]), angle_encoding(2), [SparsePauliOp("IX")], [SparsePauliOp("IZ")]
            ),
            qtm.ObservableError,
            "twirl of the observable .* is zero",
        ),
        (lambda: encoding_error(Representation(["XX"]), angle_encoding(2), []), qtm.ParameterError, "0 actions"),
    ],
)
def test_what_is_refused(build: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        build()


def test_examples_of_the_docstrings() -> None:
    result = doctest.testmod(symmetry)
    assert result.attempted > 0 and result.failed == 0
