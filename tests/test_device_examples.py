"""The examples on devices and noise: they run, resume, keep their budget, and the record is what they give."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import image
from scipy.stats import median_abs_deviation

from qtm import hardware
from qtm._errors import BudgetExceeded

ROOT = Path(__file__).parent.parent
# 13 points in two bases, 64 shots each: values at one point, and the six angles shifted to either side.
EXECUTIONS_OF_A_STEP = 2 * 13 * 64


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., dict[str, Any]]]:
    """Run an example in an empty folder, as if from the command line, and give its names."""
    threads = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: Any, as_name: str = "__main__") -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        return runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name=as_name)

    yield run
    torch.set_num_threads(threads)


def is_drawn(path: Path) -> bool:
    return bool(image.imread(path).std() > 0.05)


def measured(folder: Path) -> tuple[int, list[Any]]:
    """Jobs in the journal of a run, and the energies in its checkpoint."""
    with hardware.resume(folder / "hardware.journal") as device:
        checkpoint = torch.load(folder / "hardware.journal.pt", weights_only=True)
        return device.usage.jobs, checkpoint["parts"]["losses"]["value"]


@pytest.mark.slow
def test_hardware_takes_two_jobs_to_a_step(script: Callable[..., Any], tmp_path: Path) -> None:
    script("hardware", "--quick", "--out", tmp_path / "new")
    jobs, energies = measured(tmp_path / "new")
    assert jobs == 4 and [step for step, _ in energies] == [0, 1]
    assert is_drawn(tmp_path / "new" / "hardware.png")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.slow
def test_hardware_continues_after_its_budget(script: Callable[..., Any], tmp_path: Path) -> None:
    arguments = ("--steps", 3, "--shots", 64, "--out")
    script("hardware", *arguments, tmp_path / "whole")
    with pytest.raises(BudgetExceeded, match="used so far 2 jobs"):
        script("hardware", *arguments, tmp_path / "parts", "--max-executions", EXECUTIONS_OF_A_STEP)
    assert is_drawn(tmp_path / "parts" / "hardware.png")
    script("hardware", *arguments, tmp_path / "parts", "--resume", "--max-executions", 10 * EXECUTIONS_OF_A_STEP)
    assert measured(tmp_path / "parts") == measured(tmp_path / "whole")
    assert measured(tmp_path / "whole")[0] == 6


@pytest.mark.slow
def test_noisy_training_reports_every_set_up(script: Callable[..., Any], tmp_path: Path) -> None:
    script("noisy_training", "--quick", "--out", tmp_path)
    report = json.loads((tmp_path / "noisy_training.json").read_text(encoding="utf-8"))
    assert is_drawn(tmp_path / "noisy_training.png")
    assert report["seeds"] == 2 and report["figures"].keys() == {"Fig. 5", "Fig. 6"}
    for figure in report["figures"].values():
        assert figure["settings"]["epochs"] == 3
        assert figure["mitigated_over_unmitigated"] < 1  # three epochs train little, but noise shows at once


def test_noisy_training_starts_alike_in_every_set_up(script: Callable[..., Any]) -> None:
    """Without training the mitigated energy is the exact one, up to shots; the noisy one is far from it."""
    names = script("noisy_training", as_name="example")
    bar = names["tqdm"](disable=True)
    start = {
        setup: names["find_ground_state"](setup, names["EIGENSOLVER"], 0, 3, bar).curve[0] for setup in names["COLOURS"]
    }
    exact = start["exact"]
    assert abs(start["shots"] - exact) < 0.15
    assert abs(start["noise + shots + mitigation"] - exact) < 0.2
    assert abs(start["noise + shots"]) < 0.8 * abs(exact)


def test_deviation_is_the_median_absolute_deviation(script: Callable[..., Any], rng: np.random.Generator) -> None:
    values = rng.normal(size=(7, 5))
    deviation = script("noisy_training", as_name="example")["deviation"]
    np.testing.assert_allclose(deviation(values), median_abs_deviation(values, axis=0))


def test_the_record_is_of_these_settings_and_reaches_its_goal(script: Callable[..., Any]) -> None:
    names = script("noisy_training", as_name="example")
    recorded = json.loads((ROOT / "benchmarks" / "noisy_training.json").read_text(encoding="utf-8"))
    for task in (names["FIT"], names["EIGENSOLVER"]):
        figure = recorded["figures"][task.figure]
        assert figure["settings"] == vars(task)
        errors = {setup: error["per_seed"] for setup, error in figure["error"].items()}
        assert errors.keys() == names["COLOURS"].keys()
        assert all(len(per_seed) == recorded["seeds"] >= 10 for per_seed in errors.values())
        medians = {setup: np.median(per_seed) for setup, per_seed in errors.items()}
        assert medians["noise + shots + mitigation"] <= 0.5 * medians["noise + shots"]
