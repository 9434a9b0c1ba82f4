"""Burgers' equation u_t + u u_x = nu u_xx, solved by a quantum circuit from the equation alone.

    python examples/burgers.py             # one to two minutes on two cores; writes burgers.png
    python examples/burgers.py --quick

A circuit of position x and time t gives five expectation values, and a linear layer maps them to u and the slope q.
The loss is the mean square of what the equations

    q = u_x,    u_t + u q = nu q_x

leave over at random points. Its gradient is a second derivative of the circuit: with respect to the inputs, then the
weights. With u_xx it would be a third derivative; the slope as a separate output avoids that. The start
u(x, 0) = -sin(pi x) and the ends u(-1, t) = u(1, t) = 0 are built in. At the end u_xx, a second derivative
with respect to an input, is compared with q_x.
Needs: pip install -e ".[demo]"
"""

import argparse
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from torch import nn

import qtm

VISCOSITY = 0.1
QUBITS, LAYERS = 5, 6


def circuit() -> tuple[QuantumCircuit, ParameterVector, ParameterVector]:
    """Layers that load both inputs with trained scales, and turn and entangle all qubits."""
    made, inputs = QuantumCircuit(QUBITS), ParameterVector("x", 2)
    weights = ParameterVector("w", 3 * QUBITS * LAYERS)
    free = iter(weights)
    for _ in range(LAYERS):
        for q in range(QUBITS):
            made.ry(inputs[q % 2] * next(free), q)
        for q in range(QUBITS):
            made.rz(next(free), q)
            made.ry(next(free), q)
        for q in range(QUBITS):
            made.cx(q, (q + 1) % QUBITS)
    return made, inputs, weights


class Solution(nn.Module):
    """u and its slope at points (batch, 2) of x and t."""

    def __init__(self) -> None:
        super().__init__()
        made, inputs, weights = circuit()
        initial = ("normal", {"std": 1.0})
        self.quantum = qtm.QuantumModule(made, inputs, weights, variational_params_initial=initial, seed_init=1)
        self.classical = nn.Linear(QUBITS, 2)

    def forward(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, t = points.unbind(-1)
        correction, slope = self.classical(self.quantum(points)).unbind(-1)
        start, start_slope = -torch.sin(torch.pi * x), -torch.pi * torch.cos(torch.pi * x)
        return start + t * (1 - x**2) * correction, start_slope + t * slope


def derivatives(values: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Derivatives (batch, 2) of values (batch,) by x and t, which can be differentiated again."""
    return torch.autograd.grad(values.sum(), points, create_graph=True)[0]


def residuals(solution: Solution, points: torch.Tensor) -> torch.Tensor:
    """What the two equations leave over, (2, batch)."""
    u, slope = solution(points)
    (u_x, u_t), (slope_x, _) = derivatives(u, points).unbind(-1), derivatives(slope, points).unbind(-1)
    return torch.stack([u_x - slope, u_t + u * slope - VISCOSITY * slope_x])


def train(solution: Solution, steps: int, seed: int = 0) -> list[float]:
    """Adam on new random points at every step; the losses."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(solution.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for _ in range(steps):
        points = torch.rand(128, 2, generator=generator) * torch.tensor([2.0, 1.0]) - torch.tensor([1.0, 0.0])
        loss = residuals(solution, points.requires_grad_()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def exact(x: np.ndarray, t: float) -> np.ndarray:
    """Cole's and Hopf's solution by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite.hermgauss(60)
    y = x[:, None] - nodes * np.sqrt(4 * VISCOSITY * t)
    heat = weights * np.exp(-np.cos(np.pi * y) / (2 * np.pi * VISCOSITY))
    return -(heat * np.sin(np.pi * y)).sum(1) / heat.sum(1)


def second_derivative(solution: Solution, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """u_xx, by differentiating the circuit twice, and q_x, which it should be."""
    points = points.clone().requires_grad_()
    u, slope = solution(points)
    slope_x = derivatives(slope, points)[:, 0].detach()
    return torch.autograd.grad(derivatives(u, points)[:, 0].sum(), points)[0][:, 0], slope_x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it runs")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of the plot")
    options = parser.parse_args()

    torch.manual_seed(0)
    solution, began = Solution(), time.perf_counter()
    losses = train(solution, 40 if options.quick else 2000)
    x, times = np.linspace(-1, 1, 101), (0.25, 0.5, 1.0)
    grid = [torch.tensor(np.stack([x, np.full_like(x, t)], 1), dtype=torch.float32) for t in times]
    found = [solution(points)[0].detach().numpy() for points in grid]
    worst = max(np.abs(f - exact(x, t)).max() for f, t in zip(found, times, strict=True))
    twice, slope = second_derivative(solution, grid[1])
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.1e} in {time.perf_counter() - began:.0f} s; largest error {worst:.3f}")

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
    left.semilogy(losses, color="#2a5ea8", lw=0.8)
    left.set(xlabel="step", ylabel="mean square residual", title="Training")
    middle.plot(x, -np.sin(np.pi * x), ":", color="grey", label="t = 0")
    for colour, t, u in zip(("#2a5ea8", "#c8372d", "#3a8a4d"), times, found, strict=True):
        middle.plot(x, exact(x, t), color=colour, lw=3, alpha=0.3)
        middle.plot(x, u, "--", color=colour, label=f"t = {t}")
    middle.set(xlabel="x", ylabel="u", title=f"Circuit (dashed) and exact: largest error {worst:.3f}")
    right.plot(x, slope, color="#c9a227", lw=3, alpha=0.5, label="derivative of the slope")
    right.plot(x, twice, "k--", lw=1, label="second derivative of u")
    right.set(xlabel="x", title="u_xx at t = 0.5, by differentiating twice")
    for axes in (middle, right):
        axes.legend(frameon=False, fontsize="small")
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "burgers.png", dpi=150)


if __name__ == "__main__":
    main()
