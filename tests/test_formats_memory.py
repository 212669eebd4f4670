"""Memory does not grow with the events of a digit file, in any format, written or read."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

from pxdbg_runtime.formats import FORMATS
from tests.test_formats import CHECKOUT, list_installed, name_file

MEMORY: Final = """
import importlib.util, os, resource, sys
from pathlib import Path
import numpy as np
from msgspec.structs import replace
from pxdbg_runtime.formats import open_events, open_writer
from tests.digit_files import PROVENANCE, build_metadata, random_digits, renumber
importlib.util.find_spec("uproot") and importlib.import_module("uproot")
one = random_digits(np.random.default_rng(1), 600, 0)

def measure(path, name):
    for events in (2_000, 4_000):
        metadata = build_metadata(replace(PROVENANCE, first_event=0, events=events))
        with open_writer(path, metadata, format_name=name) as writer:
            for event in range(events):
                writer.write(renumber(one, event))
        yield resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert all(len(digits) == 600 for digits in open_events(path))
        yield resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

for path in map(Path, sys.argv[1:]):
    path.parent.mkdir()
    if os.fork() == 0:
        print(path.parent.name, *measure(path, path.parent.name), flush=True)
        os._exit(0)
    os.wait()
"""
"""The first file has 1.2 million digits, which fill the buffers: groups of a million rows are the largest."""


@pytest.fixture(scope="module")
def peaks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """Measure peaks of memory with each format, in a fork of its own; a format that fails is missing."""
    folder = tmp_path_factory.mktemp("memory")
    paths = {name: name_file(folder / name, name) for name in list_installed()}
    command = [sys.executable, "-c", MEMORY, *map(str, paths.values())]
    done = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, timeout=600, check=True)
    return {line.split()[0]: list(map(int, line.split()[1:])) for line in done.stdout.splitlines()}


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere, or there is none")
@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_memory_is_flat_over_thousands_of_events(name: str, peaks: dict[str, list[int]]) -> None:
    """Sees what the second file would keep: 3 kB of each event that it has more, or a third of its 18 MB of columns."""
    if name not in list_installed():
        pytest.skip(f"{FORMATS[name].package} is not installed")
    _, after_few, written, read = peaks[name]
    assert written - after_few < 6_000, f"writing took {written - after_few} KiB more"
    assert read - written < 6_000, f"reading took {read - written} KiB more"
