"""What PUBs cost, and how they are split into jobs and joined again."""

from __future__ import annotations

import numpy as np
import pytest
from device_cases import MANILA, POINTS, UNMITIGATED, ansatz, exact, pub_for
from qiskit.primitives import StatevectorEstimator
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.quantum_info import PauliLindbladMap, SparsePauliOp
from qiskit_aer import AerSimulator
from qiskit_ibm_runtime.executor_estimator import Estimator

from qtm import hardware
from qtm._errors import CircuitError
from qtm._hardware.fingerprint import job_content
from qtm._hardware.job_splitting import Limits, coerce_pubs, join, split
from qtm._hardware.runtime import plain_options
from qtm._primitives.job_usage import Usage, measured_circuits

pytestmark = pytest.mark.filterwarnings("ignore:.*no effect in local testing mode")


# Counting ------------------------------------------------------------------------------------------


@pytest.mark.thinned(4)
@pytest.mark.parametrize(
    "options",
    [
        {"resilience_level": 0},
        {"resilience_level": 1},
        {"resilience_level": 2},
        {"resilience_level": 0, "twirling": {"enable_gates": True}},
        {"resilience_level": 0, "twirling": {"enable_gates": True, "num_randomizations": 5}},
        {"resilience_level": 1, "twirling": {"shots_per_randomization": 100}},
        {"resilience_level": 2, "resilience": {"zne": {"noise_factors": [1, 3], "extrapolator": "linear"}}},
        {"resilience_level": 2, "resilience": {"zne_mitigation": False}},
        {"resilience_level": 1, "resilience": {"measure_noise_learning": {"num_randomizations": 7}}},
    ],
)
def test_executions_are_what_the_runtime_submits(options):
    with hardware.connect(MANILA, shots=1000, options=options, seed_transpiler=1) as device:
        pub = pub_for(device, POINTS[:2])
        estimated = device.estimate_usage([pub])
        program = Estimator(MANILA, options={"default_shots": 1000, **options}).run([pub]).inputs
        assert estimated.executions == sum(item.size() for item in program.items) * program.shots
        assert device.usage == Usage()


@pytest.mark.slow
def test_executions_of_error_cancellation_are_what_the_runtime_submits():
    options = {"default_shots": 640, "resilience_level": 0, "resilience": {"pec_mitigation": True}}
    with hardware.connect(MANILA, shots=640, options=options, seed_transpiler=1) as device:
        pub = pub_for(device, POINTS[:2])
        plain = Estimator(MANILA, options=options)
        layers = plain.find_unique_layers([pub])
        noise = [PauliLindbladMap.from_list([("XX", 0.2)]) for _ in layers]
        for runtime_options in (plain.options, device.estimator.options):
            runtime_options.resilience.layer_noise_model = list(zip(layers, noise, strict=True))
        program = plain.run([pub]).inputs
        expected = sum(item.size() for item in program.items) * program.shots
        assert device.estimate_usage([pub]).executions == expected > 640 * 4
        contents = set()
        for rate in (0.2, 0.2, 0.1):
            noise = [PauliLindbladMap.from_list([("XX", rate)]) for _ in layers]
            layers = plain.find_unique_layers([pub])  # other objects, the same layers
            device.estimator.options.resilience.layer_noise_model = list(zip(layers, noise, strict=True))
            contents.add(job_content([], plain_options(device.estimator.options)))
        assert len(contents) == 2


@pytest.mark.parametrize(
    ("observables", "points", "circuits"),
    [
        (["ZZ", "ZI", "IZ"], (5, 1), 5),
        (["ZZ", "XX"], (5, 1), 10),
        (["ZZ", "XX"], (2,), 2),  # paired one by one
        ("ZX", (), 1),
        ([SparsePauliOp(["ZZ", "XX", "YY"]), "ZI"], (3, 1), 9),
        (["0I", "ZZ", "+I"], (1, 1), 2),  # projectors are measured as Z and X
    ],
)
def test_circuits_are_parameter_sets_times_bases(observables, points, circuits):
    pub = EstimatorPub.coerce((ansatz(), observables, np.zeros((*points, 3))))
    assert measured_circuits(pub) == circuits


