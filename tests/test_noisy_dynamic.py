"""Noise in dynamic circuits against a walk over all branches with Qiskit's DensityMatrix; conditional outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from circuit_cases import differences
from qiskit import QuantumCircuit
from qiskit.circuit import Clbit, ForLoopOp, IfElseOp, Measure, Parameter, Reset, SwitchCaseOp
from qiskit.circuit.controlflow import CASE_DEFAULT
from qiskit.quantum_info import DensityMatrix, Kraus, Operator, Pauli, SparsePauliOp, SuperOp
from test_dynamic import (
    CASES,
    PROJECTORS,
    a_bit_that_is_measured_twice,
    bound,
    if_else,
    loops,
    registers,
    resets,
    teleportation,
)
from test_dynamic import oracle as noiseless
from test_noise_option import AerSimulator, aer_noise

import qtm
from qtm._circuit.conditions import value_of

ONE = aer_noise.depolarizing_error(0.05, 1).compose(aer_noise.amplitude_damping_error(0.1))
TWO = aer_noise.depolarizing_error(0.1, 2)
AFTER_RESET = aer_noise.pauli_error([("X", 0.07), ("I", 0.93)])
READ_1_FOR_0, READ_0_FOR_1 = 0.1, 0.2
Branch = tuple[DensityMatrix, dict[Clbit, int]]  # not normalised


def model(readout: bool = True) -> Any:
    made = aer_noise.NoiseModel()
    made.add_all_qubit_quantum_error(ONE, ["u", "h", "x", "z", "rx", "ry"])
    made.add_all_qubit_quantum_error(TWO, ["cx", "cry", "rzz"])
    made.add_all_qubit_quantum_error(AFTER_RESET, ["reset"])
    if readout:
        made.add_all_qubit_readout_error([[1 - READ_1_FOR_0, READ_1_FOR_0], [READ_0_FOR_1, 1 - READ_0_FOR_1]])
    return made


def branches(
    block: QuantumCircuit, start: list[Branch], qubits: list[int], clbits: list[Clbit], readout: bool
) -> list[Branch]:
    place = dict(zip(block.qubits, qubits, strict=True))
    bit = dict(zip(block.clbits, clbits, strict=True))
    for instruction in block.data:
        own = [place[q] for q in instruction.qubits]
        bits = [bit[c] for c in instruction.clbits]
        start = [b for branch in start for b in after(instruction.operation, branch, own, bits, readout)]
    return start


def seen(outcome: int, readout: bool) -> list[tuple[int, float]]:
    """What an outcome is read as, and how likely."""
    wrong = (READ_1_FOR_0, READ_0_FOR_1)[outcome] if readout else 0.0
    return [(outcome, 1 - wrong), (1 - outcome, wrong)]


def after(operation: Any, branch: Branch, qubits: list[int], clbits: list[Clbit], readout: bool) -> Iterator[Branch]:
    state, values = branch
    if isinstance(operation, Measure | Reset):
        for outcome, projector in enumerate(PROJECTORS):
            found = state.evolve(Kraus([projector]), qubits)
            if isinstance(operation, Reset):
                found = found.evolve(Operator.from_label("X"), qubits) if outcome else found
                yield found.evolve(SuperOp(AFTER_RESET), qubits), values
                continue
            for read, chance in seen(outcome, readout):
                yield DensityMatrix(found.data * chance), values | {clbits[0]: read}
    elif isinstance(operation, IfElseOp):
        target, wanted = operation.condition if isinstance(operation.condition, tuple) else (operation.condition, 1)
        chosen = operation.blocks[0 if value_of(target, values) == wanted else 1 :][:1]
        yield from branches(chosen[0], [branch], qubits, clbits, readout) if chosen else [branch]
    elif isinstance(operation, SwitchCaseOp):
        value = value_of(operation.target, values)
        found = [b for v, b in operation.cases_specifier() if value in v or CASE_DEFAULT in v]
        yield from branches(found[0], [branch], qubits, clbits, readout) if found else [branch]
    elif isinstance(operation, ForLoopOp):
        indices, parameter, body = operation.params
        here = [branch]
        for index in indices:
            turn = body if parameter is None else body.assign_parameters({parameter: index})
            here = branches(turn, here, qubits, clbits, readout)
        yield from here
    elif clbits:
        yield from branches(operation.definition, [branch], qubits, clbits, readout)
    else:
        error = SuperOp(ONE if len(qubits) == 1 else TWO)
        yield state.evolve(Operator(operation), qubits).evolve(error, qubits), values


def oracle(circuit: QuantumCircuit, readout: bool = True) -> list[Branch]:
    start = [(DensityMatrix.from_label("0" * circuit.num_qubits), dict.fromkeys(circuit.clbits, 0))]
    return branches(circuit, start, list(range(circuit.num_qubits)), list(circuit.clbits), readout)


def observables(circuit: QuantumCircuit) -> list[SparsePauliOp]:
    return [SparsePauliOp(letter * circuit.num_qubits) for letter in "ZXY"] + [
        SparsePauliOp("I" * (circuit.num_qubits - 1) + letter) for letter in "XZ"
    ]


@pytest.mark.parametrize("build", CASES)
@pytest.mark.thinned(9)
def test_expectation_values_under_noise(build: Callable[[], QuantumCircuit]) -> None:
    """Errors of conditional gates strike where the condition holds, and nowhere else."""
    circuit = build()
    ready, values = bound(circuit)
    wanted = [sum(s.expectation_value(o).real for s, _ in oracle(ready, False)) for o in observables(circuit)]
    pub = (circuit, observables(circuit), values)
    found = qtm.FastEstimator(noise=model(readout=False)).run([pub]).result()[0].data.evs
    np.testing.assert_allclose(found, wanted, atol=1e-10)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("build", CASES)
def test_probabilities_of_bits_with_readout_errors(build: Callable[[], QuantumCircuit]) -> None:
    """A bit that is read wrong also decides wrong."""
    circuit = build()
    ready, values = bound(circuit)
    wanted = np.zeros(1 << circuit.num_clbits)
    for state, bits in oracle(ready):
        wanted[sum(bits[bit] << place for place, bit in enumerate(circuit.clbits))] += state.trace().real
    found = qtm.FastSampler(noise=model()).probabilities(circuit, values)
    np.testing.assert_allclose(found, wanted, atol=1e-10)


def test_gates_in_blocks_are_translated_to_those_of_the_model() -> None:
    circuit = QuantumCircuit(1, 1)
    circuit.sx(0)
    circuit.measure(0, 0)
    with circuit.if_test((0, 1)):
        circuit.h(0)
    noise = aer_noise.NoiseModel(basis_gates=["rz", "sx", "x"])
    noise.add_all_qubit_quantum_error(aer_noise.pauli_error([("Z", 0.2), ("I", 0.8)]), ["sx"])
    # h is rz sx rz up to a phase, and so one error after it: X is 0.6 of what it was in half of all cases
    found = qtm.FastEstimator(noise=noise).run([(circuit, "X")]).result()[0].data.evs
    assert abs(found + 0.5 * 0.6) < 1e-10


@pytest.mark.parametrize("build", [if_else, loops])
@pytest.mark.slow
def test_derivatives_under_noise(build: Callable[[], QuantumCircuit]) -> None:
    circuit = build()
    net = qtm.QuantumModule(circuit, None, list(circuit.parameters), noise=model(), seed_init=0).double()
    net().sum().backward()
    weights = net.variational

    def value(rows: np.ndarray) -> np.ndarray:
        found = []
        for row in rows:
            with torch.no_grad():
                weights.copy_(torch.tensor(row))
                found.append(float(net().sum()))
        return np.array(found)[:, None]

    wanted = differences(value, weights.detach().numpy()[None].copy())[0, 0]
    np.testing.assert_allclose(weights.grad, wanted, atol=1e-8)


def test_trained_noise_in_a_dynamic_circuit() -> None:
    circuit = resets()
    ready, values = bound(circuit)
    trained = qtm.TrainableNoise({"ry": "depolarizing", "cry": "two_qubit_depolarizing"}, readout=True).double()
    net = qtm.QuantumModule(circuit, None, list(circuit.parameters), noise=trained, observables=["ZZ", "IZ"]).double()
    with torch.no_grad():
        net.variational.copy_(torch.tensor(values))
    same = qtm.FastEstimator(noise=trained.to_noise_model()).run([(ready, ["ZZ", "IZ"])]).result()[0].data.evs
    np.testing.assert_allclose(net().detach(), same, atol=1e-9)


@pytest.mark.slow
def test_noisy_estimator_reads_wrong_inside_of_the_circuit() -> None:
    """Aer's shots of the same circuit: the bit decides, with its readout error."""
    circuit = QuantumCircuit(2, 1)
    circuit.ry(0.9, 0)
    circuit.measure(0, 0)
    with circuit.if_test((0, 1)):
        circuit.x(1)
    estimator = qtm.noisy_estimator(model())
    result = estimator.run([(circuit, ["ZI", "IZ"])]).result()[0]
    assert result.metadata["simulator"] == "qtm"
    shots = 100_000
    measured = circuit.copy()
    measured.measure_all()
    counts = AerSimulator(noise_model=model()).run(measured, shots=shots, seed_simulator=1).result().get_counts()
    wanted = np.zeros(2)
    for text, count in counts.items():
        wanted += count / shots * (1 - 2 * np.array([int(bit) for bit in text.split()[0]]))
    np.testing.assert_allclose(result.data.evs, wanted, atol=5 / np.sqrt(shots))


