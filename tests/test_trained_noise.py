"""Strengths of channels as parameters: values against Aer's, derivatives against finite differences, known fits."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp
from test_noise_option import aer_noise, aer_values, ansatz, values_of
from test_noise_option import module as module_of

import qtm
from qtm import TrainableNoise
from qtm._circuit.channels import CHANNELS

TRAINED = [name for name, row in CHANNELS.items() if row.upper is not None]


def some_noise(**options: Any) -> TrainableNoise:
    """Channels of one and two qubits, everywhere and on some qubits, at strengths of their own."""
    noise = TrainableNoise(
        {
            "ry": ["depolarizing", ("amplitude_damping", {"excited": 0.02})],
            "cx": "two_qubit_depolarizing",
            ("cx", (1, 2)): ["two_qubit_pauli", "phase_damping"],
        },
        **options,
    ).double()
    with torch.no_grad():
        noise.raw += torch.linspace(-0.7, 1.1, len(noise.raw))
    return noise


def module(noise: Any, observables: Any = None, **options: Any) -> qtm.QuantumModule:
    return module_of(ansatz(3), noise, observables or ["ZIX", "YYY", "IIZ"], **options)


@pytest.mark.parametrize("name", TRAINED)
def test_every_channel_has_the_values_of_aer(name: str) -> None:
    noise = TrainableNoise({"cx": name, "ry": name} if CHANNELS[name].num_qubits == 1 else {"cx": name}, initial=0.02)
    with torch.no_grad():
        noise.double().raw += torch.linspace(-0.5, 0.5, len(noise.raw))
    circuit = ansatz(3)
    found = module(noise)().detach().numpy()
    wanted = aer_values(circuit, values_of(circuit), noise.to_noise_model(), ["ZIX", "YYY", "IIZ"])
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_every_place_has_the_values_of_aer() -> None:
    noise, circuit = some_noise(), ansatz(3)
    wanted = aer_values(circuit, values_of(circuit), noise.to_noise_model(), ["ZIX", "YYY", "IIZ"])
    np.testing.assert_allclose(module(noise)().detach().numpy(), wanted, atol=1e-9)


@pytest.mark.parametrize("readout", [True, [0, 2]])
def test_readout_errors_are_those_of_the_model_made_of_it(readout: Any) -> None:
    noise, circuit = some_noise(readout=readout), ansatz(3)
    labels = ["ZIZ", "ZZZ", "IIZ"]
    exact = qtm.noisy_estimator(noise.to_noise_model()).run([(circuit, labels, values_of(circuit))]).result()[0]
    np.testing.assert_allclose(module(noise, labels)().detach().numpy(), exact.data.evs, atol=1e-9)
    # What takes the strengths as they are also reads X and Y.
    bound = qtm.FastEstimator(noise=noise).run([(circuit, ["ZIX", *labels], values_of(circuit))]).result()[0].data.evs
    also = qtm.noisy_estimator(noise.to_noise_model()).run([(circuit, "ZIX", values_of(circuit))]).result()[0]
    np.testing.assert_allclose(bound, [also.data.evs, *exact.data.evs], atol=1e-9)
    with pytest.raises(qtm.UnsupportedError, match="measure Z"):
        module(noise, ["XII"])


def test_derivatives_by_strengths_and_weights() -> None:
    noise = some_noise(readout=True)
    net = module(noise, ["ZIZ", "IZI"])
    weigh = torch.tensor([1.0, -2.0], dtype=torch.float64)
    assert dict(net.named_parameters())["trained_noise.raw"] is noise.raw
    (net() @ weigh).backward()
    for tensor in (noise.raw, net.variational):
        assert tensor.grad is not None
        for place in range(0, len(tensor), 3):
            with torch.no_grad():
                ends = []
                for step in (1e-5, -2e-5):
                    tensor[place] += step
                    ends.append(float(net() @ weigh))
                tensor[place] += 1e-5
            assert abs((ends[0] - ends[1]) / 2e-5 - tensor.grad[place]) < 1e-8


@pytest.mark.parametrize("name", TRAINED)
def test_strengths_stay_within_their_limits(name: str) -> None:
    noise = TrainableNoise({"cx": name}).double()
    for size in (-40.0, -3.0, 3.0, 40.0):
        for sign in (1.0, -1.0):
            with torch.no_grad():
                noise.raw.copy_(size * sign ** torch.arange(len(noise.raw)))
            strengths = noise.values()
            upper = CHANNELS[name].upper
            assert upper is not None
            assert (strengths >= 0).all() and (strengths <= torch.tensor(upper) * (1 + 1e-12)).all()
            if name in ("pauli", "two_qubit_pauli", "reset"):
                assert strengths.sum() <= 1 + 1e-12
            if name == "thermal_relaxation":
                assert strengths[1] >= strengths[0] / 2


def test_copies_and_pickles_train_by_themselves() -> None:
    net = module(some_noise())
    for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        torch.testing.assert_close(copied(), net())
        with torch.no_grad():
            copied.trained_noise.raw += 1.0
        assert (copied() - net()).abs().max() > 1e-3
        copied.load_state_dict(net.state_dict())
        torch.testing.assert_close(copied(), net())


def calibration() -> list[QuantumCircuit]:
    """Both values of each bit, and circuits of growing depth."""
    circuits = []
    for bits in range(4):
        circuit = QuantumCircuit(2)
        for q in range(2):
            circuit.ry(np.pi * (bits >> q & 1), q)
        circuits.append(circuit)
    for depth in (1, 3, 6):
        rng = np.random.default_rng(depth)
        circuit = QuantumCircuit(2)
        for _ in range(depth):
            circuit.ry(rng.uniform(0, 3), 0)
            circuit.ry(rng.uniform(0, 3), 1)
            circuit.cx(0, 1)
        circuits.append(circuit)
    return circuits


def device() -> TrainableNoise:
    noise = TrainableNoise({"ry": "depolarizing", "cx": "two_qubit_depolarizing"}, readout=[0, 1]).double()
    with torch.no_grad():
        noise.raw += torch.tensor([-0.8, 1.0, 0.3, 0.9, -0.5, 0.6])
    return noise


def model() -> TrainableNoise:
    return TrainableNoise({"ry": "depolarizing", "cx": "two_qubit_depolarizing"}, readout=[0, 1])


def worst(found: qtm.noise.NoiseFit) -> float:
    wanted = device().strengths
    return max(abs(found.strengths[name] - wanted[name]) for name in wanted)


@pytest.mark.slow
def test_a_fit_finds_the_strengths_behind_exact_values() -> None:
    values = ["IZ", "ZI", "ZZ"]
    estimator = qtm.noisy_estimator(device().to_noise_model())
    data = [(c, values, estimator.run([(c, values)]).result()[0].data.evs) for c in calibration()]
    found = qtm.noise.fit(model(), data)
    assert worst(found) < 1e-6
    assert found.losses[-1] < 1e-9 < found.losses[0]


@pytest.mark.parametrize("form", ["text", "bit array"])
@pytest.mark.slow
def test_a_fit_finds_the_strengths_behind_counts(form: str) -> None:
    shots = 40_000
    circuits = [c.measure_all(inplace=False) for c in calibration()]
    sampler = qtm.FastSampler(noise=device().to_noise_model(), seed=1)
    drawn = [part.data.meas for part in sampler.run(circuits, shots=shots).result()]
    data = [(c, d if form == "bit array" else d.get_counts()) for c, d in zip(circuits, drawn, strict=True)]
    found = qtm.noise.fit(model(), data)
    assert worst(found) < 5 / np.sqrt(shots)
    assert found.losses[-1] < found.losses[0]


def test_a_fit_reads_the_bits_as_they_were_measured() -> None:
    circuit = QuantumCircuit(2, 3)
    circuit.x(0)
    circuit.measure([0, 1], [2, 0])
    noise = TrainableNoise({"x": "bit_flip"})
    assert abs(qtm.noise.fit(noise, [(circuit, {"100": 900, "000": 100})]).strengths["x: bit_flip p"] - 0.1) < 1e-6


GOOD = QuantumCircuit(1, 1)
GOOD.x(0)
GOOD.measure(0, 0)
OPEN = ansatz(2)
REFUSED = [
    (lambda: TrainableNoise("cx"), "by the names of gates"),
    (lambda: TrainableNoise({"nothing": "depolarizing"}), "name of a standard gate"),
    (lambda: TrainableNoise({("cx", (0,)): "depolarizing"}), "acts on 2 qubits"),
    (lambda: TrainableNoise({"cx": "factors"}), "not a channel"),
    (lambda: TrainableNoise({"x": "two_qubit_depolarizing"}), "not a channel"),
    (lambda: TrainableNoise({"x": ("pauli", {"p_X": 0.1})}), "all its strengths are trained"),
    (lambda: TrainableNoise({"x": ("thermal_relaxation", {"time/T1": 0.1})}), "excited"),
    (lambda: TrainableNoise({"x": "depolarizing"}, initial=2.0), "between 0 and"),
    (lambda: TrainableNoise({"x": "pauli"}, initial=0.4), "sum below 1"),
    (lambda: TrainableNoise({"x": "pauli"}, readout=3), "a list of qubits"),
    (lambda: qtm.noise.fit(aer_noise.NoiseModel(), []), "a TrainableNoise"),
    (lambda: qtm.noise.fit(model(), []), "data is empty"),
    (lambda: qtm.noise.fit(model(), [GOOD]), "a circuit with its data"),
    (lambda: qtm.noise.fit(model(), [(GOOD, {"2": 1})]), "not a string of the 1 bits"),
    (lambda: qtm.noise.fit(model(), [(GOOD, {"1": -1})]), "counts"),
    (lambda: qtm.noise.fit(model(), [(GOOD, {"1": 0})]), "no shots"),
    (lambda: qtm.noise.fit(model(), [(GOOD, "101")]), "shots by bit string"),
    (lambda: qtm.noise.fit(model(), [(GOOD, ["Z"], [1.0, 2.0])]), "one for each observable"),
    (lambda: qtm.noise.fit(model(), [(GOOD, ["Z"], [float("nan")])]), "finite"),
    (lambda: qtm.noise.fit(model(), [(OPEN, ["ZZ"], [1.0])]), "open parameters"),
    (lambda: qtm.noise.fit(model(), [(QuantumCircuit(1, 1), {"1": 1})]), "measures nothing"),
    (lambda: qtm.noise.fit(model(), [(GOOD, ["Z"], [1.0])], precision=0.0), "positive"),
    (lambda: qtm.noise.fit(model(), [(GOOD, ["Z"], [1.0])], max_steps=0), "max_steps"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_what_is_refused(make: Any, message: str) -> None:
    with pytest.raises(qtm.QtmError, match=message):
        make()


def test_trajectories_say_that_they_have_no_derivatives_by_strengths() -> None:
    with pytest.raises(qtm.UnsupportedError, match="strengths"):
        module(some_noise(), method="trajectories")


def test_one_observable_sum_and_inputs_train_with_the_noise() -> None:
    """A sum of observables, inputs and an optimizer that sees weights and noise together."""
    circuit = ansatz(2)
    inputs, weights = list(circuit.parameters)[:2], list(circuit.parameters)[2:]
    energy, noise = SparsePauliOp(["ZZ", "ZI"], [1.0, 0.5]), TrainableNoise({"cx": "depolarizing"})
    net = qtm.QuantumModule(circuit, inputs, weights, noise=noise, observables=[energy], seed_init=0)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    net(torch.rand(5, 2)).square().sum().backward()
    optimizer.step()
    assert set(before) == {"variational", "trained_noise.raw"}
    assert all((p - before[name]).abs().max() > 0 for name, p in net.named_parameters())
