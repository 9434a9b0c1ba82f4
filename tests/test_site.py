"""The site: every public name is in its reference, and files that repeat a fact agree."""

from __future__ import annotations

import inspect
import json
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


def prose_of(path: Path) -> str:
    """The text of a document or notebook without its code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = (cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")
        text = "\n\n".join("".join(cell["source"]) for cell in cells)
    return re.sub(r"```.*?```|`[^`\n]*`", "code", text, flags=re.DOTALL)


def anchors_of(path: Path) -> set[str]:
    """Slugs of the headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken_links(path: Path) -> list[str]:
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(path)):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if file.name == "migration.md":  # it includes this file
            file = ROOT / "MIGRATION.md"
        elif file.name == "contributing.md":
            file = ROOT / "CONTRIBUTING.md"
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            found.append(target)
    return found


DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "tutorials").glob("*.ipynb")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_internal_links_lead_somewhere(path: Path) -> None:
    assert broken_links(path) == []


def test_the_link_finder(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Two words\n[a](#two-words) [b](page.md) [c](#none) [d](gone.md) `[e](code.md)` [f](https://x.y)\n"
    )
    assert broken_links(page) == ["#none", "gone.md"]


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
