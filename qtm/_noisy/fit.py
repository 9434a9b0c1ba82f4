"""Learned noise: strengths of a `TrainableNoise` from counts or expectation values of a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.primitives import BitArray
from torch import Tensor

from qtm._arguments import checked_int, checked_number, refused
from qtm._circuit.dynamic import refuse_dynamic
from qtm._circuit.observables import coerce_observables
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation, Output, Probabilities
from qtm._engines.simulation import Simulation
from qtm._errors import CircuitError, ParameterError, ShapeError
from qtm._gradients.adjoint import EngineMethod
from qtm._noise.trainable import TrainableNoise
from qtm._primitives.readout import Readout
from qtm._torch.autograd import expectation_values

_LEAST_CHANCE = 1e-12  # below it, an outcome that the model excludes does not weigh more
_FORMS = "give (circuit, counts) or (circuit, observables, values)"


@dataclass(frozen=True)
class NoiseFit:
    """Result of `fit`.

    Attributes:
        noise: the fitted noise.
        losses: the loss at every evaluation, per shot or per value: 0 where the model explains the data exactly.
    """

    noise: TrainableNoise
    losses: tuple[float, ...]

    @property
    def strengths(self) -> dict[str, float]:
        """The strengths by name."""
        return self.noise.strengths


def fit(
    noise: TrainableNoise, data: Sequence[tuple[Any, ...]], *, precision: float = 1 / 32, max_steps: int = 200
) -> NoiseFit:
    """Fit the strengths of a noise model to data of a device.

    Counts enter by their likelihood, and expectation values by their squared distance over ``precision`` squared.
    The strengths are changed in place, by L-BFGS with exact derivatives. Strengths that the circuits cannot distinguish
    remain undetermined: use circuits with different numbers of each gate, and for readout errors prepare both values of
    a bit.

    Args:
        noise: the initial strengths, changed in place.
        data: for each calibration circuit a pair (circuit, counts), with measured bits, or a triple (circuit,
            observables, values (observables,)). Counts are numbers of shots by bit string, or a ``BitArray``. All
            parameters of a circuit are bound, and its gates are those of the device.
        precision: standard deviation of the expectation values.
        max_steps: maximum number of evaluations of all circuits.

    Raises:
        ParameterError: an argument or a part of the data is unusable.
        CircuitError: a circuit has open parameters, or cannot be simulated.

    Example:
        >>> from qiskit import QuantumCircuit
        >>> circuit = QuantumCircuit(1)
        >>> _ = circuit.x(0)
        >>> result = fit(TrainableNoise({"x": "bit_flip"}), [(circuit, ["Z"], [-0.9])])
        >>> round(result.strengths["x: bit_flip p"], 6)
        0.05
    """
    if not isinstance(noise, TrainableNoise):
        raise refused("noise", "a TrainableNoise", noise, 'give qtm.TrainableNoise({"cx": "depolarizing"}), say')
    precision = checked_number(precision, "precision", "give the standard deviation of the values")
    if precision <= 0:
        raise ParameterError(f"precision must be positive, not {precision:g}")
    max_steps = checked_int(max_steps, "max_steps", "give the evaluations to make at most", least=1)
    noise.double()
    parts = [_part(noise, place, entry, precision) for place, entry in enumerate(data)]
    if not parts:
        raise ParameterError(f"data is empty; {_FORMS}")
    weight = sum(part.weight for part in parts)
    optimizer = torch.optim.LBFGS(
        [noise.raw], max_iter=max_steps, max_eval=max_steps, tolerance_grad=1e-12, tolerance_change=1e-15,
        history_size=20, line_search_fn="strong_wolfe",
    )  # fmt: skip
    losses: list[float] = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        strengths = noise.values()
        loss = torch.stack([part.loss(strengths) for part in parts]).sum() / weight
        loss.backward()
        losses.append(loss.item())
        return loss

    optimizer.step(closure)
    return NoiseFit(noise, tuple(losses))


class _Part:
    """One calibration circuit, as a function of the strengths, with its data."""

    def __init__(self, noise: TrainableNoise, circuit: QuantumCircuit, output: Output, weight: float) -> None:
        self.weight = weight
        options = Options(method="density_matrix", noise=noise.noise_map)
        self._method = EngineMethod(Simulation(circuit, noise.parameters_, output, options), 0)

    def outputs(self, strengths: Tensor) -> Tensor:
        """Values or probabilities (outputs,)."""
        return expectation_values(self._method, None, [strengths], 1, (False, True))[0]

    def loss(self, strengths: Tensor) -> Tensor:
        """The distance from the data; 0 where the model explains them exactly."""
        raise NotImplementedError


class _Values(_Part):
    def __init__(
        self, noise: TrainableNoise, circuit: QuantumCircuit, observables: Any, values: Any, precision: float
    ) -> None:
        read = coerce_observables(observables, circuit.num_qubits)
        self._seen = torch.as_tensor(np.asarray(values, float).ravel())
        if len(self._seen) != len(read) or not torch.isfinite(self._seen).all():
            raise ShapeError(f"expected {len(read)} finite values, one for each observable; got {values!r}")
        super().__init__(noise, circuit.remove_final_measurements(inplace=False), Expectation(read), len(read))
        self._scale = 0.5 / precision**2

    def loss(self, strengths: Tensor) -> Tensor:
        return self._scale * (self.outputs(strengths) - self._seen).square().sum()


class _Counts(_Part):
    def __init__(self, noise: TrainableNoise, circuit: QuantumCircuit, counts: Any) -> None:
        readout = Readout.of(circuit)
        if not readout.qubits:
            raise CircuitError(f"circuit {circuit.name!r} measures nothing, and counts were given; measure its qubits")
        shots = _outcomes(counts, circuit, readout)
        super().__init__(noise, circuit, Probabilities(readout.qubits), float(shots.sum()))
        self._shots = torch.as_tensor(shots)
        self._entropy = torch.special.entr(self._shots / self._shots.sum()).sum() * self._shots.sum()

    def loss(self, strengths: Tensor) -> Tensor:
        chances = self.outputs(strengths).clamp(min=_LEAST_CHANCE)
        return -(self._shots * chances.log()).sum() - self._entropy


def _part(noise: TrainableNoise, place: int, entry: Any, precision: float) -> _Part:
    if not isinstance(entry, tuple | list) or len(entry) not in (2, 3) or not isinstance(entry[0], QuantumCircuit):
        raise refused(f"data[{place}]", "a circuit with its data", entry, _FORMS)
    circuit = entry[0]
    if circuit.parameters:
        raise CircuitError(
            f"the circuit of data[{place}] has open parameters {[p.name for p in circuit.parameters]}; bind them with "
            "assign_parameters"
        )
    refuse_dynamic(circuit, "qtm.noise.fit")
    if len(entry) == 2:
        return _Counts(noise, circuit, entry[1])
    return _Values(noise, circuit, entry[1], entry[2], precision)


def _outcomes(counts: Any, circuit: QuantumCircuit, readout: Readout) -> np.ndarray:
    """Shots (outcomes,) by outcome of the measured qubits."""
    if isinstance(counts, BitArray):
        counts = counts.get_counts()
    if not isinstance(counts, Mapping) or not counts:
        raise refused("counts", "shots by bit string, or a BitArray", counts, "give {'00': 510, '11': 514}, say")
    place = {int(shown): outcome for outcome, shown in enumerate(readout.clbit_outcomes())}
    found = np.zeros(len(place))
    for text, shots in counts.items():
        bits = str(text).replace(" ", "")
        if len(bits) != circuit.num_clbits or set(bits) - {"0", "1"}:
            raise ParameterError(f"{text!r} is not a string of the {circuit.num_clbits} bits of {circuit.name!r}")
        if int(bits, 2) not in place:
            raise ParameterError(f"{text!r} has a 1 in a bit of {circuit.name!r} without a measurement")
        found[place[int(bits, 2)]] += checked_int(shots, "counts", "give numbers of shots", least=0)
    if not found.sum():
        raise ParameterError(f"the counts of {circuit.name!r} hold no shots")
    return found
