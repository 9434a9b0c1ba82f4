"""The contract of every simulation method: the same values and derivatives, refusals with a reason."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import numpy as np
import pytest
import torch
from circuit_cases import UNITARY, differences, expectation_values, random_circuit, random_observables
from dense_engine import Dense
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import real_amplitudes, zz_feature_map
from qiskit.quantum_info import Pauli, Statevector

import qtm
from qtm._circuit.observables import coerce_observables
from qtm._engines.options import Options
from qtm._engines.registry import METHODS, choose, simulation_method
from qtm._engines.simulation import Simulation
from qtm._engines.triton_statevector import launch
from qtm.engines import (
    JVP,
    METRIC,
    SAMPLES,
    SECOND,
    VALUES,
    VJP,
    Expectation,
    Probabilities,
    Samples,
    SimulationMethod,
    State,
)

EVERY: dict[str, SimulationMethod] = {"dense": Dense(), **{name: kind() for name, kind in METHODS.items()}}
TOLERANCE = {"complex128": 1e-9, "complex64": 5e-4}
N = 3

REFUSAL = launch.refusal()
NO_TRITON = pytest.mark.skipif(REFUSAL is not None, reason=f"method 'triton' {REFUSAL}")


def every_method(*of_triton: pytest.MarkDecorator) -> pytest.MarkDecorator:
    """All methods; Triton's interpreter takes its time, so that some tests are slow for it."""
    marks = {"triton": (NO_TRITON, *of_triton)}
    return pytest.mark.parametrize("method", [pytest.param(m, id=n, marks=marks.get(n, ())) for n, m in EVERY.items()])


each_method, each_method_triton_slowly = every_method(), every_method(pytest.mark.slow)
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE)


@cache
def circuit() -> QuantumCircuit:
    """Phases, even and odd generators, Clifford gates and an angle that several rotations share."""
    made = zz_feature_map(N, reps=1).compose(real_amplitudes(N, reps=1))
    made.rzz(made.parameters[0] * made.parameters[-1], 0, N - 1)
    made.sdg(1)
    made.swap(0, 2)
    return made


def simulation(method: SimulationMethod, output, dtype: str = "complex128", made: QuantumCircuit | None = None):
    made = made or circuit()
    return Simulation(made, list(made.parameters), output, Options(dtype, 1, method=method))


def expectation(seed: int = 0, num_qubits: int = N) -> Expectation:
    return Expectation(coerce_observables(random_observables(seed, num_qubits), num_qubits))


def values(batch: int, made: QuantumCircuit | None = None) -> np.ndarray:
    count = (made or circuit()).num_parameters
    return np.random.default_rng(3).uniform(-np.pi, np.pi, (batch, count))


def supports(method: SimulationMethod, output, capability: str) -> None:
    if capability not in method.gives.get(type(output), ()):
        pytest.skip(f"{method.name} declares no {capability} of {type(output).__name__}")


@cache
def slopes() -> np.ndarray:
    """Derivatives (1, observables, angles) of the first sample by finite differences."""
    exact = simulation(Dense(), expectation())
    at = exact.arguments(values(1))[0].numpy()
    return differences(lambda a: exact.engine.forward(torch.from_numpy(a), [])[0].numpy(), at)


@pytest.mark.thinned(5)
@each_method
@each_dtype
@pytest.mark.parametrize("batch", [0, 1, 17])
def test_expectation_values(method, dtype, batch):
    found = simulation(method, expectation(), dtype).values(values(batch))
    assert found.shape == (batch, 3)
    expected = expectation_values(circuit(), list(circuit().parameters), values(batch), random_observables(0, N))
    np.testing.assert_allclose(found, expected.reshape(batch, 3), atol=TOLERANCE[dtype])


