"""`TorchConnector`: networks of qiskit-machine-learning and of qtm as torch modules."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from qiskit.quantum_info import SparsePauliOp
from torch import Tensor, nn

from qtm._arguments import checked_flag, refused
from qtm._errors import ParameterError, QtmError, ShapeError
from qtm._gradients.method import GradientMethod
from qtm._primitives.ideal_primitives import is_exact_estimator, is_exact_gradient, is_exact_sampler, noise_of
from qtm._qnn.base import QuantumNetwork
from qtm._qnn.errors import network_error, peer
from qtm._qnn.estimator_qnn import DEFAULT_PRECISION, EstimatorQNN
from qtm._qnn.external_network import ExternalNetwork
from qtm._qnn.sampler_qnn import SamplerQNN
from qtm._torch.autograd import complex_name, dtype_and_device, expectation_values
from qtm._torch.inputs import as_numbers, dense_tensor

logger = logging.getLogger("qtm")

_NEEDED = ("sparse", "num_inputs", "num_weights", "output_shape", "forward", "backward")
EXECUTIONS = ("fast", "network")


class TorchConnector(nn.Module):
    """A quantum neural network as a torch layer, of qiskit-machine-learning or of qtm.

    A drop-in replacement for qiskit-machine-learning's class of the same name. A network on an ideal simulator runs on
    qtm's simulator, with exact derivatives with respect to weights and, if they require a gradient, inputs. For a
    network on a device, with shots or noise, or of another class, the connector calls its own `forward` and `backward`.
    `execution` and the printed module show which one applies.

    The dtype follows the weights: float32 simulates in complex64, ``module.double()`` in complex128.

    Args:
        neural_network: the network.
        initial_weights: initial values of the weights (num_weights,); by default uniform in [-1, 1], drawn from torch's
            generator.
        sparse: whether outputs and the gradient of the weights are sparse tensors; None: as in the network.
        execution: "fast" or "network" forces one of the two; None chooses.

    Raises:
        ShapeError: ``initial_weights`` has the wrong size.
        ParameterError: ``sparse=True`` with a dense network, or ``execution`` is impossible.

    Example:
        >>> import torch
        >>> from qiskit.circuit.library import real_amplitudes, z_feature_map
        >>> features, ansatz = z_feature_map(2), real_amplitudes(2, reps=1)
        >>> qnn = EstimatorQNN(
        ...     circuit=features.compose(ansatz), input_params=features.parameters, weight_params=ansatz.parameters
        ... )
        >>> layer = TorchConnector(qnn, initial_weights=[0.1, 0.2, 0.3, 0.4])
        >>> layer(torch.zeros(5, 2)).shape
        torch.Size([5, 1])
        >>> layer.execution
        'fast'
    """

    def __init__(
        self,
        neural_network: Any,
        initial_weights: np.ndarray | Tensor | None = None,
        sparse: bool | None = None,
        *,
        execution: str | None = None,
    ) -> None:
        super().__init__()
        if isinstance(neural_network, type) or not all(hasattr(neural_network, name) for name in _NEEDED):
            raise refused(
                "neural_network",
                "a network of qtm or qiskit-machine-learning",
                neural_network,
                "give an object such as qtm.EstimatorQNN(...)",
            )
        if sparse is not None:
            checked_flag(sparse, "sparse")
        self._neural_network = neural_network
        self._sparse = bool(neural_network.sparse if sparse is None else sparse)
        if self._sparse and not neural_network.sparse:
            raise network_error(ParameterError, "sparse=True needs a network that is sparse; this one is dense")
        if execution not in (None, *EXECUTIONS):
            raise ParameterError(f"execution is {execution!r}; use 'fast', 'network' or None")
        self._forced = execution
        self.weight = nn.Parameter(_initial(initial_weights, neural_network.num_weights))
        self._twin: QuantumNetwork | None = None
        self._twin_of: tuple[Any, ...] = ()
        self._refused_by_gpu: QuantumNetwork | None = None
        if execution == "fast":
            self._simulated()

    @property
    def neural_network(self) -> Any:
        """The network."""
        return self._neural_network

    @property
    def _weights(self) -> nn.Parameter:
        # Also under this name, as in qiskit-machine-learning.
        return self.weight

    @property
    def sparse(self) -> bool:
        """Whether outputs are sparse tensors."""
        return self._sparse

    @property
    def execution(self) -> str:
        """How outputs are computed: "fast" by qtm's simulator, "network" by the network's own methods."""
        return "network" if self._chosen() is None else "fast"

    def forward(self, input_data: Any = None) -> Tensor:
        """Outputs ``(..., *output_shape)`` of inputs ``(..., num_inputs)``; no argument if there are no inputs.

        Raises:
            ShapeError: the last axis of the inputs is not ``num_inputs`` long.
            ParameterError: a value is NaN or infinite.
        """
        inputs, lead = self._inputs(input_data)
        if not self._sparse:
            values, shape = self._outputs(inputs, self.weight), (*lead, *self._neural_network.output_shape)
            return values if values.shape == shape else values.reshape(shape)
        weights = _SparseGradient.apply(self.weight)
        inputs = _SparseGradient.apply(inputs) if inputs.requires_grad and inputs.is_leaf else inputs
        return self._outputs(inputs, weights).reshape(*lead, *self._neural_network.output_shape).to_sparse()

    def _inputs(self, input_data: Any) -> tuple[Tensor, tuple[int, ...]]:
        count = self._neural_network.num_inputs
        inputs = torch.zeros(0) if input_data is None else dense_tensor(input_data)
        if inputs.ndim == 0 or inputs.shape[-1] != count:
            found = "there are no inputs" if input_data is None else f"inputs have shape {tuple(inputs.shape)}"
            raise network_error(ShapeError, f"{found}; the network expects (..., {count})")
        return inputs, tuple(inputs.shape[:-1])

    def _outputs(self, inputs: Tensor, weights: Tensor) -> Tensor:
        by = inputs.requires_grad, weights.requires_grad and weights.numel() > 0
        if inputs.ndim != 2:
            inputs = inputs.reshape(inputs.shape[:-1].numel(), inputs.shape[-1])
        simulated = self._chosen()
        place = weights.device if weights.is_cuda and self._follows(simulated, weights) else torch.device("cpu")
        if inputs.device != place or weights.device != place or inputs.dtype is not weights.dtype:
            dtype = weights.dtype if weights.numel() or not inputs.is_floating_point() else inputs.dtype
            values = self._outputs_at(simulated, inputs.to(place, dtype), weights.to(place, dtype), by)
            return values.to(weights.device)
        return self._outputs_at(simulated, inputs, weights, by)

    def _outputs_at(
        self, simulated: QuantumNetwork | None, inputs: Tensor, weights: Tensor, by: tuple[bool, ...]
    ) -> Tensor:
        """The same for tensors of one dtype on one device."""
        dtype, device = dtype_and_device([weights], inputs)
        if simulated is None:
            method: GradientMethod = ExternalNetwork(self._neural_network)
        else:
            method = simulated.exact_method(complex_name(dtype), device)
        return expectation_values(method, inputs, [weights], len(inputs), by)

    def _follows(self, simulated: QuantumNetwork | None, weights: Tensor) -> bool:
        """Whether the network computes on the GPU of the weights; otherwise tensors move to the CPU and back."""
        if (
            simulated is None
            or simulated is self._refused_by_gpu
            or weights.dtype not in (torch.float32, torch.float64)
        ):
            return False
        try:
            simulated.exact_method(complex_name(weights.dtype), "cuda")
        except QtmError as error:
            logger.info("a network on %s computes on the CPU: %s", weights.device, error)
            self._refused_by_gpu = simulated
            return False
        return True

    def _chosen(self) -> QuantumNetwork | None:
        """The network to simulate; None if the network's own methods are called."""
        if self._forced == "fast":
            return self._simulated()
        if self._forced == "network" or not _is_ideal(self._neural_network):
            return None
        try:
            return self._simulated()
        except QtmError as error:
            logger.info("%s is evaluated by its own methods: %s", type(self._neural_network).__name__, error)
            return None

    def _simulated(self) -> QuantumNetwork:
        """The equivalent network of qtm, which can be simulated."""
        if isinstance(self._neural_network, QuantumNetwork):
            self._neural_network.exact_method("complex128")
            return self._neural_network
        state = _state(self._neural_network)
        if self._twin is None or any(a is not b for a, b in zip(state, self._twin_of, strict=True)):
            self._twin, self._twin_of = _twin(self._neural_network), state
            self._twin.exact_method("complex128")
        return self._twin

    def extra_repr(self) -> str:
        """Sizes and execution, for ``print(module)``."""
        network = self._neural_network
        return (
            f"{type(network).__name__}, num_inputs={network.num_inputs}, num_weights={network.num_weights}, "
            f"output_shape={network.output_shape}, sparse={self._sparse}, execution={self.execution!r}"
        )

    # Checkpoints hold the weights under two names, as in qiskit-machine-learning.

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "_weights"] = destination[prefix + "weight"]

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        alias = state_dict.pop(prefix + "_weights", None)
        if alias is not None:
            state_dict.setdefault(prefix + "weight", alias)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_twin": None, "_twin_of": (), "_refused_by_gpu": None}


