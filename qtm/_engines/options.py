"""Options of the engines."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from qtm._arguments import shown
from qtm._circuit.noise_map import NoiseMap
from qtm._errors import DtypeError
from qtm._executors import check_executor, resolve_threads


@dataclass(frozen=True, slots=True)
class Options:
    """How to compute: dtype, workers, and the memory that states may take (bytes; None: a share of the free memory).

    ``backward_threads`` are those of derivatives; None: as many as ``num_threads``. ``method`` is a name, a pair of
    name and options, or a `SimulationMethod`. ``lane_kind`` forces "sample" or "amplitude" lanes of the state-vector
    kernels; None picks the faster. ``noise`` applies to the gates of every simulated circuit. ``device`` is the
    type of torch device on which the tensors are.
    """

    dtype: str = "complex128"
    num_threads: int = 0
    executor: Executor | None = None
    memory: int | None = None
    lane_kind: str | None = None
    backward_threads: int | None = None
    method: Any = "auto"
    noise: NoiseMap | None = None
    device: str = "cpu"


def checked_options(
    dtype: Any, num_threads: int, executor: Executor | None, method: Any = "auto", noise: NoiseMap | None = None
) -> Options:
    """Options of the engine from the user's arguments.

    Raises:
        DtypeError: the dtype is not complex128 or complex64.
        ParameterError: ``num_threads`` is negative, or ``executor`` cannot be submitted to.
    """
    name = "complex64" if real_dtype(dtype) == np.float32 else "complex128"
    resolve_threads(num_threads)
    check_executor(executor)
    return Options(name, num_threads, executor, method=method, noise=noise)


_DTYPES: dict[str, np.dtype[Any]] = {"complex128": np.dtype(np.float64), "complex64": np.dtype(np.float32)}


def real_dtype(dtype: Any) -> np.dtype:
    """The real dtype behind ``"complex128"`` or ``"complex64"``.

    Raises:
        DtypeError: another dtype.
    """
    try:
        return _DTYPES[dtype if isinstance(dtype, str) else str(np.dtype(dtype))]
    except (KeyError, TypeError) as error:
        raise DtypeError(f"dtype {shown(dtype)} is not supported; use one of {', '.join(_DTYPES)}") from error
