"""Checkpoints of a training run: all state needed to resume it, in one file."""

from __future__ import annotations

import os
import random
import zipfile
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from qtm._errors import QtmError
from qtm._hardware.journal import Journal


@runtime_checkable
class Stateful(Protocol):
    """The common interface of torch's modules, optimizers and schedulers."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state_dict: Any) -> Any: ...


class Checkpoint:
    """Saves and restores a training run: its parts, its random states, its position in the job journal.

    The file is written atomically, and loads with ``torch.load(path, weights_only=True)``.

    Args:
        path: The file.
        journal: The journal of the run. Jobs submitted after a restored checkpoint are replayed from it.

    Example:
        >>> import tempfile, torch
        >>> model = torch.nn.Linear(2, 1)
        >>> checkpoint = Checkpoint(tempfile.mkdtemp() + "/run.pt")
        >>> checkpoint.load(model=model)  # nothing saved yet: start at step 0
        0
        >>> checkpoint.save(3, model=model, losses=[0.5, 0.4, 0.3])
        >>> checkpoint.load(model=model), checkpoint.values
        (3, {'losses': [0.5, 0.4, 0.3]})
    """

    def __init__(self, path: str | Path, journal: Journal | None = None) -> None:
        self.path = Path(path)
        self.values: dict[str, Any] = {}
        self._journal = journal

    def save(self, step: int, **parts: Any) -> None:
        """Write the state after ``step`` steps.

        Args:
            step: The number of finished steps; ``load`` returns it.
            **parts: What to save, by name: anything with ``state_dict`` and ``load_state_dict`` (modules,
                optimizers, schedulers), a ``numpy.random.Generator`` or ``torch.Generator``, or plain
                values (numbers, strings, tensors, and lists and dicts of them).

        Raises:
            QtmError: A part is none of these.
        """
        state = {
            "step": step,
            "parts": {name: _state_of(name, part) for name, part in parts.items()},
            "random": _random_states(),
            "run": None if self._journal is None else self._place(self._journal),
        }
        _write_whole(self.path, state)

    def load(self, **parts: Any) -> int:
        """Restore the parts in place, and the random states of torch, numpy and Python.

        Plain values of the checkpoint are left in ``values``.

        Returns:
            The number of finished steps; 0, with nothing changed, if the file does not exist yet.

        Raises:
            QtmError: The file is not a checkpoint, or a part was not saved in it.
        """
        if not self.path.exists():
            return 0
        state = self._read()
        missing = parts.keys() - state["parts"].keys()
        if missing:
            raise QtmError(
                f"{self.path} has no {', '.join(sorted(missing))}; it was saved with "
                f"{', '.join(state['parts']) or 'no parts'}: pass the same names to save and load"
            )
        for name, part in parts.items():
            _restore(name, part, state["parts"][name])
        self.values = {n: s["value"] for n, s in state["parts"].items() if s["kind"] == "value"}
        _restore_random(state["random"])
        if self._journal is not None and state["run"] is not None:
            run_id, position, self._journal.epoch, states = state["run"]
            same = run_id == self._journal.run_id
            self._journal.seek(position if same else 0)
            self._journal.restore(states if same else [])  # states measured in another run do not apply here
        return int(state["step"])

    @staticmethod
    def _place(journal: Journal) -> list[Any]:
        return [journal.run_id, journal.position, journal.epoch, journal.states()]

    def _read(self) -> dict[str, Any]:
        try:
            with zipfile.ZipFile(self.path) as archive:  # torch does not verify the checksums that it writes
                if (changed := archive.testzip()) is not None:
                    raise ValueError(f"the checksum of {changed} does not match")
            state = torch.load(self.path, weights_only=True, map_location="cpu")
            state["step"], state["parts"], state["random"]
        except Exception as error:  # torch raises a dozen error types for a damaged file
            raise QtmError(
                f"{self.path} is not a checkpoint of qtm, or it is damaged: {error}. Restore it from a backup, or "
                "delete it: the run then starts from its first step, answered from its journal as far as that goes"
            ) from error
        return dict(state)


def _state_of(name: str, part: Any) -> dict[str, Any]:
    if isinstance(part, np.random.Generator):
        return {"kind": "numpy", "value": _plain(part.bit_generator.state)}
    if isinstance(part, torch.Generator):
        return {"kind": "torch", "value": part.get_state()}
    if isinstance(part, Stateful):
        return {"kind": "state", "value": _plain(part.state_dict())}
    return {"kind": "value", "value": _checked(name, _plain(part))}


def _restore(name: str, part: Any, saved: dict[str, Any]) -> None:
    kind, value = saved["kind"], saved["value"]
    if isinstance(part, np.random.Generator) and kind == "numpy":
        part.bit_generator.state = _numpy_state(value)
    elif isinstance(part, torch.Generator) and kind == "torch":
        part.set_state(value)
    elif isinstance(part, Stateful) and kind == "state":
        part.load_state_dict(value)
    elif kind != "value":
        raise QtmError(f"{name!r} was saved as a {kind} and is now a {type(part).__name__}")


def _plain(value: Any) -> Any:
    """Convert NumPy values to types that ``torch.load(weights_only=True)`` reads."""
    if isinstance(value, np.ndarray):
        # torch has few unsigned types; 64 bits hold every one but uint64, which is viewed as signed
        signed = value.view(np.int64) if value.dtype == np.uint64 else value
        return torch.from_numpy(signed.astype(np.int64) if signed.dtype.kind == "u" else signed.copy())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value
    return value


def _checked(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _checked(name, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_checked(name, item) for item in value]
    if value is None or isinstance(value, (bool, int, float, complex, str, torch.Tensor)):
        return value
    raise QtmError(
        f"cannot save {name!r}: a {type(value).__name__} has no state_dict and is not a number, string or tensor"
    )


def _random_states() -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": _plain(np.random.get_state()),  # noqa: NPY002
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def _restore_random(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    name, key, *rest = states["numpy"]
    np.random.set_state((name, key.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])


def _numpy_state(value: Any) -> Any:
    """Undo `_plain` for the state of a bit generator: its arrays are unsigned."""
    if isinstance(value, torch.Tensor):
        return value.numpy().view(np.uint64)
    return {key: _numpy_state(item) for key, item in value.items()} if isinstance(value, dict) else value


def _write_whole(path: Path, state: dict[str, Any]) -> None:
    """Write to a temporary file and rename it: a process killed here leaves the old checkpoint intact."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    try:
        with open(beside, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError on a full disk
        beside.unlink(missing_ok=True)
        raise QtmError(
            f"cannot write the checkpoint {path} ({error}); the one before it is kept. Free some space on the disk, or "
            "give another path"
        ) from error
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)
