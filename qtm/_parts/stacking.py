"""Parts stacked into one circuit with named sets of parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector

from qtm._errors import CircuitError, ParameterError
from qtm._parts.model_circuit import ModelCircuit, renamed_circuit

FEATURES = "x"
_VARIATIONAL, _SCALING = "variational", "scaling"
_ONES = ("constant", {"val": 1.0})


@dataclass(frozen=True)
class Part:
    """A circuit with its place in a stack: its features, its qubits, and the name of its parameter set.

    Attributes:
        model: A `ModelCircuit`, or a Qiskit circuit, all of whose parameters are trainable.
        name: The parameter set of its weights. Parts with the same name share their weights. None: a separate set,
            numbered in the order of the parts. Trainable scales are a set ``name_scaling``.
        features: For each encoding parameter, the index of its feature. None: 0, 1, 2, ...
        qubits: For each of its qubits, the qubit of the stack. None: 0, 1, 2, ...

    Example:
        >>> from qtm.circuits import Part, angle_encoding, stack
        >>> stacked = stack([Part(angle_encoding(2), features=[2, 3]), Part(angle_encoding(2), features=[0, 1])])
        >>> len(stacked.encoding_params)
        4
    """

    model: ModelCircuit | QuantumCircuit
    name: str | None = None
    features: Sequence[int] | None = None
    qubits: Sequence[int] | None = None


class StackedCircuit(NamedTuple):
    """One circuit made of parts.

    Attributes:
        circuit: The circuit.
        encoding_params: The features, `(features,)`.
        parameter_sets: Trainable parameters by the name of their set, in the order of the parts.
        scaling_sets: Names of the sets that hold factors of features.
    """

    circuit: QuantumCircuit
    encoding_params: list[Parameter]
    parameter_sets: dict[str, list[Parameter]]
    scaling_sets: frozenset[str]

    def initial_values(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Initial values of each set: as chosen by its name, else scales at 1 and angles uniformly from 0 to 2 pi.

        Raises:
            ParameterError: ``chosen`` names a set that does not exist.
        """
        if unknown := sorted(set(chosen) - set(self.parameter_sets)):
            raise ParameterError(f"no parameter sets {unknown}; there are {', '.join(self.parameter_sets) or 'none'}")
        kinds = {name: _ONES if name in self.scaling_sets else "uniform" for name in self.parameter_sets}
        return {**kinds, **chosen}


PartLike: TypeAlias = Part | ModelCircuit | QuantumCircuit


def stack(parts: Sequence[PartLike]) -> StackedCircuit:
    """Concatenate parts: encodings read the same features, every other part has its own weights.

    An encoding that is given twice uploads its features twice (data re-uploading). A part that is given twice
    is trained independently in both places, unless it is a `Part` with a name, whose weights are shared.

    Args:
        parts: Encodings, ansaetze, `Part` with options, or Qiskit circuits, whose parameters are all trainable.

    Returns:
        The circuit, its features and its named sets of weights: ``variational`` and ``scaling`` (numbered from 0
        if there are several), or the names given.

    Raises:
        CircuitError: There is no part, a part is not a circuit or does not fit the qubits.
        ParameterError: A feature is read by no part, or parts of one name differ in their number of weights.

    Example:
        >>> from qtm.circuits import angle_encoding, hardware_efficient_ansatz, stack
        >>> encoding, ansatz = angle_encoding(2, scaling=True), hardware_efficient_ansatz(2)
        >>> stacked = stack([encoding, ansatz, encoding, ansatz])
        >>> {name: len(params) for name, params in stacked.parameter_sets.items()}
        {'scaling_0': 2, 'variational_0': 4, 'scaling_1': 2, 'variational_1': 4}
    """
    placed = [_as_part(part) for part in parts]
    if not placed:
        raise CircuitError("no parts; give at least one circuit")
    names = _set_names(placed)
    features = ParameterVector(FEATURES, max(map(_features_needed, placed)))
    circuit = QuantumCircuit(max(map(_qubits_needed, placed)))
    sets: dict[str, ParameterVector] = {}
    read: set[int] = set()
    for part, own_names in zip(placed, names, strict=True):
        model, positions = _as_model(part.model), _positions(part)
        new = dict(zip(model.encoding_params, [features[i] for i in positions], strict=True))
        for name, params in zip(own_names, (model.variational_params, model.scaling_params), strict=True):
            new.update(zip(params, _weights(sets, name, len(params)), strict=True))
        qubits = range(circuit.num_qubits)[: model.circuit.num_qubits] if part.qubits is None else part.qubits
        circuit.compose(renamed_circuit(model.circuit, new), qubits=list(qubits), inplace=True)
        read.update(positions)
    if unread := sorted(set(range(len(features))) - read):
        raise ParameterError(f"no part reads the features {unread}; number them from 0 without gaps")
    scaling = {own[1] for part, own in zip(placed, names, strict=True) if _as_model(part.model).scaling_params}
    weights = {name: list(params) for name, params in sets.items()}
    return StackedCircuit(circuit, list(features), weights, frozenset(scaling))


