"""The quick form of the fuzzing: some hundred altered files of each reader; and the fuzzer itself."""

from __future__ import annotations

import contextlib
import json
from random import Random
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.families import FAMILIES
from pxdbg_runtime.errors import CardError, JsonFieldError, MissingPackageError, PxdbgError
from pxdbg_runtime.formats import FileMetadata
from pxdbg_runtime.json_records import parse_json
from pxdbg_runtime.model.card import ModelCard
from tests.fuzz.cases import FAILURES, Kind, read_samples, run_cases
from tests.fuzz.mutations import mutate_bytes, mutate_json, mutate_json_or_bytes, mutate_zip
from tests.fuzz.obedient import build_hanging, build_obedient
from tests.fuzz.reader import Reader
from tests.fuzz.readers import READERS
from tests.fuzz.watch import Plan, fuzz
from tests.graphs import LATENT_CARD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

N_CASES: Final = 120
FEW_CASES: Final = 40
SLOW: Final = ("digits-overlay", "digits-ttree", "checkpoint-safetensors")
SEED: Final = 18


@pytest.fixture(autouse=True)
def keep_families() -> Iterator[None]:
    """The readers of checkpoints register a small family for the rest of their process."""
    before = dict(FAMILIES)
    yield
    FAMILIES.clear()
    FAMILIES.update(before)


@pytest.mark.filterwarnings("ignore")  # of libraries about damaged files
@pytest.mark.parametrize("name", sorted(READERS.keys() - {"replacement"}))
def test_altered_files_end_with_a_sentence(name: str, tmp_path: Path) -> None:
    try:
        reader = READERS[name](tmp_path)
    except MissingPackageError as error:
        pytest.skip(str(error))
    expected = read_samples(reader, tmp_path)
    n_cases = FEW_CASES if name in SLOW else N_CASES
    cases = list(run_cases(reader, name, SEED, range(n_cases), tmp_path, expected))
    failures = [case for case in cases if case.kind in FAILURES]
    assert failures == []
    n_refused = sum(case.kind == "refused" for case in cases)
    assert n_refused >= n_cases // 5 or name == "record"  # which is ignored if it is damaged


# Judgements of the fuzzer


@pytest.mark.slow
def test_altered_overlay_files_are_replaced_or_end_with_a_sentence(tmp_path: Path) -> None:
    """In a process of its own: ROOT may crash on other files than these (docs/reliability.md)."""
    pytest.importorskip("ROOT", reason="pip install 'pxdbg-runtime[root]'")
    plan = Plan(name="replacement", build=READERS["replacement"], seed=SEED, cases=FEW_CASES)
    tally = fuzz(plan, tmp_path / "scratch", tmp_path / "saved")
    assert tally.failures == []
    assert tally.kinds["refused"] >= FEW_CASES // 5


def judge(content: bytes, folder: Path) -> tuple[Kind, str]:
    reader = build_obedient(folder)
    altered = Reader(samples=reader.samples, read=reader.read, file_name="file", mutate=lambda *_: content)
    (case,) = run_cases(altered, "obedient", 1, range(1), folder, read_samples(altered, folder))
    return case.kind, case.summary


@pytest.mark.parametrize("kind", ["refused", "accepted", "equal", "foreign error", "bad message"])
def test_an_outcome_is_judged(kind: Kind, tmp_path: Path) -> None:
    assert judge(kind.encode(), tmp_path)[0] == kind


def test_content_that_a_digest_does_not_protect_is_found(tmp_path: Path) -> None:
    assert judge(b"other content", tmp_path)[0] == "altered content"


def test_failures_of_one_cause_are_alike(tmp_path: Path) -> None:
    kind, summary = judge(b"foreign error", tmp_path)
    assert kind == "foreign error"
    assert summary.startswith("KeyError at obedient.py:")


def test_a_hang_and_a_crash_are_found_and_their_files_kept(tmp_path: Path) -> None:
    plan = Plan(name="obedient", build=build_hanging, seed=4, cases=3, case_limit_s=0.5)
    tally = fuzz(plan, tmp_path / "scratch", tmp_path / "saved")
    assert tally.n_cases == 3
    assert tally.kinds.keys() == {"hang", "crash"}
    assert len(tally.failures) == 3
    for line, folder in tally.failures:
        kind = "crash" if "exit code 7" in line else "hang"
        assert (folder / "file").read_bytes() == kind.encode()


def test_a_plan_ends_with_its_time(tmp_path: Path) -> None:
    plan = Plan(name="obedient", build=build_obedient, seed=1, time_s=0.3)
    tally = fuzz(plan, tmp_path / "scratch", tmp_path / "saved")
    assert set(tally.kinds) == {"equal"}
    assert 0.3 <= tally.used_s < 10
    assert not (tmp_path / "saved").exists()


# Alterations


@pytest.mark.parametrize("mutate", [mutate_bytes, mutate_json_or_bytes])
def test_alterations_depend_on_the_seed_alone_and_change_nearly_every_file(
    mutate: Callable[[bytes, Random], bytes],
) -> None:
    content = LATENT_CARD.to_json().encode()
    altered = [mutate(content, Random(seed)) for seed in range(200)]
    assert altered == [mutate(content, Random(seed)) for seed in range(200)]
    assert sum(each != content for each in altered) > 180
    assert len(set(altered)) > 180


def test_a_member_of_an_archive_is_altered_behind_its_checksum(tmp_path: Path) -> None:
    import zipfile

    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = b"kept"
        archive.writestr("one", b"x" * 50)
        archive.writestr("two", b"y" * 50)
    n_sound = 0
    for seed in range(40):
        (tmp_path / "b.zip").write_bytes(mutate_zip(path.read_bytes(), Random(seed)))
        try:
            with zipfile.ZipFile(tmp_path / "b.zip") as archive:
                is_sound = archive.testzip() is None and archive.comment == b"kept"
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError, RuntimeError):
            continue
        n_sound += is_sound
    assert n_sound > 10


def test_values_of_json_are_altered() -> None:
    texts = [mutate_json('{"a": [1, 2, {"b": "c"}], "d": null}', Random(seed)) for seed in range(300)]
    readable = 0
    for text in texts:
        try:
            parse_json(text)
        except JsonFieldError:
            continue
        readable += 1
    assert 150 < readable < 299


# Any JSON at all

JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=40)
@given(field=st.sampled_from(sorted(json.loads(LATENT_CARD.to_json()))), value=JSON)
def test_any_value_of_a_card_is_valid_or_refused(field: str, value: Any) -> None:  # noqa: ANN401
    text = json.dumps({**json.loads(LATENT_CARD.to_json()), field: value})
    with contextlib.suppress(CardError):
        card = ModelCard.from_json(text)
        assert ModelCard.from_json(card.to_json()) == card


@settings(max_examples=40)
@given(JSON)
def test_any_json_is_refused_as_metadata(value: Any) -> None:  # noqa: ANN401
    with pytest.raises(PxdbgError, match=r"\A[^\n]+\Z"):
        FileMetadata.from_json(json.dumps(value))
