"""The tutorials run, are stored executed with pictures, and say at the top what they teach and how long they take."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
NEEDS = {"03_migration": "qiskit_machine_learning", "05_cartpole": "gymnasium", "08_device": "qiskit_ibm_runtime"}


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def test_all_tutorials_are_found() -> None:
    assert len(NOTEBOOKS) >= 10


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_code_of_a_tutorial_runs(path: Path, tmp_path: Path) -> None:
    """In a process and a folder of its own; what a tutorial asserts holds."""
    if path.stem in NEEDS:
        pytest.importorskip(NEEDS[path.stem])
    script = tmp_path / f"{path.stem}.py"
    script.write_text("\n\n".join(map(source, cells(path, "code"))) + "\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    result = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_tutorial_is_stored_executed(path: Path) -> None:
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), "execute it from the top"
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs), "no picture"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_tutorial_says_what_it_teaches_and_how_long_it_runs(path: Path) -> None:
    head = source(cells(path, "markdown")[0])
    assert head.startswith("# ") and "After this tutorial you can" in head
    assert re.search(r"in\s+about\s+\d+\s+seconds", head) and "pip install" in head


def test_every_tutorial_is_in_the_contents() -> None:
    contents = (ROOT / "docs" / "tutorials.md").read_text(encoding="utf-8").splitlines()
    assert [f"tutorials/{path.stem}" for path in NOTEBOOKS] == [
        line for line in contents if line.startswith("tutorials/")
    ]
