"""Everything the documentation shows is run: code blocks of the documents, examples of public docstrings."""

from __future__ import annotations

import doctest
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import qtm
from qtm.gradients import GRADIENT_METHODS
from qtm.mitigation import MITIGATION_METHODS

ROOT = Path(__file__).parent.parent
_WITH_CODE = (
    "index",
    "getting_started",
    "methods",
    "states",
    "kernels",
    "diagnostics",
    "natural_gradient",
    "hardware",
    "performance",
    "extending",
    "faq",
)
PAGES = tuple(f"docs/{page}.md" for page in _WITH_CODE)
DOCUMENTS = ("README.md", "MIGRATION.md", "CONTRIBUTING.md", *PAGES)
QUICK = {"README.md", "CONTRIBUTING.md", "docs/index.md", "docs/methods.md", "docs/extending.md", "docs/faq.md"}
MUST_HAVE_CODE = {"README.md", "MIGRATION.md", *PAGES}

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NO_TEST = re.compile(r"<!-- no-test:((?:(?!-->).)*)-->\s*\Z", re.DOTALL)
WRONG_NAME = re.compile(r"pip install\b[^\n#`]*?[\s\"']qtm(?![\w-])")


@dataclass(frozen=True)
class Block:
    """One python block: the number of its first line (from 1), its code, why it is not run (None: it is)."""

    line: int
    code: str
    skipped: str | None


def python_blocks(text: str) -> list[Block]:
    """The python blocks of a document, with the reason from a `no-test` comment just above each."""
    blocks = []
    for match in FENCE.finditer(text):
        if match[1] == "python":
            above = NO_TEST.search(text[: match.start()])
            line = text.count("\n", 0, match.start(2)) + 1
            blocks.append(Block(line, match[2], above[1].strip() if above else None))
    return blocks


def read(document: str) -> str:
    path = ROOT / document
    if not path.exists():
        pytest.skip(f"{document} is not written yet")
    return path.read_text(encoding="utf-8")


@pytest.fixture
def tables() -> Iterator[None]:
    """The page on extending adds methods of its own."""
    before = [(table, dict(table)) for table in (GRADIENT_METHODS, MITIGATION_METHODS)]
    yield
    for table, content in before:
        table.clear()
        table.update(content)


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("document", [d if d in QUICK else pytest.param(d, marks=pytest.mark.slow) for d in DOCUMENTS])
def test_code_blocks_run(document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks share one namespace, in order, in an empty directory: as a reader would type them."""
    blocks = python_blocks(read(document))
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        if block.skipped is None:
            code = "\n" * (block.line - 1) + block.code  # so that a traceback shows the document's lines
            exec(compile(code, str(ROOT / document), "exec"), namespace)


def test_each_block_of_the_readme_runs_alone() -> None:
    blocks = python_blocks(read("README.md"))
    assert len(blocks) >= 2
    for block in blocks:
        exec(compile(block.code, "README.md", "exec"), {})


@pytest.mark.parametrize("document", DOCUMENTS)
def test_skipped_blocks_give_a_reason(document: str) -> None:
    blocks = python_blocks(read(document))
    assert blocks or document not in MUST_HAVE_CODE
    assert not [block.line for block in blocks if block.skipped == ""]


@pytest.mark.parametrize("document", [*DOCUMENTS, "CHANGELOG.md", "benchmarks/README.md"])
def test_documents_name_the_distribution(document: str) -> None:
    """`qtm` on the package index is somebody else's."""
    assert not WRONG_NAME.findall(read(document))


def test_sources_name_the_distribution() -> None:
    sources = {path: path.read_text(encoding="utf-8") for path in (ROOT / "qtm").rglob("*.py")}
    assert sources
    assert [path for path, text in sources.items() if WRONG_NAME.search(text)] == []


def examples_of(name: str) -> list[doctest.DocTest]:
    """Doctests of an exported name, its public methods included; each starts after `from qtm import *`."""
    names = {"qtm": qtm} | {other: getattr(qtm, other) for other in qtm.__all__}
    found = doctest.DocTestFinder().find(getattr(qtm, name), f"qtm.{name}", globs=names)
    return [test for test in found if test.examples]


NEEDS = {"MitigatedEstimator": "mitiq"}  # which there is not for every Python


@pytest.mark.parametrize("name", sorted(qtm.__all__))
def test_docstring_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(NEEDS.get(name, "qtm"))
    monkeypatch.chdir(tmp_path)
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    report: list[str] = []
    for test in examples_of(name):
        doctest.DocTestRunner(optionflags=options, verbose=False).run(test, out=report.append)
    assert not report, "".join(report)


@pytest.mark.parametrize("name", sorted(qtm.__all__))
def test_public_names_are_documented_with_an_example(name: str) -> None:
    public = getattr(qtm, name)
    if name.startswith("__"):
        return
    assert inspect.getdoc(public), f"qtm.{name} has no docstring"
    is_error = inspect.isclass(public) and issubclass(public, BaseException)
    if callable(public) and not is_error:
        assert examples_of(name), f"qtm.{name} shows no example (>>> ...) in its docstring"


def test_the_block_finder() -> None:
    """A finder that misses a block would let any document pass."""
    text = (
        "a\n```python\nx = 1\n```\n```bash\nls\n```\n"
        "<!-- no-test: needs an account -->\n```python\ny = 2\n```\n"
        "<!-- no-test: -->\n\n```python\nz = 3\n```\n"
    )
    assert python_blocks(text) == [
        Block(3, "x = 1\n", None),
        Block(10, "y = 2\n", "needs an account"),
        Block(15, "z = 3\n", ""),
    ]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("pip install qtm", True),
        ("pip install -U 'qtm[demo]'", True),
        ("pip install qtm-torch", False),
        ('pip install "qtm-torch[aer]" # then import qtm', False),
        ("pip install -e .", False),
    ],
)
def test_the_wrong_name_finder(text: str, wrong: bool) -> None:
    assert bool(WRONG_NAME.search(text)) is wrong
