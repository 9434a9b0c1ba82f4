"""Pauli coordinates of the initial state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from qtm._circuit.flatten import Preparation
from qtm._circuit.gf2 import combinations


class Start:
    """Coordinates (batch or 1, rows) of prepared amplitudes, for the strings that the basis spans."""

    def __init__(self, preparations: Sequence[Preparation], basis: Sequence[int], num_qubits: int) -> None:
        x, z = (combinations([b >> s & (1 << num_qubits) - 1 for b in basis]) for s in (num_qubits, 0))
        self.phase = torch.as_tensor(1j ** (np.bitwise_count(x & z) & 1))
        self.places = []
        for preparation in preparations:
            local = [sum((mask >> q & 1) << j for j, q in enumerate(preparation.qubits)) for mask in (x, z)]
            self.places.append(torch.as_tensor(local[0] << len(preparation.qubits) | local[1]))

    def coordinates(self, prepared: Sequence[Tensor]) -> Tensor:
        """Coordinates, differentiable; amplitudes: a complex tensor (batch or 1, 2**qubits) per preparation."""
        total: Tensor = self.phase[None]
        for amplitudes, place in zip(prepared, self.places, strict=True):
            total = total * _expectations(amplitudes)[:, place]
        return total.real

    def numpy(self, prepared: Sequence[Tensor]) -> np.ndarray:
        """The coordinates as an array."""
        return np.ascontiguousarray(self.coordinates([p.detach() for p in prepared]).numpy())

    def vjp(self, prepared: Sequence[Tensor], cotangent: Tensor) -> tuple[Tensor, ...]:
        """Pull a cotangent (batch, rows) back to the amplitudes."""
        with torch.enable_grad():
            leaves = [p.detach().requires_grad_() for p in prepared]
            rows = self.coordinates(leaves)
            pulled = cotangent if len(rows) == len(cotangent) else cotangent.sum(0, keepdim=True)
            return torch.autograd.grad(rows, leaves, pulled.to(rows.dtype))


def _expectations(amplitudes: Tensor) -> Tensor:
    """Expectation values of X^x Z^z at place ``x << qubits | z``: (batch, 4**qubits) complex."""
    batch, size = amplitudes.shape
    index = torch.arange(size)
    moved = amplitudes[:, index[None, :] ^ index[:, None]].conj()  # (batch, x, i): that of i ^ x
    values = moved * amplitudes[:, None, :]
    for bit in range(size.bit_length() - 1):
        pair = values.reshape(batch, size, -1, 2, 1 << bit)
        values = torch.stack([pair[..., 0, :] + pair[..., 1, :], pair[..., 0, :] - pair[..., 1, :]], -2)
    return values.reshape(batch, size * size)
