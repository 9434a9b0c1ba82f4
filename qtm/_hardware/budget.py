"""Limits of a run: its own budget, and the rest of the account's plan."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from qiskit.exceptions import QiskitError

from qtm._errors import BudgetExceeded
from qtm._hardware.runtime import Retry
from qtm._primitives.job_usage import Usage

logger = logging.getLogger("qtm")

# Seconds; the service accepts no longer limit for a job (quantum.cloud.ibm.com/docs/guides/max-execution-time).
LONGEST_JOB = 10_800


@dataclass(frozen=True)
class Budget:
    """Limits of a whole run, over all of its processes; None means no limit."""

    executions: int | None = None
    seconds: float | None = None

    def check(self, used: Usage, asked: Usage) -> None:
        """Raise BudgetExceeded if ``used`` and ``asked`` together exceed a limit."""
        table = (("executions", self.executions), ("seconds", self.seconds))
        for name, limit in table:
            have, more = getattr(used, name), getattr(asked, name)
            if limit is not None and more > 0 and have + more > limit:
                raise BudgetExceeded(
                    f"max_{name}={limit:g} would be exceeded: used so far {used}; the next submission needs "
                    f"{asked}. Nothing was submitted; finished jobs and checkpoints are kept. Continue with "
                    f"hardware.resume(journal, max_{name}=...), or ask for fewer shots"
                )


class PlanLimit:
    """The rest of the account's plan, as reported by the service.

    Args:
        service: A ``QiskitRuntimeService``.
        retry: Retries of failed requests.
    """

    def __init__(self, service: Any, retry: Retry) -> None:
        self._service, self._retry = service, retry

    def remaining_seconds(self) -> float | None:
        """Remaining quantum seconds; None if the plan has no limit, or the service does not report it."""
        if not hasattr(self._service, "usage"):
            return None
        try:
            found = self._retry("asking for the usage of the account", lambda _: self._service.usage())
        except (QiskitError, OSError) as error:  # the service enforces its limit itself, so continue
            logger.warning("the remaining time of the account's plan is unknown: %s", type(error).__name__)
            return None
        seconds = found.get("usage_remaining_seconds")
        return None if seconds is None else float(seconds)

    def check(self, asked: Usage) -> None:
        """Compare a forecast with the remaining time.

        Raises:
            BudgetExceeded: The forecast exceeds it.
        """
        left = self.remaining_seconds() if asked.seconds > 0 else None
        if left is not None and asked.seconds > left:
            raise BudgetExceeded(
                f"the account's plan has {left:.0f} s left, and this needs {asked}. Nothing was submitted. Ask for "
                "fewer shots, steps or parameters (gradient='spsa'), or wait until the plan's next period"
            )
