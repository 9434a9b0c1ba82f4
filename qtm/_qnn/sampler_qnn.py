"""`SamplerQNN`: probabilities of outcomes as a neural network of qiskit-machine-learning."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from qiskit import ClassicalRegister, QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.passmanager import BasePassManager
from qiskit.primitives import BaseSamplerV2

from qtm._arguments import check_type, shown
from qtm._circuit.dynamic import refuse_dynamic
from qtm._circuit.shift_template import template
from qtm._engines.options import Options
from qtm._engines.registry import Method
from qtm._errors import ParameterError, ShapeError
from qtm._gradients.method import GradientMethod
from qtm._gradients.primitive_method import ShiftMethod
from qtm._noise.aer_model import Noise, check_own_simulator
from qtm._primitives.aer_circuits import noisy_gates
from qtm._primitives.ideal_primitives import is_exact_sampler, noise_of
from qtm._primitives.sampler_runner import SamplerRunner
from qtm._qnn.base import QuantumNetwork, by_given_gradient, check_gradient
from qtm._qnn.errors import network_error
from qtm._qnn.exact_outcomes import ExactProbabilities, Outputs
from qtm._qnn.qubit_layout import without_idle_qubits, without_measurements
from qtm.primitives import FastSampler

logger = logging.getLogger("qtm")


def _identity(outcome: int) -> int:
    return outcome


class SamplerQNN(QuantumNetwork):
    """A network that outputs probabilities of measured outcomes, grouped by ``interpret``.

    Constructor, attributes, shapes and dtypes equal those of qiskit-machine-learning's class of the same name. On an
    ideal simulator (no sampler, `FastSampler`, or a statevector sampler of Qiskit or qiskit-machine-learning)
    probabilities and derivatives are exact. With any other sampler, probabilities are relative frequencies of its
    shots, and derivatives follow the parameter-shift rule.

    An outcome is the integer value of the classical bits, with clbit 0 as the lowest bit. If the circuit has no
    classical bits, all qubits of the circuit before transpilation are measured.

    Args:
        circuit: any circuit, transpiled or not.
        sampler: None for qtm's exact simulator, or any ``BaseSamplerV2``.
        input_params: parameters to which the inputs are bound, in this order.
        weight_params: trainable parameters, in this order.
        sparse: whether outputs and gradients are sparse arrays of the package ``sparse``.
        interpret: function that maps an outcome to the index, or tuple of indices, of its output.
        output_shape: shape of the output; required with ``interpret``, (2**clbits,) without.
        gradient: a gradient of qiskit-algorithms or qiskit-machine-learning for `backward`; None for the exact
            gradient, or parameter shift if the sampler is not exact.
        input_gradients: whether `backward` computes derivatives with respect to the inputs as well.
        pass_manager: transpiles the circuit, once.
        noise: an Aer ``NoiseModel`` or a backend: exact values under its noise. Not with a sampler.
        method: simulation method, as for `QuantumModule`. Not with a sampler.

    Raises:
        ParameterError: a parameter of the circuit is in neither list, in both, or unknown.
        ShapeError: ``interpret`` is given without a valid ``output_shape``.
        CircuitError: the circuit has classical bits but measures nothing.

    Example:
        >>> from qiskit.circuit.library import real_amplitudes, z_feature_map
        >>> features, ansatz = z_feature_map(2), real_amplitudes(2, reps=1)
        >>> qnn = SamplerQNN(
        ...     circuit=features.compose(ansatz),
        ...     input_params=features.parameters,
        ...     weight_params=ansatz.parameters,
        ...     interpret=lambda outcome: outcome.bit_count() % 2,
        ...     output_shape=2,
        ... )
        >>> qnn.forward([[0.1, 0.2], [0.3, 0.4]], [1, 2, 3, 4]).sum(-1)
        array([1., 1.])
        >>> qnn.backward([0.1, 0.2], [1, 2, 3, 4])[1].shape
        (1, 2, 4)
    """

    def __init__(
        self,
        *,
        circuit: QuantumCircuit,
        sampler: BaseSamplerV2 | None = None,
        input_params: Sequence[Parameter] | None = None,
        weight_params: Sequence[Parameter] | None = None,
        sparse: bool = False,
        interpret: Callable[[int], Any] | None = None,
        output_shape: int | tuple[int, ...] | None = None,
        gradient: Any = None,
        input_gradients: bool = False,
        pass_manager: BasePassManager | None = None,
        noise: Noise = None,
        method: Method = "auto",
    ) -> None:
        super().__init__(circuit, input_params, weight_params, sparse, input_gradients, pass_manager)
        check_own_simulator(sampler, noise, method)
        if sampler is not None:
            advice = "give an object such as qtm.FastSampler(), or None for qtm's own simulator"
            check_type(sampler, "sampler", BaseSamplerV2, "None or a BaseSamplerV2", advice)
        check_gradient(gradient)
        self.sampler: BaseSamplerV2 = FastSampler(noise=noise, method=method) if sampler is None else sampler
        self.gradient = gradient
        self._placement.bits(self._placement.simulate)  # raises an error if the circuit measures nothing
        self.set_interpret(interpret, output_shape)

    @property
    def interpret(self) -> Callable[[int], Any]:
        """The function that maps an outcome to its output."""
        return self._outputs.interpret

    def set_interpret(
        self,
        interpret: Callable[[int], Any] | None = None,
        output_shape: int | tuple[int, ...] | None = None,
    ) -> None:
        """Change ``interpret``, and with it the shape of the output.

        Raises:
            ShapeError: ``interpret`` is given without a valid ``output_shape``.
        """
        if interpret is None:
            if output_shape is not None:
                logger.warning("output_shape has no effect without interpret: there is one output per outcome")
            output_shape = 2**self.num_virtual_qubits
        elif output_shape is None:
            raise network_error(ShapeError, "interpret requires output_shape, the number of outputs")
        if interpret is not None and not callable(interpret):
            raise network_error(
                ParameterError,
                f"interpret must be a function, not {shown(interpret)}; give one that maps an outcome to an index",
            )
        self._output_shape = self._checked_shape(output_shape)
        self._outputs = Outputs(_identity if interpret is None else interpret, self._output_shape)
        self._methods, self._on_primitive = {}, None

    @property
    def is_exact(self) -> bool:
        """Whether the sampler is an ideal simulator without shots."""
        return is_exact_sampler(self.sampler)

    def _place_outputs(self) -> None:
        pass  # outcomes are those of the user's bits, in any layout

    def _make_method(self, dtype: str, device: str) -> GradientMethod:
        refuse_dynamic(self._placement.run, "SamplerQNN")
        if (noise := noise_of(self.sampler)) is not None:  # on these qubits, without omission or renumbering
            circuit, bits = self._placement.run, self._placement.bits(self._placement.run)
            options = replace(self._options(dtype, device), noise=noise)
            return ExactProbabilities(circuit, self._parameters, bits, self._outputs, options)
        simulate = self._placement.simulate
        bits = self._placement.bits(simulate)
        circuit, number = without_idle_qubits(simulate, {q for q in bits if q is not None})
        places = [None if q is None else number[q] for q in bits]
        return ExactProbabilities(circuit, self._parameters, places, self._outputs, self._options(dtype, device))

    def _options(self, dtype: str, device: str) -> Options:
        """Options of the user's `FastSampler`, in the given dtype and on the given device."""
        own = self.sampler.options if isinstance(self.sampler, FastSampler) else Options()
        return replace(own, dtype=dtype, device=device)

    def _finished(self, circuit: QuantumCircuit) -> QuantumCircuit:
        """The circuit with a single register that holds the outcome."""
        bits = self._placement.bits(self._placement.run)
        measured = without_measurements(circuit)
        measured.add_register(ClassicalRegister(len(bits), "meas"))
        for place, qubit in enumerate(bits):
            if qubit is not None:
                measured.measure(qubit, place)
        return measured

    def _shifted(self, group_sizes: tuple[int, int]) -> ShiftMethod:
        made = template(without_measurements(self._placement.run), noisy_gates(self.sampler))
        runner = SamplerRunner(
            self.sampler,
            self._finished(made.circuit),
            made.slots,
            self._outputs.size,
            self._summed,
            is_isa=self._placement.is_isa,
        )
        return ShiftMethod(made, self._parameters, runner, group_sizes)

    def _summed(self, outcomes: Sequence[int], shares: np.ndarray) -> np.ndarray:
        """Outputs (points, outputs) from the relative frequencies (points, outcomes)."""
        size, place = self._outputs.size + 1, self._outputs.of(outcomes)
        sums = np.array([np.bincount(place, row, size) for row in shares]).reshape(len(shares), size)
        self._outputs.check(sums[:, -1], outcomes)
        return sums[:, :-1]

    def _by_gradient(self, rows: np.ndarray, wanted: list[int]) -> np.ndarray:
        def outputs(gradients: Any) -> np.ndarray:  # a dictionary for each parameter
            out = np.zeros((self._outputs.size + 1, len(gradients)))
            for k, changes in enumerate(gradients):
                np.add.at(out[:, k], self._outputs.of(changes), list(changes.values()))
            return out[:-1]

        circuit = self._finished(self._sorted_circuit())
        found = by_given_gradient(self.gradient, circuit, rows, self.num_inputs, wanted)
        return np.array([outputs(g) for g in found]).reshape(len(rows), prod(self._output_shape), len(wanted))