def conditional(circuit: QuantumCircuit, given: dict[int, int], noisy: bool) -> tuple[list[float], float]:
    """Values and probability from the branches that agree."""
    if noisy:
        found = [b for b in oracle(circuit) if all(b[1][circuit.clbits[c]] == v for c, v in given.items())]
    else:
        pure = noiseless(circuit)
        found = [(DensityMatrix(s), b) for s, b in pure if all(b[circuit.clbits[c]] == v for c, v in given.items())]
    chance = sum(state.trace().real for state, _ in found)
    return [sum(s.expectation_value(o).real for s, _ in found) / chance for o in observables(circuit)], chance


@pytest.mark.parametrize("given", [{0: 0}, {0: 1, 1: 0}])
@pytest.mark.parametrize("build", [if_else, teleportation, registers, a_bit_that_is_measured_twice])
def test_conditional_values(build: Callable[[], QuantumCircuit], given: dict[int, int]) -> None:
    circuit = build()
    given = {bit: value for bit, value in given.items() if bit < circuit.num_clbits}
    ready, values = bound(circuit)
    wanted, chance = conditional(ready, given, noisy=False)
    net = qtm.PostSelectedModule(
        circuit, None, list(circuit.parameters), given=given, observables=observables(circuit)
    ).double()  # fmt: skip
    with torch.no_grad():
        net.variational.copy_(torch.tensor(values))
    np.testing.assert_allclose(net().detach(), wanted, atol=1e-9)
    np.testing.assert_allclose(net.probability().detach(), chance, atol=1e-10)
    assert net.output_size == len(wanted)
    assert torch.autograd.gradcheck(
        lambda w: torch.func.functional_call(net, {"variational": w}, ()), (net.variational,), atol=1e-6
    )


