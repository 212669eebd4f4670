"""ROOT files with a TTree or RNTuple: what uproot and real ROOT read in them, and what we read in files of others."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import awkward as ak
import numpy as np
import pytest
import uproot
from msgspec.structs import replace

from pxdbg_runtime import Digits
from pxdbg_runtime.errors import DigitFileError
from pxdbg_runtime.formats import open_events, read_digits, root_file
from pxdbg_runtime.formats.root_events import UUID_MARK
from tests.digit_files import (
    COLUMNS,
    METADATA,
    NOT_OURS,
    PROVENANCE,
    SAMPLE,
    build_metadata,
    list_columns,
    random_digits,
    renumber,
    require_refusal,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

LISTS: Final = ("sensor_id", "u_cell", "v_cell", "charge")
SIZES: Final = {3: 300, 4: 0, 5: 900, 6: 0}
"""Digits of the four events of PROVENANCE."""
each_kind = pytest.mark.parametrize("kind", ["ttree", "rntuple"])


def make_events() -> Digits:
    rng = np.random.default_rng(17)
    return Digits.concatenate(random_digits(rng, size, event) for event, size in SIZES.items())


def write_tree(path: Path, columns: dict[str, Any], texts: dict[str, str] | None = None) -> Path:
    """Write a TTree with the columns given, as another program would."""
    with uproot.recreate(path) as file:
        file.mktree("digits", {name: _find_type(values) for name, values in columns.items()}).extend(columns)
        for name, text in (texts or {}).items():
            file[name] = text
    return path


def write_ntuple(path: Path, columns: dict[str, Any]) -> Path:
    with uproot.recreate(path) as file:
        # An array of records: uproot 5.7.6 sorts the columns of a dict.
        file.mkrntuple("digits", {name: _find_type(values) for name, values in columns.items()}).extend(
            ak.zip(columns, depth_limit=1)
        )
    return path


def _find_type(values: NDArray[Any] | ak.Array) -> str:
    return str(values.type.content) if isinstance(values, ak.Array) else str(values.dtype)


def list_events(digits: Digits) -> dict[str, Any]:
    """Build an entry for each event, with lists."""
    events, counts = np.unique(digits.event, return_counts=True)
    return {"event": events, **{name: ak.unflatten(getattr(digits, name), counts) for name in LISTS}}


@pytest.fixture(scope="module")
def of_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with our files and those that ROOT made of them; `root_reading.py` says which."""
    if importlib.util.find_spec("ROOT") is None:
        if os.environ.get("CI"):
            pytest.fail("ROOT is not installed, which these tests need in CI: pip install root")
        pytest.skip("ROOT is not installed: pip install root")
    folder = tmp_path_factory.mktemp("root")
    digits = make_events()
    for kind in ("ttree", "rntuple"):
        write(folder / f"{kind}.root", [digits], format_name=kind)
    write(folder / "first.root", [digits.select_rows(digits.event < 5)], replace(PROVENANCE, events=2), "ttree")
    later = replace(PROVENANCE, first_event=5, events=2, seed=8)
    write(folder / "second.root", [digits.select_rows(digits.event >= 5)], later, "ttree")
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("root_reading.py")), str(folder)]
    environment = {**os.environ, "EXTRA_CLING_ARGS": "-O0"}  # ROOT compiles what it runs for a few events
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


# What others read in our files


@each_kind
@pytest.mark.slow
def test_real_root_reads_the_digits_and_the_texts(of_root: Path, kind: str) -> None:
    digits = make_events()
    with np.load(of_root / f"{kind}.npz") as found:
        assert found["event"].tolist() == list(SIZES)
        assert found["n_digits"].tolist() == list(SIZES.values())
        for name in LISTS:
            assert found[name].dtype == getattr(digits, name).dtype
            np.testing.assert_array_equal(found[name], getattr(digits, name))
    texts = json.loads((of_root / "results.json").read_text(encoding="utf-8"))[kind]
    assert json.loads(texts["pxdbg"]) == json.loads(PROVENANCE.to_json())
    assert json.loads(texts["pxdbg_digest"])["schema"] == 1


