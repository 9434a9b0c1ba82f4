"""A training run that is killed, and resumed, on the mock of the paid service."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import train_on_device
from mock_runtime import MockService

TESTS = Path(train_on_device.__file__).parent


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The final weights, and the number of jobs, of a run that nothing happens to."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    train_on_device.main(folder)
    return np.load(folder / "weights.npy"), len(MockService(folder / "service").submitted())


def killed(folder, moment):
    """Run the training in a process of its own, which the service kills with SIGKILL at ``moment``."""
    environment = os.environ | {"MOCK_KILL": moment, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
    command = [sys.executable, "-W", "ignore", str(TESTS / "train_on_device.py"), str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


# A step is two jobs, and a checkpoint is written after the second and the fourth step. Job 6 is the
# backward pass of step 3, which is not in a checkpoint yet.
@pytest.mark.parametrize(
    ("moment", "submitted"),
    [
        ("accepted 6", 6),  # the service has the job, and the journal does not know its id
        ("asked 6", 5),  # the journal has the intent, and nobody the job
        ("waiting 6", 6),  # submitted, no result yet
        ("waiting 1", 1),  # before there is any checkpoint
    ],
)
@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights_and_pays_for_nothing_twice(
    uninterrupted, tmp_path, moment, submitted
):
    weights, jobs = uninterrupted
    process = killed(tmp_path, moment)
    assert process.returncode == -9, process.stderr
    assert len(MockService(tmp_path / "service").submitted()) == submitted
    assert not (tmp_path / "weights.npy").exists()
    train_on_device.main(tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "weights.npy"), weights)
    records = MockService(tmp_path / "service").submitted()
    assert len(records) == jobs == 2 * train_on_device.STEPS
    assert set(Counter(record["tags"][0] for record in records).values()) == {1}
