"""Matrix product states against Qiskit's state vectors and finite differences."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch
from circuit_cases import UNITARY, expectation_values, random_circuit, random_observables, random_values, states
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import Initialize, PauliEvolutionGate, get_standard_gate_name_mapping
from qiskit.quantum_info import Pauli, SparsePauliOp, Statevector

from qtm import QuantumModule
from qtm._circuit.flatten import flatten
from qtm._circuit.observables import coerce_observables
from qtm._engines.matrix_product_state.gate_columns import gate_columns
from qtm._engines.matrix_product_state.method import MatrixProductState
from qtm._engines.matrix_product_state.pauli_mpo import pauli_mpo
from qtm._engines.matrix_product_state.predicted_cost import crossings
from qtm._engines.matrix_product_state.readouts import Overlap
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation, Probabilities, Samples, State
from qtm._engines.simulation import Simulation
from qtm._errors import ParameterError, ShapeError, UnsupportedError
from qtm.mps import MPS, TruncationWarning, overlap, simulate

# Few segments, and many.
METHODS = (MatrixProductState(), MatrixProductState(max_bond=4))
each_method = pytest.mark.parametrize("method", METHODS, ids=["free", "segments"])


def simulation(circuit, output, method=METHODS[0], dtype="complex128"):
    return Simulation(circuit, list(circuit.parameters), output, Options(dtype, method=method))


def expectation(observables, num_qubits):
    return Expectation(coerce_observables(observables, num_qubits))


def slope(function, at, direction, h=1e-3):
    """Derivative along a direction, by central differences of fourth order."""
    f = [function(at + s * h * direction) for s in (2, 1, -1, -2)]
    return (-f[0] + 8 * f[1] - 8 * f[2] + f[3]) / (12 * h)


def check_vjp(run, values, seed=0, tolerance=1e-7):
    """The engine's vjp of a random cotangent, along random directions of the angles."""
    angles, prepared = run.arguments(values)
    output, kept = run.engine.forward(angles, prepared, keep=True)
    generator = torch.Generator().manual_seed(seed)
    cotangent = torch.randn(output.shape, generator=generator, dtype=output.dtype)
    by_angles, _ = run.engine.vjp(angles, prepared, cotangent, kept)
    again, _ = run.engine.vjp(angles, prepared, cotangent)
    torch.testing.assert_close(by_angles, again)
    direction = torch.randn(angles.shape, generator=generator, dtype=angles.dtype)
    expected = slope(lambda a: (cotangent.conj() * run.engine.forward(a, prepared)[0]).real.sum(1), angles, direction)
    torch.testing.assert_close((by_angles * direction).sum(1), expected, atol=tolerance, rtol=tolerance)


@each_method
@pytest.mark.parametrize("seed", range(2))
def test_random_circuits_give_the_values_and_derivatives_of_the_state_vector(method, seed):
    circuit, observables = random_circuit(seed, 4, 12), random_observables(seed, 4)
    values = random_values(circuit, 3, seed)
    run = simulation(circuit, expectation(observables, 4), method)
    expected = expectation_values(circuit, list(circuit.parameters), values, observables)
    np.testing.assert_allclose(run.values(values), expected, atol=1e-9)
    check_vjp(run, values, seed)


@pytest.mark.parametrize("name", UNITARY)
def test_every_gate(name):
    gate = get_standard_gate_name_mapping()[name]
    circuit = QuantumCircuit(4)
    for q in range(4):
        circuit.u(0.3 + q, 0.4 * q, 1.1, q)
    vector = ParameterVector("t", len(gate.params))
    qubits = [3, 0, 2][: gate.num_qubits]  # long-range, and against the order of the chain
    circuit.append(gate.base_class(*vector), qubits)
    values = np.random.default_rng(1).uniform(-3, 3, (2, len(vector)))
    found = simulation(circuit, State()).values(values)
    for row, state in zip(found, states(circuit, list(circuit.parameters), values), strict=True):
        assert abs(np.vdot(row, state.data)) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("batch", [0, 1, 17])
@pytest.mark.parametrize("dtype", ["complex128", "complex64"])
def test_batches_and_dtypes(batch, dtype):
    circuit, observables = random_circuit(5, 4, 10), random_observables(5, 4)
    values = random_values(circuit, batch)
    run = simulation(circuit, expectation(observables, 4), dtype=dtype)
    exact = simulation(circuit, expectation(observables, 4), "statevector")
    single = dtype == "complex64"
    tolerance = 1e-4 if single else 1e-9
    angles, _ = exact.arguments(values)
    expected, kept_exact = exact.engine.forward(angles, [], keep=True)
    by_exact, _ = exact.engine.vjp(angles, [], torch.ones_like(expected), kept_exact)
    angles = angles.float() if single else angles
    found, kept = run.engine.forward(angles, [], keep=True)
    assert found.dtype == (torch.float32 if single else torch.float64)
    assert found.shape == (batch, 3)
    torch.testing.assert_close(found.double(), expected, atol=tolerance, rtol=0)
    by_angles, _ = run.engine.vjp(angles, [], torch.ones_like(found), kept)
    torch.testing.assert_close(by_angles.double(), by_exact, atol=10 * tolerance, rtol=0)