def _as_part(part: PartLike) -> Part:
    part = part if isinstance(part, Part) else Part(part)
    if not isinstance(part.model, ModelCircuit | QuantumCircuit):
        raise CircuitError(
            f"{type(part.model).__name__} is not a part; give a ModelCircuit, a Part or a QuantumCircuit"
        )
    circuit = _as_model(part.model).circuit
    if part.qubits is not None and (
        len(part.qubits) != circuit.num_qubits or len(set(part.qubits)) != len(part.qubits) or min(part.qubits) < 0
    ):
        raise CircuitError(
            f"qubits={list(part.qubits)} does not place each of {circuit.num_qubits} qubits exactly once"
        )
    return part


def _as_model(model: ModelCircuit | QuantumCircuit) -> ModelCircuit:
    if isinstance(model, ModelCircuit):
        return model
    return ModelCircuit(model, ParameterVector("x", 0), list(model.parameters), ParameterVector("lambda", 0))


def _positions(part: Part) -> list[int]:
    count = len(_as_model(part.model).encoding_params)
    positions = list(range(count) if part.features is None else part.features)
    if len(positions) != count or any(i < 0 for i in positions):
        raise ParameterError(f"features={positions} does not give each of {count} encoding parameters a feature")
    return positions


def _features_needed(part: Part) -> int:
    return max(_positions(part), default=-1) + 1


def _qubits_needed(part: Part) -> int:
    return _as_model(part.model).circuit.num_qubits if part.qubits is None else max(part.qubits) + 1


def _set_names(parts: list[Part]) -> list[tuple[str, str]]:
    """Names of the variational and the scaling set of every part."""
    kinds = (_VARIATIONAL, _SCALING)
    counts = {
        kind: sum(part.name is None and bool(getattr(_as_model(part.model), f"{kind}_params")) for part in parts)
        for kind in kinds
    }
    numbers = dict.fromkeys(kinds, 0)
    names = []
    for part in parts:
        own = []
        for kind in kinds:
            used = bool(getattr(_as_model(part.model), f"{kind}_params"))
            own.append(kind if counts[kind] <= 1 else f"{kind}_{numbers[kind]}")
            numbers[kind] += used and part.name is None
        named = None if part.name is None else (part.name, f"{part.name}_{_SCALING}")
        names.append(named or (own[0], own[1]))
    return names


def _weights(sets: dict[str, ParameterVector], name: str, count: int) -> ParameterVector:
    """The parameters of a set; a new one unless a part before has the name."""
    if not count:
        return ParameterVector(name, 0)
    if name == FEATURES:
        raise ParameterError(f"the name {name!r} is reserved for the features; choose another name")
    weights = sets.setdefault(name, ParameterVector(name, count))
    if len(weights) != count:
        raise ParameterError(
            f"parts called {name!r} share their weights, but have {len(weights)} and {count}; give them different names"
        )
    return weights
