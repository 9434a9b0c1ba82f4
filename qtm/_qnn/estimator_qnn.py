"""`EstimatorQNN`: expectation values as a neural network of qiskit-machine-learning."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any, Literal

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.passmanager import BasePassManager
from qiskit.primitives import BaseEstimatorV2

from qtm._arguments import check_type, checked_precision
from qtm._circuit.dynamic import refuse_dynamic
from qtm._circuit.shift_template import Template, template
from qtm._engines.registry import Method
from qtm._gradients.method import GradientMethod
from qtm._gradients.methods import make_method
from qtm._gradients.primitive_method import ShiftMethod
from qtm._gradients.settings import MethodSettings
from qtm._noise.aer_model import Noise, check_own_simulator
from qtm._primitives.aer_circuits import noisy_gates
from qtm._primitives.estimator_runner import EstimatorRunner
from qtm._primitives.ideal_primitives import is_exact_estimator, is_ideal, noise_of
from qtm._qnn.base import QuantumNetwork, by_given_gradient, check_gradient
from qtm._qnn.qubit_layout import restricted, support, without_idle_qubits, without_measurements
from qtm.primitives import FastEstimator

DEFAULT_PRECISION = 0.015625


class EstimatorQNN(QuantumNetwork):
    """A network that outputs one expectation value per observable.

    Constructor, attributes, shapes and dtypes equal those of qiskit-machine-learning's class of the same name. On an
    ideal simulator (no estimator, `FastEstimator`, or a statevector estimator of Qiskit or qiskit-machine-learning)
    values and derivatives are exact. Any other estimator provides the values, and derivatives follow the
    parameter-shift rule.

    Args:
        circuit: any circuit, transpiled or not.
        estimator: None for qtm's exact simulator, or any ``BaseEstimatorV2``.
        observables: one or several observables on the qubits of the circuit; for a transpiled circuit also on the
            qubits before transpilation. None: Z on all qubits of the circuit before transpilation.
        input_params: parameters to which the inputs are bound, in this order.
        weight_params: trainable parameters, in this order.
        gradient: a gradient of qiskit-algorithms or qiskit-machine-learning for `backward`; None for the exact
            gradient, or parameter shift if the estimator is not exact.
        input_gradients: whether `backward` computes derivatives with respect to the inputs as well.
        default_precision: standard deviation requested from an estimator that is not exact.
        pass_manager: transpiles the circuit, once; observables follow its layout.
        noise: an Aer ``NoiseModel`` or a backend: exact values under its noise. Not with an estimator.
        method: simulation method, as for `QuantumModule`. Not with an estimator.

    Raises:
        ParameterError: a parameter of the circuit is in neither list, in both, or unknown.
        ObservableError: an observable is not Hermitian, or does not fit the circuit.

    Example:
        >>> from qiskit.circuit.library import real_amplitudes, z_feature_map
        >>> features, ansatz = z_feature_map(2), real_amplitudes(2, reps=1)
        >>> qnn = EstimatorQNN(
        ...     circuit=features.compose(ansatz),
        ...     observables=["ZZ", "XI", "IX"],
        ...     input_params=features.parameters,
        ...     weight_params=ansatz.parameters,
        ... )
        >>> qnn.forward([[0.1, 0.2], [0.3, 0.4]], [1, 2, 3, 4]).shape
        (2, 3)
        >>> qnn.backward([0.1, 0.2], [1, 2, 3, 4])[1].shape
        (1, 3, 4)
    """

    def __init__(
        self,
        *,
        circuit: QuantumCircuit,
        estimator: BaseEstimatorV2 | None = None,
        observables: Any = None,
        input_params: Sequence[Parameter] | None = None,
        weight_params: Sequence[Parameter] | None = None,
        gradient: Any = None,
        input_gradients: bool = False,
        default_precision: float = DEFAULT_PRECISION,
        pass_manager: BasePassManager | None = None,
        noise: Noise = None,
        method: Method = "auto",
    ) -> None:
        super().__init__(circuit, input_params, weight_params, False, input_gradients, pass_manager)
        check_own_simulator(estimator, noise, method)
        if estimator is not None:
            advice = "give an object such as qtm.FastEstimator(), or None for qtm's own simulator"
            check_type(estimator, "estimator", BaseEstimatorV2, "None or a BaseEstimatorV2", advice)
        check_gradient(gradient)
        self.estimator: BaseEstimatorV2 = FastEstimator(noise=noise, method=method) if estimator is None else estimator
        self.gradient = gradient
        self._default_precision = checked_precision(default_precision, "default_precision")
        if observables is None:
            observables = (self._placement.default_observable(),)
            self._virtual: Any = "Z" * self._placement.num_virtual
        else:
            self._virtual = observables
        self._observables = observables if isinstance(observables, list | tuple) else (observables,)
        self._place_outputs()
        self._output_shape = (len(self._on_run),)

    def _place_outputs(self) -> None:
        self._on_run, self._on_simulate = self._placement.operators(self._virtual)

    @property
    def observables(self) -> Any:
        """The observables that were passed in."""
        return copy(self._observables)

    @property
    def default_precision(self) -> float:
        """Standard deviation requested from an estimator that is not exact."""
        return self._default_precision

    @property
    def is_exact(self) -> bool:
        """Whether the estimator is an ideal simulator without noise or shots."""
        return is_exact_estimator(self.estimator, self._default_precision in (0, DEFAULT_PRECISION))

    def _make_method(self, dtype: str, device: str) -> GradientMethod:
        refuse_dynamic(self._placement.run, "EstimatorQNN")
        if (noise := noise_of(self.estimator)) is not None:  # on these qubits, without omission or renumbering
            settings = MethodSettings(
                circuit=self._placement.run,
                parameters=self._parameters,
                observables=self._on_run,
                noise=noise,
                method=self.estimator.options.method if isinstance(self.estimator, FastEstimator) else "auto",
                device=device,
            )
            return make_method(settings, dtype)
        circuit, number = without_idle_qubits(self._placement.simulate, support(self._on_simulate))
        operators = [restricted(o, number) for o in self._on_simulate]
        own = self.estimator if isinstance(self.estimator, FastEstimator) and self.is_exact else None
        if own is not None and dtype == "complex64":
            own = _in_single_precision(own)
        settings = MethodSettings(circuit=circuit, parameters=self._parameters, observables=operators, estimator=own)
        return make_method(settings.on_device(device), dtype)

    def _shifted(self, group_sizes: tuple[int, int]) -> ShiftMethod:
        made = template(without_measurements(self._placement.run), noisy_gates(self.estimator))
        if not is_ideal(self.estimator):
            return ShiftMethod(made, self._parameters, self._runner(made, "job"), group_sizes)
        # A seeded simulator gives every PUB the same noise. As in qiskit-machine-learning every observable is a
        # separate PUB, and for differences every point, so that the noise cancels.
        values, differences = self._runner(made, "observable"), self._runner(made, "point")
        return ShiftMethod(made, self._parameters, values, group_sizes, differences)

    def _runner(self, made: Template, pub_per: Literal["job", "point", "observable"]) -> EstimatorRunner:
        return EstimatorRunner(
            self.estimator,
            made.circuit,
            made.slots,
            self._on_run,
            precision=self._default_precision,
            pub_per=pub_per,
            is_isa=self._placement.is_isa,
        )

    def _by_gradient(self, rows: np.ndarray, wanted: list[int]) -> np.ndarray:
        count = len(self._on_run)
        repeated = np.repeat(rows, count, axis=0)
        circuit = without_measurements(self._sorted_circuit())
        operators = self._on_run * len(rows)
        found = by_given_gradient(self.gradient, circuit, repeated, self.num_inputs, wanted, operators)
        return np.asarray(found).reshape(len(rows), count, len(wanted))


def _in_single_precision(exact: FastEstimator) -> FastEstimator:
    given = exact.options
    return FastEstimator(dtype="complex64", num_threads=given.num_threads, executor=given.executor, method=given.method)
