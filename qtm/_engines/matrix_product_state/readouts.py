"""Outputs of a matrix product state, their gradients with respect to the site tensors, and their adjoint states.

``adjoint_state`` returns the chain of lambda: the derivative of ``sum(cotangent * output)`` along any change d of the
normalised state is Re <lambda|d>.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from qiskit.quantum_info import SparsePauliOp
from torch import Tensor

from qtm._circuit.observables import Observable, coerce_observables
from qtm._engines.matrix_product_state.chain import Tensors, dense, overlap, overlap_gradients
from qtm._engines.matrix_product_state.expectation import ExpectationNetwork, operate
from qtm._engines.matrix_product_state.initial_chain import chain_of_state
from qtm._engines.matrix_product_state.pauli_mpo import PauliMPO, pauli_mpo
from qtm._engines.matrix_product_state.sketch import compress_product
from qtm._engines.matrix_product_state.states import MPS


class Readout(ABC):
    """One output of a state given by site tensors (batch, left, 2, right)."""

    @abstractmethod
    def forward(self, tensors: Sequence[Tensor]) -> tuple[Tensor, Any]:
        """The output (batch, outputs), and residuals for `gradients`."""

    @abstractmethod
    def gradients(self, tensors: Sequence[Tensor], kept: Any, cotangent: Tensor) -> Tensors:
        """Gradients of ``Re sum(conj(cotangent) * output)`` with respect to the site tensors."""

    @abstractmethod
    def adjoint_state(self, tensors: Sequence[Tensor], output: Tensor, cotangent: Tensor, bond: int | None) -> Tensors:
        """The chain of lambda, compressed to bonds of at most ``bond`` unless that is None."""


class ExpectationReadout(Readout):
    """Expectation values of observables."""

    def __init__(self, mpo: PauliMPO) -> None:
        self.mpo = mpo
        self._networks: dict[tuple[torch.dtype, torch.device], ExpectationNetwork] = {}

    def network(self, like: Tensor) -> ExpectationNetwork:
        """The observables in the dtype and on the device of a tensor."""
        key = (like.dtype, like.device)
        if key not in self._networks:
            self._networks[key] = ExpectationNetwork(self.mpo, *key)
        return self._networks[key]

    def __getstate__(self) -> dict[str, Any]:
        return {"mpo": self.mpo, "_networks": {}}

    def forward(self, tensors: Sequence[Tensor]) -> tuple[Tensor, Any]:
        return self.network(tensors[0]).values(tensors)

    def gradients(self, tensors: Sequence[Tensor], kept: Any, cotangent: Tensor) -> Tensors:
        return self.network(tensors[0]).gradients(tensors, kept, cotangent)

    def adjoint_state(self, tensors: Sequence[Tensor], output: Tensor, cotangent: Tensor, bond: int | None) -> Tensors:
        network = self.network(tensors[0])
        # 2 (O - <O>) psi: the multiple of psi changes no derivative, and the rest compresses better.
        mean = (cotangent * (output - network.constants)).sum(1)
        operators = network.operators(2 * cotangent, -2 * mean)
        return operate(operators, tensors) if bond is None else compress_product(operators, tensors, bond)


class ProbabilityReadout(Readout):
    """Probabilities of the outcomes of k qubits, from the expectation values of all 2^k products of Z."""

    def __init__(self, qubits: Sequence[int], site_of: Sequence[int]) -> None:
        count = len(qubits)
        observables = [
            _z_product([qubits[j] for j in range(count) if s >> j & 1], len(site_of)) for s in range(2**count)
        ]
        self.expectation = ExpectationReadout(pauli_mpo(observables, site_of))
        index = np.arange(2**count)
        signs = 1 - 2 * (np.bitwise_count(index[:, None] & index) % 2).astype(float)
        self.transform = signs / 2**count  # (strings, outcomes), symmetric

    def _matrix(self, like: Tensor) -> Tensor:
        return torch.as_tensor(self.transform, dtype=like.dtype, device=like.device)

    def forward(self, tensors: Sequence[Tensor]) -> tuple[Tensor, Any]:
        values, kept = self.expectation.forward(tensors)
        return values @ self._matrix(values), kept

    def gradients(self, tensors: Sequence[Tensor], kept: Any, cotangent: Tensor) -> Tensors:
        return self.expectation.gradients(tensors, kept, cotangent @ self._matrix(cotangent))

    def adjoint_state(self, tensors: Sequence[Tensor], output: Tensor, cotangent: Tensor, bond: int | None) -> Tensors:
        size = output.shape[1]
        matrix = self._matrix(cotangent)
        return self.expectation.adjoint_state(tensors, output @ matrix * size, cotangent @ matrix, bond)


def _z_product(qubits: Sequence[int], num_qubits: int) -> Observable:
    label = "".join("Z" if q in qubits else "I" for q in reversed(range(num_qubits)))
    return coerce_observables(SparsePauliOp(label), num_qubits)[0]


class StateReadout(Readout):
    """All amplitudes."""

    def __init__(self, site_of: Sequence[int]) -> None:
        self.site_of = tuple(site_of)

    def forward(self, tensors: Sequence[Tensor]) -> tuple[Tensor, Any]:
        return self._amplitudes(tensors), None

    def _amplitudes(self, tensors: Sequence[Tensor]) -> Tensor:
        count = len(tensors)
        axes = [1 + site for site in reversed(self.site_of)]
        return dense(tensors).reshape(-1, *[2] * count).permute(0, *axes).flatten(1)

    def gradients(self, tensors: Sequence[Tensor], kept: Any, cotangent: Tensor) -> Tensors:
        leaves = [t.detach().requires_grad_() for t in tensors]
        with torch.inference_mode(False), torch.enable_grad():
            output = self._amplitudes(leaves)
        return list(torch.autograd.grad(output, leaves, cotangent))

    def adjoint_state(self, tensors: Sequence[Tensor], output: Tensor, cotangent: Tensor, bond: int | None) -> Tensors:
        chain = chain_of_state(cotangent, self.site_of)
        return chain if bond is None else compress_product(None, chain, bond)


@dataclass(frozen=True, slots=True)
class Overlap:
    """<target|psi>: complex, (batch, 1)."""

    target: MPS


class OverlapReadout(Readout):
    """The overlap with another matrix product state; site q must be qubit q."""

    def __init__(self, target: MPS) -> None:
        self.target = target

    def _bra(self, like: Tensor) -> Tensors:
        return [t.to(like) for t in self.target.tensors]

    def forward(self, tensors: Sequence[Tensor]) -> tuple[Tensor, Any]:
        return overlap(self._bra(tensors[0]), tensors)[:, None], None

    def gradients(self, tensors: Sequence[Tensor], kept: Any, cotangent: Tensor) -> Tensors:
        return [cotangent[:, :, None, None] * g for g in overlap_gradients(self._bra(tensors[0]), tensors)]

    def adjoint_state(self, tensors: Sequence[Tensor], output: Tensor, cotangent: Tensor, bond: int | None) -> Tensors:
        first, *rest = self._bra(tensors[0])
        return [cotangent[:, :, None, None] * first, *[t.expand(len(cotangent), -1, -1, -1) for t in rest]]
