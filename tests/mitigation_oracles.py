"""Estimators with known distortions, and what the mitigation tests run on them."""

from __future__ import annotations

from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.primitives import DataBin, PrimitiveResult, PubResult, StatevectorEstimator
from qiskit.primitives.base import BaseEstimatorV2
from qiskit_aer.noise import NoiseModel, ReadoutError
from qiskit_ibm_runtime.fake_provider import FakeManilaV2

from qtm.mitigation import MitigatedEstimator

BACKEND = FakeManilaV2()
GATE_NOISE = NoiseModel.from_backend(BACKEND, readout_error=False)
READOUT_NOISE = NoiseModel()
for _qubit, (_p10, _p01) in enumerate([(0.02, 0.07), (0.1, 0.03), (0.05, 0.05), (0.01, 0.2), (0.03, 0.04)]):
    READOUT_NOISE.add_readout_error(ReadoutError([[1 - _p10, _p10], [_p01, 1 - _p01]]), [_qubit])


class Recorder(BaseEstimatorV2):
    """An estimator that notes each run and may distort what another one returns."""

    def __init__(self, inner: BaseEstimatorV2, distort: Any = lambda evs: evs) -> None:
        self.inner, self.distort, self.runs = inner, distort, []

    def run(self, pubs: Any, *, precision: float | None = None) -> Any:
        pubs = list(pubs)
        self.runs.append(pubs)
        results = self.inner.run(pubs, precision=precision).result()
        changed = [self.distort(r.data.evs) for r in results]
        return _Done([PubResult(_bin(e, np.zeros(e.shape))) for e in changed])


class _Done:
    def __init__(self, results: list[PubResult]) -> None:
        self._results = results

    def result(self) -> PrimitiveResult:
        return PrimitiveResult(self._results)


def _bin(evs: np.ndarray, stds: np.ndarray) -> DataBin:
    return DataBin(evs=evs, stds=stds, shape=np.shape(evs))


def ansatz(num_qubits: int = 3) -> QuantumCircuit:
    theta = ParameterVector("t", 4 * num_qubits)
    circuit = QuantumCircuit(num_qubits)
    for q in range(num_qubits):
        circuit.ry(theta[2 * q], q)
        circuit.rz(theta[2 * q + 1] * 0.5 + 0.2, q)
    for q in range(num_qubits - 1):
        circuit.cx(q, q + 1)
    for q in range(num_qubits):
        circuit.rx(theta[2 * num_qubits + 2 * q], q)
        circuit.rz(theta[2 * num_qubits + 2 * q + 1], q)
    return circuit


def points(circuit: QuantumCircuit, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1.2, 1.2, (*shape, circuit.num_parameters))


def exact(*pub: Any) -> np.ndarray:
    return StatevectorEstimator().run([pub]).result()[0].data.evs


def values(estimator: BaseEstimatorV2, *pub: Any) -> np.ndarray:
    return estimator.run([pub]).result()[0].data.evs


# What each needs to be exact on a device without noise, and how many PUBs it runs there.
ROWS: dict[str, tuple[dict[str, Any], int]] = {
    "zne": ({}, 3),
    "lre": ({"num_chunks": 3, "degree": 2}, 10),
    "cdr": ({"seed": 1, "scale_factors": (1, 3)}, 2),
    "real-time-cdr": ({"seed": 1}, 2),
    "pec": ({"noise": 1e-9, "num_samples": 5, "seed": 1}, 6),
    "rem": ({}, 3),
    "ddd": ({}, 2),
}


def no_angles() -> QuantumCircuit:
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    return circuit


class ByDepth(BaseEstimatorV2):
    """Values that are a known function of the number of cx gates, with known standard errors."""

    def __init__(self, curve: Any, std: float = 0.0) -> None:
        self.curve, self.std = curve, std

    def run(self, pubs: Any, *, precision: float | None = None) -> Any:
        evs = [np.full(pub.shape, self.curve(pub.circuit.count_ops()["cx"])) for pub in pubs]
        return _Done([PubResult(_bin(e, np.full(e.shape, self.std))) for e in evs])


def real_time(distort: Any, **options: Any) -> tuple[MitigatedEstimator, Recorder]:
    inner = Recorder(StatevectorEstimator(), distort)
    options = {"n_training_samples": 20, "min_iterations": 10, "seed": 2, **options}
    return MitigatedEstimator(inner, "real-time-cdr", **options), inner
