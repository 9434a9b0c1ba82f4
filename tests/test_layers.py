"""The architecture, checked: which module may import which, and a few rules that keep files readable."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "qtm"
MAX_LINES = 450

# Imports go downward, from a unit to units on lower lines; units on one line do not import each other.
# A folder stands for everything in it. A new public file or folder gets its place here.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("_errors", "_locks", "_machine"),
    ("_kept_memory",),
    ("_arguments",),
    ("_executors",),
    ("_circuit", "_parts"),
    ("_noise",),
    ("_engines",),
    ("_primitives", "engines"),
    ("primitives",),
    ("_gradients",),
    ("gradients", "_torch"),
    ("modules", "states", "mps"),
    ("_qnn", "_mitigation", "circuits", "_diagnostics", "training", "postselection"),
    ("diagnostics",),
    ("symmetry",),
    ("connectors", "mitigation", "_noisy"),
    ("_hardware",),
    ("hardware", "noise"),
    ("_kernels",),
    ("kernels",),
    ("_optim",),
    ("optim",),
    ("_models", "_serve"),
    ("sklearn",),
    ("comparison",),
    ("_demo", "_bench", "_commands"),
    ("bench",),
    ("__init__",),
    ("__main__",),
)
LAYER_OF = {unit: layer for layer, units in enumerate(LAYERS) for unit in units}
KERNELS = PACKAGE / "_engines" / "statevector" / "kernels"
KERNEL_FREE_OF = {"qiskit", "qiskit_algorithms", "torch"}
# Packages that a core dependency itself requires, and so are always there.
IMPLIED = {"numba": {"llvmlite"}, "qiskit": {"scipy"}, "torch": {"sympy"}}
# Modules that are a package's interface, whose classes derive from the package's, or that are written in its language:
# imported only where they are used.
ADAPTERS = {
    "qtm/_engines/triton_statevector/kernels.py": {"triton"},
    "qtm/sklearn.py": {"sklearn"},
    "qtm/_models/kernel_machine.py": {"sklearn"},
    "qtm/_models/learner.py": {"sklearn"},
    "qtm/_serve/app.py": {"fastapi", "pydantic"},
}
MAY_PRINT = {"__main__", "bench"}

FILES = sorted(PACKAGE.rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def dotted(path: Path) -> tuple[str, ...]:
    """`qtm/_torch/autograd.py` -> `("qtm", "_torch", "autograd")`; a package is named by its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def unit_of(module: tuple[str, ...]) -> str:
    """The name in LAYERS of a dotted module of qtm."""
    return module[1] if len(module) > 1 else "__init__"


@pytest.fixture(scope="module", autouse=True)
def _no_trees_are_kept() -> Iterator[None]:
    """They are most of what a search for garbage would look at in all later tests."""
    yield
    tree_of.cache_clear()
    calls_of.cache_clear()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in {
        getattr(name, "id", getattr(name, "attr", None)) for name in ast.walk(node.test)
    }


def walk(node: ast.AST, *, into_functions: bool) -> Iterator[ast.AST]:
    """All nodes that run, those below functions only if asked, never what is only for the type checker."""
    waiting = [node]
    while waiting:
        for child in ast.iter_child_nodes(waiting.pop()):
            if is_type_checking(child):
                found = child.orelse  # type: ignore[attr-defined]
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not into_functions:
                found = []
            else:
                found = [child]
            yield from found
            waiting += found


def name_of_call(node: ast.Call) -> str:
    """`importlib.import_module(...)` -> `import_module`."""
    return getattr(node.func, "id", getattr(node.func, "attr", ""))


@cache
def calls_of(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]


def text_arguments(node: ast.Call) -> list[str]:
    arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
    return [a.value for a in arguments if isinstance(a, ast.Constant) and isinstance(a.value, str)]


def imports_of(tree: ast.Module, package: tuple[str, ...], *, into_functions: bool = True) -> set[tuple[str, ...]]:
    """Dotted names of everything that a module of `package` imports; `from a import b` gives `a.b`."""
    found: set[tuple[str, ...]] = set()
    for node in walk(tree, into_functions=into_functions):
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = base + (tuple(node.module.split(".")) if node.module else ())
            found |= {(*module, alias.name) for alias in node.names}
        elif isinstance(node, ast.Call) and name_of_call(node) in {"import_module", "__import__", "require"}:
            found |= {tuple(text.split(".")) for text in text_arguments(node)[:1]}
    return found


@cache
def imported(path: Path, *, into_functions: bool = True) -> set[tuple[str, ...]]:
    package = dotted(path) if path.name == "__init__.py" else dotted(path)[:-1]
    return imports_of(tree_of(path), package, into_functions=into_functions)


def is_module(name: tuple[str, ...]) -> bool:
    place = ROOT.joinpath(*name)
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def module_of(name: tuple[str, ...]) -> tuple[str, ...]:
    """The module that an imported dotted name belongs to: itself, or the one that defines it."""
    return name if is_module(name) else name[:-1]


