"""Outputs from the final states, on one device: expectation values, probabilities, states; and their adjoints."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from qtm._circuit.causal_cone import Cone, ConeProgram
from qtm._circuit.flatten import FlatCircuit
from qtm._circuit.gates import Clifford
from qtm._circuit.gf2 import odd_bits, parities
from qtm._circuit.pauli_program import PauliProgram, dropped_signs
from qtm._engines import memory as host
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation, Output, Probabilities
from qtm._engines.statevector.cone_groups import conjugated_strings
from qtm._engines.statevector.whole_state import phase_of, row_images
from qtm._engines.triton_statevector import launch
from qtm._engines.triton_statevector.cone_batch import Chunk, ConeBatch, Target
from qtm._engines.triton_statevector.sparse_map import SparseMap
from qtm._engines.triton_statevector.sweeps import complex_states, parts_of

Kept = list[list[Chunk]]  # for each batch of cones


class Compiled(ABC):
    """One output of a circuit; all tensors are on one device."""

    batches: Sequence[ConeBatch]

    @abstractmethod
    def forward(self, angles: Tensor, prepared: Sequence[Tensor], keep: bool) -> tuple[Tensor, Kept | None]:
        """The output (samples, outputs), and residuals for one `vjp` if ``keep`` and they fit in memory."""

    def vjp(self, target: Target, cotangent: Tensor, kept: Kept | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Derivatives by the angles (samples, angles), and by the prepared amplitudes if the target requests them."""
        total = torch.zeros_like(target.angles)
        into = [torch.zeros_like(p, dtype=torch.complex128) for p in target.prepared]
        for number in range(len(self.batches)):
            for chunk in self._chunks(number, target, kept):
                total[chunk.part] += self._pull_back(number, target, chunk, cotangent[chunk.part], into)
        return total, tuple(a.to(p.dtype) for a, p in zip(into, target.prepared, strict=True))

    def _chunks(self, number: int, target: Target, kept: Kept | None) -> Iterable[Chunk]:
        """The kept parts, or those of a new forward sweep, each freed before the next is computed."""
        if kept is None:
            return self.batches[number].forward(target.angles, target.prepared, True)
        taken, kept[number] = kept[number], []
        if not taken and len(target.angles):
            raise RuntimeError("these states were consumed by a reverse sweep; run the forward sweep again")
        return taken

    @abstractmethod
    def _pull_back(
        self, number: int, target: Target, chunk: Chunk, cotangent: Tensor, into: Sequence[Tensor]
    ) -> Tensor:
        """Derivatives of a part of one batch of cones."""

    def bytes_of(self, samples: int) -> int:
        """Bytes of the states and adjoint states, of partial sums and of outputs, of all batches of cones."""
        return samples * sum(len(batch.cones) * batch.sweeps.working_bytes for batch in self.batches)

    def _fits(self, samples: int) -> bool:
        return all(batch.sweeps.fits(samples * len(batch.cones)) for batch in self.batches)


def compiled(
    circuit: FlatCircuit, program: PauliProgram, cones: Sequence[Cone], output: Output, options: Options,
    tile_bits: int, device: torch.device,
) -> Compiled:  # fmt: skip
    """An output on a device."""
    shared: dict[ConeProgram, list[Cone]] = {}
    for cone in cones:
        shared.setdefault(cone.program, []).append(cone)
    batches = [ConeBatch(circuit, equal, options, tile_bits, device) for equal in shared.values()]
    if isinstance(output, Expectation):
        return _Expectations(batches, program, output)
    if isinstance(output, Probabilities):
        return _Probabilities(batches[0], program, output)
    return _States(batches[0], circuit, program, options)


class _Expectations(Compiled):
    """Sums of strings of all cones."""

    def __init__(self, batches: Sequence[ConeBatch], program: PauliProgram, output: Expectation) -> None:
        self.batches = batches
        several = sum(len(batch.cones) for batch in batches) > 1
        every = conjugated_strings(program, output.observables) if several else None
        self._sums, self._owners, self._coefficients = [], [], []
        for batch in batches:
            order, signs = batch.plan.order, batch.plan.string_signs
            own = [
                (cone.program.measured.strings, order) if every is None else (every, cone.terms[order])
                for cone in batch.cones
            ]
            owner = np.concatenate([strings.output[terms] for strings, terms in own])
            coefficient = np.concatenate([strings.coef[terms] * signs for strings, terms in own])
            rows: list[list[tuple[int, float]]] = [[] for _ in output.observables]
            for column, (number, c) in enumerate(zip(owner.tolist(), coefficient.tolist(), strict=True)):
                if c:
                    rows[number].append((column, c))
            self._sums.append(SparseMap(rows, batch.device))
            self._owners.append(torch.from_numpy(owner).to(batch.device))
            self._coefficients.append(torch.from_numpy(coefficient).to(batch.device))

    def forward(self, angles: Tensor, prepared: Sequence[Tensor], keep: bool) -> tuple[Tensor, Kept | None]:
        keep = keep and self._fits(len(angles))
        total = angles.new_zeros(len(angles), self._sums[0].columns)
        kept: Kept = []
        for batch, sums in zip(self.batches, self._sums, strict=True):
            kept.append([])
            for chunk in batch.forward(angles, prepared, keep):
                total[chunk.part] += sums.sums(batch.by_sample(chunk.strings), angles.dtype)
                if keep:
                    kept[-1].append(chunk)
        return total, kept if keep else None

    def _pull_back(
        self, number: int, target: Target, chunk: Chunk, cotangent: Tensor, into: Sequence[Tensor]
    ) -> Tensor:
        batch = self.batches[number]
        weights = cotangent.index_select(1, self._owners[number]) * self._coefficients[number]
        rows = weights.to(batch.real).reshape(chunk.strings.shape).contiguous()
        return batch.reverse(target, chunk, rows, None, into)


