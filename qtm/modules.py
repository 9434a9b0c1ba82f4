"""Quantum circuits as `torch.nn.Module`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from concurrent.futures import Executor
from typing import Any

import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.passmanager import BasePassManager
from qiskit.primitives import BaseEstimatorV2
from torch import Tensor, nn

from qtm._arguments import check_type, checked_flag, checked_int, checked_seed, shown
from qtm._engines.engine import Plan
from qtm._engines.registry import Method
from qtm._errors import CircuitError, ParameterError, ShapeError, UnsupportedError
from qtm._gradients.adjoint import EngineMethod
from qtm._gradients.method import GradientMethod
from qtm._gradients.methods import make_method
from qtm._gradients.settings import MethodSettings
from qtm._noise.aer_model import Noise, read_noise
from qtm._parts.stacking import PartLike, stack
from qtm._primitives.job_usage import Usage
from qtm._torch.autograd import complex_name, dtype_of, expectation_values
from qtm._torch.inputs import real_tensor, same_dtype
from qtm._torch.parameter_sets import ParameterSets, initial_values


class QuantumModule(nn.Module):
    """A parameterised circuit whose expectation values are the outputs of a torch layer.

    Inputs (..., input_size) give outputs (..., output_size), as with `torch.nn.Linear`; a circuit without
    encoding parameters is called without input, and gives (output_size,). All values are angles in radians.
    The dtype follows the parameters: float32 simulates in complex64, ``module.double()`` in complex128.

    Args:
        circuit: any Qiskit circuit; final measurements are ignored.
        encoding_params: parameters that the inputs are bound to, in this order; None or empty for none.
        variational_params: trainable parameters: one set, or several sets with optimizer settings of their own.
        variational_params_names: a name for each set, under which the module holds it as a `torch.nn.Parameter`.
            By default ``variational`` for one set and ``variational_0``, ``variational_1``, ... for several.
        variational_params_initial: "uniform" (a=0, b=2 pi), "normal" (mean=0, std=1), "constant" (val=1), or one
            of them with arguments, ``("uniform", {"b": 1.0})``, or explicit values; one for all sets, or a list.
        seed_init: seed of the initial values; the global random state is left as it was.
        observables: "individualZ" (output q is Z on qubit q), "tensoredZ" (Z on every qubit), or any list of
            observables that Qiskit knows.
        estimator: None for the exact simulator of qtm, or any `BaseEstimatorV2` (Aer, IBM Runtime, mitigated).
            A `FastEstimator` is that simulator with its dtype, workers and ``default_precision``, whose noise is
            added to the values while "reverse" gradients stay exact.
        gradient: how outputs are differentiated, by name or as a pair of name and options:

            * "auto": "reverse" where the estimator is qtm's own, "param-shift" on any other.
            * "reverse": exact, where the estimator is qtm's own.
            * "param-shift": exact on any estimator that is; every gate angle that needs a gradient is shifted.
              Options: ``precision``, the standard deviation to ask the estimator for, and ``max_points``, the
              parameter sets that one job may hold.
            * "spsa": an estimate from two points per sample, whatever the number of parameters. Options: those
              above, ``repeats`` to average over, ``epsilon`` (radians; by default balanced with the shot noise),
              ``seed`` (by default torch's random state), as in ``("spsa", {"repeats": 4, "seed": 1})``.

            On an estimator a forward pass is one job of one PUB, and so is a backward pass.
        num_threads_forward: threads of the forward pass; 0 means all cores.
        num_threads_backward: threads of the backward pass; 0 means all cores.
        executor: an executor of `concurrent.futures` (process pool, dask, MPI, ...) that computes instead of threads,
            the batch being dealt into as many shares as threads were asked for, or as the executor has workers. It
            stays with its process: copies of the module share it, pickled ones compute in threads.
        encoding_gradients_flag: False stops gradients at the inputs; otherwise they are computed exactly when an
            input requires them.
        pass_manager: transpiles the circuit for the estimator's backend, once; observables follow its layout.
        method: how qtm simulates, where it does: "auto" for the cheapest method that can, a name such as
            "statevector", a pair of name and options, or a `qtm.engines.SimulationMethod`. See `plan`.

        noise: an Aer ``NoiseModel``, such as `qtm.local_pauli_noise(0.01)`, or a backend, whose errors and readout
            errors enter the values and derivatives exactly. Gates that the model does not know are translated to its
            gates; a backend needs its own gates on its own qubits, which ``pass_manager`` provides. Wide circuits:
            ``method=("trajectories", {"count": 64})`` averages over sampled Pauli errors.

    Raises:
        CircuitError: the circuit cannot be simulated.
        ParameterError: a parameter is unknown, missing, in two sets, or its initial value does not fit.
        ObservableError: an observable is not Hermitian or has the wrong number of qubits.
        UnsupportedError: the simulation method refuses the circuit; the message says why.

    Example:
        >>> import torch
        >>> from qiskit.circuit.library import real_amplitudes, z_feature_map
        >>> features, ansatz = z_feature_map(2), real_amplitudes(2, reps=1)
        >>> circuit = features.compose(ansatz)
        >>> module = QuantumModule(circuit, features.parameters, ansatz.parameters, seed_init=0)
        >>> module(torch.zeros(5, 2)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        circuit: QuantumCircuit,
        encoding_params: Sequence[Parameter] | None,
        variational_params: Sequence[Parameter] | Sequence[Sequence[Parameter]],
        *,
        variational_params_names: str | Sequence[str] | None = None,
        variational_params_initial: Any = "uniform",
        seed_init: int | None = None,
        observables: Any = "individualZ",
        estimator: BaseEstimatorV2 | None = None,
        gradient: str | tuple[str, Mapping[str, Any]] = "reverse",
        num_threads_forward: int = 0,
        num_threads_backward: int = 0,
        executor: Executor | None = None,
        encoding_gradients_flag: bool | None = None,
        pass_manager: BasePassManager | None = None,
        method: Method = "auto",
        noise: Noise = None,
    ) -> None:
        super().__init__()
        if not isinstance(circuit, QuantumCircuit):
            raise CircuitError(f"circuit must be a circuit, not {shown(circuit)}; give a qiskit.QuantumCircuit")
        circuit = circuit.copy()  # lowered again for another dtype, whatever became of the original
        self._sets = ParameterSets(circuit, encoding_params, variational_params, variational_params_names)
        values = initial_values(self._sets, variational_params_initial, seed_init)
        for name, value in zip(self._sets.names, values, strict=True):
            if hasattr(type(self), name) or hasattr(self, name):
                raise ParameterError(f"{name!r} is taken by the module itself; give the parameter set another name")
            self.register_parameter(name, nn.Parameter(value))
        self._settings = MethodSettings(
            circuit=circuit,
            parameters=self._sets.order,
            observables=observables,
            estimator=estimator,
            gradient=gradient,
            threads_forward=num_threads_forward,
            threads_backward=num_threads_backward,
            executor=executor,
            pass_manager=pass_manager,
            method=method,
            noise=read_noise(noise),
            group_sizes=(len(self._sets.encoding), *map(len, self._sets.sets)),
        )
        flag = encoding_gradients_flag
        self._encoding_gradients_flag = None if flag is None else checked_flag(flag, "encoding_gradients_flag")
        self._methods: dict[str, GradientMethod] = {}
        self._output_size = self._method(torch.get_default_dtype()).num_outputs

    @classmethod
    def from_parts(
        cls,
        parts: Sequence[PartLike],
        *,
        variational_params_initial: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> QuantumModule:
        """A module whose circuit is made of parts, one after another, each with a parameter set of its own.

        Args:
            parts: encodings and ansaetze of `qtm.circuits`, Qiskit circuits (all of whose parameters are trainable),
                or `qtm.circuits.Part`, which names a set, shares weights, and chooses features and qubits.
                Every encoding reads the features from the first one on, unless a `Part` says otherwise.
            variational_params_initial: by the name of the set, what `QuantumModule` takes for one. Sets that are
                not listed start uniformly from 0 to 2 pi, sets of trainable scales at 1.
            settings: other arguments of `QuantumModule`.

        Raises:
            CircuitError: a part is not a circuit, or does not fit the qubits.
            ParameterError: a feature is read by no part, or a set that is to be initialised does not exist.

        Example:
            >>> from qtm.circuits import angle_encoding, hardware_efficient_ansatz
            >>> encoding, ansatz = angle_encoding(2, scaling=True), hardware_efficient_ansatz(2)
            >>> module = QuantumModule.from_parts([encoding, ansatz, encoding, ansatz], seed_init=0)
            >>> [name for name, _ in module.named_parameters()]
            ['scaling_0', 'variational_0', 'scaling_1', 'variational_1']
        """
        stacked = stack(parts)
        initial = stacked.initial_values(variational_params_initial or {})
        sets: dict[str, Any] = {
            "variational_params_names": list(initial),
            "variational_params_initial": list(initial.values()),
        }
        weights = list(stacked.parameter_sets.values())
        return cls(stacked.circuit, stacked.encoding_params, weights, **(sets if weights else {}), **settings)

    def forward(self, inputs: Any = None) -> Tensor:
        """Expectation values (..., output_size) of inputs (..., input_size); without input where there is none.

        Raises:
            ShapeError: the last axis of ``inputs`` is not ``input_size`` long, or inputs are missing.
            ParameterError: a value is NaN or infinite.
            DtypeError: a dtype or device is not supported.
            JobError: (also from ``backward``) the estimator failed, or its result is not usable; names the job.
        """
        sets = [getattr(self, name) for name in self._sets.names]
        weights = sets[0] if len(sets) == 1 else torch.cat(sets)
        trained = [s.requires_grad for s in sets]
        if inputs is None:
            if self.input_size:
                raise ShapeError(f"the circuit has {self.input_size} encoding parameters: call the module with inputs")
            method = self._method(dtype_of(weights, None))
            return expectation_values(method, None, weights, 1, (False, *trained)).squeeze(0)
        inputs, weights = same_dtype(real_tensor(inputs, self.input_size), weights)
        if self._encoding_gradients_flag is False:
            inputs = inputs.detach()
        method = self._method(dtype_of(weights, inputs))
        flat = inputs if inputs.ndim == 2 else inputs.reshape(inputs.shape[:-1].numel(), self.input_size)
        values = expectation_values(method, flat, weights, len(flat), (flat.requires_grad, *trained))
        return values if inputs.ndim == 2 else values.reshape(*inputs.shape[:-1], self._output_size)

    def _method(self, dtype: torch.dtype) -> GradientMethod:
        name = complex_name(dtype)
        if name not in self._methods:
            self._methods[name] = make_method(self._settings, name)
        return self._methods[name]

    def __getstate__(self) -> dict[str, Any]:
        # Methods hold compiled plans and buffers, and are made again where they are needed.
        return {**self.__dict__, "_methods": {}}

    def set_num_threads_forward(self, num_threads: int) -> None:
        """Set the number of threads of the forward pass; 0 means all cores."""
        self._set_threads(num_threads, self.num_threads_backward)

    def set_num_threads_backward(self, num_threads: int) -> None:
        """Set the number of threads of the backward pass; 0 means all cores."""
        self._set_threads(self.num_threads_forward, num_threads)

    def _set_threads(self, forward: int, backward: int) -> None:
        self._settings = self._settings.with_threads(forward, backward)
        self._methods = {}

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
        """Number of trainable numbers in all sets."""
        return sum(p.numel() for p in self.variational_)

    @property
    def input_size(self) -> int:
        """Number of encoding parameters."""
        return len(self._sets.encoding)

    @property
    def output_size(self) -> int:
        """Number of observables."""
        return self._output_size

    @property
    def circuit(self) -> QuantumCircuit:
        """The circuit, as it was given."""
        return self._settings.circuit

    @property
    def encoding_parameters(self) -> tuple[Parameter, ...]:
        """Circuit parameters that the inputs are bound to, in order."""
        return self._sets.encoding

    @property
    def variational_parameters(self) -> tuple[tuple[Parameter, ...], ...]:
        """Circuit parameters of every trainable set, in order."""
        return self._sets.sets

    @property
    def usage(self) -> Usage:
        """Jobs, PUBs, circuits and executions that this module and its copies have asked of their estimator.

        The exact simulator counts nothing. Each job is logged with these numbers, at level INFO by the logger
        "qtm": a progress line for long runs.
        """
        return self._settings.usage

    def estimate_usage(self, batch: int | Tensor, steps: int = 1) -> Usage:
        """What training steps, forward and backward, ask of the estimator; nothing is submitted.

        Args:
            batch: number of samples, or inputs (..., input_size), which count as differentiated where they
                require a gradient.
            steps: number of training steps.

        Example:
            >>> from qiskit.circuit.library import real_amplitudes
            >>> ansatz = real_amplitudes(2, reps=1)
            >>> module = QuantumModule(ansatz, None, ansatz.parameters, gradient="param-shift")
            >>> print(module.estimate_usage(1))
            2 jobs, 2 PUBs, 9 circuits, 9 executions, 0.0 s
        """
        inputs = batch if isinstance(batch, Tensor) else None
        samples = _samples(batch) if inputs is None else inputs.shape[:-1].numel()
        by_inputs = inputs is not None and inputs.requires_grad and self._encoding_gradients_flag is not False
        by = (by_inputs, *(s.requires_grad for s in self.variational_))
        steps = checked_int(steps, "steps", "give the number of training steps")
        return self._method(torch.get_default_dtype()).differentiating(by).preview(samples) * steps

    def plan(self, batch: int = 1) -> Plan:
        """The simulation method, its states, memory and multiply-adds for a batch of samples; nothing is run.

        Raises:
            UnsupportedError: an estimator computes the values, so that qtm simulates nothing.

        Example:
            >>> from qiskit.circuit.library import real_amplitudes
            >>> ansatz = real_amplitudes(4, reps=1)
            >>> print(QuantumModule(ansatz, None, ansatz.parameters).plan(batch=16))
            statevector: 1 state of 2^4 amplitudes a sample, 4.0 KiB, 3.3e+04 multiply-adds
        """
        method = self._method(torch.get_default_dtype())
        if not isinstance(method, EngineMethod):
            raise UnsupportedError(
                "the values come from an estimator, and nothing is simulated here; see estimate_usage() for what "
                "it is asked, or build the module with gradient='reverse' and without estimator"
            )
        return method.plan(_samples(batch))

    def extra_repr(self) -> str:
        """Sizes, trainable sets and the method of differentiation, for ``print(module)``."""
        sets = ", ".join(f"{n}: {len(s)}" for n, s in zip(self._sets.names, self._sets.sets, strict=True))
        gradient = self._settings.gradient if isinstance(self._settings.gradient, str) else self._settings.gradient[0]
        return (
            f"num_qubits={self.circuit.num_qubits}, input_size={self.input_size}, output_size={self.output_size}, "
            f"trainable=({sets}), gradient={gradient!r}"
        )


def _samples(batch: Any) -> int:
    return checked_int(batch, "batch", "give the number of samples of a call")


class HybridModule(nn.Module):
    """A linear layer, a `QuantumModule` with Z on every qubit, and a linear layer, trained end to end.

    Args:
        circuit: see `QuantumModule`, as are all arguments not listed here.
        encoding_params: parameters that the first layer's outputs are bound to.
        variational_params: trainable parameters of the circuit, one set or several.
        input_size: features of an input; it need not be the number of encoding parameters.
        output_size: features of an output; it need not be the number of qubits.
        seed_init: seed of the initial values of all three parts.

    Example:
        >>> import torch
        >>> from qiskit.circuit.library import real_amplitudes, z_feature_map
        >>> features, ansatz = z_feature_map(2), real_amplitudes(2, reps=1)
        >>> circuit = features.compose(ansatz)
        >>> module = HybridModule(circuit, features.parameters, ansatz.parameters, input_size=10, output_size=3)
        >>> module(torch.zeros(5, 10)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        circuit: QuantumCircuit,
        encoding_params: Sequence[Parameter],
        variational_params: Sequence[Parameter] | Sequence[Sequence[Parameter]],
        input_size: int,
        output_size: int,
        *,
        seed_init: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        if "observables" in settings:
            raise ParameterError("HybridModule measures Z on every qubit, and takes no observables; use QuantumModule")
        check_type(encoding_params, "encoding_params", Sized, "a list of circuit parameters", "list at least one")
        sizes = {"input_size": input_size, "output_size": output_size}
        input_size, output_size = (checked_int(n, name, "count the features", least=1) for name, n in sizes.items())
        if seed_init is not None:
            seed_init = checked_seed(seed_init, "seed_init")
        with torch.random.fork_rng(devices=[], enabled=seed_init is not None):
            if seed_init is not None:
                torch.manual_seed(seed_init)
            self._preprocessing = nn.Linear(input_size, len(encoding_params))
            self._quantum_module = QuantumModule(circuit, encoding_params, variational_params, **settings)
            self._postprocessing = nn.Linear(self._quantum_module.output_size, output_size)
        self._input_size, self._output_size = input_size, output_size

    def forward(self, inputs: Any) -> Tensor:
        """Outputs (..., output_size) of inputs (..., input_size).

        Raises:
            ShapeError: the last axis of ``inputs`` is not ``input_size`` long.
        """
        inputs = real_tensor(inputs, self._input_size).to(self._preprocessing.weight.dtype)
        return self._postprocessing(self._quantum_module(self._preprocessing(inputs)))

    @property
    def quantum_module(self) -> QuantumModule:
        """The quantum layer."""
        return self._quantum_module

    @property
    def pre_parameters_(self) -> list[nn.Parameter]:
        """Trainable parameters of the first linear layer."""
        return list(self._preprocessing.parameters())

    @property
    def quantum_parameters_(self) -> list[nn.Parameter]:
        """Trainable parameter sets of the circuit."""
        return self._quantum_module.variational_

    @property
    def post_parameters_(self) -> list[nn.Parameter]:
        """Trainable parameters of the last linear layer."""
        return list(self._postprocessing.parameters())

    @property
    def num_trainable_parameters_quantum(self) -> int:
        """Number of trainable numbers in the circuit."""
        return self._quantum_module.num_trainable_parameters

    @property
    def num_trainable_parameters_classical(self) -> int:
        """Number of trainable numbers in the linear layers."""
        return sum(p.numel() for p in (*self.pre_parameters_, *self.post_parameters_))

    @property
    def num_trainable_parameters(self) -> int:
        """Number of trainable numbers in all."""
        return self.num_trainable_parameters_quantum + self.num_trainable_parameters_classical

    @property
    def input_size(self) -> int:
        """Features of an input."""
        return self._input_size

    @property
    def output_size(self) -> int:
        """Features of an output."""
        return self._output_size
