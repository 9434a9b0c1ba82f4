"""MIGRATION.md: its table is the one that was measured."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_the_table_is_measured() -> None:
    pytest.importorskip("qiskit_machine_learning")
    script = runpy.run_path(str(ROOT / "benchmarks" / "migration.py"))
    text = (ROOT / "MIGRATION.md").read_text(encoding="utf-8")
    result = json.loads((ROOT / "benchmarks" / "migration.json").read_text(encoding="utf-8"))
    assert script["MARKED"].search(text), "MIGRATION.md has lost the place of its table"
    assert script["filled"](text, result) == text, "run benchmarks/migration.py, or take back what was typed"
