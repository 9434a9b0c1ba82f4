"""Peak memory of one step, in a process that does nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
    QtmRunner(WORKLOADS[workload].case(int(x), int(batch)), "double", int(threads)).combined()
    sys.stdout.write(f"{_own_peak_mib()}\n")


def _own_peak_mib() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # Linux, whose ru_maxrss counts the parent, of which this process was a copy at first
        return int(status.read_text(encoding="ascii").partition("VmHWM:")[2].split()[0]) / 2**10
    import resource  # not on every system

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    _main(*sys.argv[1:])
