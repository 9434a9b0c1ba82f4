"""Noise models, noise learned from data, and noisy expectation values as an ``EstimatorV2``.

``noisy_estimator`` simulates with qtm's density matrix or with Aer. It differs from
``qiskit_aer.primitives.EstimatorV2`` in three ways:

* values include the readout errors of the noise model (Aer's estimator saves expectation values without
  measuring, and so without readout errors);
* shots are ``+1`` / ``-1`` outcomes drawn with the correct probability (Aer's estimator adds Gaussian noise of
  a fixed width);
* a gate that the noise model lacks is translated, or an error is raised; no gate is silently simulated without noise.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qiskit.circuit import Gate
from qiskit.circuit.library import get_standard_gate_name_mapping
from qiskit.providers import BackendV2

from qtm._arguments import checked_number, refused
from qtm._errors import ParameterError, require
from qtm._hardware.backends import find_backend
from qtm._hardware.settings import Settings
from qtm._noise.trainable import TrainableNoise
from qtm._noisy.estimator import NoisyEstimator
from qtm._noisy.fit import NoiseFit, fit

if TYPE_CHECKING:
    from qiskit_aer.noise import NoiseModel

__all__ = [
    "NoiseFit",
    "NoisyEstimator",
    "TrainableNoise",
    "depolarizing_noise",
    "fit",
    "local_pauli_noise",
    "noisy_estimator",
]

_CHANCES = "give one number, or numbers by letter as {'X': 0.01, 'Z': 0.02}"


def noisy_estimator(
    noise: NoiseModel | BackendV2 | str,
    shots: int | None = None,
    method: str = "auto",
    *,
    seed: int | None = None,
    service: Any = None,
) -> NoisyEstimator:
    """Return an ``EstimatorV2`` that simulates a noisy device with qtm's density matrix, or with Aer.

    Args:
        noise: an Aer ``NoiseModel``; gates outside its basis are translated to it (without optimisation).
            Or a backend, whose noise model is used and which requires ISA circuits. Or the name of one, as for
            `hardware.connect`: "aer" has no noise, "fake_torino" the noise of an earlier calibration of the device, and
            "ibm_torino" the noise of its latest calibration, which is read with your account; no job is submitted.
        shots: number of outcomes drawn for *each Pauli term* of each observable; None gives exact values.
            ``run(..., precision=p)`` draws ``1 / p**2`` shots instead; ``precision=0`` is exact.
        method: ``"density_matrix"`` is exact; ``"statevector"``, ``"matrix_product_state"`` and
            ``"stabilizer"`` sample one trajectory per shot and need ``shots``. ``"auto"`` uses the density
            matrix, or trajectories if ``shots`` is given and they are cheaper.
        seed: seed of all random numbers; makes a sequence of calls reproducible.
        service: a ``QiskitRuntimeService`` to find the device with, instead of opening one.

    The backend is the attribute ``backend``, for ``generate_preset_pass_manager(1, backend=...)``.

    Readout errors of single qubits are included: a measured Pauli factor ``P`` is read as ``a P + b`` with
    ``a = 1 - p(1|0) - p(0|1)`` and ``b = p(0|1) - p(1|0)``.

    Raises:
        MissingPackage: qiskit-aer is not installed, or qiskit-ibm-runtime for a name.
        ParameterError: ``shots`` or ``method`` is unusable.
        QtmError: there is no account, or no backend of this name.

    Example:
        >>> from qiskit import QuantumCircuit
        >>> circuit = QuantumCircuit(1)
        >>> _ = circuit.x(0)
        >>> estimator = noisy_estimator(local_pauli_noise(0.01))
        >>> float(estimator.run([(circuit, "Z")]).result()[0].data.evs.round(6))
        -0.96
    """
    if isinstance(noise, str):
        noise = _backend_named(noise, service)
    with warnings.catch_warnings():
        if not getattr(noise, "coupling_map", True):  # a noiseless simulator needs no T1 and T2
            warnings.filterwarnings("ignore", ".*has no QubitProperties")
        return NoisyEstimator(noise, shots, method, seed)


def _backend_named(name: str, service: Any) -> NoiseModel | BackendV2:
    if service is None and not name.startswith(("aer", "fake_", "ibm_")):
        advice = "give 'ibm_torino', 'fake_torino' or 'aer', say, or local_pauli_noise(0.01)"
        raise refused("noise", "an Aer NoiseModel, a BackendV2 or the name of a backend", name, advice)
    backend, _ = find_backend(name, service, Settings(name), None)
    return backend


def local_pauli_noise(probabilities: float | Mapping[str, float], *, gates: Sequence[str] | None = None) -> NoiseModel:
    """Return a noise model that applies X, Y or Z at random to each qubit of each gate.

    Args:
        probabilities: probabilities of X, Y and Z, e.g. ``{"X": 0.01, "Z": 0.02}``; a single number is used for
            all three (the ``q`` of the Qiboml paper, section II.E.1).
        gates: names of the noisy gates; None means every standard gate of one or two qubits.

    Raises:
        ParameterError: a probability is negative, they sum to more than 1, or a key is not X, Y or Z.

    Example:
        >>> local_pauli_noise({"X": 0.01, "Z": 0.02}, gates=["ry"]).noise_instructions
        ['ry']
    """
    errors = require("qiskit_aer.noise", extra="aer")
    chances = dict(probabilities) if isinstance(probabilities, Mapping) else dict.fromkeys("XYZ", probabilities)
    chances = {letter: checked_number(p, "probabilities", _CHANCES) for letter, p in chances.items()}
    if set(chances) - set("XYZ") or min(chances.values(), default=0) < 0 or sum(chances.values()) > 1:
        raise ParameterError(f"probabilities must be of X, Y and Z, not negative, and sum to at most 1; got {chances}")
    error = errors.pauli_error([*chances.items(), ("I", 1 - sum(chances.values()))])
    return _on_gates(error, error.tensor(error), gates)


def depolarizing_noise(
    one_qubit: float, two_qubit: float | None = None, *, gates: Sequence[str] | None = None
) -> NoiseModel:
    """Return a noise model with ``rho -> (1 - p) rho + p I / 2^k`` after each gate on k qubits.

    Args:
        one_qubit: p of one-qubit gates.
        two_qubit: p of two-qubit gates; None means the same p.
        gates: names of the noisy gates; None means every standard gate of one or two qubits.

    Raises:
        ParameterError: p is outside of [0, 1].

    Example:
        >>> depolarizing_noise(0.001, 0.01).noise_qubits
        []
    """
    errors = require("qiskit_aer.noise", extra="aer")
    two_qubit = one_qubit if two_qubit is None else two_qubit
    advice = "give the probability p of the channel"
    one_qubit = checked_number(one_qubit, "one_qubit", advice, least=0, most=1)
    two_qubit = checked_number(two_qubit, "two_qubit", advice, least=0, most=1)
    return _on_gates(errors.depolarizing_error(one_qubit, 1), errors.depolarizing_error(two_qubit, 2), gates)


def _on_gates(one_qubit: Any, two_qubit: Any, gates: Sequence[str] | None) -> NoiseModel:
    standard = _standard_gates()
    if gates is not None and (isinstance(gates, str) or not isinstance(gates, Iterable)):
        raise refused("gates", "a list of names of standard gates", gates, "give ['ry', 'cx'], say")
    names = list(standard) if gates is None else list(gates)
    width = {name: gate.num_qubits for name, gate in standard.items() if name in names}
    unknown = [name for name in names if not isinstance(name, str) or width.get(name) not in (1, 2)]
    if gates is not None and unknown:
        raise ParameterError(f"gates must be names of standard gates of one or two qubits; got {unknown}")
    # Gates without an error are listed too; otherwise circuits would be translated to gates that have one.
    small = [name for name, gate in standard.items() if gate.num_qubits in (1, 2)]
    model = require("qiskit_aer.noise", extra="aer").NoiseModel(basis_gates=small)
    model.add_all_qubit_quantum_error(one_qubit, [name for name in names if width[name] == 1])
    model.add_all_qubit_quantum_error(two_qubit, [name for name in names if width[name] == 2])
    return model


def _standard_gates() -> dict[str, Gate]:
    return {name: gate for name, gate in get_standard_gate_name_mapping().items() if isinstance(gate, Gate)}
