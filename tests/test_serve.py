"""The service over HTTP: answers against Qiskit, limits and errors by name, restarts, and a load of 200 requests."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from qiskit import QuantumCircuit, qasm3, qpy
from qiskit.quantum_info import SparsePauliOp, Statevector

from qtm._serve.app import create_app
from qtm._serve.limits import LimitError, Limits
from qtm._serve.store import INTERRUPTED, Store
from qtm.circuits import angle_encoding, hardware_efficient_ansatz

TOKEN = "a token of the tests"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
CIRCUIT = angle_encoding(2).circuit.compose(hardware_efficient_ansatz(2, axes="y").circuit)
OBSERVABLES = ["IZ", "ZX"]


def as_qpy(circuit: QuantumCircuit, **options: Any) -> str:
    file = io.BytesIO()
    qpy.dump(circuit, file, **options)
    return base64.b64encode(file.getvalue()).decode()


NEW = {"circuit": as_qpy(CIRCUIT), "form": "qpy", "inputs": ["x[0]", "x[1]"], "observables": OBSERVABLES, "seed": 1}
QASM = 'OPENQASM 3.0; include "stdgates.inc"; input float[64] a; input float[64] w; qubit[1] q; ry(a) q[0]; ry(w) q[0];'


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    limits = Limits(qubits=4, depth=20, batch=8, seconds=30, models=3, queue=2, body=100_000)
    with TestClient(create_app(tmp_path / "models.sqlite", TOKEN, limits), headers=HEADERS) as client:
        yield client


def created(client: TestClient) -> dict[str, Any]:
    answer = client.post("/models", json=NEW)
    assert answer.status_code == 201, answer.text
    return answer.json()


def expected(x: list[float], weights: list[float]) -> list[float]:
    names = {p.name: p for p in CIRCUIT.parameters}
    values = {names[f"x[{k}]"]: v for k, v in enumerate(x)} | {names[f"theta[{k}]"]: v for k, v in enumerate(weights)}
    state = Statevector(CIRCUIT.assign_parameters(values))
    return [state.expectation_value(SparsePauliOp(o)).real for o in OBSERVABLES]


def finished(client: TestClient, job: str) -> dict[str, Any]:
    for _ in range(600):
        state = client.get(f"/jobs/{job}").json()
        if state["status"] in ("done", "failed"):
            return state
        time.sleep(0.1)
    raise AssertionError(f"still {state}")


def test_predictions_and_gradients_are_those_of_qiskit(client: TestClient) -> None:
    model = created(client)
    assert (model["qubits"], model["input_size"], model["output_size"], len(model["weights"])) == (2, 2, 2, 2)
    x, weights = [[0.3, -1.0], [2.0, 0.1]], model["weights"]
    outputs = client.post(f"/models/{model['id']}/predict", json={"inputs": x}).json()["outputs"]
    np.testing.assert_allclose(outputs, [expected(row, weights) for row in x], atol=1e-12)
    cotangents = [[1.0, 2.0], [-1.0, 0.5]]
    answer = client.post(f"/models/{model['id']}/gradient", json={"inputs": x, "cotangents": cotangents}).json()

    def value(point: np.ndarray) -> float:
        rows = point[:4].reshape(2, 2)
        return float(sum(np.dot(c, expected(list(r), list(point[4:]))) for c, r in zip(cotangents, rows, strict=True)))

    point = np.concatenate([np.ravel(x), weights])
    differences = [(value(point + step) - value(point - step)) / 2e-5 for step in 1e-5 * np.eye(6)]
    np.testing.assert_allclose(np.ravel(answer["inputs"]), differences[:4], atol=1e-8)
    np.testing.assert_allclose(answer["weights"], differences[4:], atol=1e-8)


@pytest.mark.slow
def test_training_learns_and_stays_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "models.sqlite"
    with TestClient(create_app(path, TOKEN), headers=HEADERS) as client:
        model = client.post("/models", json={"circuit": QASM, "inputs": ["a"], "seed": 3}).json()
        x = [[v] for v in np.linspace(-1, 1, 16)]
        targets = [[float(np.cos(row[0] + 0.7))] for row in x]
        request = {"inputs": x, "targets": targets, "epochs": 150, "learning_rate": 0.1}
        answer = client.post(f"/models/{model['id']}/train", json=request)
        assert answer.status_code == 202
        state = finished(client, answer.json()["job"])
        assert state["status"] == "done" and state["epoch"] == 150 and state["loss"] < 1e-3
        outputs = client.post(f"/models/{model['id']}/predict", json={"inputs": x}).json()["outputs"]
        np.testing.assert_allclose(outputs, targets, atol=0.1)
    with TestClient(create_app(path, TOKEN), headers=HEADERS) as client:
        again = client.post(f"/models/{model['id']}/predict", json={"inputs": x}).json()["outputs"]
        assert again == outputs


def test_a_training_that_was_interrupted_is_said_to_have_failed(tmp_path: Path) -> None:
    job = Store(tmp_path / "models.sqlite").add_job("some model", 10)
    assert Store(tmp_path / "models.sqlite").job(job)["error"] == INTERRUPTED


def test_limits_are_named(client: TestClient) -> None:
    model = created(client)
    wide, deep = QuantumCircuit(5), QuantumCircuit(1)
    for _ in range(21):
        deep.h(0)
    for circuit, limit in ((wide, "qubits"), (deep, "depth")):
        answer = client.post("/models", json={"circuit": qasm3.dumps(circuit)})
        assert (answer.status_code, answer.json()["limit"]) == (422, limit)
    rows = [[0.0, 0.0]] * 9
    for path, more in (("predict", {}), ("gradient", {}), ("train", {"targets": rows})):
        answer = client.post(f"/models/{model['id']}/{path}", json={"inputs": rows, **more})
        assert (answer.status_code, answer.json()["limit"]) == (422, "batch"), path
    created(client), created(client)
    assert client.post("/models", json=NEW).json()["limit"] == "models"
    answer = client.post("/models", json={"circuit": "x" * 200_000})
    assert (answer.status_code, answer.json()["limit"]) == (413, "body")


def test_gates_inside_of_gates_are_counted(client: TestClient) -> None:
    """40 definitions, each of two of the one before: 2**40 gates, counted without expanding them."""
    nested = "gate g0 a { h a; }" + "".join(f"gate g{k} a {{ g{k - 1} a; g{k - 1} a; }}" for k in range(1, 41))
    program = f'OPENQASM 3.0; include "stdgates.inc"; {nested} qubit[1] q; g40 q[0];'
    answer = client.post("/models", json={"circuit": program})
    assert (answer.status_code, answer.json()["limit"]) == (422, "gates")
    looped = 'OPENQASM 3.0; include "stdgates.inc"; qubit[1] q; for int i in [0:9] { h q[0]; }'
    answer = client.post("/models", json={"circuit": looped})
    assert answer.status_code == 422 and "control flow" in answer.text


def test_a_request_that_takes_too_long_is_answered(tmp_path: Path) -> None:
    with TestClient(create_app(tmp_path / "m.sqlite", TOKEN, Limits(seconds=1e-6)), headers=HEADERS) as client:
        answer = client.post("/models", json=NEW)
        assert (answer.status_code, answer.json()["limit"]) == (408, "seconds")
    with TestClient(create_app(tmp_path / "n.sqlite", TOKEN), headers=HEADERS) as client:
        model = created(client)
        client.app.state.models.limits = Limits(seconds=0)
        request = {"inputs": [[0.0, 0.0]], "targets": [[0.0, 0.0]]}
        job = client.post(f"/models/{model['id']}/train", json=request).json()["job"]
        assert "seconds" in finished(client, job)["error"]


def test_the_token(client: TestClient) -> None:
    for headers in ({"Authorization": "Bearer another"}, {"Authorization": ""}):
        assert client.get("/metrics", headers=headers).status_code == 401
        assert client.post("/models", json=NEW, headers=headers).status_code == 401
        assert client.get("/health", headers=headers).status_code == 200


def test_bad_requests_are_explained(client: TestClient) -> None:
    model = created(client)["id"]
    old = base64.b64encode(b"QISKIT\x0c" + bytes(64)).decode()
    cases: list[tuple[str, dict[str, Any], int, str]] = [
        ("/models", {"circuit": "no circuit"}, 422, "not an OpenQASM 3 circuit"),
        ("/models", {"circuit": "!", "form": "qpy"}, 422, "not in base64"),
        ("/models", {"circuit": base64.b64encode(b"cos\nsystem").decode(), "form": "qpy"}, 422, "not a QPY file"),
        ("/models", {"circuit": old, "form": "qpy"}, 422, "QPY version 12 is not accepted"),
        ("/models", {"circuit": base64.b64encode(b"QISKIT\x0f" + bytes(64)).decode(), "form": "qpy"}, 422, "QPY"),
        ("/models", {"circuit": QASM, "form": "pickle"}, 422, "qpy"),
        ("/models", {"circuit": QASM, "inputs": ["b"]}, 422, "inputs ['b'] are not in the circuit"),
        ("/models", {"circuit": QASM, "observables": ["ZZ"]}, 422, "qubit"),
        (f"/models/{model}/predict", {"inputs": [[0.0]]}, 422, "does not have 2 features"),
        (f"/models/{model}/predict", {"inputs": [["a", "b"]]}, 422, "number"),
        (
            f"/models/{model}/gradient",
            {"inputs": [[0, 0]], "cotangents": [[1]]},
            422,
            "cotangents do not have the shape (1, 2)",
        ),
        (f"/models/{model}/train", {"inputs": [[0, 0]], "targets": [[1]]}, 422, "targets do not have the shape (1, 2)"),
        ("/models/unknown/predict", {"inputs": [[0, 0]]}, 404, "no model 'unknown'"),
    ]
    for path, request, status, words in cases:
        answer = client.post(path, json=request)
        assert answer.status_code == status and words in answer.text, (path, request, answer.text)
    assert client.get("/jobs/unknown").status_code == 404


def test_deleted_models_are_gone(client: TestClient) -> None:
    model = created(client)["id"]
    assert client.get(f"/models/{model}").status_code == 200
    assert client.delete(f"/models/{model}").status_code == 204
    assert client.get(f"/models/{model}").status_code == client.delete(f"/models/{model}").status_code == 404


def test_metrics_count_answers(client: TestClient) -> None:
    created(client)
    client.get("/models/unknown")
    text = client.get("/metrics").text
    assert 'qtm_requests_total{path="/models",status="201"} 1' in text
    assert 'qtm_requests_total{path="/models/{identity}",status="404"} 1' in text
    assert "qtm_models 1\n" in text and "qtm_trainings 0\n" in text


def test_a_limit_error_names_the_limit() -> None:
    with pytest.raises(LimitError, match="batch: 9 requested, at most 8 allowed"):
        Limits(batch=8).check("batch", 9)


@pytest.mark.slow
def test_a_load_of_concurrent_requests(tmp_path: Path) -> None:
    """`qtm serve` as users start it: 200 requests at once, three times; none lost, all right, memory flat."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "qtm", "serve", "--port", str(port), "--database", str(tmp_path / "m.sqlite")]
    service = subprocess.Popen(command, env={**os.environ, "QTM_SERVE_TOKEN": TOKEN})
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(url, service)
        model = httpx.post(f"{url}/models", json=NEW, headers=HEADERS, timeout=120).json()
        resident = [(_storm(url, model), _resident(service.pid))[1] for _ in range(3)]
        assert resident[2] - resident[1] < 16 * 2**20, resident
    finally:
        service.send_signal(signal.SIGINT)
        assert service.wait(60) in (0, 130)


def _wait_for(url: str, service: subprocess.Popen[bytes]) -> None:
    for _ in range(1200):
        assert service.poll() is None, "the service ended"
        try:
            assert httpx.get(f"{url}/health").status_code == 200
            return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("the service does not answer")


def _storm(url: str, model: dict[str, Any], count: int = 200) -> None:
    points = np.random.default_rng(0).normal(size=(count, 2)).tolist()

    async def all_at_once() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=count)
        async with httpx.AsyncClient(headers=HEADERS, timeout=300, limits=limits) as client:
            address = f"{url}/models/{model['id']}/predict"
            return await asyncio.gather(*(client.post(address, json={"inputs": [x]}) for x in points))

    answers = asyncio.run(all_at_once())
    assert [answer.status_code for answer in answers] == [200] * count
    outputs = [answer.json()["outputs"][0] for answer in answers]
    np.testing.assert_allclose(outputs, [expected(x, model["weights"]) for x in points], atol=1e-12)


def _resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