@each_kind
def test_uproot_reads_lists_with_their_own_types(tmp_path: Path, kind: str) -> None:
    digits = make_events()
    path = write(tmp_path / "digits.root", [digits], format_name=kind)
    with uproot.open(path) as file:
        arrays = file["digits"].arrays()
        assert str(file["pxdbg"]) == PROVENANCE.to_json()
    assert arrays["event"].tolist() == list(SIZES)
    assert ak.num(arrays["charge"]).tolist() == list(SIZES.values())
    for name in LISTS:
        assert ak.flatten(arrays[name]).to_numpy().dtype == getattr(digits, name).dtype
        assert ak.flatten(arrays[name]).tolist() == getattr(digits, name).tolist()


def test_the_branches_of_a_ttree_share_one_counter(tmp_path: Path) -> None:
    path = write(tmp_path / "digits.root", [SAMPLE])
    with uproot.open(path) as file:
        tree = file["digits"]
        titles = {branch.name: branch.title for branch in tree.branches}
    assert titles == {
        "event": "event/L",
        "n_digits": "n_digits/I",
        "sensor_id": "sensor_id[n_digits]/s",
        "u_cell": "u_cell[n_digits]/s",
        "v_cell": "v_cell[n_digits]/s",
        "charge": "charge[n_digits]/b",
    }


@each_kind
def test_many_events_share_a_basket_or_cluster(tmp_path: Path, kind: str) -> None:
    many = replace(PROVENANCE, events=2500)
    events = (renumber(SAMPLE.of_event(3), event) for event in range(3, 2503))
    path = write(tmp_path / "digits.root", events, many, kind)
    with uproot.open(path) as file:
        table = file["digits"]
        n_groups = table["charge"].num_baskets if kind == "ttree" else len(table.cluster_summaries)
    assert n_groups == 3
    assert read_digits(path).n_events == 2500


# What we read in files of others


@pytest.mark.parametrize("name", ["tree_of_tree", "ntuple_of_tree", "tree_of_ntuple"])
def test_snapshots_of_rdataframe_are_read(of_root: Path, name: str) -> None:
    found = read_digits(of_root / f"{name}.root")
    assert found.digits == make_events()
    assert (found.jobs, found.is_checked) == ((), False)


def test_a_selection_of_rdataframe_is_read(of_root: Path) -> None:
    found = read_digits(of_root / "selection.root")
    assert found.digits == make_events().of_event(5)
    assert not found.jobs


def test_files_that_hadd_merged_keep_the_provenance_of_all_and_are_not_checked(of_root: Path) -> None:
    found = read_digits(of_root / "merged.root")
    assert found.digits == make_events()
    assert [(job.first_event, job.events, job.seed) for job in found.jobs] == [(3, 2, -7), (5, 2, 8)]
    assert not found.is_checked


def test_a_copy_by_hadd_is_another_tools_file(of_root: Path) -> None:
    found = read_digits(of_root / "copy.root")
    assert found.digits == make_events().of_event(3)
    assert (len(found.jobs), found.is_checked) == (1, False)


def test_a_file_that_hadd_merged_with_itself_is_refused(of_root: Path) -> None:
    require_refusal(of_root / "twice.root", "holds two entries of event 3, .*leave out what was merged twice")


def test_metadata_of_different_samples_describe_none_of_them(tmp_path: Path) -> None:
    path = write_tree(tmp_path / "digits.root", COLUMNS)
    for model, n_jobs in (("tiny", 1), ("other", 0)):
        with uproot.update(path) as file:
            file["pxdbg"] = json.dumps({**METADATA, "model": model})
        found = read_digits(path)
        assert (found.digits, len(found.jobs)) == (SAMPLE, n_jobs)


@pytest.mark.parametrize("write_table", [write_tree, write_ntuple])
def test_a_digit_may_be_an_entry_of_its_own(
    tmp_path: Path, write_table: Callable[[Path, dict[str, NDArray[Any]]], Path]
) -> None:
    found = read_digits(write_table(tmp_path / "digits.root", COLUMNS))
    assert found.digits == SAMPLE


