"""Cores and memory as a container limits them, shown by trees of files such as Linux keeps in /proc and /sys."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from qtm._engines.statevector import schedule
from qtm._errors import OutOfMemory
from qtm._machine import available_cores, free_memory, garbage_collection_paused

GIB = 1 << 30
V1_UNLIMITED = 9223372036854771712


class Tree:
    """A machine with 16 GiB to spare, and what is written into it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.mounts: list[str] = ["22 1 0:20 / / rw - ext4 /dev/vda rw"]
        self.write("proc/meminfo", "MemTotal:       33554432 kB\nMemAvailable:   16777216 kB")
        self.write("proc/self/cgroup", "")

    def write(self, path: str, text: object) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"{text}\n", encoding="ascii")

    def member(self, *lines: str) -> None:
        self.write("proc/self/cgroup", "\n".join(lines))

    def mount(self, point: str, kind: str, options: str, top: str = "/") -> None:
        self.mounts.append(f"31 22 0:27 {top} {point} rw,nosuid shared:9 - {kind} cgroup {options}")
        self.write("proc/self/mountinfo", "\n".join(self.mounts))

    def memory_v2(self, group: str, limit: object, used: int = 0, files: int = 0) -> None:
        self.write(f"{group}/memory.max", limit)
        self.write(f"{group}/memory.current", used)
        self.write(f"{group}/memory.stat", f"anon 5\ninactive_file {files}\nactive_file 7")

    def memory_v1(self, group: str, limit: int, used: int = 0, files: int = 0) -> None:
        self.write(f"{group}/memory.limit_in_bytes", limit)
        self.write(f"{group}/memory.usage_in_bytes", used)
        self.write(f"{group}/memory.stat", f"cache 5\ninactive_file 1\ntotal_inactive_file {files}")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    return Tree(tmp_path)


def test_without_groups(tree):
    assert (available_cores(tree.root), free_memory(tree.root)) == (8, 16 * GIB)
    tree.mount("/sys/fs/cgroup", "cgroup2", "rw")
    tree.member("0::/user.slice")
    assert (available_cores(Path(tree.root)), free_memory(tree.root)) == (8, 16 * GIB)


def test_this_machine():
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
    assert 0 < free_memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_no_proc_at_all(tmp_path):
    assert available_cores(tmp_path) >= 1
    assert free_memory(tmp_path) > 0


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"a/b": ("max", 0, 0)}, 16 * GIB),
        ({"a/b": (3 * GIB, 0, 0)}, 3 * GIB),
        ({"a/b": (3 * GIB, GIB, 0)}, 2 * GIB),
        ({"a/b": (3 * GIB, GIB, GIB // 2)}, 5 * GIB // 2),
        ({"a": (3 * GIB, 2 * GIB, 0), "a/b": ("max", GIB, 0)}, GIB),
        ({"a": (3 * GIB, 2 * GIB, 0), "a/b": (GIB, GIB // 2, 0)}, GIB // 2),
        ({"a/b": (GIB, 2 * GIB, 0)}, 0),
        ({"a/b": (64 * GIB, 0, 0)}, 16 * GIB),
        ({"other": (GIB, 0, 0)}, 16 * GIB),
    ],
)
def test_memory_of_version_2(tree, limits, expected):
    tree.mount("/sys/fs/cgroup", "cgroup2", "rw")
    tree.member("0::/a/b")
    for group, limit in limits.items():
        tree.memory_v2(f"sys/fs/cgroup/{group}", *limit)
    assert free_memory(tree.root) == expected


@pytest.mark.parametrize(
    ("limit", "used", "files", "expected"),
    [(V1_UNLIMITED, GIB, 0, 16 * GIB), (3 * GIB, GIB, 0, 2 * GIB), (3 * GIB, GIB, GIB // 4, 9 * GIB // 4)],
)
@pytest.mark.parametrize("where", ["a", "a/b"])
def test_memory_of_version_1(tree, limit, used, files, expected, where):
    tree.mount("/sys/fs/cgroup/memory", "cgroup", "rw,memory")
    tree.mount("/sys/fs/cgroup/unified", "cgroup2", "rw")
    tree.member("5:memory:/a/b", "1:cpu,cpuacct:/c", "0::/")
    tree.memory_v1("sys/fs/cgroup/memory/a/b", V1_UNLIMITED)
    tree.memory_v1(f"sys/fs/cgroup/memory/{where}", limit, used, files)
    assert free_memory(tree.root) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("max 100000", 8), ("100000 100000", 1), ("50000 100000", 1), ("250000 100000", 2), ("9900000 100000", 8)],
)
@pytest.mark.parametrize("group", ["", "/a", "/a/b"])
def test_cores_of_version_2(tree, text, expected, group):
    tree.mount("/sys/fs/cgroup", "cgroup2", "rw")
    tree.member("0::/a/b")
    tree.write("sys/fs/cgroup/a/b/cpu.max", "max 100000")
    tree.write(f"sys/fs/cgroup{group}/cpu.max", text)
    assert available_cores(tree.root) == expected


@pytest.mark.parametrize(("quota", "expected"), [(-1, 8), (100000, 1), (20000, 1), (350000, 3)])
def test_cores_of_version_1(tree, quota, expected):
    tree.mount("/sys/fs/cgroup/cpu,cpuacct", "cgroup", "rw,cpu,cpuacct")
    tree.member("3:cpu,cpuacct:/a")
    tree.write("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", quota)
    tree.write("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", 100000)
    assert available_cores(tree.root) == expected


@pytest.mark.parametrize(("member", "top"), [("/docker/abc", "/docker/abc"), ("/", "/"), ("/../x", "/"), ("/y", "/z")])
def test_a_container_sees_its_own_group_at_the_top(tree, member, top):
    """With and without a namespace of its own, version 1 mounts the container's group; the path may be the host's."""
    tree.mount("/sys/fs/cgroup/memory", "cgroup", "rw,memory", top)
    tree.member(f"5:memory:{member}")
    tree.memory_v1("sys/fs/cgroup/memory", 3 * GIB, GIB)
    assert free_memory(tree.root) == 2 * GIB


def test_states_that_the_container_cannot_hold_are_refused(tree, monkeypatch):
    """28 qubits where 3 GiB may be used: an error with the figures, not a killed process."""
    tree.mount("/sys/fs/cgroup", "cgroup2", "rw")
    tree.member("0::/a")
    tree.memory_v2("sys/fs/cgroup/a", 3 * GIB)
    monkeypatch.setattr(free_memory, "__defaults__", (tree.root,))
    schedule._refuse_what_cannot_fit(27)
    with pytest.raises(OutOfMemory, match="28 qubits need 4.0 GiB .* 3.0 GiB of memory are free"):
        schedule._refuse_what_cannot_fit(28)


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_paused_and_put_back(enabled):
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with garbage_collection_paused():
            assert not gc.isenabled()
        assert gc.isenabled() is enabled
        with pytest.raises(KeyError), garbage_collection_paused():
            raise KeyError
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()
