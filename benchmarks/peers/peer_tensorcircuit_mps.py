"""TensorCircuit-NG: MPSCircuit with bonds of `--bond`, its energy as an MPO, differentiated by `--backend`.

JAX compiles the energy with its gradient, which takes longer than a minute from 10 qubits on; torch does without.
"""

from __future__ import annotations

import argparse

import numpy as np
from _protocol import Runner, Task, serve
from peer_tensorcircuit import apply_gate

_PAULIS = {"X": [[0, 1], [1, 0]], "Y": [[0, -1j], [1j, 0]], "Z": [[1, 0], [0, -1]]}


class JaxMpsRunner(Runner):
    """One sample: values (1, 1)."""

    def __init__(self, task: Task, bond: int) -> None:
        import jax
        import jax.numpy as jnp
        import tensorcircuit

        jax.config.update("jax_enable_x64", task.dtype == "double")
        tensorcircuit.set_backend("jax")
        put = jnp.asarray
        energy = _energy(task, bond, put, lambda weights: jnp.append(weights, 1.0)[task.weight_of], jnp.einsum)
        self._weights, self._cotangent = put(task.weights.astype(task.real)), task.cotangent[0, 0]
        self._forward, self._combined = jax.jit(energy), jax.jit(jax.value_and_grad(energy))

    def forward(self) -> np.ndarray:
        return np.reshape(self._forward(self._weights), (1, 1))

    def combined(self) -> tuple[np.ndarray, np.ndarray]:
        value, gradient = self._combined(self._weights)
        return np.reshape(value, (1, 1)), self._cotangent * np.asarray(gradient)


def _torch_runner(task: Task, bond: int) -> Runner:
    import tensorcircuit
    import torch
    from _torch import TorchRunner

    tensorcircuit.set_backend("pytorch")
    one, weight_of = (
        torch.ones(1, dtype=torch.tensor(task.weights.astype(task.real)).dtype),
        torch.tensor(task.weight_of),
    )
    energy = _energy(task, bond, torch.tensor, lambda weights: torch.cat([weights, one])[weight_of], torch.einsum)
    return TorchRunner(task, lambda weights: energy(weights).reshape(1, 1))


def _energy(task: Task, bond: int, put, weight_of_angles, einsum):
    """Function from weights, (K,), to the energy, in the library whose functions are given."""
    import tensorcircuit

    tensorcircuit.set_dtype({"double": "complex128", "single": "complex64"}[task.dtype])
    const, factors = (put(a.astype(task.real)) for a in (task.const, task.input_factors[0]))
    operators = [put(site.astype(task.complex)) for site in _operator(task)]
    start = put(np.ones((1, 1, 1), task.complex))

    def energy(weights):
        angles = const + factors * weight_of_angles(weights)
        circuit = tensorcircuit.MPSCircuit(task.num_qubits, split={"max_singular_values": bond})
        for gate in task.gates:
            apply_gate(circuit, gate, angles)
        left = start
        for tensor, operator in zip(circuit.get_tensors(), operators, strict=True):
            left = einsum("aob,asc->obsc", left, tensor)
            left = einsum("obsc,otsp->bctp", left, operator)
            left = einsum("bctp,btd->cpd", left, tensor.conj())
        return left[0, 0, 0].real

    return energy


def _operator(task: Task) -> list[np.ndarray]:
    """Terms on neighbours as one operator, site by site (left, out, in, right): nothing yet, one per letter, done."""
    letters = sorted({letter for _, word in task.observables[0] for letter, _ in word})
    size, identity = len(letters) + 2, np.eye(2)
    sites = [np.zeros((size, 2, 2, size), complex) for _ in range(task.num_qubits)]
    for site in sites:
        site[0, :, :, 0] = site[-1, :, :, -1] = identity
    for coefficient, word in task.observables[0]:
        (first, a), (second, b) = sorted(word, key=lambda pauli: pauli[1])
        if b != a + 1:
            raise ValueError("this adapter takes Pauli words on two neighbours")
        place = 1 + letters.index(second)
        sites[a][0, :, :, place] += coefficient * np.array(_PAULIS[first])
        sites[b][place, :, :, -1] = np.array(_PAULIS[second])
    return [sites[0][:1], *sites[1:-1], sites[-1][..., -1:]]


def build(task: Task, options: argparse.Namespace) -> Runner:
    if len(task.observables) != 1 or task.samples != 1:
        raise ValueError("this adapter takes one observable and one sample")
    return JaxMpsRunner(task, options.bond) if options.backend == "jax" else _torch_runner(task, options.bond)


if __name__ == "__main__":
    packages = ("tensorcircuit-ng", "torch", "jax", "jaxlib", "numpy")
    backend = {"choices": ["torch", "jax"], "default": "torch"}
    serve("tensorcircuit-ng", packages, build, {"--bond": {"type": int, "default": 32}, "--backend": backend})
