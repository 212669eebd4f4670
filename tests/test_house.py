"""The structure of the source: imports of the runtime run one way, and no module is long."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY: Final = Path(__file__).resolve().parent.parent
RUNTIME: Final = "pxdbg_runtime"
MAX_LINES: Final = 400

LEVELS: Final[tuple[frozenset[str], ...]] = tuple(
    frozenset(level.split())
    for level in (
        "errors version documentation",
        "checks",
        "limits",
        "optional_imports json_records regular_file sensors task_threads",
        "conversions",
        "digits",
        "model",
        "digitisation",
        "inference",
        "generator overlaying",
        "formats basf2 diagnosis",
        "validation plots",
        "campaigns",
        "command_line",
        "__main__",
    )
)
"""Modules and folders of the runtime, from the bottom up: each imports its own folder and lower levels only."""


def list_modules(*folders: str) -> list[Path]:
    return [path.relative_to(REPOSITORY) for folder in folders for path in sorted((REPOSITORY / folder).rglob("*.py"))]


def find_stage(module: str) -> str:
    """Name the file or folder directly in the runtime's package that contains a module."""
    return module.split(".")[1]


def list_imports(path: Path) -> Iterator[str]:
    """Yield the modules of the runtime that a source imports anywhere, also inside functions and for type checkers."""
    for node in ast.walk(ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.startswith(f"{RUNTIME}."))


def rank(stage: str) -> int:
    return next(number for number, level in enumerate(LEVELS) if stage in level)


@pytest.mark.parametrize("path", list_modules(RUNTIME), ids=str)
def test_imports_run_one_way(path: Path) -> None:
    if path == Path(RUNTIME, "__init__.py"):  # gathers the public names
        return
    stage = find_stage(".".join(path.with_suffix("").parts))
    for name in list_imports(path):
        imported = find_stage(name)
        assert imported == stage or rank(imported) < rank(stage), f"{path} imports {name}"


@pytest.mark.parametrize("path", list_modules(RUNTIME), ids=str)
def test_the_runtime_imports_no_other_stage(path: Path) -> None:
    tree = ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported}.isdisjoint(
        {"export", "artifacts", "benchmarks", "torch", "onnx"}
    )


@pytest.mark.parametrize("path", list_modules(RUNTIME, "export", "artifacts", "benchmarks", "tests"), ids=str)
def test_no_module_is_long(path: Path) -> None:
    n_lines = len((REPOSITORY / path).read_text(encoding="utf-8").splitlines())
    assert n_lines <= MAX_LINES, f"{path} has {n_lines} lines: split it"