@each_method
def test_probabilities_states_and_overlaps_have_derivatives(method):
    circuit = random_circuit(7, 4, 8)
    values = random_values(circuit, 2)
    parameters = list(circuit.parameters)
    exact = states(circuit, parameters, values)
    chosen = simulation(circuit, Probabilities((2, 0)), method)
    np.testing.assert_allclose(chosen.values(values), [s.probabilities([2, 0]) for s in exact], atol=1e-9)
    check_vjp(chosen, values)
    check_vjp(simulation(circuit, State(), method), values)
    other = random_circuit(8, 4, 6, symbolic=False)
    target = simulate(other, np.full(other.num_parameters, 0.3))
    reached = simulation(circuit, Overlap(target), method)
    expected = [abs(np.vdot(target.statevector()[0].numpy(), s.data)) for s in exact]
    np.testing.assert_allclose(np.abs(reached.values(values)[:, 0]), expected, atol=1e-9)
    check_vjp(reached, values)


def chain(num_qubits, depth, ring=False):
    angles = iter(ParameterVector("t", 2 * num_qubits * depth))
    circuit = QuantumCircuit(num_qubits)
    for _ in range(depth):
        for q in range(num_qubits):
            circuit.ry(next(angles), q)
            circuit.rz(next(angles), q)
        for q in range(num_qubits - (not ring)):
            circuit.cx(q, (q + 1) % num_qubits)
    return circuit


def xxz(num_qubits):
    terms = [(p, [q, q + 1], w) for q in range(num_qubits - 1) for p, w in (("XX", 1), ("YY", 1), ("ZZ", 0.5))]
    return SparsePauliOp.from_sparse_list(terms, num_qubits)


def test_twelve_qubits_at_full_bond_equal_the_state_vector():
    circuit, hamiltonian = chain(12, 3, ring=True), xxz(12)
    values = np.random.default_rng(0).uniform(-3, 3, (1, circuit.num_parameters))
    results = []
    for method in ("statevector", MatrixProductState(max_bond=64)):
        run = simulation(circuit, expectation(hamiltonian, 12), method)
        output, kept = run.engine.forward(*run.arguments(values), keep=True)
        results.append((output, run.engine.vjp(*run.arguments(values), torch.ones_like(output), kept)[0]))
    torch.testing.assert_close(results[1][0], results[0][0], atol=1e-9, rtol=0)
    torch.testing.assert_close(results[1][1], results[0][1], atol=1e-7, rtol=0)


def test_fifty_qubits_in_a_chain_against_values_worked_out_by_hand():
    # GHZ: <Z_i Z_j> = 1, <Z> = 0, <X...X> = 1.
    circuit = QuantumCircuit(50)
    circuit.h(0)
    for q in range(49):
        circuit.cx(q, q + 1)
    zz = SparsePauliOp.from_sparse_list([("ZZ", [3, 47], 1.0)], 50)
    z = SparsePauliOp.from_sparse_list([("Z", [20], 1.0)], 50)
    run = simulation(circuit, expectation([zz, z, SparsePauliOp("X" * 50), SparsePauliOp("I" * 50, 0.25)], 50))
    np.testing.assert_allclose(run.values(np.zeros((1, 0))), [[1, 0, 1, 0.25]], atol=1e-12)


def test_mpo_of_a_nearest_neighbour_model_has_five_states_and_one_output_each():
    sites = tuple(range(20))
    for observables in (coerce_observables(xxz(20), 20), coerce_observables(list(xxz(20)), 20)):
        # 0, three inside a string, and "finished", which is kept apart
        assert max(pauli_mpo(observables, sites).num_states) == 4
    # Sums of equal long strings share a state: (X0 + Y0) Z1 Z2 (X3 - Z3)
    product = SparsePauliOp(["XZZX", "XZZY", "ZZZX", "ZZZY"], [1, 1, -1, -1])
    assert pauli_mpo(coerce_observables(product, 4), range(4)).num_states == (1, 2, 2, 2)