def test_usage_adds_up_and_reads_well():
    total = Usage(1, 1, 2, 200, 3.0) + Usage(1, 2, 3, 300, 1.5)
    assert total == Usage(2, 3, 5, 500, 4.5)
    assert str(total) == "2 jobs, 3 PUBs, 5 circuits, 500 executions, 4.5 s"


# Splitting -----------------------------------------------------------------------------------------


@pytest.mark.thinned(7)
@pytest.mark.parametrize(("limit", "seed"), [(1, 0), (2, 1), (3, 2), (5, 3), (8, 4), (100, 5)])
def test_splitting_and_joining_changes_nothing(limit, seed):
    rng = np.random.default_rng(seed)
    shapes = [((3,), (7, 1, 3)), ((), (5, 3)), ((2, 1), (4, 3)), ((4,), (3,)), ((2,), (0, 1, 3))]
    words = np.array(["ZZ", "XX", "YI", "IZ"])
    pubs = coerce_pubs([(ansatz(), rng.choice(words, o).tolist(), rng.normal(size=p)) for o, p in shapes], None)
    jobs = split(pubs, Limits(circuits=limit), count)
    results = [(job, StatevectorEstimator().run([p.pub for p in job]).result()) for job in jobs]
    joined = join(pubs, results)
    for pub, part in zip(pubs, joined, strict=True):
        expected = StatevectorEstimator().run([pub]).result()[0].data.evs if pub.size else np.empty(pub.shape)
        np.testing.assert_allclose(part.data.evs, expected, atol=1e-12)
    assert all(count([p.pub for p in job]).circuits <= limit for job in jobs)
    least = -(-sum(measured_circuits(pub) for pub in pubs) // limit)
    assert least <= len(jobs) <= 2 * least


def count(pubs):
    return Usage(1, len(pubs), sum(map(measured_circuits, pubs)), 0, 0.0)


def test_one_broadcast_pub_is_cut_into_the_fewest_jobs():
    pubs = coerce_pubs([(ansatz(), ["ZZ", "ZI"], np.zeros((10, 1, 3)))], None)
    assert [len(job) for job in split(pubs, Limits(circuits=4), count)] == [1, 1, 1]
    assert len(split(pubs, Limits(circuits=None), count)) == 1


def test_a_parameter_set_over_the_limit_is_refused():
    observable = SparsePauliOp(["ZZ", "XX", "YY"])
    pubs = coerce_pubs([(ansatz(), observable, np.zeros(3))], None)
    with pytest.raises(CircuitError, match="PUB 0: one parameter set with one observable needs 3 circuits"):
        split(pubs, Limits(circuits=2), count)


def test_a_split_run_gives_one_result_and_counts_its_jobs():
    with hardware.connect(
        AerSimulator(), shots=4096, seed_simulator=1, max_circuits_per_job=3, options=UNMITIGATED
    ) as device:
        pub = pub_for(device, POINTS)
        job = device.estimator.run([pub])
        assert np.all(np.abs(job.result()[0].data.evs - exact(POINTS)) < 5 / np.sqrt(4096))
        assert len(job.job_ids()) == device.usage.jobs == device.estimate_usage([pub]).jobs == 4


@pytest.mark.parametrize("estimator", ["executor", "v2"])
def test_precisions_that_differ_go_into_different_jobs(estimator):
    with hardware.connect(AerSimulator(), estimator=estimator, seed_simulator=1, options=UNMITIGATED) as device:
        isa, observables, points = pub_for(device, POINTS)
        pubs = [(isa, observables, points, p) for p in (0.05, 0.1, 0.05)]
        result = device.estimator.run(pubs).result()
        assert [part.data.evs.shape for part in result] == [(4, 3)] * 3
        assert device.usage.jobs == 2


def test_no_pubs_are_no_job():
    with hardware.connect(MANILA) as device:
        assert len(device.estimator.run([]).result()) == 0
        assert device.usage == Usage()
