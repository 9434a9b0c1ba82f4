"""Every way in which circuits reach Aer: all parametrised gates are bound, and keep the noise that is on them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Gate, ParameterVector
from qiskit.circuit.library import (
    MCPhaseGate,
    PauliEvolutionGate,
    PhaseGate,
    RXXGate,
    RYGate,
    get_standard_gate_name_mapping,
)
from qiskit.primitives import BaseEstimatorV2, StatevectorEstimator
from qiskit.quantum_info import DensityMatrix, SparsePauliOp, SuperOp

from qtm import (
    CircuitError,
    EstimatorQNN,
    FastEstimator,
    MitigatedEstimator,
    QuantumModule,
    SamplerQNN,
    hardware,
    noisy_estimator,
)
from qtm._primitives.aer_circuits import circuit_for

pytest.importorskip("qiskit_aer")
import torch
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel, depolarizing_error
from qiskit_aer.primitives import EstimatorV2 as AerEstimator
from qiskit_aer.primitives import SamplerV2 as AerSampler

P = ParameterVector("p", 4)
STRENGTH = 0.2  # of the depolarizing error on the gate


def _standard() -> dict[str, Gate]:
    """Every gate of Qiskit's standard library that has parameters and acts on something."""
    gates = {n: g for n, g in get_standard_gate_name_mapping().items() if isinstance(g, Gate)}
    return {n: type(g)(*P[: len(g.params)]) for n, g in gates.items() if g.params and g.num_qubits}


def _composite() -> Gate:
    inner = QuantumCircuit(2, name="layer")
    inner.cp(P[0], 0, 1)
    inner.crx(2 * P[1], 1, 0)
    return inner.to_gate()


GATES: dict[str, Gate] = {
    **_standard(),
    "mcphase": MCPhaseGate(P[0] + P[1], 2),
    "mcphase of one control": MCPhaseGate(P[0], 1),
    "ccp": PhaseGate(P[0]).control(2),
    "ccry": RYGate(P[0]).control(2),
    "crxx": RXXGate(P[0]).control(1),
    "evolution": PauliEvolutionGate(SparsePauliOp(["XX", "ZZ"]), P[0]),
    "layer": _composite(),
    "controlled layer": _composite().control(1),
    "open cp": PhaseGate(P[0] * 2).control(1, ctrl_state=0),
    "open mcphase": MCPhaseGate(P[0], 2, ctrl_state=1),
    "open ccry": RYGate(P[0]).control(2, ctrl_state=2),
    "labelled cp": PhaseGate(P[0]).control(1, label="noisy"),
}
each_gate = pytest.mark.parametrize("name", GATES)


def circuit_of(name: str) -> QuantumCircuit:
    gate = GATES[name]
    circuit = QuantumCircuit(gate.num_qubits)
    for q in range(gate.num_qubits):
        circuit.ry(0.4 + 0.3 * q, q)
    circuit.barrier()
    circuit.append(gate, range(gate.num_qubits))
    for q in range(gate.num_qubits):
        circuit.rx(0.5 + 0.2 * q, q)
    return circuit


def name_for_noise(gate: Gate) -> str:
    """By what Aer looks for the errors of a gate: its label, else its name without the state of the controls."""
    return gate.label or gate.name.split("_o")[0]


def noise_on(gate: Gate) -> NoiseModel:
    model = NoiseModel(basis_gates=AerSimulator(method="density_matrix").configuration().basis_gates)
    model.add_all_qubit_quantum_error(depolarizing_error(STRENGTH, gate.num_qubits), name_for_noise(gate))
    return model


def values_for(circuit: QuantumCircuit, sets: int = 3) -> np.ndarray:
    return np.random.default_rng(5).uniform(-3, 3, (sets, circuit.num_parameters))


def labels_of(circuit: QuantumCircuit) -> list[str]:
    n = circuit.num_qubits
    return ["Z" * n, "I" * (n - 1) + "Z", "X" + "I" * (n - 1), "Y" * n]


