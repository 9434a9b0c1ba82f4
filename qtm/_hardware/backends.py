"""Backends by name: local fake devices and simulators, and devices at the service."""

from __future__ import annotations

import os
from typing import Any

from qiskit.exceptions import QiskitError
from qiskit.providers import BackendV2

from qtm._errors import ParameterError, QtmError, require
from qtm._hardware.runtime import EXTRA, Retry, is_transient, kind_for
from qtm._hardware.settings import Settings


def find_backend(
    backend: str | BackendV2 | None, service: Any, settings: Settings, min_qubits: int | None
) -> tuple[BackendV2, Any]:
    """Return the backend and the service that runs its jobs.

    Raises:
        QtmError: There is no account or no such backend, or fractional gates were requested and it has none.
    """
    if isinstance(backend, str) and service is None and backend.startswith(("fake_", "aer")):
        backend = _local_backend(backend)
    if isinstance(backend, BackendV2):
        device, service = backend, _service_of(backend, service)
    else:
        service = service or open_service(settings.instance)
        retry = Retry(settings.retries, settings.backoff)
        device = retry("finding the device", lambda _: _at_service(backend, service, settings, min_qubits))
    if settings.use_fractional_gates and "rzz" not in device.target.operation_names:
        raise QtmError(f"{device.name} has no fractional gates; leave use_fractional_gates out, or name another device")
    return device, service


def checked_kind(kind: str, backend: BackendV2, service: Any) -> str:
    """Return the kind of primitives that run on a backend; "auto" is replaced.

    Raises:
        ParameterError: The backend cannot run circuits itself.
    """
    if kind == "backend" and not getattr(service, "is_local", False):
        raise ParameterError(
            f"estimator='backend' runs circuits with the backend's own run(), which {backend.name} does not have; "
            "leave estimator out, or give 'executor'"
        )
    return kind_for(backend) if kind == "auto" else kind


def check_given(class_name: str | None, backend: BackendV2 | None, name: str) -> None:
    """Raise an error if a run was connected to a backend object, which may have its own noise, and resumes by name.

    Args:
        class_name: Class of the object that the run was given; None if it was given a name.
        backend: The object that ``resume`` was given.
        name: Name of the run's backend.

    Raises:
        QtmError: An object is needed and was not given.
    """
    if backend is None and class_name is not None and not class_name.startswith("qiskit_ibm_runtime."):
        raise QtmError(
            f"the run is on {name}, which was given as a {class_name}; give it again: hardware.resume(journal, backend)"
        )


def refresh(backend: Any) -> None:
    """Fetch the latest calibration; only that of real devices changes."""
    if hasattr(backend, "service") and hasattr(backend, "refresh"):
        Retry()("fetching the calibration", lambda _: backend.refresh())


def class_name(backend: Any) -> str | None:
    """Return the class of a backend object; None for a name."""
    return f"{type(backend).__module__}.{type(backend).__qualname__}" if isinstance(backend, BackendV2) else None


def _service_of(backend: BackendV2, service: Any) -> Any:
    """The Qiskit Runtime service of a backend object; attributes of this name in other packages are ignored."""
    runtime = require("qiskit_ibm_runtime", EXTRA)
    own = backend.service if isinstance(backend, runtime.IBMBackend) else None
    given = None if kind_for(backend) == "backend" else service
    return given or own or runtime.fake_provider.local_service.QiskitRuntimeLocalService()


def _at_service(name: str | None, service: Any, settings: Settings, min_qubits: int | None) -> BackendV2:
    fractional = {"use_fractional_gates": True} if settings.use_fractional_gates else {}
    try:
        if name is None:
            return service.least_busy(min_num_qubits=min_qubits, **fractional)
        return service.backend(name, **fractional)
    except Exception as error:
        if is_transient(error):
            raise
        raise QtmError(_no_backend(name, min_qubits, service, error)) from error


def _no_backend(name: str | None, min_qubits: int | None, service: Any, error: Exception) -> str:
    if name is None:
        return f"no device is online with {min_qubits or 1} qubits or more for this account ({error})"
    known = sorted(backend.name for backend in service.backends())
    return f"there is no backend {name!r} ({error}); there are: {', '.join(known)}"


def _local_backend(name: str) -> BackendV2:
    # Not through the provider of the fake devices, which builds all of them to find one.
    fakes = vars(require("qiskit_ibm_runtime.fake_provider", EXTRA)).values()
    known = {cls.backend_name: cls for cls in fakes if isinstance(getattr(cls, "backend_name", None), str)}
    if name in ("aer", "aer_simulator"):
        return require("qiskit_aer", "aer").AerSimulator()
    if name not in known:
        names = ", ".join(sorted([*known, "aer"]))
        raise QtmError(f"there is no local backend {name!r}; there are: {names}")
    return known[name]()


def open_service(instance: str | None) -> Any:
    runtime = require("qiskit_ibm_runtime", EXTRA)
    try:
        return runtime.QiskitRuntimeService(instance=instance)
    except (QiskitError, ValueError, OSError) as error:
        # Not "from error": the runtime's message may quote an unusable token.
        raise QtmError(
            "no usable account of IBM Quantum: " + _without_token(f"{type(error).__name__}: {error}") + ". "
            "Save one with QiskitRuntimeService.save_account(...), or set QISKIT_IBM_TOKEN; without one, "
            'connect to a fake device: connect("fake_manila")'
        ) from None


def _without_token(text: str) -> str:
    token = os.environ.get("QISKIT_IBM_TOKEN", "").strip()
    return text.replace(token, "***") if token else text
