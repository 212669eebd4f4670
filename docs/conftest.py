"""Run the code blocks of the documentation as tests: each page in a folder of its own, from top to bottom.

A block that cannot run here is skipped, and a comment before it gives the reason (``<!--- skip: next, "…" -->``).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sybil import Sybil
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser, SkipParser

if TYPE_CHECKING:
    from sybil import Example

_TIMEOUT_S = 300


def run_commands(example: Example) -> None:
    """Run the lines of a console block that begin with a dollar sign; each must end with exit code 0."""
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    for line in example.parsed.splitlines():
        if not line.startswith("$ "):
            continue
        done = subprocess.run(  # noqa: S602  # commands as a reader types them
            line[2:],
            shell=True,
            executable="/bin/bash",
            env=environment,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            message = f"{line}\nended with exit code {done.returncode}:\n{done.stdout}{done.stderr}"
            raise AssertionError(message)


def enter_folder(namespace: dict[str, Any]) -> None:
    """Run a page in an empty folder."""
    import tempfile

    namespace["_before"] = Path.cwd()
    namespace["_folder"] = tempfile.TemporaryDirectory()
    os.chdir(namespace["_folder"].name)


def leave_folder(namespace: dict[str, Any]) -> None:
    """Return to the folder from before."""
    os.chdir(namespace["_before"])
    namespace["_folder"].cleanup()


pytest_collect_file = Sybil(
    parsers=[SkipParser(), PythonCodeBlockParser(), CodeBlockParser("console", run_commands)],
    patterns=["*.md"],
    excludes=["command-line.md"],
    setup=enter_folder,
    teardown=leave_folder,
).pytest()
