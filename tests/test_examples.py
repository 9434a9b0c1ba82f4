"""Every example runs, learns something and draws its plot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib import image

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


def test_all_examples_are_found() -> None:
    assert {"cartpole", "digits", "hybrid", "vqe"} <= set(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_example_runs(name: str, tmp_path: Path) -> None:
    """In an empty folder, as the usage at its top says, in no other environment than a user's."""
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), "--quick", "--out", str(tmp_path / "plots")]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert image.imread(tmp_path / "plots" / f"{name}.png").std() > 0.05, "the plot is empty"
    assert [path.name for path in tmp_path.iterdir()] == ["plots"], "it wrote elsewhere, too"


@pytest.mark.parametrize("name", NAMES)
def test_usage_is_at_the_top(name: str) -> None:
    source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    head = source.split('"""')[1]
    assert f"python examples/{name}.py" in head and "--quick" in head


def test_the_core_of_the_demo_is_short() -> None:
    assert len((EXAMPLES / "digits.py").read_text(encoding="utf-8").splitlines()) < 120
