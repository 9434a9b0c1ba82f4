"""Results of estimator jobs as bytes: arrays and JSON, which execute no code when read."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from qiskit.primitives import DataBin, PrimitiveResult, PubResult

from qtm._errors import JobError


def pack(result: PrimitiveResult) -> bytes:
    """Write a result as the bytes of an ``.npz`` file; metadata that JSON cannot hold is left out."""
    arrays: dict[str, np.ndarray] = {}
    for index, part in enumerate(result):
        arrays |= {f"{index}/{name}": np.asarray(values) for name, values in part.data.items()}
    # Object arrays, which would be pickled, are dropped.
    arrays = {key: values for key, values in arrays.items() if values.dtype.kind in "fiubc"}
    notes = json.dumps({"pubs": [_plain(part.metadata) for part in result], "shapes": _shapes(result)})
    file = io.BytesIO()
    np.savez(file, notes=np.frombuffer(notes.encode(), dtype=np.uint8), **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def unpack(data: bytes) -> PrimitiveResult:
    """Read what `pack` wrote.

    Raises:
        JobError: The bytes are damaged.
    """
    try:
        return _unpacked(data)
    except Exception as error:  # zipfile, zlib, NumPy and json raise a dozen error types for damaged bytes
        raise damaged(error) from error


def damaged(error: Exception) -> JobError:
    """Return the error of a result that cannot be read."""
    return JobError(
        f"a result in the journal is damaged ({type(error).__name__}: {error}); restore the journal from a backup, "
        "or begin a run with another file"
    )


def _unpacked(data: bytes) -> PrimitiveResult:
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        notes = json.loads(stored["notes"].tobytes())
        columns: list[dict[str, np.ndarray]] = [{} for _ in notes["pubs"]]
        for key in stored.files:
            index, _, name = key.partition("/")
            if name:
                columns[int(index)][name] = stored[key]
    return PrimitiveResult(
        [
            PubResult(DataBin(shape=tuple(shape), **values), metadata)
            for values, shape, metadata in zip(columns, notes["shapes"], notes["pubs"], strict=True)
        ]
    )


def problem_with(result: Any, shapes: Sequence[tuple[int, ...]]) -> str | None:
    """Return what is wrong, or None: there must be an entry per PUB, of its shape, with finite values."""
    try:
        parts = list(result)
        found = [(np.shape(part.data.evs), np.shape(part.data.stds)) for part in parts]
    except (TypeError, AttributeError) as error:
        return f"it has no expectation values ({error})"
    if len(parts) != len(shapes):
        return f"it has {len(parts)} entries for {len(shapes)} PUBs"
    for index, (part, (evs, stds), shape) in enumerate(zip(parts, found, shapes, strict=True)):
        if evs != shape or stds != shape:
            return f"PUB {index} of the job has values of shape {evs} (deviations {stds}), expected {shape}"
        if not np.isfinite(np.asarray(part.data.evs, dtype=float)).all():
            bad = int((~np.isfinite(np.asarray(part.data.evs, dtype=float))).sum())
            return f"PUB {index} of the job has {bad} NaN or infinite expectation values"
    return None


def _shapes(result: PrimitiveResult) -> list[tuple[int, ...]]:
    return [np.shape(part.data.evs) for part in result]


def _plain(metadata: Any) -> dict[str, Any]:
    return {key: value for key, value in dict(metadata or {}).items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))
