"""A program with compiled dictionaries of basf2's classes, which makes and reads overlay files (overlay_release)."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import numpy as np

from pxdbg_runtime import Digits

__all__ = ["ReleaseProgram", "compile_release", "make_old_overlay"]

SOURCES: Final = Path(__file__).resolve().parent / "overlay_release"
OLD: Final = """
import sys
from pxdbg_runtime.formats.root_library import import_root
path, digit_version, file_version = sys.argv[1:]
root = import_root("A test")
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
"""
LIBRARIES: Final = ("Core", "RIO", "Tree", "Hist", "MathCore")


class ReleaseProgram:
    """Runs the program, in a process that never sees the declarations of this package."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def run(self, *arguments: str | Path | int) -> str:
        """Return what it prints; an error of its own is a `ValueError` with the message."""
        words = [str(self._path), *map(str, arguments)]
        result = subprocess.run(words, cwd=self._path.parent, capture_output=True, text=True, check=False)
        if result.returncode != 0 or result.stderr:
            message = f"release {' '.join(words[1:])}: {result.stderr}"
            raise ValueError(message)
        return result.stdout

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
        [compiler, *flags, dictionary, SOURCES / "release.cpp", "-o", program, *(f"-l{name}" for name in LIBRARIES)],
        check=True,
        capture_output=True,
    )
    return ReleaseProgram(program)


def make_old_overlay(path: Path, digit_version: int, file_version: int) -> Path:
    """Make an overlay file of one event with classes of other versions and members, in a process of its own."""
    words = [sys.executable, "-c", OLD, str(path), str(digit_version), str(file_version)]
    subprocess.run(words, cwd=SOURCES.parent.parent, check=True)
    return path