@pytest.mark.parametrize("write_table", [write_tree, write_ntuple])
def test_wider_integers_and_more_columns_are_read(
    tmp_path: Path, write_table: Callable[[Path, dict[str, Any]], Path]
) -> None:
    columns = {
        name: values if name == "event" else ak.values_astype(values, "int64")
        for name, values in list_events(SAMPLE).items()
    }
    found = read_digits(write_table(tmp_path / "digits.root", {**columns, "weight": np.ones(2)}))
    assert (found.digits, found.n_events) == (SAMPLE, 2)


def test_baskets_that_end_at_different_events_are_read(of_root: Path) -> None:
    path = of_root / "other_baskets.root"
    with uproot.open(path) as file:
        ends = {tuple(file["digits"][name].entry_offsets) for name in ("event", "u_cell", "charge")}
    assert len(ends) > 1
    assert read_digits(path).digits == make_events()


def test_reading_starts_no_threads(tmp_path: Path) -> None:
    before = threading.active_count()
    events = iter(open_events(write(tmp_path / "digits.root", [SAMPLE])))
    next(events)
    assert threading.active_count() == before


# Files that are refused


@each_kind
def test_rows_that_were_changed_in_place_are_found(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "digits.root", [SAMPLE], format_name=kind)
    with uproot.update(path) as file:
        del file["digits"]
    with uproot.update(path) as file:
        columns = list_events(SAMPLE.select_rows(slice(1, None)))
        file.mktree("digits", {name: _find_type(values) for name, values in columns.items()}).extend(columns)
    require_refusal(path, "holds other rows than those that its digest was computed from")


@each_kind
def test_a_digest_that_was_removed_is_missed(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "digits.root", [SAMPLE], format_name=kind)
    path.write_bytes(path.read_bytes().replace(b"pxdbg_digest", b"pxdbg_digesu"))
    require_refusal(path, "its digest is missing")


@each_kind
def test_metadata_that_were_changed_are_found(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "digits.root", [SAMPLE], format_name=kind)
    with uproot.update(path) as file:
        file["pxdbg"] = json.dumps({**METADATA, "seed": 9})
    require_refusal(path, "has other metadata than those that its digest was computed from")


@each_kind
def test_a_file_that_lost_its_end_is_refused(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "digits.root", [SAMPLE], format_name=kind)
    path.write_bytes(path.read_bytes()[:-1])
    require_refusal(path, "is truncated: it has [0-9,]+ bytes, expected [0-9,]+")


def replace_lists(**columns: NDArray[Any] | ak.Array) -> dict[str, Any]:
    return {**list_events(SAMPLE), **columns}


@pytest.mark.parametrize("write_table", [write_tree, write_ntuple])
@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (replace_lists(charge=ak.Array([[0.5], [1.5]])), "charge must hold integers, but holds"),
        (replace_lists(event=np.array([3.0, 5.0])), "event must hold integers, but holds"),
        (replace_lists(charge=np.array([3, 5])), "expected a list an event of each column but event, or no lists"),
        (replace_lists(charge=ak.Array([[1], [2]])), "its lists charge differ in length"),
        ({"event": np.array([3, 5])}, f"{NOT_OURS} .it has no (branches|field) sensor_id"),
        (replace_lists(u_cell=ak.Array([[0, 250], [1, 2, 3]])), "holds u_cell from 0 to 250, expected 0 to 249"),
    ],
)  # fmt: skip
def test_other_columns_are_refused(
    tmp_path: Path,
    write_table: Callable[[Path, dict[str, Any]], Path],
    columns: dict[str, Any],
    expected: str,
) -> None:
    require_refusal(write_table(tmp_path / "digits.root", columns), expected)


def test_a_root_file_without_digits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "digits.root"
    with uproot.recreate(path) as file:
        file["digits"] = np.histogram(np.arange(5))
    require_refusal(path, "holds no TTree or RNTuple with the name digits")


