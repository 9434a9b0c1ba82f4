"""Quantum circuits as `torch.nn.Module`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from concurrent.futures import Executor
from typing import Any

import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.passmanager import BasePassManager
from qiskit.primitives import BaseEstimatorV2, BaseSamplerV2
from torch import Tensor, nn

from qtm._arguments import check_type, checked_flag, checked_int, checked_seed, shown
from qtm._engines.engine import Plan
from qtm._engines.outputs import State
from qtm._engines.registry import Method
from qtm._errors import CircuitError, ParameterError, ShapeError, UnsupportedError
from qtm._gradients.adjoint import EngineMethod, StateMethod
from qtm._gradients.method import GradientMethod
from qtm._gradients.methods import make_method
from qtm._gradients.outputs import Outputs, read_outputs
from qtm._gradients.settings import MethodSettings
from qtm._noise.aer_model import Noise, read_noise
from qtm._noise.trainable import TrainableNoise
from qtm._parts.stacking import PartLike, stack
from qtm._primitives.job_usage import Usage
from qtm._torch.autograd import complex_name, dtype_and_device, expectation_values
from qtm._torch.circuit_module import CircuitModule
from qtm._torch.inputs import real_tensor, same_dtype
from qtm._torch.outcomes import drawn
from qtm._torch.parameter_sets import ParameterSets, initial_values
from qtm._torch.repeated_calls import RepeatedCalls


class QuantumModule(CircuitModule):
    """A parameterised circuit whose expectation values, probabilities or state are the outputs of a torch layer.

    Inputs (..., input_size) give outputs (..., output_size), as with `torch.nn.Linear`; a circuit without
    encoding parameters is called without input, and gives (output_size,). All values are angles in radians.
    The dtype follows the parameters: float32 simulates in complex64, ``module.double()`` in complex128. The device
    follows them too: after ``module.to("cuda")`` state vectors and matrix product states are computed on the GPU,
    without noise, with first derivatives in reverse mode. Anything else raises an error there.

    Args:
        circuit: any Qiskit circuit; final measurements are ignored.
        encoding_params: parameters to which the input features are bound, in this order; None or empty for none.
        variational_params: trainable parameters: one set, or several sets with separate optimizer settings.
        variational_params_names: a name for each set, under which the module holds it as a `torch.nn.Parameter`.
            By default ``variational`` for one set and ``variational_0``, ``variational_1``, ... for several.
        variational_params_initial: "uniform" (a=0, b=2 pi), "normal" (mean=0, std=1), "constant" (val=1), or one
            of them with arguments, ``("uniform", {"b": 1.0})``, or explicit values; one for all sets, or a list.
        seed_init: seed of the initial values; the global random state is not changed.
        outputs: what the module computes:

            * "expectation": expectation values of ``observables``, real (..., observables).
            * "probabilities": of all outcomes, real (..., 2**num_qubits), in Qiskit's order; of some qubits with
              ``("probabilities", {"qubits": [2, 0]})``, where bit j of an outcome is qubit ``qubits[j]``.
            * "state": amplitudes as `qiskit.quantum_info.Statevector` gives them, global phase included, complex
              (..., 2**num_qubits), from qtm's simulator; `qtm.states` has functions of them for losses.
        observables: "individualZ" (output q is Z on qubit q), "tensoredZ" (Z on every qubit), or a list of
            observables in any form that Qiskit accepts.
        estimator: None for qtm's exact simulator, or any `BaseEstimatorV2` (Aer, IBM Runtime, mitigated).
            A `FastEstimator` selects qtm's simulator with that estimator's dtype, workers and
            ``default_precision``: noise of that precision is added to the values, "reverse" gradients stay exact.
        sampler: for ``outputs="probabilities"``: any `BaseSamplerV2` (Aer, a device, mitigated), whose relative
            frequencies, or quasi-probabilities, are the outputs. None for exact probabilities of qtm's simulator.
        gradient: differentiation method, a name or a pair of name and options:

            * "auto": "reverse" on qtm's simulator, "param-shift" on any other estimator and on a sampler.
            * "reverse": exact, by one reverse sweep; needs qtm's simulator.
            * "param-shift": exact if the estimator is exact; shifts every gate angle that needs a gradient.
              Options: ``precision``, the standard deviation requested from the estimator, and ``max_points``,
              the maximum number of parameter sets in one job.
            * "spsa": a stochastic estimate from two points per sample, for any number of parameters. Options:
              those above, ``repeats`` to average over, ``epsilon`` (radians; by default balanced with the shot
              noise), ``seed`` (by default torch's random state), as in ``("spsa", {"repeats": 4, "seed": 1})``.

            With an estimator, a forward pass submits one job with one PUB, and so does a backward pass.
        num_threads_forward: threads of the forward pass; 0 means all cores.
        num_threads_backward: threads of the backward pass; 0 means all cores.
        executor: a `concurrent.futures.Executor` (process pool, dask, MPI, ...) that evaluates the batch instead of
            threads, split into ``num_threads`` shares (0: one per worker): expectation values and first derivatives;
            with a state vector all else is computed in this process. Copies of the module share it; it is not pickled.
        encoding_gradients_flag: False stops gradients at the inputs; otherwise they are computed exactly when an
            input requires them.
        pass_manager: transpiles the circuit for the estimator's backend, once; observables follow its layout.
        method: simulation method: "auto" for the cheapest exact method that supports the circuit, a name such as
            "statevector", a pair of name and options, or a `qtm.engines.SimulationMethod`. See `plan`. For many
            mid-circuit measurements, ``method=("branches", {"count": 64})`` averages over sampled outcomes.
        noise: an Aer ``NoiseModel``, such as `qtm.local_pauli_noise(0.01)`, or a backend. Its gate and readout
            errors are included exactly in values and derivatives. Gates that the model lacks are translated to its
            gates; a backend requires its own gates on its own qubits, which ``pass_manager`` provides. A
            `TrainableNoise` is trained with the module. For wide circuits,
            ``method=("trajectories", {"count": 64})`` averages over sampled Pauli errors.

    Raises:
        CircuitError: the circuit cannot be simulated.
        ParameterError: a parameter is unknown, missing, in two sets, or its initial value does not fit.
        ObservableError: an observable is not Hermitian or has the wrong number of qubits.
        UnsupportedError: the simulation method does not support the circuit; the message says why.

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
        outputs: Outputs = "expectation",
        observables: Any = "individualZ",
        estimator: BaseEstimatorV2 | None = None,
        sampler: BaseSamplerV2 | None = None,
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
            raise CircuitError(f"circuit must be a QuantumCircuit, not {shown(circuit)}; give a qiskit.QuantumCircuit")
        circuit = circuit.copy()  # recompiled for another dtype, even if the original has been changed since
        self._sets = ParameterSets(circuit, encoding_params, variational_params, variational_params_names)
        values = initial_values(self._sets, variational_params_initial, seed_init)
        for name, value in zip(self._sets.names, values, strict=True):
            if hasattr(type(self), name) or hasattr(self, name):
                raise ParameterError(
                    f"the parameter-set name {name!r} clashes with an attribute of the module; choose another name"
                )
            self.register_parameter(name, nn.Parameter(value))
        self.trained_noise = noise if isinstance(noise, TrainableNoise) else None
        strengths = () if self.trained_noise is None else self.trained_noise.parameters_
        self._settings = MethodSettings(
            circuit=circuit,
            parameters=(*self._sets.order, *strengths),
            observables=observables,
            output=read_outputs(outputs, observables, circuit.num_qubits),
            estimator=estimator,
            sampler=sampler,
            gradient=gradient,
            threads_forward=num_threads_forward,
            threads_backward=num_threads_backward,
            executor=executor,
            pass_manager=pass_manager,
            method=method,
            noise=read_noise(noise, trained=True),
            group_sizes=(len(self._sets.encoding), *map(len, self._sets.sets), *[len(strengths)] * bool(strengths)),
        )
        flag = encoding_gradients_flag
        self._encoding_gradients_flag = None if flag is None else checked_flag(flag, "encoding_gradients_flag")
        self._methods = {}
        self._repeated = RepeatedCalls(len(self._sets.encoding))
        self._is_real = not isinstance(self._settings.output, State)
        computed = self._method(torch.get_default_dtype())
        self._output_size = computed.num_outputs
        self._set_operator_name(isinstance(computed, EngineMethod) and computed.is_repeatable)

    @classmethod
    def from_parts(
        cls,
        parts: Sequence[PartLike],
        *,
        variational_params_initial: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> QuantumModule:
        """Build a module from parts, composed in order, each with its own parameter set.

        Args:
            parts: encodings and ansaetze of `qtm.circuits`, Qiskit circuits (all of whose parameters are trainable),
                or `qtm.circuits.Part`, which names a set, shares weights, and chooses features and qubits.
                Every encoding reads the features from the first one on, unless a `Part` says otherwise.
            variational_params_initial: initial values by set name, each in a form that `QuantumModule` accepts.
                Unlisted sets are initialised uniformly in [0, 2 pi), sets of trainable scales at 1.
            settings: all other arguments of `QuantumModule`.

        Raises:
            CircuitError: a part is not a circuit, or does not fit the qubits.
            ParameterError: no part reads a feature, or initial values are given for an unknown set.

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
        """Outputs (..., output_size) of inputs (..., input_size); without argument if the circuit has no inputs.

        Raises:
            ShapeError: the last axis of ``inputs`` is not ``input_size`` long, or inputs are missing.
            ParameterError: a value is NaN or infinite; with state vectors on a GPU the outputs are NaN instead.
            DtypeError: a dtype or device is not supported, or inputs and parameters are on different devices.
            JobError: (also from ``backward``) the estimator failed or returned an unusable result; names the job.
        """
        own = self._own_sets()
        values = self._repeated.values(inputs, own)
        return self._checked_outputs(inputs, own) if values is None else values

    def _checked_outputs(self, inputs: Any, own: list[Tensor]) -> Tensor:
        if inputs is not None:
            inputs = real_tensor(inputs, self.input_size)
            if self._encoding_gradients_flag is False and inputs.requires_grad:
                inputs = inputs.detach()
        elif self.input_size:
            raise ShapeError(f"the circuit has {self.input_size} encoding parameters: call the module with inputs")
        if self.trained_noise is not None:
            own.append(self.trained_noise.values().to(own[0].dtype))
        inputs, sets = same_dtype(inputs, own)
        if inputs is None:
            return self._outputs(None, sets).squeeze(0)
        if inputs.ndim == 2:
            return self._outputs(inputs, sets)
        values = self._outputs(inputs.reshape(inputs.shape[:-1].numel(), self.input_size), sets)
        return values.reshape(*inputs.shape[:-1], self._output_size)

    def _values_at(self, inputs: Tensor | None, sets: Sequence[Tensor]) -> Tensor:
        """Outputs of inputs (batch, input_size) and parameter sets, each (parameters,), all of one dtype."""
        method = self._method(*dtype_and_device(sets, inputs))
        by_sets = [s.requires_grad and s.numel() > 0 for s in sets]
        if inputs is None:
            values = expectation_values(method, None, sets, 1, (False, *by_sets))
        else:
            values = expectation_values(method, inputs, sets, inputs.shape[0], (inputs.requires_grad, *by_sets))
        if not self._is_real:
            return _with_phase(method, values, inputs, sets)
        self._repeated.remember(inputs, sets, method)
        return values

    def _method(self, dtype: torch.dtype, device: str = "cpu") -> GradientMethod:
        key = dtype, device
        if key not in self._methods:
            self._methods[key] = make_method(self._settings.on_device(device), complex_name(dtype))
        return self._methods[key]

    def sample(self, inputs: Any = None, *, shots: int = 1024, seed: int | None = None) -> Tensor:
        """Outcomes (..., shots, qubits) bool of inputs (..., input_size), without gradient.

        Column j is qubit j of the circuit or, where the module's outputs are probabilities of some qubits, the j-th
        of these. The same seed gives the same outcomes; None: different ones at every call.

        Raises:
            UnsupportedError: an estimator computes the values, or the simulation method draws no samples.

        Example:
            >>> from qiskit.circuit.library import real_amplitudes
            >>> ansatz = real_amplitudes(2, reps=1)
            >>> QuantumModule(ansatz, None, ansatz.parameters).sample(shots=100, seed=1).shape
            torch.Size([100, 2])
        """
        if inputs is None and self.input_size:
            raise ShapeError(f"the circuit has {self.input_size} encoding parameters: give inputs")
        at = torch.zeros(0) if inputs is None else real_tensor(inputs, self.input_size)
        return drawn(self._settings, at, self.variational_, shots, seed)

    def estimate_usage(self, batch: int | Tensor, steps: int = 1) -> Usage:
        """Forecast the usage of training steps, forward and backward, without submitting anything.

        Args:
            batch: number of samples, or inputs (..., input_size); the forecast includes derivatives with respect to the
                inputs if they require a gradient.
            steps: number of training steps. Each step draws its own random circuits of error mitigation, in the order
                of the jobs; one-time calibrations count once.

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
        return self._method(torch.get_default_dtype()).differentiating(by).preview(samples, steps)

    def plan(self, batch: int = 1) -> Plan:
        """Simulation method, states, memory and multiply-adds for a batch, without running anything.

        Raises:
            UnsupportedError: the values come from an estimator, not from qtm's simulator.

        Example:
            >>> from qiskit.circuit.library import real_amplitudes
            >>> ansatz = real_amplitudes(4, reps=1)
            >>> print(QuantumModule(ansatz, None, ansatz.parameters).plan(batch=16))
            statevector: 1 state of 2^4 amplitudes a sample, 4.0 KiB, 3.3e+04 multiply-adds
        """
        method = self._method(torch.get_default_dtype())
        if not isinstance(method, EngineMethod):
            raise UnsupportedError(
                "plan() describes qtm's simulator, and the values of this module come from an estimator; see "
                "estimate_usage(), or build the module without estimator and with gradient='reverse'"
            )
        return method.plan(_samples(batch))


def _with_phase(method: GradientMethod, states: Tensor, inputs: Tensor | None, sets: Sequence[Tensor]) -> Tensor:
    """States (batch, amplitudes) with the global phase of the circuit, which may depend on the parameters."""
    assert isinstance(method, StateMethod)
    return method.with_phase(states, inputs, sets)


def _samples(batch: Any) -> int:
    return checked_int(batch, "batch", "give the number of samples of a call")


class HybridModule(nn.Module):
    """A linear layer, a `QuantumModule` with Z on every qubit, and a linear layer, trained end to end.

    Args:
        circuit: as for `QuantumModule`, as are all arguments not listed here.
        encoding_params: circuit parameters to which the outputs of the first linear layer are bound.
        variational_params: trainable parameters of the circuit, one set or several.
        input_size: number of input features; may differ from the number of encoding parameters.
        output_size: number of output features; may differ from the number of qubits.
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
            raise ParameterError("HybridModule measures Z on every qubit and takes no observables; use QuantumModule")
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
        """Number of trainable parameters of the circuit."""
        return self._quantum_module.num_trainable_parameters

    @property
    def num_trainable_parameters_classical(self) -> int:
        """Number of trainable parameters of the linear layers."""
        return sum(p.numel() for p in (*self.pre_parameters_, *self.post_parameters_))

    @property
    def num_trainable_parameters(self) -> int:
        """Total number of trainable parameters."""
        return self.num_trainable_parameters_quantum + self.num_trainable_parameters_classical

    @property
    def input_size(self) -> int:
        """Number of input features."""
        return self._input_size

    @property
    def output_size(self) -> int:
        """Number of output features."""
        return self._output_size
