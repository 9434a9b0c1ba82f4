"""Observables as bit masks: a sum of ``coeff * i^k X^x Z^z`` with one bit per qubit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from numbers import Complex
from typing import Any

import numpy as np
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info import Pauli, PauliList, SparseObservable, SparsePauliOp

from qtm._errors import ObservableError

_WORD = 63  # maximum number of qubits for 64-bit masks; wider masks are Python integers
# Projectors ("01+-rl") expand to 2^(their number) Pauli terms.
_MAX_TERMS = 1 << 22
# An imaginary part this small is rounding: relative to the terms summed in the coefficient, or to the largest
# coefficient but at most 1, since a large term does not excuse errors in others.
_IMAGINARY_TOLERANCE = 1e-12
_LARGEST_PAULI = 3  # bit terms of SparseObservable above it are projectors

# An observable as read: x and z (terms, qubits) bool, coefficients (terms,) complex.
_Terms = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Observable:
    """A Hermitian operator ``sum_t coeffs[t] * i^k[t] X^x[t] Z^z[t]``; bit q of a mask stands for qubit q.

    Equal Paulis are merged, zero terms dropped, and terms sorted by x, then z: equal operators have equal arrays. The
    zero operator has no terms. Immutable, hashed by content. Above 63 qubits masks are Python integers in arrays of
    objects.
    """

    num_qubits: int
    coeffs: np.ndarray  # (terms,) float64
    x: np.ndarray  # (terms,) uint64, or object
    z: np.ndarray  # (terms,) uint64, or object
    k: np.ndarray  # (terms,) uint8, in 0..3: how often Y occurs, as Y = i X Z

    def __post_init__(self) -> None:
        for array in (self.coeffs, self.x, self.z, self.k):
            array.flags.writeable = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (Observable, (self.num_qubits, self.coeffs, self.x, self.z, self.k))

    def _content(self) -> tuple[Any, ...]:
        if self.num_qubits > _WORD:
            return (self.num_qubits, self.coeffs.tobytes(), tuple(self.x), tuple(self.z))
        return (self.num_qubits, self.coeffs.tobytes(), self.x.tobytes(), self.z.tobytes())

    def __eq__(self, other: object) -> bool:
        return self._content() == other._content() if isinstance(other, Observable) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._content())

    @property
    def num_terms(self) -> int:
        """Number of Paulis in the sum."""
        return len(self.coeffs)

    def labels(self) -> list[str]:
        """Each term's Pauli in Qiskit's order, qubit 0 rightmost."""
        return [_label(int(x), int(z), self.num_qubits) for x, z in zip(self.x, self.z, strict=True)]


def _label(x: int, z: int, num_qubits: int) -> str:
    return "".join("IXZY"[(x >> q & 1) + 2 * (z >> q & 1)] for q in reversed(range(num_qubits)))


# ---------------------------------------------------------------- masks


def _pack(bits: np.ndarray) -> np.ndarray:
    """Bits (terms, qubits) as masks (terms,): uint64, or Python integers if 64 bits are too few."""
    packed = np.packbits(bits, axis=1, bitorder="little")
    if bits.shape[1] > _WORD:
        masks = np.empty(len(bits), object)
        masks[:] = [int.from_bytes(row.tobytes(), "little") for row in packed]
        return masks
    padded = np.zeros((len(bits), 8), dtype=np.uint8)
    padded[:, : packed.shape[1]] = packed
    return padded.view("<u8")[:, 0].astype(np.uint64)


def _order(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The permutation that sorts masks (terms,) by x, then z."""
    if x.dtype == object:
        return np.array(sorted(range(len(x)), key=lambda term: (x[term], z[term])), np.int64)
    return np.lexsort((z, x))


