"""The network of an estimator: a classical encoder, a circuit made of parts, and a map to the outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from qtm._errors import ParameterError
from qtm._parts.model_circuit import check_sizes
from qtm.circuits import (
    ModelCircuit,
    Part,
    amplitude_encoding,
    angle_encoding,
    brick_ansatz,
    hamming_weight_ansatz,
    hardware_efficient_ansatz,
    iqp_encoding,
    pauli_encoding,
    phase_encoding,
    strongly_entangling_ansatz,
)
from qtm.modules import QuantumModule

# By name, for as many qubits as features. "reuploading" has trainable factors.
ENCODINGS: dict[str, Callable[[int], ModelCircuit]] = {
    "angle": angle_encoding,
    "reuploading": lambda size: angle_encoding(size, "yz", scaling=True),
    "phase": phase_encoding,
    "iqp": iqp_encoding,
    "zz": pauli_encoding,
}
ANSAETZE: dict[str, Callable[[int], ModelCircuit]] = {
    "hardware_efficient": hardware_efficient_ansatz,
    "brick": lambda size: brick_ansatz(size, layers=2),
    "strongly_entangling": strongly_entangling_ansatz,
    "hamming_weight": hamming_weight_ansatz,
}
HEADS = ("linear", "scaled")
# Default maximum number of qubits, one for each feature.
DEFAULT_QUBITS = 8

Named = str | ModelCircuit | Callable[[int], ModelCircuit] | None


def build_network(
    num_features: int,
    num_outputs: int,
    *,
    num_qubits: int | None,
    layers: int,
    encoding: Any,
    ansatz: Any,
    encoder: Any,
    head: str,
    output_scale: float,
    seed: int,
    **module_options: Any,
) -> Network:
    """The network that the arguments of an estimator describe, with initial values drawn from ``seed``.

    Raises:
        ParameterError: an argument is unknown or does not fit the others.
        CircuitError: a size is unusable.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        front, width = classical_encoder(encoder, num_features, _num_angles(num_qubits, num_features, encoding))
        parts = circuit_parts(width, num_qubits, layers, encoding, ansatz)
        quantum = QuantumModule.from_parts(parts, **module_options)
        return Network(front, quantum, output_map(head, quantum.output_size, num_outputs, output_scale))


