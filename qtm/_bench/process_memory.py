"""Peak memory of one step, in a process that does nothing else."""

from __future__ import annotations

import subprocess
import sys

from qtm._bench.workloads import WORKLOADS, QtmRunner
from qtm._errors import QtmError


def peak_mib(workload: str, x: int, batch: int, threads: int) -> float | None:
    """Peak resident memory in MiB of a new Python that computes one step, imports included; None on Windows.

    Raises:
        QtmError: the process failed; the message is its last line.
    """
    if sys.platform == "win32":  # which does not say
        return None
    command = [sys.executable, "-m", __name__, workload, *map(str, (x, batch, threads))]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        raise QtmError(f"measuring memory failed: {(found.stderr.strip().splitlines() or ['no message'])[-1]}")
    return float(found.stdout.splitlines()[-1])


def _main(workload: str, x: str, batch: str, threads: str) -> None:
    import resource  # not on every system

    QtmRunner(WORKLOADS[workload].case(int(x), int(batch)), "double", int(threads)).combined()
    unit = 2**20 if sys.platform == "darwin" else 2**10
    sys.stdout.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])
