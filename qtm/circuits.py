"""Standard circuits: encodings and ansaetze to stack into models, and the circuits of the papers of `qtm bench`.

Every function returns a :class:`ModelCircuit`: a plain Qiskit circuit and the roles of its parameters.
`QuantumModule.from_parts` stacks parts into a module with a named parameter set for each; :func:`stack` returns the
circuit alone; :class:`Part` sets names, features and qubits, and shares weights.

| encoding | features become |
| --- | --- |
| `angle_encoding` | angles of rotations about any axes; with trainable factors for data re-uploading |
| `phase_encoding` | relative phases |
| `iqp_encoding` | phases, given by features and their products |
| `pauli_encoding` | angles of Qiskit's Pauli feature map: Z, ZZ, and any other |
| `amplitude_encoding` | amplitudes of the initial state, with exact gradients |

| ansatz | suited to |
| --- | --- |
| `hardware_efficient_ansatz` | any device; rotations, and entangling gates in any pattern |
| `brick_ansatz` | chains of qubits; causal cones grow by two qubits per layer |
| `strongly_entangling_ansatz` | entanglement over all distances |
| `hamming_weight_ansatz` | states with a fixed number of ones; trainable if that number is small |
| `alternating_operator_ansatz` | QAOA from a Pauli sum |
| `generator_ansatz` | evolutions under any Pauli sums; equivariant under their symmetries (`qtm.symmetry`) |

Complete circuits of the papers, where `n` is the argument `num_qubits` and `d` the argument `depth`:

| function | built for | parameters |
| --- | --- | --- |
| `reuploading_circuit` | figures 1, 2, 4 and table I of [1] | `n` features, `2n(d+1)` angles, `2nd` scales |
| `incremental_uploading_circuit` | table II of [1], from [2] | `num_features` features, `2n(d+1)` angles |
| `policy_circuit` | table III and figure 3 of [1], from [3] | as `reuploading_circuit` |
| `hardware_efficient_circuit` | figures 10 to 13 of [4] | `2n * layers` angles |

[1] N. Meyer et al., Qiskit-Torch-Module: Fast Prototyping of Quantum Neural Networks, arXiv:2404.06314.
[2] M. Periyasamy et al., Incremental Data-Uploading for Full-Quantum Classification, IEEE QCE (2022).
[3] N. Meyer et al., Quantum Policy Gradient Algorithm with Optimized Action Decoding, PMLR 202 (2023).
[4] M. Robbiati et al., Qiboml: towards the orchestration of quantum-classical machine learning (2025).
"""

from __future__ import annotations

from collections.abc import Callable

from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector

from qtm._errors import CircuitError
from qtm._parts.ansaetze import (
    alternating_operator_ansatz,
    brick_ansatz,
    generator_ansatz,
    hamming_weight_ansatz,
    hardware_efficient_ansatz,
    strongly_entangling_ansatz,
)
from qtm._parts.encodings import (
    amplitude_encoding,
    angle_encoding,
    iqp_encoding,
    pauli_encoding,
    phase_encoding,
)
from qtm._parts.entanglement import PATTERNS, entangled_pairs
from qtm._parts.model_circuit import ModelCircuit, check_sizes
from qtm._parts.stacking import Part, StackedCircuit, stack

__all__ = [
    "ENTANGLEMENT_PATTERNS",
    "ModelCircuit",
    "Part",
    "StackedCircuit",
    "alternating_operator_ansatz",
    "amplitude_encoding",
    "angle_encoding",
    "brick_ansatz",
    "generator_ansatz",
    "hamming_weight_ansatz",
    "hardware_efficient_ansatz",
    "hardware_efficient_circuit",
    "incremental_uploading_circuit",
    "iqp_encoding",
    "pauli_encoding",
    "phase_encoding",
    "policy_circuit",
    "reuploading_circuit",
    "stack",
    "strongly_entangling_ansatz",
]

#: Names of entanglement patterns.
ENTANGLEMENT_PATTERNS = tuple(PATTERNS)

Layer = Callable[[QuantumCircuit], None]


def reuploading_circuit(num_qubits: int, depth: int, input_scaling: bool = True) -> ModelCircuit:
    """Data re-uploading with trainable input scaling: the circuit of figures 1, 2, 4 and table I.

    Hadamards on all qubits; then `depth` times RZ RY with free angles on every qubit, a ring of CX gates
    (a chain and, from 3 qubits on, the gate that closes it), and RY RZ by `scale * x[q]` on qubit `q`;
    then RZ RY with free angles once more (eq. 7 of the paper).

    Args:
        num_qubits: Number of qubits `n` = number of input features.
        depth: Number of layers `d`.
        input_scaling: Multiply inputs by trainable scales, one per encoding rotation.

    Returns:
        `n` encoding, `2n(d+1)` variational and `2nd` scaling parameters (none without `input_scaling`):
        12 qubits of depth 3 have 96 + 72 = 168 weights, as the paper states.

    Raises:
        CircuitError: A size is below 1.

    Example:
        >>> model = reuploading_circuit(num_qubits=12, depth=3)
        >>> len(model.encoding_params), len(model.trainable_params)
        (12, 168)
    """
    return _reuploading(num_qubits, depth, input_scaling, _cx_ring)