def _merge(terms: _Terms, num_qubits: int) -> Observable:
    """Sort terms, add up those of equal Pauli, drop the zeros."""
    x, z, coeffs = _pack(terms[0]), _pack(terms[1]), terms[2]
    order = _order(x, z)
    x, z, coeffs = x[order], z[order], coeffs[order]
    _refuse(~np.isfinite(coeffs), "has a coefficient that is NaN or infinite", (x, z, coeffs), num_qubits)
    sizes = np.abs(coeffs)
    scale = min(sizes.max(initial=0.0), 1.0)
    first = np.flatnonzero(np.append(True, (x[1:] != x[:-1]) | (z[1:] != z[:-1]))[: len(x)])
    if len(first) < len(x):
        x, z, coeffs, sizes = x[first], z[first], np.add.reduceat(coeffs, first), np.add.reduceat(sizes, first)
    is_complex = np.abs(coeffs.imag) > _IMAGINARY_TOLERANCE * np.maximum(sizes, scale)
    _refuse(is_complex, "is not Hermitian", (x, z, coeffs), num_qubits)
    kept = coeffs.real != 0
    x, z, coeffs = x[kept], z[kept], coeffs.real[kept].astype(np.float64)
    return Observable(num_qubits, coeffs, x, z, (_popcount(x & z) % 4).astype(np.uint8))


def _popcount(masks: np.ndarray) -> np.ndarray:
    if masks.dtype == object:
        return np.array([mask.bit_count() for mask in masks], np.int64)
    return np.bitwise_count(masks)


def _refuse(bad: np.ndarray, problem: str, terms: _Terms, num_qubits: int) -> None:
    if bad.any():
        x, z, coefficient = (array[np.argmax(bad)] for array in terms)
        raise ObservableError(
            f"the observable {problem}: term {_label(int(x), int(z), num_qubits)!r} has coefficient {coefficient}; "
            "coefficients must be real, finite numbers"
        )


# ---------------------------------------------------------------- the forms of one observable


def _from_sparse_pauli_op(operator: SparsePauliOp) -> _Terms:
    if operator.coeffs.dtype == object:
        names = ", ".join(sorted(parameter.name for parameter in operator.parameters))
        raise ObservableError(f"the observable has free parameters ({names}); assign them values first")
    return operator.paulis.x, operator.paulis.z, operator.coeffs


def _from_pauli(pauli: Pauli) -> _Terms:
    return pauli.x[None], pauli.z[None], np.array([(-1j) ** pauli.phase])


def _from_sparse_observable(operator: SparseObservable) -> _Terms:
    operator = _without_projectors(operator)
    bits = np.asarray(operator.bit_terms)  # 1: Z, 2: X, 3: Y
    term = np.repeat(np.arange(operator.num_terms), np.diff(np.asarray(operator.boundaries, np.int64)))
    x = np.zeros((operator.num_terms, operator.num_qubits), dtype=bool)
    z = np.zeros_like(x)
    x[term, operator.indices], z[term, operator.indices] = bits & 2, bits & 1
    return x, z, np.array(operator.coeffs)


def _without_projectors(operator: SparseObservable) -> SparseObservable:
    is_projector = np.asarray(operator.bit_terms) > _LARGEST_PAULI
    if not is_projector.any():
        return operator
    count = np.concatenate(([0], np.cumsum(is_projector)))
    size = float(np.sum(2.0 ** np.diff(count[np.asarray(operator.boundaries)])))
    if size > _MAX_TERMS:
        raise ObservableError(
            f"the projectors of the observable expand to {size:.2g} Pauli terms; at most {_MAX_TERMS} are handled"
        )
    return operator.as_paulis()


def _from_label(label: str) -> _Terms:
    try:
        return _from_sparse_observable(SparseObservable.from_label(label))
    except ValueError as error:
        if isinstance(error, ObservableError):
            raise
        raise ObservableError(
            f"{label!r} is not an observable: expected one letter of IXYZ01+-rl per qubit, "
            f"or one of {', '.join(map(repr, NAMED))}"
        ) from error


def _from_mapping(mapping: Mapping[Any, Any]) -> _Terms:
    if not mapping:
        raise ObservableError("the observable is an empty mapping; expected {pauli: coefficient, ...}")
    parts = [_scaled(_terms(pauli), coefficient) for pauli, coefficient in mapping.items()]
    widths = {part[0].shape[1] for part in parts}
    if len(widths) > 1:
        raise ObservableError(f"the mapping's Paulis have different widths: {sorted(widths)} qubits")
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))  # type: ignore[return-value]


