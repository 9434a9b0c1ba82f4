"""Sweeps in CUDA graphs: their launches are recorded once, and replayed with other angles.

A graph reads and writes the same memory at every replay. So each recording has its own buffers, used by one call at a
time: from its forward sweep to its reverse sweep, or until its residuals are garbage-collected. Callers get copies. If
recording is not possible, or all recordings are in use, the sweeps are launched as usual.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from qtm._engines.triton_statevector import launch
from qtm._engines.triton_statevector.cone_batch import Target
from qtm._engines.triton_statevector.outputs import Compiled, Kept
from qtm._locks import fork_safe_lock

_LARGEST = 1 << 26  # maximum bytes of a recording; larger states take few launches for their run time
_MOST_BYTES = 1 << 28  # of all recordings of an engine on a device
_MOST_PENDING = 4  # recordings of one shape: forward sweeps that wait for their reverse sweeps
_MOST_SHAPES = 8  # number of recently used shapes
_RECORDING = fork_safe_lock()  # torch allows one recording at a time in a process
_logger = logging.getLogger("qtm")

Replay = Callable[[], None]


class Recorder(Protocol):
    """Records and replays launches on one device."""

    def stream(self) -> Hashable | None:
        """The current stream; None while another graph is being recorded on it."""

    def record(self, warm_up: Callable[[], object], compute: Callable[[], Any]) -> tuple[Replay, Any]:
        """Run ``warm_up``, then record ``compute`` without running it; each replay computes the result."""

    def join(self, stream: Any) -> None:
        """Make a stream wait for the work of the current stream."""


class CudaRecorder:
    """`torch.cuda.CUDAGraph`, as torch's documentation recommends: warmed up and recorded on a side stream.

    Args:
        device: a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self._side = device, torch.cuda.Stream(device)

    def stream(self) -> torch.cuda.Stream | None:
        """See `Recorder.stream`."""
        with torch.cuda.device(self.device):
            return None if torch.cuda.is_current_stream_capturing() else torch.cuda.current_stream()

    def record(self, warm_up: Callable[[], object], compute: Callable[[], Any]) -> tuple[Replay, Any]:
        """See `Recorder.record`."""
        with torch.cuda.device(self.device), _RECORDING:
            current = torch.cuda.current_stream()
            self._side.wait_stream(current)
            with torch.cuda.stream(self._side):
                warm_up()
            current.wait_stream(self._side)
            graph = torch.cuda.CUDAGraph()
            # Other threads, such as those of data loaders and of NCCL, may make calls that a recording forbids.
            with torch.cuda.graph(graph, stream=self._side, capture_error_mode="thread_local"):
                result = compute()
        return graph.replay, result

    def join(self, stream: torch.cuda.Stream) -> None:
        """See `Recorder.join`."""
        with torch.cuda.device(self.device):
            stream.wait_stream(torch.cuda.current_stream())


def recorder_for(device: torch.device) -> Recorder | None:
    """The recorder of a device, if it supports graphs."""
    return CudaRecorder(device) if device.type == "cuda" else None


