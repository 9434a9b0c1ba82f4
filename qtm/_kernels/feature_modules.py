"""What kernels compare: the states, or the expectation values, of a feature map."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import pi
from typing import Any

import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from qtm._arguments import checked_seed, shown
from qtm._engines.options import Options
from qtm._engines.outputs import State
from qtm._engines.simulation import Simulation
from qtm._errors import CircuitError, ParameterError, ShapeError
from qtm._gradients.adjoint import EngineMethod
from qtm._gradients.method import GradientMethod
from qtm._parts.model_circuit import ModelCircuit
from qtm._parts.stacking import StackedCircuit
from qtm._torch.autograd import complex_name
from qtm.modules import QuantumModule


class StateModule(QuantumModule):
    """A module whose outputs are the amplitudes of the final state."""

    def _method(self, dtype: torch.dtype) -> GradientMethod:
        name = complex_name(dtype)
        if name not in self._methods:
            given = self._settings
            options = Options(name, given.threads_forward, backward_threads=given.threads_backward, method=given.method)
            simulation = Simulation(given.circuit, given.parameters, State(), options)
            self._methods[name] = EngineMethod(simulation, 1 << given.circuit.num_qubits)
        return self._methods[name]


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

    def initial(self, chosen: Any, seed: int | None) -> Any:
        """Initial values of ``trained``: as chosen, but by default scales at 1."""
        if chosen is not None:
            return chosen
        generator = None if seed is None else torch.Generator().manual_seed(checked_seed(seed, "seed_init"))
        angles = 2 * pi * torch.rand(len(self.trained), generator=generator)
        return torch.tensor([1.0 if p in self.scales else a for p, a in zip(self.trained, angles, strict=True)])


def read_feature_map(feature_map: Any, training_parameters: Any) -> FeatureMap:
    """The circuit, the parameters of the features, and those to train.

    Raises:
        CircuitError: the feature map is no circuit.
        ParameterError: a parameter to train is not in the circuit, or listed twice.
        ShapeError: no parameter is left for features.
    """
    if isinstance(feature_map, ModelCircuit | StackedCircuit):
        if training_parameters is not None:
            raise ParameterError(
                f"a {type(feature_map).__name__} says which of its parameters are trained; leave training_parameters "
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
