"""The benchmarks without their times: workloads, the check of a peer's results, reports, and tables."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qtm import bench
from qtm._bench import compare as _bench_compare
from qtm._bench import kernel_matrices as _bench_kernels
from qtm._bench import kernels as _bench_core
from qtm._bench import peers as _bench_peers
from qtm._bench import report as _bench_report
from qtm._bench import tables as _bench_tables
from qtm._bench.compare import Row, Settings, disagreement
from qtm._bench.peers import KERNEL_PEERS, PEERS, CutOff, Peer, PeerFailed, PeerProcess, parse_assignments
from qtm._bench.tables import filled, results
from qtm._bench.timing import Times, alternate
from qtm._bench.workloads import WORKLOADS, QtmRunner, z_words
from qtm._engines.statevector.buffer_pool import aligned
from qtm._engines.statevector.kernels import peak, simd
from qtm._errors import ParameterError, QtmError

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
needs_checkout = pytest.mark.skipif(not (ROOT / "benchmarks" / "peers").is_dir(), reason="no checkout")
QUICK = ("--quick", "--repeats", "1")

# A peer as _protocol.py has it, but of plain Python: it answers what FAKE says.
FAKE_ADAPTER = """
import json, sys, time
print(json.dumps({"ready": {"peer": "fake", "python": "3", "threads": 1, "versions": {}}}), flush=True)
for line in sys.stdin:
    job = json.loads(line)
    answer = ANSWERS[job["job"]]
    if answer == "sleep":
        time.sleep(600)
    if answer == "die":
        sys.exit("no more memory")
    print(json.dumps(answer), flush=True)
"""
CASE = WORKLOADS["fig1"].case(3, batch=2)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that makes the peer "qulacs" a fake with some answers replaced."""

    def make(**changed: Any) -> None:
        values, gradient = QtmRunner(CASE, "double", 1).result()
        right = {"values": values.tolist(), "gradient": gradient.tolist(), "exact_gradient": True, "samples": 2}
        answers: dict[str, Any] = {
            "load": {"loaded": True, "seconds": 0.0, "samples": 2, "batch": 2},
            "compile": {"seconds": 0.5},
            "run": {"seconds": 0.25, "samples": 2, "includes_forward": True},
            "check": right,
        }
        answers.update({name: {**answers[name], **a} if isinstance(a, dict) else a for name, a in changed.items()})
        script = f"true, false, NaN = True, False, float('nan')\nANSWERS = {json.dumps(answers)}\n{FAKE_ADAPTER}"
        (tmp_path / "peer_qulacs.py").write_text(script, encoding="utf-8")
        (tmp_path / "_describe.py").write_text("def describe(*_):\n    return {}\n", encoding="utf-8")
        monkeypatch.setattr(_bench_peers, "_ADAPTERS", tmp_path)

    return make


def compared(sizes: Sequence[int] = (3,), **settings: Any) -> list[Row]:
    rows: list[Row] = []
    asked = Settings(threads=1, repeats=1, batch=2, pythons={"qulacs": sys.executable}, **settings)
    _bench_compare.beside("qulacs", WORKLOADS["fig1"], sizes, asked, rows.append)
    return rows


# --- Workloads --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.thinned(3)
def test_every_workload_gives_values_and_a_gradient(name: str) -> None:
    workload = WORKLOADS[name]
    case = workload.case(workload.quick[0], batch=min(workload.batch, 3), qubits=3)
    values, gradient = QtmRunner(case, "double", 1).result()
    assert values.shape == (case.batch, len(case.observables))
    assert gradient.shape == (len(case.model.trainable_params),)
    assert np.abs(gradient).max() > 1e-3
    for method in workload.gradients:
        np.testing.assert_allclose(QtmRunner(case, "double", 1, method).result()[1], gradient, atol=1e-10)


@pytest.mark.parametrize("mode", ["forward", "backward", "combined"])
@pytest.mark.thinned(2)
def test_every_mode_can_be_timed(mode: str) -> None:
    assert QtmRunner(CASE, "single", 1).timed(mode) > 0


def test_observables_beyond_the_qubits_are_different_words() -> None:
    labels = [operator.paulis[0].to_label() for operator in z_words(12, 32)]
    assert len(set(labels)) == 32
    assert all(set(label) == {"I", "Z"} for label in labels)


# --- Timing -----------------------------------------------------------------------------------------------------


