"""The sampler of a connection."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
from qiskit.primitives import BaseSamplerV2, BitArray, DataBin, PrimitiveResult, PubResult, SamplerPubResult
from qiskit.primitives.containers.sampler_pub import SamplerPub, SamplerPubLike
from qiskit.providers import BackendV2

from qtm._errors import CircuitError
from qtm._hardware.device_job import DeviceJob
from qtm._hardware.device_primitive import DevicePrimitive
from qtm._hardware.job_splitting import Piece, check_values, without_global_phase
from qtm._hardware.local_mode import sampled_on_used_qubits
from qtm._hardware.result_codec import damaged
from qtm._hardware.runtime import REPETITION_DELAY, SECONDS_PER_JOB, duration_of, make_sampler, plain_options
from qtm._primitives.job_usage import Usage
from qtm._primitives.pubs import sampler_pubs
from qtm.primitives import FastSampler

_DEFAULT_SHOTS = 4096  # of the runtime's samplers


class DeviceSampler(DevicePrimitive, BaseSamplerV2):
    """A sampler on a device: checks, splits, budgets and journals what it submits.

    Created by `hardware.connect`, for `SamplerQNN`, `QuantumKernel` and plain Qiskit. It shares session, journal
    and budget with the connection's estimator. Its ``options`` are those of the runtime's sampler.

    Example:
        >>> from qiskit.circuit.library import real_amplitudes
        >>> ansatz = real_amplitudes(2, reps=1)
        >>> with hardware.connect("fake_manila", shots=512, seed_simulator=1) as device:
        ...     qnn = SamplerQNN(
        ...         circuit=ansatz,
        ...         weight_params=ansatz.parameters,
        ...         sampler=device.sampler,
        ...         pass_manager=device.pass_manager,
        ...     )
        ...     probabilities = qnn.forward(None, [0.1, 0.2, 0.3, 0.4])
        >>> probabilities.shape, device.usage.executions
        ((1, 4), 512)
    """

    name: ClassVar[str] = "sampler"

    def run(self, pubs: Iterable[SamplerPubLike], *, shots: int | None = None) -> DeviceJob:
        """Submit PUBs; jobs that the journal already holds are not submitted again.

        Args:
            pubs: (circuit, parameter values, shots) each, transpiled for the backend, with measurements.
            shots: Shots of PUBs that specify none; None: the default of the options.

        Raises:
            CircuitError: A PUB cannot run on this backend, or measures nothing.
            ParameterError: A parameter value is not finite.
            BudgetExceeded: The submission would exceed the budget, or the rest of the plan; nothing was submitted.
            JobError: The service refused a job, or could not be reached.
        """
        return self._submitted(self._coerced(pubs, shots))

    def estimate_usage(self, pubs: Iterable[SamplerPubLike], *, shots: int | None = None) -> Usage:
        """Forecast the usage of ``run``, without submitting anything (see `Usage` for how it counts)."""
        return self._estimated(self._coerced(pubs, shots))

    def _coerced(self, pubs: Iterable[SamplerPubLike], shots: int | None) -> list[SamplerPub]:
        default = plain_options(self.options).get("default_shots")
        coerced = sampler_pubs(pubs, shots or (default if isinstance(default, int) else _DEFAULT_SHOTS))
        for index, pub in enumerate(coerced):
            check_values(index, pub)
            if not pub.circuit.cregs:
                raise CircuitError(
                    f"PUB {index}, circuit {pub.circuit.name!r}: it has no classical register; measure its qubits, as "
                    "with measure_all(), before it is transpiled"
                )
        return self._folded([without_global_phase(pub) for pub in coerced])

    def _made(self, mode: Any, options: Any) -> Any:
        return make_sampler(self._kind, mode, options)

    def _cost(self, pubs: Sequence[Any], options: Any) -> Usage:
        if not pubs:
            return Usage()
        circuits = [pub.parameter_values.size for pub in pubs]
        executions = [count * pub.shots for count, pub in zip(circuits, pubs, strict=True)]
        each = [REPETITION_DELAY + duration_of(pub.circuit, self.backend) for pub in pubs]
        seconds = SECONDS_PER_JOB + sum(count * time for count, time in zip(executions, each, strict=True))
        return Usage(1, len(pubs), sum(circuits), sum(executions), seconds)

    def _exact_job(self, pubs: list[Any]) -> Any:
        pubs, _ = sampled_on_used_qubits(pubs, self.backend)
        return FastSampler(seed=self._seed).run(pubs)

    def _on_used_qubits(self, pubs: list[Any]) -> tuple[list[Any], BackendV2]:
        return sampled_on_used_qubits(pubs, self.backend)

    def pack(self, result: PrimitiveResult) -> bytes:
        """Serialize the shots as the bytes of an ``.npz`` file."""
        bits = [_bits(part) for part in result]
        arrays = {f"{i}/{name}": found.array for i, part in enumerate(bits) for name, found in part.items()}
        notes = [{"shape": list(_shape(part)), "bits": {n: b.num_bits for n, b in part.items()}} for part in bits]
        file = io.BytesIO()
        np.savez_compressed(file, notes=np.frombuffer(json.dumps(notes).encode(), np.uint8), **arrays)
        return file.getvalue()

    def unpack(self, stored: bytes) -> PrimitiveResult:
        """Read what `pack` wrote.

        Raises:
            JobError: The bytes are damaged.
        """
        try:
            return _unpacked(stored)
        except Exception as error:  # zipfile, zlib, NumPy and json raise a dozen error types for damaged bytes
            raise damaged(error) from error

    def problem_with(self, result: Any, pubs: list[Any]) -> str | None:
        """Return what is wrong, or None: there must be an entry per PUB, and all registers, shapes and shots."""
        try:
            parts = [_bits(part) for part in result]
        except (TypeError, AttributeError) as error:
            return f"it has no shots ({error})"
        if len(parts) != len(pubs):
            return f"it has {len(parts)} entries for {len(pubs)} PUBs"
        for index, (bits, pub) in enumerate(zip(parts, pubs, strict=True)):
            for register in pub.circuit.cregs:
                found = bits.get(register.name)
                if found is None or (found.shape, found.num_shots, found.num_bits) != (
                    pub.shape,
                    pub.shots,
                    len(register),
                ):
                    return (
                        f"PUB {index} of the job has {found} in register {register.name!r}, expected {pub.shots} shots"
                    )
        return None

    def join(self, pubs: Sequence[Any], jobs: Iterable[tuple[list[Piece], PrimitiveResult]]) -> PrimitiveResult:
        """Return the shots of jobs in the order and the shapes of the PUBs."""
        arrays = [
            {r.name: np.zeros((*pub.shape, pub.shots, -(-len(r) // 8)), np.uint8) for r in pub.circuit.cregs}
            for pub in pubs
        ]
        for pieces, result in jobs:
            for piece, part in zip(pieces, result, strict=True):
                for name, bits in _bits(part).items():
                    arrays[piece.index][name][piece.slices] = bits.array
        widths = [{r.name: len(r) for r in pub.circuit.cregs} for pub in pubs]
        return PrimitiveResult(
            [
                _result({name: BitArray(array, width[name]) for name, array in part.items()}, pub.shape, pub)
                for part, width, pub in zip(arrays, widths, pubs, strict=True)
            ],
            metadata={"version": 2},
        )


def _unpacked(stored: bytes) -> PrimitiveResult:
    with np.load(io.BytesIO(stored), allow_pickle=False) as file:
        notes = json.loads(file["notes"].tobytes())
        parts = [
            ({name: BitArray(file[f"{i}/{name}"], count) for name, count in note["bits"].items()}, note["shape"])
            for i, note in enumerate(notes)
        ]
    return PrimitiveResult([_result(bits, tuple(shape)) for bits, shape in parts])


def _bits(part: PubResult) -> dict[str, BitArray]:
    return dict(part.data.items())


def _shape(bits: dict[str, BitArray]) -> tuple[int, ...]:
    return next(iter(bits.values())).shape if bits else ()


def _result(bits: dict[str, BitArray], shape: tuple[int, ...], pub: SamplerPub | None = None) -> SamplerPubResult:
    metadata = {} if pub is None else {"shots": pub.shots, "circuit_metadata": pub.circuit.metadata}
    return SamplerPubResult(DataBin(shape=shape, **bits), metadata=metadata)