@pytest.mark.thinned(5)
@each_method
@each_dtype
@pytest.mark.parametrize("batch", [0, 1, 17])
def test_vjp_by_angles(method, dtype, batch):
    output = expectation()
    supports(method, output, VJP)
    made = simulation(method, output, dtype)
    angles, prepared = made.arguments(values(batch))
    cotangent = torch.from_numpy(np.random.default_rng(4).normal(size=(batch, 3)))
    _, residuals = made.engine.forward(angles, prepared, keep=True)
    gradient, by_prepared = made.engine.vjp(angles, prepared, cotangent, residuals)
    assert gradient.shape == angles.shape and by_prepared is None
    again, _ = made.engine.vjp(angles, prepared, cotangent)
    torch.testing.assert_close(gradient, again, atol=10 * TOLERANCE[dtype], rtol=0)
    expected = np.einsum("bm,bmk->bk", cotangent[:1], slopes()[:batch])
    np.testing.assert_allclose(gradient[:1], expected, atol=max(1e-7, 10 * TOLERANCE[dtype]))


@pytest.mark.thinned(3)
@each_method
@pytest.mark.parametrize("seed", range(8))
def test_random_circuits(method, seed):
    made = random_circuit(seed, 3, 12, UNITARY)
    output = expectation(seed, 3)
    at = values(2, made)
    found = simulation(method, output, made=made).values(at)
    expected = expectation_values(made, list(made.parameters), at, random_observables(seed, 3))
    np.testing.assert_allclose(found, expected, atol=1e-9)


@each_method_triton_slowly
def test_interleaved_and_repeated_derivatives(method):
    output = expectation()
    supports(method, output, VJP)
    made = simulation(method, output)
    first, second = (made.arguments(v) for v in (values(3), -values(3)))
    one = torch.ones(3, 3, dtype=torch.float64)
    kept = [made.engine.forward(*at, keep=True)[1] for at in (first, second)]
    found = [made.engine.vjp(*at, one, states)[0] for at, states in zip((second, first), kept[::-1], strict=True)]
    for at, gradient in zip((second, first), found, strict=True):
        torch.testing.assert_close(gradient, made.engine.vjp(*at, one)[0], atol=1e-10, rtol=0)


@each_method_triton_slowly
def test_threads_and_pickles_agree(method):
    made = simulation(method, expectation())
    at = values(5)
    expected = made.values(at)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: made.values(at), range(4)):
            np.testing.assert_allclose(found, expected, atol=1e-12)
    copied = pickle.loads(pickle.dumps(made.engine))
    np.testing.assert_allclose(copied.forward(*made.arguments(at))[0], expected, atol=1e-12)


@each_method
@pytest.mark.parametrize("qubits", [(0, 1, 2), (2,), (2, 0)])
def test_probabilities(method, qubits):
    output = Probabilities(qubits)
    supports(method, output, VALUES)
    made = simulation(method, output)
    at = values(3)
    parameters = list(circuit().parameters)
    for row, found in zip(at, made.values(at), strict=True):
        state = Statevector(circuit().assign_parameters(dict(zip(parameters, row, strict=True))))
        np.testing.assert_allclose(found, state.probabilities(list(qubits)), atol=1e-10)
    supports(method, output, VJP)
    angles, prepared = made.arguments(at)
    cotangent = torch.from_numpy(np.random.default_rng(4).normal(size=(3, 2 ** len(qubits))))
    slopes = differences(lambda a: made.engine.forward(torch.from_numpy(a), [])[0].numpy(), angles.numpy())
    expected = np.einsum("bm,bmk->bk", cotangent, slopes)
    np.testing.assert_allclose(made.engine.vjp(angles, prepared, cotangent)[0], expected, atol=1e-8)


def complex_numbers(*shape: int) -> torch.Tensor:
    rng = np.random.default_rng(4)
    return torch.from_numpy(rng.normal(size=shape) + 1j * rng.normal(size=shape))


def statevectors(made: QuantumCircuit, at: np.ndarray) -> np.ndarray:
    """Qiskit's states (batch, 2**qubits), global phase included."""
    parameters = list(made.parameters)
    rows = [Statevector(made.assign_parameters(dict(zip(parameters, row, strict=True)))).data for row in at]
    return np.array(rows, complex).reshape(len(at), 2**made.num_qubits)


