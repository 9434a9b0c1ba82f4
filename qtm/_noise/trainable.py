"""A noise model whose strengths are torch parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from qiskit.circuit import Gate, Parameter
from qiskit.circuit.library import get_standard_gate_name_mapping
from qiskit.quantum_info import PTM, Kraus, SuperOp
from torch import Tensor, nn

from qtm._arguments import checked_number, refused
from qtm._circuit.channels import CHANNELS, Channel, pauli_transfer_matrix
from qtm._circuit.noise_map import NoiseMap
from qtm._circuit.trained_noise import TrainedNoiseMap
from qtm._errors import ParameterError, require
from qtm._noise.strengths import EXCLUSIVE, RELAXATION, raw_of, strengths_of
from qtm._noise.transfer_matrix import qiskit_order

_STANDARD = {n: g for n, g in get_standard_gate_name_mapping().items() if isinstance(g, Gate)}
_CHANNELS = ", ".join(name for name, row in CHANNELS.items() if row.upper is not None)
Place = tuple[str, tuple[int, ...] | None]  # a gate and its qubits; None: all other qubits


@dataclass(frozen=True, slots=True)
class _Entry:
    """A channel after a gate, or a readout error, and the numbers of its strengths."""

    what: str  # as in the names of strengths
    channel: str
    free: tuple[str, ...]
    fixed: Mapping[str, float]
    parameters: tuple[Parameter, ...]  # one for each free strength

    def strengths(self, values: Mapping[Parameter, Any]) -> tuple[Any, ...]:
        """All strengths of the channel, in the order of its row."""
        own = dict(zip(self.free, self.parameters, strict=True))
        return tuple(values[own[s]] if s in own else self.fixed[s] for s in CHANNELS[self.channel].strengths)


class TrainableNoise(nn.Module):
    """Noise whose strengths are trained: channels after gates, and readout errors.

    Pass it as ``noise=`` to a `QuantumModule`, whose parameters then include `raw`, the unconstrained form of all
    strengths; or to `qtm.noise.fit`, with data of a device. Everything else that takes ``noise=``, and
    `to_noise_model`, uses the current values of the strengths.

    Args:
        channels: the channels after each gate, by its name, or by a pair (name, qubits) for these qubits alone: the
        name of a
            channel, a pair (name, strengths that are not trained, as ``{"excited": 0.0}``), or a list of these. A
            channel of one qubit follows a gate on each of its qubits, with the same strengths.
        readout: True for probabilities of reading 1 for 0 and 0 for 1 that all qubits share, or a list of the qubits
            that have their own; the others then have none.
        initial: initial value of all strengths.

    Attributes:
        raw: unconstrained numbers, (strengths,); `values` are the corresponding strengths.

    Raises:
        ParameterError: a gate or channel is unknown, or a strength does not fit.

    Example:
        >>> noise = TrainableNoise({"ry": "depolarizing", "cx": "two_qubit_depolarizing"}, readout=True)
        >>> for name, strength in noise.strengths.items():
        ...     print(f"{name} = {strength:.2f}")
        ry: depolarizing p = 0.01
        cx: two_qubit_depolarizing p = 0.01
        readout 0 for 1 = 0.01
        readout 1 for 0 = 0.01
    """

    def __init__(
        self, channels: Mapping[Any, Any], *, readout: bool | Sequence[int] = False, initial: float = 0.01
    ) -> None:
        super().__init__()
        initial = checked_number(initial, "initial", "give the probability that every error starts with")
        if not isinstance(channels, Mapping):
            raise refused("channels", "channels by the names of gates", channels, "give {'cx': 'depolarizing'}, say")
        self._entries: list[_Entry] = []
        self._places: dict[Place, list[tuple[int, _Entry]]] = {}  # width of the gate, and the channels after it
        self._read: dict[int | None, _Entry] = {}
        for key, value in channels.items():
            self._add_gate(key, value)
        for qubit in _read_qubits(readout):
            where = "readout" if qubit is None else f"readout of qubit {qubit},"
            self._read[qubit] = self._entry(where, "reset", {})
        numbers: list[float] = []
        for entry in self._entries:
            numbers += raw_of(entry.channel, entry.free, [initial] * len(entry.free))
        self.raw = nn.Parameter(torch.tensor(numbers, dtype=torch.get_default_dtype()))
        self._map = self._made({p: p for p in self.parameters_})

    # Strengths

    @property
    def parameters_(self) -> tuple[Parameter, ...]:
        """The parameter that stands for each strength in a circuit, in the order of `values`."""
        return tuple(p for entry in self._entries for p in entry.parameters)

    @property
    def names(self) -> list[str]:
        """Names of the strengths, in the order of `values`."""
        return [name for entry in self._entries for name in _names(entry)]

    def values(self) -> Tensor:
        """All strengths (strengths,), within their limits; differentiable with respect to ``raw``."""
        found, start = [], 0
        for entry in self._entries:
            stop = start + len(entry.free)
            found.append(strengths_of(entry.channel, entry.free, self.raw[start:stop]))
            start = stop
        return torch.cat(found) if found else self.raw

    @property
    def strengths(self) -> dict[str, float]:
        """Current values of all strengths, by name."""
        return dict(zip(self.names, self.values().tolist(), strict=True))

    def extra_repr(self) -> str:
        """The strengths, for ``print``."""
        return ", ".join(f"{name} = {value:.3g}" for name, value in self.strengths.items())

    # As noise

    @property
    def noise_map(self) -> TrainedNoiseMap:
        """The channels, with parameters."""
        return self._map

    def bound(self) -> NoiseMap:
        """The channels, with their current strengths."""
        values = dict(zip(self.parameters_, self.values().tolist(), strict=True))
        bound = self._made(values)
        readout = {q: _flips(entry, values) for q, entry in self._read.items()}
        return NoiseMap(bound.gates, bound.free, readout)

    def to_noise_model(self) -> Any:
        """The Aer ``NoiseModel`` with the current strengths.

        Raises:
            MissingPackage: qiskit-aer is not installed.
        """
        aer = require("qiskit_aer.noise", extra="aer")
        values = dict(zip(self.parameters_, self.values().tolist(), strict=True))
        model = aer.NoiseModel(basis_gates=[n for n, g in _STANDARD.items() if g.num_qubits in (1, 2)])
        for (gate, qubits), entries in self._places.items():
            error = aer.QuantumError(Kraus(_whole(entries, values)))
            if qubits is None:
                model.add_all_qubit_quantum_error(error, [gate])
            else:
                model.add_quantum_error(error, [gate], list(qubits))
        for qubit, entry in self._read.items():
            flip_0, flip_1 = _flips(entry, values)
            error = aer.ReadoutError([[1 - flip_0, flip_0], [flip_1, 1 - flip_1]])
            if qubit is None:
                model.add_all_qubit_readout_error(error)
            else:
                model.add_readout_error(error, [qubit])
        return model

    # Inside

    def _add_gate(self, key: Any, value: Any) -> None:
        gate, qubits = key if isinstance(key, tuple) and len(key) == 2 else (key, None)
        if gate not in _STANDARD:
            raise ParameterError(f"{key!r}: expected the name of a standard gate, or a pair (name, qubits)")
        width = _STANDARD[gate].num_qubits
        if qubits is not None and (not isinstance(qubits, tuple) or len(qubits) != width):
            raise ParameterError(f"{gate!r} acts on {width} qubits, not on {qubits!r}; give a tuple of their numbers")
        where = gate if qubits is None else f"{gate} on {qubits}"
        several = isinstance(value, Iterable) and not isinstance(value, str) and not _is_pair(value)
        entries = [self._checked(where, width, each) for each in (value if several else [value])]
        self._places[gate, qubits] = [(width, entry) for entry in entries]

    def _checked(self, where: str, width: int, value: Any) -> _Entry:
        name, fixed = value if _is_pair(value) else (value, {})
        row = CHANNELS.get(name) if isinstance(name, str) else None
        if row is None or row.upper is None or row.num_qubits not in (1, width):
            raise ParameterError(f"{where!r}: {name!r} is not a channel that can follow it; use one of {_CHANNELS}")
        may_be_fixed = set() if name in EXCLUSIVE else {"excited"} if name == RELAXATION else set(row.strengths)
        if unknown := set(fixed) - may_be_fixed:
            raise ParameterError(
                f"{where!r}: {sorted(unknown)} of {name!r} cannot be fixed; "
                + (f"those that can are {sorted(may_be_fixed)}" if may_be_fixed else "all its strengths are trained")
            )
        return self._entry(where, name, fixed)

    def _entry(self, where: str, name: str, fixed: Mapping[str, float]) -> _Entry:
        free = tuple(s for s in CHANNELS[name].strengths if s not in fixed)
        fixed = {s: checked_number(v, s, "give a number from 0 on", least=0) for s, v in fixed.items()}
        entry = _Entry(where, name, free, fixed, tuple(Parameter(f"{where}: {name} {s}") for s in free))
        self._entries.append(entry)
        return entry

    def _made(self, values: Mapping[Parameter, Any]) -> TrainedNoiseMap:
        gates: dict[str, dict[tuple[int, ...] | None, tuple[Channel, ...]]] = {}
        for (gate, qubits), entries in self._places.items():
            gates.setdefault(gate, {})[qubits] = tuple(c for entry in entries for c in _channels(*entry, values))
        read = {q: (entry.parameters[1], entry.parameters[0]) for q, entry in self._read.items()}
        return TrainedNoiseMap(gates, frozenset(_STANDARD) - set(gates), {}, self.parameters_, read)


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], Mapping)


def _read_qubits(readout: Any) -> list[int | None]:
    if isinstance(readout, bool):
        return [None] if readout else []
    if isinstance(readout, str) or not isinstance(readout, Iterable):
        raise refused("readout", "True, False or a list of qubits", readout, "list the qubits that are measured")
    return list(readout)


def _names(entry: _Entry) -> list[str]:
    if entry.what.startswith("readout"):
        return [f"{entry.what} 0 for 1", f"{entry.what} 1 for 0"]  # of a reset to 0, and to 1
    return [f"{entry.what}: {entry.channel} {strength}" for strength in entry.free]


def _channels(width: int, entry: _Entry, values: Mapping[Parameter, Any]) -> list[Channel]:
    """The channel on the local qubits of a gate."""
    qubits = [(0, 1)] if CHANNELS[entry.channel].num_qubits == 2 else [(q,) for q in range(width)]
    return [Channel(entry.channel, q, entry.strengths(values)) for q in qubits]


def _flips(entry: _Entry, values: Mapping[Parameter, float]) -> tuple[float, float]:
    """Probabilities of reading 1 for 0, and 0 for 1: those of a reset to 1, and to 0."""
    to_0, to_1 = entry.strengths(values)
    return to_1, to_0


def _whole(entries: Sequence[tuple[int, _Entry]], values: Mapping[Parameter, float]) -> SuperOp:
    """All channels after a gate as one."""
    width = entries[0][0]
    total = SuperOp(np.eye(4**width))
    for entry in entries:
        for channel in _channels(*entry, values):
            own = SuperOp(PTM(qiskit_order(pauli_transfer_matrix(channel.name, channel.strengths))))
            total = total.compose(own, qargs=list(channel.qubits))
    return total
