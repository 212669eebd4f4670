"""`pxdbg_runtime.open`: digit files of any format, lazily, event by event or as arrays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from msgspec.structs import replace

import pxdbg_runtime
from pxdbg_runtime import Digits, Generator
from pxdbg_runtime.campaigns.folder import open_campaign
from pxdbg_runtime.errors import ArgumentValueError, CampaignError, DigitFileError, MarginalsError
from pxdbg_runtime.formats import FORMATS, find_format, merge_files, open_events, open_writer, read_digits
from pxdbg_runtime.plots.event_display import save_event
from pxdbg_runtime.validation.marginals import read_marginals
from tests.digit_files import ANY_SUFFIX, COLUMNS, PROVENANCE, SAMPLE, renumber, write, write_plainly

if TYPE_CHECKING:
    from pxdbg_runtime.model.graph_file import GraphFile


class Entry(os.PathLike[str]):
    """A path that is no `Path`, such as `os.DirEntry`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return str(self._path)


@pytest.mark.parametrize("as_path", [str, lambda path: path, lambda path: [path], lambda path: iter([str(path)])])
def test_one_file(tmp_path: Path, as_path: type) -> None:
    sample = pxdbg_runtime.open(as_path(write(tmp_path / "a.npz", [SAMPLE])))
    assert sample.read() == SAMPLE
    assert [len(digits) for digits in sample] == [2, 0, 3, 0]
    assert [number for number, _digits in sample.read_events()] == sample.event_numbers.tolist() == [3, 4, 5, 6]
    assert Digits.concatenate(sample.read_blocks()) == SAMPLE
    assert (sample.n_events, sample.is_checked, sample.remark) == (4, True, "")
    assert sample.jobs == (sample.provenance,) == (PROVENANCE,)


@pytest.mark.slow
def test_each_function_for_users_takes_a_string(tmp_path: Path, latent_graph: GraphFile) -> None:
    """No AttributeError of a string where a path is meant."""
    path = str(tmp_path / "a.npz")
    with open_writer(path, PROVENANCE) as writer:
        writer.write(SAMPLE)
    assert read_digits(path).digits == open_events(path).read() == merge_files([path]).read() == SAMPLE
    assert find_format(path) is FORMATS["npz"]
    assert Generator(str(latent_graph.path), seed=7).generate(0) == Generator(
        Entry(latent_graph.path), seed=7
    ).generate(0)
    save_event(SAMPLE.of_event(3), str(tmp_path / "event.png"), title="")
    assert (tmp_path / "event.png").is_file()
    with pytest.raises(MarginalsError, match=r"gone\.json cannot be read"):
        read_marginals(str(tmp_path / "gone.json"))
    with pytest.raises(CampaignError, match="is not the folder of a campaign"):
        open_campaign(str(tmp_path))


def test_several_files_are_read_one_after_the_other(tmp_path: Path) -> None:
    other = replace(PROVENANCE, first_event=0, events=1, seed=8)
    first = renumber(SAMPLE.of_event(5), 0)
    paths = [write(tmp_path / "a.parquet", [SAMPLE]), write(tmp_path / "b.npz", [first], other)]
    sample = pxdbg_runtime.open(paths)
    assert sample.event_numbers.tolist() == [3, 4, 5, 6, 0]
    assert list(sample) == [*(SAMPLE.of_event(number) for number in (3, 4, 5, 6)), first]
    assert sample.read() == Digits.concatenate([SAMPLE, first])
    assert (sample.jobs, sample.provenance) == ((PROVENANCE, other), None)
    unknown = write_plainly(tmp_path / "c.npz", COLUMNS, None)
    assert pxdbg_runtime.open(unknown).provenance is None
    assert pxdbg_runtime.open([unknown]).jobs == ()


def test_rows_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", [SAMPLE])
    sample = pxdbg_runtime.open(path)
    path.unlink()
    with pytest.raises(DigitFileError, match=r"a\.npz cannot be read: No such file"):
        sample.read()


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ArgumentValueError, match="needs at least one digit file, but none was given"):
        pxdbg_runtime.open([])
    with pytest.raises(ArgumentValueError, match=f"must end in {ANY_SUFFIX}"):
        pxdbg_runtime.open(tmp_path / "a.csv")
    path = write(tmp_path / "a.npz", [SAMPLE])
    with pytest.raises(DigitFileError, match="both hold event 3"):
        pxdbg_runtime.open([path, path])


def test_the_import_of_the_package_does_not_load_the_formats() -> None:
    script = (
        "import sys, pxdbg_runtime\n"
        "assert not [name for name in sys.modules if name.startswith(('pxdbg_runtime.formats', 'pyarrow'))]\n"
        "assert 'open' in dir(pxdbg_runtime)\n"
        "assert callable(pxdbg_runtime.open)\n"
        "assert 'pxdbg_runtime.formats' in sys.modules and 'pyarrow' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


UNUSED: Final = """
import sys
from pathlib import Path
import pxdbg_runtime.command_line
from pxdbg_runtime.formats import open_writer
from pxdbg_runtime.formats.provenance import Provenance
optional = {"awkward", "h5py", "hist", "matplotlib", "mplhep", "pandas", "pyarrow", "ROOT", "uproot"}
print(sorted(optional & sys.modules.keys()))
provenance = Provenance.from_json(sys.argv[1])
with open_writer(Path("a.parquet"), provenance) as writer:
    writer.write(pxdbg_runtime.Digits.empty())
print(sorted(optional & sys.modules.keys()), pxdbg_runtime.open("a.parquet").n_events)
"""


def test_a_file_loads_the_package_of_its_own_format_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", UNUSED, PROVENANCE.to_json()]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n['pyarrow'] 4\n", "")


def test_an_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'pxdbg_runtime' has no attribute 'opened'"):
        _ = pxdbg_runtime.opened  # type: ignore[attr-defined]
