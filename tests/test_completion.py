"""Completion of commands, options and models in shells."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pxdbg_runtime.command_line import completion
from pxdbg_runtime.command_line.completion import complete_model
from pxdbg_runtime.errors import ManifestError

RUN = "from pxdbg_runtime.command_line import app; app(prog_name='pxdbg')"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("pxdbg che", ["check"]),
        ("pxdbg doctor res", ["resnet"]),
        ("pxdbg check conv", ["convnet"]),
        ("pxdbg generate --model i", ["ieagan"]),
        ("pxdbg convert --format hd", ["hdf5"]),
        ("pxdbg generate --precision int", ["int8"]),
        ("pxdbg generate --first-e", ["--first-event"]),
    ],
)
def test_bash_completes(typed: str, expected: list[str]) -> None:
    position = str(len(typed.split()) - 1)
    variables = {"_PXDBG_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": position}
    command = [sys.executable, "-c", RUN]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == (expected, "")


def test_all_models_are_offered() -> None:
    assert complete_model("") == ["convnet", "ieagan", "resnet"]


def test_a_broken_installation_completes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    def refuse() -> None:
        raise ManifestError(tmp_path, "It is gone.")  # type: ignore[arg-type]

    monkeypatch.setattr(completion, "read_manifest", refuse)
    assert complete_model("") == []
