"""Pictures of comparisons: every package that was measured is in the picture and in its legend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qtm._bench.workloads import MODES

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
pytest.importorskip("matplotlib")


@pytest.mark.parametrize("name", ["fig1", "fig2", "table1", "latency", "vqe"])
def test_a_figure_shows_every_package_in_its_legend(name: str) -> None:
    from qtm._bench.plots import comparison_figure

    content = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    figure = comparison_figure(content)
    (legend,) = figure.legends
    shown = {text.get_text().removesuffix(", single") for text in legend.get_texts()}
    timed = {row["peer"] for row in content["rows"] if row["peer_ms"]}
    assert timed and timed <= shown
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [mode for mode in MODES if mode in titles] and len(titles) >= 1
    lines = {line.get_label() for axes in figure.axes for line in axes.get_lines()}
    assert {text.get_text() for text in legend.get_texts()} <= lines