class _Whole(Compiled):
    """Outputs of all amplitudes of one cone."""

    def __init__(self, batch: ConeBatch, outputs: int) -> None:
        self.batches, self._batch, self._outputs = [batch], batch, outputs

    def forward(self, angles: Tensor, prepared: Sequence[Tensor], keep: bool) -> tuple[Tensor, Kept | None]:
        keep = keep and self._fits(len(angles))
        out = self._room(angles)
        kept: list[Chunk] = []
        for chunk in self._batch.forward(angles, prepared, True):
            self._read(angles[chunk.part], chunk.final, out[chunk.part])
            if keep:
                kept.append(chunk)
        return out, [kept] if keep else None

    def bytes_of(self, samples: int) -> int:
        return super().bytes_of(samples) + 2 * samples * self._outputs * torch.complex128.itemsize

    def _room(self, angles: Tensor) -> Tensor:
        sweeps, dtype = self._batch.sweeps, self._dtype(angles)
        needed = len(angles) * self._outputs * dtype.itemsize
        if sweeps.memory is not None or needed > host.SMALL:
            available = launch.budget(sweeps.device, sweeps.memory)
            launch.check_fits(f"outputs of {len(angles)} samples", needed, available)
        return torch.zeros(len(angles), self._outputs, dtype=dtype, device=sweeps.device)

    def _dtype(self, angles: Tensor) -> torch.dtype:
        return angles.dtype

    @abstractmethod
    def _read(self, angles: Tensor, state: Tensor, out: Tensor) -> None:
        """Fill ``out`` (samples, outputs) from states (samples, parts, amplitudes)."""


class _Probabilities(_Whole):
    """Joint outcomes of qubits: an outcome is an affine function of an amplitude's number, so all have equally many."""

    def __init__(self, batch: ConeBatch, program: PauliProgram, output: Probabilities) -> None:
        super().__init__(batch, 1 << len(output.qubits))
        amplitudes = np.arange(batch.sweeps.amplitudes, dtype=np.int64)
        outcome = np.zeros_like(amplitudes)
        measured = batch.cones[0].program.measured.outcomes
        for bit, (qubit, mask) in enumerate(zip(output.qubits, measured, strict=True)):
            flip = program.frame.z[qubit][0] // 2 & 1  # the sign of the image of Z
            odd = odd_bits(amplitudes, np.int64(parities(mask, batch.plan.basis))).astype(np.int64)
            outcome |= (odd ^ flip) << bit
        self._outcome = torch.from_numpy(outcome).to(batch.device)
        self._order = torch.from_numpy(np.argsort(outcome, kind="stable")).to(batch.device)
        self._reached = torch.from_numpy(np.unique(outcome)).to(batch.device)

    def _read(self, angles: Tensor, state: Tensor, out: Tensor) -> None:
        weights = state.square().sum(1).index_select(1, self._order)
        out[:, self._reached] = weights.unflatten(1, (len(self._reached), -1)).sum(2).to(out.dtype)

    def _pull_back(
        self, number: int, target: Target, chunk: Chunk, cotangent: Tensor, into: Sequence[Tensor]
    ) -> Tensor:
        weights = cotangent.index_select(1, self._outcome).to(self._batch.real)
        return self._batch.reverse(target, chunk, None, weights[:, None] * chunk.final, into)


class _States(_Whole):
    """The final state as Qiskit orders it: amplitudes go to places, times a power of i and the circuit's phase."""

    def __init__(self, batch: ConeBatch, circuit: FlatCircuit, program: PauliProgram, options: Options) -> None:
        super().__init__(batch, 1 << circuit.num_qubits)
        gates = [operation for operation in circuit.operations if isinstance(operation, Clifford)]
        place, quarters = row_images(gates, batch.plan.basis)
        quarters = quarters + 2 * dropped_signs(program.generators) & 3
        self._place = torch.from_numpy(place).to(batch.device)
        factor = np.array([1, 1j, -1, -1j], options.dtype)[quarters]
        self._factor = torch.from_numpy(factor).to(batch.device)
        self._phase = phase_of(circuit, batch.plan.constant, options.dtype)

    def _dtype(self, angles: Tensor) -> torch.dtype:
        return self._factor.dtype

    def _read(self, angles: Tensor, state: Tensor, out: Tensor) -> None:
        out[:, self._place] = complex_states(state) * self._factor * self._phase.of_tensor(angles)[:, None]

    def _pull_back(
        self, number: int, target: Target, chunk: Chunk, cotangent: Tensor, into: Sequence[Tensor]
    ) -> Tensor:
        angles = target.angles[chunk.part]
        factor = self._factor * self._phase.of_tensor(angles)[:, None]
        own = cotangent.index_select(1, self._place).to(factor.dtype)
        by_phase = (own * (complex_states(chunk.final) * factor).conj()).imag.sum(1)
        adjoint = parts_of(own * factor.conj() / 2, chunk.final.shape[1]).contiguous()
        gradient = self._batch.reverse(target, chunk, None, adjoint, into)
        return gradient + self._phase.gradient_of_tensor(by_phase, angles)
