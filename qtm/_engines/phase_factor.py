"""The phase factor of a state, which depends on gate angles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qtm._circuit.device_array import DeviceArray
from qtm._circuit.expressions import LARGEST_ANGLE
from qtm._circuit.flatten import GlobalPhase
from qtm._engines.engine import Engine, Plan


class PhaseFactor:
    """exp(i a), a being an offset and a sum of gate angles with coefficients, in radians."""

    def __init__(self, offset: float, terms: dict[int, float], dtype: str) -> None:
        self.offset, self.dtype = offset, np.dtype(dtype)
        used = sorted(angle for angle, coefficient in terms.items() if coefficient)
        self.angles = np.array(used, np.int64)
        self.coefficients = np.array([terms[angle] for angle in used], float)
        self._constant = np.exp([1j * offset]).astype(self.dtype)
        self._tables = tuple(map(DeviceArray, (self.angles, self.coefficients, self._constant)))

    @staticmethod
    def of(phase: GlobalPhase, dtype: str) -> PhaseFactor:
        """The factor of a circuit."""
        return PhaseFactor(phase.offset, dict(phase.angles), dtype)

    def values(self, angles: np.ndarray) -> np.ndarray:
        """The factor (batch or 1,) at angles (batch, angles)."""
        if not len(self.angles):
            return self._constant
        total = angles.take(self.angles, axis=1).astype(float, copy=False) @ self.coefficients + self.offset
        return np.exp(1j * total).astype(self.dtype)

    def along(self, direction: np.ndarray) -> np.ndarray:
        """The derivative (batch,) of a along a direction (batch, angles) of the gate angles."""
        if not len(self.angles):
            return np.zeros(len(direction))
        return direction.take(self.angles, axis=1).astype(float, copy=False) @ self.coefficients

    def add_gradient(self, by_phase: np.ndarray, gradient: np.ndarray) -> None:
        """Add the derivative (batch,) with respect to a to those with respect to gate angles (batch, angles)."""
        if len(self.angles):
            gradient[:, self.angles] += by_phase[:, None] * self.coefficients

    # On the device of tensors

    def of_tensor(self, angles: Tensor) -> Tensor:
        """The factor (batch or 1,) at angles (batch, angles)."""
        dtype: torch.dtype = getattr(torch, self.dtype.name)
        if not len(self.angles):
            return self._tables[2].tensor(dtype, angles.device)
        index, coefficients = self._on(angles.device)
        own = angles.detach().index_select(1, index).double()
        own = torch.where(own.abs() <= LARGEST_ANGLE, own, torch.nan)  # see `Engine.gives_nan`
        total = (own * coefficients).sum(1) + self.offset
        return torch.complex(total.cos(), total.sin()).to(dtype)

    def gradient_of_tensor(self, by_phase: Tensor, angles: Tensor) -> Tensor:
        """The part of the gate angles' derivatives (batch, angles) that comes from the derivatives (batch,) of a."""
        gradient = torch.zeros_like(angles)
        index, coefficients = self._on(angles.device)
        return gradient.index_copy_(1, index, (by_phase[:, None] * coefficients).to(angles.dtype))

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        return self._tables[0].tensor(torch.int64, device), self._tables[1].tensor(torch.float64, device)


class PhasedEngine(Engine):
    """An engine of states that multiplies the states of another engine by a phase factor."""

    def __init__(self, inner: Engine, factor: PhaseFactor) -> None:
        self.inner, self.factor, self.output = inner, factor, inner.output

    def forward(self, angles: Tensor, prepared: Sequence[Tensor], *, keep: bool = False) -> tuple[Tensor, Any]:
        """See `Engine.forward`."""
        states, residuals = self.inner.forward(angles, prepared, keep=keep)
        states = states * self._factor(angles)
        return states, (states, residuals) if keep else None

    def vjp(
        self,
        angles: Tensor,
        prepared: Sequence[Tensor],
        cotangent: Tensor,
        residuals: Any = None,
        *,
        by_prepared: bool = False,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """See `Engine.vjp`."""
        states, kept = residuals or self.forward(angles, prepared, keep=True)[1]
        turned = cotangent * self._factor(angles).conj().resolve_conj()
        by_angles, by_amplitudes = self.inner.vjp(angles, prepared, turned, kept, by_prepared=by_prepared)
        by_phase = (cotangent * states.conj()).imag.sum(1)
        return by_angles + self.factor.gradient_of_tensor(by_phase, angles), by_amplitudes

    def plan(self, batch: int) -> Plan:
        """See `Engine.plan`."""
        return self.inner.plan(batch)

    def _factor(self, angles: Tensor) -> Tensor:
        return self.factor.of_tensor(angles)[:, None]
