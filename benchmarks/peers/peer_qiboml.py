"""Qiboml's torch interface: one sample at a time, one process a core.

`--engine native` differentiates the final state through torch; `adjoint` and `psr` are Qiboml's own engines
on a Qibo backend, which take one observable per model. `--backend numpy` is right; on `qibojit` the adjoint
engine's gradients are wrong (0.1.1, its kernels write into the state that the engine still needs).
"""

from __future__ import annotations

import argparse
from typing import Any

from _protocol import Runner, Sharded, Task, serve


def _circuit(task: Task) -> Any:
    from qibo import Circuit, gates

    make = {"h": gates.H, "cx": gates.CNOT, "cz": gates.CZ, "rx": gates.RX, "ry": gates.RY, "rz": gates.RZ}
    circuit = Circuit(task.num_qubits)
    for gate in task.gates:
        angle = () if gate.angle is None else (0.0,)
        circuit.add(make[gate.name](*gate.qubits, *angle))
    return circuit


def _symbolic(terms: list[Any], backend: Any) -> Any:
    """Sum of Pauli words; `qibo.hamiltonians.Z` would be minus the sum."""
    from qibo import hamiltonians, symbols

    total = 0
    for coefficient, word in terms:
        product = coefficient
        for pauli, qubit in word:
            product = product * getattr(symbols, pauli)(qubit, backend=backend)
        total = total + product
    return hamiltonians.SymbolicHamiltonian(total, backend=backend)


def _models(task: Task, options: argparse.Namespace) -> list[Any]:
    """Modules from angles to the final state (native) or to one observable's value each."""
    if task.dtype != "double":
        raise ValueError("qiboml runs in double precision only: set_dtype breaks its torch backend (0.1.1)")
    from qibo.backends import construct_backend
    from qiboml.differentiations.adjoint import Adjoint
    from qiboml.differentiations.psr import PSR
    from qiboml.interfaces.pytorch import QuantumModel
    from qiboml.models.decoding import Expectation, State

    if options.engine == "native":
        backend = construct_backend("qiboml", platform="pytorch")
        return [QuantumModel(_circuit(task), State(task.num_qubits, backend=backend))]
    platform = {"qibojit": "numba"}.get(options.backend)
    backend = construct_backend(options.backend, platform=platform)
    engine = {"adjoint": Adjoint, "psr": PSR}[options.engine]
    decodings = [
        Expectation(task.num_qubits, backend=backend, observable=_symbolic(terms, backend))
        for terms in task.observables
    ]
    return [QuantumModel(_circuit(task), each, differentiation=engine) for each in decodings]


def _build_part(task: Task, options: argparse.Namespace) -> Runner:
    import torch
    from _torch import TorchRunner, torch_angles

    models = _models(task, options)
    angles_of = torch_angles(task)
    diagonals = None
    if options.engine == "native":
        diagonals = torch.tensor(task.diagonals(first_qubit_is_lowest_bit=False))

    def sample(row: torch.Tensor) -> torch.Tensor:
        # Weights times inputs cannot be said in a Qiboml model: the chain rule from angles is torch's.
        results = [torch.func.functional_call(each, {"circuit_parameters": row}, ()) for each in models]
        if diagonals is None:
            return torch.cat([result.ravel() for result in results])
        return (results[0] ** 2).sum(dim=0).ravel() @ diagonals

    return TorchRunner(task, lambda weights: torch.stack([sample(row) for row in angles_of(weights)]))


def build(task: Task, options: argparse.Namespace) -> Runner:
    return _build_part(task, options) if task.samples == 1 else Sharded(_build_part, task, options)


if __name__ == "__main__":
    choices = {
        "--engine": {"choices": ["native", "adjoint", "psr"], "default": "native"},
        "--backend": {"choices": ["numpy", "qibojit"], "default": "numpy"},
    }
    serve("qiboml", ("qiboml", "qibo", "qibojit", "torch", "numpy"), build, choices)
