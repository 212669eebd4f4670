"""Run the code blocks of README and documentation as tests: each page in a folder of its own, from top to bottom.

    python -m pytest -p tests.code_blocks README.md docs

A plugin and no conftest.py, so that other tests do not need sybil.

A block that cannot run here is skipped, and a comment before it gives the reason (``<!--- skip: next "…" -->``). What a
page expects in its reader's folder, a comment writes before (``<!--- invisible-code-block: python``). To be cheap, the
built-in models are replaced by small graphs with the same names, and commands get few events. The pages in
``docs/examples``, which run when the site is built, have the real ones.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sybil import Sybil
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser, SkipParser

if TYPE_CHECKING:
    from sybil import Example

_TIMEOUT_S: Final = 300
_CHECKOUT: Final = Path(__file__).resolve().parent.parent
_MAX_EVENTS: Final = {"--events": 4, "--events-per-part": 2}
_CHECKED_ONLY: Final = frozenset({"pip", "make"})
"""Programs that would install packages or take minutes: only the extras and targets that a page names are checked."""
_NEEDS_SHELL: Final = frozenset("|;&$`<>(){}*")


def run_commands(example: Example) -> None:
    """Run the lines of a console block that begin with a dollar sign; each must end with exit code 0."""
    for line in re.findall(r"^\$ (.+)$", example.parsed, flags=re.MULTILINE):
        command = _limit_events(line)
        words = shlex.split(command, comments=True)
        if words[0] in _CHECKED_ONLY:
            _check_names(words)
            continue
        if words[0] == "pxdbg" and not _NEEDS_SHELL & set(" ".join(words)):
            exit_code, output = _run_here(words[1:])
        else:
            exit_code, output = _run_in_shell(command)
        if exit_code != 0:
            message = f"{command}\nended with exit code {exit_code}:\n{output}"
            raise AssertionError(message)


def _check_names(words: list[str]) -> None:
    """Check that the extras of a pip command, or the targets of a make command, exist."""
    if words[0] == "pip":
        known = set(tomllib.loads((_CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
        named = {extra for extras in re.findall(r"\[([a-z0-9,]+)\]", " ".join(words)) for extra in extras.split(",")}
    else:
        known = set(re.findall(r"^([a-z][\w-]*):", (_CHECKOUT / "Makefile").read_text(), flags=re.MULTILINE))
        named = {word for word in words[1:] if "=" not in word}
    if not named <= known:
        message = f"{' '.join(words)}: there is no {', '.join(sorted(named - known))}"
        raise AssertionError(message)


def _limit_events(line: str) -> str:
    """Limit the numbers of events in a command."""
    words = line.split(" ")
    for place, option in enumerate(words[:-1]):
        if option in _MAX_EVENTS:
            words[place + 1] = str(min(int(words[place + 1]), _MAX_EVENTS[option]))
    return " ".join(words)


def _run_here(arguments: list[str]) -> tuple[int, str]:
    """Run pxdbg in this process, which spares its start and lets it see the small models."""
    from typer.testing import CliRunner

    from pxdbg_runtime.command_line import app

    result = CliRunner(env={"COLUMNS": "120", "TERM": "dumb"}).invoke(app, arguments, prog_name="pxdbg")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def _run_in_shell(command: str) -> tuple[int, str]:
    """Run a command as a reader types it, with this environment's programs and this checkout's packages."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(  # from our own page
        command,
        shell=True,
        executable="/bin/bash",
        env={**os.environ, "PATH": path, "PYTHONPATH": str(_CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def enter_folder(namespace: dict[str, Any]) -> None:
    """Run a page in an empty folder, with small models."""
    from tests.pages import replace_builtin_models

    namespace["_stack"] = stack = contextlib.ExitStack()
    stack.enter_context(contextlib.chdir(stack.enter_context(tempfile.TemporaryDirectory())))
    stack.enter_context(replace_builtin_models())


def leave_folder(namespace: dict[str, Any]) -> None:
    """Return to the folder and the models from before."""
    namespace["_stack"].close()


pytest_collect_file = Sybil(
    path=str(_CHECKOUT),
    parsers=[SkipParser(), PythonCodeBlockParser(), CodeBlockParser("console", run_commands)],
    patterns=["README.md", "docs/*.md"],
    excludes=["docs/command-line.md", "docs/errors.md"],
    setup=enter_folder,
    teardown=leave_folder,
).pytest()
