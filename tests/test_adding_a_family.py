"""docs/adding-a-family.md, followed step by step in a copy of the export."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest

from pxdbg_runtime.model.graph_file import read_graph_file

if TYPE_CHECKING:
    from pxdbg_runtime import Digits

CHECKOUT: Final = Path(__file__).resolve().parent.parent
DOCUMENT: Final = CHECKOUT / "docs" / "adding-a-family.md"
PROGRAMS: Final = {"python": [sys.executable], "pxdbg": [sys.executable, "-m", "pxdbg_runtime"]}


def list_blocks(language: str) -> list[str]:
    """List the code blocks of the document in a language."""
    text = DOCUMENT.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run(folder: Path, command: str) -> str:
    program, *arguments = command.split()
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        [*PROGRAMS[program], *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_the_steps_of_the_document_add_a_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, line, example = list_blocks("python")
    shutil.copytree(CHECKOUT / "export", tmp_path / "export", ignore=shutil.ignore_patterns("__pycache__"))
    families = tmp_path / "export" / "families"
    (families / "toy.py").write_text(module, encoding="utf-8")
    registry = (families / "__init__.py").read_text(encoding="utf-8")
    start = "FAMILIES: Final[dict[str, str]] = {\n"
    assert start in registry
    (families / "__init__.py").write_text(registry.replace(start, start + line), encoding="utf-8")

    (commands,) = list_blocks("console")
    told = [run(tmp_path, each.removeprefix("$ ")) for each in commands.splitlines()]
    assert len(told) == 3
    assert "toy, 307,877 parameters" in told[1]
    card = read_graph_file(tmp_path / "graphs" / "toy-float32.onnx").card
    assert (card.name, card.family, card.cut, card.min_charge) == ("toy", "toy", None, 1)
    assert [(each.name, each.role) for each in card.inputs] == [
        ("latent", "latent"),
        ("sensor", "sensor"),
        ("mood", "event_latent"),
    ]

    monkeypatch.chdir(tmp_path)
    names: dict[str, Digits] = {}
    exec(compile(example, str(DOCUMENT), "exec"), names)
    event, some = names["event"], names["some"]
    assert len(event.charge) > 40 * 500
    is_chosen = np.isin(event.sensor_id, np.unique(some.sensor_id))
    assert len(np.unique(event.sensor_id)) == 40
    assert len(np.unique(some.sensor_id)) == 2
    for column in ("sensor_id", "u_cell", "v_cell", "charge"):
        assert np.array_equal(getattr(event, column)[is_chosen], getattr(some, column)), column


def test_the_paths_of_the_document_exist() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    paths = set(re.findall(r"`((?:export|tests|benchmarks|artifacts|pxdbg_runtime)/[\w./-]*)`", text))
    assert {each for each in paths if not (CHECKOUT / each).exists()} == {"export/families/toy.py"}
