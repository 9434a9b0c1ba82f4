"""A circuit together with the roles of its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector

from qtm._errors import CircuitError


class ModelCircuit(NamedTuple):
    """A parameterised circuit and the roles of its parameters.

    Attributes:
        circuit: The circuit, without measurements.
        encoding_params: Parameters to which the features are bound, `(features,)`; empty without data.
        variational_params: Trainable rotation angles in radians, in circuit order.
        scaling_params: Trainable factors of the inputs, in circuit order; empty if inputs are not scaled.
    """

    circuit: QuantumCircuit
    encoding_params: ParameterVector
    variational_params: ParameterVector
    scaling_params: ParameterVector

    @property
    def trainable_params(self) -> list[Parameter]:
        """Variational, then scaling parameters: one combined set, as figure 1 of the paper trains it."""
        return [*self.variational_params, *self.scaling_params]


def check_sizes(**sizes: int) -> None:
    """Raise an error for a size below 1, naming its argument.

    Raises:
        CircuitError: A size is not an integer of at least 1.
    """
    for name, size in sizes.items():
        if size < 1:
            raise CircuitError(f"{name} is {size}; it must be at least 1")


def as_encoding(circuit: QuantumCircuit, parameters: Sequence[Parameter]) -> ModelCircuit:
    """A circuit without weights, whose ``parameters`` become the features x[0], x[1], ..."""
    features = ParameterVector("x", len(parameters))
    renamed = renamed_circuit(circuit, dict(zip(parameters, features, strict=True)))
    return ModelCircuit(renamed, features, ParameterVector("theta", 0), ParameterVector("lambda", 0))


def as_ansatz(circuit: QuantumCircuit, parameters: Sequence[Parameter]) -> ModelCircuit:
    """A circuit without data, whose ``parameters`` become the angles theta[0], theta[1], ..."""
    angles = ParameterVector("theta", len(parameters))
    renamed = renamed_circuit(circuit, dict(zip(parameters, angles, strict=True)))
    return ModelCircuit(renamed, ParameterVector("x", 0), angles, ParameterVector("lambda", 0))


def renamed_circuit(circuit: QuantumCircuit, new: dict[Parameter, Parameter]) -> QuantumCircuit:
    """A copy with parameters replaced; a new parameter may have the name of a replaced one."""
    # Qiskit does not allow two parameters of one name, even temporarily, so the intermediate step uses other names.
    between = {old: Parameter(f"_between_{position}") for position, old in enumerate(new)}
    named = circuit.assign_parameters(between)
    return named.assign_parameters({between[old]: parameter for old, parameter in new.items()})
