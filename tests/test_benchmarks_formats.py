"""The benchmark of the formats: each is measured on the same digits, and a missing package leaves a gap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from benchmarks import formats
from pxdbg_runtime import optional_imports
from pxdbg_runtime.digits import Digits
from pxdbg_runtime.errors import MissingPackageError
from pxdbg_runtime.formats import FORMATS
from tests.digit_files import PROVENANCE, build_metadata, random_digits
from tests.test_benchmarks_command import measure
from tests.test_command_line import words

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

NAMES = ("parquet", "parquet-events", "parquet-compact", "npz", "hdf5", "ttree", "rntuple")


def make_sample(folder: Path) -> formats.Sample:
    rng = np.random.default_rng(1)
    return formats.Sample(
        events=[random_digits(rng, 2000, event) for event in (3, 4, 5)],
        metadata=build_metadata(PROVENANCE),
        folder=folder,
    )


@pytest.mark.parametrize("name", NAMES)
def test_seconds_and_size_of_an_event(tmp_path: Path, name: str) -> None:
    sample = make_sample(tmp_path)
    write_s, read_s = sample.time_format(name)
    assert 0 < write_s < 5
    assert 0 < read_s < 5
    (size_kb,) = sample.measure_size(name)
    assert size_kb == pytest.approx(sample.name_file(name).stat().st_size / 3000)
    assert 3 < size_kb < 50


def test_a_format_that_loses_digits_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Content:
        digits = Digits.empty()

    monkeypatch.setattr(formats, "read_digits", lambda _path: Content)
    with pytest.raises(RuntimeError, match="the format npz holds other digits than those that were written"):
        make_sample(tmp_path).time_format("npz")


@pytest.mark.slow
def test_the_command_measures_what_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def require(module: str, **options: Any) -> ModuleType:  # noqa: ANN401
        if module == "h5py":
            raise MissingPackageError("h5py", "hdf5", "not installed: h5py")
        return optional_imports.require(module, **options)

    monkeypatch.setattr(formats, "require", require)
    monkeypatch.setattr(formats, "FORMATS", {name: FORMATS[name] for name in NAMES})
    monkeypatch.setattr(formats, "N_QUICK_EVENTS", 2)
    result, content = measure(tmp_path, "formats", "--quick")
    found = {(each["labels"]["format"], each["labels"]["what"]): each for each in content["measurements"]}
    assert found.keys() == {(name, what) for name in NAMES for what in ("size", "write", "read")}
    sizes = {name: found[name, "size"]["median"] for name in NAMES}
    assert {each["unit"] for (_name, what), each in found.items() if what == "size"} == {"kB"}
    # Two events of the simulation have some 70,000 digits each.
    assert sizes["hdf5"] is None
    assert 100 < sizes["parquet-compact"] < 0.8 * sizes["parquet"] < 150
    assert found["hdf5", "write"]["reason"] == "not installed: h5py"
    assert "hdf5 not installed not installed not installed" in words(result.stdout).replace("│", "").replace("  ", " ")
    assert content["remarks"][0].startswith("100 events of the simulation")
