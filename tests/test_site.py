"""The site: every public name is in its reference, and files that repeat a fact agree."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

import qtm

ROOT = Path(__file__).parent.parent
PUBLIC = sorted(path.stem for path in (ROOT / "qtm").glob("[a-z]*.py") if path.stem != "bench")


def listed(module: str) -> set[str]:
    """Names that the reference lists under a module, as entries or as constants."""
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    sections = [part for part in text.split("\n## ") if f".. currentmodule:: {module}\n" in part]
    found = [pair for part in sections for pair in re.findall(r"^   (\w+)$|`(\w+)`", part, re.MULTILINE)]
    return {entry or constant for entry, constant in found}


@pytest.mark.parametrize("name", PUBLIC)
def test_the_reference_lists_every_public_name(name: str) -> None:
    module = import_module(f"qtm.{name}")
    public = getattr(module, "__all__", None)
    if public is None:
        public = [n for n in qtm.__all__ if getattr(getattr(qtm, n), "__module__", "") == f"qtm.{name}"]
    assert public and set(public) <= listed(f"qtm.{name}")


def test_the_reference_lists_what_the_package_exports() -> None:
    everywhere = set().union(*(listed(module) for module in ("qtm", *(f"qtm.{name}" for name in PUBLIC))))
    modules = {name for name in qtm.__all__ if inspect.ismodule(getattr(qtm, name))}
    assert set(qtm.__all__) - modules <= everywhere


def test_every_page_is_in_the_contents() -> None:
    contents = (ROOT / "docs" / "index.md").read_text(encoding="utf-8").splitlines()
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages == pages & set(contents)


def test_the_gallery_shows_every_example() -> None:
    text = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    shown = re.findall(r"`python (examples/\w+\.py)`\n\n```{image} \.\./(\S+)", text)
    assert sorted(example for example, _ in shown) == sorted(
        f"examples/{p.name}" for p in (ROOT / "examples").glob("*.py")
    )
    assert [picture for _, picture in shown if not (ROOT / picture).exists()] == []


def test_the_citation_has_the_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {qtm.__version__}\n" in citation