class Network(nn.Module):
    """Classical encoder, circuit, output map: inputs (batch, features), outputs (batch, outputs)."""

    def __init__(self, encoder: nn.Module, quantum: QuantumModule, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.quantum, self.head = encoder, quantum, head

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs (batch, outputs) of inputs (batch, features)."""
        outputs: Tensor = self.head(self.quantum(self.encoder(inputs)))
        return outputs


class _ScaledOutputs(nn.Module):
    """The first expectation values, each times a trainable factor, plus a trainable offset."""

    def __init__(self, num_outputs: int, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((num_outputs,), scale))
        self.offset = nn.Parameter(torch.zeros(num_outputs))

    def forward(self, values: Tensor) -> Tensor:
        return self.scale * values[:, : len(self.scale)] + self.offset


class _AsAngles(nn.Module):
    """Numbers (batch, angles) as angles between -pi and pi."""

    def forward(self, values: Tensor) -> Tensor:
        return torch.pi * torch.tanh(values)


def circuit_parts(num_features: int, num_qubits: int | None, layers: int, encoding: Named, ansatz: Named) -> list[Part]:
    """Encodings and ansaetze in turn; all features are uploaded ``layers`` times, ``num_qubits`` of them at a time.

    Raises:
        ParameterError: an encoding or ansatz is unknown, or does not fit the features.
    """
    if num_qubits is not None:
        check_sizes(num_qubits=num_qubits)
    if isinstance(encoding, ModelCircuit):
        whole = Part(_of_features(encoding, num_features))
        return _repeated([whole], encoding.circuit.num_qubits, layers, ansatz)
    if encoding == "amplitude":
        first = Part(amplitude_encoding(num_features, num_qubits))
        rest = _ansatz_parts(ansatz, first.model.circuit.num_qubits)
        return [first, *rest * layers]
    num_qubits = num_qubits or min(num_features, DEFAULT_QUBITS)
    build = _chosen(encoding, ENCODINGS, "encoding", ', "amplitude"')
    chunks = [range(start, min(start + num_qubits, num_features)) for start in range(0, num_features, num_qubits)]
    uploads = [Part(_of_features(build(len(chunk)), len(chunk)), features=chunk) for chunk in chunks]
    return _repeated(uploads, num_qubits, layers, ansatz)


def _repeated(uploads: list[Part], num_qubits: int, layers: int, ansatz: Named) -> list[Part]:
    between = _ansatz_parts(ansatz, num_qubits)
    return [part for upload in uploads * layers for part in (upload, *between)]


def _ansatz_parts(ansatz: Named, num_qubits: int) -> list[Part]:
    if ansatz is None:
        return []
    if isinstance(ansatz, ModelCircuit):
        return [Part(ansatz)]
    return [Part(_chosen(ansatz, ANSAETZE, "ansatz", "")(num_qubits))]


def _chosen(chosen: Any, known: dict[str, Callable[[int], ModelCircuit]], what: str, more: str) -> Any:
    if isinstance(chosen, str) and chosen in known:
        return known[chosen]
    if not callable(chosen):
        raise ParameterError(
            f"unknown {what} {chosen!r}; use one of {', '.join(map(repr, known))}{more}, a ModelCircuit, or a function "
            "of a number of qubits that gives a ModelCircuit"
        )
    return chosen


def _of_features(encoding: ModelCircuit, num_features: int) -> ModelCircuit:
    if not isinstance(encoding, ModelCircuit) or len(encoding.encoding_params) != num_features:
        size = len(encoding.encoding_params) if isinstance(encoding, ModelCircuit) else type(encoding).__name__
        raise ParameterError(f"the encoding takes {size}, the data have {num_features} features; set encoder= to adapt")
    return encoding


def _num_angles(num_qubits: int | None, num_features: int, encoding: Named) -> int:
    """Number of features to request from a classical encoder."""
    if isinstance(encoding, ModelCircuit):
        return len(encoding.encoding_params)
    if encoding == "amplitude":
        return 2 ** (num_qubits or (num_features - 1).bit_length())
    return num_qubits or min(num_features, DEFAULT_QUBITS)


def classical_encoder(encoder: Any, num_features: int, num_angles: int) -> tuple[nn.Module, int]:
    """The network in front of the circuit, and its number of outputs.

    Raises:
        ParameterError: ``encoder`` is not one of its forms.
    """
    if encoder is None:
        return nn.Identity(), num_features
    if isinstance(encoder, int) and not isinstance(encoder, bool):
        encoder = (encoder,)
    if not isinstance(encoder, Sequence) or not all(isinstance(width, int) and width > 0 for width in encoder):
        raise ParameterError(
            f"encoder={encoder!r}; expected None, the width of a hidden layer, or a tuple of such widths (empty: a "
            "linear layer)"
        )
    widths = [num_features, *encoder, num_angles]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1], _AsAngles()), num_angles


def output_map(head: str, num_values: int, num_outputs: int, scale: float) -> nn.Module:
    """Expectation values (batch, num_values) to outputs (batch, num_outputs).

    Raises:
        ParameterError: ``head`` is unknown, or has too few values.
    """
    if head not in HEADS:
        raise ParameterError(f"unknown head {head!r}; use one of {', '.join(map(repr, HEADS))}")
    if head == "linear":
        return nn.Linear(num_values, num_outputs)
    if num_outputs > num_values:
        raise ParameterError(
            f"head='scaled' reads each of {num_outputs} outputs off a qubit of its own, and there are {num_values}; "
            "use more qubits or head='linear'"
        )
    return _ScaledOutputs(num_outputs, scale)
