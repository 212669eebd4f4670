"""The importer of optional packages: the module, or the command that installs it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from pxdbg_runtime.errors import MissingPackageError
from pxdbg_runtime.optional import require

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_an_installed_module_is_given() -> None:
    assert require("json", extra="plot", purpose="A test") is json
    assert require("json.decoder", extra="plot", purpose="A test") is json.decoder


@pytest.mark.parametrize("module", ["not_installed_here", "not_installed_here.inner"])
def test_a_missing_one_names_the_package_and_the_command(module: str) -> None:
    message = (
        r"^Drawing a picture needs not_installed_here, which is not installed: pip install 'pxdbg-runtime\[plot\]'\.$"
    )
    with pytest.raises(MissingPackageError, match=message) as caught:
        require(module, extra="plot", purpose="Drawing a picture")
    assert (caught.value.package, caught.value.extra) == ("not_installed_here", "plot")
    assert isinstance(caught.value, ImportError)


def test_a_blocked_one_counts_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "blocked_here", None)
    with pytest.raises(MissingPackageError, match="needs blocked_here, which is not installed"):
        require("blocked_here", extra="parquet", purpose="A test")


def test_a_package_whose_own_requirement_is_missing_is_not_blamed(folder: Path) -> None:
    (folder / "half_installed.py").write_text("import its_own_requirement\n")
    with pytest.raises(ModuleNotFoundError, match="No module named 'its_own_requirement'") as caught:
        require("half_installed", extra="plot", purpose="A test")
    assert not isinstance(caught.value, MissingPackageError)


def test_a_package_that_breaks_on_import_says_so_itself(folder: Path) -> None:
    (folder / "broken_package.py").write_text("raise ImportError('libfoo.so.1: cannot open shared object file')\n")
    with pytest.raises(ImportError, match=r"libfoo\.so\.1") as caught:
        require("broken_package", extra="plot", purpose="A test")
    assert not isinstance(caught.value, MissingPackageError)
