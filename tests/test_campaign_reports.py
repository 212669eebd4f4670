"""``pxdbg campaign status`` and ``verify``, and the page of a campaign."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import pytest
from matplotlib.figure import Figure
from msgspec.structs import replace

from pxdbg_runtime.campaigns import open_campaign, open_generator, read_status
from pxdbg_runtime.campaigns.folder import hash_file
from pxdbg_runtime.campaigns.making import record_failure
from pxdbg_runtime.campaigns.part_lock import hold_lock
from pxdbg_runtime.campaigns.part_record import encode_record
from pxdbg_runtime.campaigns.status_page import render_page
from pxdbg_runtime.campaigns.verifying import choose_sample, compare_sample, verify_part
from pxdbg_runtime.errors import DigitFileError
from pxdbg_runtime.formats import FileMetadata, open_writer, read_digits
from tests.campaigns import copy_made_campaign, make_parts, plan_campaign
from tests.graphs import LATENT_CARD, latent_model, write_graph
from tests.test_command_line import invoke, words

if TYPE_CHECKING:
    from pathlib import Path

    from pxdbg_runtime import Digits
    from pxdbg_runtime.campaigns import Campaign
    from pxdbg_runtime.model.card import Nature
    from pxdbg_runtime.model.graph_file import GraphFile


UNMADE: Final = "Missing, unfinished and damaged partitions are made by pxdbg campaign run"
KEPT: Final = "Files with other digits than planned are kept: move each away with its record (.json)"


@pytest.fixture
def campaign(latent_graph: GraphFile, tmp_path: Path) -> Campaign:
    return copy_made_campaign(latent_graph, tmp_path / "bg")


def forge(campaign: Campaign, part: int, **changes: object) -> None:
    """Write a partition again with other content, digest and record, as someone might who knows how."""
    path = campaign.digits_path(part)
    content = read_digits(path)
    assert content.provenance is not None
    digits = content.digits
    if changes.pop("drops_a_digit", False):
        digits = digits.select_rows(slice(1, None))
    metadata = FileMetadata(jobs=(replace(content.provenance, **changes),))
    with open_writer(path, metadata, format_name=campaign.plan.format) as writer:
        writer.write(digits)
    record = campaign.examine(part, compare_hash=False).record or read_status(campaign).records[0]
    forged = replace(
        record,
        part=part,
        file=path.name,
        first_event=campaign.plan.partitions[part].first_event,
        events=campaign.plan.partitions[part].events,
        sha256=hash_file(path),
        size_bytes=path.stat().st_size,
        digits=len(digits),
    )
    campaign.record_path(part).write_text(encode_record(forged), encoding="utf-8")


def test_a_sound_campaign_verifies(campaign: Campaign) -> None:
    done = invoke("campaign", "verify", campaign.folder, "--sample", 4)
    assert done.exit_code == 0
    assert done.stdout.splitlines() == ["4 of 4 partitions are as planned; 4 events generated again"]


def test_each_wrong_file_is_named(campaign: Campaign, latent_graph: GraphFile, tmp_path: Path) -> None:
    other = plan_campaign(tmp_path / "other", latent_graph, seed=8, events=9)
    make_parts(other)
    campaign.digits_path(0).write_bytes(campaign.digits_path(0).read_bytes()[:-1])
    campaign.digits_path(1).unlink()
    campaign.record_path(1).unlink()
    for path in (other.digits_path(2), other.record_path(2), other.digits_path(4), other.record_path(4)):
        (campaign.folder / path.name).write_bytes(path.read_bytes())
    campaign.record_path(3).unlink()
    done = invoke("campaign", "verify", campaign.folder)
    assert done.exit_code == 1
    for number, sentence in enumerate(
        (
            "part-000000.npz has .* bytes, but .* by its record: it was cut or changed",
            "part-000001.npz is missing",
            "part-000002.npz belongs to another plan",
            "part-000003.npz has no record",
            "part-000004.npz is no file of this plan",
        )
    ):
        assert re.search(sentence, done.stdout), number
    assert "0 of 4 partitions are as planned; 0 events generated again" in done.stdout
    assert f"{UNMADE} {campaign.folder}" in done.stdout
    assert KEPT in done.stdout


@pytest.mark.parametrize("spoil", ["no file", "no record", "cut"])
def test_only_what_a_run_makes_is_left_to_it(campaign: Campaign, spoil: str) -> None:
    path = campaign.record_path(1) if spoil == "no record" else campaign.digits_path(1)
    path.write_bytes(b"cut") if spoil == "cut" else path.unlink()
    done = invoke("campaign", "verify", campaign.folder)
    assert [KEPT in done.stdout, UNMADE in done.stdout] == [False, True]
    make_parts(campaign)
    assert invoke("campaign", "verify", campaign.folder).exit_code == 0


@pytest.mark.parametrize("changes", [{"seed": 8}, {"drops_a_digit": True}])
def test_files_that_a_run_keeps_are_to_be_moved_away(campaign: Campaign, changes: dict[str, object]) -> None:
    forge(campaign, 3, **changes)
    done = invoke("campaign", "verify", campaign.folder, "--sample", 4)
    assert done.exit_code == 1
    assert [KEPT in done.stdout, UNMADE in done.stdout] == [True, False]
    campaign.digits_path(3).unlink()
    campaign.record_path(3).unlink()
    make_parts(campaign)
    assert invoke("campaign", "verify", campaign.folder, "--sample", 4).exit_code == 0


def test_strange_files_and_a_replaced_graph_say_themselves_what_to_do(campaign: Campaign) -> None:
    stranger = campaign.digits_path(4)
    stranger.write_bytes(b"")
    campaign.graph_path.write_bytes(b"")
    done = invoke("campaign", "verify", campaign.folder)
    assert done.exit_code == 1
    assert "Put the planned graph back." in done.stdout
    assert f"{stranger} is no file of this plan: move it away." in done.stdout
    assert "pxdbg campaign run" not in done.stdout


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seed": 8}, "its seed is 8, planned was 7"),
        ({"graph_sha256": "b" * 64}, "its graph_sha256 is b"),
        ({"min_charge": 1}, "its min_charge is 1"),
        ({"events": 3}, "its events is 3, planned was 2"),
    ],
)
def test_a_forged_record_does_not_hide_other_parameters(
    campaign: Campaign, changes: dict[str, object], sentence: str
) -> None:
    forge(campaign, 1, **changes)
    assert campaign.examine(1, compare_hash=True).state == "complete"
    _, finding = verify_part(campaign, 1)
    assert finding is not None
    assert f"{campaign.digits_path(1)} is not of the plan: " in finding
    assert sentence in finding


def test_generating_again_finds_digits_that_every_hash_agrees_with(campaign: Campaign) -> None:
    forge(campaign, 3, drops_a_digit=True)
    assert verify_part(campaign, 3)[1] is None
    generator = open_generator(campaign, allow_mixed_hardware=False)
    sample = choose_sample(campaign, [2, 3], 2)
    assert [part for part, _ in sample] == [2, 3]
    sound, forged = compare_sample(campaign, generator, sample, allow_mixed_hardware=False)
    assert (sound.part, sound.finding, sound.is_wrong) == (2, "", False)
    assert (forged.part, forged.is_wrong) == (3, True)
    assert "holds other digits of event 11 than those that are generated now" in forged.finding
    for options in ((), ("--allow-mixed-hardware",)):  # its record names this machine
        done = invoke("campaign", "verify", campaign.folder, "--sample", 4, *options)
        assert done.exit_code == 1
        assert forged.finding in done.stdout
        assert "3 of 4 partitions are as planned; 4 events generated again" in done.stdout


def test_digits_of_other_hardware_are_counted_where_they_are_allowed(campaign: Campaign) -> None:
    forge(campaign, 3, drops_a_digit=True)
    record = campaign.examine(3, compare_hash=False).record
    assert record is not None
    of_another = replace(record, machine=replace(record.machine, device="another CPU"))
    campaign.record_path(3).write_text(encode_record(of_another), encoding="utf-8")
    assert invoke("campaign", "verify", campaign.folder, "--sample", 4).exit_code == 1
    done = invoke("campaign", "verify", campaign.folder, "--sample", 4, "--allow-mixed-hardware")
    assert done.exit_code == 0
    path = campaign.digits_path(3)
    assert done.stdout.splitlines() == [
        f"{path} differs by 1 digit of event 11 from what is generated now, as other hardware may.",
        "4 of 4 partitions are as planned; 4 events generated again",
    ]


def test_an_event_that_cannot_be_compared_is_one_sentence(campaign: Campaign) -> None:
    generator = open_generator(campaign, allow_mixed_hardware=False)
    campaign.digits_path(1).write_bytes(b"cut")
    absent, damaged = compare_sample(campaign, generator, [(0, 11), (1, 7)], allow_mixed_hardware=True)
    assert absent.finding == f"{campaign.digits_path(0)} has no event 11."
    with pytest.raises(DigitFileError, match=r"part-000001\.npz .*[^.]\.$") as caught:
        read_digits(campaign.digits_path(1))
    assert damaged.finding == str(caught.value)
    assert absent.is_wrong
    assert damaged.is_wrong


def test_a_sample_takes_events_of_each_part_of_the_campaign(latent_graph: GraphFile, tmp_path: Path) -> None:
    campaign = plan_campaign(tmp_path, latent_graph, events=1000, events_per_part=10)
    sample = choose_sample(campaign, range(100), 10)
    assert [part for part, _ in sample] == [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]
    assert all(event in campaign.plan.partitions[part].numbers for part, event in sample)
    assert len({event % 10 for _, event in sample}) > 5
    assert choose_sample(campaign, [4, 9], 5) == [(4, 45), (9, 101)]
    assert choose_sample(campaign, [], 3) == []


def test_status_counts_what_is_on_disk(campaign: Campaign) -> None:
    for part in (1, 2):
        campaign.digits_path(part).unlink()
        campaign.record_path(part).unlink()
    record_failure(campaign, 1, "A sentence.", "here")
    with hold_lock(campaign.lock_path(2)):
        found = read_status(campaign)
        done = invoke("campaign", "status", campaign.folder)
    assert (found.events, found.counts["complete"], found.counts["missing"], found.in_progress) == (3, 2, 2, (2,))
    assert found.digits == sum(len(read_digits(campaign.digits_path(part)).digits) for part in (0, 3))
    assert [(each.parts, each.events) for each in found.list_hosts()] == [(2, 3)]
    assert done.exit_code == 0
    text = words(done.stdout)
    assert "partitions 2 of 4 complete; 2 missing" in text
    assert "events 3 of 7" in text
    assert "being made 2" in text
    assert "Partition 1 failed on " in text
    assert "A sentence." in text


def test_the_time_left_is_that_of_the_mean_rate(campaign: Campaign) -> None:
    record = campaign.examine(0, compare_hash=False).record
    assert record is not None
    for part in (1, 2, 3):
        campaign.record_path(part).unlink()
    assert record.events == 2
    campaign.record_path(0).write_text(encode_record(replace(record, seconds=4.0)), encoding="utf-8")
    found = read_status(campaign)
    assert found.worker_seconds_left == pytest.approx(5 * 2.0)
    assert found.list_hosts()[0].events_per_s == pytest.approx(0.5)


@pytest.mark.slow
def test_the_page_needs_no_other_file_and_shows_hostile_texts_as_they_are(campaign: Campaign) -> None:
    campaign.record_path(1).unlink()
    campaign.digits_path(1).unlink()
    record_failure(campaign, 1, "<script>alert(1)</script> & <b>", "here")
    record = campaign.examine(2, compare_hash=False).record
    assert record is not None
    campaign.record_path(2).write_text(encode_record(replace(record, host="<img src=x>")), encoding="utf-8")
    page = render_page(read_status(campaign))
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &lt;b&gt;" in page
    assert "&lt;img src=x&gt;" in page
    assert not re.search(r"(src|href)=[\"'](?!data:)", page)
    assert page.count('src="data:image/png;base64,') == 1
    assert [page.count(f'<span class="{state}" title="partition ') for state in ("complete", "failed")] == [3, 1]


def test_a_partition_that_is_made_again_after_a_failure_is_shown_as_being_made(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pxdbg_runtime.campaigns.status_page.draw_event", lambda *_, **__: Figure())
    for part in (1, 2):
        campaign.record_path(part).unlink()
        campaign.digits_path(part).unlink()
        record_failure(campaign, part, f"Sentence {part}.", "here")
    with hold_lock(campaign.lock_path(1)):
        page = render_page(read_status(campaign))
        text = words(invoke("campaign", "status", campaign.folder).stdout)
    assert '<span class="being-made" title="partition 1: being made">' in page
    assert '<span class="failed" title="partition 2: failed">' in page
    assert "<b>1</b>being made" in page
    assert "<b>1</b>failed or damaged" in page
    assert "being made 1 failed 1 time left with one worker" in text
    for last_failure in ("Sentence 1.", "Sentence 2."):  # why the last try failed stays of interest
        assert last_failure in page
        assert last_failure in text


@pytest.mark.parametrize(
    ("nature", "remark", "min_charge", "compare_geant4"),
    [
        ("checkpoint", "", 7, True),
        ("checkpoint", "", 8, False),
        ("stand-in", " (stand-in, no real physics)", 1, True),
        ("demonstration", " (demonstration, no real physics)", 1, False),
    ],
)
def test_the_page_tells_weights_and_shows_geant4_beside_its_own_cut_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nature: Nature, remark: str, min_charge: int, compare_geant4: bool
) -> None:
    drawings: list[dict[str, Any]] = []

    def record_and_draw_nothing(_: Digits, **options: Any) -> Figure:  # noqa: ANN401
        drawings.append(options)
        return Figure()

    monkeypatch.setattr("pxdbg_runtime.campaigns.status_page.draw_event", record_and_draw_nothing)
    graph = write_graph(tmp_path / "a.onnx", latent_model(), replace(LATENT_CARD, nature=nature, provenance="Made."))
    planned = plan_campaign(tmp_path / "bg", graph, min_charge=min_charge)
    make_parts(planned, [0])
    assert f"Event 5, seed 7{remark}: each hit" in render_page(read_status(planned))
    assert [each["compare_geant4"] for each in drawings] == [compare_geant4]


def test_the_page_advises_to_make_what_is_missing_only_if_something_is(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pxdbg_runtime.campaigns.status_page.draw_event", lambda *_, **__: Figure())
    advice = f"<code>pxdbg campaign run {campaign.folder}</code>"
    assert advice not in render_page(read_status(campaign))
    campaign.digits_path(3).write_bytes(b"damaged")
    assert advice in render_page(read_status(campaign))
    campaign.record_path(3).unlink()
    campaign.digits_path(3).unlink()
    assert advice in render_page(read_status(campaign))


def test_the_command_writes_the_page_whatever_the_state(latent_graph: GraphFile, tmp_path: Path) -> None:
    campaign = plan_campaign(tmp_path / "bg", latent_graph, events=1000, events_per_part=1)
    refused = invoke("campaign", "status", campaign.folder, "--html", tmp_path / "bg.pdf")
    assert refused.exit_code == 2
    assert "--html must end in .html" in refused.stderr
    assert invoke("campaign", "status", campaign.folder, "--html", tmp_path / "bg.html").exit_code == 0
    page = (tmp_path / "bg.html").read_text(encoding="utf-8")
    assert "No partition is complete yet." in page
    assert page.count('title="partitions ') == 334


def test_a_replaced_graph_does_not_hide_other_findings(campaign: Campaign, event_wide_graph: GraphFile) -> None:
    campaign.digits_path(1).unlink()
    for change, sentence in (
        (lambda: campaign.graph_path.write_bytes(event_wide_graph.path.read_bytes()), "it was replaced"),
        (campaign.graph_path.unlink, "graph.onnx cannot be read: No such file"),
    ):
        change()
        done = invoke("campaign", "verify", campaign.folder)
        assert (done.exit_code, done.exception.__class__) == (1, SystemExit)
        assert sentence in done.stdout
        assert "part-000001.npz cannot be read: No such file" in done.stdout
        assert "3 of 4 partitions are as planned; 0 events generated again" in done.stdout


def test_verification_needs_a_machine_that_gives_the_digits(campaign: Campaign) -> None:
    plan = replace(campaign.plan, machine=replace(campaign.plan.machine, onnxruntime="1.0.0"))
    (campaign.folder / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    moved = open_campaign(campaign.folder)
    for part in range(4):
        record = campaign.examine(part, compare_hash=False).record
        assert record is not None
        text = encode_record(replace(record, plan_sha256=moved.plan_sha256))
        campaign.record_path(part).write_text(text, encoding="utf-8")
    refused = invoke("campaign", "verify", campaign.folder)
    assert refused.exit_code == 78
    assert "onnxruntime: 1.0.0 in the plan" in refused.stderr
    assert invoke("campaign", "verify", campaign.folder, "--sample", 0).exit_code == 0
    assert invoke("campaign", "verify", campaign.folder, "--allow-mixed-hardware").exit_code == 0
