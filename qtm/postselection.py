"""Postselection: expectation values conditioned on measured bits, and the probability of the condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qiskit import QuantumCircuit
from qiskit.circuit import Clbit, Parameter
from qiskit.quantum_info import SparsePauliOp
from torch import Tensor

from qtm._arguments import refused
from qtm._circuit.dynamic import deferred_circuit
from qtm._circuit.embedded_noise import EmbeddedNoise
from qtm._circuit.observables import Observable, coerce_observables
from qtm._errors import CircuitError, ParameterError, UnsupportedError
from qtm._noise.aer_model import Noise, in_known_gates, read_noise
from qtm._noise.trainable import TrainableNoise
from qtm._primitives.readout import Readout
from qtm.modules import QuantumModule

_NEVER = 1e-12  # probabilities below this are rounding errors


class PostSelectedModule(QuantumModule):
    """A circuit whose outputs are conditioned on the values of measured bits.

    Measurements, resets and control flow are simulated exactly, and so is the condition: an output is <O P> / <P> with
    the projector P of the bits. Values and the probability are differentiable with respect to inputs and weights.

    Args:
        circuit: a circuit with measurements, anywhere in it.
        encoding_params: see `QuantumModule`, as are all arguments not listed here.
        variational_params: see `QuantumModule`.
        given: the required value, 0 or 1, of each bit, by `Clbit` or by its index in the circuit.
        observables: observables on the qubits at the end of the circuit.
        noise: an Aer ``NoiseModel`` or a backend; bits are read with its readout errors.

    Raises:
        CircuitError: the circuit cannot be simulated.
        ParameterError: a bit is unknown, or no outcome has the required value.
        UnsupportedError: an estimator, a pass manager or a `TrainableNoise` is given.

    Example:
        >>> from qiskit import QuantumCircuit
        >>> pair = QuantumCircuit(2, 1)
        >>> _ = pair.ry(1.0, 0), pair.cx(0, 1), pair.measure(1, 0)
        >>> module = PostSelectedModule(pair, None, [], given={0: 1}, observables=["IZ"])
        >>> print(f"{module().item():.4f} with probability {module.probability().item():.4f}")
        -1.0000 with probability 0.2298
    """

    def __init__(
        self,
        circuit: QuantumCircuit,
        encoding_params: Sequence[Parameter] | None,
        variational_params: Sequence[Parameter] | Sequence[Sequence[Parameter]],
        *,
        given: Mapping[int | Clbit, int],
        observables: Any = "individualZ",
        noise: Noise = None,
        **settings: Any,
    ) -> None:
        if not isinstance(circuit, QuantumCircuit):
            raise refused("circuit", "a circuit", circuit, "give a qiskit.QuantumCircuit with measurements")
        for name in ("estimator", "pass_manager"):
            if settings.get(name) is not None:
                raise UnsupportedError(f"{name}= is not supported: conditional values come from qtm's own simulator")
        if isinstance(noise, TrainableNoise):
            raise UnsupportedError("a TrainableNoise is not trained here; give noise.to_noise_model()")
        read = read_noise(noise)
        known = circuit if read is None else in_known_gates(circuit, read)
        deferred = deferred_circuit(known, read)
        wanted = coerce_observables(observables, circuit.num_qubits)
        condition = _projector(_bits(circuit, given), deferred)
        operators = [_extended(o, deferred.num_qubits) @ condition for o in wanted]
        super().__init__(
            deferred,
            encoding_params,
            variational_params,
            observables=[*(o.simplify() for o in operators), condition],
            noise=None if read is None else EmbeddedNoise(read, circuit.num_qubits),
            **settings,
        )

    def forward(self, inputs: Any = None) -> Tensor:
        """Conditional expectation values (..., output_size); see `QuantumModule.forward`.

        Raises:
            CircuitError: the condition has probability 0 for a sample.
        """
        values = super().forward(inputs)
        chances = values[..., -1:]
        if (chances.detach() < _NEVER).any():
            raise CircuitError("the condition has probability 0 for a sample, so conditional values are not defined")
        return values[..., :-1] / chances

    def probability(self, inputs: Any = None) -> Tensor:
        """Probability of the condition, (...) for inputs (..., input_size)."""
        return super().forward(inputs)[..., -1]

    @property
    def output_size(self) -> int:
        """Number of observables."""
        return super().output_size - 1


def _bits(circuit: QuantumCircuit, given: Mapping[int | Clbit, int]) -> dict[int, int]:
    """The required values by bit index."""
    if not isinstance(given, Mapping) or not given:
        raise refused("given", "what bits read", given, "give {0: 1}, say")
    number = {bit: place for place, bit in enumerate(circuit.clbits)}
    found = {}
    for bit, value in given.items():
        place = number.get(bit) if isinstance(bit, Clbit) else bit
        if not isinstance(place, int) or not 0 <= place < circuit.num_clbits or value not in (0, 1):
            raise ParameterError(f"given={{{bit!r}: {value!r}}}: expected 0 or 1 for a bit of the circuit")
        found[place] = int(value)
    return found


def _projector(bits: Mapping[int, int], deferred: QuantumCircuit) -> SparsePauliOp:
    readout = Readout.of(deferred)
    total = SparsePauliOp("I" * deferred.num_qubits)
    for bit, value in bits.items():
        if bit in readout.clbits:
            z = ("Z", [readout.qubits[readout.clbits[bit]]], 0.5 - value)
            total = total @ SparsePauliOp.from_sparse_list([("", [], 0.5), z], deferred.num_qubits)
        elif value:
            raise ParameterError(f"bit {bit} is always 0: the circuit has no measurement into it")
    return total.simplify()


def _extended(observable: Observable, num_qubits: int) -> SparsePauliOp:
    """The observable on more qubits, of which its own are the first."""
    more = "I" * (num_qubits - observable.num_qubits)
    if not observable.num_terms:
        return SparsePauliOp("I" * num_qubits, 0.0)
    return SparsePauliOp([more + label for label in observable.labels()], observable.coeffs)
