"""Symmetry: observables and generators averaged over a group, and models that are invariant by construction.

A model f is invariant under a group if f(g x) = f(x). It is so if its encoding is equivariant, R(g) U(x) |0> =
U(g x) |0>, its generators and its observable commute with every R(g), and the initial state is kept (J. Meyer et al.,
PRX Quantum 4, 010328 (2023)). Generators that commute come from any generators by twirling: averaging R(g) O R(g)^-1
over the group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from qiskit import QuantumCircuit
from qiskit.exceptions import QiskitError
from qiskit.quantum_info import Clifford, Operator, Pauli, SparsePauliOp, Statevector

from qtm._errors import CircuitError, ObservableError, ParameterError, UnsupportedError
from qtm.circuits import ModelCircuit, generator_ansatz
from qtm.modules import QuantumModule

__all__ = ["Representation", "ansatz_error", "encoding_error", "equivariant_ansatz", "invariant_model"]

Element: TypeAlias = QuantumCircuit | Pauli | str | Sequence[int]
Action = Callable[[NDArray[np.float64]], ArrayLike] | Sequence[int]
# Dense matrices are enumerated up to these sizes.
MAX_QUBITS, MAX_ORDER = 8, 4096
_SMALL = 1e-10


class Representation:
    """A finite group acting on qubits, given by generators of the group.

    Where all generators are Clifford circuits, as permutations of qubits and Pauli strings are, a Pauli string goes to
    a Pauli string, and a twirl is a mean over the orbit of each term: for any number of qubits, and for groups as
    large as all permutations. Other generators are enumerated as matrices.

    Args:
        generators: Each a permutation (a list: qubit q goes to place ``generator[q]``), a Pauli string (a `Pauli` or
            its label), or a Qiskit circuit without parameters.
        num_qubits: Number of qubits; by default that of the first generator.

    Raises:
        CircuitError: A generator is malformed, or acts on another number of qubits.

    Example:
        >>> from qiskit.quantum_info import SparsePauliOp
        >>> from qtm.symmetry import Representation
        >>> swap = Representation([[1, 0]])
        >>> swap.twirl(SparsePauliOp("IX"))
        SparsePauliOp(['IX', 'XI'],
                      coeffs=[0.5+0.j, 0.5+0.j])
        >>> swap.commutes(SparsePauliOp("IZ")), swap.commutes(SparsePauliOp("ZZ"))
        (False, True)
    """

    def __init__(self, generators: Iterable[Element], num_qubits: int | None = None) -> None:
        generators = list(generators)
        if not generators:
            raise CircuitError("no generators; give at least one permutation, Pauli string or circuit")
        self.circuits = tuple(_as_circuit(generator) for generator in generators)
        self.num_qubits = num_qubits or self.circuits[0].num_qubits
        for circuit in self.circuits:
            if circuit.num_qubits != self.num_qubits:
                raise CircuitError(
                    f"generators act on {self.num_qubits} and {circuit.num_qubits} qubits; expected one number"
                )
        self._cliffords = _cliffords(self.circuits)

    @classmethod
    def symmetric(cls, num_qubits: int) -> Representation:
        """All permutations of the qubits."""
        cycle = [(q + 1) % num_qubits for q in range(num_qubits)]
        return cls([cycle] if num_qubits < 2 else [cycle, [1, 0, *range(2, num_qubits)]])

    @classmethod
    def cyclic(cls, num_qubits: int) -> Representation:
        """Rotations of a ring of qubits."""
        return cls([[(q + 1) % num_qubits for q in range(num_qubits)]])

    def twirl(self, observable: SparsePauliOp) -> SparsePauliOp:
        """The mean of R(g) O R(g)^-1 over the group, which commutes with every R(g).

        Raises:
            ObservableError: The observable is not a Pauli sum on the qubits of the representation.
            UnsupportedError: The group is not one of Clifford circuits, and too large for matrices.
        """
        self._check(observable)
        if self._cliffords is None:
            elements = self.matrices()
            matrix = observable.to_matrix()
            mean = sum(r @ matrix @ r.conj().T for r in elements) / len(elements)
            return _from_matrix(mean)
        total: dict[str, complex] = {}
        for label, coefficient in zip(observable.paulis.to_labels(), observable.coeffs, strict=True):
            orbit = self._orbit(label)
            for image, sign in orbit.items():
                total[image] = total.get(image, 0) + coefficient * sign / len(orbit)
        kept = [(label, value) for label, value in sorted(total.items()) if abs(value) > _SMALL]
        return SparsePauliOp.from_list(kept or [("I" * self.num_qubits, 0)])

    def commutes(self, observable: SparsePauliOp, tolerance: float = 1e-10) -> bool:
        """Whether [O, R(g)] = 0 for all g, up to ``tolerance`` in each coefficient.

        Raises:
            ObservableError: The observable is not a Pauli sum on the qubits of the representation.
            UnsupportedError: A generator is not a Clifford circuit, and there are too many qubits for a matrix.
        """
        self._check(observable)
        return all(self._moved(observable, g) <= tolerance for g in range(len(self.circuits)))

    def matrices(self) -> list[NDArray[np.complex128]]:
        """R(g) for all elements of the group, `(2**n, 2**n)` each; elements equal up to a phase are one.

        Raises:
            UnsupportedError: There are too many elements or qubits, or the generators generate no finite group.
        """
        self._check_width()
        generators = [_without_phase(Operator(circuit).data) for circuit in self.circuits]
        found = {_key(np.eye(2**self.num_qubits)): np.eye(2**self.num_qubits, dtype=complex)}
        fresh = list(found.values())
        while fresh:
            products = [_without_phase(g @ element) for element in fresh for g in generators]
            fresh = []
            for matrix in products:
                if found.setdefault(_key(matrix), matrix) is matrix:
                    fresh.append(matrix)
            if len(found) > MAX_ORDER:
                raise UnsupportedError(f"the group has more than {MAX_ORDER} elements, or is not finite")
        return list(found.values())

    def _orbit(self, label: str) -> dict[str, float]:
        """Images of a Pauli string with their signs; 0 for both signs, whose mean is 0."""
        orbit, fresh = {label: 1.0}, [label]
        while fresh:
            image = fresh.pop()
            for clifford in self._cliffords or ():
                moved = Pauli(image).evolve(clifford, frame="s")
                sign = orbit[image] * (-1.0 if moved.phase == 2 else 1.0)
                text = Pauli((moved.z, moved.x)).to_label()
                if text not in orbit:
                    orbit[text] = sign
                    fresh.append(text)
                elif orbit[text] != sign:
                    return {label: 0.0}
        return orbit

    def _moved(self, observable: SparsePauliOp, generator: int) -> float:
        """The largest coefficient of R O R^-1 - O."""
        if self._cliffords is None:
            self._check_width()
            r, matrix = Operator(self.circuits[generator]).data, observable.to_matrix()
            difference = _from_matrix(r @ matrix @ r.conj().T - matrix)
        else:
            moved = observable.paulis.evolve(self._cliffords[generator], frame="s")
            difference = (SparsePauliOp(moved, observable.coeffs) - observable).simplify(atol=0)
        return float(np.abs(difference.coeffs).max())

    def _check(self, observable: SparsePauliOp) -> None:
        if not isinstance(observable, SparsePauliOp) or observable.num_qubits != self.num_qubits:
            shape = getattr(observable, "num_qubits", type(observable).__name__)
            raise ObservableError(f"expected a SparsePauliOp on {self.num_qubits} qubits, got {shape}")

    def _check_width(self) -> None:
        if self.num_qubits > MAX_QUBITS:
            raise UnsupportedError(
                f"{self.num_qubits} qubits are too many for matrices, {MAX_QUBITS} at most; use Clifford generators"
            )


def equivariant_ansatz(
    representation: Representation, generators: Sequence[SparsePauliOp], layers: int = 1
) -> ModelCircuit:
    """An ansatz that commutes with the group: evolutions under the twirled ``generators``.

    Args:
        representation: The group.
        generators: Pauli sums, symmetric or not; those that the twirl turns into 0 or into one another count once.
        layers: Number of layers, each with an angle per generator.

    Raises:
        ObservableError: The terms of a twirled generator do not commute, or nothing is left of any.

    Example:
        >>> from qiskit.quantum_info import SparsePauliOp
        >>> from qtm.symmetry import Representation, equivariant_ansatz
        >>> ring = Representation.cyclic(4)
        >>> ansatz = equivariant_ansatz(ring, [SparsePauliOp("IIIX"), SparsePauliOp("IIZZ")], layers=3)
        >>> len(ansatz.variational_params)
        6
    """
    twirled: list[SparsePauliOp] = []
    for generator in generators:
        image = representation.twirl(generator).simplify(atol=_SMALL)
        scale = float(np.abs(image.coeffs).max())
        # The scale is absorbed by the angle; with coefficients of size 1 angles keep their usual range.
        if scale > _SMALL and not any(_same(image / scale, other) for other in twirled):
            twirled.append(image / scale)
    if not twirled:
        raise ObservableError("the twirl leaves nothing of these generators; give others")
    return generator_ansatz(twirled, layers)


def invariant_model(
    representation: Representation,
    encoding: ModelCircuit,
    generators: Sequence[SparsePauliOp],
    observables: Sequence[SparsePauliOp],
    layers: int = 1,
    **settings: Any,
) -> QuantumModule:
    """A `QuantumModule` whose outputs do not change when the group acts on its inputs.

    ``layers`` times the encoding and an equivariant ansatz, read through twirled observables. Inputs that the group
    permutes need an encoding that treats all features alike, and a state 0 that the group keeps:
    :func:`encoding_error` checks it.

    Args:
        representation: The group, as it acts on qubits.
        encoding: An equivariant encoding, such as `angle_encoding` for permutations.
        generators: Pauli sums, which are twirled.
        observables: Pauli sums, which are twirled.
        layers: Number of layers.
        settings: Other arguments of `QuantumModule`.

    Raises:
        ObservableError: The twirl leaves nothing of an observable or of all generators.

    Example:
        >>> import torch
        >>> from qiskit.quantum_info import SparsePauliOp
        >>> from qtm.circuits import angle_encoding
        >>> from qtm.symmetry import Representation, invariant_model
        >>> generators = [SparsePauliOp("IIX"), SparsePauliOp("IZZ")]
        >>> group, x = Representation.symmetric(3), torch.tensor([0.1, 0.7, -0.4])
        >>> model = invariant_model(group, angle_encoding(3), generators, [SparsePauliOp("IIZ")], layers=2)
        >>> torch.allclose(model(x), model(x.flip(0)), atol=1e-5)
        True
    """
    ansatz = equivariant_ansatz(representation, generators)
    twirled = [representation.twirl(observable) for observable in observables]
    for before, after in zip(observables, twirled, strict=True):
        if np.abs(after.coeffs).max() <= _SMALL:
            raise ObservableError(
                f"the twirl leaves nothing of the observable {before.paulis.to_labels()}; give another"
            )
    return QuantumModule.from_parts([encoding, ansatz] * layers, observables=twirled, **settings)


def encoding_error(
    representation: Representation, encoding: ModelCircuit, actions: Sequence[Action], samples: int = 3, seed: int = 0
) -> float:
    """The largest distance of ``R(g) U(x)|0>`` and ``U(g x)|0>``, up to a phase: 0 if the encoding is equivariant.

    Args:
        representation: The group.
        encoding: The encoding U(x), with at most 8 qubits; trainable parameters get random values.
        actions: For each generator of the group what it does to a sample (features,): a function, or a permutation by
            which feature k goes to place ``action[k]``.
        samples: Random samples to try.
        seed: Of the samples.

    Returns:
        0 up to rounding for an equivariant encoding.

    Raises:
        ParameterError: There is not one action for each generator.

    Example:
        >>> from qtm.circuits import angle_encoding
        >>> from qtm.symmetry import Representation, encoding_error
        >>> encoding_error(Representation([[1, 2, 0]]), angle_encoding(3), [[1, 2, 0]]) < 1e-7
        True
    """
    if len(actions) != len(representation.circuits):
        raise ParameterError(f"{len(actions)} actions for {len(representation.circuits)} generators; give one for each")
    representation._check_width()
    rng = np.random.default_rng(seed)
    distances = []
    for _ in range(samples):
        x = rng.normal(size=len(encoding.encoding_params))
        weights = dict(zip(encoding.trainable_params, rng.normal(size=len(encoding.trainable_params)), strict=True))
        for circuit, action in zip(representation.circuits, actions, strict=True):
            states = []
            for sample in (x, _acted(action, x)):
                data = dict(zip(encoding.encoding_params, sample, strict=True))
                states.append(Statevector(encoding.circuit.assign_parameters({**data, **weights})))
            overlap = abs(states[0].evolve(circuit).inner(states[1]))
            distances.append(np.sqrt(max(0.0, 2 - 2 * overlap)))
    return float(max(distances))


def ansatz_error(representation: Representation, ansatz: ModelCircuit, samples: int = 3, seed: int = 0) -> float:
    """How far an ansatz is from commuting with the group: the largest entry of [U(theta), R(g)].

    Args:
        representation: The group.
        ansatz: The ansatz, with at most 8 qubits.
        samples: Random angles to try.
        seed: Of the angles.

    Returns:
        0 up to rounding for an equivariant ansatz.

    Example:
        >>> from qtm.circuits import hardware_efficient_ansatz
        >>> from qtm.symmetry import Representation, ansatz_error
        >>> ansatz_error(Representation.symmetric(3), hardware_efficient_ansatz(3)) > 0.1
        True
    """
    representation._check_width()
    rng = np.random.default_rng(seed)
    errors = []
    for _ in range(samples):
        angles = rng.uniform(0, 2 * np.pi, len(ansatz.trainable_params))
        unitary = Operator(
            ansatz.circuit.assign_parameters(dict(zip(ansatz.trainable_params, angles, strict=True)))
        ).data
        for circuit in representation.circuits:
            r = Operator(circuit).data
            errors.append(np.abs(unitary @ r - r @ unitary).max())
    return float(max(errors))


def _as_circuit(generator: Any) -> QuantumCircuit:
    if isinstance(generator, QuantumCircuit):
        if generator.parameters:
            raise CircuitError("a generator of a group has parameters; bind them")
        return generator
    if isinstance(generator, Pauli | str):
        try:
            pauli = Pauli(generator)
        except QiskitError as error:
            raise CircuitError(f"{generator!r} is not a Pauli string") from error
        circuit = QuantumCircuit(pauli.num_qubits)
        circuit.pauli(Pauli((pauli.z, pauli.x)).to_label(), range(pauli.num_qubits))
        return circuit
    places = list(generator)
    if sorted(places) != list(range(len(places))):
        raise CircuitError(f"{places} is not a permutation of 0 to {len(places) - 1}")
    return _permutation(places)


def _permutation(places: list[int]) -> QuantumCircuit:
    """Swaps that move qubit q to ``places[q]``."""
    circuit, now = QuantumCircuit(len(places)), list(places)
    for q in range(len(now)):
        while now[q] != q:
            other = now[q]
            circuit.swap(q, other)
            now[q], now[other] = now[other], now[q]
    return circuit


def _cliffords(circuits: tuple[QuantumCircuit, ...]) -> tuple[Clifford, ...] | None:
    try:
        return tuple(Clifford(circuit) for circuit in circuits)
    except QiskitError:
        return None


def _from_matrix(matrix: NDArray[np.complex128]) -> SparsePauliOp:
    """The Pauli sum of a matrix (2**n, 2**n); a zero matrix, which has no terms, is 0 times the identity."""
    found = SparsePauliOp.from_operator(Operator(matrix))
    if len(found) == 0:
        return SparsePauliOp("I" * (len(matrix).bit_length() - 1), 0.0)
    return found.simplify(atol=_SMALL)


def _acted(action: Action, x: NDArray[np.float64]) -> NDArray[np.float64]:
    if callable(action):
        return np.asarray(action(x), dtype=np.float64)
    moved = np.empty_like(x)
    moved[list(action)] = x
    return moved


def _same(first: SparsePauliOp, second: SparsePauliOp) -> bool:
    return any(np.abs((first - sign * second).simplify(atol=0).coeffs).max() < _SMALL for sign in (1, -1))


def _without_phase(matrix: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """The matrix times the phase that makes its first entry of some size real and positive."""
    entries = matrix.ravel()
    first = entries[np.flatnonzero(np.abs(entries) > 1e-6)[0]]
    unphased: NDArray[np.complex128] = matrix * (abs(first) / first)
    return unphased


def _key(matrix: NDArray[Any]) -> bytes:
    # Adding 0 makes -0.0 the same as 0.0.
    return (np.round(matrix.astype(complex), 6) + 0.0).tobytes()
