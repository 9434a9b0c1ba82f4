"""Expressibility and entangling capability, from states at random parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qtm._arguments import checked_int
from qtm._circuit.observables import coerce_observables
from qtm._diagnostics.circuits import (
    Draw,
    Seed,
    checked_samples,
    in_chunks,
    random_rows,
    read_circuit,
    uniform_angles,
)
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation, State
from qtm._engines.simulation import Simulation


@dataclass(frozen=True)
class Expressibility:
    """Fidelities of pairs of random states of a circuit, compared with those of Haar random states.

    Attributes:
        divergence: Kullback-Leibler divergence of the two histograms, in nats; 0 for Haar random states.
        fidelities: fidelities of the pairs, (samples,).
        edges: bin edges of the histogram, (bins + 1,).
        frequencies: relative frequencies of the fidelities in the bins, (bins,).
        haar: relative frequencies for Haar random states, (bins,).
    """

    divergence: float
    fidelities: np.ndarray
    edges: np.ndarray
    frequencies: np.ndarray
    haar: np.ndarray


def expressibility(
    circuit: Any,
    *,
    samples: int = 1000,
    bins: int = 75,
    seed: Seed = None,
    draw: Draw = uniform_angles,
    num_threads: int = 0,
) -> Expressibility:
    """How evenly the states of a circuit at random parameters cover the space of states.

    ``D(P(F) || P_Haar(F))`` of the fidelities F of random pairs, with ``P_Haar(F) = (N - 1) (1 - F)**(N - 2)`` for N =
    2**n (Sim et al., Adv. Quantum Technol. 2, 1900070 (2019), sec. 3.1). The smaller, the more expressive.

    Args:
        circuit: a Qiskit circuit, or a model of `qtm.circuits`; all of its parameters are drawn.
        samples: number of pairs of states.
        bins: bins of the histogram; the paper uses 75.
        seed: seed of the parameters.
        draw: values (samples, parameters) in radians from a generator and this shape; by default from 0 to 2 pi.
        num_threads: threads of the simulator; 0: all cores.

    Raises:
        CircuitError: the circuit cannot be simulated.
        ParameterError: an argument is unusable.
        OutOfMemory: two states do not fit in memory.

    Example:
        >>> from qiskit import QuantumCircuit
        >>> from qiskit.circuit import Parameter
        >>> from qtm.diagnostics import expressibility
        >>> idle = QuantumCircuit(1)
        >>> _ = idle.rz(Parameter("a"), 0)
        >>> round(expressibility(idle, seed=0).divergence, 2)  # always the same state: log(75)
        4.32
    """
    samples = checked_samples(samples, 1)
    bins = checked_int(bins, "bins", "give the bins of the histogram, such as 75", least=1)
    roles = read_circuit(circuit)
    size = 2.0**roles.circuit.num_qubits
    rows = random_rows(2 * len(roles.parameters), samples, seed, draw)  # of both states of a pair
    simulation = Simulation(roles.circuit, roles.parameters, State(), Options(num_threads=num_threads))
    parts = []
    for part in in_chunks(rows, 2 * 16 * size, f"a pair of states of {roles.circuit.num_qubits} qubits"):
        left, right = (simulation.values(half) for half in np.split(part, 2, axis=1))
        parts.append(np.abs(np.einsum("bi,bi->b", left.conj(), right)) ** 2)
    fidelities = np.concatenate(parts).clip(0, 1)
    edges = np.linspace(0, 1, bins + 1)
    frequencies = np.histogram(fidelities, edges)[0] / samples
    # The integral of P_Haar over a bin, as a difference of powers of (1 - F).
    haar = -np.diff((1 - edges) ** (size - 1))
    seen = frequencies > 0
    haar_seen = np.maximum(haar[seen], np.finfo(float).tiny)  # 0 in the last bins of many qubits
    divergence = float((frequencies[seen] * np.log(frequencies[seen] / haar_seen)).sum())
    return Expressibility(divergence, fidelities, edges, frequencies, haar)


@dataclass(frozen=True)
class EntanglingCapability:
    """Meyer-Wallach entanglement of random states of a circuit.

    Attributes:
        mean: the entangling capability, from 0 (product states) to 1.
        measures: Q of every state, (samples,).
    """

    mean: float
    measures: np.ndarray


def entangling_capability(
    circuit: Any,
    *,
    samples: int = 1000,
    seed: Seed = None,
    draw: Draw = uniform_angles,
    num_threads: int = 0,
) -> EntanglingCapability:
    """Mean entanglement of the states of a circuit at random parameters.

    The measure of Meyer and Wallach, J. Math. Phys. 43, 4273 (2002), in Brennen's form ``Q = 2 (1 - mean over qubits of
    tr rho_k**2)`` (Quantum Inf. Comput. 3, 619 (2003)), averaged as by Sim et al., Adv. Quantum Technol. 2, 1900070
    (2019). Only expectation values of single qubits are computed: wide circuits with small causal cones are cheap.

    Args:
        circuit: a Qiskit circuit, or a model of `qtm.circuits`; all of its parameters are drawn.
        samples: number of states.
        seed: seed of the parameters.
        draw: values (samples, parameters) in radians from a generator and this shape; by default from 0 to 2 pi.
        num_threads: threads of the simulator; 0: all cores.

    Raises:
        CircuitError: the circuit cannot be simulated.
        ParameterError: an argument is unusable.

    Example:
        >>> from qtm.circuits import strongly_entangling_ansatz
        >>> from qtm.diagnostics import entangling_capability
        >>> entangling_capability(strongly_entangling_ansatz(4, 3), samples=100, seed=0).mean > 0.7
        True
    """
    roles = read_circuit(circuit)
    width = roles.circuit.num_qubits
    rows = random_rows(len(roles.parameters), checked_samples(samples, 1), seed, draw)
    paulis = [pauli.rjust(q + 1, "I").ljust(width, "I")[::-1] for q in range(width) for pauli in "XYZ"]
    output = Expectation(coerce_observables(paulis, width))
    bloch = Simulation(roles.circuit, roles.parameters, output, Options(num_threads=num_threads)).values(rows)
    # tr rho**2 = (1 + |r|**2) / 2 for the Bloch vector r of a qubit.
    measures = (1 - (bloch**2).sum(1) / width).clip(0, 1)
    return EntanglingCapability(float(measures.mean()), measures)
