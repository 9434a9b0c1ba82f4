"""Outcomes drawn from the circuit of a module."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from qtm._arguments import checked_int, checked_seed
from qtm._engines.outputs import Probabilities, Samples
from qtm._errors import UnsupportedError
from qtm._gradients.adjoint import simulation_of
from qtm._gradients.settings import MethodSettings


def drawn(settings: MethodSettings, inputs: Tensor, sets: Sequence[Tensor], shots: int, seed: int | None) -> Tensor:
    """Outcomes (..., shots, qubits) bool at inputs (..., inputs) and the trained parameter sets."""
    if not all(one.is_cpu for one in (inputs, *sets)):
        raise UnsupportedError("outcomes are drawn on the CPU; move the module and its inputs with .cpu()")
    shots = checked_int(shots, "shots", "give the number of outcomes of a sample")
    generator = np.random.default_rng(None if seed is None else checked_seed(seed, "seed"))
    output = settings.output
    all_qubits = tuple(range(settings.circuit.num_qubits))
    qubits = output.qubits if isinstance(output, Probabilities) else all_qubits
    simulation = simulation_of(settings, Samples(qubits), "complex128")
    rows = inputs.detach().double().reshape(inputs.shape[:-1].numel(), inputs.shape[-1])
    weights = torch.cat([rows.new_zeros(0), *(s.detach().double() for s in sets)])
    values = torch.cat([rows, weights.expand(len(rows), -1)], 1).numpy()
    bits = torch.from_numpy(simulation.sample(values, shots, generator))
    return bits.reshape(*inputs.shape[:-1], shots, len(qubits))
