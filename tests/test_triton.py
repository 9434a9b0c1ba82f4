"""The Triton engine: against Qiskit's states, in tiles and whole, in Triton's interpreter where there is no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from circuit_cases import UNITARY, differences, expectation_values, random_circuit, random_observables
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import efficient_su2, real_amplitudes, zz_feature_map
from qiskit.quantum_info import SparsePauliOp, Statevector

import qtm
from qtm._circuit.causal_cone import ConeProgram
from qtm._circuit.observables import coerce_observables
from qtm._circuit.pauli_program import lower
from qtm._engines import registry
from qtm._engines.options import Options
from qtm._engines.registry import choose
from qtm._engines.simulation import Simulation
from qtm._engines.statevector import cone_groups
from qtm._engines.triton_statevector import launch
from qtm._engines.triton_statevector.engine import TritonStateVector
from qtm._engines.triton_statevector.schedule import MAX_SUMS, schedule
from qtm._gradients import adjoint
from qtm._torch.autograd import common_device
from qtm.circuits import amplitude_encoding
from qtm.engines import Expectation, Probabilities, State

if (REFUSAL := launch.refusal()) is not None:
    pytest.skip(f"method 'triton' {REFUSAL}", allow_module_level=True)

# What the issue asks of each precision; derivatives add up more terms.
TOLERANCE = {"complex64": 1e-5, "complex128": 1e-9}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

each_dtype = pytest.mark.parametrize("dtype", TOLERANCE)


def simulation(made, output, dtype="complex128", tile_bits=11, **options) -> Simulation:
    return Simulation(
        made, list(made.parameters), output, Options(dtype, 1, method=TritonStateVector(tile_bits), **options)
    )


def on_cpu(made, output, dtype="complex128") -> Simulation:
    return Simulation(made, list(made.parameters), output, Options(dtype, 1))


def values(made, batch, seed=3) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-np.pi, np.pi, (batch, made.num_parameters))


def arguments(simulated, at):
    """Angles and prepared amplitudes on the GPU, if there is one."""
    angles, prepared = simulated.arguments(at)
    return angles.to(DEVICE), [p.to(DEVICE) for p in prepared]


def expectation(made, seed=0, extra=()) -> Expectation:
    n = made.num_qubits
    return Expectation(coerce_observables([*random_observables(seed, n), *extra], n))


def ising(n: int) -> SparsePauliOp:
    pairs = [("ZZ", [q, q + 1], 0.7) for q in range(n - 1)]
    return SparsePauliOp.from_sparse_list([*pairs, *(("X", [q], 0.4) for q in range(n))], n)


# Values and derivatives


@pytest.mark.slow
@each_dtype
@pytest.mark.parametrize(("n", "tile_bits"), [(5, 3), (6, 2), (7, 5), (8, 6), (8, 11)])
def test_tiles_agree_with_qiskit(n, tile_bits, dtype):
    made = random_circuit(n, n, 16, UNITARY)
    at = values(made, 2)
    simulated = simulation(made, expectation(made, n), dtype, tile_bits)
    expected = expectation_values(made, list(made.parameters), at, random_observables(n, n))
    np.testing.assert_allclose(simulated.values(at), expected, atol=TOLERANCE[dtype])
    angles, prepared = arguments(simulated, at)
    cotangent = torch.from_numpy(np.random.default_rng(4).normal(size=expected.shape)).to(DEVICE)
    found, kept = simulated.engine.forward(angles, prepared, keep=True)
    assert found.device == angles.device
    gradient, _ = simulated.engine.vjp(angles, prepared, cotangent, kept)
    reference = on_cpu(made, expectation(made, n))
    slope = reference.engine.vjp(angles.cpu(), [p.cpu() for p in prepared], cotangent.cpu())[0]
    np.testing.assert_allclose(gradient.cpu(), slope, atol=10 * TOLERANCE[dtype])
    again, _ = simulated.engine.vjp(angles, prepared, cotangent)
    torch.testing.assert_close(again, gradient, atol=10 * TOLERANCE[dtype], rtol=0)


@each_dtype
@pytest.mark.parametrize("make", [efficient_su2, real_amplitudes])
@pytest.mark.parametrize("n", [6, pytest.param(7, marks=pytest.mark.slow)])
@pytest.mark.thinned(4)
def test_programs_of_one_tile_as_on_a_gpu(monkeypatch, n, make, dtype):
    """In the interpreter a program holds many tiles; on a GPU it is one, and what is the same for all is a scalar."""
    monkeypatch.setitem(launch._PROGRAM_BITS, "cpu", launch._PROGRAM_BITS["cuda"])
    made = make(n, reps=1)
    at = values(made, n - 5)
    simulated = simulation(made, expectation(made, 8), dtype, 6)
    angles, prepared = arguments(simulated, at)
    found, kept = simulated.engine.forward(angles, prepared, keep=True)
    cotangent = torch.ones_like(found)
    reference = on_cpu(made, expectation(made, 8))
    np.testing.assert_allclose(found.cpu(), reference.values(at), atol=TOLERANCE[dtype])
    gradient, _ = simulated.engine.vjp(angles, prepared, cotangent, kept)
    slope = reference.engine.vjp(angles.cpu(), [p.cpu() for p in prepared], cotangent.cpu())[0]
    np.testing.assert_allclose(gradient.cpu(), slope, atol=10 * TOLERANCE[dtype])
    (batch,) = next(iter(simulated.engine._compiled.values())).batches
    assert batch.sweeps.unit_bits == 0


@pytest.fixture
def unset_memory_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("tile_bits", [2, 11])
def test_every_sum_is_written(tile_bits, unset_memory_is_nan):
    """Of sums by tile and derivatives, which are not set before; strings that are zero anyway are no sum."""
    assert torch.empty(1).isnan()
    made = real_amplitudes(3, reps=1)
    output = expectation(made, 1, ["YII", "ZZZ"])
    angles, prepared = arguments(simulation(made, output), values(made, 2))
    engine = simulation(made, output, tile_bits=tile_bits).engine
    found, kept = engine.forward(angles, prepared, keep=True)
    assert not found.isnan().any() and not engine.vjp(angles, prepared, found, kept)[0].isnan().any()


@pytest.mark.slow
def test_derivatives_agree_with_finite_differences():
    made = random_circuit(2, 5, 16, UNITARY)
    simulated = simulation(made, expectation(made), tile_bits=3)
    angles, prepared = simulated.arguments(values(made, 1))
    cotangent = torch.from_numpy(np.random.default_rng(4).normal(size=(1, 3)))
    slopes = differences(lambda a: simulated.engine.forward(torch.from_numpy(a), prepared)[0].numpy(), angles.numpy())
    gradient = simulated.engine.vjp(angles, prepared, cotangent)[0]
    np.testing.assert_allclose(gradient, np.einsum("bm,bmk->bk", cotangent, slopes), atol=1e-7)


@pytest.mark.thinned(4)
@each_dtype
@pytest.mark.parametrize("tile_bits", [3, 11])
def test_real_states_have_one_part(tile_bits, dtype):
    """A circuit without phases is real, and strings with an odd number of Y are zero there."""
    made = real_amplitudes(5, reps=2)
    extra = ["YIIII", "YYIZI", "XXIIZ"]
    simulated = simulation(made, expectation(made, 1, extra), dtype, tile_bits)
    at = values(made, 3)
    angles, prepared = arguments(simulated, at)
    cotangent = torch.ones(3, 6, dtype=torch.float64, device=DEVICE)
    observables = [*random_observables(1, 5), *map(SparsePauliOp, extra)]
    expected = expectation_values(made, list(made.parameters), at, observables)
    np.testing.assert_allclose(simulated.values(at), expected, atol=TOLERANCE[dtype])
    slope = on_cpu(made, expectation(made, 1, extra)).engine.vjp(angles.cpu(), [], cotangent.cpu())[0]
    found = simulated.engine.vjp(angles, prepared, cotangent)[0].cpu()
    np.testing.assert_allclose(found, slope, atol=10 * TOLERANCE[dtype])
    (batch,) = next(iter(simulated.engine._compiled.values())).batches
    assert not batch.plan.is_complex and batch.sweeps.parts == 1


@pytest.mark.thinned(8)
@each_dtype
@pytest.mark.parametrize("tile_bits", [3, 11])
@pytest.mark.parametrize("batch", [1, 3])
def test_cones_share_a_batch(monkeypatch, batch, tile_bits, dtype):
    """Bonds of a line of 12 qubits have small cones, many of them equal: rows of one batch."""
    monkeypatch.setattr(cone_groups, "_WORTH_MERGING", 0.0)
    made = QuantumCircuit(12)
    angle = iter(ParameterVector("t", 36))
    for q in range(12):
        made.ry(next(angle), q)
    for q in range(11):
        made.rzz(next(angle), q, q + 1)
    observables = [ising(12), SparsePauliOp.from_sparse_list([("ZXZ", [4, 5, 6], 1.5)], 12)]
    output = Expectation(coerce_observables(observables, 12))
    simulated = simulation(made, output, dtype, tile_bits)
    at = values(made, batch)
    expected = expectation_values(made, list(made.parameters), at, observables)
    np.testing.assert_allclose(simulated.values(at), expected, atol=2 * TOLERANCE[dtype])
    batches = next(iter(simulated.engine._compiled.values())).batches
    assert sum(len(b.cones) for b in batches) > len(batches) and max(b.plan.num_bits for b in batches) < 8
    angles, prepared = arguments(simulated, at)
    cotangent = torch.tensor([[1.0, -0.5]], dtype=torch.float64, device=DEVICE).expand(batch, -1)
    slope = on_cpu(made, output).engine.vjp(angles.cpu(), [], cotangent.cpu().contiguous())[0]
    found = simulated.engine.vjp(angles, prepared, cotangent)[0].cpu()
    np.testing.assert_allclose(found, slope, atol=20 * TOLERANCE[dtype])


def states_of(made, at) -> np.ndarray:
    parameters = list(made.parameters)
    return np.array([Statevector(made.assign_parameters(dict(zip(parameters, row, strict=True)))).data for row in at])


@pytest.mark.thinned(4)
@each_dtype
@pytest.mark.parametrize("make", [lambda: random_circuit(3, 5, 14, UNITARY), lambda: real_amplitudes(4, reps=1)])
def test_states_and_probabilities_in_tiles(make, dtype):
    made = make()
    n, at = made.num_qubits, values(made, 2)
    expected = states_of(made, at)
    np.testing.assert_allclose(simulation(made, State(), dtype, 2).values(at), expected, atol=TOLERANCE[dtype])
    for qubits in (tuple(range(n)), (2, 0)):
        found = simulation(made, Probabilities(qubits), dtype, 2).values(at)
        wanted = [Statevector(row).probabilities(list(qubits)) for row in expected]
        np.testing.assert_allclose(found, wanted, atol=TOLERANCE[dtype])


def test_outcomes_that_no_amplitude_reaches():
    """Of a state in a part of the space some outcomes are never drawn."""
    made = QuantumCircuit(3)
    made.ry(ParameterVector("t", 1)[0], 0)
    made.cx(0, 1)
    made.x(2)
    at = values(made, 2)
    wanted = [Statevector(row).probabilities() for row in states_of(made, at)]
    np.testing.assert_allclose(simulation(made, Probabilities((0, 1, 2))).values(at), wanted, atol=1e-12)


@pytest.mark.thinned(6)
@pytest.mark.parametrize("tile_bits", [2, 11])
@pytest.mark.parametrize("output", [Probabilities((1, 2)), State(), None], ids=["probabilities", "state", "values"])
def test_derivatives_by_prepared_amplitudes(output, tile_bits):
    made = QuantumCircuit(4)
    rng = np.random.default_rng(1)
    for qubits in ([2, 0], [1]):
        start = rng.normal(size=2 ** len(qubits)) + 1j * rng.normal(size=2 ** len(qubits))
        made.prepare_state(start / np.linalg.norm(start), qubits)
    made = made.compose(zz_feature_map(4, reps=1))
    output = expectation(made) if output is None else output
    simulated, reference = simulation(made, output, tile_bits=tile_bits), on_cpu(made, output)
    angles, prepared = arguments(simulated, values(made, 2))
    prepared[1] = prepared[1].expand(2, -1).contiguous()  # the second differs by sample, the first does not
    prepared[1][1] = prepared[1][1].flip(0)
    found = simulated.engine.forward(angles, prepared)[0]
    cotangent = torch.randn(found.shape, dtype=found.dtype).to(DEVICE)
    mine = simulated.engine.vjp(angles, prepared, cotangent, by_prepared=True)
    own = angles.cpu(), [p.cpu() for p in prepared]
    torch.testing.assert_close(found.cpu(), reference.engine.forward(*own)[0], atol=1e-10, rtol=0)
    wanted = reference.engine.vjp(*own, cotangent.cpu(), by_prepared=True)
    torch.testing.assert_close(mine[0].cpu(), wanted[0], atol=1e-9, rtol=0)
    for one, other in zip(mine[1], wanted[1], strict=True):
        torch.testing.assert_close(one.cpu(), other, atol=1e-9, rtol=0)


@pytest.mark.slow
def test_parts_of_a_batch_where_memory_is_short():
    made = efficient_su2(4, reps=1)
    output = expectation(made)
    short, plain = simulation(made, output, memory=2 * 2 * 16 * 16), simulation(made, output)
    angles, prepared = arguments(short, values(made, 5))
    cotangent = torch.ones(5, 3, dtype=torch.float64, device=DEVICE)
    torch.testing.assert_close(short.engine.forward(angles, prepared)[0], plain.engine.forward(angles, prepared)[0])
    wanted = plain.engine.vjp(angles, prepared, cotangent)[0]
    torch.testing.assert_close(short.engine.vjp(angles, prepared, cotangent)[0], wanted)
    (batch,) = next(iter(short.engine._compiled.values())).batches
    assert [part.stop - part.start for part in batch.sweeps.chunks(5, 1)] == [2] * 3
    with pytest.raises(qtm.OutOfMemory, match="two states of 4 bits need"):
        simulation(made, output, memory=16).values(values(made, 1))


def test_states_are_consumed_once():
    made = real_amplitudes(3, reps=1)
    simulated = simulation(made, expectation(made))
    angles, prepared = arguments(simulated, values(made, 1))
    _, kept = simulated.engine.forward(angles, prepared, keep=True)
    cotangent = torch.ones(1, 3, dtype=torch.float64, device=DEVICE)
    simulated.engine.vjp(angles, prepared, cotangent, kept)
    with pytest.raises(RuntimeError, match="consumed by a reverse sweep"):
        simulated.engine.vjp(angles, prepared, cotangent, kept)


def test_circuits_without_rotations_or_qubits():
    made = QuantumCircuit(2)
    made.x(0)
    found = simulation(made, Expectation(coerce_observables(["IZ", "ZI", "XX"], 2))).values(np.zeros((2, 0)))
    np.testing.assert_allclose(found, [[-1, 1, 0]] * 2)
    np.testing.assert_allclose(simulation(made, State()).values(np.zeros((1, 0))), [[0, 1, 0, 0]])
    still = simulation(made, Expectation(coerce_observables(["IZ"], 2)))
    angles, prepared = arguments(still, np.zeros((2, 0)))
    assert still.engine.vjp(angles, prepared, torch.ones(2, 1, device=DEVICE))[0].shape == (2, 0)
    np.testing.assert_allclose(simulation(QuantumCircuit(0), State()).values(np.zeros((1, 0))), [[1]])


def test_observables_without_terms():
    made = real_amplitudes(2, reps=1)
    simulated = simulation(made, Expectation(coerce_observables([SparsePauliOp("ZZ", 0.0)], 2)))
    angles, prepared = arguments(simulated, values(made, 2))
    found, kept = simulated.engine.forward(angles, prepared, keep=True)
    assert not found.any() and found.shape == (2, 1)
    assert not simulated.engine.vjp(angles, prepared, torch.ones_like(found), kept)[0].any()


# Schedules


def program_of(made, output) -> ConeProgram:
    return cone_groups.cones_of(lower(made), output)[0].program


@pytest.mark.parametrize("tile_bits", [3, 5])
def test_schedules_keep_every_rotation_within_its_tiles(tile_bits):
    made = efficient_su2(8, reps=3)
    program = program_of(made, Expectation(coerce_observables([ising(8)], 8)))
    plan, whole = schedule(program, tile_bits), schedule(program, 11)
    assert len(whole.passes) == 1 and len(plan.passes) > 1
    assert len(plan.slots) == len(whole.slots) and len(plan.string_masks) == len(whole.string_masks) == 15
    for one in plan.passes:
        index, bases = plan.tile_index(one), plan.tile_bases(one)
        assert sorted((index[None] ^ bases[:, None]).ravel()) == list(range(2**plan.num_bits))
    assert [one.first for one in plan.passes[1:]] == [one.last for one in plan.passes[:-1]]
    assert plan.passes[-1].last == len(plan.slots) and plan.passes[-1].last_string == 15


@pytest.mark.slow
def test_passes_of_tiles_measure_few_strings_at_a_time():
    n = 8
    made = efficient_su2(n, reps=1)
    labels = [f"{k:08b}".replace("0", "I").replace("1", "Z") for k in range(1, 200)]
    output = Expectation(coerce_observables([SparsePauliOp(labels, np.linspace(1, 2, 199)), "X" * n], n))
    plan = schedule(program_of(made, output), 4)
    counts = [one.last_string - one.first_string for one in plan.passes]
    assert sum(counts) == 200 and max(counts) <= MAX_SUMS < 199
    assert any(one.last == one.first for one in plan.passes)  # these leave the states where they are
    simulated, at = simulation(made, output, tile_bits=4), values(made, 1)
    np.testing.assert_allclose(simulated.values(at), on_cpu(made, output).values(at), atol=1e-9)
    angles, prepared = arguments(simulated, at)
    cotangent = torch.tensor([[0.3, -1.0]], dtype=torch.float64)
    slope = on_cpu(made, output).engine.vjp(angles.cpu(), [], cotangent)[0]
    _, kept = simulated.engine.forward(angles, prepared, keep=True)
    found = simulated.engine.vjp(angles, prepared, cotangent.to(DEVICE), kept)[0]
    torch.testing.assert_close(found.cpu(), slope, atol=1e-8, rtol=0)
    moved = simulated.engine.traffic(1, DEVICE)[0]
    assert moved.forward < moved.both < (7 * len(plan.passes) - 4) * 2**plan.num_bits * 16


def test_sign_tables_give_parities_of_amplitudes():
    """What a kernel makes of a row is the parity of an amplitude and the mask."""
    n = 8
    output = Expectation(coerce_observables([ising(n)], n))
    plan = schedule(program_of(efficient_su2(n, reps=2), output), 7)
    operations, strings, low_bits = plan.operation_table(5), plan.string_table(5), 5
    for one in plan.passes:
        index, bases, places = plan.tile_index(one), plan.tile_bases(one), np.arange(128)
        amplitudes = index[None] ^ bases[:, None]
        rows = [*operations[one.first : one.last], *strings[one.first_string : one.last_string]]
        for _, local, mask, word in rows:
            low = np.bitwise_count(places & 31 & local) & 1
            high = int(word) >> (places >> low_bits) & 1
            by_base = np.bitwise_count(bases & mask)[:, None] & 1
            np.testing.assert_array_equal(low ^ high ^ by_base, np.bitwise_count(amplitudes & mask) & 1)


# Modules


def module(**settings) -> qtm.QuantumModule:
    features, ansatz = zz_feature_map(3, reps=1), efficient_su2(3, reps=1)
    made = qtm.QuantumModule(
        features.compose(ansatz), features.parameters, ansatz.parameters, seed_init=0, method="triton", **settings
    )
    return made.to(DEVICE)


@pytest.mark.slow
@pytest.mark.parametrize("outputs", ["expectation", "probabilities", "state"])
def test_gradcheck_by_inputs_and_weights(outputs):
    made = module(outputs=outputs).double()
    inputs = torch.rand(2, 3, dtype=torch.float64, device=DEVICE, requires_grad=True)
    weights = made.variational.detach().clone().requires_grad_()

    def values(at, trained):
        found = torch.func.functional_call(made, {"variational": trained}, (at,))
        return torch.view_as_real(found) if found.is_complex() else found

    assert torch.autograd.gradcheck(values, (inputs, weights), fast_mode=True)


def test_gradients_by_inputs_that_are_amplitudes():
    encoding, ansatz = amplitude_encoding(4), real_amplitudes(2, reps=1)
    made, features = encoding.circuit.compose(ansatz), encoding.encoding_params
    gradients = []
    for method in ("triton", "statevector"):
        module = qtm.QuantumModule(made, features, ansatz.parameters, seed_init=0, method=method)
        place = DEVICE if method == "triton" else torch.device("cpu")
        inputs = torch.linspace(0.1, 1.0, 12, dtype=torch.float64).reshape(3, 4).to(place).requires_grad_()
        module.double().to(place)(inputs).square().sum().backward()
        gradients.append((inputs.grad.cpu(), module.variational.grad.cpu()))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=0)


@pytest.mark.slow
def test_training_steps_agree_with_the_cpu():
    made, other = module().double(), module().double()
    other._settings = made._settings.__class__(**{**made._settings.__dict__, "method": "statevector"})
    other._methods = {}
    inputs = torch.rand(4, 3, dtype=torch.float64, device=DEVICE)
    for one in (made, other.cpu()):
        optimizer = torch.optim.Adam(one.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            one(inputs.to(one.variational.device)).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(made.variational.cpu(), other.variational, atol=1e-9, rtol=0)


@pytest.mark.slow
def test_a_compiled_module_has_one_graph():
    made = module().double()
    inputs = torch.rand(2, 3, dtype=torch.float64, device=DEVICE, requires_grad=True)
    found = []
    for call in (made, torch.compile(made, backend="aot_eager", fullgraph=True)):
        values = call(inputs)
        found.append((values, *torch.autograd.grad(values.square().sum(), (inputs, made.variational))))
    torch.testing.assert_close(*found, atol=1e-12, rtol=0)


def test_autocast_is_left_alone():
    made = module()
    inputs = torch.rand(2, 3, device=DEVICE)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        found = made(inputs)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, made(inputs), atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", ["triton", "statevector"])
def test_phases_of_states_under_autocast(method):
    """A phase of the parameters keeps the precision of the states."""
    made = QuantumCircuit(1)
    (angle,) = ParameterVector("t", 1)
    made.ry(angle, 0)
    made.global_phase = 100.3 * angle
    module = qtm.QuantumModule(made, None, [angle], outputs="state", method=method, seed_init=0).to(DEVICE)
    expected = module()
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        torch.testing.assert_close(module(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda m, x: torch.func.jvp(m, (x,), (torch.ones_like(x),)), "no derivatives in forward mode"),
        (lambda m, x: torch.autograd.grad(torch.autograd.grad(m(x).sum(), x, create_graph=True)[0].sum(), x), "first"),
    ],
    ids=["jvp", "second"],
)
def test_derivatives_that_there_are_not(compute, message):
    with pytest.raises(qtm.UnsupportedError, match=f"(?s){message}.*cpu"):
        compute(module(), torch.rand(2, 3, device=DEVICE, requires_grad=True))


def divided(outputs: str) -> tuple[QuantumCircuit, dict]:
    """Amplitudes of two qubits as inputs, cones of five and two parameter sets."""
    encoding, made = amplitude_encoding(4), QuantumCircuit(5)
    first, second = ParameterVector("a", 5), ParameterVector("b", 4)
    made.compose(encoding.circuit, [0, 1], inplace=True)
    for q in range(5):
        made.ry(first[q], q)
    for q in range(4):
        made.rzz(second[q], q, q + 1)
    names = ["IIIZX", "XIIII", "IZZII", "ZIXIY"]
    settings = {"observables": names} if outputs == "expectation" else {"outputs": (outputs, {"qubits": [3, 0]})}
    settings |= {"variational_params_names": ["one", "two"], "seed_init": 0}
    return made, {"encoding_params": encoding.encoding_params, "variational_params": [first, second], **settings}


@each_dtype
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("outputs", ["expectation", "probabilities"])
def test_amplitudes_cones_batches_and_parameter_sets(outputs, batch, dtype, monkeypatch):
    """All at once, against the CPU."""
    monkeypatch.setattr(cone_groups, "_WORTH_MERGING", 0.0)
    made, settings = divided(outputs)
    real = torch.float32 if dtype == "complex64" else torch.float64
    found = []
    for method in (("triton", {"tile_bits": 2}), "statevector"):
        place = torch.device("cpu") if method == "statevector" else DEVICE
        layer = qtm.QuantumModule(made, method=method, **settings).to(place, real)
        inputs = torch.linspace(0.1, 1.0, 4 * batch, dtype=real).reshape(batch, 4).to(place).requires_grad_()
        values = layer(inputs)
        slopes = torch.autograd.grad(values.square().sum(), [inputs, *layer.parameters()])
        found.append([values.detach().cpu(), *(slope.cpu() for slope in slopes)])
    assert len(found[0]) == 4 and found[0][0].dtype == real
    torch.testing.assert_close(*found, atol=20 * TOLERANCE[dtype], rtol=0)


# Devices, without a GPU


FLAT = lower(real_amplitudes(3, reps=1)).flat
ZED = Expectation(coerce_observables(["ZII"], 3))


@pytest.mark.parametrize("method", ["auto", "statevector", "triton"])
def test_state_vectors_on_cuda_are_those_of_triton(method):
    assert choose(method, FLAT, ZED, Options(device="cuda")).name == "triton"


def test_matrix_product_states_follow_the_device():
    assert choose("matrix_product_state", FLAT, ZED, Options(device="cuda")).name == "matrix_product_state"


@pytest.mark.parametrize("method", ["density_matrix", ("trajectories", {"count": 4})])
def test_methods_that_stay_on_the_cpu_say_so(method):
    with pytest.raises(qtm.UnsupportedError, match=r"computes on cpu, and the tensors are on cuda; move .*\.cpu\(\)"):
        choose(method, FLAT, ZED, Options(device="cuda"))


def settings_of(**settings):
    made = real_amplitudes(2, reps=1)
    return qtm.QuantumModule(made, None, made.parameters, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise": qtm.local_pauli_noise(0.01)}, "simulates no noise.*computes on cpu"),
        ({"gradient": "param-shift"}, "gradient='param-shift' computes on the CPU"),
        ({"gradient": "spsa"}, "gradient='spsa' computes on the CPU"),
        ({"estimator": qtm.FastEstimator(default_precision=0.1)}, "default_precision computes on the CPU"),
    ],
    ids=["noise", "param-shift", "spsa", "precision"],
)
def test_modules_that_cannot_follow_say_so(settings, message):
    made = settings_of(**settings)
    with pytest.raises(qtm.UnsupportedError, match=f"(?s){message}.*cpu"):
        made._method(torch.float32, "cuda")


@pytest.mark.parametrize("outputs", ["expectation", "probabilities", "state"])
def test_a_module_on_cuda_takes_the_way_without_numpy(outputs):
    method = settings_of(outputs=outputs)._method(torch.float32, "cuda")
    assert method.fused is None and method.simulation.engine.method.name == "triton"


class Elsewhere(torch.Tensor):
    """A tensor that says that it is not on the CPU."""

    is_cpu = False


MEANINGLESS = [(float("nan"), "is nan in sample 1"), (float("inf"), "is inf in sample 1"), (1e20, "beyond 7.04e")]


@pytest.mark.parametrize(("value", "message"), MEANINGLESS)
@pytest.mark.parametrize("has_nan", [True, False])
def test_a_cpu_waits_for_angles_of_a_gpu_only_where_it_must(value, message, has_nan, monkeypatch):
    """An engine that gives NaN is not checked outside of anomaly mode; others are, there."""
    method = settings_of()._method(torch.float64, "cuda")
    angles = torch.zeros(2, 4, dtype=torch.float64)
    monkeypatch.setattr(adjoint, "check_angles", lambda *_: pytest.fail("angles came to the CPU"))
    method._check_angles(angles.as_subclass(Elsewhere))
    angles[1, 2] = value
    method._check_angles(angles.as_subclass(Elsewhere))
    monkeypatch.undo()
    monkeypatch.setattr(method.simulation.engine, "gives_nan", has_nan)
    with torch.autograd.set_detect_anomaly(has_nan), pytest.raises(qtm.ParameterError, match=message):
        method._check_angles(angles.as_subclass(Elsewhere))


@pytest.mark.thinned(4)
@pytest.mark.parametrize("value", [value for value, _ in MEANINGLESS])
@pytest.mark.parametrize("output", [Expectation(coerce_observables(["ZZ"], 2)), Probabilities((0, 1)), State()])
def test_angles_that_mean_nothing_give_nan(output, value):
    """In the sample with such an angle, also where only the phase of the state depends on it."""
    made = QuantumCircuit(2)
    made.rz(ParameterVector("p", 1)[0], 0)
    made = made.compose(real_amplitudes(2, reps=1))
    simulated = simulation(made, output)
    engine, number = simulated.engine, list(made.parameters)
    for parameter in number if isinstance(output, State) else number[1:]:
        angles, prepared = arguments(simulated, np.full((2, 5), 0.3))
        given = torch.full((5,), 0.3, dtype=torch.float64)
        given[number.index(parameter)] = value
        angles[1] = simulated.angles.torch(None, given, 1)[0].to(DEVICE)
        found, kept = engine.forward(angles, prepared, keep=True)
        assert not found[0].isnan().any() and found[1].isnan().all()
        slope, _ = engine.vjp(angles, prepared, torch.ones_like(found), kept)
        assert not slope[0].isnan().any() and slope[1].isnan().any()


@pytest.mark.parametrize("device", ["mps", "xpu", "meta", "hpu:0"])
def test_other_devices_are_refused(device):
    with pytest.raises(qtm.DtypeError, match=rf"the weights are on {device}.*; qtm computes on the CPU and on GPUs"):
        common_device([torch.device(device)], None)
    with pytest.raises(qtm.DtypeError, match=rf"the inputs are on {device}.*; qtm computes"):
        common_device([torch.device("cuda:0")], torch.device(device))


def test_one_device_for_all():
    assert common_device([torch.device("cuda:1")], torch.device("cuda:1")) == "cuda"
    for other in ("cpu", "cuda:0"):
        with pytest.raises(qtm.DtypeError, match=rf"the inputs are on {other}, and the weights on cuda:1; .*'cuda:1'"):
            common_device([torch.device("cuda:1")], torch.device(other))


def test_samples_of_a_module_are_drawn_on_the_cpu():
    with pytest.raises(qtm.UnsupportedError, match=r"outcomes are drawn on the CPU; move .*\.cpu\(\)"):
        settings_of().to("meta").sample()


def test_state_dicts_cross_devices(tmp_path):
    made, other = module(), module()
    other.variational.data.zero_()
    torch.save(made.state_dict(), tmp_path / "weights")
    other.load_state_dict(torch.load(tmp_path / "weights", map_location=DEVICE, weights_only=True))
    inputs = torch.rand(2, 3)
    torch.testing.assert_close(other(inputs.to(DEVICE)).cpu(), made.cpu()(inputs), atol=1e-6, rtol=0)


def test_without_triton_or_a_gpu_it_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(launch, "is_interpreted", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(qtm.UnsupportedError, match="computes on a GPU, and torch finds none here; use method='state"):
        choose("triton", FLAT, ZED, Options())
    monkeypatch.setattr(launch, "_OLDEST", (99, 0))
    with pytest.raises(qtm.UnsupportedError, match=r"needs Triton 99.0 or later, .*, not \d+\.\d+.*; upgrade torch"):
        choose("triton", FLAT, ZED, Options())
    monkeypatch.setitem(sys.modules, "triton", None)  # as if it were not installed
    with pytest.raises(qtm.UnsupportedError, match=r'needs Triton: .* pip install "qtm-torch\[gpu\]"'):
        choose("statevector", FLAT, ZED, Options(device="cuda"))


def test_auto_on_cuda_compares_what_computes_there(monkeypatch):
    monkeypatch.setattr(registry, "_SMALL", 0)
    assert choose("auto", FLAT, ZED, Options(device="cuda")).name == "triton"
    wide = lower(real_amplitudes(40, reps=1, entanglement="linear")).flat
    every = Expectation(coerce_observables(["Z" * 40], 40))
    assert choose("auto", wide, every, Options(device="cuda")).name == "matrix_product_state"


def test_memory_of_a_gpu_is_what_is_free_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10 << 30, 16 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3 << 30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1 << 30)
    assert launch.budget(torch.device("cuda:0"), None) == 6 << 30
    assert launch.budget(torch.device("cuda:0"), 5) == 5


def test_tensors_of_the_cpu_go_to_the_current_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(launch, "is_interpreted", lambda: False)
    assert launch.device_for(torch.device("cpu")) == torch.device("cuda:1")
    assert launch.device_for(torch.device("cuda:0")) == torch.device("cuda:0")


@pytest.mark.parametrize(("bits", "warps"), [(1, 1), (6, 1), (8, 2), (10, 8), (11, 8), (12, 16), (13, 16)])
def test_programs_have_threads_for_their_amplitudes(bits, warps):
    launched = []

    class Kernel:
        def __getitem__(self, grid):
            return lambda *arguments, **constants: launched.append((grid, arguments, constants))

    launch.launch_tiles(Kernel(), 3, bits, torch.device("cpu"), 7, COMPLEX=1)
    launch.launch_tiles(Kernel(), 0, bits, torch.device("cpu"))  # an empty batch
    assert launched == [((3,), (7,), {"COMPLEX": 1, "num_warps": warps})]


@pytest.mark.parametrize("bits", [0, 14, 2.5, None])
def test_options(bits):
    with pytest.raises(qtm.ParameterError, match="tile_bits is"):
        TritonStateVector(bits)


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "arch", "warp"), [("cuda", 90, 32), ("hip", "gfx942", 64)])
def test_kernels_compile_for_gpus(backend, arch, warp, tmp_path):
    """What the engine launches, down to the machine code of a GPU that is not here; in a process of its own."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    script = Path(__file__).parent / "compile_kernels.py"
    done = subprocess.run(
        [sys.executable, script, backend, str(arch), str(warp)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["evolve", "half_angles", "pull_back", "weighted_sums"]