def test_preparations_on_scattered_qubits_and_their_derivatives():
    rng = np.random.default_rng(3)
    circuit = QuantumCircuit(5)
    fixed = rng.normal(size=4) + 1j * rng.normal(size=4)
    circuit.append(Initialize(fixed / np.linalg.norm(fixed)), [4, 1])
    circuit = circuit.compose(chain(5, 1))
    values = random_values(circuit, 2)
    observables = random_observables(3, 5)
    for method in (*METHODS, MatrixProductState(max_bond=1, tolerance=2.0)):
        run = simulation(circuit, expectation(observables, 5), method)
        angles, prepared = run.arguments(values)
        output, kept = run.engine.forward(angles, prepared, keep=True)
        if method.max_bond != 1:
            expected = expectation_values(circuit, list(circuit.parameters), values, observables)
            np.testing.assert_allclose(output, expected, atol=1e-9)
            cotangent = torch.ones_like(output)
            _, (by_prepared,) = run.engine.vjp(angles, prepared, cotangent, kept, by_prepared=True)
            assert by_prepared.shape == prepared[0].shape
            # Along the tangent of the sphere, where the state stays normalised to first order
            psi = prepared[0]
            d = torch.as_tensor(rng.normal(size=psi.shape) + 1j * rng.normal(size=psi.shape))
            d = d - (psi.conj() * d).sum() * psi

            def value(step, psi=psi, d=d, run=run, angles=angles):
                moved = psi + step * d
                return run.engine.forward(angles, [moved / torch.linalg.vector_norm(moved)])[0].sum()

            h = 1e-3
            expected = (8 * (value(h) - value(-h)) - (value(2 * h) - value(-2 * h))) / (12 * h)
            torch.testing.assert_close((by_prepared.conj() * d).real.sum(), expected, atol=1e-6, rtol=1e-6)


