"""The HTTP service (FastAPI): models from circuits, predictions, gradients, background training."""

from __future__ import annotations

import asyncio
import hmac
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from qtm._errors import QtmError, require
from qtm._locks import fork_safe_lock
from qtm._machine import available_cores
from qtm._serve.limits import LimitError, Limits
from qtm._serve.models import Models, UnknownModelError
from qtm._serve.store import Store

require("fastapi", "serve")
from fastapi import FastAPI, Request, Response  # noqa: E402 (require names the extra where the package is missing)
from fastapi.responses import JSONResponse, PlainTextResponse  # noqa: E402
from pydantic import BaseModel, Field, FiniteFloat  # noqa: E402

Rows = list[list[FiniteFloat]]
_OPEN = {"/health"}  # for load balancers, which send no token
_STATUS = {UnknownModelError: 404, LimitError: 422}


class NewModel(BaseModel):
    """A circuit and the roles of its parameters."""

    circuit: str = Field(description="OpenQASM 3, or a QPY file in base64")
    form: Literal["qasm3", "qpy"] = "qasm3"
    inputs: list[str] = Field(default=[], description="names of the parameters that are features, in order")
    observables: str | list[str] = Field(default="individualZ", description="Pauli strings, as in Qiskit")
    seed: int = Field(default=0, description="seed of the initial weights")


class Points(BaseModel):
    """Samples (batch, features)."""

    inputs: Rows


class GradientPoints(Points):
    """Samples (batch, features) and cotangents (batch, outputs)."""

    cotangents: Rows | None = None


class Training(Points):
    """Samples, targets (batch, outputs) and how to train: Adam on the mean squared error."""

    targets: Rows
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 10
    batch_size: Annotated[int, Field(ge=1)] = 32
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.05


class _Metrics:
    """Requests by path and status."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._lock = fork_safe_lock()

    def count(self, path: str, status: int) -> None:
        with self._lock:
            self._requests[path, status] += 1

    def text(self, models: int, waiting: int) -> str:
        """In the text format of Prometheus."""
        with self._lock:
            rows = sorted(self._requests.items())
        lines = ["# HELP qtm_requests_total Requests answered.", "# TYPE qtm_requests_total counter"]
        lines += [f'qtm_requests_total{{path="{path}",status="{status}"}} {n}' for (path, status), n in rows]
        lines += ["# HELP qtm_models Models kept.", "# TYPE qtm_models gauge", f"qtm_models {models}"]
        lines += ["# HELP qtm_trainings Trainings that run or wait.", "# TYPE qtm_trainings gauge"]
        return "\n".join([*lines, f"qtm_trainings {waiting}", ""])


def create_app(database: Path, token: str, limits: Limits | None = None) -> FastAPI:
    """The application.

    Args:
        database: The SQLite file; created if it does not exist.
        token: The token that every request except /health has to carry: ``Authorization: Bearer <token>``.
        limits: Limits of requests.

    Raises:
        MissingPackage: fastapi is not installed.
    """
    limits = limits or Limits()
    models, metrics = Models(Store(database), limits), _Metrics()
    workers = ThreadPoolExecutor(2 * available_cores(), thread_name_prefix="qtm-serve")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        models.close()
        workers.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(title="qtm", lifespan=lifespan)
    app.state.models = models
    _add_guards(app, token, limits, metrics)
    _add_models(app, models, limits, workers)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics", response_class=PlainTextResponse)
    def measured() -> str:
        store = models.store
        return metrics.text(store.count("models"), store.count("jobs", "status IN ('waiting', 'running')"))

    @app.get("/jobs/{identity}")
    def job(identity: str) -> dict[str, Any]:
        found = models.store.job(identity)
        if found is None:
            raise UnknownModelError(f"no job {identity!r}")
        return found

    return app


def _add_guards(app: FastAPI, token: str, limits: Limits, metrics: _Metrics) -> None:
    """Check tokens and body sizes, turn errors into responses, and count requests."""

    async def answer(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        given = request.headers.get("authorization", "")
        if request.url.path not in _OPEN and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            return JSONResponse({"detail": "give the token: Authorization: Bearer <token>"}, 401)
        if "transfer-encoding" in request.headers:
            return JSONResponse({"detail": "give a Content-Length; chunked bodies are not accepted"}, 411)
        if int(request.headers.get("content-length", 0)) > limits.body:
            return JSONResponse({"detail": f"body: at most {limits.body} bytes allowed", "limit": "body"}, 413)
        return await call(request)

    @app.middleware("http")
    async def guard(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await answer(request, call)
        route = request.scope.get("route")
        metrics.count(getattr(route, "path", "other"), response.status_code)
        return response

    @app.exception_handler(QtmError)
    async def refused(request: Request, error: QtmError) -> Response:
        status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 422)
        limit = {"limit": error.limit} if isinstance(error, LimitError) else {}
        return JSONResponse({"detail": str(error), **limit}, status)


def _add_models(app: FastAPI, models: Models, limits: Limits, workers: ThreadPoolExecutor) -> None:
    async def within_time(function: Callable[..., Any], *arguments: Any) -> Any:
        # The thread runs to its end; the limits on qubits, depth and batch bound its time.
        call = asyncio.get_running_loop().run_in_executor(workers, function, *arguments)
        try:
            return await asyncio.wait_for(call, limits.seconds)
        except TimeoutError:
            return JSONResponse({"detail": f"seconds: at most {limits.seconds:g} allowed", "limit": "seconds"}, 408)

    @app.post("/models", status_code=201)
    async def create(request: NewModel) -> Any:
        return await within_time(lambda: models.describe(models.create(request.model_dump())))

    @app.get("/models/{identity}")
    async def describe(identity: str) -> Any:
        return await within_time(models.describe, identity)

    @app.delete("/models/{identity}", status_code=204, response_model=None)
    def delete(identity: str) -> None:
        models.forget(identity)

    @app.post("/models/{identity}/predict")
    async def predict(identity: str, points: Points) -> Any:
        outputs = await within_time(models.predict, identity, points.inputs)
        return outputs if isinstance(outputs, Response) else {"outputs": outputs}

    @app.post("/models/{identity}/gradient")
    async def gradient(identity: str, points: GradientPoints) -> Any:
        return await within_time(models.gradient, identity, points.inputs, points.cotangents)

    @app.post("/models/{identity}/train", status_code=202)
    def train(identity: str, training: Training) -> dict[str, str]:
        return {"job": models.train(identity, training.model_dump())}
