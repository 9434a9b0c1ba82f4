"""FastSampler beside Qiskit's StatevectorSampler: the same shots, registers, metadata and errors."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Clbit
from qiskit.circuit.library import efficient_su2, quantum_volume, real_amplitudes
from qiskit.primitives import StatevectorSampler
from qiskit.primitives.containers.sampler_pub import SamplerPub
from qiskit.quantum_info import SparsePauliOp, Statevector

from qtm import _errors
from qtm._primitives import fast_sampler as _sampler
from qtm.primitives import FastSampler

ANSATZ = efficient_su2(4, reps=1)  # 16 parameters
VALUES = np.random.default_rng(5).uniform(-3, 3, (3, 2, 16))


def with_registers(*registers: ClassicalRegister) -> QuantumCircuit:
    circuit = QuantumCircuit(QuantumRegister(4, "q"), *registers)
    return circuit.compose(ANSATZ, circuit.qubits)


def all_measured() -> QuantumCircuit:
    return ANSATZ.measure_all(inplace=False)


def active_measured() -> QuantumCircuit:
    return ANSATZ.measure_active(inplace=False)


def a_subset() -> QuantumCircuit:
    circuit = with_registers(ClassicalRegister(2, "c"))
    circuit.measure([3, 1], [0, 1])
    return circuit


def any_order() -> QuantumCircuit:
    circuit = with_registers(ClassicalRegister(4, "c"))
    circuit.measure([0, 1, 2, 3], [2, 0, 3, 1])
    return circuit


def several_registers() -> QuantumCircuit:
    circuit = with_registers(ClassicalRegister(1, "a"), ClassicalRegister(3, "b"), ClassicalRegister(2, "never"))
    circuit.measure([2, 3, 0, 1], [3, 0, 1, 2])
    circuit.barrier()
    return circuit


def bits_left_out() -> QuantumCircuit:
    circuit = with_registers(ClassicalRegister(11, "wide"))
    circuit.measure([0, 3], [9, 4])
    return circuit


def a_qubit_into_two_bits() -> QuantumCircuit:
    circuit = with_registers(ClassicalRegister(3, "c"))
    circuit.measure([1, 1, 2], [0, 2, 1])
    return circuit


def a_bit_written_twice() -> QuantumCircuit:
    circuit = with_registers(ClassicalRegister(2, "c"))
    circuit.measure([0, 1, 2], [0, 0, 1])
    return circuit


def overlapping_registers() -> QuantumCircuit:
    bits = [Clbit() for _ in range(3)]
    circuit = with_registers(ClassicalRegister(bits=bits, name="x"), ClassicalRegister(bits=bits[::-2], name="y"))
    circuit.measure([0, 2, 3], bits)
    return circuit


def a_loose_bit() -> QuantumCircuit:
    circuit = QuantumCircuit(4)
    circuit.add_bits([Clbit()])
    circuit.add_register(ClassicalRegister(1, "c"))
    circuit.compose(ANSATZ, inplace=True)
    circuit.measure([0, 1], [0, 1])
    return circuit


def nothing_measured() -> QuantumCircuit:
    return with_registers(ClassicalRegister(3, "c"))


def barriers() -> QuantumCircuit:
    circuit = with_registers(ClassicalRegister(2, "c"))
    circuit.barrier()
    circuit.measure([0, 1], [0, 1])
    circuit.barrier()
    return circuit


def gates_on_the_others() -> QuantumCircuit:
    circuit = with_registers(ClassicalRegister(2, "c"))
    circuit.measure(0, 0)
    circuit.cx(2, 1)
    circuit.measure(1, 1)
    return circuit


CIRCUITS = [
    all_measured, active_measured, a_subset, any_order, several_registers, bits_left_out,
    a_qubit_into_two_bits,
    a_bit_written_twice, overlapping_registers, a_loose_bit, nothing_measured, barriers,
    gates_on_the_others,
]  # fmt: skip
each_circuit = pytest.mark.parametrize("make", CIRCUITS, ids=lambda f: f.__name__)


def assert_the_same(ours: Any, theirs: Any) -> None:
    """Two primitive results, bit for bit."""
    assert ours.metadata == theirs.metadata and len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.metadata == b.metadata
        assert a.data.shape == b.data.shape and list(a.data) == list(b.data)
        for name in b.data:
            assert a.data[name].num_bits == b.data[name].num_bits
            assert a.data[name].array.dtype == b.data[name].array.dtype
            np.testing.assert_array_equal(a.data[name].array, b.data[name].array)


@each_circuit
@pytest.mark.parametrize("seed", [3, 99])
def test_the_same_shots_as_statevector_sampler(make: Callable[[], QuantumCircuit], seed: int) -> None:
    pubs = [(make(), VALUES), (make(), VALUES[0, 0], 17)]
    ours, theirs = (sampler(seed=seed).run(pubs, shots=200).result() for sampler in (FastSampler, StatevectorSampler))
    assert_the_same(ours, theirs)


BELL = QuantumCircuit(2)
BELL.h(0)
BELL.cx(0, 1)
BELL.measure_all()
MEASURED = all_measured()
PUBS: dict[str, Any] = {
    "a circuit": BELL,
    "a tuple of one": (BELL,),
    "no parameters": (BELL, None, 5),
    "one set": (MEASURED, VALUES[0, 0]),
    "a list of floats": (MEASURED, VALUES[0, 0].tolist()),
    "sets of shape (3, 2)": (MEASURED, VALUES),
    "no sets": (MEASURED, VALUES[:0]),
    "a dict of parameters": (MEASURED, dict(zip(MEASURED.parameters, VALUES[0, 0], strict=True))),
    "a dict of vectors": (MEASURED, {tuple(MEASURED.parameters[::-1]): VALUES[..., ::-1]}, 3),
    "a SamplerPub": SamplerPub.coerce((MEASURED, VALUES)),
    "a SamplerPub with shots": SamplerPub.coerce((MEASURED, VALUES), 7),
}


@pytest.mark.parametrize("pub", PUBS.values(), ids=PUBS)
@pytest.mark.parametrize("shots", [None, 33])
def test_every_form_of_a_pub(pub: Any, shots: int | None) -> None:
    ours, theirs = (
        sampler(seed=2, default_shots=50).run([pub], shots=shots).result()
        for sampler in (FastSampler, StatevectorSampler)
    )
    assert_the_same(ours, theirs)


def test_a_generator_as_seed_advances() -> None:
    ours, theirs = (sampler(seed=np.random.default_rng(8)) for sampler in (FastSampler, StatevectorSampler))
    pubs = [(MEASURED, VALUES), (nothing_measured(), VALUES), BELL]
    for _ in range(2):
        assert_the_same(*(sampler.run(pubs).result() for sampler in (ours, theirs)))


def test_without_a_seed_shots_differ() -> None:
    first, second = (FastSampler().run([BELL], shots=200).result()[0].data.meas.array for _ in range(2))
    assert not np.array_equal(first, second)


def test_properties_and_metadata() -> None:
    sampler = FastSampler(default_shots=77, seed=5, dtype="complex64", num_threads=1)
    assert (sampler.default_shots, sampler.seed) == (77, 5)
    assert (sampler.options.dtype, sampler.options.num_threads) == ("complex64", 1)
    assert FastSampler().default_shots == StatevectorSampler().default_shots
    circuit = BELL.copy()
    circuit.metadata = {"kind": "bell"}
    (result,) = sampler.run([circuit]).result()
    assert result.metadata == {"shots": 77, "circuit_metadata": {"kind": "bell"}}


def test_a_circuit_of_many_qubits_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probabilities of only so many parameter sets are held at a time."""
    monkeypatch.setattr(_sampler, "_PROBABILITIES", 2 << 4)
    assert_the_same(*(s(seed=1).run([(MEASURED, VALUES)]).result() for s in (FastSampler, StatevectorSampler)))