@pytest.mark.thinned(5)
@each_method
@each_dtype
@pytest.mark.parametrize("batch", [0, 1, 17])
def test_states(method, dtype, batch):
    """With a global phase of its own, and with phases that gates have (p, y, t, sx, u)."""
    supports(method, State(), VALUES)
    made = circuit().copy()
    made.global_phase = made.parameters[0] * made.parameters[1] + 0.3
    made.y(0)
    made.t(1)
    made.sx(2)
    made.u(*made.parameters[:3], 1)
    at = values(batch, made)
    simulated = simulation(method, State(), dtype, made)
    np.testing.assert_allclose(simulated.values(at), statevectors(made, at), atol=TOLERANCE[dtype])
    supports(method, State(), VJP)
    angles, prepared = simulated.arguments(at)
    cotangent = complex_numbers(batch, 8).to(torch.complex64 if dtype == "complex64" else torch.complex128)
    found, residuals = simulated.engine.forward(angles, prepared, keep=True)
    gradient, by_prepared = simulated.engine.vjp(angles, prepared, cotangent, residuals)
    assert found.shape == (batch, 8) and gradient.shape == angles.shape and by_prepared is None
    torch.testing.assert_close(simulated.engine.vjp(angles, prepared, cotangent)[0], gradient, atol=1e-3, rtol=0)
    if not batch:
        return
    exact = simulation(method, State(), "complex128", made).engine
    slopes = differences(lambda a: exact.forward(torch.from_numpy(a), [])[0].numpy(), angles.double().numpy())
    expected = np.einsum("bm,bmk->bk", cotangent.numpy().conj(), slopes).real
    np.testing.assert_allclose(gradient, expected, atol=max(1e-7, 20 * TOLERANCE[dtype]))


@pytest.mark.thinned(3)
@each_method
@pytest.mark.parametrize("seed", range(8))
def test_states_of_random_circuits(method, seed):
    supports(method, State(), VALUES)
    made = random_circuit(seed, 2 + seed % 3, 14, UNITARY)
    at = values(2, made)
    np.testing.assert_allclose(simulation(method, State(), made=made).values(at), statevectors(made, at), atol=1e-9)


@each_method_triton_slowly
def test_states_from_prepared_amplitudes(method):
    supports(method, State(), VJP)
    made = QuantumCircuit(3)
    made.prepare_state(complex_numbers(4).numpy() / np.linalg.norm(complex_numbers(4)), [2, 0])
    made.compose(circuit(), inplace=True)
    at = values(2, made)
    simulated = simulation(method, State(), made=made)
    np.testing.assert_allclose(simulated.values(at), statevectors(made, at), atol=1e-9)
    angles, prepared = simulated.arguments(at)
    cotangent = complex_numbers(2, 8)
    _, by_prepared = simulated.engine.vjp(angles, prepared, cotangent, by_prepared=True)

    def normalized(amplitudes: torch.Tensor) -> torch.Tensor:
        return amplitudes / torch.linalg.vector_norm(amplitudes, dim=1, keepdim=True)

    start = prepared[0].clone().requires_grad_()
    gradient = torch.autograd.grad(normalized(start), start, by_prepared[0].sum(0, keepdim=True))[0][0]
    for place, unit in ((0, 1), (1, 1j), (3, 1)):
        step = torch.zeros(1, 4, dtype=torch.complex128)
        step[0, place] = 1e-6 * unit
        high, low = (simulated.engine.forward(angles, [normalized(prepared[0] + s)])[0] for s in (step, -step))
        slope = (cotangent.conj() * (high - low)).real.sum().item() / 2e-6
        assert (gradient[place].conj() * unit).real.item() == pytest.approx(slope, abs=1e-7)


# Tangents


OUTPUTS = {"expectation": expectation(), "probabilities": Probabilities((2, 0)), "state": State()}
each_output = pytest.mark.parametrize("output", OUTPUTS.values(), ids=OUTPUTS)


def prepared_circuit() -> QuantumCircuit:
    """Two preparations, so that states are products of amplitudes, before the circuit."""
    made = QuantumCircuit(3)
    for count, qubits in ((4, [2, 0]), (2, [1])):
        made.prepare_state(complex_numbers(count).numpy() / np.linalg.norm(complex_numbers(count)), qubits)
    made.compose(circuit(), inplace=True)
    made.p(made.parameters[0], 1)
    return made


def along(function, point: list[torch.Tensor], tangents: list[torch.Tensor]) -> torch.Tensor:
    """The derivative of ``function`` by a fourth-order central difference."""

    def moved(step: float) -> torch.Tensor:
        return function(*(p + step * t for p, t in zip(point, tangents, strict=True)))

    h = 1e-3
    return (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h)