def test_competitors_alternate_in_both_orders() -> None:
    calls: list[str] = []

    def contestant(name: str) -> Any:
        return lambda: calls.append(name) or 1.0  # a second is no short call

    first, second = alternate([contestant("a"), contestant("b")], 3, pause=0.0)
    assert "".join(calls) == "ab" + "ab" + "ab" + "ba" + "ab"
    assert first.seconds == second.seconds == [1.0] * 3


def test_short_calls_are_made_several_times_in_a_turn() -> None:
    seconds = iter([1e-3] * 2 + [9e-3] * 10 + [2e-3] * 26 + [5e-3] * 24)
    (times,) = alternate([lambda: next(seconds)], 1, pause=0.0)
    assert times.median == 2e-3
    assert next(seconds, None) is None


def test_the_summary_has_median_and_quartiles() -> None:
    assert Times([5.0, 1.0, 4.0, 2.0, 3.0]).summary(1.0) == {"median": 3.0, "low": 2.0, "high": 4.0}


# --- Counting work ----------------------------------------------------------------------------------------------


def test_executed_work_is_less_than_nominal_work() -> None:
    case = WORKLOADS["fig1"].case(8)
    nominal = _bench_core.nominal_multiply_adds(case.model.circuit, case.batch)
    executed = _bench_core.executed_multiply_adds(_bench_core.Bare(case, "double", 1).recipe, case.batch)
    assert nominal == 60 * 4 * 8 * 2**7 * 48
    assert nominal / 10 < executed < nominal


def test_the_peak_loop_does_the_arithmetic_it_is_counted_for() -> None:
    for dtype in (np.float64, np.float32):
        lanes = simd.lanes(dtype)
        rows = aligned(((2 + peak.CHAINS) * lanes,), dtype)
        rows[:] = 1.0
        rows[:lanes], rows[lanes : 2 * lanes] = 0.5, 3.0
        peak.multiply_add(rows, 3)
        np.testing.assert_allclose(rows[2 * lanes :], ((0.5 + 3) * 0.5 + 3) * 0.5 + 3)


SMALL = _bench_core.Sizes(kernels=(4,), threads=(4,), module=(4,), state=16, imports=1)


@pytest.mark.parametrize("part", [p for p in _bench_core.PARTS if p is not _bench_core.compilation])
@pytest.mark.thinned(3)
def test_every_part_of_core_gives_figures(part: Any) -> None:
    figures = list(part(SMALL, 1))
    assert figures
    assert all(figure.figure > 0 and figure.goal > 0 for figure in figures)
    header, rows = _bench_report.core_table({"rows": [figure.as_dict() for figure in figures]})
    assert all(len(line) == len(header) for line in rows)


@pytest.mark.slow
def test_compilation_is_measured_in_an_empty_cache() -> None:
    (figure,) = _bench_core.compilation(SMALL, 1)
    assert figure.figure > 0
    assert int(figure.detail.split()[0]) > 0


def test_a_ratio_says_whether_a_goal_is_reached() -> None:
    more = _bench_core.Figure("speed", 90.0, 80.0, "%", True)
    less = _bench_core.Figure("time", 90.0, 80.0, "ms", False)
    assert more.ratio == pytest.approx(9 / 8)
    assert less.ratio == pytest.approx(8 / 9)
    assert (_bench_report.goal(more.as_dict()), _bench_report.goal(less.as_dict())) == (">= 80", "<= 80")


# --- Peers ------------------------------------------------------------------------------------------------------


def test_right_results_count(fake: Any) -> None:
    fake()
    rows = compared()
    assert [(row.mode, row.status) for row in rows] == [("forward", "ok"), ("backward", "ok"), ("combined", "ok")]
    assert all(row.peer_ms == {"median": 250.0, "low": 250.0, "high": 250.0} for row in rows)
    assert rows[1].note == "includes the forward pass"
    assert rows[2].ratio == pytest.approx(250 / rows[2].qtm_ms["median"])  # type: ignore[index]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"values": [[0.0] * 3] * 2}, "values are off by"),
        ({"values": [[float("nan")] * 3] * 2}, "values are off by"),
        ({"gradient": [0.0] * 42}, "gradient are off by"),
        ({"gradient": [0.0] * 41}, r"gradient have shape \(41,\), not \(42,\)"),
    ],
)
def test_a_peer_with_wrong_results_has_no_time(fake: Any, wrong: dict[str, Any], words: str) -> None:
    fake(check=wrong)
    rows = compared()
    assert {row.status for row in rows} == {"wrong"}
    assert all(row.peer_ms is None and row.ratio is None for row in rows)
    assert re.match(words, rows[0].note)


