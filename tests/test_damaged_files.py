"""Journals and checkpoints that are damaged, or that the disk has no room for."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from device_cases import POINTS, ansatz, on_mock
from mock_runtime import MockService
from qiskit import QuantumCircuit
from qiskit.primitives import DataBin, PrimitiveResult, PubResult

from qtm import hardware
from qtm._errors import CircuitError, JobError, QtmError
from qtm._hardware.checkpoint import Checkpoint
from qtm._hardware.journal import Journal
from qtm._hardware.pass_manager import _read as read_circuit
from qtm._hardware.pass_manager import _write as write_circuit
from qtm._hardware.result_codec import pack, unpack
from qtm._primitives.job_usage import Usage

COST = Usage(1, 1, 4, 400, 2.0)


def result() -> PrimitiveResult:
    values = np.linspace(-1, 1, 12).reshape(4, 3)
    return PrimitiveResult([PubResult(DataBin(evs=values, stds=values / 9, shape=(4, 3)), {"shots": 64})])


def write_journal(path: Path) -> None:
    """Twenty finished jobs, one that failed, one that runs; settings and a transpiled circuit."""
    journal = Journal(path)
    journal.set_setting("settings", {"backend": "ibm_mock", "shots": 64})
    journal.set_isa("circuit", write_circuit(ansatz()))
    for number in range(22):
        occurrence, position = journal.advance(f"content {number % 7}")
        entry = journal.intend(f"content {number % 7}", occurrence, position, COST)
        journal.submitted(entry, f"job-{number}")
        if number < 20:
            journal.done(entry, pack(result()), 3.0)
    journal.failed(entry, "on fire")
    journal.close()


def read_journal(path: Path) -> list[object]:
    """Everything that a resumed run reads."""
    journal = Journal(path)
    try:
        found = [journal.run_id, journal.setting("settings"), journal.jobs(), journal.usage()]
        stored = journal.isa("circuit") or b""
        found += [stored, read_circuit(stored).num_qubits]
        for number in range(22):
            occurrence, _ = journal.advance(f"content {number % 7}")
            entry = journal.latest(f"content {number % 7}", occurrence)
            assert entry is not None
            values = None if entry.result is None else unpack(entry.result)[0].data.evs.tolist()
            found.append((entry.state, entry.job_id, values))
        return found
    finally:
        journal.close()


def flipped(data: bytearray, rng: random.Random) -> bytearray:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def overwritten(data: bytearray, rng: random.Random) -> bytearray:
    at, size = rng.randrange(len(data)), rng.choice((1, 4, 30, 600, 5000))
    data[at : at + size] = rng.randbytes(len(data[at : at + size]))
    return data


def zeroed(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(len(data)) // 4096 * 4096
    data[at : at + 4096] = bytes(len(data[at : at + 4096]))
    return data


def cut(data: bytearray, rng: random.Random) -> bytearray:
    return data[: rng.randrange(1, len(data))]


def moved(data: bytearray, rng: random.Random) -> bytearray:
    """A page in the place of another."""
    pages = len(data) // 4096
    a, b = (rng.randrange(pages) * 4096 for _ in range(2))
    data[a : a + 4096] = data[b : b + 4096]
    return data


def outcome(read: Callable[[], Any]) -> Any:
    """What was read, or the error of qtm; any other error fails the test."""
    try:
        return read()
    except QtmError as error:
        return error


DAMAGES = (flipped, overwritten, zeroed, cut, moved)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[object]]:
    path = tmp_path_factory.mktemp("healthy") / "run.journal"
    write_journal(path)
    return path.read_bytes(), read_journal(path)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_journal_is_refused_by_name_or_read_as_it_was(healthy, damage, tmp_path):
    data, expected = healthy
    rng = random.Random(damage.__name__)
    refused = 0
    for number in range(60):
        path = tmp_path / str(number)
        path.write_bytes(damage(bytearray(data), rng))
        found = outcome(lambda path=path: read_journal(path))
        refused += isinstance(found, QtmError)
        if isinstance(found, QtmError):
            assert str(path) in str(found) and ("another file" in str(found) or "version" in str(found))
        else:
            assert found == expected
        # whatever was wrong with it, the file is not kept locked
        sqlite3.connect(path, timeout=0).close()
        path.rename(tmp_path / "moved away")
    assert refused > 20


@pytest.mark.parametrize("column", ["result", "error", "content", "occurrence", "state", "seconds", "job_id"])
def test_a_value_changed_within_the_tables_is_noticed(healthy, column, tmp_path):
    """As sqlite does not."""
    path = tmp_path / "run.journal"
    path.write_bytes(healthy[0])
    database = sqlite3.connect(path)
    with database:
        database.execute(f"UPDATE job SET {column} = '7' WHERE id = 3")
    database.close()
    with pytest.raises(QtmError, match=r"changed from outside \(job\).*backup"):
        Journal(path)


def test_a_journal_without_checksums_names_the_version(tmp_path):
    database = sqlite3.connect(tmp_path / "run.journal")
    with database:
        database.execute("CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
    database.close()
    with pytest.raises(QtmError, match="its version is 0, expected 2"):
        Journal(tmp_path / "run.journal")


def test_damaged_bytes_are_located():
    rng = random.Random(1)
    data = pack(result())
    for damage in (flipped, overwritten, cut):
        for _ in range(60):
            found = outcome(lambda changed=bytes(damage(bytearray(data), rng)): unpack(changed))
            if isinstance(found, QtmError):
                assert isinstance(found, JobError) and "damaged" in str(found)
            else:
                np.testing.assert_array_equal(found[0].data.evs, result()[0].data.evs)
    for junk in (b"", b"QISKIT", b"QISKIT" + bytes(100), write_circuit(ansatz())[:50]):
        with pytest.raises(QtmError, match="cannot be read.*another file"):
            read_circuit(junk)


# A full disk ----------------------------------------------------------------------------------------


def limited(journal: Journal, spare: int) -> None:
    """Leave the file so many pages to grow: sqlite then says what it says on a full disk."""
    ((pages,),) = journal._database.execute("PRAGMA page_count").fetchall()
    journal._database.execute(f"PRAGMA max_page_count = {pages + spare}")


@pytest.mark.parametrize("spare", range(4))
def test_a_full_disk_stops_the_run_which_resumes_when_there_is_room(spare, tmp_path):
    path = tmp_path / "run.journal"
    journal = Journal(path)
    limited(journal, spare)
    done = 0

    def fill() -> None:
        nonlocal done
        for number in range(1000):
            entry = journal.intend("content", number, number, COST)
            journal.submitted(entry, f"job-{number}")
            journal.done(entry, bytes(2000), 3.0)
            done += 1

    with pytest.raises(QtmError, match="full.*free some space.*resume"):
        fill()
    with pytest.raises(QtmError, match="full"):
        journal.set_isa("circuit", bytes(50_000))
    journal.close()
    again = Journal(path)
    assert sum(row["state"] == "done" for row in again.jobs()) == done
    again.set_isa("circuit", bytes(50_000))
    again.close()


def test_a_run_on_a_full_disk_loses_no_job(tmp_path, monkeypatch):
    monkeypatch.setattr("qtm._hardware.device_primitive.SETTLE_SECONDS", 0.0)
    service = MockService(tmp_path / "service")
    path = tmp_path / "run.journal"

    def pub(device):
        isa = device.pass_manager.run(ansatz())
        return isa, ["Z" + "I" * 4], POINTS[:1, None]

    with on_mock(service, journal=path) as device:
        isa = pub(device)
        change = device.journal._change

        def full(entry, **changes):
            if "job_id" in changes:
                limited(device.journal, 0)
                changes["job_id"] += "x" * 100_000  # more than there is room for
            change(entry, **changes)

        monkeypatch.setattr(device.journal, "_change", full)
        with pytest.raises(QtmError, match="full.*resume"):
            device.estimator.run([isa])
    with hardware.resume(path, service=service) as device:
        assert np.isfinite(device.estimator.run([pub(device)]).result()[0].data.evs).all()
    assert len(service.submitted()) == 1


def test_a_journal_that_cannot_be_begun_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("qtm._hardware.journal._SCHEMA", "CREATE TABLE setting (nothing);")
    with pytest.raises(QtmError):
        hardware.connect("fake_manila", journal=tmp_path / "run.journal")
    assert not (tmp_path / "run.journal").exists()
    monkeypatch.undo()
    hardware.connect("fake_manila", journal=tmp_path / "run.journal").close()


# Checkpoints ----------------------------------------------------------------------------------------


def test_a_damaged_checkpoint_is_refused_or_read_as_it_was(tmp_path):
    checkpoint = Checkpoint(tmp_path / "run.pt")
    model = torch.nn.Linear(40, 3)
    checkpoint.save(3, model=model, losses=[1.0, 0.5])
    data = (tmp_path / "run.pt").read_bytes()
    rng = random.Random(2)
    refused = 0
    for number in range(60):
        damage = (flipped, overwritten, zeroed, cut)[number % 4]
        (tmp_path / "run.pt").write_bytes(damage(bytearray(data), rng))
        other = torch.nn.Linear(40, 3)
        found = outcome(lambda other=other: checkpoint.load(model=other))
        refused += isinstance(found, QtmError)
        if isinstance(found, QtmError):
            assert "damaged" in str(found) and "delete it" in str(found)
        else:
            assert found == 3 and checkpoint.values == {"losses": [1.0, 0.5]}
            assert torch.equal(other.weight, model.weight)
    assert refused > 30


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("PytorchStreamWriter failed")])
def test_a_checkpoint_without_room_leaves_the_old_one(error, tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path / "run.pt")
    checkpoint.save(1, note="old")

    def fail(state, file):
        file.write(b"half")
        raise error

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(QtmError, match="cannot write the checkpoint.*the one before it is kept"):
        checkpoint.save(2, note="new")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]
    assert checkpoint.load() == 1 and checkpoint.values == {"note": "old"}


# Names of errors ------------------------------------------------------------------------------------


def test_refused_circuits_raise_a_public_error():
    from qtm._circuit.flatten import flatten

    circuit = QuantumCircuit(1, 1)
    circuit.measure(0, 0)
    circuit.x(0)
    with pytest.raises(CircuitError) as caught:
        flatten(circuit)
    assert type(caught.value) is CircuitError
