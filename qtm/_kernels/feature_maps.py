"""Feature maps: circuits whose parameters are features or trained weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from torch import Tensor

from qtm._arguments import shown
from qtm._errors import CircuitError, ParameterError, ShapeError
from qtm._parts.model_circuit import ModelCircuit
from qtm._parts.stacking import StackedCircuit
from qtm._primitives.job_usage import Usage
from qtm._torch.parameter_sets import ParameterSets, initial_values
from qtm.modules import QuantumModule


@dataclass(frozen=True)
class FeatureMap:
    """A circuit and the roles of its parameters.

    Attributes:
        circuit: the circuit.
        features: parameters that samples are bound to, in order.
        trained: parameters to train, in order.
        scales: those of ``trained`` that are factors of features, and start at 1.
    """

    circuit: QuantumCircuit
    features: list[Parameter]
    trained: list[Parameter]
    scales: frozenset[Parameter] = frozenset()

    def initial(self, chosen: Any, seed: int | None) -> Tensor:
        """Initial values (trained,): as chosen, and by default scales at 1, angles from 0 to 2 pi."""
        sets = ParameterSets(self.circuit, self.features, self.trained, None)
        values = initial_values(sets, "uniform" if chosen is None else chosen, seed)[0]
        if chosen is None:
            values[[p in self.scales for p in self.trained]] = 1.0
        return values


class Features:
    """The outputs of a `QuantumModule`, which a kernel compares, as a function of samples and weights."""

    def __init__(self, feature_map: FeatureMap, **settings: Any) -> None:
        self.module = QuantumModule(feature_map.circuit, feature_map.features, feature_map.trained, **settings)

    def __call__(self, weights: Tensor, samples: Tensor) -> Tensor:
        """Features (samples, outputs) of samples (samples, features), at weights (weights,)."""
        found: Tensor = torch.func.functional_call(self.module, {"variational": weights}, (samples,))
        return found

    @property
    def usage(self) -> Usage:
        """Usage of the estimator."""
        return self.module.usage


def read_feature_map(feature_map: Any, training_parameters: Any) -> FeatureMap:
    """The circuit, the parameters of the features, and those to train.

    Raises:
        CircuitError: the feature map is not a circuit.
        ParameterError: a parameter to train is not in the circuit, or listed twice.
        ShapeError: no parameter is left for features.
    """
    if isinstance(feature_map, ModelCircuit | StackedCircuit):
        if training_parameters is not None:
            raise ParameterError(
                f"a {type(feature_map).__name__} defines which parameters are trained; leave training_parameters "
                "out, or give its circuit alone"
            )
        return _of_model(feature_map)
    if not isinstance(feature_map, QuantumCircuit):
        raise CircuitError(
            f"feature_map must be a circuit, not {shown(feature_map)}; give a qiskit.QuantumCircuit, such as "
            "qiskit.circuit.library.zz_feature_map(4), or a circuit of qtm.circuits"
        )
    trained = _listed(training_parameters)
    if unknown := [str(p) for p in trained if p not in set(feature_map.parameters)]:
        raise ParameterError(f"training_parameters that are not in the feature map: {', '.join(unknown)}")
    if len(set(trained)) < len(trained):
        raise ParameterError("a parameter is listed twice in training_parameters; list each once")
    return _checked(FeatureMap(feature_map, [p for p in feature_map.parameters if p not in set(trained)], trained))


def _of_model(model: ModelCircuit | StackedCircuit) -> FeatureMap:
    features = list(model.encoding_params)
    if isinstance(model, ModelCircuit):
        return _checked(FeatureMap(model.circuit, features, model.trainable_params, frozenset(model.scaling_params)))
    sets = model.parameter_sets
    trained = [p for parameters in sets.values() for p in parameters]
    scales = frozenset(p for name in model.scaling_sets for p in sets[name])
    return _checked(FeatureMap(model.circuit, features, trained, scales))


def _checked(found: FeatureMap) -> FeatureMap:
    if not found.features:
        raise ShapeError("the feature map has no parameter for features of samples; encode at least one feature")
    return found


def _listed(parameters: Any) -> list[Parameter]:
    if parameters is None:
        return []
    if isinstance(parameters, str) or not isinstance(parameters, Iterable):
        raise ParameterError(
            f"training_parameters must be a list of circuit parameters, not {shown(parameters)}; give some of "
            "feature_map.parameters"
        )
    return list(parameters)


def local_paulis(num_qubits: int) -> list[str]:
    """X, Y and Z on every qubit: the Bloch vectors of all single-qubit density matrices."""
    return [pauli.rjust(q + 1, "I").ljust(num_qubits, "I")[::-1] for q in range(num_qubits) for pauli in "XYZ"]