@each_method
@each_output
@each_dtype
@pytest.mark.parametrize("make", [circuit, prepared_circuit])
@pytest.mark.parametrize("batch", [0, 1, 17])
@pytest.mark.thinned(7)
def test_derivatives_along_a_tangent(method, output, dtype, make, batch):
    """`jvp` and `second` are what `forward` and `vjp` change by, also where prepared amplitudes move."""
    supports(method, output, JVP)
    supports(method, output, SECOND)
    made = simulation(method, output, dtype, make())
    exact = simulation(method, output, "complex128", make()).engine
    angles, prepared = made.arguments(values(batch, make()))
    tangent = torch.from_numpy(np.random.default_rng(6).normal(size=angles.shape))
    moving = [complex_numbers(*p.shape).to(p.dtype) for p in prepared]
    found = made.engine.jvp(angles, prepared, tangent, moving)
    outputs = made.engine.forward(angles, prepared)[0]
    assert found.shape == outputs.shape
    cotangent = complex_numbers(*outputs.shape) if outputs.is_complex() else complex_numbers(*outputs.shape).real
    by_angles, by_prepared = made.engine.second(
        angles, prepared, cotangent.to(outputs.dtype), tangent, moving, by_prepared=True
    )
    assert by_angles.shape == angles.shape
    if not batch:
        return
    point, tangents = [angles.double(), *(p.to(torch.complex128) for p in prepared)], [tangent, *moving]
    tolerance = max(1e-8, 100 * TOLERANCE[dtype]) if dtype == "complex64" else 1e-8
    expected = along(lambda a, *p: exact.forward(a, p)[0], point, tangents)
    np.testing.assert_allclose(found, expected, atol=tolerance)
    expected = along(lambda a, *p: exact.vjp(a, p, cotangent)[0], point, tangents)
    np.testing.assert_allclose(by_angles, expected, atol=10 * tolerance)
    for place in range(len(prepared)):
        found = partial(exact.vjp, cotangent=cotangent, by_prepared=True)
        expected = along(lambda a, *p, i=place, vjp=found: vjp(a, p)[1][i], point, tangents)
        np.testing.assert_allclose(by_prepared[place], expected, atol=10 * tolerance)
    still = made.engine.second(angles, prepared, cotangent.to(outputs.dtype), tangent)[0]
    expected = along(lambda a, *p: exact.vjp(a, point[1:], cotangent)[0], point[:1], tangents[:1])
    np.testing.assert_allclose(still, expected, atol=10 * tolerance)


@each_method
@each_output
def test_tangents_that_are_not_declared_are_refused(method, output):
    supports(method, output, VALUES)
    made = simulation(method, output)
    angles, prepared = made.arguments(values(1))
    outputs = made.engine.forward(angles, prepared)[0]
    if JVP not in method.gives[type(output)]:
        with pytest.raises(qtm.UnsupportedError, match="forward mode"):
            made.engine.jvp(angles, prepared, angles)
    if SECOND not in method.gives[type(output)]:
        with pytest.raises(qtm.UnsupportedError, match="first derivatives"):
            made.engine.second(angles, prepared, outputs, angles)
    if METRIC not in method.gives[type(output)]:
        with pytest.raises(qtm.UnsupportedError, match="no metric"):
            made.engine.metric_product(angles, prepared, angles)


@each_method
@pytest.mark.parametrize("make", [circuit, prepared_circuit])
def test_metric_products(method, make):
    """Re(<d_i psi|d_k psi> - <d_i psi|psi><psi|d_k psi>), from finite differences of Qiskit's order of amplitudes."""
    supports(method, State(), METRIC)
    made = simulation(method, State(), made=make())
    angles, prepared = made.arguments(values(3, make()))
    tangent = torch.from_numpy(np.random.default_rng(6).normal(size=angles.shape))
    slopes = differences(
        lambda a: made.engine.forward(torch.from_numpy(a), [p.expand(len(a), -1) for p in prepared])[0].numpy(),
        angles.numpy(),
    )  # (batch, amplitudes, angles)
    states = made.engine.forward(angles, prepared)[0].numpy()
    berry = np.einsum("ba,bak->bk", states.conj(), slopes)
    metric = (np.einsum("bai,bak->bik", slopes.conj(), slopes) - berry.conj()[:, :, None] * berry[:, None]).real
    expected = np.einsum("bik,bk->bi", metric, tangent)
    np.testing.assert_allclose(made.engine.metric_product(angles, prepared, tangent), expected, atol=1e-8)


