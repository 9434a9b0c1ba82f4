"""Cores and memory available to this process, on the machine or in its container.

A container (Docker, Kubernetes, a batch system, systemd) limits its processes by Linux control groups, which the
machine's own figures do not show. Version 1 mounts every controller by itself, version 2 all of them together; the
limits of all parent groups apply too [1], [2].

[1] https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
[2] https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path, PurePosixPath

_ROOT = Path("/")


def available_cores(root: Path = _ROOT) -> int:
    """Cores that this process may use, at least one.

    A quota is rounded down to whole cores: one more thread would be throttled most of the time, while the others wait
    for it.

    Args:
        root: the folder that holds ``proc`` and ``sys``.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    quotas = [_quota(folder) for folder in _groups(root, "cpu")]
    return max(1, min([count, *(int(quota) for quota in quotas if quota is not None)]))


def free_memory(root: Path = _ROOT) -> int:
    """Bytes of memory that this process can still allocate, at least 0.

    Args:
        root: the folder that holds ``proc`` and ``sys``.
    """
    rooms = [_room(folder) for folder in _groups(root, "memory")]
    return max(0, min([_free_on_machine(root), *(room for room in rooms if room is not None)]))


def _free_on_machine(root: Path) -> int:
    available = _rows(root / "proc/meminfo").get("MemAvailable")
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 if available is None else available * 1024


def _lines(path: Path) -> list[str]:
    """Lines of a file; none if it cannot be read, because the system does not have it."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _rows(path: Path) -> dict[str, int]:
    """Numbers by name, of a file with lines such as ``name 5`` or ``name: 5 kB``."""
    words = (line.replace(":", " ").split() for line in _lines(path))
    return {row[0]: int(row[1]) for row in words if len(row) > 1 and row[1].isdecimal()}


# --- Control groups -----------------------------------------------------------------------------------------------


def _quota(folder: Path) -> float | None:
    """Cores that a group may keep busy; None: no limit."""
    both = " ".join(_lines(folder / "cpu.max")).split()  # "max 100000" or "150000 100000"
    if len(both) == 2:
        quota, period = (int(word) if word.isdecimal() else None for word in both)
    else:
        quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota / period if quota is not None and quota > 0 and period else None  # -1: no limit


def _room(folder: Path) -> int | None:
    """Bytes that a group may still allocate; None: no limit. The page cache counts as free: the kernel reclaims it."""
    for limit, usage, files in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        most, used = _number(folder / limit), _number(folder / usage)
        if most is not None and used is not None:
            return most - used + min(_rows(folder / "memory.stat").get(files, 0), used)
    return None


def _number(path: Path) -> int | None:
    """The number in a file; None if the file does not exist or holds "max"."""
    text = "".join(_lines(path)).strip()
    return int(text) if text.lstrip("-").isdecimal() else None


@cache
def _groups(root: Path, controller: str) -> tuple[Path, ...]:
    """Folders of the control groups of this process, from its own up to the topmost visible one."""
    members = [line.split(":", 2) for line in _lines(root / "proc/self/cgroup") if line.count(":") >= 2]
    mounts = [line.split(" - ") for line in _lines(root / "proc/self/mountinfo")]
    folders: list[Path] = []
    for before, after in (mount for mount in mounts if len(mount) == 2):
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2":
            paths = [path for _, names, path in members if not names]
        elif kind == "cgroup" and controller in options.split(","):
            paths = [path for _, names, path in members if controller in names.split(",")]
        else:
            continue
        top, point = before.split(" ")[3:5]
        for path in paths:
            folders += _chain(root / point.lstrip("/"), top, path)
    return tuple(folders)


def _chain(mounted: Path, top: str, path: str) -> list[Path]:
    """The folder of group ``path`` and those above it, where group ``top`` is mounted at ``mounted``."""
    inside = PurePosixPath(path)
    # In a container the path may be the host's, while the mount shows the container's own group.
    below = inside.relative_to(top).parts if inside.is_relative_to(top) and ".." not in inside.parts else ()
    chain = [mounted.joinpath(*below[:depth]) for depth in range(len(below), -1, -1)]
    return [folder for folder in chain if folder.is_dir()]


@contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """Pause the garbage collector; if it was off before, it stays off."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
