"""A state-vector simulator in a few lines of torch, differentiated by autograd: what needs no library."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from _protocol import Gate, Runner, Task, serve
from _torch import TorchRunner, torch_angles


def halves(state: torch.Tensor, qubit: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The amplitudes (samples, 2**n) where a qubit is 0, and where it is 1: each (samples, high, low)."""
    zero, one = state.reshape(len(state), -1, 2, 1 << qubit).unbind(2)
    return zero, one


def joined(zero: torch.Tensor, one: torch.Tensor) -> torch.Tensor:
    return torch.stack([zero, one], 2).flatten(1)


def rotate(state: torch.Tensor, gate: Gate, half: torch.Tensor) -> torch.Tensor:
    zero, one = halves(state, gate.qubits[0])
    c, s = half.cos()[:, None, None], half.sin()[:, None, None]
    if gate.name == "rx":
        return joined(c * zero - 1j * s * one, c * one - 1j * s * zero)
    if gate.name == "ry":
        return joined(c * zero - s * one, c * one + s * zero)
    phase = torch.complex(c, s)
    return joined(phase.conj() * zero, phase * one)


def clifford(state: torch.Tensor, gate: Gate, number: torch.Tensor) -> torch.Tensor:
    if gate.name == "h":
        zero, one = halves(state, gate.qubits[0])
        return joined(zero + one, zero - one) * 0.5**0.5
    control, target = (number >> q & 1 for q in gate.qubits)
    if gate.name == "cz":
        return state * (1 - 2 * (control & target))
    return state.index_select(1, number ^ control << gate.qubits[1])


def expectation(state: torch.Tensor, word: list[tuple[str, int]], number: torch.Tensor) -> torch.Tensor:
    flip, sign, factor = 0, torch.zeros_like(number), 1.0 + 0j
    for pauli, qubit in word:
        if pauli in "XY":
            flip |= 1 << qubit
        if pauli in "YZ":
            sign = sign ^ (number >> qubit & 1)
        factor *= 1j if pauli == "Y" else 1
    turned = factor * state * (1 - 2 * sign)
    return (state.index_select(1, number ^ flip).conj() * turned).sum(1).real


def build(task: Task, options: argparse.Namespace) -> Runner:
    angles_of: Callable = torch_angles(task, options.device)
    number = torch.arange(1 << task.num_qubits, device=options.device)
    kind = torch.complex128 if task.dtype == "double" else torch.complex64

    def values(weights: torch.Tensor) -> torch.Tensor:
        halved = angles_of(weights) / 2
        state = torch.zeros(task.samples, len(number), dtype=kind, device=options.device)
        state[:, 0] = 1
        for gate in task.gates:
            turned = gate.angle is not None
            state = rotate(state, gate, halved[:, gate.angle]) if turned else clifford(state, gate, number)
        sums = [sum(c * expectation(state, word, number) for c, word in terms) for terms in task.observables]
        return torch.stack(sums, 1)

    return TorchRunner(task, values, options.device)


if __name__ == "__main__":
    devices = {"choices": ["cpu", "cuda"], "default": "cpu"}
    serve("plain torch", ("torch", "numpy"), build, {"--device": devices})
