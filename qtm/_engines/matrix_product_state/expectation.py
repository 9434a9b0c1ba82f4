"""Expectation values of a matrix product operator in a matrix product state, their gradients, and O|psi>.

An environment (batch, bra bond, states, ket bond) is the contraction of everything on one side of a bond. The
functions compute left environments; a right environment is a left environment of the mirrored chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qtm._engines.matrix_product_state.chain import Tensors, mirrored, norm_environments
from qtm._engines.matrix_product_state.gate_columns import PAULIS
from qtm._engines.matrix_product_state.pauli_mpo import PauliMPO

_PAULIS = np.stack([PAULIS[letter] for letter in "IXYZ"])  # (4, bra qubit, ket qubit)


@dataclass(frozen=True, slots=True)
class Environments:
    """Environments computed for the values and reused by the gradients.

    Attributes:
        left: of states 0..r left of every site, (batch, bra bond, states, ket bond).
        right: of the identity right of every site, (batch, bra bond, ket bond).
    """

    left: Tensors
    right: Tensors


class ExpectationNetwork:
    """Observables on one device, in one dtype."""

    def __init__(self, mpo: PauliMPO, dtype: torch.dtype, device: torch.device) -> None:
        self.num_observables = len(mpo.constants)
        self.num_states = mpo.num_states
        paulis = torch.as_tensor(_PAULIS, dtype=dtype, device=device)
        self.paulis = paulis
        real = paulis.real.dtype
        self.constants = torch.as_tensor(mpo.constants, dtype=real, device=device)
        # (bra qubit, states after, states before, ket qubit), state 0 continues with identities
        self.inner = [self._inner(site.inner, paulis) for site in mpo.sites]
        starts = np.concatenate([[0], np.cumsum([4 * n for n in self.num_states])])
        # Where a string ends: an index (state, letter) into all sites' transitions, its observable and weight.
        where = [starts[i] + 4 * site.ends[:, 0] + site.ends[:, 1] for i, site in enumerate(mpo.sites)]
        self.end_place = torch.as_tensor(np.concatenate(where), device=device)
        self.end_observable = torch.as_tensor(np.concatenate([s.ends[:, 2] for s in mpo.sites]), device=device)
        weights = np.concatenate([site.end_weights for site in mpo.sites])
        self.end_weight = torch.as_tensor(weights, dtype=real, device=device)

    @staticmethod
    def _inner(weights: np.ndarray, paulis: Tensor) -> Tensor:
        weights = weights.copy()
        weights[0, 0, 0] = 1.0
        return torch.einsum("apc,pst->scat", torch.as_tensor(weights, dtype=paulis.dtype).to(paulis.device), paulis)

    def values(self, tensors: Sequence[Tensor]) -> tuple[Tensor, Environments]:
        """Expectation values (batch, observables) in a normalised state, and the environments."""
        right = norm_environments(tensors)
        left = [tensors[0].new_ones(len(tensors[0]), 1, 1, 1)]
        transitions = []
        for site, a in enumerate(tensors):
            entered = enter(left[site], a)  # (batch, bra, states, 2, ket)
            # conj(a)[bra, bra qubit, bra'] right[bra', ket] -> (batch, bra, bra qubit, ket)
            closing = (a.conj() @ right[site + 1][:, None]).permute(0, 2, 1, 3).flatten(2)
            opened = entered.permute(0, 2, 3, 1, 4).flatten(3)  # (batch, states, 2, bra * ket)
            transitions.append(opened @ closing.mT[:, None])  # (batch, states, ket qubit, bra qubit)
            if site + 1 < len(tensors):
                left.append(leave(operate_entered(self.inner[site][None], entered), a))
        matrices = torch.cat(transitions, 1)
        ends = torch.einsum("bkts,pst->bkp", matrices, self.paulis).real.flatten(1)  # (batch, all (state, letter))
        values = self.constants.repeat(len(ends), 1)
        values.index_add_(1, self.end_observable, ends[:, self.end_place] * self.end_weight)
        return values, Environments(left, right)

    def gradients(self, tensors: Sequence[Tensor], kept: Environments, cotangent: Tensor) -> Tensors:
        """Gradients of ``sum(cotangent * values)`` with respect to the site tensors; cotangent (batch, observables)."""
        operators = self.operators(cotangent)
        entered = self._entered(tensors, kept, operators)
        right = self._right(tensors, kept, operators)
        gradients = []
        for site, a in enumerate(tensors):
            operated = operate_entered(operators[site], entered[site])  # (batch, bra, 2, states, ket)
            gradient = operated.flatten(3).flatten(1, 2) @ right[site + 1].flatten(2).mT
            gradients.append(2 * gradient.unflatten(1, a.shape[1:3]))
        return gradients

    def operators(self, cotangent: Tensor, constant: Tensor | None = None) -> Tensors:
        """Site tensors (batch, bra qubit, states after, states before, ket qubit) of ``sum(cotangent * observables)``.

        One more state, the last, is "finished". Constants are omitted; ``constant`` (batch,) replaces them.
        """
        batch = len(cotangent)
        ends = cotangent.new_zeros(batch, 4 * sum(self.num_states))
        ends.index_add_(1, self.end_place, cotangent[:, self.end_observable] * self.end_weight)
        ends = ends.unflatten(1, (-1, 4))
        if constant is not None:
            ends[:, 0, 0] += constant
        finishing = torch.einsum("bkp,pst->bskt", ends.to(self.paulis.dtype), self.paulis)
        operators = []
        for inner, part in zip(self.inner, finishing.split(list(self.num_states), 2), strict=True):
            _, after, before, _ = inner.shape
            operator = part.new_zeros(batch, 2, after + 1, before + 1, 2)
            operator[:, :, :after, :before] = inner
            operator[:, :, after, :before] = part
            operator[:, :, after, before] = self.paulis[0]
            operators.append(operator)
        return operators

    def _entered(self, tensors: Sequence[Tensor], kept: Environments, operators: Tensors) -> Tensors:
        """The left environments, with "finished" after the other states, contracted with the ket of their site."""
        finished = torch.zeros_like(kept.left[0][:, :, :1])
        entered = []
        for site, a in enumerate(tensors):
            entered.append(enter(torch.cat([kept.left[site], finished], 2), a))
            if site + 1 < len(tensors):
                finished = leave(operate_entered(operators[site][:, :, -1:], entered[-1]), a)
        return entered

    def _right(self, tensors: Sequence[Tensor], kept: Environments, operators: Tensors) -> Tensors:
        """Right environments (batch, bra bond, states, ket bond); the one of "finished" is that of the identity."""
        flipped = mirrored(tensors)
        # States before and after change places; "finished" has been computed already.
        last = operators[-1]
        current = torch.zeros_like(kept.right[-1][:, :, None]).repeat(1, 1, last.shape[2], 1)
        current[:, :, -1] = kept.right[-1]
        right = [current]
        for a, operator, identity in zip(flipped, reversed(operators), reversed(kept.right[:-1]), strict=True):
            turned = operator.transpose(2, 3)[:, :, :-1]
            left = leave(operate_entered(turned, enter(right[-1], a)), a)
            right.append(torch.cat([left, identity[:, :, None]], 2))
        return right[::-1]


def enter(environment: Tensor, a: Tensor) -> Tensor:
    """Contract the ket: (batch, bra, states, ket) and (batch, ket, 2, ket') to (batch, bra, states, 2, ket')."""
    product = environment.flatten(1, 2) @ a.flatten(2)
    return product.view(len(product), *environment.shape[1:3], *a.shape[2:])


def operate_entered(operator: Tensor, entered: Tensor) -> Tensor:
    """Apply (batch, 2, states', states, 2) to (batch, bra, states, 2, ket): (batch, bra, 2, states', ket)."""
    _, _, after, before, _ = operator.shape
    product = operator.reshape(-1, 1, 2 * after, 2 * before) @ entered.flatten(2, 3)
    return product.unflatten(2, (2, after))


def leave(operated: Tensor, a: Tensor) -> Tensor:
    """Contract the bra (batch, bra, 2, bra'): (batch, bra, 2, states, ket) to (batch, bra', states, ket)."""
    product = a.flatten(1, 2).mH @ operated.flatten(3).flatten(1, 2)
    return product.unflatten(2, operated.shape[3:])


def operate(operators: Sequence[Tensor], tensors: Sequence[Tensor]) -> Tensors:
    """Site tensors of O|psi>, for the operators of `ExpectationNetwork.operators`."""
    result = []
    for site, (operator, a) in enumerate(zip(operators, tensors, strict=True)):
        if site == 0:
            operator = operator[:, :, :, :1]  # no string has begun
        if site == len(tensors) - 1:
            operator = operator[:, :, -1:]  # all have ended
        product = torch.einsum("bsckt,bltr->bklscr", operator, a)
        result.append(product.flatten(1, 2).flatten(3))
    return result