def imported_units(path: Path) -> set[str]:
    """Units of qtm that `path` imports; `from qtm import X` is the package itself unless X is a module."""
    ours = [name for name in imported(path) if name[0] == "qtm"]
    return {unit_of(name) if is_module(name[:2]) else "__init__" for name in ours}


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def required_packages() -> set[str]:
    """Import names of the core dependencies, and of what these bring."""
    names = {re.split(r"[<>=!~;\[ ]", text)[0].replace("-", "_") for text in project()["dependencies"]}
    return names.union(*(IMPLIED.get(name, set()) for name in names))


def test_the_package_is_where_these_tests_look() -> None:
    assert PACKAGE / "_errors.py" in FILES


def test_every_module_has_a_layer() -> None:
    missing = {unit_of(dotted(path)) for path in FILES} - LAYER_OF.keys()
    assert not missing, f"{sorted(missing)} have no layer: give each its place in LAYERS of {Path(__file__).name}"


def test_imports_go_downward() -> None:
    """A package's modules import each other; __init__ and __main__ are above all."""
    upward = {}
    for path in FILES:
        unit = unit_of(dotted(path))
        above = sorted(other for other in imported_units(path) - {unit} if LAYER_OF[other] > LAYER_OF[unit])
        upward |= {relative(path): above} if above else {}
    assert not upward, "these files import from layers above theirs"


def test_no_cycle_inside_a_layer() -> None:
    graph: dict[str, set[str]] = {}
    for path in FILES:
        unit = unit_of(dotted(path))
        graph.setdefault(unit, set()).update(imported_units(path) - {unit})
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


def test_only_engines_know_kernels() -> None:
    # Benchmarks measure the kernels alone, and `qtm info` names the vector width.
    allowed = {"_bench", "__main__", "bench"}
    kernels = KERNELS.relative_to(ROOT).parts
    for path in FILES:
        uses = any(name[: len(kernels)] == kernels for name in imported(path))
        assert not uses or path.is_relative_to(KERNELS.parents[1]) or unit_of(dotted(path)) in allowed, path


def test_folders_have_no_circular_imports() -> None:
    """File by file: a circle inside a folder is as bad as one between folders."""
    graph = {dotted(path): {module_of(name) for name in imported(path) if name[0] == "qtm"} for path in FILES}
    graph = {name: others - {name, ("qtm",)} for name, others in graph.items() if name != ("qtm",)}
    TopologicalSorter(graph).prepare()


def test_kernels_know_neither_qiskit_nor_torch() -> None:
    kernels = [path for path in FILES if path.is_relative_to(KERNELS)]
    assert kernels
    assert [p for p in kernels if {name[0] for name in imported(p)} & KERNEL_FREE_OF] == []


def test_optional_packages_are_imported_only_inside_functions() -> None:
    always = {"qtm", *required_packages(), *sys.stdlib_module_names}
    early = {}
    for path in FILES:
        names = {name[0] for name in imported(path, into_functions=False)}
        names -= always | ADAPTERS.get(path.relative_to(ROOT).as_posix(), set())
        early |= {relative(path): names} if names else {}
    assert not early, "import these where they are used, after require(...); they are not core dependencies"


def test_require_names_an_extra_that_exists() -> None:
    calls = [(path, call) for path in FILES for call in calls_of(path) if name_of_call(call) == "require"]
    named = [(relative(path), call.lineno, texts[1]) for path, call in calls if len(texts := text_arguments(call)) == 2]
    assert named
    extras = project()["optional-dependencies"]
    assert [place for place in named if place[2] not in extras] == [], "pyproject.toml has no such extra"


def test_library_code_does_not_print() -> None:
    library = [path for path in FILES if unit_of(dotted(path)) not in MAY_PRINT]
    lines = [
        (relative(path), call.lineno)
        for path in library
        for call in calls_of(path)
        if isinstance(call.func, ast.Name) and call.func.id == "print"
    ]
    assert lines == [], "use logging.getLogger('qtm')"


def test_files_stay_readable() -> None:
    lengths = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    long = {name: lines for name, lines in lengths.items() if lines > MAX_LINES}
    assert not long, f"at most {MAX_LINES} lines: split these where their subject changes"
    assert [name for name in lengths if "util" in Path(name).stem] == [], "name a module after what it does"


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import qtm._machine", {("qtm", "_machine")}),
        ("from . import _machine", {("qtm", "_machine")}),
        ("from ._torch.autograd import f", {("qtm", "_torch", "autograd", "f")}),
        ("def f():\n    from .modules import M", {("qtm", "modules", "M")}),
        ("import importlib\nimportlib.import_module('qtm.bench')", {("importlib",), ("qtm", "bench")}),
        ("if TYPE_CHECKING:\n    import torch", set()),
        ("if typing.TYPE_CHECKING:\n    import a\nelse:\n    import b", {("b",)}),
    ],
)
def test_the_import_finder_sees_every_form(source: str, names: set[tuple[str, ...]]) -> None:
    """A finder that misses a form would let every layer rule pass."""
    assert imports_of(ast.parse(source), ("qtm",)) == names
