"""Encodings: circuits whose parameters are the features of a sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Instruction, ParameterExpression, ParameterVector
from qiskit.circuit.library import StatePreparation, pauli_feature_map

from qtm._errors import CircuitError
from qtm._parts.entanglement import Entanglement, entangled_pairs
from qtm._parts.model_circuit import ModelCircuit, as_encoding, check_sizes

_NO_ANGLES = ParameterVector("theta", 0)
_NO_SCALES = ParameterVector("lambda", 0)


def angle_encoding(num_qubits: int, axes: str = "y", *, scaling: bool = False, hadamards: bool = False) -> ModelCircuit:
    """Rotate qubit q by feature q, about one or several axes.

    Args:
        num_qubits: Number of qubits = number of features.
        axes: Letters of "xyz": the axes of the rotations of each qubit, in the order of the gates. Angles are
            features, in radians.
        scaling: Multiply the feature of every rotation by a trainable factor. Repeated between ansaetze this is
            data re-uploading (A. Perez-Salinas et al., Quantum 4, 226 (2020)).
        hadamards: Start with a Hadamard gate on every qubit; without it, "z" has no effect on the state 0.

    Returns:
        `n` encoding and, with ``scaling``, `n * len(axes)` scaling parameters.

    Raises:
        CircuitError: ``num_qubits`` is below 1, or ``axes`` has a letter other than x, y, z.

    Example:
        >>> from qtm.circuits import angle_encoding
        >>> dict(angle_encoding(3, "yz", scaling=True).circuit.count_ops())
        {'ry': 3, 'rz': 3}
    """
    check_sizes(num_qubits=num_qubits)
    check_axes(axes)
    features = ParameterVector("x", num_qubits)
    scales = ParameterVector("lambda", num_qubits * len(axes)) if scaling else _NO_SCALES
    factors = iter(scales)
    circuit = QuantumCircuit(num_qubits)
    if hadamards:
        circuit.h(range(num_qubits))
    for qubit, feature in enumerate(features):
        for axis in axes:
            getattr(circuit, f"r{axis}")(next(factors) * feature if scaling else feature, qubit)
    return ModelCircuit(circuit, features, _NO_ANGLES, scales)


def phase_encoding(num_qubits: int, *, scaling: bool = False) -> ModelCircuit:
    """Feature q as the relative phase of qubit q: a Hadamard gate and P(x[q]).

    Args:
        num_qubits: Number of qubits = number of features.
        scaling: Multiply every feature by a trainable factor.

    Returns:
        `n` encoding and, with ``scaling``, `n` scaling parameters.

    Raises:
        CircuitError: ``num_qubits`` is below 1.

    Example:
        >>> from qtm.circuits import phase_encoding
        >>> len(phase_encoding(3).encoding_params)
        3
    """
    check_sizes(num_qubits=num_qubits)
    features = ParameterVector("x", num_qubits)
    scales = ParameterVector("lambda", num_qubits) if scaling else _NO_SCALES
    circuit = QuantumCircuit(num_qubits)
    circuit.h(range(num_qubits))
    for qubit, feature in enumerate(features):
        circuit.p(scales[qubit] * feature if scaling else feature, qubit)
    return ModelCircuit(circuit, features, _NO_ANGLES, scales)


def iqp_encoding(num_qubits: int, repetitions: int = 1, entanglement: Entanglement = "full") -> ModelCircuit:
    """Instantaneous quantum polynomial circuit: Hadamards, RZ(x[q]) and RZZ(x[q] x[r]), ``repetitions`` times.

    V. Havlicek et al., Nature 567, 209 (2019), with angles as in the IQP encodings of later work.

    Args:
        num_qubits: Number of qubits = number of features.
        repetitions: Number of repetitions; one is easy to simulate classically, two are believed to be hard.
        entanglement: Pairs of qubits with an RZZ gate, see :data:`ENTANGLEMENT_PATTERNS`.

    Returns:
        `n` encoding parameters.

    Raises:
        CircuitError: A size is below 1, or the pattern is unknown.

    Example:
        >>> from qtm.circuits import iqp_encoding
        >>> dict(iqp_encoding(3).circuit.count_ops())
        {'h': 3, 'rz': 3, 'rzz': 3}
    """
    check_sizes(num_qubits=num_qubits, repetitions=repetitions)
    features = ParameterVector("x", num_qubits)
    circuit = QuantumCircuit(num_qubits)
    for repetition in range(repetitions):
        circuit.h(range(num_qubits))
        for qubit, feature in enumerate(features):
            circuit.rz(feature, qubit)
        for first, second in entangled_pairs(entanglement, num_qubits, repetition):
            circuit.rzz(features[first] * features[second], first, second)
    return ModelCircuit(circuit, features, _NO_ANGLES, _NO_SCALES)


def pauli_encoding(
    num_qubits: int, paulis: Sequence[str] = ("Z", "ZZ"), repetitions: int = 2, entanglement: str = "full"
) -> ModelCircuit:
    """Qiskit's Pauli feature map; with the default Paulis its ZZ feature map, with ``["Z"]`` its Z feature map.

    Args:
        num_qubits: Number of qubits = number of features.
        paulis: Pauli strings whose evolutions encode products of features, as for Qiskit's `pauli_feature_map`;
            strings of more letters than there are qubits are left out.
        repetitions: Number of repetitions of the map.
        entanglement: Qubits of the strings with several letters, as for Qiskit's `pauli_feature_map`.

    Returns:
        `n` encoding parameters.

    Raises:
        CircuitError: A size is below 1, or no string fits the qubits.

    Example:
        >>> from qtm.circuits import pauli_encoding
        >>> dict(pauli_encoding(2, ["Z"], repetitions=1).circuit.count_ops())
        {'h': 2, 'p': 2}
    """
    check_sizes(num_qubits=num_qubits, repetitions=repetitions)
    fitting = [pauli for pauli in paulis if len(pauli) <= num_qubits]
    if not fitting:
        raise CircuitError(f"none of the strings {list(paulis)} fits {num_qubits} qubits; give a shorter one")
    circuit = pauli_feature_map(num_qubits, reps=repetitions, entanglement=entanglement, paulis=fitting)
    return as_encoding(circuit, list(circuit.parameters))


def amplitude_encoding(num_features: int, num_qubits: int | None = None) -> ModelCircuit:
    """Features as the amplitudes of the initial state, divided by their norm; missing ones are zero.

    Must be the first part of a circuit. Values and gradients with respect to the features are exact, including the
    normalisation.

    Args:
        num_features: Number of features, at most `2**num_qubits`.
        num_qubits: Number of qubits; by default the smallest that holds the features.

    Returns:
        ``num_features`` encoding parameters. A sample whose features are all 0 has no state.

    Raises:
        CircuitError: A size is below 1, or the features do not fit the qubits.

    Example:
        >>> from qtm.circuits import amplitude_encoding
        >>> amplitude_encoding(5).circuit.num_qubits
        3
    """
    check_sizes(num_features=num_features)
    num_qubits = max(1, (num_features - 1).bit_length()) if num_qubits is None else num_qubits
    check_sizes(num_qubits=num_qubits)
    if num_features > 2**num_qubits:
        raise CircuitError(f"{num_features} features do not fit the {2**num_qubits} amplitudes of {num_qubits} qubits")
    features = ParameterVector("x", num_features)
    circuit = QuantumCircuit(num_qubits)
    zeros = [0.0] * (2**num_qubits - num_features)
    circuit.append(_NormalizedAmplitudes(num_qubits, [*features, *zeros]), range(num_qubits))
    return ModelCircuit(circuit, features, _NO_ANGLES, _NO_SCALES)


class _NormalizedAmplitudes(Instruction):
    """Prepares the state with these amplitudes, normalised, on qubits in state 0."""

    def __init__(self, num_qubits: int, amplitudes: Sequence[ParameterExpression | float]) -> None:
        # The name under which the simulators of qtm recognise unnormalised amplitudes.
        super().__init__("ParameterizedInitialize", num_qubits, 0, list(amplitudes))

    def _define(self) -> None:
        """Gates, once all amplitudes are numbers; Qiskit needs them to simulate, draw or transpile."""
        free = sorted({p.name for a in self.params if isinstance(a, ParameterExpression) for p in a.parameters})
        if free:
            raise CircuitError(f"amplitudes {', '.join(free)} have no value yet; bind them before the gates are needed")
        values = np.array([float(a) for a in self.params])
        norm = np.linalg.norm(values)
        if not np.isfinite(norm) or norm == 0:
            raise CircuitError(f"the norm of the amplitudes is {norm}; they cannot be normalised")
        definition = QuantumCircuit(self.num_qubits)
        definition.append(StatePreparation(values / norm), range(self.num_qubits))
        self.definition = definition


def check_axes(axes: str) -> None:
    """Raise an error for rotation axes other than x, y, z.

    Raises:
        CircuitError: ``axes`` is empty or has another letter.
    """
    if not axes or set(axes) - set("xyz"):
        raise CircuitError(f"axes are {axes!r}; expected letters of 'xyz', as in 'y' or 'yz'")
