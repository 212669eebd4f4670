"""ROOT files with an entry for each event: no event has two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np
import pytest

from pxdbg_runtime.formats import read_digits, whole_events
from tests.digit_files import COLUMNS, SAMPLE, require_refusal
from tests.test_root_formats import LISTS, write_ntuple, write_tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("write_table", [write_tree, write_ntuple])
@pytest.mark.parametrize("events", [[3, 3, 5], [3, 5, 3], [5, 3, 5]])
def test_two_entries_of_one_event_are_refused(
    tmp_path: Path, write_table: Callable[[Path, dict[str, Any]], Path], events: list[int]
) -> None:
    """The digits are those of different pixels, and so could be joined; the last entry has none."""
    lists = {name: ak.unflatten(COLUMNS[name], [2, 3, 0]) for name in LISTS}
    path = write_table(tmp_path / "digits.root", {"event": np.array(events), **lists})
    common = max(events, key=events.count)
    require_refusal(path, f"holds two entries of event {common}, expected one: leave out what was merged twice")
    write_table(path, {"event": np.array([3, 5, 4]), **lists})
    assert read_digits(path).digits == SAMPLE


@pytest.mark.parametrize("write_table", [write_tree, write_ntuple])
def test_more_entries_than_a_file_has_events(
    tmp_path: Path, write_table: Callable[[Path, dict[str, Any]], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_events, "MAX_FILE_EVENTS", 2)
    lists = {name: ak.unflatten(COLUMNS[name], [2, 3, 0]) for name in LISTS}
    path = write_table(tmp_path / "digits.root", {"event": np.array([3, 5, 4]), **lists})
    require_refusal(path, "holds more than 2 entries, one for each event: split it into several files")
