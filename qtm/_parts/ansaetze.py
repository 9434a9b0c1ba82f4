"""Ansaetze: circuits whose parameters are trainable angles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import pi

from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.circuit.library import PauliEvolutionGate, XXPlusYYGate, qaoa_ansatz
from qiskit.quantum_info import SparsePauliOp

from qtm._errors import CircuitError, ObservableError
from qtm._parts.encodings import check_axes
from qtm._parts.entanglement import Entanglement, entangled_pairs
from qtm._parts.model_circuit import ModelCircuit, as_ansatz, check_sizes

# Entangling gates by name, and their numbers of angles.
ENTANGLERS = {
    "cx": 0, "cy": 0, "cz": 0, "ecr": 0, "iswap": 0,
    "rxx": 1, "ryy": 1, "rzz": 1, "rzx": 1, "crx": 1, "cry": 1, "crz": 1, "cp": 1,
}  # fmt: skip


def hardware_efficient_ansatz(
    num_qubits: int,
    layers: int = 1,
    axes: str = "yz",
    entanglement: Entanglement = "ring",
    entangler: str = "cx",
    *,
    final_rotations: bool = False,
) -> ModelCircuit:
    """Layers of free rotations of every qubit, each followed by entangling gates.

    A. Kandala et al., Nature 549, 242 (2017). Deep ones have barren plateaus: the variance of a gradient falls
    exponentially with the number of qubits (J. McClean et al., Nature Communications 9, 4812 (2018)).

    Args:
        num_qubits: Number of qubits `n`.
        layers: Number of layers.
        axes: Letters of "xyz": the axes of the rotations in a layer, in the order of the gates.
        entanglement: A pattern of :data:`ENTANGLEMENT_PATTERNS`, a list of pairs of qubits, or a function of the
            layer's number that gives such a list.
        entangler: A two-qubit gate, such as "cx", "cz", or "rzz" or "crx", which take a free angle each.
        final_rotations: End with one more layer of rotations.

    Returns:
        Variational parameters in the order of the gates; `n * len(axes)` per layer for "cx".

    Raises:
        CircuitError: A size is below 1, or an axis, pattern or gate is unknown.

    Example:
        >>> from qtm.circuits import hardware_efficient_ansatz
        >>> len(hardware_efficient_ansatz(4, layers=2).variational_params)
        16
    """
    check_sizes(num_qubits=num_qubits, layers=layers)
    check_axes(axes)
    circuit, angles = QuantumCircuit(num_qubits), _fresh_angles()
    for layer in range(layers):
        _rotate(circuit, axes, angles)
        _entangle(circuit, entangled_pairs(entanglement, num_qubits, layer), entangler, angles)
    if final_rotations:
        _rotate(circuit, axes, angles)
    return _in_circuit_order(circuit)


def brick_ansatz(num_qubits: int, layers: int = 1, axes: str = "yz", entangler: str = "cx") -> ModelCircuit:
    """Two-qubit blocks laid like bricks: pairs (0, 1), (2, 3), ... in even layers, (1, 2), (3, 4), ... in odd ones.

    A block is a rotation of both qubits about every axis, and the entangling gate. The light cone of a local
    observable grows by two qubits per layer; at logarithmic depth its gradients vanish only polynomially
    (M. Cerezo et al., Nature Communications 12, 1791 (2021)).

    Args:
        num_qubits: Number of qubits.
        layers: Number of layers; two are needed to connect all qubits.
        axes: Letters of "xyz": the axes of the rotations in a block, in the order of the gates.
        entangler: A two-qubit gate, as for :func:`hardware_efficient_ansatz`.

    Returns:
        Variational parameters in the order of the gates.

    Raises:
        CircuitError: A size is below 1, or an axis or gate is unknown.

    Example:
        >>> from qtm.circuits import brick_ansatz
        >>> brick_ansatz(4, layers=2).circuit.count_ops()["cx"]
        3
    """
    check_sizes(num_qubits=num_qubits, layers=layers)
    check_axes(axes)
    circuit, angles = QuantumCircuit(num_qubits), _fresh_angles()
    for layer in range(layers):
        pairs = [(q, q + 1) for q in range(layer % 2, num_qubits - 1, 2)]
        for pair in pairs:
            _rotate(circuit, axes, angles, pair)
            _entangle(circuit, [pair], entangler, angles)
    return _in_circuit_order(circuit)


def strongly_entangling_ansatz(num_qubits: int, layers: int = 1) -> ModelCircuit:
    """Any rotation RZ RY RZ of every qubit, then CX from qubit q to q + r, with range r = 1, 2, ... by layer.

    M. Schuld et al., Physical Review A 101, 032308 (2020).

    Args:
        num_qubits: Number of qubits `n`.
        layers: Number of layers; layer l has range `1 + l mod (n - 1)`.

    Returns:
        `3n` variational parameters per layer, in the order of the gates.

    Raises:
        CircuitError: A size is below 1.

    Example:
        >>> from qtm.circuits import strongly_entangling_ansatz
        >>> len(strongly_entangling_ansatz(4, layers=2).variational_params)
        24
    """
    check_sizes(num_qubits=num_qubits, layers=layers)

    def shifted(layer: int) -> list[tuple[int, int]]:
        if num_qubits == 1:
            return []
        reach = 1 + layer % (num_qubits - 1)
        return [(q, (q + reach) % num_qubits) for q in range(num_qubits)]

    return hardware_efficient_ansatz(num_qubits, layers, "zyz", shifted)


def hamming_weight_ansatz(
    num_qubits: int, layers: int = 1, weight: int | None = None, entanglement: Entanglement = "pairwise"
) -> ModelCircuit:
    """Givens rotations between pairs of qubits, which keep the number of qubits in state 1.

    The gates rotate ``|01>`` and ``|10>`` into each other (reconfigurable beam splitters). From a state of weight k the
    circuit stays in a space of `binomial(n, k)` dimensions, and the variance of its gradients falls with that
    number, polynomially for fixed k (L. Monbroussou et al., arXiv:2309.15547).

    Args:
        num_qubits: Number of qubits `n`.
        layers: Number of layers.
        weight: Start with X on this many of the first qubits; None: from the state before the ansatz.
        entanglement: Pairs of qubits of a layer, see :data:`ENTANGLEMENT_PATTERNS`.

    Returns:
        A variational parameter per pair and layer, in the order of the gates: twice the rotation angle.

    Raises:
        CircuitError: A size is below 1, or ``weight`` is not from 0 to `n`.

    Example:
        >>> from qtm.circuits import hamming_weight_ansatz
        >>> len(hamming_weight_ansatz(4, layers=2, weight=1).variational_params)
        6
    """
    check_sizes(num_qubits=num_qubits, layers=layers)
    if weight is not None and not 0 <= weight <= num_qubits:
        raise CircuitError(f"weight is {weight}; it must be from 0 to {num_qubits}, the number of qubits")
    circuit, angles = QuantumCircuit(num_qubits), _fresh_angles()
    for qubit in range(weight or 0):
        circuit.x(qubit)
    for layer in range(layers):
        for first, second in entangled_pairs(entanglement, num_qubits, layer):
            # beta = -pi/2 makes the exchange real: a Givens rotation by half the angle.
            circuit.append(XXPlusYYGate(next(angles), -pi / 2), [first, second])
    return _in_circuit_order(circuit)


def alternating_operator_ansatz(
    cost: SparsePauliOp, layers: int = 1, mixer: SparsePauliOp | None = None
) -> ModelCircuit:
    """The circuit of QAOA: from the state ``|+...+>``, evolutions under ``cost`` and ``mixer``, ``layers`` times.

    E. Farhi et al., arXiv:1411.4028; S. Hadfield et al., Algorithms 12, 34 (2019).

    Args:
        cost: A sum of commuting Pauli strings, usually of Z only.
        layers: Number of layers p.
        mixer: Another sum of commuting Pauli strings; None: X on every qubit.

    Returns:
        `2 * layers` variational parameters, in radians times the unit of the operators: gamma (time under the
        cost) and beta (time under the mixer) of layer 1, then of layer 2, ...

    Raises:
        CircuitError: ``layers`` is below 1.
        ObservableError: An operator is not a Pauli sum, has complex coefficients, terms that do not commute, or
            the mixer acts on another number of qubits.

    Example:
        >>> from qiskit.quantum_info import SparsePauliOp
        >>> from qtm.circuits import alternating_operator_ansatz
        >>> len(alternating_operator_ansatz(SparsePauliOp(["ZZI", "IZZ"]), layers=3).variational_params)
        6
    """
    check_sizes(layers=layers)
    for operator in (cost, mixer) if mixer is not None else (cost,):
        check_generator(operator, cost.num_qubits if isinstance(cost, SparsePauliOp) else None)
    circuit = qaoa_ansatz(cost, reps=layers, mixer_operator=mixer)
    by_name: dict[str, list[Parameter]] = {"γ": [], "β": []}
    for parameter in circuit.parameters:  # sorted by index within a vector
        by_name[parameter.vector.name].append(parameter)
    pairs = zip(by_name["γ"], by_name["β"], strict=True)
    return as_ansatz(circuit, [parameter for pair in pairs for parameter in pair])


def generator_ansatz(generators: Sequence[SparsePauliOp], layers: int = 1) -> ModelCircuit:
    """Layers of exp(-i theta G), a free angle for each of the ``generators`` in each layer.

    With generators that commute with a symmetry this is an equivariant ansatz; `qtm.symmetry` symmetrises any
    generators.

    Args:
        generators: Sums of commuting Pauli strings with real coefficients, all on the same qubits.
        layers: Number of layers.

    Returns:
        `len(generators) * layers` variational parameters, in the order of the gates.

    Raises:
        CircuitError: ``layers`` is below 1, or there is no generator.
        ObservableError: A generator is not such a sum.

    Example:
        >>> from qiskit.quantum_info import SparsePauliOp
        >>> from qtm.circuits import generator_ansatz
        >>> everywhere = [SparsePauliOp(["IX", "XI"]), SparsePauliOp(["ZZ"])]
        >>> len(generator_ansatz(everywhere, layers=2).variational_params)
        4
    """
    check_sizes(layers=layers)
    if not generators:
        raise CircuitError("no generators; give at least one Pauli sum")
    for generator in generators:
        check_generator(generator, getattr(generators[0], "num_qubits", None))
    circuit, angles = QuantumCircuit(generators[0].num_qubits), _fresh_angles()
    for _ in range(layers):
        for generator in generators:
            circuit.append(PauliEvolutionGate(generator, next(angles)), range(circuit.num_qubits))
    return _in_circuit_order(circuit)


def check_generator(generator: SparsePauliOp, num_qubits: int | None) -> None:
    """Raise an error for a generator whose evolution is not the product of the exponentials of its terms.

    Raises:
        ObservableError: It is not a Pauli sum with real coefficients and commuting terms on ``num_qubits`` qubits.
    """
    if not isinstance(generator, SparsePauliOp):
        raise ObservableError(f"a generator is a qiskit SparsePauliOp, not {type(generator).__name__}")
    if generator.num_qubits != num_qubits:
        raise ObservableError(
            f"generators act on {num_qubits} and {generator.num_qubits} qubits; all must act on equally many"
        )
    if abs(generator.coeffs.imag).max() > 0:
        raise ObservableError("a generator has complex coefficients; it has to be Hermitian")
    for first, second in combinations(generator.paulis, 2):
        if not first.commutes(second):
            raise ObservableError(
                f"terms {first} and {second} of a generator do not commute, so a product of their exponentials is "
                "not the exponential of the sum; give them as separate generators"
            )


def _fresh_angles() -> Iterator[Parameter]:
    """An endless supply of new angles."""
    number = 0
    while True:
        yield Parameter(f"angle_{number:06d}")
        number += 1


def _in_circuit_order(circuit: QuantumCircuit) -> ModelCircuit:
    """The circuit with its angles, which were numbered in the order of the gates, as theta."""
    return as_ansatz(circuit, list(circuit.parameters))


def _rotate(
    circuit: QuantumCircuit, axes: str, angles: Iterator[Parameter], qubits: Sequence[int] | None = None
) -> None:
    for qubit in range(circuit.num_qubits) if qubits is None else qubits:
        for axis in axes:
            getattr(circuit, f"r{axis}")(next(angles), qubit)


def _entangle(
    circuit: QuantumCircuit, pairs: list[tuple[int, int]], entangler: str, angles: Iterator[Parameter]
) -> None:
    if entangler not in ENTANGLERS:
        raise CircuitError(f"unknown entangler {entangler!r}; use one of {', '.join(ENTANGLERS)}")
    for pair in pairs:
        free = [next(angles) for _ in range(ENTANGLERS[entangler])]
        getattr(circuit, entangler)(*free, *pair)
