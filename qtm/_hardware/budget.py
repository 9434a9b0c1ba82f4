"""What a run may use: its own budget, and what the account's plan has left."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from qiskit.exceptions import QiskitError

from qtm._errors import BudgetExceeded
from qtm._hardware.runtime import Retry
from qtm._primitives.job_usage import Usage

logger = logging.getLogger("qtm")

# Seconds; the service takes no longer limit for a job (quantum.cloud.ibm.com/docs/guides/max-execution-time).
LONGEST_JOB = 10_800


@dataclass(frozen=True)
class Budget:
    """What a run may use in all, over every process that takes part in it; None is no limit."""

    executions: int | None = None
    seconds: float | None = None

    def check(self, used: Usage, asked: Usage) -> None:
        """Raise BudgetExceeded if ``asked`` on top of ``used`` is too much."""
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
    """What the account's plan has left, as the service counts it.

    Args:
        service: a ``QiskitRuntimeService``.
        retry: how to ask it.
    """

    def __init__(self, service: Any, retry: Retry) -> None:
        self._service, self._retry = service, retry

    def remaining_seconds(self) -> float | None:
        """Quantum seconds that are left; None where the plan has no limit, or the service does not say."""
        if not hasattr(self._service, "usage"):
            return None
        try:
            found = self._retry("asking for the usage of the account", lambda _: self._service.usage())
        except (QiskitError, OSError) as error:  # the service decides in the end: no reason to stop
            logger.warning("the account's usage is not known: %s", type(error).__name__)
            return None
        seconds = found.get("usage_remaining_seconds")
        return None if seconds is None else float(seconds)

    def check(self, asked: Usage) -> None:
        """Refuse what takes longer than is left.

        Raises:
            BudgetExceeded: it does.
        """
        left = self.remaining_seconds() if asked.seconds > 0 else None
        if left is not None and asked.seconds > left:
            raise BudgetExceeded(
                f"the account's plan has {left:.0f} s left, and this needs {asked}. Nothing was submitted. Ask for "
                "fewer shots, steps or parameters (gradient='spsa'), or wait until the plan's next period"
            )
