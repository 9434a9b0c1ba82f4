"""Prepared amplitudes as site tensors, which are linear in the amplitudes and hence differentiable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qtm._engines.matrix_product_state.chain import Tensors


@dataclass(frozen=True, slots=True)
class Register:
    """Qubits of one preparation; bit j of an index of its amplitudes is ``qubits[j]``."""

    qubits: tuple[int, ...]

    @property
    def sites(self) -> tuple[int, ...]:
        """The qubits in the order of the chain."""
        return tuple(sorted(self.qubits))

    def bond(self, site: int) -> int:
        """Dimension that this register adds to the bond right of ``site``."""
        left = sum(s <= site for s in self.sites)
        return 2 ** min(left, len(self.sites) - left)


def initial_bits(num_sites: int, registers: Sequence[Register]) -> tuple[int, ...]:
    """log2 of the bond dimensions of `initial_chain`, (sites - 1,)."""
    return tuple(sum(r.bond(site).bit_length() - 1 for r in registers) for site in range(num_sites - 1))


def initial_chain(num_sites: int, registers: Sequence[Register], prepared: Sequence[Tensor], like: Tensor) -> Tensors:
    """Site tensors (batch or 1, left, 2, right) of prepared registers; all other qubits are in state 0.

    Args:
        num_sites: length of the chain.
        registers: on disjoint qubits.
        prepared: amplitudes (batch or 1, 2**qubits) of every register.
        like: a tensor with the dtype and device of the result.
    """
    zero = like.new_zeros(1, 1, 2, 1)
    zero[0, 0, 0, 0] = 1
    taken = {site for register in registers for site in register.sites}
    chains = [_spread(r, amplitudes.to(like.dtype)) for r, amplitudes in zip(registers, prepared, strict=True)]
    result = []
    for site in range(num_sites):
        tensor = like.new_ones(1, 1, 1, 1) if site in taken else zero
        for chain in chains:
            if site in chain:
                tensor = _product(tensor, chain[site])
        result.append(tensor)
    return result


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Kronecker product over both bonds of (batch, l, s, r) and (batch, l', s', r'); s or s' is 1."""
    product = a[:, :, None, :, :, None] * b[:, None, :, :, None, :]
    return product.flatten(1, 2).flatten(3)


def _spread(register: Register, amplitudes: Tensor) -> dict[int, Tensor]:
    """Tensors of a register by site, with identities on sites that its bond passes.

    The middle site holds all amplitudes; the others are identities between their bonds.
    """
    sites, count = register.sites, len(register.sites)
    axis = {qubit: count - j for j, qubit in enumerate(register.qubits)}  # axis 1 is the most significant bit
    ordered = amplitudes.reshape(-1, *[2] * count).permute(0, *[axis[site] for site in sites])
    middle, found = count // 2, {}
    for j, site in enumerate(sites):
        if j == middle:
            found[site] = ordered.reshape(-1, 2**j, 2, 2 ** (count - 1 - j))
        elif j < middle:
            found[site] = _eye(2 ** (j + 1), amplitudes).view(1, 2**j, 2, -1)
        else:
            found[site] = _eye(2 ** (count - j), amplitudes).view(1, -1, 2, 2 ** (count - 1 - j))
    for site in range(sites[0], sites[-1]):
        if site not in found:
            found[site] = _eye(register.bond(site), amplitudes)[None, :, None]
    return found


def _eye(size: int, like: Tensor) -> Tensor:
    return torch.eye(size, dtype=like.dtype, device=like.device)


def chain_of_state(state: Tensor, site_of: Sequence[int]) -> Tensors:
    """A state (batch, 2**qubits), ordered as in Qiskit, as site tensors; exact.

    ``site_of[q]`` is the site of qubit q.
    """
    # Bit j of an index belongs to qubit j, that is to site site_of[j].
    return initial_chain(len(site_of), [Register(tuple(site_of))], [state], state)
