"""Whole trainings of the paper [1]: the classifier of table II and the policy of table III and figure 3.

[1] N. Meyer et al., Qiskit-Torch-Module: Fast Prototyping of Quantum Neural Networks, arXiv:2404.06314.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from qtm._demo.classifier import BATCH, DEPTH, QUBITS, SIDE, Digits, load_digits
from qtm._errors import require
from qtm.circuits import incremental_uploading_circuit, policy_circuit
from qtm.modules import QuantumModule

# --- Table II: the classifier -----------------------------------------------------------------------------------

LEARNING_RATE, EPOCHS = 0.001, 250


def load_mnist(folder: Path) -> Digits:
    """MNIST, resampled from 28 x 28 to 10 x 10, from a folder where torchvision has stored it; nothing is downloaded.

    Raises:
        MissingPackage: torchvision is not installed.
        OSError: the folder does not contain the data set.
    """
    dataset = require("torchvision", "bench").datasets.MNIST
    try:
        parts = [dataset(str(folder), train=train, download=False) for train in (True, False)]
    except RuntimeError as error:
        raise OSError(f"{folder} does not contain MNIST as stored by torchvision ({error})") from error
    tensors: list[Tensor] = []
    for part in parts:
        images = part.data[:, None].float() / 255
        tensors += [functional.interpolate(images, size=(SIDE, SIDE), mode="area").flatten(1), part.targets]
    return Digits(*tensors)


@dataclass(frozen=True)
class Training:
    """The result of a training; times are medians in seconds."""

    steps: int
    step_seconds: float
    accuracy: float
    held_out_accuracy: float


def classifier(digits: Digits, epochs: int, threads: int, seed: int = 0) -> Iterator[Training]:
    """Train as the paper does (Adam at 0.001, softmax of the ten expectation values); yields after every epoch."""
    model = incremental_uploading_circuit(QUBITS, DEPTH, SIDE * SIDE)
    module = QuantumModule(
        model.circuit, model.encoding_params, model.trainable_params,
        seed_init=seed, num_threads_forward=threads, num_threads_backward=threads,
    )  # fmt: skip
    optimizer = torch.optim.Adam(module.parameters(), lr=LEARNING_RATE)
    order = torch.Generator().manual_seed(seed)
    seconds: list[float] = []
    for _ in range(epochs):
        for batch in torch.randperm(len(digits.images), generator=order).split(BATCH):
            began = time.perf_counter()
            loss = functional.cross_entropy(module(digits.images[batch]), digits.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seconds.append(time.perf_counter() - began)
        yield Training(
            len(seconds), statistics.median(seconds),
            _accuracy(module, digits.images, digits.labels),
            _accuracy(module, digits.held_out_images, digits.held_out_labels),
        )  # fmt: skip


@torch.no_grad()
def _accuracy(module: QuantumModule, images: Tensor, labels: Tensor) -> float:
    return float((module(images).argmax(1) == labels).double().mean())


def digits_or_mnist(folder: Path | None) -> tuple[str, Digits]:
    """Name and images of the data set: MNIST if a folder is given, otherwise scikit-learn's digits."""
    return ("digits", load_digits(0)) if folder is None else ("MNIST", load_mnist(folder))


# --- Table III and figure 3: the policy -------------------------------------------------------------------------

ENVIRONMENT, SOLVED, WINDOW = "CartPole-v0", 195.0, 100
EPISODES_PER_UPDATE, DISCOUNT = 10, 0.99
# Cart position, cart velocity, pole angle and its velocity, scaled to about one.
_RANGE = torch.tensor([2.4, 2.5, 0.21, 2.5])
RATES = {"one rate, 0.05": (0.05, 0.05), "separate rates, 0.01 and 0.1": (0.01, 0.1)}


@dataclass(frozen=True)
class Learning:
    """How a policy learned: environment steps and episodes until the task was solved or the training stopped."""

    solved: bool
    steps: int
    episodes: int
    step_seconds: float
    rewards: tuple[float, ...]


