"""Base class of `EstimatorQNN` and `SamplerQNN`: parameters, shapes, and derivatives of all outputs."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from math import prod
from typing import Any

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector

from qtm._arguments import check_method, checked_flag, checked_int, is_whole, shown
from qtm._errors import CircuitError, DtypeError, JobError, ParameterError, ShapeError, require
from qtm._gradients.jacobian import jacobian
from qtm._gradients.method import GradientMethod
from qtm._gradients.primitive_method import ShiftMethod
from qtm._primitives.ideal_primitives import is_exact_gradient
from qtm._primitives.job_usage import Usage
from qtm._primitives.primitive_runner import epoch_of
from qtm._qnn.errors import network_error, peer
from qtm._qnn.qubit_layout import Placement
from qtm._torch.autograd import expectation_values

logger = logging.getLogger("qtm")


class QuantumNetwork(ABC):
    """A circuit whose parameters are inputs and weights, with the interface of qiskit-machine-learning's networks."""

    _placement: Placement
    _output_shape: tuple[int, ...]
    gradient: Any

    def __init__(
        self,
        circuit: QuantumCircuit,
        input_params: Sequence[Parameter] | None,
        weight_params: Sequence[Parameter] | None,
        sparse: bool,
        input_gradients: bool,
        pass_manager: Any,
    ) -> None:
        if not isinstance(circuit, QuantumCircuit):
            raise network_error(
                CircuitError, f"circuit must be a QuantumCircuit, not {shown(circuit)}; give a qiskit.QuantumCircuit"
            )
        self._input_params = _listed(input_params, "input_params")
        self._weight_params = _listed(weight_params, "weight_params")
        if pass_manager is not None:
            advice = "give qiskit.transpiler.generate_preset_pass_manager(...), or None"
            check_method(pass_manager, "pass_manager", "run", "a pass manager of Qiskit", advice)
        sparse, input_gradients = checked_flag(sparse, "sparse"), checked_flag(input_gradients, "input_gradients")
        _check_parameters(circuit, self._input_params, self._weight_params)
        self._source, self._pass_manager, self._epoch = circuit, pass_manager, epoch_of(pass_manager)
        self._placement = Placement.of(circuit, pass_manager)
        self._earlier_usage = Usage()
        self._sparse, self._input_gradients = sparse, input_gradients
        self._methods: dict[tuple[str, str], GradientMethod] = {}
        self._on_primitive: ShiftMethod | None = None
        _register(type(self))

    @property
    def circuit(self) -> QuantumCircuit:
        """The circuit, transpiled if a pass manager was given."""
        return copy(self._placement.run)

    @property
    def num_virtual_qubits(self) -> int:
        """Number of qubits of the circuit before transpilation."""
        return self._placement.num_virtual

    @property
    def input_params(self) -> list[Parameter]:
        """Parameters that inputs are bound to, in order."""
        return copy(self._input_params)

    @property
    def weight_params(self) -> list[Parameter]:
        """Trainable parameters, in order."""
        return copy(self._weight_params)

    @property
    def num_inputs(self) -> int:
        """Number of inputs."""
        return len(self._input_params)

    @property
    def num_weights(self) -> int:
        """Number of weights."""
        return len(self._weight_params)

    @property
    def sparse(self) -> bool:
        """Whether outputs and gradients are sparse arrays."""
        return self._sparse

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output for one input."""
        return self._output_shape

    @property
    def input_gradients(self) -> bool:
        """Whether `backward` computes gradients with respect to the inputs."""
        return self._input_gradients

    @input_gradients.setter
    def input_gradients(self, input_gradients: bool) -> None:
        self._input_gradients = checked_flag(input_gradients, "input_gradients")

    def forward(self, input_data: Any, weights: Any) -> Any:
        """Outputs (..., *output_shape), float64, of inputs (..., num_inputs) and weights (num_weights,).

        Inputs with one axis, or None without inputs, are a batch of one.

        Raises:
            ShapeError: inputs or weights have the wrong size.
            ParameterError: a value is NaN or infinite.
        """
        rows, lead = self._rows(input_data, weights)
        return self._array(self._values(rows).reshape(*lead, *self._output_shape))

    def backward(self, input_data: Any, weights: Any) -> tuple[Any, Any]:
        """Derivatives of `forward` with respect to inputs (..., *output_shape, num_inputs) and weights.

        The first is None unless `input_gradients`, and either is None if there are no such parameters.

        Raises:
            ShapeError: inputs or weights have the wrong size.
            ParameterError: a value is NaN or infinite.
        """
        rows, lead = self._rows(input_data, weights)
        split = self.num_inputs if self._input_gradients else 0
        wanted = [*range(split), *range(self.num_inputs, rows.shape[1])]
        if not wanted:
            return None, None
        found = self._jacobian(rows, wanted).reshape(*lead, *self._output_shape, len(wanted))
        return tuple(self._array(part) if part.shape[-1] else None for part in (found[..., :split], found[..., split:]))  # type: ignore[return-value]

    def exact_method(self, dtype: str, device: str = "cpu") -> GradientMethod:
        """Exact outputs and derivatives in ``dtype`` ("complex64", "complex128"), for tensors on a type of device.

        Raises:
            UnsupportedError: the network cannot be simulated on it.
        """
        key = dtype, device
        if key not in self._methods:
            self._methods[key] = self._make_method(dtype, device)
        return self._methods[key]

    @property
    @abstractmethod
    def is_exact(self) -> bool:
        """Whether outputs are those of an ideal simulator, without noise or shots."""

    @abstractmethod
    def _make_method(self, dtype: str, device: str) -> GradientMethod: ...

    @abstractmethod
    def _shifted(self, group_sizes: tuple[int, int]) -> ShiftMethod:
        """Outputs from the primitive, and derivatives by parameter shifts, of inputs and weights."""

    @abstractmethod
    def _by_gradient(self, rows: np.ndarray, wanted: list[int]) -> np.ndarray:
        """Derivatives (batch, outputs, wanted) from the user's gradient."""

    @property
    def _parameters(self) -> tuple[Parameter, ...]:
        return (*self._input_params, *self._weight_params)

    @property
    def usage(self) -> Usage:
        """Usage of the primitive by `forward` and `backward`; a user's ``gradient`` is not counted."""
        own = Usage() if self._on_primitive is None else self._on_primitive.usage
        return self._earlier_usage + own

    def estimate_usage(self, batch: int, steps: int = 1) -> Usage:
        """Forecast the usage of training steps, `forward` and `backward` of a batch; nothing is submitted.

        Neither exact simulators nor a user's ``gradient`` are counted.
        """
        batch = checked_int(batch, "batch", "give the number of inputs of a call")
        steps = checked_int(steps, "steps", "give the number of training steps")
        by = (self._input_gradients and self.num_inputs > 0, True)
        return self._method().differentiating(by).preview(batch, steps)

    def _values(self, rows: np.ndarray) -> np.ndarray:
        if not len(rows):
            return np.zeros((0, prod(self._output_shape)))
        with torch.no_grad(), _network_errors():
            tensor = torch.from_numpy(rows)
            weights = [tensor.new_empty(0)]
            return expectation_values(self._method(), tensor, weights, len(rows), (False, False)).numpy()

    def _jacobian(self, rows: np.ndarray, wanted: list[int]) -> np.ndarray:
        if not len(rows):
            return np.zeros((0, prod(self._output_shape), len(wanted)))
        if self.gradient is not None and not (self.is_exact and is_exact_gradient(self.gradient)):
            return self._by_gradient(rows, wanted)
        with _network_errors():
            method = self._method().differentiating((0 in wanted and self.num_inputs > 0, True))
            return jacobian(method, rows)[:, :, wanted]

    def _follow_recalibration(self) -> None:
        """Transpile the circuit again if the device of the pass manager was recalibrated."""
        epoch = epoch_of(self._pass_manager)
        if epoch == self._epoch or not self._placement.transpiled_here:
            return
        self._earlier_usage, self._epoch = self.usage, epoch
        self._methods, self._on_primitive = {}, None
        self._placement = Placement.of(self._source, self._pass_manager)
        self._place_outputs()
        logger.info("the device was recalibrated: circuit %s was transpiled again", self._source.name)

    @abstractmethod
    def _place_outputs(self) -> None:
        """Place the outputs on the qubits of the placement."""

    def _method(self) -> GradientMethod:
        self._follow_recalibration()
        if self.is_exact:
            return self.exact_method("complex128")
        if self._on_primitive is None:
            self._on_primitive = self._shifted((self.num_inputs, self.num_weights))
        return self._on_primitive

    def _sorted_circuit(self) -> QuantumCircuit:
        """The circuit with parameters that Qiskit sorts as inputs, then weights, as other gradients expect."""
        names = ParameterVector("inputs", self.num_inputs), ParameterVector("weights", self.num_weights)
        new = dict(zip(self._parameters, (*names[0], *names[1]), strict=True))
        run = self._placement.run
        return run.assign_parameters({p: new[p] for p in run.parameters})

    def _rows(self, input_data: Any, weights: Any) -> tuple[np.ndarray, tuple[int, ...]]:
        """Values (batch, num_inputs + num_weights), and the shape of the batch."""
        fixed = np.zeros(0) if weights is None else _floats(weights, "weights").reshape(-1)
        if len(fixed) != self.num_weights:
            raise network_error(ShapeError, f"{len(fixed)} weights; the network has {self.num_weights}")
        if input_data is None and self.num_inputs == 0:
            return fixed[None], (1,)
        inputs = None if input_data is None else np.atleast_1d(_floats(input_data, "inputs"))
        if inputs is None or inputs.shape[-1] != self.num_inputs:
            found = "None" if inputs is None else f"of shape {inputs.shape}"
            raise network_error(ShapeError, f"the inputs are {found}; the network expects (..., {self.num_inputs})")
        lead = inputs.shape[:-1] or (1,)
        flat = inputs.reshape(prod(lead), self.num_inputs)
        return np.concatenate([flat, np.broadcast_to(fixed, (len(flat), len(fixed)))], axis=1), lead

    def _array(self, dense: np.ndarray) -> Any:
        if not self._sparse:
            return dense
        return require("sparse", extra="bench").COO.from_numpy(dense)

    def _checked_shape(self, shape: Any) -> tuple[int, ...]:
        given = tuple(shape) if isinstance(shape, Sequence) and not isinstance(shape, str) else (shape,)
        if not given or any(not is_whole(s) or s <= 0 for s in given):
            raise network_error(ShapeError, f"output_shape is {shown(shape)}; all of its lengths must be at least 1")
        return tuple(int(s) for s in given)

    def __getstate__(self) -> dict[str, Any]:
        # Qiskit's preset pass managers do not pickle, and this one has done its work.
        return {**self.__dict__, "_methods": {}, "_on_primitive": None, "_pass_manager": None, "_epoch": 0}


