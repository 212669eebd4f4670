"""Completion of commands, options and models in shells."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

import pytest

from pxdbg_runtime.command_line import completion
from pxdbg_runtime.command_line.completion import complete_model
from pxdbg_runtime.errors import ManifestError

RUN: Final = """
import contextlib, os, sys
from pxdbg_runtime.command_line import app
_, *lines = sys.argv
del sys.argv[1:]
for typed in lines:
    os.environ |= {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    with contextlib.suppress(SystemExit):
        app(prog_name="pxdbg")
    print("end of", typed)
"""
COMPLETED: Final = {
    "pxdbg che": ["check"],
    "pxdbg doctor res": ["resnet"],
    "pxdbg check conv": ["convnet"],
    "pxdbg generate --model i": ["ieagan"],
    "pxdbg convert --format hd": ["hdf5"],
    "pxdbg generate --precision int": ["int8"],
    "pxdbg generate --first-e": ["--first-event"],
}


@pytest.fixture(scope="module")
def completions() -> dict[str, list[str]]:
    """Complete all lines in one process, as bash does in one for each."""
    command = [sys.executable, "-c", RUN, *COMPLETED]
    environment = os.environ | {"_PXDBG_COMPLETE": "complete_bash"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    printed, rest = {}, done.stdout
    for typed in COMPLETED:
        found, _, rest = rest.partition(f"end of {typed}\n")
        printed[typed] = found.split()
    assert rest == ""
    return printed


@pytest.mark.parametrize(("typed", "expected"), COMPLETED.items())
def test_bash_completes(completions: dict[str, list[str]], typed: str, expected: list[str]) -> None:
    assert completions[typed] == expected


def test_all_models_are_offered() -> None:
    assert complete_model("") == ["convnet", "ieagan", "resnet"]


def test_a_broken_installation_completes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    def refuse() -> None:
        raise ManifestError(tmp_path, "It is gone.")  # type: ignore[arg-type]

    monkeypatch.setattr(completion, "read_manifest", refuse)
    assert complete_model("") == []
