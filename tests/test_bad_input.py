"""What every public door refuses: a named error that says what was wrong, what was expected, and what to do."""

from __future__ import annotations

import re
from math import inf, nan

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import SparsePauliOp
from test_modules import V, W, X, circuit, module, two_sets

import qtm
from qtm import (
    CircuitError,
    DtypeError,
    EstimatorQNN,
    FastEstimator,
    FastReverseEstimatorGradient,
    FastSampler,
    HybridModule,
    MitigatedEstimator,
    ObservableError,
    ParameterError,
    QtmError,
    SamplerQNN,
    ShapeError,
    TorchConnector,
    UnsupportedError,
    hardware,
)

T = Parameter("t")
OTHER = Parameter("other")


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


def nested() -> torch.Tensor:
    return torch.nested.nested_tensor([torch.zeros(2), torch.zeros(2)])


def jagged() -> torch.Tensor:
    return torch.nested.nested_tensor([torch.zeros(1, 2), torch.zeros(3, 2)], layout=torch.jagged)


def quantized() -> torch.Tensor:
    return torch.quantize_per_tensor(torch.zeros(3, 2), 0.1, 0, torch.quint8)


def with_expression(make, value: float) -> torch.Tensor:
    """The value of a circuit whose angle is an expression of one input."""
    made = QuantumCircuit(1)
    made.rx(make(T), 0)
    return qtm.QuantumModule(made, [T], [], observables="Z")(torch.tensor([[value]], dtype=torch.float64))


def in_bfloat16() -> qtm.QuantumModule:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        return module()
    finally:
        torch.set_default_dtype(before)


def bits() -> QuantumCircuit:
    made = circuit()
    made.measure_all()
    return made


def network(kind, **options):
    given = {"circuit": circuit(), "input_params": X, "weight_params": [*W, *V], **options}
    return kind(**given)


def gradient(*entries, **options):
    return FastReverseEstimatorGradient(**options).run(*entries).result()


def connected(**options):
    with hardware.connect(**{"backend": "fake_manila", **options}) as connection:
        return connection


def on_device(pubs, **options):
    with hardware.connect("fake_manila") as connection:
        return connection.estimator.run(pubs, **options)


# How each door is called with the arguments of a row.
DOORS = {
    "QuantumModule": module,
    "two sets": two_sets,
    "QuantumModule as is": lambda *args, **options: qtm.QuantumModule(*args, **options),
    "initial": lambda initial: module(variational_params_initial=initial),
    "spsa": lambda **options: module(gradient=("spsa", options)),
    "param-shift": lambda **options: module(gradient=("param-shift", options)),
    "forward": lambda make: module()(make()),
    "expression": with_expression,
    "estimate_usage": lambda batch: module(gradient="param-shift").estimate_usage(batch),
    "plan": lambda batch: module().plan(batch),
    "threads": lambda number: module().set_num_threads_forward(number),
    "bfloat16": in_bfloat16,
    "trace": lambda: torch.jit.trace(module(), torch.zeros(3, 2)),
    "HybridModule": lambda **options: HybridModule(
        **{"circuit": circuit(), "encoding_params": X, "variational_params": [*W, *V], "input_size": 3,
           "output_size": 1, **options}),
    "hybrid forward": lambda make: HybridModule(circuit(), X, [*W, *V], 2, 1)(make()),
    "FastEstimator": FastEstimator,
    "FastSampler": FastSampler,
    "FastReverseEstimatorGradient": FastReverseEstimatorGradient,
    "gradient": gradient,
    "estimator run": lambda pubs, **options: FastEstimator().run(pubs, **options).result(),
    "sampler run": lambda pubs, **options: FastSampler().run(pubs, **options).result(),
    "probabilities": lambda *args: FastSampler().probabilities(*args),
    "noisy run": lambda pubs, **options: qtm.noisy_estimator(qtm.local_pauli_noise(0.01)).run(pubs, **options),
    "device run": on_device,
    "mitigated run": lambda pubs, **options: MitigatedEstimator(FastEstimator(), "cdr").run(pubs, **options),
    "load_state_dict": lambda state: MitigatedEstimator(FastEstimator(), "cdr").load_state_dict(state),
    "EstimatorQNN": lambda **options: network(EstimatorQNN, **options),
    "SamplerQNN": lambda **options: network(SamplerQNN, **options),
    "EstimatorQNN forward": lambda inputs, weights: network(EstimatorQNN).forward(inputs, weights),
    "SamplerQNN forward": lambda interpret: network(SamplerQNN, interpret=interpret, output_shape=2).forward(
        [0.1, 0.2], [0.1] * 5),
    "input_gradients": lambda flag: setattr(network(EstimatorQNN), "input_gradients", flag),
    "TorchConnector": lambda network_=None, **options: TorchConnector(
        network(EstimatorQNN) if network_ is None else network_, **options),
    "connector forward": lambda make: TorchConnector(network(EstimatorQNN))(make()),
    "MitigatedEstimator": lambda method, **options: MitigatedEstimator(FastEstimator(), method, **options),
    "mitigation of": lambda estimator: MitigatedEstimator(estimator, "rem"),
    "noisy_estimator": lambda *args, **options: qtm.noisy_estimator(*args, **options),
    "noisy": lambda **options: qtm.noisy_estimator(qtm.local_pauli_noise(0.01), **options),
    "depolarizing_noise": lambda *args, **options: qtm.depolarizing_noise(*args, **options),
    "local_pauli_noise": lambda *args, **options: qtm.local_pauli_noise(*args, **options),
    "connect": connected,
    "resume": lambda journal, **options: hardware.resume(journal, **options),
}  # fmt: skip