@each_method
def test_samples(method):
    output = Samples((2, 0))
    supports(method, output, SAMPLES)
    bits = simulation(method, output).sample(values(2), 4000, np.random.default_rng(0))
    assert bits.shape == (2, 4000, 2) and bits.dtype == bool
    exact = simulation(METHODS["statevector"](), Probabilities((2, 0))).values(values(2))
    for shots, expected in zip(bits, exact, strict=True):
        counts = np.bincount(shots[:, 0] + 2 * shots[:, 1], minlength=4) / 4000
        np.testing.assert_allclose(counts, expected, atol=0.04)  # five standard deviations


@each_method
def test_a_module_takes_it(method):
    made = real_amplitudes(N, reps=1)
    modules = [
        qtm.QuantumModule(made, None, made.parameters, seed_init=0, method=m).double() for m in (method, "statevector")
    ]
    for module in modules:
        (module() ** 2).sum().backward()
    torch.testing.assert_close(modules[0](), modules[1](), atol=1e-9, rtol=0)
    torch.testing.assert_close(modules[0].variational.grad, modules[1].variational.grad, atol=1e-7, rtol=0)
    assert modules[0].plan().method == method.name


@each_method
def test_primitives_accept_the_method(method):
    made = circuit()
    at = values(2)
    observables = [[o] for o in random_observables(0, N)]
    found = qtm.FastEstimator(method=method).run([(made, observables, at)]).result()[0].data.evs
    expected = expectation_values(made, list(made.parameters), at, random_observables(0, N))
    np.testing.assert_allclose(found.T, expected, atol=1e-9)
    measured = made.copy()
    measured.measure_all()
    supports(method, Probabilities((0,)), VALUES)
    shots = qtm.FastSampler(seed=1, method=method).run([(measured, at[0])], shots=100).result()[0].data.meas
    assert (
        shots.get_counts()
        == qtm.FastSampler(seed=1).run([(measured, at[0])], shots=100).result()[0].data.meas.get_counts()
    )


@each_method_triton_slowly
def test_networks_and_gradients_accept_the_method(method):
    made, at = circuit(), values(2)
    parameters = list(made.parameters)
    weights = {"weight_params": parameters}
    networks = [
        lambda m: qtm.EstimatorQNN(circuit=made, observables=["ZZI", "XIY"], method=m, **weights),
        lambda m: qtm.SamplerQNN(circuit=made, interpret=lambda k: k % 3, output_shape=3, method=m, **weights),
    ]
    if Probabilities not in method.gives:
        networks.pop()
    for make in networks:
        found, expected = make(method), make("statevector")
        np.testing.assert_allclose(found.forward(None, at[0]), expected.forward(None, at[0]), atol=1e-9)
        np.testing.assert_allclose(found.backward(None, at[0])[1], expected.backward(None, at[0])[1], atol=1e-7)
    one, other = (
        qtm.FastReverseEstimatorGradient(method=m).run([made], [["ZZI", "XIY"]], [at[1]]).result().gradients[0]
        for m in (method, "statevector")
    )
    np.testing.assert_allclose(one, other, atol=1e-7)


def test_networks_refuse_a_method_beside_a_primitive():
    made = circuit()
    options = {"circuit": made, "weight_params": list(made.parameters), "method": "statevector"}
    with pytest.raises(qtm.ParameterError, match="method= applies to qtm's simulator"):
        qtm.EstimatorQNN(estimator=qtm.FastEstimator(), **options)
    with pytest.raises(qtm.ParameterError, match="method= applies to qtm's simulator"):
        qtm.SamplerQNN(sampler=qtm.FastSampler(), **options)


@pytest.mark.parametrize("primitive", [qtm.FastEstimator, qtm.FastSampler])
def test_primitives_refuse_unknown_methods(primitive):
    with pytest.raises(qtm.ParameterError, match="unknown simulation method 'matrix'"):
        primitive(method="matrix")