def state(circuit: QuantumCircuit, gate: Gate, values: np.ndarray, noisy: bool) -> DensityMatrix:
    """The state after the circuit, with the depolarizing error after the gate; Qiskit alone."""
    out = DensityMatrix.from_label("0" * circuit.num_qubits)
    for item, bound in zip(circuit.data, circuit.assign_parameters(values).data, strict=True):
        qubits = [circuit.find_bit(q).index for q in item.qubits]
        if item.name != "barrier":
            out = out.evolve(bound.operation, qubits)
        if noisy and item.name == gate.name:
            out = out.evolve(SuperOp(depolarizing_error(STRENGTH, gate.num_qubits)), qubits)
    return out


def expected(name: str, noisy: bool) -> np.ndarray:
    """Expectation values (sets, observables)."""
    circuit = circuit_of(name)
    states = [state(circuit, GATES[name], row, noisy) for row in values_for(circuit)]
    return np.array([[s.expectation_value(SparsePauliOp(o)).real for o in labels_of(circuit)] for s in states])


def aer(noise: NoiseModel | None, method: str = "density_matrix") -> AerEstimator:
    return AerEstimator(options={"backend_options": {"method": method, "noise_model": noise}})


def by_pub(estimator: BaseEstimatorV2, circuit: QuantumCircuit) -> np.ndarray:
    pub = (circuit, [[o] for o in labels_of(circuit)], values_for(circuit))
    return estimator.run([pub]).result()[0].data.evs.T


def by_module(estimator: BaseEstimatorV2, circuit: QuantumCircuit, gradient: Any = "param-shift") -> np.ndarray:
    settings = {"observables": labels_of(circuit), "estimator": estimator, "gradient": gradient}
    model = QuantumModule(circuit, list(circuit.parameters), [], **settings).double()
    return model(torch.from_numpy(values_for(circuit))).detach().numpy()


def by_qnn(estimator: BaseEstimatorV2, circuit: QuantumCircuit) -> np.ndarray:
    settings = {"observables": labels_of(circuit), "estimator": estimator, "default_precision": 0.0}
    return EstimatorQNN(circuit=circuit, input_params=circuit.parameters, **settings).forward(values_for(circuit), [])


class Hidden(BaseEstimatorV2):
    """An estimator of the user's own, which holds one of Aer's."""

    def __init__(self, estimator: AerEstimator) -> None:
        self._mine = estimator

    def run(self, pubs: Any, *, precision: float | None = None) -> Any:
        return self._mine.run(pubs, precision=precision)


IDEAL_READOUT = {q: np.eye(2) for q in range(4)}
EXACT = {
    "module": lambda circuit, noise: by_module(aer(noise), circuit),
    "module, spsa": lambda circuit, noise: by_module(aer(noise), circuit, "spsa"),
    "noisy_estimator": lambda circuit, noise: by_pub(noisy_estimator(noise or NoiseModel()), circuit),
    "mitigated": lambda circuit, noise: by_pub(MitigatedEstimator(aer(noise), "rem", confusion=IDEAL_READOUT), circuit),
    "EstimatorQNN": lambda circuit, noise: by_qnn(aer(noise), circuit),
}
# Parameter shift writes these in gates that it can shift, so it refuses errors of the whole.
WITHOUT_RULE = {name for name in GATES if name not in _standard()} - {"open cp", "labelled cp"}


def refusal(name: str) -> str:
    return re.escape(f"error for '{name_for_noise(GATES[name])}', and parameter shift")


@pytest.mark.parametrize("noisy", [False, True], ids=["ideal", "noisy"])
@pytest.mark.parametrize("way", EXACT)
@each_gate
@pytest.mark.thinned(19)
def test_values_are_those_of_the_bound_circuit(name: str, way: str, noisy: bool) -> None:
    circuit = circuit_of(name)
    noise = noise_on(GATES[name]) if noisy else None
    if noisy and way in ("module", "EstimatorQNN") and name in WITHOUT_RULE:
        with pytest.raises(CircuitError, match=refusal(name)):
            EXACT[way](circuit, noise)
    else:
        np.testing.assert_allclose(EXACT[way](circuit, noise), expected(name, noisy), atol=1e-9)


