"""A program with compiled dictionaries of basf2's classes, which makes and reads overlay files (overlay_release)."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import weakref
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from pxdbg_runtime import Digits
from tests.made_once import make_once

__all__ = ["ReleaseProgram", "compile_release", "make_old_overlay"]

SOURCES: Final = Path(__file__).resolve().parent / "overlay_release"
OLD_VERSIONS: Final = ((2, 3), (5, 3), (5, 12))
"""Versions of PXDDigit and FileMetaData of the files that `make_old_overlay` makes."""
OLD: Final = """
import os, sys
from pxdbg_runtime.formats.root_library import import_root
root = import_root("A test")

def make(path, digit_version, file_version):
    assert root.gInterpreter.Declare(f'''
#include <TObject.h>
namespace Belle2 {{
  class PXDDigit : public TObject {{
    int m_sensorID = 0; float m_uCellPosition = 0; float m_charge = 0;
    ClassDefInline(PXDDigit, {digit_version})
  }};
  class FileMetaData : public TObject {{ int m_experimentLow = 17; ClassDefInline(FileMetaData, {file_version}) }};
}}''')
    file = root.TFile(path, "RECREATE")
    digits = root.TClonesArray("Belle2::PXDDigit")
    digits.ConstructedAt(0)
    description = root.Belle2.FileMetaData()
    for name, branch, value in (("tree", "PXDDigits", digits), ("persistent", "FileMetaData", description)):
        tree = root.TTree(name, name)
        tree.Branch(branch, value, 32000, 99)
        tree.Fill()
    file.Write()
    file.Close()

for path in sys.argv[1:]:
    if os.fork() == 0:  # a process declares one version of a class
        make(path, *path.removesuffix(".root").split("-")[-2:])
        os._exit(0)
    assert os.wait()[1] == 0
"""
LIBRARIES: Final = ("-lCore", "-lRIO", "-lTree", "-lHist", "-lMathCore")


class ReleaseProgram:
    """Runs commands of the program, each in a fork of one process, which never sees the declarations of this package.

    ROOT takes half a second to start, once for all forks.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def _server(self) -> subprocess.Popen[str]:
        server = subprocess.Popen(
            [self._path], cwd=self._path.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        weakref.finalize(self, server.communicate)  # it ends with its input
        return server

    def run(self, *arguments: str | Path | int) -> str:
        """Return what a command prints; an error of its own is a `ValueError` with the message."""
        stdin, stdout = self._server.stdin, self._server.stdout
        assert stdin is not None
        assert stdout is not None
        words = list(map(str, arguments))
        with tempfile.TemporaryDirectory() as folder:
            printed, errors = Path(folder, "printed"), Path(folder, "errors")
            print(printed, errors, *words, sep="\t", file=stdin, flush=True)
            status = int(stdout.readline())
            error = errors.read_text(encoding="utf-8")
            if status != 0 or error:
                message = f"release {' '.join(words)}: {error or os.waitstatus_to_exitcode(status)}"
                raise ValueError(message)
            return printed.read_text(encoding="utf-8")

    def make(self, path: Path, n_events: int, *, charge: int = 10) -> Path:
        """Make a complete overlay file of experiment 12, run 4."""
        self.run("make", path, n_events, charge)
        return path

    def overlay(
        self, path: Path, *, experiment: int, run: int, first: int, n_events: int
    ) -> tuple[dict[str, str], Digits]:
        """Play BGOverlayInput: returns the collections with their classes, and the digits of events 0, 1, 2, …"""
        output = path.with_suffix(".digits")
        lines = self.run("overlay", path, experiment, run, first, n_events, output).splitlines()
        table = np.fromfile(output, dtype=np.uint16).reshape(-1, 5)
        output.unlink()
        event, sensor_id, u_cell, v_cell, charge = (np.ascontiguousarray(column) for column in table.T)
        assert charge.max(initial=0) <= 255
        digits = Digits(
            event=event.astype(np.int64),
            sensor_id=sensor_id,
            u_cell=u_cell,
            v_cell=v_cell,
            charge=charge.astype(np.uint8),
        )
        names, kinds = zip(*map(str.split, lines), strict=True)
        return dict(zip(names, kinds, strict=True)), digits

    def describe(self, path: Path) -> dict[str, list[str]]:
        """Read FileMetaData, EventMetaData and the checksums of the classes: lines by their first word."""
        found: dict[str, list[str]] = {}
        for line in self.run("describe", path).splitlines():
            word, _, rest = line.partition(" ")
            found.setdefault(word, []).append(rest)
        return found


def compile_release(folder: Path) -> ReleaseProgram | None:
    """Compile the program, if the folder has none yet; None without a compiler, or ROOT with one of dictionaries."""
    compiler = shutil.which("c++")
    spec = importlib.util.find_spec("ROOT")
    if compiler is None or spec is None or spec.origin is None:
        return None
    root = Path(spec.origin).parent
    rootcling, include, libraries = root / "bin/rootcling", root / "include", root / "lib"
    if not rootcling.exists():
        return None
    program = folder / "release"
    if program.exists():
        return ReleaseProgram(program)
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
    dictionary = folder / "dictionary.cpp"
    subprocess.run(
        [rootcling, "-f", dictionary, f"-I{SOURCES}", "classes.hpp", SOURCES / "LinkDef.hpp"],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
    )
    flags = ["-std=c++17", "-O0", f"-I{include}", f"-I{SOURCES}", f"-L{libraries}", f"-Wl,-rpath,{libraries}"]
    subprocess.run(
        # One source instead of two, which include the same headers.
        [compiler, *flags, "-include", dictionary, SOURCES / "release.cpp", "-o", program, *LIBRARIES],
        check=True,
        capture_output=True,
    )
    return ReleaseProgram(program)


def make_old_overlay(path: Path, digit_version: int, file_version: int) -> Path:
    """Make an overlay file of one event with classes of other versions, in `OLD_VERSIONS`, and other members."""
    made = make_once("old-overlays", _make_old_overlays)
    path.write_bytes(made[digit_version, file_version].read_bytes())
    return path


def _make_old_overlays(folder: Path) -> dict[tuple[int, int], Path]:
    """Make a file of each pair of versions, in a process of their own."""
    paths = {versions: folder / "overlay-{}-{}.root".format(*versions) for versions in OLD_VERSIONS}
    subprocess.run([sys.executable, "-c", OLD, *paths.values()], cwd=SOURCES.parent.parent, check=True)
    return paths
