"""The job of simulators, which has already run when it is returned."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from qiskit.primitives import BasePrimitiveJob
from qiskit.providers import JobStatus

Result = TypeVar("Result")


class FinishedJob(BasePrimitiveJob[Result, JobStatus]):
    """``function(*arguments)``, run on the calling thread when the job is created.

    A small circuit takes less time than starting a thread, and batches have threads of their own. As with
    Qiskit's jobs, ``result`` raises the errors.
    """

    def __init__(self, function: Callable[..., Result], *arguments: Any) -> None:
        super().__init__(str(uuid.uuid4()))
        self._error: Exception | None = None
        try:
            self._value = function(*arguments)
        except Exception as error:  # noqa: BLE001 (nothing is lost: the result raises it)
            self._error = error

    def result(self) -> Result:
        """The result.

        Raises:
            Exception: the computation's own error.
        """
        if self._error is not None:
            raise self._error
        return self._value

    def status(self) -> JobStatus:
        """``DONE`` or ``ERROR``."""
        return JobStatus.DONE if self._error is None else JobStatus.ERROR

    def done(self) -> bool:
        """Whether there is a result."""
        return self._error is None

    def running(self) -> bool:
        """Never."""
        return False

    def cancelled(self) -> bool:
        """Never."""
        return False

    def in_final_state(self) -> bool:
        """Always."""
        return True

    def cancel(self) -> bool:
        """Too late: False."""
        return False
