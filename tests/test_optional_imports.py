"""The importer of optional packages: the module, or the command that installs it."""

from __future__ import annotations

import importlib.machinery
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from pxdbg_runtime.errors import BrokenPackageError, InferenceError, MissingPackageError
from pxdbg_runtime.optional_imports import require

if TYPE_CHECKING:
    from pathlib import Path

    from pxdbg_runtime.model.graph_file import GraphFile


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


BROKEN: Final = {
    "requirement": ("import its_own_requirement", "No module named 'its_own_requirement'"),
    "library": ("raise ImportError('libfoo.so.1: cannot open shared object file')", r"libfoo\.so\.1: cannot open"),
    "numpy": ("import numpy\nnumpy.there_is_no_such_thing", "module 'numpy' has no attribute 'there_is_no_such_thing'"),
    "size": ("raise ValueError('numpy.dtype size changed')", "numpy.dtype size changed"),
    "newer": ("x = 1 +", "invalid syntax"),
    "half": ("from half_of_it import rest", "No module named 'half_of_it'"),
    "wordy": (f"raise ImportError({'a long story ' * 100!r})", "a long story .*a…"),
    "silent": ("raise OSError", "OSError"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_package_that_does_not_import_is_to_be_installed_again(kind: str, folder: Path) -> None:
    code, reason = BROKEN[kind]
    name = f"broken_{kind}"
    (folder / f"{name}.py").write_text(code)
    message = (
        rf"^A picture needs {name}, which is installed but does not import \(.*{reason}.*\): install it again: "
        rf"pip install --upgrade --force-reinstall {name}\.$"
    )
    with pytest.raises(BrokenPackageError, match=message) as caught:
        require(name, extra="plot", purpose="A picture")
    assert (caught.value.package, caught.value.extra) == (name, "plot")
    assert isinstance(caught.value, MissingPackageError)
    assert len(str(caught.value)) < 500


def test_a_package_is_installed_again_by_its_name_in_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        message = "a symbol is missing"
        raise ImportError(message)

    monkeypatch.setattr("pxdbg_runtime.optional_imports.import_within_limits", fail)
    with pytest.raises(BrokenPackageError, match=r"needs sklearn, .* --force-reinstall scikit-learn\.$"):
        require("sklearn.ensemble", extra="validation", purpose="A test")


def test_an_extension_that_is_no_library(folder: Path) -> None:
    package = folder / "cut_package"
    package.mkdir()
    (package / "__init__.py").write_text("from cut_package import core\n")
    (package / f"core{importlib.machinery.EXTENSION_SUFFIXES[0]}").write_bytes(b"\x7fELF")
    with pytest.raises(
        BrokenPackageError, match=r"needs cut_package, .*does not import \(.*core.*\): install it again"
    ):
        require("cut_package.inner", extra="parquet", purpose="A test")


def test_half_a_package_is_broken_and_not_missing(folder: Path) -> None:
    (folder / "half_package").mkdir()
    (folder / "half_package" / "__init__.py").touch()
    with pytest.raises(BrokenPackageError, match=r"No module named 'half_package\.parquet'"):
        require("half_package.parquet", extra="parquet", purpose="A test")


@pytest.mark.parametrize(("package", "part"), [("pyarrow", "pyarrow.parquet"), ("matplotlib", "matplotlib.figure")])
def test_a_package_whose_part_is_broken(package: str, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require(package, extra="plot", purpose="A test")
    monkeypatch.setitem(sys.modules, part, None)
    with pytest.raises(
        BrokenPackageError, match=rf"needs {package}, which is installed but does not import \(.*{part}"
    ):
        require(package, extra="plot", purpose="A test")


def test_an_error_of_our_own_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        message = "A sentence."
        raise InferenceError(message)

    monkeypatch.setattr("pxdbg_runtime.optional_imports.import_within_limits", fail)
    with pytest.raises(InferenceError, match=r"^A sentence\.$"):
        require("json", extra="plot", purpose="A test")


def test_a_numba_that_does_not_fit_numpy_is_said_before_the_first_image_of_charges(
    folder: Path, latent_graph: GraphFile
) -> None:
    (folder / "numba.py").write_text("raise ImportError('Numba needs NumPy 2.2 or less. Got NumPy 2.4.')")
    script = (
        "import sys\nfrom msgspec import structs\nfrom pxdbg_runtime import Generator\n"
        "from pxdbg_runtime.digitisation.digitiser import Digitiser\n"
        "from pxdbg_runtime.errors import BrokenPackageError\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "card = Generator(sys.argv[2], seed=1).card  # values need no numba\n"
        "try:\n    Digitiser(structs.replace(card, output_kind='charges'))\n"
        "except BrokenPackageError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", script, str(folder), str(latent_graph.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == (
        "The digitisation needs numba, which is installed but does not import (Numba needs NumPy 2.2 or less. "
        "Got NumPy "
        "2.4.): install it again: pip install --upgrade --force-reinstall numba.\n"
    )
