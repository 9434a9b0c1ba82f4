"""Fisher information of a circuit's outcomes: its spectrum, and the effective dimension."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from qiskit.circuit import Parameter

from qtm._arguments import checked_number, is_whole
from qtm._diagnostics.circuits import (
    Draw,
    Roles,
    Seed,
    checked_samples,
    in_chunks,
    random_rows,
    read_circuit,
    uniform_angles,
)
from qtm._engines.options import Options
from qtm._engines.outputs import Probabilities
from qtm._engines.simulation import Simulation
from qtm._errors import CircuitError, ParameterError, ShapeError
from qtm._gradients.adjoint import EngineMethod
from qtm._gradients.jacobian import jacobian

_RARE = 1e-12  # less probable outcomes are ignored: their contribution vanishes


@dataclass(frozen=True)
class FisherInformation:
    """Fisher information matrices of a model at random weights.

    Attributes:
        matrices: mean over the inputs, (samples, weights, weights).
    """

    matrices: np.ndarray

    @property
    def normalised(self) -> np.ndarray:
        """Matrices (samples, weights, weights) whose trace is, on average over the samples, the number of weights.

        Abbas et al., Nat. Comput. Sci. 1, 403 (2021). Raises `ParameterError` if no outcome depends on a weight.
        """
        trace = np.trace(self.matrices, axis1=1, axis2=2).mean()
        if not trace > 0:
            raise ParameterError("the Fisher information is 0: no outcome depends on a weight; measure other qubits")
        found: np.ndarray = self.matrices * (self.matrices.shape[1] / trace)
        return found

    @property
    def eigenvalues(self) -> np.ndarray:
        """Eigenvalues (samples, weights) of `normalised`, ascending."""
        values: np.ndarray = np.linalg.eigvalsh(self.normalised).clip(0)
        return values


def fisher_information(
    circuit: Any,
    inputs: ArrayLike | None = None,
    *,
    encoding_params: Iterable[Parameter] | None = None,
    qubits: Iterable[int] | None = None,
    samples: int = 100,
    seed: Seed = None,
    draw: Draw = uniform_angles,
    num_threads: int = 0,
) -> FisherInformation:
    """Fisher information of the outcomes of a circuit, at random weights, averaged over inputs.

    ``F_kl = mean over x of sum over y of (dp/dw_k) (dp/dw_l) / p`` of the probabilities p(y | x; w): where its spectrum
    is concentrated at 0, the loss is flat in most directions (Abbas et al., Nat. Comput. Sci. 1, 403 (2021)).

    Args:
        circuit: a Qiskit circuit, or a model of `qtm.circuits`.
        inputs: samples (inputs, features); None for a circuit without inputs, and otherwise 10 drawn from a normal
            distribution.
        encoding_params: parameters of a Qiskit circuit that are inputs.
        qubits: qubits that are measured; None: all.
        samples: number of random weight vectors.
        seed: seed of the weights.
        draw: values (samples, weights) in radians from a generator and this shape; by default from 0 to 2 pi.
        num_threads: threads of the simulator; 0: all cores.

    Raises:
        CircuitError: the circuit cannot be simulated, or a qubit is out of range.
        ShapeError: ``inputs`` has the wrong number of features.
        ParameterError: an argument is unusable.

    Example:
        >>> from qtm.circuits import reuploading_circuit
        >>> from qtm.diagnostics import fisher_information
        >>> fisher = fisher_information(reuploading_circuit(2, 1), samples=5, seed=0)
        >>> fisher.eigenvalues.shape
        (5, 12)
    """
    roles = read_circuit(circuit, encoding_params)
    weights = random_rows(len(roles.weights), checked_samples(samples, 1), seed, draw)
    data = _inputs(roles, inputs, seed)
    output = Probabilities(_qubits(roles, qubits))
    simulation = Simulation(roles.circuit, roles.parameters, output, Options(num_threads=num_threads))
    method = EngineMethod(simulation, 1 << len(output.qubits))
    bytes_per_weight = 8.0 * len(data) * method.num_outputs * len(roles.parameters)
    parts = [
        _at(method, chunk, data, len(roles.inputs))
        for chunk in in_chunks(weights, 4 * bytes_per_weight, "the derivatives of the probabilities")
    ]
    return FisherInformation(np.concatenate(parts))


def _at(method: EngineMethod, weights: np.ndarray, data: np.ndarray, num_inputs: int) -> np.ndarray:
    """Matrices (samples, weights, weights) at weights (samples, weights), averaged over data (inputs, features)."""
    rows = np.concatenate([np.tile(data, (len(weights), 1)), np.repeat(weights, len(data), axis=0)], axis=1)
    slopes = jacobian(method, rows)[:, :, num_inputs:]  # (samples * inputs, outcomes, weights)
    chances = method.simulation.values(rows)  # (samples * inputs, outcomes)
    scores = slopes / np.sqrt(np.where(chances > _RARE, chances, np.inf))[:, :, None]
    flat = scores.reshape(len(weights), -1, scores.shape[2])
    found: np.ndarray = flat.transpose(0, 2, 1) @ flat / len(data)
    return found


def _inputs(roles: Roles, inputs: Any, seed: Seed) -> np.ndarray:
    if inputs is None:
        generator = np.random.default_rng(seed)
        return generator.normal(size=(10 if roles.inputs else 1, len(roles.inputs)))
    data = np.asarray(inputs, dtype=np.float64)
    if data.ndim != 2 or data.shape[1] != len(roles.inputs) or not len(data):
        raise ShapeError(f"inputs have shape {data.shape}; expected (inputs, {len(roles.inputs)}), at least one")
    return data


def _qubits(roles: Roles, qubits: Any) -> tuple[int, ...]:
    width = roles.circuit.num_qubits
    chosen = tuple(range(width) if qubits is None else qubits)
    if not chosen or len(set(chosen)) < len(chosen) or any(not is_whole(q) or not 0 <= q < width for q in chosen):
        raise CircuitError(f"qubits must be different numbers from 0 to {width - 1}, not {chosen}; name those measured")
    return chosen


def effective_dimension(
    fisher: FisherInformation, data_sizes: int | Iterable[int], *, gamma: float = 1.0
) -> np.ndarray:
    """Effective dimension of a model, from its Fisher information at random weights.

    ``2 log(mean over w of sqrt(det(1 + kappa F(w)))) / log kappa`` with the normalised F and
    ``kappa = gamma n / (2 pi log n)`` for n data (Abbas et al., Nat. Comput. Sci. 1, 403 (2021)). As n grows it
    approaches the largest rank of F.

    Args:
        fisher: of `fisher_information`.
        data_sizes: numbers of data n, one or several, such that kappa is above 1 (at least 19 for gamma = 1).
        gamma: above 0 and at most 1.

    Returns:
        Effective dimensions (data sizes,), float64.

    Raises:
        ParameterError: a number of data is too small, or gamma is unusable.

    Example:
        >>> from qtm.circuits import reuploading_circuit
        >>> from qtm.diagnostics import effective_dimension, fisher_information
        >>> fisher = fisher_information(reuploading_circuit(2, 1), samples=20, seed=0)
        >>> dimensions = effective_dimension(fisher, [100, 10_000])
        >>> bool(0 < dimensions[0] < 12)
        True
    """
    checked_number(gamma, "gamma", "give a number from 0 to 1, such as 1.0", above=0, most=1)
    sizes = np.atleast_1d(np.asarray(data_sizes, dtype=np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        kappa = gamma * sizes / (2 * np.pi * np.log(sizes))
    if sizes.ndim != 1 or not (np.isfinite(kappa) & (kappa > 1) & (sizes > 1)).all():
        raise ParameterError(
            f"data_sizes must be numbers n with gamma n / (2 pi log n) above 1, not {data_sizes}; give 100 or more"
        )
    halves = 0.5 * np.log1p(kappa[:, None, None] * fisher.eigenvalues).sum(2)  # (sizes, samples): log sqrt(det)
    highest = halves.max(1, keepdims=True)
    means = highest[:, 0] + np.log(np.exp(halves - highest).mean(1))
    found: np.ndarray = 2 * means / np.log(kappa)
    return found