def test_measurements_inside_an_instruction() -> None:
    inner = QuantumCircuit(2, 2)
    inner.measure([0, 1], [1, 0])
    circuit = with_registers(ClassicalRegister(4, "c"))
    flat = circuit.copy()
    circuit.append(inner.to_instruction(), [3, 1], [2, 0])
    flat.measure([3, 1], [0, 2])
    assert_the_same(
        FastSampler(seed=1).run([(circuit, VALUES)]).result(),
        StatevectorSampler(seed=1).run([(flat, VALUES)]).result(),
    )


def test_the_distribution_of_the_shots() -> None:
    circuit = all_measured()
    counts = FastSampler(seed=4).run([(circuit, VALUES[0, 0])], shots=100_000).result()[0].data.meas.get_int_counts()
    expected = Statevector(ANSATZ.assign_parameters(VALUES[0, 0])).probabilities()
    found = np.array([counts.get(k, 0) for k in range(16)]) / 100_000
    np.testing.assert_allclose(found, expected, atol=5 * np.sqrt(0.25 / 100_000))


@pytest.mark.parametrize("num_threads", [0, 1, 3])
def test_threads_and_many_sets(num_threads: int) -> None:
    values = np.random.default_rng(1).normal(size=(40, 16))
    assert_the_same(
        FastSampler(seed=1, num_threads=num_threads).run([(MEASURED, values)], shots=20).result(),
        StatevectorSampler(seed=1).run([(MEASURED, values)], shots=20).result(),
    )


