"""A small training run on the mock service; test_resume.py runs it, kills it, and runs it again."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from mock_runtime import MockService
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp

from qtm import hardware
from qtm._hardware import device_primitive as _jobs

STEPS = 4
_jobs.SETTLE_SECONDS = 0.0


def circuit():
    angles = ParameterVector("angle", 3)
    result = QuantumCircuit(2)
    result.ry(angles[0], 0)
    result.cx(0, 1)
    result.ry(angles[1], 0)
    result.rx(angles[2], 1)
    return result


class Model(torch.nn.Module):
    def __init__(self, device):
        super().__init__()
        self.angles = torch.nn.Parameter(torch.rand(3, dtype=torch.double))
        self.estimator = device.estimator
        self.isa = device.pass_manager.run(circuit())
        self.observables = [SparsePauliOp(p).apply_layout(self.isa.layout) for p in ("ZZ", "XI")]

    def values(self, points):
        """Expectation values (points, 2) at angles (points, 3), in one job."""
        result = self.estimator.run([(self.isa, self.observables, np.asarray(points)[:, None, :])]).result()
        return result[0].data.evs

    def backward(self, target):
        """Set the gradient of the squared error by parameter shift: two jobs."""
        now = self.angles.detach().numpy()
        value = self.values([now])[0]
        shifts = np.concatenate([np.eye(3), -np.eye(3)]) * np.pi / 2
        plus, minus = np.split(self.values(now + shifts), 2)
        gradient = (plus - minus) / 2 @ (2 * (value - target))
        self.angles.grad = torch.from_numpy(gradient)


def main(folder: Path) -> None:
    torch.manual_seed(1)
    service = MockService(folder / "service")
    journal = folder / "run.journal"
    if journal.exists():
        device = hardware.resume(journal, service=service)
    else:
        device = hardware.connect(
            "ibm_mock", journal=journal, service=service, seed_transpiler=5, shots=64,
            options={"resilience_level": 0},
        )  # fmt: skip
    with device:
        model = Model(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        generator = np.random.default_rng(2)
        start = device.checkpoint.load(model=model, optimizer=optimizer, generator=generator)
        for step in range(start, STEPS):
            # the targets need the random states of the checkpoint: torch's and a generator of our own
            model.backward(torch.rand(2).numpy() + 0.1 * generator.random(2))
            optimizer.step()
            if step % 2 == 1:
                device.checkpoint.save(step + 1, model=model, optimizer=optimizer, generator=generator)
        np.save(folder / "weights.npy", model.angles.detach().numpy())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
