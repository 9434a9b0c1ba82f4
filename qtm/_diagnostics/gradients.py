"""Variance of gradients at random parameters, to detect barren plateaus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from qiskit.quantum_info import SparsePauliOp

from qtm._arguments import checked_int, refused
from qtm._diagnostics.circuits import Draw, Roles, Seed, checked_samples, random_rows, read_circuit, uniform_angles
from qtm._errors import ParameterError
from qtm.modules import QuantumModule

_ROWS = 1024  # random starts differentiated together


@dataclass(frozen=True)
class GradientVariance:
    """Variance of the derivatives of an expectation value over random starts, against qubits and depth.

    Attributes:
        qubits: numbers of qubits, (qubits,).
        depths: depths, (depths,).
        variance: mean over the parameters of the variances of their derivatives, (qubits, depths).
        largest: the largest of these variances, (qubits, depths).
    """

    qubits: np.ndarray
    depths: np.ndarray
    variance: np.ndarray
    largest: np.ndarray

    @property
    def decay(self) -> np.ndarray:
        """Rates b of the fits ``variance ~ 2**(-b * qubits)``, (depths,); 1 or more is a barren plateau.

        Raises:
            ParameterError: there is only one number of qubits.
        """
        if len(self.qubits) < 2:
            raise ParameterError("a rate needs at least two numbers of qubits; give qubits=(2, 4, 6), say")
        logarithms = np.log2(np.maximum(self.variance, np.finfo(float).tiny))
        rates: np.ndarray = -np.polyfit(self.qubits, logarithms, 1)[0]
        return rates


def gradient_variances(
    circuit: Any,
    observable: Any = None,
    *,
    encoding_params: Any = None,
    samples: int = 200,
    seed: Seed = None,
    draw: Draw = uniform_angles,
    num_threads: int = 0,
) -> np.ndarray:
    """Variance, over random starts, of the derivative of an expectation value with respect to each weight.

    McClean et al., Nat. Commun. 9, 4812 (2018). All starts are one batch of the simulator.

    Args:
        circuit: a Qiskit circuit, or a model of `qtm.circuits`.
        observable: any observable that Qiskit accepts; None: Z Z on qubits 0 and 1, as in the paper.
        encoding_params: parameters of a Qiskit circuit that are inputs. They are drawn at random too, and their
            derivatives are not computed.
        samples: number of random starts.
        seed: seed of the starts.
        draw: values (samples, parameters) of inputs and weights, in radians, from a generator and this shape; by
            default angles from 0 to 2 pi.
        num_threads: threads of the simulator; 0: all cores.

    Returns:
        Variances (weights,), float64.

    Raises:
        CircuitError: the circuit cannot be simulated.
        ParameterError: there is no weight, or an argument is unusable.
        ObservableError: the observable has the wrong number of qubits.

    Example:
        >>> from qtm.circuits import hardware_efficient_ansatz
        >>> from qtm.diagnostics import gradient_variances
        >>> gradient_variances(hardware_efficient_ansatz(4, 3), samples=100, seed=0).shape
        (24,)
    """
    roles = read_circuit(circuit, encoding_params)
    rows = random_rows(len(roles.parameters), checked_samples(samples), seed, draw)
    module = QuantumModule(
        roles.circuit,
        roles.parameters,
        [],
        observables=[_two_qubit_z(roles) if observable is None else observable],
        num_threads_forward=num_threads,
        num_threads_backward=num_threads,
    )
    parts = []
    for first in range(0, len(rows), _ROWS):
        values = torch.tensor(rows[first : first + _ROWS], requires_grad=True)
        parts.append(torch.autograd.grad(module(values).sum(), values)[0].numpy())
    found: np.ndarray = np.concatenate(parts)[:, len(roles.inputs) :].var(0)
    return found


def _two_qubit_z(roles: Roles) -> SparsePauliOp:
    qubits = list(range(min(2, roles.circuit.num_qubits)))
    return SparsePauliOp.from_sparse_list([("Z" * len(qubits), qubits, 1.0)], roles.circuit.num_qubits)


def barren_plateau(
    build: Callable[[int, int], Any],
    qubits: Iterable[int],
    depths: Iterable[int],
    *,
    observable: Callable[[int], Any] | None = None,
    samples: int = 200,
    seed: Seed = 0,
    draw: Draw = uniform_angles,
    num_threads: int = 0,
) -> GradientVariance:
    """Variances of gradients against the number of qubits and the depth.

    On a barren plateau they fall as 2**-n, and training from a random start fails (McClean et al., Nat.
    Commun. 9, 4812 (2018)).

    Args:
        build: builds the circuit for a number of qubits and a depth: a Qiskit circuit, all of whose parameters are
            weights, or a model of `qtm.circuits`.
        qubits: numbers of qubits.
        depths: depths.
        observable: returns the observable for a number of qubits; None: Z Z on qubits 0 and 1.
        samples: number of random starts.
        seed: seed of the starts.
        draw: as for `gradient_variances`.
        num_threads: threads of the simulator; 0: all cores.

    Raises:
        ParameterError: an argument is unusable.

    Example:
        >>> from qtm.circuits import strongly_entangling_ansatz
        >>> from qtm.diagnostics import barren_plateau
        >>> result = barren_plateau(strongly_entangling_ansatz, qubits=(2, 4, 6), depths=(1, 8), samples=50)
        >>> bool(result.variance[2, 1] < result.variance[0, 1])
        True
    """
    if not callable(build):
        raise refused("build", "a function of qubits and depth", build, "give qtm.circuits.brick_ansatz, say")
    widths, layers = _sizes(qubits, "qubits"), _sizes(depths, "depths")
    shape = (len(widths), len(layers))
    means, largest = np.zeros(shape), np.zeros(shape)
    for i, width in enumerate(widths):
        for j, depth in enumerate(layers):
            given = None if observable is None else observable(width)
            found = gradient_variances(
                build(width, depth), given, samples=samples, seed=seed, draw=draw, num_threads=num_threads
            )
            means[i, j], largest[i, j] = found.mean(), found.max()
    return GradientVariance(np.array(widths), np.array(layers), means, largest)


def _sizes(values: Any, argument: str) -> Sequence[int]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise refused(argument, "a list of whole numbers", values, "give (2, 4, 6), say")
    sizes = [checked_int(v, argument, "give whole numbers such as (2, 4, 6)", least=1) for v in values]
    if not sizes:
        raise ParameterError(f"{argument} is empty; give at least one number")
    return sizes
