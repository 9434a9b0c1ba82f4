"""Noise models of Qiskit Aer, and backends, as channels after gates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import CircuitInstruction, ControlledGate, Delay
from qiskit.circuit.library import UnitaryGate
from qiskit.exceptions import QiskitError
from qiskit.providers import BackendV2
from qiskit.quantum_info import PTM, Kraus, SuperOp

from qtm._circuit.embedded_noise import EmbeddedNoise
from qtm._circuit.flatten import flatten
from qtm._circuit.noise_map import NoiseMap, Operations, reading_of
from qtm._errors import CircuitError, ParameterError, require
from qtm._noise.trainable import TrainableNoise
from qtm._noise.transfer_matrix import from_qiskit_order, operations

if TYPE_CHECKING:
    from qiskit_aer.noise import NoiseModel

Noise = Any  # an Aer NoiseModel, a BackendV2, a TrainableNoise, a NoiseMap, or None
_FREE_OF_NOISE = frozenset(
    {"barrier", "delay", "measure", "reset", "global_phase", "break_loop", "continue_loop", "store"}
)
_MEASURE = "measure"
_CONTROL_FLOW = ("for_loop", "if_else", "switch_case", "while_loop")
_NO_GATES = {_MEASURE, *_CONTROL_FLOW}
_TRANSPILE = "transpile first, with pass_manager=generate_preset_pass_manager(optimization_level=1, backend=...)"


class AerNoise(NoiseMap):
    """A noise model of Aer; errors are converted when a gate with them is first met.

    Args:
        model: the noise model.
        backend: the device it describes, whose gates on whose qubits are the only ones that run.
    """

    def __init__(self, model: NoiseModel, backend: BackendV2 | None = None) -> None:
        # Private attributes: the public `to_dict` serialises every error of every qubit; for a device it takes seconds.
        self.model, self.backend = model, backend
        self._everywhere: dict[str, Any] = model._default_quantum_errors
        self._local: dict[str, dict[tuple[int, ...], Any]] = model._local_quantum_errors
        self._converted: dict[int, Operations] = {}
        if _MEASURE in self._everywhere or _MEASURE in self._local:
            raise CircuitError(
                "the noise model has a quantum error before measurements; give the qubits readout errors instead, or "
                "simulate with qtm.noisy_estimator"
            )

    def __repr__(self) -> str:
        return f"<noise of {self.model.basis_gates if self.backend is None else self.backend.name}>"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_converted": {}}

    @property
    def basis(self) -> frozenset[str]:
        """Names of the gates in the model."""
        return frozenset(self.model.basis_gates) - _NO_GATES

    @property
    def noisy(self) -> frozenset[str]:
        """Names of the gates that have errors."""
        return frozenset({*self._everywhere, *self._local})

    def knows(self, name: str) -> bool:
        """Whether a gate needs no translation."""
        return name in self.basis or (name == "delay" and bool(self.model._custom_noise_passes))

    def after(self, instruction: CircuitInstruction, qubits: tuple[int, ...]) -> Operations:
        """The operations after an instruction on these qubits."""
        name = instruction.name
        if name in _FREE_OF_NOISE - {"delay", "reset"}:
            return ()
        self._require_supported(name, qubits)
        error = self._local.get(name, {}).get(qubits, self._everywhere.get(name))
        found = [] if error is None else list(self._operations(error, name, qubits))
        if isinstance(instruction.operation, Delay):
            for noise_pass in self.model._custom_noise_passes:
                relaxed = noise_pass._func(instruction.operation, list(qubits))
                if relaxed is not None:
                    found += self._convert(relaxed, name, qubits)
        return _on(tuple(found), qubits)

    def unknown(self, name: str) -> str:
        """The error message for a gate that the model lacks."""
        message = super().unknown(name)
        return message if self.backend is None else f"{message}. For {self.backend.name}, {_TRANSPILE}"

    def _require_supported(self, name: str, qubits: tuple[int, ...]) -> None:
        if self.backend is not None and not self.backend.target.instruction_supported(name, qubits):
            raise CircuitError(
                f"{name!r} on qubits {qubits} is not an instruction of {self.backend.name}, so its noise is not known: "
                f"{_TRANSPILE}"
            )

    def _operations(self, error: Any, name: str, qubits: tuple[int, ...]) -> Operations:
        key = id(error)  # kept alive by the model
        if key not in self._converted:
            self._converted[key] = self._convert(error, name, qubits)
        return self._converted[key]

    def _convert(self, error: Any, name: str, qubits: tuple[int, ...]) -> Operations:
        channel = SuperOp(error)
        if channel.num_qubits != len(qubits):
            raise CircuitError(
                f"the error of {name!r} acts on {channel.num_qubits} qubits and the gate on {len(qubits)}; "
                "give the gate an error of its own width"
            )
        found = _unitary(channel)
        if found is None and channel.num_qubits <= 2:
            found = operations(from_qiskit_order(PTM(channel).data))
        if found is None:
            raise CircuitError(
                f"the error of {name!r} on qubits {qubits} is neither a Pauli error, relaxation, a product of errors "
                "of one qubit, nor unitary, and is not simulated exactly; use qtm.noisy_estimator(noise), which runs "
                "on Qiskit Aer"
            )
        return found

    def readout_of(self, num_qubits: int) -> tuple[tuple[float, float], ...]:
        """Probabilities of reading 1 for 0, and 0 for 1, of every qubit; empty if there are no errors."""
        model = self.model
        if any(len(qubits) > 1 for qubits in model._local_readout_errors):
            raise CircuitError("readout errors of several qubits together are not simulated; give each qubit its own")
        default = model._default_readout_error
        found = [_flips(model._local_readout_errors.get((q,), default)) for q in range(num_qubits)]
        return tuple(found) if any(map(any, found)) else ()


class GateNoise(AerNoise):
    """The noise without readout errors of final measurements, which the caller accounts for."""

    def readout_of(self, num_qubits: int) -> tuple[tuple[float, float], ...]:
        """No readout errors."""
        return ()

    def reading(self, qubit: int) -> Operations:
        """Mid-circuit measurements keep their readout errors."""
        return reading_of(super().readout_of(qubit + 1), qubit)


def _flips(error: Any) -> tuple[float, float]:
    if error is None:
        return 0.0, 0.0
    if error.number_of_qubits != 1:
        raise CircuitError("readout errors of several qubits together are not simulated; give each qubit its own")
    (_, flip_0), (flip_1, _) = np.asarray(error.probabilities, float)
    return float(flip_0), float(flip_1)


def _on(found: Operations, qubits: tuple[int, ...]) -> Operations:
    return tuple(replace(o, qubits=tuple(qubits[q] for q in o.qubits)) for o in found)


def _unitary(channel: SuperOp) -> Operations | None:
    """The gates of a channel that is one unitary matrix (a coherent error)."""
    kraus = Kraus(channel).data
    matrices = kraus if isinstance(kraus, list) else kraus[0]
    if len(matrices) != 1:
        return None
    circuit = QuantumCircuit(channel.num_qubits)
    circuit.append(UnitaryGate(matrices[0]), range(channel.num_qubits))
    return flatten(circuit).operations


def read_noise(noise: Noise, *, trained: bool = False) -> NoiseMap | None:
    """The user's noise: an Aer ``NoiseModel``, a backend, a `TrainableNoise`, or None.

    ``trained``: keep the strengths of a `TrainableNoise` as parameters; otherwise use their current values.

    Raises:
        ParameterError: it is none of these.
        CircuitError: it has errors that are not simulated exactly.
        MissingPackage: qiskit-aer is not installed.
    """
    if noise is None or isinstance(noise, NoiseMap):
        return noise
    if isinstance(noise, TrainableNoise):
        return noise.noise_map if trained else noise.bound()
    aer = require("qiskit_aer.noise", extra="aer")
    if isinstance(noise, BackendV2):
        return AerNoise(aer.NoiseModel.from_backend(noise), noise)
    if isinstance(noise, aer.NoiseModel):
        return AerNoise(noise)
    raise ParameterError(
        f"noise={noise!r}: expected an Aer NoiseModel, such as qtm.local_pauli_noise(0.01), a BackendV2, or a "
        "qtm.TrainableNoise"
    )


def check_own_simulator(primitive: object, noise: Noise, method: Any = "auto") -> None:
    """Raise an error for options of qtm's simulator together with a primitive, which has its own.

    Raises:
        ParameterError: noise or a simulation method is given as well as a primitive.
    """
    given = "noise=" if noise is not None else "method=" if method != "auto" else None
    if primitive is not None and given is not None:
        kind = type(primitive).__name__
        raise ParameterError(
            f"{given} applies to qtm's simulator, not to {kind}: leave one of the two out "
            f"(qtm.FastEstimator and qtm.FastSampler take {given} themselves)"
        )


def in_known_gates(circuit: QuantumCircuit, noise: NoiseMap) -> QuantumCircuit:
    """The circuit in gates of the noise model, translated (without optimisation) if necessary.

    Raises:
        CircuitError: it cannot be written in these gates.
    """
    if isinstance(noise, EmbeddedNoise):
        return circuit
    for item in _instructions(circuit):
        name, label = item.operation.name, getattr(item.operation, "label", None)
        if label is not None and label != name and label in noise.noisy:
            raise CircuitError(
                f"the noise model has an error for the label {label!r} of a {name!r} gate, and errors by label are "
                f"not simulated; make it a gate named {label!r}, or use qtm.noisy_estimator"
            )
        closed = name.split("_o")[0] if isinstance(item.operation, ControlledGate) else name
        if closed != name and closed in noise.noisy:
            raise CircuitError(
                f"the noise model has an error for {closed!r}, which Aer applies after {name!r} (open controls) as "
                f"well; write X gates around a {closed!r}, or use qtm.noisy_estimator"
            )
    names = {item.name for item in _instructions(circuit)}
    if names <= {*noise.basis, *_FREE_OF_NOISE} or getattr(noise, "backend", None) is not None:
        return circuit
    basis = sorted(noise.basis)
    try:
        return transpile(circuit, basis_gates=[*basis, *_CONTROL_FLOW], optimization_level=0)
    except QiskitError as error:
        raise CircuitError(
            f"the circuit cannot be written in the gates of the noise model, {basis} ({error}); give those of its "
            "gates an error, or build the model with more basis_gates"
        ) from error


def _instructions(circuit: QuantumCircuit) -> Iterator[CircuitInstruction]:
    """The instructions of the circuit and of the blocks inside its control flow, without the control flow itself."""
    for item in circuit.data:
        blocks = getattr(item.operation, "blocks", None)
        if blocks is None:
            yield item
        for block in blocks or ():
            yield from _instructions(block)
