"""What the repository says about itself: workflows, Makefile, pyproject.toml, citation and release agree."""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from pxdbg_runtime.inference.providers import OLDEST_RELEASE
from pxdbg_runtime.version import __version__
from tests.release_ready import list_obstacles

REPOSITORY: Final = Path(__file__).resolve().parent.parent
WORKFLOWS: Final = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
MAKEFILE: Final = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
PYPROJECT: Final = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
STATEMENTS: Final = ("CHANGELOG.md", "CITATION.cff", "pyproject.toml")


def read_jobs(workflow: Path) -> dict[str, Any]:
    jobs: dict[str, Any] = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]
    return jobs


def list_steps(workflow: Path) -> list[dict[str, Any]]:
    return [step for job in read_jobs(workflow).values() for step in job["steps"]]


def list_targets(text: str) -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):", text, re.MULTILINE))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_targets_of_the_makefile(workflow: Path) -> None:
    commands = [step["run"] for step in list_steps(workflow) if "run" in step]
    assert commands
    for command in commands:
        found = re.fullmatch(r"make ([\w-]+)(?: [A-Z]+=(?:\w+|\"[\w .$]+\"))*", command)
        assert found, f"{command!r} is not one call of make"
        assert found[1] in list_targets(MAKEFILE)


def test_the_script_of_each_submission_runs_targets_of_the_makefile() -> None:
    lines = re.findall(r"^make (.+)$", (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    targets = {word for line in lines for word in shlex.split(line) if not word.startswith("-") and "=" not in word}
    assert {"lint", "test", "wheel-check"} <= targets <= list_targets(MAKEFILE)


def test_all_targets_are_phony() -> None:
    (phony,) = re.findall(r"^\.PHONY: ((?:.*\\\n)*.*)$", MAKEFILE, re.MULTILINE)
    assert set(phony.replace("\\\n", " ").split()) == list_targets(MAKEFILE)


def test_the_matrix_begins_with_the_oldest_versions_that_are_admitted() -> None:
    jobs = read_jobs(REPOSITORY / ".github" / "workflows" / "ci.yml")
    pythons = jobs["test"]["strategy"]["matrix"]["python"]
    assert f">={pythons[0]}" == PYPROJECT["project"]["requires-python"]
    assert {f"Programming Language :: Python :: {each}" for each in pythons} <= set(PYPROJECT["project"]["classifiers"])
    (lowest,) = (
        step["with"]["python-version"]
        for step in jobs["lowest"]["steps"]
        if "with" in step and "python-version" in step["with"]
    )
    assert lowest == pythons[0]
    oldest = ".".join(map(str, OLDEST_RELEASE))
    assert jobs["runtimes"]["strategy"]["matrix"]["release"][0] == f"{oldest}.0"
    assert f"onnxruntime>={oldest}" in PYPROJECT["project"]["optional-dependencies"]["cpu"]


def test_a_release_is_checked_with_all_extras() -> None:
    (extras,) = re.findall(r"^EXTRAS = (.*)$", MAKEFILE, re.MULTILINE)
    assert {*extras.split(","), "gpu"} == set(PYPROJECT["project"]["optional-dependencies"])


def test_releases_are_published_without_a_token() -> None:
    jobs = read_jobs(REPOSITORY / ".github" / "workflows" / "release.yml")
    publish = jobs["publish"]
    assert publish["needs"] == "build"
    assert publish["environment"]["name"] == "pypi"
    assert publish["permissions"] == {"id-token": "write", "attestations": "write", "contents": "read"}
    (upload,) = (step for step in publish["steps"] if step["uses"].startswith("pypa/gh-action-pypi-publish@"))
    assert upload["with"] == {"attestations": True}
    assert "secrets." not in "".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert (citation["version"], citation["license"]) == (__version__, PYPROJECT["project"]["license"])


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """Make the statements of a repository that is ready for a release of this version."""
    for name in STATEMENTS:
        shutil.copy(REPOSITORY / name, tmp_path)
    edit(tmp_path / "pyproject.toml", ".invalid/", ".example.org/")
    edit(tmp_path / "CHANGELOG.md", "## [Unreleased]", f"## [Unreleased]\n\n## [{__version__}] - 2026-12-01")
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_a_repository_is_ready_for_a_release(released: Path) -> None:
    assert list_obstacles(f"v{__version__}", released) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("CHANGELOG.md", f"## [{__version__}]", "## [9.9.9]", f"CHANGELOG.md has no section [{__version__}]"),
        (
            "CITATION.cff",
            f"version: {__version__}",
            "version: 9.9.9",
            f"CITATION.cff names another version than {__version__}",
        ),
        (
            "pyproject.toml",
            'Issues = "https://pxdbg-runtime.example.org/"',
            'Issues = "https://pxdbg-runtime.invalid/"',
            "[project.urls] of pyproject.toml has no public address for Issues",
        ),
    ],
)
def test_statements_that_disagree_prevent_a_release(
    released: Path, name: str, old: str, new: str, expected: str
) -> None:
    edit(released / name, old, new)
    assert list_obstacles(f"v{__version__}", released) == [expected]


def test_a_tag_of_another_version_prevents_a_release(released: Path) -> None:
    assert list_obstacles("v9.9.9", released) == [f"the tag is v9.9.9, but pxdbg_runtime/version.py says {__version__}"]
