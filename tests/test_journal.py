"""The job journal, what identifies a job, and checkpoints."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
import torch
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import AnnotatedOperation, ControlModifier, Parameter
from qiskit.circuit.classical import expr
from qiskit.circuit.library import PauliEvolutionGate, RXGate, real_amplitudes
from qiskit.primitives import DataBin, PrimitiveResult, PubResult, StatevectorEstimator
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.quantum_info import SparseObservable, SparsePauliOp

from qtm._errors import QtmError
from qtm._hardware.checkpoint import Checkpoint
from qtm._hardware.fingerprint import circuit_content, job_content
from qtm._hardware.journal import DONE, FAILED, INTENT, SUBMITTED, Journal
from qtm._hardware.result_codec import pack, unpack
from qtm._primitives.job_usage import Usage

# What identifies a job ------------------------------------------------------------------------------


def circuit(angle=0.5, gate="rx", qubit=0, phase=0.0, expression=lambda x: 2 * x, name="theta", clutter=""):
    theta = Parameter(name)  # a new UUID every time, as in every process
    result = QuantumCircuit(2, name=f"circuit-{clutter}", global_phase=phase)
    getattr(result, gate)(angle, qubit)
    result.ry(expression(theta), 1)
    inner = QuantumCircuit(1, name=f"inner-{clutter}")
    inner.rz(angle, 0)
    result.append(inner.to_gate(), [0])
    return result


def content(values=(0.1,), observable="ZZ", precision=None, setting=None, **changes):
    pub = EstimatorPub.coerce((circuit(**changes), observable, list(values), precision))
    return job_content([pub], setting or {"backend": "a"})


def test_equal_jobs_have_equal_content_despite_generated_names():
    assert content() == content(clutter="1234")


@pytest.mark.parametrize(
    "change",
    [
        {"angle": 0.5 + 1e-15},
        {"gate": "ry"},
        {"qubit": 1},
        {"phase": 0.1},
        {"expression": lambda x: 2 * x + 1e-9},
        {"expression": lambda x: x},
        {"values": (0.1 + 1e-16 * 2,)},
        {"observable": "ZX"},
        {"observable": {"ZZ": 0.5}},
        {"observable": ["ZZ"]},
        {"precision": 0.1},
        {"setting": {"backend": "b"}},
    ],
)
def test_everything_that_determines_a_result_is_in_the_content(change):
    assert content(**change) != content()


def test_control_flow_delays_and_library_circuits_are_distinguished():
    def with_body(angle):
        result = QuantumCircuit(2, 1)
        with result.if_test((result.clbits[0], 1)):
            result.rx(angle, 0)
        return result

    def delayed(unit):
        result = QuantumCircuit(1)
        result.delay(10, 0, unit)
        return result

    circuits = [with_body(0.1), with_body(0.2), delayed("ns"), delayed("us")]
    circuits += [real_amplitudes(3, reps=reps) for reps in (1, 2)]
    assert len({circuit_content(c) for c in circuits}) == len(circuits)
    assert circuit_content(real_amplitudes(3, reps=2)) == circuit_content(real_amplitudes(3, reps=2))


def test_modifiers_evolutions_and_classical_expressions_are_distinguished():
    def modified(*modifiers):
        result = QuantumCircuit(3)
        result.append(AnnotatedOperation(RXGate(0.3), list(modifiers)), range(1 + len(modifiers)))
        return result

    def evolved(*terms):
        result = QuantumCircuit(2)
        result.append(PauliEvolutionGate(list(terms) if len(terms) > 1 else terms[0], time=0.4), range(2))
        return result

    def conditional(condition):
        result = QuantumCircuit(QuantumRegister(1), ClassicalRegister(2, "a"), ClassicalRegister(2, "b"))
        with result.if_test(condition(result)):
            result.x(0)
        return result

    def stored(value):
        result = QuantumCircuit(1)
        result.add_var("kept", value)
        return result

    def repeated(angle):
        result = QuantumCircuit(1)
        with result.for_loop(range(3)) as k:
            result.rx(angle * k, 0)
        return result

    makers = [
        lambda: modified(ControlModifier(1)), lambda: modified(ControlModifier(1, 0)),
        lambda: modified(ControlModifier(1), ControlModifier(1)),
        lambda: evolved(SparsePauliOp("ZZ")), lambda: evolved(SparsePauliOp("ZX")),
        lambda: evolved(SparsePauliOp("ZZ"), SparsePauliOp("XX")), lambda: evolved(SparseObservable("XY")),
        lambda: conditional(lambda c: (c.clbits[0], 1)), lambda: conditional(lambda c: (c.clbits[1], 1)),
        lambda: conditional(lambda c: (c.cregs[0], 1)), lambda: conditional(lambda c: (c.cregs[1], 1)),
        lambda: conditional(lambda c: expr.bit_and(c.clbits[0], c.clbits[3])),
        lambda: conditional(lambda c: expr.less(c.cregs[0], c.cregs[1])),
        lambda: conditional(lambda c: expr.less(c.cregs[1], c.cregs[0])),
        lambda: stored(expr.lift(True)), lambda: stored(expr.lift(False)), lambda: repeated(1), lambda: repeated(2),
    ]  # fmt: skip
    found = [circuit_content(make()) for make in makers]
    assert len(set(found)) == len(makers)
    assert [circuit_content(make()) for make in makers] == found


# The journal ----------------------------------------------------------------------------------------

COST = Usage(1, 1, 4, 400, 2.0)


def submit(journal, content, job_id="job-1"):
    occurrence, position = journal.advance(content)
    entry = journal.intend(content, occurrence, position, COST)
    journal.submitted(entry, job_id)
    return entry


def test_an_entry_passes_from_intent_to_done_and_survives_the_process(tmp_path):
    path = tmp_path / "journal"
    journal = Journal(path)
    occurrence, position = journal.advance("abc")
    entry = journal.intend("abc", occurrence, position, COST)
    assert (entry.state, entry.job_id) == (INTENT, None) and journal.usage() == Usage()
    journal.submitted(entry, "job-7")
    assert journal.latest("abc", 0).state == SUBMITTED and journal.usage() == COST
    journal.done(entry, b"result", 3.0)
    run_id, tag = journal.run_id, journal.tag(entry)
    journal.close()
    again = Journal(path)
    found = again.peek("abc")
    assert (found.state, found.job_id, found.result) == (DONE, "job-7", b"result")
    assert (again.run_id, again.tag(found)) == (run_id, tag)
    assert again.usage() == Usage(1, 1, 4, 400, 3.0)
    again.close()


def test_equal_submissions_stay_distinct_and_a_checkpoint_restores_its_position():
    journal = Journal(None)
    first = submit(journal, "abc", "job-1")
    journal.seek(1)
    second = submit(journal, "abc", "job-2")
    assert (first.occurrence, second.occurrence) == (0, 1)
    assert len({journal.tag(first), journal.tag(second)}) == 2
    journal.seek(1)
    assert journal.peek("abc").job_id == "job-2" and journal.position == 1
    journal.seek(0)
    assert journal.peek("abc").job_id == "job-1" and journal.peek("abc", 1).job_id == "job-2"


def test_a_failed_job_is_attempted_again_under_another_tag():
    journal = Journal(None)
    first = submit(journal, "abc")
    journal.failed(first, "on fire")
    assert journal.latest("abc", 0).state == FAILED
    second = journal.intend("abc", 0, 0, COST)
    assert second.attempt == 1 and journal.tag(second) != journal.tag(first)


def test_two_runs_never_share_a_tag():
    entries = [(journal, submit(journal, "abc")) for journal in (Journal(None), Journal(None))]
    assert len({journal.tag(entry) for journal, entry in entries}) == 2


# Results --------------------------------------------------------------------------------------------


def test_results_come_back_to_the_last_bit():
    pubs = [
        (real_amplitudes(2, reps=1), ["ZZ", "XI"], np.random.default_rng(0).normal(size=(3, 1, 4))),
        (QuantumCircuit(1), "Z"),
    ]
    result = StatevectorEstimator().run(pubs).result()
    again = unpack(pack(result))
    for before, after in zip(result, again, strict=True):
        np.testing.assert_array_equal(before.data.evs, after.data.evs)
        assert before.data.shape == after.data.shape and after.metadata["target_precision"] == 0.0


def test_values_that_need_pickle_are_left_out():
    data = DataBin(evs=np.zeros(2), stds=np.zeros(2), shape=(2,))
    result = PrimitiveResult([PubResult(data, {"fine": [1, "a"], "object": object(), "arrays": np.zeros(3)})])
    assert unpack(pack(result))[0].metadata == {"fine": [1, "a"]}


# Checkpoints ----------------------------------------------------------------------------------------


def parts():
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    return {
        "model": model, "optimizer": optimizer, "scheduler": scheduler,
        "numpy": np.random.default_rng(3), "legacy": np.random.Generator(np.random.MT19937(4)),
        "philox": np.random.Generator(np.random.Philox(2**64 - 1)), "torch": torch.Generator().manual_seed(5),
    }  # fmt: skip


def train(all_parts, steps):
    for _ in range(steps):
        inputs = torch.rand(4, 3, generator=all_parts["torch"])
        draws = [all_parts[name].normal() for name in ("numpy", "legacy", "philox")]
        legacy = np.random.rand()  # noqa: NPY002
        target = sum(draws) + random.random() + legacy + torch.rand(())
        all_parts["optimizer"].zero_grad()
        (all_parts["model"](inputs) - target).square().mean().backward()
        all_parts["optimizer"].step()
        all_parts["scheduler"].step()
    return all_parts["model"].weight.detach().clone()


def test_a_restored_run_continues_to_the_same_weights(tmp_path):
    before = parts()
    train(before, 3)
    checkpoint = Checkpoint(tmp_path / "run.pt")
    assert checkpoint.load(**parts()) == 0
    checkpoint.save(3, **before, losses=[1.0, 0.5], best={"step": 2, "loss": np.float64(0.5)})
    expected = train(before, 3)
    after = parts()
    train(after, 1)  # disturbs every random state
    assert checkpoint.load(**after) == 3
    assert torch.equal(train(after, 3), expected)
    assert checkpoint.values == {"losses": [1.0, 0.5], "best": {"step": 2, "loss": 0.5}}
    assert torch.load(tmp_path / "run.pt", weights_only=True)["step"] == 3


def test_a_checkpoint_that_is_not_finished_leaves_the_old_one(tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path / "run.pt")
    checkpoint.save(1, note="old")

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(2, note="new")
    assert checkpoint.load() == 1 and checkpoint.values == {"note": "old"}


def test_errors_name_what_cannot_be_saved_or_loaded(tmp_path):
    checkpoint = Checkpoint(tmp_path / "run.pt")
    with pytest.raises(QtmError, match="cannot save 'thing': a object"):
        checkpoint.save(1, thing=object())
    assert not (tmp_path / "run.pt").exists()
    checkpoint.save(1, model=torch.nn.Linear(1, 1))
    with pytest.raises(QtmError, match="has no optimizer; it was saved with model"):
        checkpoint.load(optimizer=torch.optim.SGD(torch.nn.Linear(1, 1).parameters()))
    with pytest.raises(QtmError, match="'model' was saved as a state and is now a Generator"):
        checkpoint.load(model=np.random.default_rng(0))
    (tmp_path / "run.pt").write_bytes(b"half a file")
    with pytest.raises(QtmError, match="not a checkpoint of qtm, or it is damaged"):
        checkpoint.load()


def test_a_checkpoint_of_another_journal_starts_this_journal_at_its_beginning(tmp_path):
    first, second = Journal(None), Journal(None)
    submit(first, "abc")
    Checkpoint(tmp_path / "run.pt", first).save(1)
    submit(second, "abc")
    assert Checkpoint(tmp_path / "run.pt", second).load() == 1 and second.position == 0
    submit(first, "abc", "job-2")
    assert Checkpoint(tmp_path / "run.pt", first).load() == 1 and first.position == 1