class Policy:
    """The policy of the paper: (1 +- <ZZZZ>) / 2 are the probabilities of left and right."""

    def __init__(self, rates: tuple[float, float], seed: int, threads: int) -> None:
        model = policy_circuit()
        generator = torch.Generator().manual_seed(seed)
        angles = 0.1 * torch.randn(len(model.variational_params), generator=generator)
        self.module = QuantumModule(
            model.circuit, model.encoding_params, [list(model.variational_params), list(model.scaling_params)],
            variational_params_names=["theta", "lam"],
            variational_params_initial=[angles.tolist(), "constant"],
            observables="tensoredZ", num_threads_forward=threads, num_threads_backward=threads,
        )  # fmt: skip
        pairs = zip(self.module.variational_, rates, strict=True)
        self.optimizer = torch.optim.Adam([{"params": p, "lr": rate} for p, rate in pairs], amsgrad=True)
        self.generator = generator

    def probabilities(self, states: Tensor) -> Tensor:
        """Probability of going right, (states,)."""
        values: Tensor = self.module(states)
        return ((1 - values.squeeze(1)) / 2).clamp(1e-6, 1 - 1e-6)

    @torch.no_grad()
    def act(self, states: Tensor) -> Tensor:
        """Sampled actions, (states,)."""
        return (torch.rand(len(states), generator=self.generator) < self.probabilities(states)).long()

    def update(self, states: Tensor, actions: Tensor, returns: Tensor) -> None:
        """One policy-gradient step (REINFORCE with normalised returns)."""
        right = self.probabilities(states)
        chosen = torch.where(actions == 1, right, 1 - right).log()
        loss = -(chosen * (returns - returns.mean()) / (returns.std() + 1e-8)).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def learn(
    rates: tuple[float, float], seed: int, threads: int, max_episodes: int, tick: Callable[[float], None]
) -> Learning:
    """Train a policy on CartPole until the mean of the last 100 episodes reaches 195.

    Args:
        rates: learning rates of the angles and of the scales.
        seed: of the initial angles, the actions and the environment.
        threads: of the module.
        max_episodes: stop after this many episodes.
        tick: called with the mean reward after every update.
    """
    policy, environments = Policy(rates, seed, threads), _environments()
    rewards: list[float] = []
    steps, seconds, solved = 0, 0.0, False
    while not solved and len(rewards) < max_episodes:
        began = time.perf_counter()
        episodes = _play(policy, environments, seed * 1_000_003 + len(rewards))
        states, actions, returns = (torch.cat(parts) for parts in zip(*episodes, strict=True))
        policy.update(states, actions, returns)
        seconds += time.perf_counter() - began
        steps += len(states)
        rewards += [float(len(e[0])) for e in episodes]
        recent = statistics.mean(rewards[-WINDOW:])
        solved = len(rewards) >= WINDOW and recent >= SOLVED
        tick(recent)
    return Learning(solved, steps, len(rewards), seconds / steps, tuple(rewards))


def _environments() -> list[Any]:
    make = require("gymnasium", "bench").make
    with warnings.catch_warnings():  # about a newer version; the paper used this one
        warnings.simplefilter("ignore")
        return [make(ENVIRONMENT) for _ in range(EPISODES_PER_UPDATE)]


def _play(policy: Policy, environments: list[Any], seed: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """One episode in every environment, side by side: states, actions and discounted returns of each."""
    states = [environment.reset(seed=seed + i)[0] for i, environment in enumerate(environments)]
    running = list(range(len(environments)))
    seen: list[list[Tensor]] = [[] for _ in environments]
    taken: list[list[int]] = [[] for _ in environments]
    while running:
        batch = torch.stack([torch.as_tensor(states[i]) for i in running]) / _RANGE
        actions = policy.act(batch).tolist()
        still = []
        for i, state, action in zip(running, batch, actions, strict=True):
            seen[i].append(state)
            taken[i].append(action)
            states[i], _, terminated, truncated, _ = environments[i].step(action)
            if not (terminated or truncated):
                still.append(i)
        running = still
    return [(torch.stack(s), torch.tensor(a), _returns(len(s))) for s, a in zip(seen, taken, strict=True)]


def _returns(length: int) -> Tensor:
    """Discounted sums of a reward of one per step, (length,)."""
    ahead = torch.arange(length, 0, -1)
    returns: Tensor = (1 - DISCOUNT**ahead) / (1 - DISCOUNT)
    return returns