def test_only_values_count_where_the_gradient_is_an_estimate(fake: Any) -> None:
    fake(check={"gradient": [0.0] * 42, "exact_gradient": False})
    assert {row.status for row in compared()} == {"ok"}


def test_tolerances_follow_the_precision() -> None:
    ours = np.ones((1, 1)), np.ones(1)
    theirs = {"values": [[1.0 + 1e-5]], "gradient": [1.0], "exact_gradient": True}
    assert disagreement(ours, theirs, "single") is None
    assert disagreement(ours, theirs, "double") is not None
    assert disagreement(ours, theirs, "double", 1e-4) is None


def test_a_slow_peer_is_cut_off_with_a_lower_bound(fake: Any) -> None:
    fake(run="sleep")
    rows = compared(patience=0.3)
    assert [(row.mode, row.status) for row in rows] == [(m, "cut off") for m in ("forward", "backward", "combined")]
    assert rows[0].peer_ms == {"median": 300.0, "low": 300.0, "high": 300.0}
    assert _bench_report.peer_time(rows[0].as_dict()) == "> 300"


@pytest.mark.parametrize(
    ("compiles", "stop", "status", "words"),
    [
        (False, 0.2, "not tried", "0.2 s a step at 3"),
        (True, 0.04, "not tried", "0 s to compile at 3"),
        (True, 1.0, "ok", ""),
    ],
)
def test_a_slow_peer_is_not_tried_on_larger_sizes(
    fake: Any, monkeypatch: pytest.MonkeyPatch, compiles: bool, stop: float, status: str, words: str
) -> None:
    fake(run={"seconds": 0.03} if compiles else {})
    monkeypatch.setitem(PEERS, "qulacs", replace(PEERS["qulacs"], compiles=compiles))
    rows = compared((3, 3), stop=stop)
    assert [row.status for row in rows] == ["ok"] * 3 + [status] * 3
    assert {row.note for row in rows[3:] if row.status == "not tried"} == ({words} if words else set())


@pytest.mark.parametrize(
    ("job", "words"), [("die", "no more memory"), ({"error": "ValueError: no such gate"}, "no such gate")]
)
def test_a_peer_that_fails_says_why(fake: Any, job: Any, words: str) -> None:
    fake(check=job)
    rows = compared()
    assert {row.status for row in rows} == {"failed"}
    assert words in rows[0].note


def test_rows_of_a_missing_peer_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "qulacs", Peer("qulacs", "no_such_package"))
    rows: list[Row] = []
    _bench_compare.beside("qulacs", WORKLOADS["fig1"], (3, 4), Settings(1), rows.append)
    assert [(row.x, row.status) for row in rows] == [(3, "not installed")] * 3 + [(4, "not installed")] * 3
    assert "--peer-python" in rows[0].note


def test_a_python_that_cannot_be_run_is_named(fake: Any) -> None:
    fake()
    with pytest.raises(PeerFailed, match="no/such/python"):
        PeerProcess("qulacs", "no/such/python", 1)


def test_without_a_checkout_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_bench_peers, "_ADAPTERS", tmp_path / "absent")
    with pytest.raises(QtmError, match="clone the repository"):
        PeerProcess("qulacs", sys.executable, 1)


