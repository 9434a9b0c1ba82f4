"""quimb: the circuit as a matrix product state with bonds of `--bond`, its energy as an MPO, autodiff through torch."""

from __future__ import annotations

import argparse

import numpy as np
from _protocol import Runner, Task, serve


def build(task: Task, options: argparse.Namespace) -> Runner:
    import quimb.tensor as qtn
    import torch
    from _torch import TorchRunner, torch_angles

    if len(task.observables) != 1:
        raise ValueError("this adapter takes one observable")
    kind = {"double": torch.complex128, "single": torch.complex64}[task.dtype]

    def to_torch(array: np.ndarray) -> torch.Tensor:
        return torch.tensor(np.asarray(array), dtype=kind)

    energy = _operator(qtn, task)
    energy.apply_to_arrays(to_torch)
    start = qtn.MPS_computational_state("0" * task.num_qubits, dtype="complex128")
    start.apply_to_arrays(to_torch)
    constants = {name: to_torch(matrix) for name, matrix in _CONSTANTS.items()}
    angles_of = torch_angles(task)

    def one(angles: torch.Tensor) -> torch.Tensor:
        state = start.copy()
        for gate in task.gates:
            matrix = (
                constants[gate.name] if gate.angle is None else _rotation(torch, gate.name, angles[gate.angle], kind)
            )
            if len(gate.qubits) == 1:
                state.gate_(matrix, gate.qubits[0], contract=True)
            else:
                state.gate_(matrix, gate.qubits, contract="swap+split", max_bond=options.bond, cutoff=1e-10)
        ket, operator, bra = qtn.tensor_network_align(state, energy, state.H)
        return (bra | operator | ket).contract_structured(slice(0, task.num_qubits)).real

    return TorchRunner(task, lambda weights: torch.stack([one(row) for row in angles_of(weights)])[:, None])


_CX = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]], complex).reshape(2, 2, 2, 2)
_CONSTANTS = {
    "h": np.array([[1, 1], [1, -1]]) / 2**0.5,
    "cx": _CX,
    "cz": np.diag([1, 1, 1, -1]).astype(complex).reshape(2, 2, 2, 2),
}
_PAULIS = {"rx": [[0, 1], [1, 0]], "ry": [[0, -1j], [1j, 0]], "rz": [[1, 0], [0, -1]]}


def _rotation(torch, name: str, angle, kind):
    identity, pauli = torch.eye(2, dtype=kind), torch.tensor(_PAULIS[name], dtype=kind)
    return torch.cos(angle / 2) * identity - 1j * torch.sin(angle / 2) * pauli


def _operator(qtn, task: Task):
    """A sum of nearest-neighbour terms with the same coefficient on all bonds, as an MPO."""
    found: dict[str, set[float]] = {}
    for coefficient, word in task.observables[0]:
        (first, a), (second, b) = word
        if abs(a - b) != 1 or first != second:
            raise ValueError("this adapter takes XX, YY and ZZ of neighbours")
        found.setdefault(first, set()).add(coefficient)
    builder = qtn.SpinHam1D(S=1 / 2)
    for letter, coefficients in found.items():
        (coefficient,) = coefficients
        builder += 4.0 * coefficient, letter, letter
    return builder.build_mpo(task.num_qubits)


if __name__ == "__main__":
    serve("quimb-mps", ("quimb", "torch", "numpy"), build, {"--bond": {"type": int, "default": 32}})