def _scaled(terms: _Terms, coefficient: Any) -> _Terms:
    if not isinstance(coefficient, Complex):
        raise ObservableError(f"the coefficient {coefficient!r} is not a number")
    number = complex(coefficient)
    if not np.isfinite(number):
        raise ObservableError(f"the coefficient {coefficient} is NaN or infinite")
    return terms[0], terms[1], terms[2] * number


# Tried in this order; the first type that fits reads the object.
_READERS: tuple[tuple[type, Callable[[Any], _Terms]], ...] = (
    (SparsePauliOp, _from_sparse_pauli_op),
    (Pauli, _from_pauli),
    (str, _from_label),
    (SparseObservable, _from_sparse_observable),
    (Mapping, _from_mapping),
)


def _terms(obj: Any) -> _Terms:
    for kind, read in _READERS:
        if isinstance(obj, kind):
            return read(obj)
    raise ObservableError(
        f"{type(obj).__name__} is not an observable; expected a SparsePauliOp, Pauli, SparseObservable, label "
        "such as 'ZZI', mapping {pauli: coefficient}, or a list of these; for a matrix, convert it with "
        "SparsePauliOp.from_operator"
    )


# ---------------------------------------------------------------- coercion


def _z_on(qubits: Iterable[int], num_qubits: int) -> Observable:
    bits = np.zeros((1, num_qubits), bool)
    bits[0, list(qubits)] = True
    return _merge((np.zeros_like(bits), bits, np.ones(1, complex)), num_qubits)


NAMED: dict[str, Callable[[int], tuple[Observable, ...]]] = {
    "individualZ": lambda num_qubits: tuple(_z_on([q], num_qubits) for q in range(num_qubits)),
    "tensoredZ": lambda num_qubits: (_z_on(range(num_qubits), num_qubits),),
}


def _coerce(obj: Any, num_qubits: int) -> Observable:
    if isinstance(obj, Observable):
        found = obj.num_qubits
    else:
        terms = _terms(obj)
        found = terms[0].shape[1]
    if found != num_qubits:
        raise ObservableError(
            f"the observable {_short(obj)} acts on {found} qubits and the circuit has {num_qubits}; "
            "give one Pauli letter for each qubit of the circuit"
        )
    return obj if isinstance(obj, Observable) else _merge(terms, num_qubits)


def _short(obj: Any) -> str:
    text = " ".join(repr(obj).split())
    return text if len(text) <= 60 else text[:57] + "..."


@lru_cache(maxsize=4096)
def _coerce_label(label: str, num_qubits: int) -> Observable:
    return _coerce(label, num_qubits)


def _elements(obj: Any) -> Iterable[Any]:
    """The single observables of a nested list or array, in row-major order."""
    if isinstance(obj, ObservablesArray):
        yield from obj.sparse_observables_array().ravel()
    elif isinstance(obj, np.ndarray):
        yield from obj.ravel()
    elif isinstance(obj, list | tuple | PauliList):
        for item in obj:
            yield from _elements(item)
    else:
        yield obj


def coerce_observables(obj: Any, num_qubits: int) -> tuple[Observable, ...]:
    """Read one observable, or a (nested) list of them in row-major order, for a circuit of ``num_qubits``.

    Args:
        obj: a ``SparsePauliOp``, ``Pauli``, ``SparseObservable``, label (letters ``IXYZ`` and the projectors
            ``01+-rl``, qubit 0 rightmost), ``{pauli: coefficient}``, ``Observable``, a list, tuple, array,
            ``PauliList`` or ``ObservablesArray`` of these, or a name: ``"individualZ"`` is Z on each qubit in
            turn, ``"tensoredZ"`` Z on all.
        num_qubits: the number of qubits of the circuit.

    Raises:
        ObservableError: the type is unknown, a width is wrong, the list is empty, or an operator is not
            Hermitian or has a coefficient that is not finite.

    Example:
        >>> [observable.labels() for observable in coerce_observables([{"ZZ": 0.5, "XI": 2}, "IY"], 2)]
        [['ZZ', 'XI'], ['IY']]
    """
    if isinstance(obj, str) and obj in NAMED:
        return NAMED[obj](num_qubits)
    found = tuple(
        _coerce_label(item, num_qubits) if isinstance(item, str) else _coerce(item, num_qubits)
        for item in _elements(obj)
    )
    if not found:
        raise ObservableError("the list of observables is empty; give at least one")
    return found