class _Recording:
    """The sweeps of one shape on one stream, with their buffers; its user marks it as free."""

    def __init__(self, compiled: Compiled, recorder: Recorder, angles: Tensor, prepared: Sequence[Tensor]) -> None:
        self.compiled, self.recorder, self.stream = compiled, recorder, recorder.stream()
        self.angles, self.prepared = angles.clone(), [p.clone() for p in prepared]
        self.is_free = False
        self._reverse: dict[bool, tuple[Replay, Tensor, tuple[Tensor, tuple[Tensor, ...]]]] = {}

    def record(self, keep: bool) -> None:
        """Record the forward sweep."""

        def compute() -> tuple[Tensor, Kept | None]:
            return self.compiled.forward(self.angles, self.prepared, keep)

        self._replay, (self._values, self._kept) = self.recorder.record(compute, compute)

    def forward(self, angles: Tensor, prepared: Sequence[Tensor]) -> tuple[Tensor, Pending | None]:
        """Values, and residuals if kept."""
        self.angles.copy_(angles)
        for own, given in zip(self.prepared, prepared, strict=True):
            own.copy_(given)
        self._replay()
        return self._values.clone(), None if self._kept is None else Pending(self)

    def vjp(self, target: Target, cotangent: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Derivatives, by replay on the stream of the forward sweep."""
        by = target.by_prepared
        if by not in self._reverse:
            own, given = Target(self.angles, self.prepared, by), cotangent.clone()
            self._reverse[by] = self._recorded(own, given)
        replay, given, found = self._reverse[by]
        given.copy_(cotangent)
        replay()
        return found[0].clone(), tuple(one.clone() for one in found[1])

    def _recorded(self, target: Target, cotangent: Tensor) -> tuple[Replay, Tensor, Any]:
        def warm_up() -> None:  # on a copy: a reverse sweep overwrites the states
            self.compiled.vjp(target, cotangent, self.kept(copied=True))

        def compute() -> tuple[Tensor, tuple[Tensor, ...]]:
            return self.compiled.vjp(target, cotangent, self.kept())

        replay, found = self.recorder.record(warm_up, compute)
        return replay, cotangent, found

    def kept(self, *, copied: bool = False) -> Kept:
        """The residuals that `Compiled.vjp` takes out of its lists."""
        assert self._kept is not None
        return [
            [c._replace(state=c.state.clone()) if copied and c.state is not None else c for c in chunks]
            for chunks in self._kept
        ]


class Pending:
    """Residuals in the buffers of a recording, which is free again once they are consumed or dropped."""

    def __init__(self, recording: _Recording) -> None:
        self._recording: _Recording | None = recording

    def take(self) -> _Recording:
        """Take the recording, which the caller frees.

        Raises:
            RuntimeError: it was taken before.
        """
        found, self._recording = self._recording, None
        if found is None:
            raise RuntimeError("these states were consumed by a reverse sweep; run the forward sweep again")
        return found

    def __del__(self) -> None:
        if self._recording is not None:
            self._recording.is_free = True


class Graphs:
    """An output on one device, computed by replay if possible.

    Args:
        compiled: the output.
        recorder: the recorder of the device.
        device: the device.
        memory: bytes that states may take; None: a share of the free.
    """

    def __init__(self, compiled: Compiled, recorder: Recorder, device: torch.device, memory: int | None) -> None:
        self._compiled, self._recorder, self._device, self._memory = compiled, recorder, device, memory
        self._shapes: OrderedDict[Hashable, list[_Recording]] = OrderedDict()
        self._bytes: dict[Hashable, int] = {}
        self._refused: set[Hashable] = set()  # shapes for which there was no memory
        self._lock = fork_safe_lock()

    @torch.inference_mode(False)  # buffers created in inference mode could not be written outside of it
    @torch.no_grad()
    def forward(self, angles: Tensor, prepared: Sequence[Tensor], keep: bool) -> tuple[Tensor, Kept | Pending | None]:
        """See `Compiled.forward`."""
        recording = self._borrowed(angles, prepared, keep)
        if recording is None:
            return self._compiled.forward(angles, prepared, keep)
        pending = None
        try:
            values, pending = recording.forward(angles, prepared)
        finally:
            recording.is_free = pending is None
        return values, pending

    @torch.inference_mode(False)
    @torch.no_grad()
    def vjp(self, target: Target, cotangent: Tensor, kept: Kept | Pending | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `Compiled.vjp`."""
        if not isinstance(kept, Pending):
            return self._compiled.vjp(target, cotangent, kept)
        recording, stream = kept.take(), self._recorder.stream()
        if stream == recording.stream:
            return self._replayed(recording, target, cotangent)
        found = self._compiled.vjp(target, cotangent, recording.kept())
        if stream is not None:  # otherwise another graph reads these buffers from now on, and they are never free again
            self._recorder.join(recording.stream)
            recording.is_free = True
        return found

    def _replayed(self, recording: _Recording, target: Target, cotangent: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        try:
            found = recording.vjp(target, cotangent)
        except torch.OutOfMemoryError as error:  # while recording, so the states are still valid; not tried again
            _logger.warning("no memory to record a reverse sweep in a CUDA graph, launched instead: %s", error)
            return self._compiled.vjp(target, cotangent, recording.kept())
        recording.is_free = True
        return found

    def _borrowed(self, angles: Tensor, prepared: Sequence[Tensor], keep: bool) -> _Recording | None:
        """A recording for exclusive use; None: launch as usual."""
        stream = self._recorder.stream()
        size = self._compiled.bytes_of(len(angles))
        if stream is None or not len(angles) or size > _LARGEST:
            return None
        key = stream, keep, angles.shape, angles.dtype, *((p.shape, p.dtype) for p in prepared)
        with self._lock:
            if key not in self._shapes:  # a shape may never be used again
                self._add(key, size)
                return None
            self._shapes.move_to_end(key)
            recordings = self._shapes[key]
            for one in recordings:
                if one.is_free:
                    one.is_free = False
                    return one
            if len(recordings) >= _MOST_PENDING or key in self._refused or not self._has_room(size):
                return None
            made = self._recorded(angles, prepared, keep)
            if made is None:
                self._refused.add(key)
            else:
                recordings.append(made)
            return made

    def _add(self, key: Hashable, size: int) -> None:
        self._shapes[key], self._bytes[key] = [], size
        if len(self._shapes) > _MOST_SHAPES:
            oldest, _ = self._shapes.popitem(last=False)
            del self._bytes[oldest]
            self._refused.discard(oldest)

    def _has_room(self, size: int) -> bool:
        used = sum(self._bytes[key] * len(recordings) for key, recordings in self._shapes.items())
        return used + size <= _MOST_BYTES and size <= launch.budget(self._device, self._memory)

    def _recorded(self, angles: Tensor, prepared: Sequence[Tensor], keep: bool) -> _Recording | None:
        try:
            made = _Recording(self._compiled, self._recorder, angles, prepared)
            made.record(keep)
        except torch.OutOfMemoryError as error:
            _logger.warning("no memory to record a forward sweep in a CUDA graph, launched instead: %s", error)
            return None
        return made