def test_without_a_checkout_qtm_is_measured_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also where another package is installed; a peer that is named is refused before anything is measured."""
    monkeypatch.setattr(_bench_peers, "_ADAPTERS", tmp_path / "absent")
    monkeypatch.setattr(_bench_peers, "python_of", lambda *_: sys.executable)
    path = tmp_path / "out.json"
    assert bench.main(["fig1", *QUICK, "--qubits", "2", "--threads", "1", "--json", str(path)]) == 0
    assert {row["peer"] for row in json.loads(path.read_text(encoding="utf-8"))["rows"]} == {"qtm"}
    for name, peer in (("fig1", "qulacs"), ("kernel", "squlearn")):
        with pytest.raises(QtmError, match="clone the repository"):
            bench.main([name, *QUICK, "--qubits", "2", "--peers", peer, "--json", str(tmp_path / "none.json")])
    assert not (tmp_path / "none.json").exists()


def test_too_little_memory_ends_the_peer(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(run="sleep")
    with PeerProcess("qulacs", sys.executable, 1) as process:
        monkeypatch.setattr(_bench_peers, "free_memory", lambda: 0)
        with pytest.raises(CutOff, match="memory"):
            process.ask({"job": "run"}, 60.0)


@needs_checkout
@pytest.mark.parametrize("peer", [*PEERS.values(), *KERNEL_PEERS.values()])
def test_every_peer_has_its_adapter(peer: Peer) -> None:
    assert (ROOT / "benchmarks" / "peers" / f"peer_{peer.adapter}.py").is_file()
    assert set(peer.dtypes) <= {"double", "single"}


@pytest.mark.parametrize("text", ["nonesuch=python", "qulacs", "qulacs="])
def test_assignments_name_a_peer(text: str) -> None:
    with pytest.raises(ParameterError, match="--peer-python takes NAME=VALUE"):
        parse_assignments([text], "--peer-python")


def test_the_bar_is_not_interrupted_by_jobs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "qtm")
    with bench._progress("jobs") as bar:
        bench.logger.info("job %s on %s: 1 job", "a", "device")
        bench.logger.info("compiled the kernel")
        bench.logger.warning("job a failed")
        assert "0 measurements" in str(bar)
    bench.logger.info("job b on device: 1 job")
    assert caplog.messages == ["compiled the kernel", "job a failed", "job b on device: 1 job"]


# --- The command ------------------------------------------------------------------------------------------------


SECONDS = {"noise", "second", "kernel"}  # those that take more than a second
QUICK_RUNS = [
    pytest.param(name, marks=pytest.mark.slow) if name in SECONDS else name
    for name in (*WORKLOADS, "threads", "second", "kernel")
]


@pytest.mark.parametrize("name", QUICK_RUNS)
@pytest.mark.thinned(20)
def test_quick_runs_with_qtm_alone(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = () if name in ("threads", "second") else ("--peers", "none")
    path, picture = tmp_path / "out.json", tmp_path / "out.png"
    threads = "2" if name == "threads" else "1"
    assert bench.main([name, *QUICK, *alone, "--threads", threads, "--json", str(path), "--plot", str(picture)]) == 0
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["benchmark"] == name
    assert content["commands"] == [" ".join(["qtm bench", name, *QUICK, *alone, "--threads", threads])]
    assert {"processor", "cores", "vector_bits"} <= set(content["machine"])
    assert {"qiskit", "torch", "numba"} <= set(content["versions"])
    assert content["rows"]
    assert all(row["status"] == "ok" and row["qtm_ms"]["low"] <= row["qtm_ms"]["high"] for row in content["rows"])
    measured = (
        [row for row in content["rows"] if row["peer"] == "qtm"] if name in WORKLOADS and WORKLOADS[name].memory else []
    )
    assert all(row["qtm_mib"] > 10 for row in measured)
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert content["title"][:20] in capsys.readouterr().out


@pytest.mark.slow
def test_threads_are_measured_over_sizes_and_batches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, picture = tmp_path / "out.json", tmp_path / "out.png"
    sizes = "--qubits", "2", "3", "--batch", "1", "5", "--threads", "2", "--repeats", "1"
    assert bench.main(["threads", *sizes, "--json", str(path), "--plot", str(picture)]) == 0
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert [(row["x"], row["batch"]) for row in rows] == [(2, 1), (2, 5), (3, 1), (3, 5)]
    assert "batch 1, 5, 2 threads" in capsys.readouterr().out


@needs_checkout
@pytest.mark.slow
def test_quick_runs_beside_an_installed_peer(tmp_path: Path) -> None:
    pytest.importorskip("qiskit_machine_learning")
    path = tmp_path / "out.json"
    options = ("--qubits", "2", "--batch", "2", "--threads", "1", "--peers", "qiskit-machine-learning")
    assert bench.main(["fig1", *QUICK, *options, "--json", str(path)]) == 0
    content = json.loads(path.read_text(encoding="utf-8"))
    rows = [row for row in content["rows"] if row["peer"] == "qiskit-machine-learning"]
    assert [(row["mode"], row["status"]) for row in rows] == [(m, "ok") for m in ("forward", "backward", "combined")]
    assert all(row["ratio"] > 0 for row in rows)
    assert "qiskit-machine-learning" in content["peers"]["qiskit-machine-learning"]["versions"]


@needs_checkout
@pytest.mark.slow
def test_kernels_are_compared_with_an_installed_peer(tmp_path: Path) -> None:
    pytest.importorskip("qiskit_machine_learning")
    path = tmp_path / "out.json"
    arguments = ["kernel", *QUICK, "--threads", "1", "--qubits", "2", "--samples", "18", "--limit", "1e-9"]
    assert bench.main([*arguments, "--peers", "qiskit-machine-learning", "--json", str(path)]) == 0
    own, beside = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert own["peer"] == "qtm" and own["qtm_ms"]["median"] > 0
    assert (beside["status"], beside["samples"]) == ("ok", 16) and "extrapolated" in beside["note"]
    assert beside["ratio"] > 1


def test_times_of_matrices_are_extrapolated_by_states_and_pairs() -> None:
    seconds = {n: 0.5 * n + 0.25 * n**2 for n in (10, 20, 1000)}
    assert _bench_kernels.extrapolated(20, seconds[20], seconds[10], 1000) == pytest.approx(seconds[1000])
    assert _bench_kernels.extrapolated(20, 2.0, 1.0, 1000) == pytest.approx(100.0)  # states alone
    assert _bench_kernels.extrapolated(20, 2.0, 1.1, 1000) == pytest.approx(100.0)  # never less than none for pairs
    assert [_bench_kernels._affordable(s, 1000, 4.0) for s in (1e-6, 1.0, 100.0)] == [1000, 32, 16]


@pytest.mark.parametrize("answer", [[[1.0, 0.5], [0.5, 1.0]], [[1.0]]])
@needs_checkout
def test_another_matrix_is_not_timed(answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong:
        def load(self, *_: Any) -> dict[str, Any]:
            return {"samples": 2}

        def ask(self, job: dict[str, Any], timeout: float) -> dict[str, Any]:
            assert job["job"] == "check"
            return {"values": answer}

    one = _bench_kernels.case(2, 2)
    row = _bench_kernels._row(one, "squlearn", Settings(threads=1, repeats=1))
    _bench_kernels._measure(row, Wrong(), one, Settings(threads=1, repeats=1))  # type: ignore[arg-type]
    assert row.status == "wrong" and row.peer_ms is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonesuch"], "invalid choice"),
        (["kernel", "--peers", "nonesuch"], "invalid choice"),
        (["fig1", "--threads", "-1"], "not an integer"),
        (["fig1", "--peers", "nonesuch"], "invalid choice"),
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(arguments)
    assert words in capsys.readouterr().err


# --- Reports ----------------------------------------------------------------------------------------------------


def row(x: int = 4, peer: str = "qulacs", qtm: float = 0.5, other: float | None = 10.0, **more: Any) -> dict[str, Any]:
    made = Row(x, "combined", peer, "double", "reverse", 48, 2, {"median": qtm, "low": 0.4, "high": 0.6}, **more)
    made.peer_ms = None if other is None else {"median": other, "low": other, "high": other}
    return {**made.as_dict(), "commit": "abc"}


def content(benchmark: str, *rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    where = {"processor": "Abacus", "cores": 2, "vector_bits": 512}
    head = {"benchmark": benchmark, "title": "T", "axis": "qubits", "commands": [f"qtm bench {benchmark}"]}
    return {
        **head,
        "threads": 2,
        "machine": where,
        "versions": {"torch": "9"},
        "trainings": [],
        "rows": [*rows],
        **more,
    }


def test_a_report_keeps_what_is_not_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "fig1.json"
    head = {"title": "T", "axis": "qubits", "commands": ["c"], "threads": 2}
    first = _bench_report.Report("fig1", path, head)
    first.add(row(4))
    first.add(row(8))
    again = _bench_report.Report("fig1", path, head)
    again.add(row(8, qtm=0.25))
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert [(r["x"], r["qtm_ms"]["median"], r["ratio"]) for r in rows] == [(4, 0.5, 20.0), (8, 0.25, 40.0)]
    with pytest.raises(ParameterError, match="contains results of 'fig1', not of 'vqe'"):
        _bench_report.Report("vqe", path, head)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.01234, "0.0123"),
        (4.5678, "4.57"),
        (45.678, "45.7"),
        (456.78, "457"),
        (12345.6, "12,300"),
        (0, "0"),
        (9.999, "10.0"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert _bench_report.number(value) == text


def test_a_table_is_readable_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    header, rows = _bench_report.comparison_table(content("fig1", row()))
    for spec in (None, object()):
        monkeypatch.setattr(_bench_report.importlib.util, "find_spec", lambda name, spec=spec: spec)
        text = _bench_report.show("T", header, rows)
        assert all(word in text for word in ("qulacs", "0.500", "10.0", "20.0x"))


# --- Tables -----------------------------------------------------------------------------------------------------


def test_a_comparison_shows_ratios_bounds_and_what_is_missing() -> None:
    rows = (
        row(4, "qtm", 0.5, None), row(8, "qtm", 1.0, None), row(4),
        row(8, qtm=1.0, other=6e4, status="cut off", note="did not answer within 60 s"),
        row(4, "qiboml", other=None, status="wrong", note="gradient are off by 1.0e+00"),
    )  # fmt: skip
    text = _bench_tables.comparison({"fig1": content("fig1", *rows)}, "fig1", "combined")
    assert "| **qtm** | double | **0.500** | **1.00** |" in text
    assert "| qulacs | double | 10.0 (20.0x) | > 60,000 (> 60,000x) |" in text
    assert "| qiboml | double | wrong |  |" in text
    assert "* qiboml, 4: gradient are off by 1.0e+00." in text
    assert "Abacus" in text


def test_goals_show_the_worst_peer_and_drop_no_row() -> None:
    fig1 = content("fig1", row(4, "qulacs", 0.5, 20.0), row(4, "tensorcircuit", 0.5, 5.0), row(12, "qulacs", 1.0, 11.0))
    empty = {name: content(name) for name in ("vqe", "table2", "table3")}
    lines = _bench_tables.goals({"fig1": fig1, **empty}).splitlines()
    assert len(lines) == 2 + len(_bench_tables.GOALS) + 2
    fastest = next(line for line in lines if "fastest other package" in line)
    assert "4: 10.0x (tensorcircuit, double); 6, 8, 10: not measured" in fastest
    assert "at 0 of 1 sizes; at worst 50% of it" in fastest
    assert "not measured" in next(line for line in lines if "original" in line)


def test_tables_stand_between_their_markers() -> None:
    before = "a\n<!-- bench:threads -->\nold\n<!-- /bench:threads -->\nb\n"
    measured = {"threads": content("threads", row(10, "qtm, one thread", 1.0, 1.9))}
    after = filled(before, measured)
    assert after.startswith("a\n<!-- bench:threads -->\n| qubits |")
    assert "| 10 | 48 | 2 | 1.90 | 1.00 | 1.90x |" in after
    assert after.endswith("<!-- /bench:threads -->\nb\n")
    assert "old" not in after
    assert filled(after, measured) == after
    assert "Not measured yet: `qtm bench threads" in filled(before, {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<!-- bench:nonesuch -->\n<!-- /bench:nonesuch -->", "no table 'nonesuch'"),
        ("<!-- bench:core -->\n", "'core' has no closing marker"),
    ],
)
def test_wrong_markers_are_refused(text: str, words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        filled(text, {})


def test_the_command_fills_tables_and_reports_drift(tmp_path: Path) -> None:
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    made = content("threads", row(10, "qtm, one thread", 1.0, 1.9))
    (folder / "threads.json").write_text(json.dumps(made), encoding="utf-8")
    readme = tmp_path / "README.md"
    readme.write_text("<!-- bench:threads -->\n<!-- /bench:threads -->\n", encoding="utf-8")
    assert _bench_tables.write_tables(tmp_path, change=False) == [readme]
    assert "1.90x" not in readme.read_text(encoding="utf-8")
    assert _bench_tables.write_tables(tmp_path, change=True) == [readme]
    assert "1.90x" in readme.read_text(encoding="utf-8")
    assert _bench_tables.write_tables(tmp_path, change=False) == []


@pytest.mark.parametrize("name", _bench_tables.DOCUMENTS)
def test_tables_in_the_documents_say_what_was_measured(name: str) -> None:
    path = ROOT / name
    if not path.exists():
        pytest.skip(f"no {name} here")
    text = path.read_text(encoding="utf-8")
    assert filled(text, results(RESULTS), name) == text, "run `qtm bench tables`"