class _SparseGradient(torch.autograd.Function):
    """Identity whose gradient is a sparse tensor."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.to_sparse()


def _initial(given: Any, count: int) -> Tensor:
    if given is None:
        return torch.zeros(count).uniform_(-1, 1)
    values = as_numbers(given, "initial_weights").detach().to(torch.get_default_dtype()).clone()
    if values.numel() != count:
        raise network_error(ShapeError, f"{values.numel()} initial_weights; the network has {count}")
    return values.reshape(count)


@cache
def _kind(network: Any) -> type[QuantumNetwork] | None:
    """The qtm class for a class of qiskit-machine-learning that does not override how values are computed."""
    theirs = peer()
    if theirs is None:
        return None
    for base, ours in ((theirs.EstimatorQNN, EstimatorQNN), (theirs.SamplerQNN, SamplerQNN)):
        methods = ("forward", "backward", "_forward", "_backward")
        if base in network.__mro__ and all(getattr(network, m) is getattr(base, m) for m in methods):
            return ours
    return None


def _is_ideal(network: Any) -> bool:
    """Whether the network is defined by exact values: no shots, no noise."""
    if isinstance(network, QuantumNetwork):
        return network.is_exact and is_exact_gradient(network.gradient)
    kind = _kind(network.__class__)
    if kind is None or not is_exact_gradient(network.gradient):
        return False
    if kind is SamplerQNN:
        return is_exact_sampler(network.sampler)
    return is_exact_estimator(network.estimator, network.default_precision in (0, DEFAULT_PRECISION))


def _state(network: Any) -> tuple[Any, ...]:
    """Attributes of a network that may change after its construction."""
    return getattr(network, "interpret", None), network.output_shape


def _twin(network: Any) -> QuantumNetwork:
    """The network of qtm that is equivalent to one of qiskit-machine-learning."""
    kind = _kind(network.__class__)
    if kind is None:
        raise ParameterError(
            f"execution='fast' needs an EstimatorQNN or a SamplerQNN, not {type(network).__name__}: "
            "only these expose the circuit they run"
        )
    common: Mapping[str, Any] = {
        "circuit": network.circuit,
        "input_params": network.input_params,
        "weight_params": network.weight_params,
        "noise": noise_of(network.sampler if kind is SamplerQNN else network.estimator),
    }
    if kind is SamplerQNN:
        return SamplerQNN(**common, interpret=network.interpret, output_shape=network.output_shape)
    ours = EstimatorQNN(**common)
    return ours if _has_default_observable(network) else EstimatorQNN(**common, observables=network.observables)


def _has_default_observable(network: Any) -> bool:
    """Whether the observable is the default, meant as Z on all of the user's qubits.

    qiskit-machine-learning applies it to the first physical qubits, regardless of the layout.
    """
    count, width = network.num_virtual_qubits, network.circuit.num_qubits
    observables = network.observables
    if len(observables) != 1 or getattr(observables[0], "num_qubits", None) != width:
        return False
    return SparsePauliOp(observables[0]) == SparsePauliOp("I" * (width - count) + "Z" * count)