def test_a_long_text_is_refused(tmp_path: Path) -> None:
    path = write_tree(tmp_path / "digits.root", COLUMNS, {"pxdbg": "x" * (2 << 20)})
    require_refusal(path, "has metadata of 2,097,[0-9]+ bytes, expected at most 1,048,576")


def require_refusal_in_little_memory(path: Path, expected: str) -> None:
    assert path.stat().st_size < 1_000_000
    tracemalloc.start()
    try:
        with pytest.raises(DigitFileError, match=expected):
            read_digits(path)
        _now, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 20_000_000


def make_long_event(n_digits: int) -> dict[str, Any]:
    """Build an event whose charges compress to next to nothing."""
    charges = ak.unflatten(np.ones(n_digits, dtype=np.uint8), [n_digits])
    return {**list_events(SAMPLE.of_event(3).select_rows(slice(0, 1))), "charge": charges}


def test_a_basket_that_inflates_beyond_a_hundred_megabytes_is_refused(tmp_path: Path) -> None:
    path = write_tree(tmp_path / "digits.root", make_long_event(140_000_000))
    require_refusal_in_little_memory(path, "has a basket of 140 MB, expected at most 134 MB")


def test_a_cluster_of_too_many_digits_is_refused(tmp_path: Path) -> None:
    path = write_ntuple(tmp_path / "digits.root", make_long_event(65_000_000))
    require_refusal_in_little_memory(path, "has a cluster of 65,000,000 digits, expected at most 64,000,000")


def test_long_descriptions_of_classes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root_file, "_MAX_CLASS_BYTES", 1000)
    require_refusal(write_tree(tmp_path / "digits.root", COLUMNS), "has descriptions of classes of 0 MB")
    assert read_digits(write(tmp_path / "ours.root", [SAMPLE])).digits == SAMPLE  # which needs none


def test_a_file_compiles_no_code(of_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        pytest.fail("uproot compiles code that it made of the file")

    monkeypatch.setattr(uproot.deserialization, "compile_class", refuse)
    assert read_digits(of_root / "tree_of_tree.root").digits == make_events()


@each_kind
@pytest.mark.slow
def test_damaged_bytes_are_one_sentence_or_change_nothing(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "digits.root", [SAMPLE], format_name=kind)
    whole = path.read_bytes()
    rng = np.random.default_rng(5)
    for _ in range(150):
        content = bytearray(whole)
        for position in rng.integers(0, len(whole), 4).tolist():
            content[position] = int(rng.integers(0, 256))
        path.write_bytes(content)
        try:
            outcome: object = read_digits(path).digits
        except DigitFileError as error:
            outcome = str(error)
        if isinstance(outcome, str):
            assert outcome.startswith(str(path))
            assert "\n" not in outcome
            assert " at 0x" not in outcome  # an address differs each time
        else:
            assert outcome == SAMPLE


def test_columns_are_those_of_digits() -> None:
    assert tuple(list_columns(SAMPLE)) == ("event", *LISTS)


@pytest.mark.parametrize("kind", ["ttree", "rntuple", "overlay"])
def test_a_file_has_the_same_bytes_at_another_time(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where uproot leaves unused bytes, because the table grows many times."""
    if kind == "overlay":
        pytest.importorskip("ROOT", reason="pip install 'pxdbg-runtime[root]'")
    monkeypatch.setattr("pxdbg_runtime.formats.root_events._GROUP_EVENTS", 10)
    rng = np.random.default_rng(2)
    events = [random_digits(rng, int(rng.integers(300)), number) for number in range(3, 153)]
    metadata = build_metadata(replace(PROVENANCE, events=150))
    paths = [tmp_path / f"{name}.root" for name in ("first", "second", "other")]
    write(paths[0], events, metadata, kind)
    time.sleep(1.1 - time.time() % 1)  # into the next second
    write(paths[1], events, metadata, kind)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    write(paths[2], events[:-1], metadata, kind)  # tools keep what they read under the UUID
    assert len({uproot.open(path).file.uuid for path in paths}) == 2
    if kind != "overlay":
        assert {uproot.open(path).file.fUUID[:6] for path in paths} == {UUID_MARK}