def policy_circuit(num_qubits: int = 4, depth: int = 1) -> ModelCircuit:
    """Policy of the quantum policy gradient on CartPole: table III and figure 3.

    As :func:`reuploading_circuit` with scaled inputs, but with a CZ gate between every pair of qubits instead
    of the CX ring. The policy is read from the expectation value of Z on all qubits, `(1 +- <ZZZZ>) / 2`.

    Args:
        num_qubits: Number of qubits `n` = number of observed quantities (CartPole: 4).
        depth: Number of layers `d`.

    Returns:
        `n` encoding, `2n(d+1)` variational (theta) and `2nd` scaling (lambda) parameters; 4, 16 and 8
        by default. The trainable sets are separate so that each can have its own learning rate (figure 3).

    Raises:
        CircuitError: A size is below 1.

    Example:
        >>> model = policy_circuit()
        >>> len(model.variational_params), len(model.scaling_params)
        (16, 8)
    """
    return _reuploading(num_qubits, depth, True, _cz_all_pairs)


def incremental_uploading_circuit(num_qubits: int = 10, depth: int = 10, num_features: int = 100) -> ModelCircuit:
    """Full-quantum classifier that uploads an image `num_qubits` pixels at a time: table II.

    Hadamards on all qubits; then `depth` times RZ RY with free angles on every qubit, a ring of CX gates and
    RX(x) with the next `num_qubits` features, one per qubit; then RZ RY with free angles once more. RX gates for
    which no feature is left are omitted.

    Args:
        num_qubits: Number of qubits `n`.
        depth: Number of layers `d`.
        num_features: Number of input features, at most `n * d`; 100 is an image of 10 x 10 pixels.

    Returns:
        `num_features` encoding and `2n(d+1)` variational parameters: 100 and 220 by default, as in the paper.

    Raises:
        CircuitError: A size is below 1, or the features do not fit the circuit.

    Example:
        >>> model = incremental_uploading_circuit()
        >>> len(model.encoding_params), len(model.trainable_params)
        (100, 220)
    """
    check_sizes(num_qubits=num_qubits, depth=depth, num_features=num_features)
    if num_features > num_qubits * depth:
        raise CircuitError(
            f"{num_features} features do not fit {depth} layers of {num_qubits} qubits, "
            f"which take at most {num_qubits * depth}; use more qubits, more layers or fewer features"
        )
    features = ParameterVector("x", num_features)

    def encoder(layer: int) -> Layer:
        def encode(circuit: QuantumCircuit) -> None:
            start = layer * num_qubits
            for qubit, feature in enumerate(features[start : start + num_qubits]):
                circuit.rx(feature, qubit)

        return encode

    circuit, angles = _layered(num_qubits, [encoder(layer) for layer in range(depth)], _cx_ring)
    return ModelCircuit(circuit, features, angles, ParameterVector("lambda", 0))


def hardware_efficient_circuit(num_qubits: int, layers: int) -> ModelCircuit:
    """Hardware-efficient ansatz of the VQE benchmark: figures 10 to 13 of the Qiboml paper.

    From the all-zero state, `layers` times RY RZ with free angles on every qubit and a ring of CX gates.

    Args:
        num_qubits: Number of qubits `n`.
        layers: Number of layers.

    Returns:
        `2n * layers` variational parameters; no encoding and no scaling parameters.

    Raises:
        CircuitError: A size is below 1.

    Example:
        >>> len(hardware_efficient_circuit(num_qubits=16, layers=3).variational_params)
        96
    """
    check_sizes(num_qubits=num_qubits, layers=layers)
    circuit = QuantumCircuit(num_qubits)
    angles = ParameterVector("theta", 2 * num_qubits * layers)
    free = iter(angles)
    for _ in range(layers):
        for qubit in range(num_qubits):
            circuit.ry(next(free), qubit)
            circuit.rz(next(free), qubit)
        _cx_ring(circuit)
    return ModelCircuit(circuit, ParameterVector("x", 0), angles, ParameterVector("lambda", 0))


def _reuploading(num_qubits: int, depth: int, input_scaling: bool, entangle: Layer) -> ModelCircuit:
    """Circuit that encodes the same `num_qubits` features in every layer."""
    check_sizes(num_qubits=num_qubits, depth=depth)
    features = ParameterVector("x", num_qubits)
    scales = ParameterVector("lambda", 2 * num_qubits * depth if input_scaling else 0)
    factors = iter(scales)

    def encode(circuit: QuantumCircuit) -> None:
        for qubit, feature in enumerate(features):
            circuit.ry(next(factors) * feature if input_scaling else feature, qubit)
            circuit.rz(next(factors) * feature if input_scaling else feature, qubit)

    circuit, angles = _layered(num_qubits, [encode] * depth, entangle)
    return ModelCircuit(circuit, features, angles, scales)


def _layered(num_qubits: int, encoders: list[Layer], entangle: Layer) -> tuple[QuantumCircuit, ParameterVector]:
    """Hadamards, then (free rotations, entangle, encode) per encoder, then free rotations."""
    circuit = QuantumCircuit(num_qubits)
    angles = ParameterVector("theta", 2 * num_qubits * (len(encoders) + 1))
    free = iter(angles)

    def rotate() -> None:
        for qubit in range(num_qubits):
            circuit.rz(next(free), qubit)
            circuit.ry(next(free), qubit)

    circuit.h(range(num_qubits))
    for encode in encoders:
        rotate()
        entangle(circuit)
        encode(circuit)
    rotate()
    return circuit, angles


def _cx_ring(circuit: QuantumCircuit) -> None:
    for pair in entangled_pairs("ring", circuit.num_qubits):
        circuit.cx(*pair)


def _cz_all_pairs(circuit: QuantumCircuit) -> None:
    for pair in entangled_pairs("full", circuit.num_qubits):
        circuit.cz(*pair)
