"""Models of the service: created from requests, cached, evaluated and trained."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from qtm._errors import ParameterError, QtmError, ShapeError
from qtm._locks import fork_safe_lock
from qtm._serve.limits import LimitError, Limits
from qtm._serve.store import Store
from qtm.modules import QuantumModule

# Number of modules cached with their compiled schedules; others are rebuilt from the store.
READY = 32


class UnknownModelError(QtmError, LookupError):
    """No model has this id."""


class Models:
    """All models; calls may come from any thread."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self.store, self.limits = store, limits
        self._ready: OrderedDict[str, tuple[int, QuantumModule]] = OrderedDict()
        self._lock = fork_safe_lock()
        self._trainer = ThreadPoolExecutor(1, thread_name_prefix="qtm-serve-training")
        self._stopped = threading.Event()

    def close(self) -> None:
        """Stop the running training, and drop waiting ones."""
        self._stopped.set()
        self._trainer.shutdown(cancel_futures=True)

    def create(self, request: dict[str, Any]) -> str:
        """Create a model from circuit, form, inputs, observables and seed; returns its id."""
        self.limits.check("models", self.store.count("models") + 1)
        return self.store.add_model(request, _weights_of(self._build(request)))

    def describe(self, identity: str) -> dict[str, Any]:
        """Sizes and weights of a model."""
        module = self._module(identity)
        return {
            "id": identity,
            "qubits": module.circuit.num_qubits,
            "input_size": module.input_size,
            "output_size": module.output_size,
            "weights": _weights_of(module).tolist(),
        }

    def predict(self, identity: str, inputs: list[list[float]]) -> list[list[float]]:
        """Expectation values (batch, outputs) of inputs (batch, features)."""
        module = self._module(identity)
        with torch.no_grad():
            outputs: list[list[float]] = _evaluated(module, self._inputs(module, inputs)).tolist()
        return outputs

    def gradient(
        self, identity: str, inputs: list[list[float]], cotangents: list[list[float]] | None
    ) -> dict[str, Any]:
        """Derivatives of the sum of outputs times cotangents, by inputs (batch, features) and weights (weights,)."""
        module = self._module(identity)
        points = self._inputs(module, inputs).requires_grad_(module.input_size > 0)
        weights = module.variational_[0]
        outputs = _evaluated(module, points)
        seeds = torch.ones_like(outputs) if cotangents is None else _like(cotangents, outputs.shape, "cotangents")
        wanted = [t for t in (points, weights) if t.requires_grad and t.numel()]
        found = dict(zip(map(id, wanted), torch.autograd.grad(outputs, wanted, seeds) if wanted else (), strict=True))
        by = {name: found.get(id(t)) for name, t in (("inputs", points), ("weights", weights))}
        return {"outputs": outputs.tolist(), **{name: [] if g is None else g.tolist() for name, g in by.items()}}

    def train(self, identity: str, request: dict[str, Any]) -> str:
        """Start a training in the background; returns the id of the job."""
        module = self._module(identity)
        inputs = self._inputs(module, request["inputs"])
        targets = _like(request["targets"], (len(inputs), module.output_size), "targets")
        self.limits.check("queue", self.store.count("jobs", "status IN ('waiting', 'running')") + 1)
        job = self.store.add_job(identity, request["epochs"])
        self._trainer.submit(self._run, job, identity, inputs, targets, request)
        return job

    def _run(self, job: str, identity: str, inputs: Tensor, targets: Tensor, request: dict[str, Any]) -> None:
        """Run a training from the current weights of the model; every outcome is written to the job."""
        epoch, loss = 0, None
        try:
            found = self.store.model(identity)
            if found is None:
                raise UnknownModelError(f"model {identity} was deleted")
            module = self._build(found[0])
            _set_weights(module, found[1])
            optimizer = torch.optim.Adam(module.parameters(), lr=request["learning_rate"])
            began = time.monotonic()
            for epoch in range(1, request["epochs"] + 1):
                for batch in torch.randperm(len(inputs)).split(request["batch_size"]):
                    if self._stopped.is_set():
                        raise ParameterError("the service was stopped")
                    self.limits.check("seconds", time.monotonic() - began)
                    value = functional.mse_loss(_evaluated(module, inputs[batch]), targets[batch])
                    optimizer.zero_grad()
                    value.backward()
                    optimizer.step()
                    loss = value.item()
                self.store.update_job(job, "running", epoch, loss)
            self.store.set_weights(identity, _weights_of(module))
            self.store.update_job(job, "done", epoch, loss)
        except (QtmError, RuntimeError) as error:
            self.store.update_job(job, "failed", epoch, loss, str(error))

    def _module(self, identity: str) -> QuantumModule:
        found = self.store.model(identity)
        if found is None:
            raise UnknownModelError(f"no model {identity!r}")
        request, weights, version = found
        with self._lock:
            kept = self._ready.get(identity)
            if kept is None or kept[0] != version:
                module = self._build(request)
                _set_weights(module, weights)
                kept = self._ready[identity] = (version, module)
            self._ready.move_to_end(identity)
            while len(self._ready) > READY:
                self._ready.popitem(last=False)
        return kept[1]

    def forget(self, identity: str) -> None:
        """Delete a model."""
        with self._lock:
            self._ready.pop(identity, None)
        if not self.store.delete_model(identity):
            raise UnknownModelError(f"no model {identity!r}")

    def _build(self, request: dict[str, Any]) -> QuantumModule:
        circuit = self.limits.circuit(request["circuit"], request["form"])
        by_name = {parameter.name: parameter for parameter in circuit.parameters}
        if unknown := sorted(set(request["inputs"]) - set(by_name)):
            raise ParameterError(f"inputs {unknown} are not in the circuit; its parameters are {sorted(by_name)}")
        encoding = [by_name[name] for name in request["inputs"]]
        weights = [parameter for parameter in circuit.parameters if parameter.name not in set(request["inputs"])]
        # Requests already run in parallel, so each is computed by one thread.
        return QuantumModule(
            circuit, encoding, weights,
            observables=request["observables"], seed_init=request["seed"],
            num_threads_forward=1, num_threads_backward=1,
        ).double()  # fmt: skip

    def _inputs(self, module: QuantumModule, rows: list[list[float]]) -> Tensor:
        self.limits.check("batch", len(rows))
        if any(len(row) != module.input_size for row in rows):
            raise ShapeError(
                f"an input does not have {module.input_size} features, one for each of the circuit's inputs"
            )
        return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), module.input_size)


def _evaluated(module: QuantumModule, inputs: Tensor) -> Tensor:
    """Outputs (batch, outputs); without features every sample is the same state."""
    outputs: Tensor = module(inputs) if module.input_size else module().expand(len(inputs), -1)
    return outputs


def _like(rows: list[list[float]], shape: tuple[int, ...], name: str) -> Tensor:
    """Rows as a tensor of this shape (batch, outputs)."""
    if len(rows) != shape[0] or any(len(row) != shape[1] for row in rows):
        raise ShapeError(
            f"{name} do not have the shape {tuple(shape)}, a row for each sample, a number for each output"
        )
    return torch.tensor(rows, dtype=torch.float64).reshape(shape)


def _weights_of(module: QuantumModule) -> NDArray[np.float64]:
    return module.variational_[0].detach().double().numpy().copy()


def _set_weights(module: QuantumModule, weights: NDArray[np.float64]) -> None:
    with torch.no_grad():
        module.variational_[0].copy_(torch.from_numpy(weights))


__all__ = ["LimitError", "Models", "UnknownModelError"]