SEED = "seed(_init|_transpiler|_simulator)? must be an integer .*not .*; give"
COUNT = r"must be an integer (of at least|from) [01].*not .*; give"
ANGLE = r"must be a finite number.*not .*; give an angle in radians"
FLAG = "must be True or False, not .*; give one of the two"
NUMBERS = "must be (an array of )?real numbers, not .*; give"
NO_SET = "cannot name a parameter set; use an identifier"

# Door, its arguments (a mapping by name, or a tuple), the error, and what its message says.
ROWS = [
    # --- QuantumModule: circuit and parameters
    ("QuantumModule as is", (None, X, W), CircuitError, "circuit must be a QuantumCircuit, not None; give a qiskit"),
    ("QuantumModule as is", ("qasm", X, W), CircuitError, "must be a QuantumCircuit, not 'qasm'; give a qiskit"),
    ("QuantumModule as is", (circuit, X, W), CircuitError, "circuit must be a QuantumCircuit, not .*; give a qiskit"),
    ("QuantumModule as is", (Unprintable(), X, W), CircuitError, "not a Unprintable; give a qiskit"),
    ("QuantumModule as is", (circuit(), "x", [*W, *V]), ParameterError, "encoding_params must be a list.*'x'; give"),
    ("QuantumModule as is", (circuit(), 3, [*W, *V]), ParameterError, "encoding_params must be a list.*not 3; give"),
    ("QuantumModule as is", (circuit(), [1, 2], [*W, *V]), ParameterError, "1 is not a circuit parameter; list"),
    ("QuantumModule as is", (circuit(), X, "w"), ParameterError, "variational_params must be a list.*'w'; give"),
    ("QuantumModule as is", (circuit(), X, 3), ParameterError, "variational_params must be a list.*not 3; give"),
    ("QuantumModule as is", (circuit(), X, [W, 3]), ParameterError, "variational_params must be a list.*not 3; give"),
    ("QuantumModule as is", (circuit(), X, None), ParameterError, "neither in encoding_params nor .*; bind them"),
    ("QuantumModule as is", (circuit(), X, W), ParameterError, r"neither in encoding_params nor .*v\[0\].*; bind"),
    ("QuantumModule as is", (circuit(), X, [*W, *V, OTHER]), ParameterError, "not in the circuit: other; its param"),
    ("QuantumModule as is", (circuit(), X, [*W, *V, V[0]]), ParameterError, r"listed more than once: v\[0\]; each"),
    ("QuantumModule as is", (circuit(), X, [*W, *V, X[0]]), ParameterError, r"listed more than once: x\[0\]; each"),
    ("QuantumModule", {"variational_params_names": 3}, ParameterError, "must be a name, or a list.*not 3; name"),
    ("QuantumModule", {"variational_params_names": [3]}, ParameterError, f"3 {NO_SET}"),
    ("QuantumModule", {"variational_params_names": [None]}, ParameterError, f"None {NO_SET}"),
    ("QuantumModule", {"variational_params_names": {"a": 1}}, ParameterError, "must be a name, or a list.*; name"),
    ("QuantumModule", {"variational_params_names": "_settings"}, ParameterError, f"'_settings' {NO_SET}"),
    ("QuantumModule", {"variational_params_names": "_methods"}, ParameterError, f"'_methods' {NO_SET}"),
    ("QuantumModule", {"variational_params_names": "a b"}, ParameterError, f"'a b' {NO_SET}"),
    ("QuantumModule", {"variational_params_names": ""}, ParameterError, f"'' {NO_SET}"),
    ("QuantumModule", {"variational_params_names": "forward"}, ParameterError, "'forward' clashes .*; choose another"),
    ("two sets", {"variational_params_names": ["a"]}, ParameterError, "must be 2 different names, not .*; name every"),
    ("two sets", {"variational_params_names": ["a", "a"]}, ParameterError, "must be 2 different names, not .*; name"),
    # --- initial values
    ("initial", ("xavier",), ParameterError, "unknown initialiser 'xavier'; use one of constant, uniform, normal"),
    ("initial", (None,), ParameterError, "cannot start from None; use one of 'constant'"),
    ("initial", (3,), ParameterError, "cannot start from 3; use one of 'constant'"),
    ("initial", ({"std": 1},), ParameterError, "cannot start from .*; use one of 'constant'"),
    ("initial", ((3, {}),), ParameterError, "unknown initialiser 3; use one of"),
    ("initial", (("normal", {"std": -1}),), ParameterError, "std of 'normal' must be at least 0, not -1.*; give the"),
    ("initial", (("normal", {"std": "wide"}),), ParameterError, f"std of 'normal' {ANGLE}"),
    ("initial", (("normal", {"std": nan}),), ParameterError, f"std of 'normal' {ANGLE}"),
    ("initial", (("normal", {"mean": None}),), ParameterError, f"mean of 'normal' {ANGLE}"),
    ("initial", (("normal", {"mean": 1j}),), ParameterError, f"mean of 'normal' {ANGLE}"),
    ("initial", (("normal", {"a": 0}),), ParameterError, "'normal' takes no a; it takes mean, std"),
    ("initial", (("uniform", {"a": 2, "b": 1}),), ParameterError, "a of 'uniform' must be at most b, not 2 .*; exch"),
    ("initial", (("uniform", {"a": 7}),), ParameterError, "a of 'uniform' must be at most b, not 7 with b = 6.28"),
    ("initial", (("uniform", {"b": "pi"}),), ParameterError, f"b of 'uniform' {ANGLE}"),
    ("initial", (("uniform", {"b": inf}),), ParameterError, f"b of 'uniform' {ANGLE}"),
    ("initial", (("uniform", {3: 1}),), ParameterError, "'uniform' takes no 3; it takes a, b"),
    ("initial", (("constant", {"val": "one"}),), ParameterError, f"val of 'constant' {ANGLE}"),
    ("initial", (("constant", {"val": nan}),), ParameterError, f"val of 'constant' {ANGLE}"),
    ("initial", (("constant", {"val": True}),), ParameterError, f"val of 'constant' {ANGLE}"),
    ("initial", ([0.1] * 4,), ParameterError, r"\(4,\) initial values .*; expected \(5,\)"),
    ("initial", (np.zeros((5, 1)),), ParameterError, r"\(5, 1\) initial values .*; expected \(5,\)"),
    ("initial", ([nan] * 5,), ParameterError, "must be finite; one of them is NaN"),
    ("initial", (torch.full((5,), inf),), ParameterError, "must be finite; one of them is NaN or infinite"),
    ("initial", (torch.zeros(5, dtype=torch.complex64),), ParameterError, "must be real, not torch.complex64; give"),
    ("initial", (np.array(["a"] * 5),), ParameterError, "must be a flat list of real numbers, .*; give one number"),
    ("initial", (np.array([None] * 5, object),), ParameterError, "must be finite|must be a flat list"),
    ("initial", ([["a"] * 5],), ParameterError, "must be a flat list of real numbers, .*; give one number"),
    ("initial", ([[0.1, [0.2]]],), ParameterError, "must be a flat list of real numbers, .*; give one number"),
    ("two sets", {"variational_params_initial": ["normal"] * 3}, ParameterError, "3 initialisers for 2 .*; give one"),
    ("two sets", {"variational_params_initial": ["normal", 1j]}, ParameterError, "cannot start from 1j; use one of"),
    # --- other arguments
    *(("QuantumModule", {"seed_init": seed}, ParameterError, SEED) for seed in (1.5, "one", -1, 2**64, True, nan, [1])),
    *(("QuantumModule", {"encoding_gradients_flag": f}, ParameterError, FLAG) for f in ("no", 0, 1, [], Unprintable())),
    *(
        ("QuantumModule", {"executor": e}, ParameterError, "executor must be a concurrent.futures.Exec.*; give a Proc")
        for e in (4, "threads", [], FastEstimator)
    ),
    *(
        ("QuantumModule", {name: n}, ParameterError, r"num_threads must be 0 \(all cores\) or a positive .*; give")
        for name in ("num_threads_forward", "num_threads_backward")
        for n in (-1, 1.5, "all", None, True)
    ),
    *(
        ("QuantumModule", {"pass_manager": p}, ParameterError, "pass_manager must be a pass manager .*; give qiskit")
        for p in (3, "level 1", [])
    ),
    *(
        ("QuantumModule", {"estimator": e}, ParameterError, "estimator must be None or a BaseEstimatorV2.*; give an")
        for e in ("aer", 3, FastEstimator, FastSampler())
    ),
    *(
        ("QuantumModule", {"estimator": "aer", "gradient": g}, ParameterError, "estimator must be None or .*; give an")
        for g in ("param-shift", "spsa", "auto")
    ),
    *(
        ("QuantumModule", {"noise": noise}, ParameterError, "noise=.*expected an Aer NoiseModel, such as")
        for noise in (0.01, "depolarizing", {"X": 0.1}, True)
    ),
    *(
        ("QuantumModule", {"method": method}, ParameterError, "unknown simulation method .*; use 'auto', one of")
        for method in ("tensor", 3, None, ("statevector",), ("statevector", 3), ["statevector"], (["a"], {}))
    ),
    ("QuantumModule", {"method": ("statevector", {"max_bond": 3})}, ParameterError, "its options are"),
    ("QuantumModule", {"method": ("trajectories", {"count": 0})}, ParameterError, "count must be a positive number"),
    ("QuantumModule", {"method": ("trajectories", {"count": "x"})}, ParameterError, "count must be a positive number"),
    *(("threads", (n,), ParameterError, r"num_threads must be 0 .*; give") for n in (-1, 0.5, "all")),
    ("bfloat16", (), DtypeError, "torch.bfloat16 is not supported; use float32 or float64"),
    ("trace", (), UnsupportedError, "torch.jit.trace records operations of torch.*Use torch.compile"),
    *(("estimate_usage", (n,), ParameterError, f"batch {COUNT}") for n in (-1, 1.5, "x", None, True)),
    *(("plan", (n,), ParameterError, f"batch {COUNT}") for n in (-1, 1.5, "x", None)),
    # --- gradients
    ("QuantumModule", {"gradient": "adjoint"}, ParameterError, "unknown gradient 'adjoint'; use one of reverse"),
    *(
        ("QuantumModule", {"gradient": g}, ParameterError, "gradient must be a name, or a pair of name .*; give 'spsa'")
        for g in (None, 3, ("spsa",), ("spsa", {}, 1), ("spsa", 3), ["spsa", {}], (3, {}), {"spsa": {}}, ())
    ),
    ("QuantumModule", {"gradient": ("reverse", {"repeats": 3})}, ParameterError, "'reverse' has no option 'repeats'; "),
    ("spsa", {"steps": 3}, ParameterError, "'spsa' has no option 'steps'; its options are"),
    *(("spsa", {"repeats": n}, ParameterError, f"repeats {COUNT}") for n in (0, "3", 1.5, None, True, nan)),
    *(
        ("spsa", {"epsilon": e}, ParameterError, "epsilon must be a finite number above 0, not .*; give a distance")
        for e in (0, -0.1, nan, inf, "small")
    ),
    *(("spsa", {"seed": seed}, ParameterError, SEED) for seed in ("one", 1.5, -1)),
    *(
        (door, {"max_points": n}, ParameterError, f"max_points {COUNT}")
        for door in ("spsa", "param-shift")
        for n in (0, 1.5, "x", True)
    ),
    *(
        (door, {"precision": p}, ParameterError, "precision must be a finite number of at least 0, not .*; give the")
        for door in ("spsa", "param-shift")
        for p in (-0.1, nan, inf, "low")
    ),
    # --- observables
    ("QuantumModule", {"observables": []}, ObservableError, "the list of observables is empty; give at least one"),
    ("QuantumModule", {"observables": None}, ObservableError, "NoneType is not an observable; expected a Sparse"),
    ("QuantumModule", {"observables": 3}, ObservableError, "int is not an observable; expected a SparsePauliOp"),
    ("QuantumModule", {"observables": np.eye(4)}, ObservableError, "is not an observable; expected a SparsePauliOp"),
    ("QuantumModule", {"observables": "ZQ"}, ObservableError, "'ZQ' is not an observable: expected one letter of"),
    ("QuantumModule", {"observables": "individual"}, ObservableError, "is not an observable: expected one letter of"),
    ("QuantumModule", {"observables": ["ZZZ"]}, ObservableError, "acts on 3 qubits and the circuit has 2; give one"),
    ("QuantumModule", {"observables": {}}, ObservableError, "empty mapping; expected {pauli: coefficient"),
    ("QuantumModule", {"observables": {"ZZ": "a"}}, ObservableError, "the coefficient 'a' is not a number"),
    ("QuantumModule", {"observables": {"ZZ": nan}}, ObservableError, "the coefficient nan is NaN or infinite"),
    ("QuantumModule", {"observables": {"ZZ": 1, "Z": 1}}, ObservableError, r"different widths: \[1, 2\] qubits"),
    ("QuantumModule", {"observables": {"ZZ": 1j}}, ObservableError, "not Hermitian: term 'ZZ' .*; coefficients must"),
    ("QuantumModule", {"observables": SparsePauliOp(["ZI", "IX"], [1, 1j])}, ObservableError, "not Hermitian.*; c"),
    ("QuantumModule", {"observables": SparsePauliOp(["ZZ"], [T])}, ObservableError, "free parameters .*; assign"),
    # --- inputs
    ("forward", (lambda: None,), ShapeError, "has 2 encoding parameters: call the module with inputs"),
    ("forward", (lambda: torch.zeros(()),), ShapeError, r"shape \(\); expected \(..., 2\)"),
    ("forward", (lambda: torch.zeros(3),), ShapeError, r"shape \(3,\); expected \(..., 2\)"),
    ("forward", (lambda: np.zeros((2, 3)),), ShapeError, r"shape \(2, 3\); expected \(..., 2\)"),
    ("forward", (lambda: 0.5,), ShapeError, r"shape \(\); expected \(..., 2\)"),
    ("forward", (list,), ShapeError, r"shape \(0,\); expected \(..., 2\)"),
    *(
        (door, (lambda given=given: given,), DtypeError, f"inputs.* {NUMBERS}")
        for door in ("forward", "hybrid forward", "connector forward")
        for given in ("angles", ["a", "b"], {"x": 1}, object(), [object()] * 2, np.array([None, 1], object), {1, 2})
    ),
    *(
        (door, (lambda: [[0.1, 0.2], [0.3]],), ShapeError, "inputs.* must be rows of equal length, not .*; pad them")
        for door in ("forward", "hybrid forward", "connector forward")
    ),
    *(
        (door, (make,), DtypeError, message)
        for door in ("forward", "hybrid forward", "connector forward")
        for make, message in (
            (nested, "inputs must be a dense tensor .*not a nested tensor; pad it"),
            (jagged, "inputs must be a dense tensor .*not a nested tensor; pad it"),
            (quantized, r"inputs must be a dense tensor .*quint8\); call .dequantize\(\)"),
            (lambda: torch.zeros(3, 2).to_mkldnn(), r"inputs must be a dense tensor .*; call .to_dense\(\)"),
            (lambda: torch.zeros(3, 2, dtype=torch.complex64), r"complex64; angles must be real \(radians\): give"),
            (lambda: [[1j, 0]], r"complex64; angles must be real \(radians\): give"),
        )
    ),
    *(
        (door, (make,), DtypeError, r"inputs must be a dense tensor .*sparse.*; call .to_dense\(\)")
        for door in ("forward", "hybrid forward")
        for make in (lambda: torch.zeros(3, 2).to_sparse(), lambda: torch.eye(2).to_sparse_csr())
    ),
    ("forward", (lambda: torch.zeros(3, 2, device="meta"),), DtypeError, r"on meta; .*move them with .cpu\(\)"),
    *(("forward", (lambda v=v: [[v, 0.1]],), ParameterError, r"x\[0\].*(NaN|nan|inf)") for v in (nan, inf, -inf)),
    ("forward", (lambda: torch.tensor([[1e300, 0.1]], dtype=torch.float64),), ParameterError, r"x\[0\]"),
    ("hybrid forward", (lambda: torch.zeros(3),), ShapeError, r"shape \(3,\); expected \(..., 2\)"),
    ("hybrid forward", (lambda: None,), DtypeError, f"inputs.* {NUMBERS}"),
    # --- values of expressions
    ("expression", (lambda t: t.log(), 0.0), ParameterError, "(NaN|infinite|finite)"),
    ("expression", (lambda t: t.log(), -1.0), ParameterError, "(NaN|infinite|finite)"),
    ("expression", (lambda t: 1 / t, 0.0), ParameterError, "(NaN|infinite|finite)"),
    ("expression", (lambda t: t.arcsin(), 2.0), ParameterError, "(NaN|infinite|finite)"),
    ("expression", (lambda t: t.arccos(), -2.0), ParameterError, "(NaN|infinite|finite)"),
    ("expression", (lambda t: t**0.5, -1.0), ParameterError, "(NaN|infinite|finite)"),
    ("expression", (lambda t: t.exp(), 1e4), ParameterError, "(NaN|infinite|finite)"),
    # --- HybridModule
    *(
        ("HybridModule", {name: n}, ParameterError, f"{name} {COUNT.replace('give', 'count')}")
        for name in ("input_size", "output_size")
        for n in (0, -1, 1.5, "3", None, True)
    ),
    ("HybridModule", {"circuit": None}, CircuitError, "circuit must be a QuantumCircuit, not None; give"),
    ("HybridModule", {"encoding_params": None}, ParameterError, "encoding_params must be a list .*; list at least"),
    ("HybridModule", {"encoding_params": 3}, ParameterError, "encoding_params must be a list .*; list at least"),
    ("HybridModule", {"observables": "ZZ"}, ParameterError, "takes no observables; use QuantumModule"),
    *(("HybridModule", {"seed_init": seed}, ParameterError, SEED) for seed in (1.5, "one", -1)),
    ("HybridModule", {"executor": 4}, ParameterError, "executor must be .*; give a ProcessPoolExecutor"),
    # --- primitives
    *(
        ("FastEstimator", {"default_precision": p}, ParameterError, "default_precision must be a finite .*; give the")
        for p in (nan, inf, -0.1, "low", None)
    ),
    *(
        ("FastSampler", {"default_shots": n}, ParameterError, f"default_shots {COUNT}")
        for n in (0, -1, 1.5, "many", None, nan)
    ),
    *(
        (door, {"seed": seed}, ParameterError, "seed must be an integer of at least 0, .*; give an integer to")
        for door in ("FastEstimator", "FastSampler")
        for seed in ("one", 1.5, -1, {}, object())
    ),
    *(
        (door, {"dtype": dtype}, DtypeError, "dtype .* is not supported; use one of complex128, complex64")
        for door in ("FastEstimator", "FastSampler", "FastReverseEstimatorGradient")
        for dtype in ("float64", int, 3, None, "quad", torch.complex64)
    ),
    *(
        (door, {"num_threads": n}, ParameterError, "num_threads must be 0 .*; give the threads")
        for door in ("FastEstimator", "FastSampler", "FastReverseEstimatorGradient")
        for n in (-1, 1.5, "all", None)
    ),
    *(
        (door, {"executor": 4}, ParameterError, "executor must be .*; give a ProcessPoolExecutor")
        for door in ("FastEstimator", "FastReverseEstimatorGradient")
    ),
    *(
        (door, {"noise": noise}, ParameterError, "noise=.*expected an Aer NoiseModel, such as")
        for door in ("FastEstimator", "FastSampler", "EstimatorQNN", "SamplerQNN")
        for noise in (0.01, "depolarizing")
    ),
    *(
        ("FastReverseEstimatorGradient", {"derivative_type": d}, ParameterError, "derivative_type is .*; use Deriv")
        for d in ("both", 3, None)
    ),
    ("gradient", ([circuit()], ["ZZ"], [[0.1] * 6]), ShapeError, "circuit 0 has 7 parameters and was given 6 values"),
    ("gradient", ([circuit()], ["ZZ", "ZI"], [[0.1] * 7]), ShapeError, "observables has 2 entries .*; give one for"),
    ("gradient", ([circuit()], ["ZZ"], []), ShapeError, "parameter_values has 0 entries .*; give one for each"),
    ("gradient", ([circuit()], ["ZZZ"], [[0.1] * 7]), ObservableError, "acts on 3 qubits .* has 2; give one"),
    ("gradient", ([circuit()], ["ZZ"], [[nan] * 7]), ParameterError, "(NaN|nan|finite)"),
    ("gradient", ([circuit()], ["ZZ"], [[0.1] * 7], [[OTHER]]), ParameterError, r"\['other'\] are not in circuit 0"),
    ("gradient", ([QuantumCircuit(1)], ["Z"], [[]]), ParameterError, "has no parameters to differentiate"),
    *(("gradient", (c, ["ZZ"], [[0.1] * 7]), ParameterError, "circuits must be .*;") for c in (None, "x", [3])),
    ("gradient", ([circuit()], None, [[0.1] * 7]), ParameterError, "observables must be a list .*not None; wrap"),
    ("gradient", ([circuit()], ["ZZ"], 3), ParameterError, "parameter_values must be a list .*not 3; wrap"),
    ("gradient", ([circuit()], ["ZZ"], [["a"] * 7]), DtypeError, f"parameter_values {NUMBERS}"),
    ("gradient", ([circuit()], ["ZZ"], [[0.1] * 7], [3]), ParameterError, "parameters must be a list .*not 3; wrap"),
    *(
        (door, (pubs,), DtypeError, r"(pubs must be a list of PUBs, not .*; a PUB is|PUB 0 cannot .*; expected) ")
        for door in ("estimator run", "sampler run", "noisy run", "mitigated run", "device run")
        for pubs in (3, None, [3])
    ),
    *(
        (door, ([pub],), kind, r"PUB 0 cannot be read: .*; expected \(circuit, observables, parameter values")
        for door in ("estimator run", "noisy run", "mitigated run", "device run")
        for pub, kind in (
            (("qasm", "ZZ"), DtypeError),
            ((circuit(),), CircuitError),
            ((circuit(), "QQ", [0.1] * 7), CircuitError),
            ((circuit(), "ZZZ", [0.1] * 7), CircuitError),
            ((circuit(), 3, [0.1] * 7), DtypeError),
            ((circuit(), "ZZ", [0.1] * 6), CircuitError),
            ((circuit(), "ZZ", "x"), CircuitError),
            ((circuit(), "ZZ", [0.1] * 7, -1), CircuitError),
            ((circuit(), "ZZ", [0.1] * 7, "x"), DtypeError),
        )
    ),
    *(
        (door, {"pubs": [(circuit(), "ZZ", [0.1] * 7)], "precision": p}, kind, "precision.*; (give|expected)")
        for door in ("estimator run", "noisy run", "mitigated run", "device run")
        for p, kind in ((-1, CircuitError), ("x", DtypeError), (nan, ParameterError), (inf, ParameterError))
    ),
    *(
        ("sampler run", ([pub],), kind, r"PUB 0 cannot be read: .*; expected circuit, or \(circuit, parameter values")
        for pub, kind in (
            ((bits(), [0.1] * 6), CircuitError),
            ((bits(), "x"), CircuitError),
            ((bits(), [0.1] * 7, 0), CircuitError),
            ((bits(), [0.1] * 7, 1.5), DtypeError),
        )
    ),
    ("probabilities", ("qasm",), DtypeError, "PUB 0 cannot be read: .*; expected circuit"),
    ("probabilities", (bits(), "x"), CircuitError, "PUB 0 cannot be read: .*; expected circuit"),
    ("probabilities", (circuit(), [0.1] * 7), CircuitError, "measures nothing; measure its qubits"),
    *(("load_state_dict", (s,), ParameterError, r"state_dict must be a dict .*; save it") for s in ({}, 3, None)),
    # --- networks
    *(
        (door, {"circuit": c}, CircuitError, "circuit must be a QuantumCircuit, not .*; give a qiskit.QuantumCircuit")
        for door in ("EstimatorQNN", "SamplerQNN")
        for c in (None, "qasm", 3)
    ),
    *(
        (door, {name: given}, ParameterError, f"{name} must be a list of circuit parameters, not .*; give circuit.p")
        for door in ("EstimatorQNN", "SamplerQNN")
        for name in ("input_params", "weight_params")
        for given in ("x", 3, [1, 2])
    ),
    *(
        (door, {"input_gradients": f}, ParameterError, f"input_gradients {FLAG}")
        for door in ("EstimatorQNN", "SamplerQNN")
        for f in ("yes", 1, None)
    ),
    ("input_gradients", ("yes",), ParameterError, f"input_gradients {FLAG}"),
    ("SamplerQNN", {"sparse": "yes"}, ParameterError, f"sparse {FLAG}"),
    *(
        (door, {"gradient": g}, ParameterError, "gradient must be a gradient of qiskit-algorithms, .*; give an object")
        for door in ("EstimatorQNN", "SamplerQNN")
        for g in ("spsa", 3, FastReverseEstimatorGradient)
    ),
    *(
        (door, {"pass_manager": 3}, ParameterError, "pass_manager must be a pass manager .*; give qiskit")
        for door in ("EstimatorQNN", "SamplerQNN")
    ),
    *(
        ("EstimatorQNN", {"estimator": e}, ParameterError, "estimator must be None or a BaseEstimatorV2, .*; give an")
        for e in ("aer", 3, FastEstimator, FastSampler())
    ),
    *(
        ("SamplerQNN", {"sampler": s}, ParameterError, "sampler must be None or a BaseSamplerV2, .*; give an object")
        for s in ("aer", 3, FastSampler, FastEstimator())
    ),
    *(
        ("EstimatorQNN", {"default_precision": p}, ParameterError, "default_precision must be .*; give the standard")
        for p in (nan, -1, "low", None)
    ),
    ("EstimatorQNN", {"observables": 3}, ObservableError, "int is not an observable; expected a SparsePauliOp"),
    ("EstimatorQNN", {"observables": ["ZZZ"]}, ObservableError, "acts on 3 qubits .*; give one Pauli letter"),
    ("EstimatorQNN", {"observables": []}, ObservableError, "the list of observables is empty; give at least one"),
    *(
        ("EstimatorQNN forward", (inputs, [0.1] * 5), DtypeError, f"inputs {NUMBERS}")
        for inputs in ("angles", {"x": 1}, [[0.1, 0.2], [0.3]], [object()] * 2, [1j, 0])
    ),
    ("EstimatorQNN forward", ([0.1, 0.2], "weights"), DtypeError, f"weights {NUMBERS}"),
    ("EstimatorQNN forward", ([0.1, 0.2], [0.1] * 4), ShapeError, "4 weights; the network has 5"),
    ("EstimatorQNN forward", ([0.1], [0.1] * 5), ShapeError, r"the network expects \(..., 2\)"),
    ("EstimatorQNN forward", (None, [0.1] * 5), ShapeError, r"the inputs are None; the network expects"),
    ("EstimatorQNN forward", ([nan, 0.1], [0.1] * 5), ParameterError, "(NaN|nan|finite)"),
    *(
        ("SamplerQNN", {"interpret": i, "output_shape": 2}, ParameterError, "interpret must be a function, .*; give")
        for i in (3, "parity", [0, 1])
    ),
    ("SamplerQNN", {"interpret": int}, ShapeError, "interpret requires output_shape"),
    *(
        ("SamplerQNN", {"interpret": int, "output_shape": s}, ShapeError, "output_shape is .*; all of its lengths must")
        for s in (0, -1, 1.5, "two", (), (2, 0), None.__class__, nan)
    ),
    *(
        ("SamplerQNN forward", (interpret,), ParameterError, r"interpret\(0\) must be an integer .*; return the")
        for interpret in (lambda x: 0.5, lambda x: None, lambda x: "0", lambda x: (0.5,), lambda x: (), lambda x: 1j)
    ),
    ("SamplerQNN forward", (lambda x: 1 // 0,), ParameterError, r"interpret\(0\) failed \(ZeroDivisionError.*; c"),
    ("SamplerQNN forward", (lambda x: -1,), ShapeError, "outside of the output_shape .*; change interpret"),
    ("SamplerQNN forward", (lambda x: 2,), ShapeError, "outside of the output_shape .*; change interpret"),
    ("SamplerQNN forward", (lambda x: (0, 0),), ShapeError, r"output of shape \(2,\) needs 1 indices"),
    # --- TorchConnector
    *(
        ("TorchConnector", (n,), ParameterError, "neural_network must be a network of qtm .*; give an object such as")
        for n in ("qnn", 3, EstimatorQNN, torch.nn.Linear(2, 2), circuit())
    ),
    *(
        ("TorchConnector", {"initial_weights": w}, DtypeError, f"initial_weights {NUMBERS}")
        for w in ("uniform", {"a": 1}, ["a"] * 5)
    ),
    ("TorchConnector", {"initial_weights": [0.1] * 4}, ShapeError, "4 initial_weights; the network has 5"),
    ("TorchConnector", {"sparse": "yes"}, ParameterError, f"sparse {FLAG}"),
    ("TorchConnector", {"sparse": True}, ParameterError, "sparse=True needs a network that is sparse"),
    *(("TorchConnector", {"execution": e}, ParameterError, "execution is .*; use 'fast', 'network'") for e in ("", 3)),
    # --- mitigation
    *(
        ("mitigation of", (e,), ParameterError, "estimator must be a BaseEstimatorV2, not .*; give an object such as")
        for e in (None, "aer", FastEstimator, FastSampler())
    ),
    *(
        ("MitigatedEstimator", (m,), ParameterError, "unknown mitigation method .*; choose one of zne")
        for m in ("dd", None, 3, [], {})
    ),
    ("MitigatedEstimator", {"method": "rem", "level": 1}, ParameterError, "'rem' has no option 'level'; its options"),
    ("MitigatedEstimator", {"method": "pec"}, ParameterError, "method 'pec' needs the option noise"),
    *(
        ("MitigatedEstimator", {"method": "zne", "scale_factors": s}, ParameterError, "scale_factors must (be|start)")
        for s in (3, "135", None, [1, "3"], [1, nan], [3, 1], [])
    ),
    *(
        ("MitigatedEstimator", {"method": m, name: v}, ParameterError, rf"({name} must be a name|unknown {name}).*; ")
        for m, name in (("zne", "factory"), ("zne", "fold"), ("cdr", "fit"), ("ddd", "rule"))
        for v in ("x", 3, [], {})
    ),
    *(
        ("MitigatedEstimator", {"method": m, name: v, **more}, ParameterError, f"{name} {COUNT}")
        for m, name, more in (
            ("lre", "degree", {}),
            ("lre", "num_chunks", {}),
            ("cdr", "num_training_circuits", {}),
            ("real-time-cdr", "min_iterations", {}),
            ("rem", "shots", {}),
            ("pec", "num_samples", {"noise": 0.01}),
        )
        for v in (0, 1.5, "x", [])
    ),
    *(
        ("MitigatedEstimator", {"method": "cdr", name: v}, ParameterError, f"{name} (must be|lies in).*not|got")
        for name in ("fraction_non_clifford", "sigma")
        for v in (-1, nan, "x", None)
    ),
    *(
        ("MitigatedEstimator", {"method": m, "seed": seed}, ParameterError, SEED)
        for m in ("zne", "cdr", "real-time-cdr")
        for seed in ("one", 1.5, -1)
    ),
    ("MitigatedEstimator", {"method": "ddd", "keep_raw": "no"}, ParameterError, f"keep_raw {FLAG}"),
    *(
        ("MitigatedEstimator", {"method": "rem", "confusion": c}, ParameterError, "confusion must be a mapping .*;")
        for c in (0.1, "x", [[1, 0], [0, 1]])
    ),
    *(
        ("MitigatedEstimator", {"method": "pec", "noise": p}, ParameterError, "noise must be .*(; give|; got)")
        for p in (-1, 1.5, nan, {"cx": "x"}, "x", None)
    ),
    # --- noise
    *(
        ("noisy_estimator", (n,), ParameterError, "noise must be an Aer NoiseModel, a BackendV2 or the name .*; give ")
        for n in (None, 0.01, "manila")
    ),
    *(("noisy", {"shots": n}, ParameterError, f"shots {COUNT}") for n in (0, -1, 1.5, "many", nan, True)),
    *(
        ("noisy", {"shots": 9, "method": m}, ParameterError, "method must be one of 'auto', .*not .*; choose one")
        for m in ("tensor", 3, None, [])
    ),
    ("noisy", {"method": "statevector"}, ParameterError, "samples trajectories and needs shots="),
    *(("noisy", {"seed": s}, ParameterError, "seed must be an integer .*; give an integer") for s in ("x", 1.5, -1)),
    *(
        ("depolarizing_noise", (p,), ParameterError, "one_qubit must be a finite number .*; give the probability")
        for p in (-0.1, 1.1, nan, "x", None, True)
    ),
    ("depolarizing_noise", (0.1, "x"), ParameterError, "two_qubit must be a finite number .*; give the probability"),
    *(
        ("local_pauli_noise", (p,), ParameterError, "probabilities must be .*not .*(; give one number|; got)|; got")
        for p in (-0.1, 0.4, nan, "x", None, {"X": "a"}, {"X": nan}, {"W": 0.1}, [0.1, 0.2])
    ),
    *(
        ("local_pauli_noise", {"probabilities": 0.1, "gates": g}, ParameterError, "gates must be (a list|names) .*")
        for g in ("ry", 3, ["nope"], [3], [["ry"]], ["ccx"])
    ),
    # --- devices, without an account
    *(
        ("connect", {"backend": b}, ParameterError, "backend must be the name of a device or a BackendV2, .*; give")
        for b in (3, [], FastEstimator())
    ),
    ("connect", {"backend": "fake_nowhere"}, QtmError, "there is no local backend 'fake_nowhere'; there are: "),
    *(
        ("connect", {"mode": m}, ParameterError, "mode must be one of 'auto', .*not .*; choose one")
        for m in ("serverless", None, 3, [])
    ),
    *(("connect", {"journal": j}, ParameterError, "journal must be the path of a file, .*; give") for j in (3, [])),
    *(("connect", {"min_qubits": n}, ParameterError, f"min_qubits {COUNT}") for n in (0, "x", 1.5)),
    ("connect", {"speed": 1}, ParameterError, "connect has no option speed; its options are"),
    ("connect", {"estimator": "v1"}, ParameterError, "estimator must be one of 'auto', .*, not 'v1'; choose"),
    ("connect", {"estimator": []}, ParameterError, r"estimator must be one of 'auto', .*, not \[\]; choose"),
    ("connect", {"shots": 9, "precision": 0.1}, ParameterError, "mutually exclusive: give one"),
    *(
        ("connect", {name: n}, ParameterError, f"{name} {COUNT}")
        for name in ("shots", "max_executions", "max_depth", "max_circuits_per_job")
        for n in (0, -1, 1.5, "x", True)
    ),
    *(("connect", {"retries": n}, ParameterError, f"retries {COUNT}") for n in (-1, 1.5, "x", None)),
    *(
        ("connect", {"precision": p}, ParameterError, "precision must be a finite number above 0, .*; give the")
        for p in (0, -1, nan, "x")
    ),
    *(
        ("connect", {name: s}, ParameterError, f"{name} must be a finite number of at least 0, not .*; give seconds")
        for name in ("max_seconds", "backoff")
        for s in (-1, nan, inf, "x", True)
    ),
    *(
        ("connect", {"optimization_level": n}, ParameterError, "must be an integer from 0 to 3, not .*; give")
        for n in (7, -1, 1.5, "x")
    ),
    *(
        ("connect", {name: s}, ParameterError, SEED)
        for name in ("seed_transpiler", "seed_simulator")
        for s in ("x", 1.5, -1)
    ),
    ("connect", {"use_fractional_gates": "yes"}, ParameterError, f"use_fractional_gates {FLAG}"),
    ("connect", {"instance": 3}, ParameterError, "instance must be the name or CRN .*not 3; give None"),
    *(("connect", {"options": o}, ParameterError, "options must be a mapping .*; give") for o in (3, "x", [1])),
    ("connect", {"options": {"resilience_level": object()}}, ParameterError, "must be plain values, .*; set objects"),
    ("connect", {"options": {"resilience_level": 9}}, ParameterError, "(?s)rejects the options .*; its options are"),
    *(("resume", (j,), ParameterError, "journal must be the path of a journal, .*; give the") for j in (None, 3, [])),
    ("resume", ("nowhere.journal",), QtmError, "there is no journal 'nowhere.journal'; start it with"),
    ("resume", {"journal": "nowhere.journal", "backend": "fake_manila"}, ParameterError, "backend must be .*; leave"),
]  # fmt: skip


def identifiers() -> list[str]:
    return [f"{number}-{row[0]}" for number, row in enumerate(ROWS)]


@pytest.mark.parametrize("row", ROWS, ids=identifiers())
@pytest.mark.filterwarnings("ignore")  # torch calls nested, quantized and compressed tensors prototypes
def test_bad_input_is_refused_by_name(row, tmp_path, monkeypatch):
    door, arguments, kind, message = row
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind) as caught:
        DOORS[door](**arguments) if isinstance(arguments, dict) else DOORS[door](*arguments)
    assert isinstance(caught.value, QtmError)
    assert re.search(message, str(caught.value)), str(caught.value)


def test_the_table_covers_two_hundred_kinds():
    assert len(ROWS) >= 200 and {row[0] for row in ROWS} == set(DOORS)