SHIFTED = {
    "aer": lambda noise: aer(noise),
    "model in the run options": lambda noise: AerEstimator(options={"run_options": {"noise_model": noise}}),
    "noisy_estimator": lambda noise: noisy_estimator(noise),
    "hidden": lambda noise: Hidden(aer(noise)),
    "mitigated": lambda noise: MitigatedEstimator(noisy_estimator(noise), "rem", confusion=IDEAL_READOUT),
    "FastEstimator": lambda noise: FastEstimator(noise=noise),
}


@pytest.mark.thinned(12)
@pytest.mark.parametrize("way", SHIFTED)
@pytest.mark.parametrize("name", sorted(WITHOUT_RULE))
def test_parameter_shift_leaves_no_noise_out(name: str, way: str) -> None:
    noise = noise_on(GATES[name])
    with pytest.raises(CircuitError, match=refusal(name)):
        by_module(SHIFTED[way](noise), circuit_of(name))


def test_parameter_shift_of_a_sampler_leaves_no_noise_out() -> None:
    sampler = AerSampler(options={"backend_options": {"noise_model": noise_on(GATES["mcphase"])}})
    qnn = SamplerQNN(circuit=circuit_of("mcphase"), weight_params=P[:2], sampler=sampler)
    with pytest.raises(CircuitError, match="error for 'mcphase', and parameter shift"):
        qnn.backward(None, [0.1, 0.2])


@pytest.mark.parametrize("name", ["cp", "crx", "cu", "open cp", "mcphase"])
@pytest.mark.parametrize("wrap", [Hidden, lambda e: MitigatedEstimator(e, "rem", confusion=IDEAL_READOUT)])
def test_modules_around_wrappers_of_aer(name: str, wrap: Any) -> None:
    found = by_module(wrap(aer(None, "automatic")), circuit_of(name))
    np.testing.assert_allclose(found, expected(name, False), atol=1e-9)


SHOTS = 20_000


@pytest.mark.parametrize("noisy", [False, True], ids=["ideal", "noisy"])
@pytest.mark.parametrize("name", ["cp", "crx", "cry", "crz", "cu", "cu1", "cu3", "rzz", "open cp"])
@pytest.mark.thinned(25)
def test_sampled_probabilities_are_those_of_the_bound_circuit(name: str, noisy: bool) -> None:
    circuit, gate = circuit_of(name), GATES[name]
    options = {"method": "density_matrix", "noise_model": noise_on(gate) if noisy else None}
    sampler = AerSampler(default_shots=SHOTS, seed=11, options={"backend_options": options})
    found = SamplerQNN(circuit=circuit, input_params=circuit.parameters, sampler=sampler).forward(
        values_for(circuit), []
    )
    exact = np.array([state(circuit, gate, row, noisy).probabilities() for row in values_for(circuit)])
    np.testing.assert_allclose(found, exact, atol=5 / np.sqrt(SHOTS))


@pytest.mark.parametrize("kind", ["executor", "v2"])
@pytest.mark.parametrize("name", ["cp", "crx", "cry", "crz", "cu"])
@pytest.mark.filterwarnings("ignore")
@pytest.mark.thinned(10)
def test_a_connection_to_an_aer_simulator_binds_every_gate(name: str, kind: str) -> None:
    circuit = circuit_of(name)
    with hardware.connect(AerSimulator(), estimator=kind, shots=SHOTS, seed_simulator=3) as device:
        found = by_pub(device.estimator, circuit)
    np.testing.assert_allclose(found, expected(name, False), atol=6 / np.sqrt(SHOTS))


def test_a_circuit_with_nothing_to_rewrite_is_handed_over_as_it_is() -> None:
    circuit = circuit_of("rzz")
    assert circuit_for(aer(None), circuit) is circuit
    assert circuit_for(StatevectorEstimator(), circuit_of("cp")).count_ops()["cp"] == 1