def by_given_gradient(
    gradient: Any, circuit: QuantumCircuit, rows: np.ndarray, num_inputs: int, wanted: list[int], *observables: Any
) -> list[Any]:
    """Result of a gradient object at values (rows, parameters), for the ``wanted`` parameters of a sorted circuit."""
    place = [p.index + (0 if p.vector.name == "inputs" else num_inputs) for p in circuit.parameters]
    if missing := set(wanted) - set(place):
        raise network_error(ParameterError, f"transpiling removed {len(missing)} parameters that nothing depends on")
    chosen = [p for p, number in zip(circuit.parameters, place, strict=True) if number in wanted]
    job = gradient.run([circuit] * len(rows), *observables, rows[:, place], parameters=[chosen] * len(rows))
    return list(job_result(job).gradients)


def check_gradient(gradient: Any) -> None:
    """Raise an error for an object that is not a gradient.

    Raises:
        ParameterError: it has no method ``run``.
    """
    if gradient is not None:
        advice = "give an object such as qtm.FastReverseEstimatorGradient(), or None"
        check_method(gradient, "gradient", "run", "a gradient of qiskit-algorithms", advice)


@contextmanager
def _network_errors() -> Iterator[None]:
    """Raise failed jobs as errors of the networks."""
    try:
        yield
    except JobError as error:
        raise network_error(JobError, str(error)) from error


