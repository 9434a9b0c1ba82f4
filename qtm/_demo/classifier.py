"""The model of `qtm demo`: the paper's full-quantum classifier, trained on handwritten digits.

Ten qubits take an image of 10 x 10 pixels in ten layers between 220 trainable angles; the expectation value
of Z on qubit q, times a fixed factor, is the logit of digit q (N. Meyer et al., arXiv:2404.06314, table II).
There are no classical weights.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from qtm._demo.history import History
from qtm._errors import require
from qtm.circuits import ModelCircuit, incremental_uploading_circuit
from qtm.modules import QuantumModule

QUBITS, DEPTH, SIDE, BATCH = 10, 10, 10, 48
LEARNING_RATE = 0.03
# Expectation values are in [-1, 1], too narrow for a confident softmax; this scales them up.
LOGIT_SCALE = 50.0
HELD_OUT = 0.2

MODEL, TRAINING, CIRCUIT = "model.pt", "training.png", "circuit.png"
DEVICES = ("cpu",)  # on which the demo has been run


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of the user; ``threads`` 0 means all cores."""

    epochs: int = 100
    seed: int = 0
    threads: int = 0
    device: str = "cpu"


class Digits(NamedTuple):
    """The UCI handwritten digits: images (samples, 100) with pixels in [0, 1], labels (samples,)."""

    images: Tensor
    labels: Tensor
    held_out_images: Tensor
    held_out_labels: Tensor


class Step(NamedTuple):
    """Progress of a training after a step; ``held_out_accuracy`` is that of the last complete epoch."""

    number: int
    epoch: int
    loss: float
    accuracy: float
    held_out_accuracy: float
    seconds: float


def load_digits(seed: int) -> Digits:
    """The 1797 digits that scikit-learn ships, 8 x 8 resampled to 10 x 10, a fifth of every class held out.

    Raises:
        MissingPackage: scikit-learn is not installed.
    """
    pixels, labels = require("sklearn.datasets", "demo").load_digits(return_X_y=True)
    squares = torch.tensor(pixels / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    images = functional.interpolate(squares, size=(SIDE, SIDE), mode="bilinear").flatten(1)
    split = require("sklearn.model_selection", "demo").train_test_split
    train, held_out = split(range(len(labels)), test_size=HELD_OUT, stratify=labels, random_state=seed)
    targets = torch.tensor(labels)
    return Digits(images[train], targets[train], images[held_out], targets[held_out])


class Classifier:
    """The model, its data and the course of its training."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.history = History()
        self.digits = Digits(*(part.to(settings.device) for part in load_digits(settings.seed)))
        self.design: ModelCircuit = incremental_uploading_circuit(QUBITS, DEPTH, SIDE * SIDE)
        self.module = QuantumModule(
            self.design.circuit,
            self.design.encoding_params,
            self.design.trainable_params,
            seed_init=settings.seed,
            num_threads_forward=settings.threads,
            num_threads_backward=settings.threads,
        ).to(settings.device)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in the training set."""
        return -(-len(self.digits.images) // BATCH)

    @property
    def num_steps(self) -> int:
        """Steps of the whole training."""
        return self.settings.epochs * self.steps_per_epoch

    def train(self) -> Iterator[Step]:
        """Train with Adam and a cosine schedule, yielding after every step."""
        optimizer = torch.optim.Adam(self.module.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.num_steps)
        order = torch.Generator().manual_seed(self.settings.seed)
        held_out_accuracy = self.held_out_accuracy()
        for epoch in range(self.settings.epochs):
            correct = seen = 0
            for batch in torch.randperm(len(self.digits.images), generator=order).split(BATCH):
                began = time.perf_counter()
                loss, hits = self._step(batch, optimizer)
                schedule.step()
                self.history.seconds.append(time.perf_counter() - began)
                self.history.losses.append(loss)
                correct, seen = correct + hits, seen + len(batch)
                number = len(self.history.losses)
                yield Step(number, epoch, loss, correct / seen, held_out_accuracy, self.history.seconds[-1])
            held_out_accuracy = self.held_out_accuracy()
            self.history.accuracies.append(correct / seen)
            self.history.held_out_accuracies.append(held_out_accuracy)

    def _step(self, batch: Tensor, optimizer: torch.optim.Optimizer) -> tuple[float, int]:
        """One update; returns the loss and the number of correct digits before it."""
        labels = self.digits.labels[batch]
        logits = LOGIT_SCALE * self.module(self.digits.images[batch])
        loss = functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item(), int((logits.argmax(1) == labels).sum())

    @torch.no_grad()
    def predictions(self) -> Tensor:
        """Predicted digits (samples,) of the held-out images."""
        return self.module(self.digits.held_out_images).argmax(1)

    def held_out_accuracy(self) -> float:
        """Share of the held-out digits that are recognised."""
        return float((self.predictions() == self.digits.held_out_labels).double().mean())

    def confusion(self) -> Tensor:
        """Counts (10, 10) of held-out digits, on the CPU: row by true digit, column by prediction."""
        pairs = self.digits.held_out_labels * QUBITS + self.predictions()
        return torch.bincount(pairs.cpu(), minlength=QUBITS * QUBITS).reshape(QUBITS, QUBITS)

    def save(self, folder: Path) -> list[Path]:
        """Write the weights, the figure of the training and the drawing of the circuit; their paths.

        The weights are on the CPU, and load with ``torch.load(path, weights_only=True)``.

        Raises:
            MissingPackage: matplotlib is not installed.
        """
        from qtm._demo import figures

        training = figures.training_figure(self.history, self.steps_per_epoch, self.confusion().numpy())
        circuit = figures.circuit_figure(self.design.circuit)
        weights = {name: value.cpu() for name, value in self.module.state_dict().items()}
        writers: dict[str, Callable[[Path], object]] = {
            MODEL: lambda path: torch.save(weights, path),
            TRAINING: lambda path: training.savefig(path, format="png", dpi=150),
            CIRCUIT: lambda path: circuit.savefig(path, format="png", dpi=110, bbox_inches="tight"),
        }
        return [_write_whole(folder / name, write) for name, write in writers.items()]


def _write_whole(path: Path, write: Callable[[Path], object]) -> Path:
    """Write to a temporary file and rename it, so that readers never see half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        write(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path
