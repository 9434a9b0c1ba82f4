"""`qtm bench gpu` as far as it goes without a GPU: circuits, peers, rows, and what it says where there is none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from qiskit.quantum_info import Operator

import qtm
from qtm import bench
from qtm._bench import compare, gpu
from qtm._bench.compare import Settings
from qtm._bench.peers import PEERS
from qtm._engines.triton_statevector import launch
from qtm._engines.triton_statevector.sweeps import Traffic

needs_checkout = pytest.mark.skipif(
    not (Path(__file__).parent.parent / "benchmarks" / "peers").is_dir(), reason="no checkout"
)
each_circuit = pytest.mark.parametrize("name", gpu.CIRCUITS)
GIB = 2.0**30


def settings(**changed) -> Settings:
    return Settings(1, 1, ("double",), batch=2, **changed)


def test_the_energy_is_that_of_the_ising_chain():
    energy = Operator(gpu.ising_energy(3)).data
    z, x, one = np.diag([1, -1]), np.array([[0, 1], [1, 0]]), np.eye(2)

    def word(*letters):
        return np.kron(letters[2], np.kron(letters[1], letters[0]))

    expected = -word(z, z, one) - word(one, z, z) - word(x, one, one) - word(one, x, one) - word(one, one, x)
    np.testing.assert_allclose(energy, expected)
    assert gpu.ising_circuit(20).num_parameters == 10 * 39


@needs_checkout
@pytest.mark.slow
@each_circuit
def test_plain_torch_computes_the_same(name, monkeypatch):
    """Here on the CPU; its results are compared before a time counts."""
    monkeypatch.setitem(PEERS, "plain-torch-gpu", replace(PEERS["plain-torch-gpu"], arguments=()))
    rows = []
    workload = replace(gpu.CIRCUITS[name], modes=("combined",))
    compare.beside("plain-torch-gpu", workload, [3], replace(settings(), batch=min(workload.batch, 2)), rows.append)
    assert [(row.status, row.note) for row in rows] == [("ok", "")]


@pytest.mark.slow
@pytest.mark.skipif(launch.refusal() is not None, reason=f"method 'triton' {launch.refusal()}")
@pytest.mark.parametrize(
    ("constants", "statuses"),
    [({}, ["ok", "ok"]), ({"_CPU_SECONDS": 0.0}, ["ok", "cut off"]), ({"TOLERANCE": {"double": 0.0}}, ["ok", "wrong"])],
    ids=["compared", "slow", "wrong"],
)
def test_rows_in_the_interpreter(constants, statuses, monkeypatch):
    for name, value in constants.items():
        monkeypatch.setattr(gpu, name, value)
    workload = replace(gpu.CIRCUITS["fig1"], modes=("combined",), method="triton")
    rows = []
    gpu.rows(workload, 2, settings(), rows.append, None)
    assert [row.status for row in rows] == statuses
    assert [row.peer for row in rows] == ["qtm", "qtm on the CPU"]
    assert (rows[1].ratio is not None) == (statuses[1] == "ok")


def test_batches_are_capped_by_the_memory():
    assert gpu.batches_that_fit(4, gpu.BATCHES, ["single"], 1 * GIB) == list(gpu.BATCHES)
    # Two states of 2^20 amplitudes are 16 MiB in single precision, and 32 MiB in double.
    assert gpu.batches_that_fit(20, gpu.BATCHES, ["single"], 1 * GIB) == [1, 48]
    assert gpu.batches_that_fit(20, gpu.BATCHES, ["single", "double"], 1 * GIB) == [1]
    assert gpu.batches_that_fit(28, gpu.BATCHES, ["single"], 1 * GIB) == []


def test_notes_name_passes_and_their_share_of_the_bandwidth():
    assert gpu.note([Traffic(1, 0, 64)], "forward", 1.0, 1e9) == "1 launch a sweep"
    assert gpu.note([Traffic(1, 0, 64)] * 2, "combined", 1.0, 1e9) == "2 launches a sweep"
    moved = [Traffic(5, 600_000_000, 900_000_000)]
    assert gpu.note(moved, "forward", 1.0, 1e9) == "5 passes a sweep, 60% of the bandwidth"
    assert gpu.note(moved, "combined", 1.0, 1e9) == "5 passes a sweep, 90% of the bandwidth"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    with pytest.raises(qtm.UnsupportedError, match="qtm bench gpu measures on a GPU, and torch finds none here"):
        bench.main(["gpu", "--quick"])


def test_the_command_measures_every_size_and_batch_that_fits(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(total_memory=GIB))
    monkeypatch.setattr(gpu, "bandwidth", lambda: 1e12)
    seen, methods = [], []

    def rows(workload, x, asked, done, speed):
        methods.append(workload.method)
        seen.append((x, asked.batch, asked.device, asked.dtypes, speed))
        row = compare.Row(x, "combined", "qtm", "single", "reverse", asked.batch, 1)
        row.qtm_ms = {"median": 1.0, "low": 1.0, "high": 1.0}
        done(row)

    monkeypatch.setattr(gpu, "rows", rows)
    path = tmp_path / "out.json"
    arguments = ["gpu", "--qubits", "4", "20", "--peers", "none", "--threads", "1", "--json", str(path)]
    assert bench.main(arguments) == 0
    expected = [(4, batch) for batch in gpu.BATCHES] + [(20, 1), (20, 48)]
    assert seen == [(*pair, "cuda", ("single",), 1e12) for pair in expected]
    assert len(json.loads(path.read_text(encoding="utf-8"))["rows"]) == 6
    assert "A GPU" in capsys.readouterr().out
    seen.clear()
    assert bench.main(["gpu", "--circuit", "ising", "--peers", "none", "--threads", "1"]) == 0
    assert [pair[:2] for pair in seen] == [(20, 1)] and set(methods) == {"auto"}
    assert bench.main(["gpu", "--quick", "--graphs", "--peers", "none", "--threads", "1"]) == 0
    assert methods[-1] == ("triton", {"graphs": True}) and "CUDA graphs" in capsys.readouterr().out