@pytest.mark.slow
def test_conditional_values_under_noise() -> None:
    circuit = if_else()
    ready, values = bound(circuit)
    noise = model()
    with torch.no_grad():
        net = qtm.PostSelectedModule(
            circuit, None, list(circuit.parameters), given={0: 1}, observables=["III"], noise=noise
        ).double()  # fmt: skip
        net.variational.copy_(torch.tensor(values))
        wanted, chance = conditional(ready, {0: 1}, noisy=True)
        np.testing.assert_allclose(net.probability(), chance, atol=1e-10)
        plain = model(readout=False)
        net = qtm.PostSelectedModule(
            circuit, None, list(circuit.parameters), given={circuit.clbits[0]: 1}, observables=["XYZ", "IIZ"],
            noise=plain,
        ).double()  # fmt: skip
        net.variational.copy_(torch.tensor(values))
    found = [b for b in oracle(ready, False) if b[1][ready.clbits[0]]]
    chance = sum(state.trace().real for state, _ in found)
    wanted = [sum(s.expectation_value(Pauli(o)).real for s, _ in found) / chance for o in ("XYZ", "IIZ")]
    np.testing.assert_allclose(net().detach(), wanted, atol=1e-9)


def test_batches_of_inputs_and_a_final_measurement() -> None:
    """A measured qubit is not what it was before: X of it vanishes, whatever its bit reads."""
    circuit = QuantumCircuit(1, 1)
    t = Parameter("t")
    circuit.ry(t, 0)
    circuit.measure(0, 0)
    net = qtm.PostSelectedModule(circuit, [t], [], given={0: 1}, observables=["X", "Z"]).double()
    inputs = torch.tensor([[[0.4]], [[1.3]]], dtype=torch.float64)
    torch.testing.assert_close(net(inputs), torch.tensor([[[0.0, -1.0]]], dtype=torch.float64).expand(2, 1, 2))
    torch.testing.assert_close(net.probability(inputs), torch.sin(inputs[..., 0] / 2) ** 2)


def test_conditions_that_make_no_sense_are_refused() -> None:
    circuit = QuantumCircuit(1, 2)
    circuit.measure(0, 0)
    build = partial(qtm.PostSelectedModule, circuit, None, [])
    for given, message in (
        ({}, "what bits read"),
        ({2: 1}, "bit of the circuit"),
        ({0: 2}, "0 or 1"),
        ({1: 1}, "is always 0"),
    ):
        with pytest.raises(qtm.ParameterError, match=message):
            build(given=given)
    with pytest.raises(qtm.CircuitError, match="condition has probability 0"):
        build(given={0: 1})()
    with pytest.raises(qtm.UnsupportedError, match="estimator"):
        build(given={0: 1}, estimator=qtm.FastEstimator())
    with pytest.raises(qtm.UnsupportedError, match="to_noise_model"):
        build(given={0: 1}, noise=qtm.TrainableNoise({"x": "bit_flip"}))
