"""Initial values and schedules that avoid barren plateaus: small angles, and training layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from qtm._arguments import checked_int, checked_number, refused, shown
from qtm._errors import ParameterError
from qtm.modules import QuantumModule

__all__ = ["small_angles", "train_layerwise"]

Result = TypeVar("Result")
Train = Callable[[QuantumModule, list[nn.Parameter]], Result]


def small_angles(depth: int, locality: int = 1) -> tuple[str, dict[str, float]]:
    """Initial angles from a narrow normal distribution, for ``variational_params_initial`` of `QuantumModule`.

    The standard deviation ``1 / sqrt(4 S (L + 2))`` for L layers and observables on S qubits keeps the norm of the
    gradient from vanishing faster than polynomially (Zhang et al., Adv. Neural Inf. Process. Syst. 35, 18612 (2022)).

    Args:
        depth: number of layers L of the circuit.
        locality: number of qubits S that an observable acts on.

    Raises:
        ParameterError: a number is below 1.

    Example:
        >>> from qtm.training import small_angles
        >>> small_angles(depth=23)
        ('normal', {'mean': 0.0, 'std': 0.1})
    """
    depth = checked_int(depth, "depth", "give the layers of the circuit", least=1)
    locality = checked_int(locality, "locality", "give the qubits that an observable acts on", least=1)
    return "normal", {"mean": 0.0, "std": 1 / math.sqrt(4 * locality * (depth + 2))}


def train_layerwise(
    build: Callable[[int], QuantumModule],
    num_layers: int,
    train: Train[Result],
    *,
    at_once: int = 2,
    std: float = 0.1,
    seed: int | None = None,
) -> tuple[QuantumModule, list[Result]]:
    """Train a circuit that grows by a few layers at a time: the newest layers first, and all of them at the end.

    Shallow circuits have gradients where deep ones at random angles have none; new layers start near zero (Skolik et
    al., Quantum Mach. Intell. 3, 5 (2021)).

    Args:
        build: builds the module for a number of layers; each layer is one of its parameter sets, in order, as with
            `QuantumModule.from_parts`.
        num_layers: final number of layers.
        train: trains the given parameters of a module with any optimizer; its return values are collected. All other
            parameters of the module are frozen meanwhile.
        at_once: number of layers added and trained together.
        std: standard deviation of the angles of new layers, in radians.
        seed: seed of these angles.

    Returns:
        The trained module with no parameter frozen, and the return values of ``train``: one for each time that layers
        were added, and a last one for all layers.

    Raises:
        ParameterError: an argument is unusable, or ``build`` gives a module whose parameter sets are not the layers.

    Example:
        >>> import torch
        >>> import qtm
        >>> from qtm.circuits import hardware_efficient_ansatz
        >>> from qtm.training import train_layerwise
        >>> def build(layers):
        ...     return qtm.QuantumModule.from_parts([hardware_efficient_ansatz(3)] * layers, observables=["ZZZ"])
        >>> def train(module, parameters):
        ...     optimizer = torch.optim.Adam(parameters, lr=0.1)
        ...     for _ in range(10):
        ...         energy = module().sum()
        ...         optimizer.zero_grad()
        ...         energy.backward()
        ...         optimizer.step()
        ...     return energy.item()
        >>> module, energies = train_layerwise(build, 4, train, seed=0)
        >>> len(energies), energies[-1] < energies[0]
        (3, True)
    """
    for name, function in (("build", build), ("train", train)):
        if not callable(function):
            raise refused(name, "a function", function, "see the example in the documentation")
    num_layers = checked_int(num_layers, "num_layers", "give the layers at the end", least=1)
    at_once = checked_int(at_once, "at_once", "give the layers that are added together", least=1)
    std = checked_number(std, "std", "give a width in radians, such as 0.1", least=0)
    generator = None if seed is None else torch.Generator().manual_seed(checked_int(seed, "seed", "give a number"))
    module, results = None, []
    for total in [*range(at_once, num_layers, at_once), num_layers]:
        module = _grown(build(total), total, module, std, generator)
        layers = module.variational_
        results.append(_train_only(module, layers[(total - 1) // at_once * at_once :], train))
    assert module is not None
    results.append(_train_only(module, module.variational_, train))
    return module, results


def _grown(
    module: Any, layers: int, smaller: QuantumModule | None, std: float, generator: torch.Generator | None
) -> QuantumModule:
    """The module with the angles of the smaller one, and new layers near zero."""
    if not isinstance(module, QuantumModule):
        raise ParameterError(f"build must give a QuantumModule, not {shown(module)}; see QuantumModule.from_parts")
    if len(module.variational_) != layers:
        raise ParameterError(
            f"build({layers}) gives a module of {len(module.variational_)} parameter sets; each layer has to be a set "
            "of its own, as QuantumModule.from_parts makes them"
        )
    known = [] if smaller is None else smaller.variational_
    with torch.no_grad():
        for position, parameter in enumerate(module.variational_):
            if position < len(known):
                parameter.copy_(known[position])
            else:
                parameter.normal_(0.0, std, generator=generator)
    return module


def _train_only(module: QuantumModule, chosen: list[nn.Parameter], train: Train[Result]) -> Result:
    """Run ``train`` with all other parameters of the module frozen."""
    everything = list(module.parameters())
    before = [p.requires_grad for p in everything]
    try:
        for parameter in everything:
            parameter.requires_grad_(any(parameter is c for c in chosen))
        return train(module, chosen)
    finally:
        for parameter, required in zip(everything, before, strict=True):
            parameter.requires_grad_(required)
