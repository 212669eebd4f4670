"""The recipes of containers agree with pyproject.toml, with each other, and with what a wheel is built from."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Final

import pytest

from tests.container_steps import FOLDER, REPOSITORY, list_context, list_stages, parse_definition, parse_dockerfile

if TYPE_CHECKING:
    from pathlib import Path

PROJECT: Final = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DOCKERFILE: Final = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
DEFINITION: Final = (FOLDER / "pxdbg.def").read_text(encoding="utf-8")
INSTRUCTIONS: Final = parse_dockerfile(DOCKERFILE)


def find_extras(text: str) -> set[str]:
    """Find the extras of all wheels that a text installs."""
    return {extra.strip() for found in re.findall(r"\.whl\)\[([^]]+)\]", text) for extra in found.split(",")}


def find_target_extras(target: str) -> set[str]:
    stages = list_stages(INSTRUCTIONS, target)
    return find_extras("\n".join(each.value for each in INSTRUCTIONS if each.stage in stages and each.name == "RUN"))


def test_both_recipes_have_the_same_python_and_the_project_admits_it() -> None:
    (docker,) = re.findall(r"^ARG PYTHON=(\d+\.\d+)$", DOCKERFILE, re.MULTILINE)
    (apptainer,) = re.findall(r"^From: python:(\d+\.\d+)-slim-bookworm$", DEFINITION, re.MULTILINE)
    assert docker == apptainer
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert tuple(map(int, docker.split("."))) >= tuple(map(int, oldest.split(".")))
    images = {each.value.split()[0] for each in INSTRUCTIONS if each.name == "FROM"}
    assert images == {"python:${PYTHON}-slim-bookworm", "base"}


@pytest.mark.parametrize(("target", "runtime"), [("cpu", "cpu"), ("cuda", "gpu")])
def test_a_target_has_one_onnx_runtime_and_extras_that_exist(target: str, runtime: str) -> None:
    extras = find_target_extras(target)
    assert extras & {"cpu", "gpu"} == {runtime}
    assert extras <= set(PROJECT["optional-dependencies"])
    assert "parquet" in extras


def test_both_recipes_have_the_same_extras() -> None:
    assert find_extras(DEFINITION) - {"{{ EXTRA }}"} == find_target_extras("cpu") - {"cpu"}
    assert parse_definition(DEFINITION)["arguments"].split() == ["EXTRA=cpu"]


def test_python_in_apptainer_reads_no_packages_of_the_host(tmp_path: Path) -> None:
    program = "import sys; print(sys.flags.no_user_site, sys.argv[1] in sys.path)"
    script = f"{parse_definition(DEFINITION)['environment']}\nexec '{sys.executable}' -c '{program}' '{tmp_path}'"
    host = {"PYTHONPATH": str(tmp_path), "PYTHONHOME": str(tmp_path)}
    result = subprocess.run(["/bin/sh", "-ec", script], env=os.environ | host, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "1 False\n"), result.stderr


def test_containers_do_not_run_as_root() -> None:
    users = {each.stage: each.value for each in INSTRUCTIONS if each.name == "USER"}
    assert users == {"cpu": "1000", "cuda": "1000"}
    (created,) = (each.value for each in INSTRUCTIONS if "useradd" in each.value)
    assert created.startswith("useradd --create-home --uid 1000 pxdbg ")


def test_the_build_gets_what_the_wheel_is_made_of_and_nothing_else() -> None:
    context = {str(path) for path in list_context()}
    assert {"pyproject.toml", "hatch_build.py", PROJECT["readme"], *PROJECT["license-files"]} <= context
    assert {"artifacts/manifest.json", "artifacts/resnet-int8.onnx", "pxdbg_runtime/py.typed"} <= context
    modules = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "pxdbg_runtime").rglob("*.py")}
    assert modules <= context
    assert {path.partition("/")[0] for path in context if "/" in path} == {"pxdbg_runtime", "artifacts"}
    assert not [path for path in context if path.endswith(".safetensors")]
