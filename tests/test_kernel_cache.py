"""Machine code on disk: never stale, never in the way; and it is made for the processor that numba compiles for."""

from __future__ import annotations

import inspect
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba.core import config
from numba.core.codegen import get_host_cpu_features

import qtm
from qtm._engines.density_matrix.kernels import sweep as noisy_sweep
from qtm._engines.statevector.kernels import compilation
from qtm._engines.trajectories import signed_rows

PACKAGE = Path(qtm.__file__).parent
KERNELS = PACKAGE / "_engines" / "statevector" / "kernels"


def tripled(numbers: np.ndarray) -> float:
    total = 0.0
    for number in numbers:
        total += 3.0 * number
    return total


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """A kernel as a new process sees it, with the cache in ``tmp_path``."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compilation, "_said", set())
    return lambda: compilation.jit(tripled)


def compiled(kernel: Any) -> bool:
    """Whether the kernel, which must give the right result, had to be compiled for it."""
    assert kernel(np.arange(4.0)) == 18.0
    return sum(kernel.stats.cache_misses.values()) > 0


# Stale code


def test_a_kernel_is_compiled_once(fresh):
    assert compiled(fresh())
    assert not compiled(fresh())


def test_other_sources_of_any_kernel_make_machine_code_stale(fresh, monkeypatch):
    assert compiled(fresh())
    monkeypatch.setattr(compilation, "_SOURCES", "of another version")
    assert compiled(fresh())
    assert not compiled(fresh())


def test_every_source_counts(tmp_path):
    """So that no file can be forgotten: an edit, a renaming and a new file all change the fingerprint."""
    folder = tmp_path / "kernels"
    shutil.copytree(KERNELS, folder)
    before = compilation.fingerprint(folder)
    assert before == compilation._SOURCES
    seen = {before}
    for path in sorted(folder.glob("*.py")):
        path.write_text(path.read_text(encoding="utf-8") + "# edited\n", encoding="utf-8")
        seen.add(compilation.fingerprint(folder))
    (folder / "new.py").write_text("", encoding="utf-8")
    seen.add(compilation.fingerprint(folder))
    assert len(seen) == 2 + len(list(KERNELS.glob("*.py")))


@pytest.mark.parametrize("kernel", [signed_rows.spread, noisy_sweep.evaluate], ids=["trajectories", "density_matrix"])
def test_kernels_elsewhere_go_stale_with_their_own_folder_too(kernel):
    function = kernel.py_func
    wanted = compilation._SOURCES + compilation.fingerprint(Path(inspect.getfile(function)).parent)
    assert compilation.sources_of(function) == wanted
    assert kernel._cache._cache_file._source_stamp == wanted
    assert compilation.sources_of(compilation.fingerprint) == compilation._SOURCES


def copy_of_package(folder: Path) -> Path:
    shutil.copytree(PACKAGE, folder / "qtm", ignore=shutil.ignore_patterns("__pycache__"))
    return folder / "qtm"


def run_alone(program: str, **environment: str) -> str:
    """What a program prints and logs, in a process of its own."""
    variables = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(PACKAGE.parent), **environment}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=240, check=False, env=variables,
        cwd=variables["PYTHONPATH"],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


SCALED = """
import numpy as np
from qtm._engines.statevector.kernels.sweep import Team, rescale
from qtm._engines.statevector.buffer_pool import aligned
state, scale, no = aligned((16,), "f8"), aligned((8,), "f8"), np.zeros(1, np.int64)
state[:], scale[:] = 3, 5
rescale(state, 1, scale, Team(0, 1, no, no, no))
print(state[0])
"""


@pytest.mark.slow
def test_editing_a_callee_recompiles_its_kernel(tmp_path):
    copy = copy_of_package(tmp_path)
    settings = {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    assert run_alone(SCALED, **settings) == "15.0\n"
    source = copy / "_engines" / "statevector" / "kernels" / "simd.py"
    text = source.read_text(encoding="utf-8")
    assert text.count("e.mul(target.load(i), factor)") == 1
    source.write_text(text.replace("e.mul(target.load(i), factor)", "e.add(target.load(i), factor)"), encoding="utf-8")
    assert run_alone(SCALED, **settings) == "8.0\n"


# A cache that cannot be used


def damaged(data: bytes) -> list[bytes]:
    """Cut short at many places, blanked, changed in one byte at many places, and something else altogether."""
    cut = [data[: len(data) * part // 8] for part in range(8)]
    blank = [data[: len(data) * part // 8].ljust(len(data), b"\0") for part in range(1, 8)]
    changed = []
    for part in range(20):
        place = (len(data) - 1) * part // 19
        changed.append(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
    return [*cut, *blank, *changed, b"not a pickle"]


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.slow
def test_damaged_files_are_replaced(fresh, tmp_path, caplog, suffix, monkeypatch):
    assert compiled(fresh())
    (path,) = tmp_path.rglob(f"*{suffix}")
    whole = path.read_bytes()
    for number, data in enumerate(damaged(whole)):
        monkeypatch.setattr(compilation, "_said", set())
        caplog.clear()
        path.write_bytes(data)
        again = compiled(fresh())
        messages = [record.getMessage() for record in caplog.records]
        assert len(messages) <= 1, number
        assert suffix == ".nbi" or (again and "could not be read" in messages[0]), number
        assert not compiled(fresh()), number


def test_a_disk_that_is_full_is_said_once(fresh, caplog):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # Python ignores the signal: writing raises OSError
    try:
        assert compiled(fresh())
        assert compiled(fresh())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (record,) = caplog.records
    assert "could not be kept" in record.getMessage() and "NUMBA_CACHE_DIR" in record.getMessage()
    assert compiled(fresh()) and not compiled(fresh())


def test_a_folder_that_disappears(fresh, tmp_path, caplog):
    kernel = fresh()
    shutil.rmtree(tmp_path)
    tmp_path.write_text("a file", encoding="utf-8")
    assert compiled(kernel)
    assert any("could not be kept" in record.getMessage() for record in caplog.records)


@pytest.mark.slow
def test_importing_where_nothing_can_be_written(tmp_path):
    """As in a container: the package, the home and the folder for caches are all read-only."""
    copy = copy_of_package(tmp_path)
    for folder in [copy, *(path for path in copy.rglob("*") if path.is_dir())]:
        (folder / "__pycache__").write_text("a file where a folder should be", encoding="utf-8")
    nowhere = dict.fromkeys(("HOME", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME"), "/dev/null")
    shown = run_alone(SCALED, PYTHONPATH=str(tmp_path), **nowhere).splitlines()
    assert "15.0" in shown
    assert sum("compiled kernels could not be kept" in line for line in shown) == 1


# The processor


@pytest.mark.parametrize(
    ("features", "avx", "expected"),
    [
        ("", 1, set()),
        ("+avx2,-avx512f,+fma", 1, {"avx2", "fma"}),
        (None, 1, {f[1:] for f in get_host_cpu_features().split(",") if f.startswith("+")}),
        (None, 0, {f[1:] for f in get_host_cpu_features().split(",") if f.startswith("+") and f[:4] != "+avx"}),
    ],
)
def test_features_are_those_that_numba_compiles_for(monkeypatch, features, avx, expected):
    monkeypatch.setattr(config, "CPU_FEATURES", features)
    monkeypatch.setattr(config, "ENABLE_AVX", avx)
    assert compilation.target_features() == expected


NARROW = """
import torch
from qiskit.circuit.library import efficient_su2
from qiskit.quantum_info import SparsePauliOp, Statevector
from qtm import QuantumModule
from qtm._engines.statevector.kernels import simd
ansatz = efficient_su2(7, reps=1)
observable, found = "XZIIYZZ", []
for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
    module = QuantumModule(ansatz, None, ansatz.parameters, observables=[observable], seed_init=0).to(dtype)
    value = module()
    value.sum().backward()
    weights = module.variational.detach().double()

    def exact(weights):
        return Statevector(ansatz.assign_parameters(weights.numpy())).expectation_value(SparsePauliOp(observable)).real

    shift = torch.pi / 2 * torch.eye(len(weights), dtype=torch.float64)
    gradient = torch.tensor([(exact(weights + s) - exact(weights - s)) / 2 for s in shift])
    found.append(abs(value.item() - exact(weights)) < tolerance)
    found.append((module.variational.grad.double() - gradient).abs().max().item() < tolerance)
print(8 * simd.VECTOR_BYTES, *found)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "bits"),
    [
        ({"NUMBA_CPU_NAME": "generic"}, 128),
        ({"NUMBA_ENABLE_AVX": "0"}, 128),
        ({"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+popcnt"}, 256),
    ],
    ids=["generic", "no AVX", "AVX2"],
)
def test_settings_of_numba_decide_the_width_of_vectors(setting, bits, tmp_path):
    if bits == 256 and "avx2" not in compilation.target_features():
        pytest.skip("this processor has no AVX2")
    assert f"{bits} True True True True\n" in run_alone(NARROW, NUMBA_CACHE_DIR=str(tmp_path), **setting)