def test_truncation_is_reported_and_warned_of():
    circuit = chain(8, 4)
    values = random_values(circuit, 2)
    run = simulation(circuit, expectation(xxz(8), 8), MatrixProductState(max_bond=3))
    with pytest.warns(TruncationWarning, match="discarded a weight of"):
        run.values(values)
    assert 1e-6 < run.engine.discarded_weight < 1
    assert "discarded" in str(run.plan(2))
    # Discarded weight bounds the infidelity of a single truncation and tells that of several.
    state = simulate(circuit, values, max_bond=8, tolerance=1.0)
    exact = np.stack([s.data for s in states(circuit, list(circuit.parameters), values)])
    fidelity = np.abs((state.statevector().numpy().conj() * exact).sum(1)) ** 2
    assert np.all(1 - fidelity < 3 * state.discarded_weight.numpy() + 1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        simulation(circuit, expectation(xxz(8), 8), MatrixProductState(max_bond=16)).values(values)


def test_gradients_under_slight_truncation_follow_the_exact_ones():
    circuit = chain(10, 4)
    values = 0.2 * random_values(circuit, 1)
    results = []
    for method in ("statevector", MatrixProductState(max_bond=8, tolerance=1.0)):
        run = simulation(circuit, expectation(xxz(10), 10), method)
        output, kept = run.engine.forward(*run.arguments(values), keep=True)
        results.append(run.engine.vjp(*run.arguments(values), torch.ones_like(output), kept)[0])
    assert 0.01 < run.engine.discarded_weight < 0.1
    assert torch.nn.functional.cosine_similarity(*results).item() > 0.98


@each_method
def test_samples_follow_the_probabilities(method):
    circuit = random_circuit(9, 4, 10)
    values = random_values(circuit, 2)
    run = simulation(circuit, Samples((3, 1)), method)
    shots = run.sample(values, 4000, np.random.default_rng(0))
    assert shots.shape == (2, 4000, 2)
    for bits, state in zip(shots, states(circuit, list(circuit.parameters), values), strict=True):
        counts = np.bincount(bits[:, 0] + 2 * bits[:, 1], minlength=4) / 4000
        np.testing.assert_allclose(counts, state.probabilities([3, 1]), atol=5 * 0.5 / np.sqrt(4000))


def test_states_amplitudes_overlaps_and_starts():
    circuit, other = chain(5, 2, ring=True), chain(5, 1)
    circuit.swap(1, 4)
    values, first = random_values(circuit, 2), random_values(other, 1)
    exact = states(circuit, list(circuit.parameters), values)
    state = simulate(circuit, values)
    start = simulate(other, first[0])
    strings = ["00000", "10110", "00001"]
    index = [int(s, 2) for s in strings]
    found, vectors = state.amplitudes(strings).numpy(), state.statevector().numpy()
    np.testing.assert_allclose(found, vectors[:, index], atol=1e-12)
    for row, e in zip(vectors, exact, strict=True):
        assert abs(np.vdot(row, e.data)) == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(start.overlap(state), vectors @ start.statevector()[0].numpy().conj(), atol=1e-12)
    assert state.sample(7, seed=1).shape == (2, 7, 5)
    # An MPS to start from stands for a circuit in front.
    bound = other.assign_parameters(first[0]).compose(circuit)
    method = MatrixProductState(initial=start)
    observables = random_observables(2, 5)
    run = simulation(circuit, expectation(observables, 5), method)
    expected = expectation_values(bound, list(circuit.parameters), values, observables)
    np.testing.assert_allclose(run.values(values), expected, atol=1e-9)
    check_vjp(run, values)


def test_overlaps_with_a_target_train():
    circuit = chain(3, 1)
    target = simulate(circuit, np.full(6, 0.7))
    values = torch.full((6,), 0.2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: overlap(circuit, v, target), [values], fast_mode=True)
    optimizer = torch.optim.Adam([values], lr=0.2)
    for _ in range(40):
        loss = 1 - overlap(circuit, values, target).abs() ** 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1e-2


def test_states_from_and_to_tensors():
    with pytest.raises(ShapeError, match="site 1 has shape"):
        MPS([np.ones((1, 2, 2)), np.ones((3, 2, 1))])
    with pytest.raises(ShapeError, match="right bond"):
        MPS([np.ones((1, 2, 2))])
    with pytest.raises(ParameterError, match="norm"):
        MPS([np.zeros((1, 2, 1))])
    with pytest.raises(ShapeError):
        MPS([])
    state = MPS([np.ones((1, 2, 1))] * 3)
    np.testing.assert_allclose(state.statevector()[0], np.full(8, 8**-0.5))
    with pytest.raises(ParameterError, match="is not an outcome"):
        state.amplitudes(["01"])
    with pytest.raises(ShapeError):
        state.overlap(MPS([np.ones((1, 2, 1))]))
    assert "qubits=3" in repr(state)


def test_quimb_states_go_both_ways():
    quimb = pytest.importorskip("quimb.tensor")
    theirs = quimb.MPS_rand_state(5, 3, dtype=complex, seed=1)
    ours = MPS.from_quimb(theirs)
    dense = theirs.to_dense()[:, 0].reshape([2] * 5).transpose(range(5)[::-1]).ravel()
    assert abs(np.vdot(ours.statevector()[0].numpy(), dense)) == pytest.approx(np.linalg.norm(dense), abs=1e-10)
    np.testing.assert_allclose(MPS.from_quimb(ours.to_quimb()).statevector(), ours.statevector(), atol=1e-12)


def test_nonfinite_values_affect_only_their_sample():
    circuit = chain(4, 2)
    run = simulation(circuit, expectation("individualZ", 4), MatrixProductState(max_bond=2, tolerance=1.0))
    values = random_values(circuit, 3)
    expected = run.values(values)
    angles, prepared = run.arguments(values)
    angles[1, 3] = torch.nan
    found = run.engine.forward(angles, prepared)[0]
    assert found[1].isnan().all()
    np.testing.assert_allclose(found[[0, 2]], expected[[0, 2]], atol=1e-9)
    values[0, 0] = np.inf
    with pytest.raises(ParameterError, match="sample 0"):
        run.values(values)


def test_engines_are_pickled_and_keep_their_results():
    circuit = chain(4, 2)
    run = simulation(circuit, expectation(xxz(4), 4))
    values = random_values(circuit, 2)
    angles, prepared = run.arguments(values)
    output, kept = run.engine.forward(angles, prepared, keep=True)
    copy = pickle.loads(pickle.dumps(run.engine))
    torch.testing.assert_close(copy.forward(angles, prepared)[0], output)
    first = run.engine.vjp(angles, prepared, torch.ones_like(output), kept)[0]
    run.engine.forward(angles + 1, prepared, keep=True)
    torch.testing.assert_close(run.engine.vjp(angles, prepared, torch.ones_like(output), kept)[0], first)


def test_unsupported_circuits_are_refused_with_the_figures():
    deep = QuantumCircuit(80)
    for _ in range(60):
        for q in range(79):
            deep.cx(q, q + 1)
    with pytest.raises(UnsupportedError, match=r"bond of dimension 2\^40 between qubits 39 and 40.*60 gates"):
        simulation(deep, expectation("individualZ", 80), MatrixProductState())
    circuit = chain(14, 1)
    for output, why in (
        (Probabilities(tuple(range(13))), "at most 12 qubits"),
        (Overlap(MPS([np.ones((1, 2, 1))])), "1 qub"),
    ):
        with pytest.raises(UnsupportedError, match=why):
            simulation(circuit, output, MatrixProductState())
    with pytest.raises(UnsupportedError, match="at most 26"):
        simulation(chain(27, 1), State(), MatrixProductState())
    for options in ({"max_bond": 0}, {"cutoff": 1.0}, {"tolerance": -1}, {"adjoint_bond": 2.5}, {"initial": "x"}):
        with pytest.raises(ParameterError, match=next(iter(options))):
            MatrixProductState(**options)
    prepared = QuantumCircuit(2)
    prepared.initialize([0.6, 0.8], 0)
    with pytest.raises(UnsupportedError, match="cannot prepare"):
        simulation(prepared, State(), MatrixProductState(initial=MPS([np.ones((1, 2, 1))] * 2)))


def test_auto_takes_it_for_wide_chains_and_the_state_vector_for_small_ones():
    wide, small = chain(40, 2), chain(4, 2)
    assert simulation(wide, expectation(xxz(40), 40), "auto").plan(1).method == "matrix_product_state"
    assert simulation(small, expectation(xxz(4), 4), "auto").plan(1).method == "statevector"


def test_a_module_trains_forty_qubits():
    circuit = chain(40, 2)
    module = QuantumModule(
        circuit, None, list(circuit.parameters), observables=[xxz(40)], seed_init=0,
        method=("matrix_product_state", {"max_bond": 16}),
    ).double()  # fmt: skip
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    energies = []
    for _ in range(4):
        energy = module()[0]
        optimizer.zero_grad()
        energy.backward()
        optimizer.step()
        energies.append(energy.item())
    assert energies[-1] < energies[0] - 1


def test_statevector_of_a_labelled_state():
    circuit = QuantumCircuit(3)
    circuit.x(0)
    np.testing.assert_allclose(simulate(circuit).statevector()[0], Statevector.from_label("001").data, atol=1e-15)


def triples(seed: int) -> QuantumCircuit:
    """Rotations of pairs, commuting and not, in both orders of the qubits, among other gates."""
    rng = np.random.default_rng(seed)
    circuit, t = QuantumCircuit(5), iter(ParameterVector("t", 60))
    for _ in range(6):
        for q in range(5):
            circuit.ry(next(t), q)
        a, b = rng.choice(5, 2, replace=False).tolist()
        for letters in rng.permutation([["XX", "YY", "ZZ"], ["XX", "YZ", "ZY"], ["XY", "YX", "ZZ"], ["XX", "XY", "YY"]][
            int(rng.integers(4))
        ]):  # fmt: skip
            pair = [a, b] if rng.random() < 0.5 else [b, a]
            circuit.append(PauliEvolutionGate(Pauli(str(letters)), time=next(t)), pair)
        if rng.random() < 0.5:
            circuit.rzz(0.3, a, b)
    return circuit.assign_parameters({p: rng.uniform(-2, 2) for p in list(circuit.parameters)[::4]})


@pytest.mark.thinned(4)
@pytest.mark.parametrize("seed", range(8))
def test_commuting_rotations_of_a_pair_are_one_gate(seed):
    circuit, output = triples(seed), expectation(random_observables(seed, 5), 5)
    values = np.random.default_rng(seed).uniform(-3, 3, (2, circuit.num_parameters))
    exact = simulation(circuit, output, "statevector")
    at = exact.arguments(values)
    wanted, cotangent = exact.values(values), torch.ones(2, 3, dtype=torch.float64)
    gradient = exact.engine.vjp(*at, cotangent)[0]
    for method in (MatrixProductState(), MatrixProductState(max_bond=4, tolerance=1.0)):
        run = simulation(circuit, output, method)
        assert run.engine.plan(1).states
        if method.max_bond is None:
            np.testing.assert_allclose(run.values(values), wanted, atol=1e-10)
            torch.testing.assert_close(run.engine.vjp(*at, cotangent)[0], gradient, atol=1e-8, rtol=0)
        else:
            assert np.isfinite(run.values(values)).all()


def test_a_merged_gate_opens_four_and_not_eight():
    circuit = QuantumCircuit(2)
    circuit.rxx(0.1, 0, 1)
    circuit.rzz(0.2, 1, 0)
    circuit.ryy(0.3, 0, 1)
    flat = flatten(circuit)
    assert crossings(flat) == (2,)
    columns = gate_columns(2, flat.operations, [0], 7)
    assert [segment.growth for segment in columns.segments] == [(4,)]
    circuit.rx(0.1, 0)
    circuit.rxx(0.1, 0, 1)
    assert crossings(flatten(circuit)) == (3,)
