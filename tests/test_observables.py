"""Observables as masks: against dense matrices, in every form in which Qiskit accepts them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from qiskit.circuit import Parameter
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info import Operator, Pauli, PauliList, SparseObservable, SparsePauliOp

from qtm._circuit.observables import Observable, coerce_observables
from qtm._errors import ObservableError

ZZ_PLUS_XY = SparsePauliOp(["IZZ", "XIY"], [0.5, -2.0])


def matrix(observable: Observable) -> np.ndarray:
    """Dense (2^n, 2^n) from the definition: i^k X^x Z^z |i> = i^k (-1)^popcount(i & z) |i ^ x>."""
    dense = np.zeros((2**observable.num_qubits,) * 2, dtype=complex)
    terms = (getattr(observable, name).tolist() for name in ("coeffs", "x", "z", "k"))
    for coefficient, x, z, k in zip(*terms, strict=True):
        for i in range(len(dense)):
            dense[i ^ x, i] += coefficient * 1j**k * (-1) ** (i & z).bit_count()
    return dense


def one(obj: Any, num_qubits: int) -> Observable:
    (observable,) = coerce_observables(obj, num_qubits)
    return observable


def random_operator(rng: np.random.Generator, num_qubits: int, terms: int) -> SparsePauliOp:
    x, z = rng.random((2, terms, num_qubits)) < 0.5
    return SparsePauliOp(PauliList.from_symplectic(z, x), rng.normal(size=terms))


@pytest.mark.parametrize("num_qubits", range(1, 7))
@pytest.mark.parametrize("terms", [1, 5, 200])
def test_random_operators(num_qubits: int, terms: int, rng: np.random.Generator) -> None:
    operator = random_operator(rng, num_qubits, terms)
    observable = one(operator, num_qubits)
    np.testing.assert_allclose(matrix(observable), operator.to_matrix(), atol=1e-12)
    assert observable.num_terms == len({pauli.to_label().lstrip("-i") for pauli in operator.paulis})
    assert one(SparseObservable.from_sparse_pauli_op(operator), num_qubits) == observable


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (ZZ_PLUS_XY, ZZ_PLUS_XY),
        (SparseObservable.from_sparse_pauli_op(ZZ_PLUS_XY), ZZ_PLUS_XY),
        ({"IZZ": 0.5, "XIY": -2}, ZZ_PLUS_XY),
        ({Pauli("IZZ"): np.float32(0.5), Pauli("-XIY"): 2 + 0j}, ZZ_PLUS_XY),
        ({Pauli("iIZZ"): -0.5j, "XIY": -2}, ZZ_PLUS_XY),
        (ObservablesArray(ZZ_PLUS_XY), ZZ_PLUS_XY),
        (one(ZZ_PLUS_XY, 3), ZZ_PLUS_XY),
        ([ZZ_PLUS_XY], ZZ_PLUS_XY),
        (np.array([{"IZZ": 0.5, "XIY": -2}]), ZZ_PLUS_XY),
        (Pauli("YXZ"), Pauli("YXZ")),
        (Pauli("-YYY"), Pauli("-YYY")),
        (PauliList(["IYZ"]), Pauli("IYZ")),
        (PauliList(["IYZ", "XXX"])[1], Pauli("XXX")),
        ("XYZ", Pauli("XYZ")),
        ("III", Pauli("III")),
        (np.str_("YIY"), Pauli("YIY")),
        ("01+", SparseObservable.from_label("01+")),
        ("-rl", SparseObservable.from_label("-rl")),
        ("Z1Y", SparseObservable.from_label("Z1Y")),
        ({"0ZI": 1.5, "r-X": -1}, SparseObservable.from_list([("0ZI", 1.5), ("r-X", -1)])),
        (SparsePauliOp(["ZZZ", "IIX"], [1 + 1e-14j, 2]), SparsePauliOp(["ZZZ", "IIX"], [1, 2])),
    ],
    ids=lambda value: " ".join(str(value).split())[:40],
)
def test_every_form(obj: Any, expected: Any) -> None:
    if isinstance(expected, SparseObservable):
        expected = SparsePauliOp.from_sparse_observable(expected.as_paulis())
    np.testing.assert_allclose(matrix(one(obj, 3)), expected.to_matrix(), atol=1e-14)


@pytest.mark.parametrize(
    "obj",
    [
        ["IZ", "ZI", "XY", "ZZ"],
        ("IZ", Pauli("ZI"), SparsePauliOp("XY"), {"ZZ": 1}),
        [["IZ", "ZI"], ["XY", "ZZ"]],
        np.array([["IZ", "ZI"], ["XY", "ZZ"]]),
        ObservablesArray([["IZ", "ZI"], ["XY", "ZZ"]]),
        PauliList(["IZ", "ZI", "XY", "ZZ"]),
        [PauliList(["IZ", "ZI"]), ["XY", "ZZ"]],
    ],
    ids=lambda value: type(value).__name__,
)
def test_lists_in_row_major_order(obj: Any) -> None:
    assert [o.labels() for o in coerce_observables(obj, 2)] == [["IZ"], ["ZI"], ["XY"], ["ZZ"]]


def test_names() -> None:
    assert coerce_observables("individualZ", 3) == coerce_observables(["IIZ", "IZI", "ZII"], 3)
    assert coerce_observables("tensoredZ", 3) == coerce_observables("ZZZ", 3)


def test_terms_are_merged_sorted_and_zeros_dropped() -> None:
    operator = SparsePauliOp(["XX", "ZI", "XX", "IY", "YY", "YY", "II"], [1, 2, 3, 0, 5, -5, 4])
    observable = one(operator, 2)
    assert observable.labels() == ["II", "ZI", "XX"]
    assert observable.coeffs.tolist() == [4, 2, 4]
    assert one(operator[::-1], 2) == observable
    assert one(SparsePauliOp(["XX", "XX", "ZZ"], [1j, -1j, 1]), 2) == one("ZZ", 2)


def test_the_zero_operator_has_no_terms() -> None:
    zero = one(SparsePauliOp(["XX", "XX"], [1, -1]), 2)
    assert zero.num_terms == 0
    assert not matrix(zero).any()
    assert one(SparseObservable.zero(2), 2) == zero


def test_arrays() -> None:
    observable = one({"XYZ": 2, "YYI": 1}, 3)
    assert [getattr(observable, name).dtype.name for name in ("coeffs", "x", "z", "k")] == [
        *("float64", "uint64", "uint64", "uint8")
    ]
    assert (observable.x.tolist(), observable.z.tolist(), observable.k.tolist()) == ([6, 6], [3, 6], [1, 2])
    with pytest.raises(ValueError, match="read-only"):
        observable.coeffs[0] = 3


def test_the_widest() -> None:
    label = "Y" + "I" * 61 + "Y"
    observable = one(label, 63)
    assert observable.x.tolist() == observable.z.tolist() == [(1 << 62) + 1]
    assert observable.labels() == [label]


def test_input_is_left_alone() -> None:
    operator = SparsePauliOp(["IZ", "XX"], [1.0, 2.0])
    one(operator, 2)
    operator.coeffs[0] = 3
    assert operator.paulis.x.flags.writeable


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies(duplicate: Callable[[Any], Any]) -> None:
    observable = one(ZZ_PLUS_XY, 3)
    other = duplicate(observable)
    assert other == observable
    assert hash(other) == hash(observable)
    assert not other.coeffs.flags.writeable
    assert observable != one("ZZZ", 3)
    assert observable != "ZZZ"


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        (SparsePauliOp(["ZZ", "XY"], [1, 1j]), "not Hermitian: term 'XY' has coefficient 1j"),
        ({"ZZ": 1 + 1e-6j}, "not Hermitian: term 'ZZ'"),
        (Pauli("iXX"), "not Hermitian: term 'XX'"),
        ([Pauli("XX"), SparsePauliOp(["IX"], [2j])], "not Hermitian: term 'IX'"),
        (SparsePauliOp(["ZZ"], [float("nan")]), "NaN or infinite: term 'ZZ'"),
        ({"ZZ": 1, "XX": float("inf")}, "coefficient inf is NaN or infinite"),
        (SparsePauliOp(["ZZ", "XX", "XX"], [1, np.inf, -np.inf]), "NaN or infinite: term 'XX'"),
        ("ZZZ", "'ZZZ' acts on 3 qubits and the circuit has 2"),
        (SparsePauliOp("Z"), "acts on 1 qubits and the circuit has 2"),
        (one("ZZZ", 3), "acts on 3 qubits and the circuit has 2"),
        (["ZZ", "Z"], "'Z' acts on 1 qubits and the circuit has 2"),
        ({"ZZ": 1, "Z": 1}, "different widths: \\[1, 2\\]"),
        ("ZQ", "'ZQ' is not an observable: expected one letter of"),
        ("individualX", "is not an observable: .*'individualZ', 'tensoredZ'"),
        ({"ZQ": 1}, "'ZQ' is not an observable"),
        ({"ZZ": "2"}, "coefficient '2' is not a number"),
        ({"ZZ": Parameter("t")}, "is not a number"),
        ({3: 1.0}, "int is not an observable"),
        ({}, "empty mapping"),
        (SparsePauliOp(["ZZ"], np.array([Parameter("t")])), "free parameters \\(t\\)"),
        (3.0, "float is not an observable"),
        (None, "NoneType is not an observable"),
        (Operator(np.eye(4)), "Operator is not an observable.*from_operator"),
        (np.eye(4), "float64 is not an observable"),
        ([], "empty; give at least one"),
        ([[], []], "empty; give at least one"),
    ],
    ids=lambda value: " ".join(str(value).split())[:40],
)
def test_bad_observables(obj: Any, message: str) -> None:
    with pytest.raises(ObservableError, match=message):
        coerce_observables(obj, 2)


def test_too_many_projectors() -> None:
    with pytest.raises(ObservableError, match=r"expand to 1\.1e\+12 Pauli terms"):
        coerce_observables("0" * 40, 40)