def test_single_precision_draws_nearly_the_same_shots() -> None:
    ours = FastSampler(seed=1, dtype="complex64").run([(MEASURED, VALUES)]).result()[0].data.meas.array
    exact = StatevectorSampler(seed=1).run([(MEASURED, VALUES)]).result()[0].data.meas.array
    assert np.mean(ours == exact) > 0.999


def test_one_sampler_in_many_threads() -> None:
    sampler, pubs = FastSampler(seed=3), [(all_measured(), VALUES[k % 3]) for k in range(24)]
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda pub: sampler.run([pub]).result(), pubs))
    for pub, result in zip(pubs, results, strict=True):
        assert_the_same(result, StatevectorSampler(seed=3).run([pub]).result())


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_copies_and_pickles(copied: Callable[[Any], Any]) -> None:
    sampler = FastSampler(seed=3, default_shots=20)
    expected = sampler.run([(MEASURED, VALUES)]).result()
    assert_the_same(copied(sampler).run([(MEASURED, VALUES)]).result(), expected)


# --- Errors -------------------------------------------------------------------------------------------------


BAD_PUBS: dict[str, Any] = {
    "too long": (BELL, None, 3, 4),
    "too few values": (MEASURED, VALUES[..., :-1]),
    "no values": (MEASURED,),
    "values for none": (BELL, [0.1]),
    "no shots": (BELL, None, 0),
    "negative shots": (BELL, None, -3),
}