def job_result(job: Any) -> Any:
    """The result of a job, or an error that names what went wrong."""
    try:
        return job.result()
    except Exception as error:
        raise network_error(JobError, f"the job failed: {type(error).__name__}: {error}") from error


def _listed(parameters: Any, argument: str) -> list[Parameter]:
    if parameters is None:
        return []
    if isinstance(parameters, Iterable) and not isinstance(parameters, str):
        found = list(parameters)
        if all(isinstance(p, Parameter) for p in found):
            return found
    raise network_error(
        ParameterError,
        f"{argument} must be a list of circuit parameters, not {shown(parameters)}; give circuit.parameters, or some "
        "of them",
    )


def _floats(values: Any, argument: str) -> np.ndarray:
    try:
        if np.iscomplexobj(values):
            raise TypeError("the numbers are complex")
        return np.array(values, dtype=float)
    except (TypeError, ValueError, RuntimeError) as error:
        raise network_error(
            DtypeError,
            f"{argument} must be an array of real numbers, not {shown(values)} ({error}); give rows of equal length",
        ) from error


def _check_parameters(circuit: QuantumCircuit, inputs: list[Parameter], weights: list[Parameter]) -> None:
    given = [*inputs, *weights]
    names = {p: p.name for p in given}
    problems = (
        ("listed more than once", [p.name for p in names if given.count(p) > 1]),
        ("not in the circuit", [n for p, n in names.items() if p not in set(circuit.parameters)]),
        ("in the circuit, but neither in input_params nor in weight_params",
         [p.name for p in circuit.parameters if p not in names]),
    )  # fmt: skip
    for problem, found in problems:
        if found:
            raise network_error(ParameterError, f"parameters {problem}: {', '.join(found)}")


def _register(kind: type) -> None:
    """Make instances pass `isinstance` checks against qiskit-machine-learning's classes, for its trainers."""
    networks = peer()
    if networks is not None:
        getattr(networks, kind.__name__, networks.NeuralNetwork).register(kind)
