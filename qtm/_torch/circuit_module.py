"""Common properties of modules of circuits: sizes, parameters, threads, usage."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from torch import Tensor, nn

from qtm._gradients.method import GradientMethod
from qtm._gradients.settings import MethodSettings
from qtm._primitives.job_usage import Usage
from qtm._torch.compiled_modules import new_name
from qtm._torch.parameter_sets import ParameterSets
from qtm._torch.repeated_calls import RepeatedCalls


class CircuitModule(nn.Module):
    """Sizes, parameters, threads and usage of a module; a subclass creates its settings and parameter sets."""

    _settings: MethodSettings
    _sets: ParameterSets
    _methods: dict[tuple[torch.dtype, str], GradientMethod]  # by dtype, and type of device
    _repeated: RepeatedCalls
    _output_size: int
    _operator_name: str | None  # name of the module as an operator in compiled graphs
    _is_real: bool

    @abstractmethod
    def _values_at(self, inputs: Tensor | None, sets: Sequence[Tensor]) -> Tensor:
        """Outputs (batch, outputs) of inputs (batch, inputs), if any, and of the parameter sets."""

    def _own_sets(self) -> list[Tensor]:
        """The parameter sets, in order."""
        # Not by attribute, whose look-up in a module takes half a microsecond; a parametrized set is an attribute only.
        registered: Any = self._parameters
        try:
            return [registered[name] for name in self._sets.names]
        except KeyError:
            return [getattr(self, name) for name in self._sets.names]

    def _outputs(self, inputs: Tensor | None, sets: Sequence[Tensor]) -> Tensor:
        """The same, traceable: one operator while torch compiles."""
        if not torch.compiler.is_compiling():
            return self._values_at(inputs, sets)
        if self._operator_name is None or torch.autograd.forward_ad._current_level >= 0:
            return torch.compiler.disable(self._values_at)(inputs, sets)
        # Imported here: defining an operator takes time, and most processes compile nothing.
        from qtm._torch.operators import outputs

        by = [False if inputs is None else inputs.requires_grad, *(s.requires_grad for s in sets)]
        by = by if torch.is_grad_enabled() else [False] * len(by)
        return outputs(self._operator_name, inputs, list(sets), by)[0]

    def _set_operator_name(self, is_operator: bool) -> None:
        """Give the module an operator name if equal calls give equal values, as compilers assume."""
        self._operator_name = new_name(self) if is_operator else None

    def __getstate__(self) -> dict[str, Any]:
        # Methods hold compiled plans and buffers; they are rebuilt on demand.
        return {**self.__dict__, "_methods": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._set_operator_name(state.get("_operator_name") is not None)

    def set_num_threads_forward(self, num_threads: int) -> None:
        """Set the number of threads of the forward pass; 0 means all cores."""
        self._set_threads(num_threads, self.num_threads_backward)

    def set_num_threads_backward(self, num_threads: int) -> None:
        """Set the number of threads of the backward pass; 0 means all cores."""
        self._set_threads(self.num_threads_forward, num_threads)

    def _set_threads(self, forward: int, backward: int) -> None:
        self._settings = self._settings.with_threads(forward, backward)
        self._methods = {}
        self._repeated.forget()

    @property
    def num_threads_forward(self) -> int:
        """Threads of the forward pass; 0 means all cores."""
        return self._settings.threads_forward

    @property
    def num_threads_backward(self) -> int:
        """Threads of the backward pass; 0 means all cores."""
        return self._settings.threads_backward

    @property
    def variational_(self) -> list[nn.Parameter]:
        """The trainable parameter sets, in order."""
        return [getattr(self, name) for name in self._sets.names]

    @property
    def num_trainable_parameters(self) -> int:
        """Number of trainable parameters in all sets."""
        return sum(p.numel() for p in self.variational_)

    @property
    def input_size(self) -> int:
        """Number of encoding parameters."""
        return len(self._sets.encoding)

    @property
    def output_size(self) -> int:
        """Number of outputs: of observables, outcomes or amplitudes."""
        return self._output_size

    @property
    def circuit(self) -> QuantumCircuit:
        """A copy of the circuit that was passed in."""
        return self._settings.circuit

    @property
    def encoding_parameters(self) -> tuple[Parameter, ...]:
        """Circuit parameters to which the inputs are bound, in order."""
        return self._sets.encoding

    @property
    def variational_parameters(self) -> tuple[tuple[Parameter, ...], ...]:
        """Circuit parameters of every trainable set, in order."""
        return self._sets.sets

    @property
    def usage(self) -> Usage:
        """Jobs, PUBs, circuits and executions that this module and its copies have submitted to their estimator.

        qtm's own simulator is not counted. Each job is logged with these totals by the logger "qtm" at level
        INFO, as progress of long runs.
        """
        return self._settings.usage

    def extra_repr(self) -> str:
        """Sizes, trainable sets and gradient method, for ``print(module)``."""
        sets = ", ".join(f"{n}: {len(s)}" for n, s in zip(self._sets.names, self._sets.sets, strict=True))
        gradient = self._settings.gradient if isinstance(self._settings.gradient, str) else self._settings.gradient[0]
        return (
            f"num_qubits={self.circuit.num_qubits}, input_size={self.input_size}, output_size={self.output_size}, "
            f"trainable=({sets}), gradient={gradient!r}"
        )