@each_method
def test_outputs_that_it_does_not_declare_are_refused(method):
    flat = simulation(Dense(), expectation()).flat
    for output in (expectation(), Probabilities((0,)), State(), Samples((0,))):
        refused = method.refuses(flat, output, Options())
        assert (refused is None) == (type(output) in method.gives)
        if refused:
            with pytest.raises(qtm.UnsupportedError, match=f"method '{method.name}' gives no {type(output).__name__}"):
                choose(method, flat, output, Options())


@each_method
def test_predictions(method):
    flat = simulation(Dense(), expectation()).flat
    cost = method.cost(flat, expectation(), Options())
    plan = method.compile(flat, expectation(), Options()).plan(8)
    assert cost.multiply_adds > 0 and cost.memory > 0
    assert plan.method == method.name and plan.multiply_adds > 0 and str(plan).startswith(method.name)


def test_a_method_refuses_with_its_reason():
    wide = real_amplitudes(13, reps=1)
    with pytest.raises(qtm.UnsupportedError, match="method 'dense' takes at most 12 qubits, not 13"):
        qtm.QuantumModule(wide, None, wide.parameters, method=Dense())


@pytest.mark.parametrize("method", ["dense", 3, ("statevector", {"bond": 2}), ("statevector", 3), ("auto", {"a": 1})])
def test_unknown_methods_and_options(method):
    with pytest.raises(qtm.ParameterError, match="method"):
        simulation_method(method)


def test_a_pair_of_name_and_options():
    assert simulation_method(("statevector", {})) == METHODS["statevector"]()
    assert simulation_method("auto") is None


def test_estimators_have_no_plan():
    made = QuantumCircuit(1)
    made.ry(ParameterVector("t", 1)[0], 0)
    module = qtm.QuantumModule(made, None, made.parameters, gradient="param-shift")
    with pytest.raises(qtm.UnsupportedError, match="values of this module come from an estimator"):
        module.plan()


@each_method
@pytest.mark.parametrize("size", [1e5, 1e9, 6e13])
def test_large_angles_keep_their_digits(method, size):
    """Also where a large angle is added to an offset, and where it has a coefficient of one half."""
    a, b = ParameterVector("a", 2)
    made = QuantumCircuit(2)
    made.h([0, 1])
    made.rx(a, 0)
    made.crx(b, 0, 1)
    made.rz(a, 1)
    made.p(b, 0)
    made.ry(a, 1)
    made.r(a, b, 0)
    at = np.random.default_rng(5).uniform(-size, size, (3, 2))
    output = Expectation(coerce_observables(["ZI", "IZ", "XY"], 2))
    found = simulation(method, output, made=made).values(at)
    expected = expectation_values(made, [a, b], at, [Pauli("ZI"), Pauli("IZ"), Pauli("XY")])
    np.testing.assert_allclose(found, expected, atol=1e-11, rtol=0)


@each_method
def test_an_executor_is_used_or_refused(method):
    class Counting(ThreadPoolExecutor):
        count = 0

        def submit(self, *arguments, **keywords):
            Counting.count += 1
            return super().submit(*arguments, **keywords)

    made = circuit()
    if method.name == "dense":
        pytest.skip("the engine of these tests computes in this thread")
    if method.name in ("matrix_product_state", "branches", "triton"):
        with Counting(2) as pool, pytest.raises(qtm.UnsupportedError, match="executor"):
            Simulation(made, list(made.parameters), expectation(), Options(executor=pool, method=method))
        return
    plain = simulation(method, expectation())
    with Counting(2) as pool:
        dealt = Simulation(made, list(made.parameters), expectation(), Options(executor=pool, method=method))
        np.testing.assert_allclose(dealt.values(values(5)), plain.values(values(5)), atol=1e-12)
        assert Counting.count == 2
        angles, prepared = plain.arguments(values(5))
        one = torch.ones(5, 3, dtype=torch.float64)
        found = dealt.engine.vjp(angles, prepared, one)[0]
        assert Counting.count == 4
        torch.testing.assert_close(found, plain.engine.vjp(angles, prepared, one)[0], atol=1e-12, rtol=0)
        assert dealt.values(values(0)).shape == (0, 3)