@pytest.mark.parametrize("pub", BAD_PUBS.values(), ids=BAD_PUBS)
@pytest.mark.parametrize("make", [StatevectorSampler, FastSampler])
def test_the_same_value_errors(pub: Any, make: Callable[[], Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (the messages are Qiskit's)
        make().run([pub])


@pytest.mark.parametrize(("shots", "kind"), [(0, ValueError), (-1, ValueError), (1.5, TypeError)])
def test_bad_shots(shots: Any, kind: type[Exception]) -> None:
    for make in (StatevectorSampler, FastSampler):
        with pytest.raises(kind, match="shots"):
            make().run([BELL], shots=shots)


def test_no_register_is_a_warning() -> None:
    with pytest.warns(UserWarning, match="no classical register.*measure_all"):
        ours = FastSampler().run([(ANSATZ, VALUES)]).result()
    with pytest.warns(UserWarning, match="classical registers"):
        assert_the_same(ours, StatevectorSampler().run([(ANSATZ, VALUES)]).result())


def test_a_while_loop_is_refused() -> None:
    circuit = QuantumCircuit(2, 2)
    circuit.measure(0, 0)
    with circuit.while_loop((circuit.clbits[0], 1)):
        circuit.x(1)
    circuit.measure(1, 1)
    for act in (lambda: FastSampler().run([circuit]).result(), lambda: FastSampler().probabilities(circuit)):
        with pytest.raises(_errors.CircuitError, match="'while_loop' is not simulated"):
            act()


def test_values_that_are_not_finite() -> None:
    values = VALUES.copy()
    values[1, 0, 4] = np.nan
    with pytest.raises(_errors.ParameterError, match="is nan in sample 2"):
        FastSampler().run([(MEASURED, values)]).result()


@pytest.mark.parametrize(
    ("options", "kind"),
    [({"dtype": "int8"}, _errors.DtypeError), ({"num_threads": -2}, _errors.ParameterError)],
)
def test_bad_options(options: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        FastSampler(**options)


# --- Exact probabilities ------------------------------------------------------------------------------------


def oracle(circuit: QuantumCircuit, values: np.ndarray) -> np.ndarray:
    """Probabilities of the clbits, outcome by outcome from the statevector and the last measurements."""
    qubit_of = {}
    for instruction in circuit.data:
        if instruction.name == "measure":
            qubit_of[circuit.find_bit(instruction.clbits[0]).index] = circuit.find_bit(instruction.qubits[0]).index
    total = np.zeros(2**circuit.num_clbits)
    bare = circuit.remove_final_measurements(inplace=False)
    for index, p in enumerate(Statevector(bare.assign_parameters(values)).probabilities()):
        total[sum((index >> q & 1) << c for c, q in qubit_of.items())] += p
    return total


@each_circuit
def test_probabilities(make: Callable[[], QuantumCircuit]) -> None:
    circuit = make()
    if make is nothing_measured:
        with pytest.raises(_errors.CircuitError, match="measures nothing; .*measure_all"):
            FastSampler().probabilities(circuit, VALUES)
        return
    found = FastSampler().probabilities(circuit, VALUES)
    assert found.shape == (3, 2, 2**circuit.num_clbits)
    for place in np.ndindex(3, 2):
        np.testing.assert_allclose(found[place], oracle(circuit, VALUES[place]), atol=1e-12)


def test_forms_of_parameter_values() -> None:
    sampler = FastSampler()
    expected = sampler.probabilities(MEASURED, VALUES)
    by_name = {p.name: VALUES[..., k] for k, p in enumerate(MEASURED.parameters)}
    np.testing.assert_array_equal(sampler.probabilities(MEASURED, by_name), expected)
    assert sampler.probabilities(MEASURED, VALUES[0, 0]).shape == (16,)
    assert sampler.probabilities(MEASURED, VALUES[:0]).shape == (0, 2, 16)
    assert sampler.probabilities(BELL).shape == (4,)
    with pytest.raises(ValueError, match="number of values"):
        sampler.probabilities(MEASURED)


def test_probabilities_of_a_random_circuit() -> None:
    circuit = quantum_volume(5, seed=3)
    expected = Statevector(circuit).probabilities()
    circuit.measure_all()
    np.testing.assert_allclose(FastSampler().probabilities(circuit), expected, atol=1e-12)
    np.testing.assert_allclose(FastSampler(dtype="complex64").probabilities(circuit), expected, atol=1e-6)


def test_too_many_clbits_for_the_memory() -> None:
    circuit = QuantumCircuit(1, 50)
    circuit.measure(0, 49)
    with pytest.raises(_errors.OutOfMemory, match=r"50 clbits.*GiB"):
        FastSampler().probabilities(circuit)
    (result,) = FastSampler().run([circuit], shots=3).result()
    assert result.data.c.num_bits == 50


# --- Consumers ----------------------------------------------------------------------------------------------


def sampling_vqe(sampler: Any) -> Any:
    from qiskit_algorithms import SamplingVQE
    from qiskit_algorithms.optimizers import SPSA
    from qiskit_algorithms.utils import algorithm_globals

    algorithm_globals.random_seed = 5
    operator = SparsePauliOp(["ZZI", "IZZ", "ZII"], [1.0, -0.5, 0.3])
    solver = SamplingVQE(sampler, real_amplitudes(3, reps=1), SPSA(maxiter=4, learning_rate=0.1, perturbation=0.1))
    return solver.compute_minimum_eigenvalue(operator).eigenvalue


def qaoa(sampler: Any) -> Any:
    from qiskit_algorithms import QAOA
    from qiskit_algorithms.optimizers import SPSA
    from qiskit_algorithms.utils import algorithm_globals

    algorithm_globals.random_seed = 5
    operator = SparsePauliOp(["ZZI", "IZZ", "ZIZ"], [1.0, 1.0, 0.5])
    solver = QAOA(sampler, SPSA(maxiter=4, learning_rate=0.1, perturbation=0.1), reps=2)
    return solver.compute_minimum_eigenvalue(operator).eigenvalue


def fidelity(sampler: Any) -> Any:
    from qiskit_algorithms.state_fidelities import ComputeUncompute

    circuit = real_amplitudes(2, reps=1)
    job = ComputeUncompute(sampler).run([circuit], [circuit], [[0.1, 0.2, 0.3, 0.4]], [[0.4, 0.3, 0.2, 0.1]])
    return job.result().fidelities


@pytest.mark.thinned(3)
@pytest.mark.filterwarnings("ignore")  # of the consumers
@pytest.mark.parametrize("consumer", [sampling_vqe, qaoa, fidelity], ids=lambda f: f.__name__)
def test_users_of_samplers_accept_this_one(consumer: Callable[[Any], Any]) -> None:
    ours, theirs = consumer(FastSampler(seed=6)), consumer(StatevectorSampler(seed=6))
    np.testing.assert_allclose(ours, theirs, atol=1e-9)
