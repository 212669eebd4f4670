"""One partition of a campaign: idempotent, atomic, checked, and made by one process at a time."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from msgspec.structs import replace

from pxdbg_runtime.campaigns import make_part, open_campaign, open_generator
from pxdbg_runtime.campaigns.making import record_failure
from pxdbg_runtime.campaigns.part_lock import hold_lock, is_held
from pxdbg_runtime.errors import (
    CampaignError,
    MachineMismatchError,
    MemoryLimitError,
    OutputError,
    PxdbgError,
    ThreadLimitError,
)
from pxdbg_runtime.formats import read_digits
from pxdbg_runtime.inference import session
from pxdbg_runtime.inference.cpu import Cpu
from pxdbg_runtime.inference.session import ImageSession
from tests.campaigns import MIN_CHARGE, change_plan, make_parts, plan_campaign, read_parts
from tests.graphs import latent_model, write_graph
from tests.isolation import limit_file_size
from tests.test_command_line import invoke
from tests.test_session import write_int8_graph
from tests.test_verification import build_latent_card

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pxdbg_runtime import Generator
    from pxdbg_runtime.campaigns import Campaign
    from pxdbg_runtime.model.graph_file import GraphFile

UNFIT: Final = "digits of .* are not known to be those of the plan"


@pytest.fixture
def campaign(latent_graph: GraphFile, tmp_path: Path) -> Campaign:
    return plan_campaign(tmp_path / "bg", latent_graph)


def make(campaign: Campaign, part: int) -> str:
    return make_part(campaign, part, lambda: open_generator(campaign, allow_mixed_hardware=False)).state


@pytest.mark.parametrize("format_name", ["npz", "parquet", "parquet-compact", "hdf5"])
def test_a_partition_is_what_generate_writes(latent_graph: GraphFile, tmp_path: Path, format_name: str) -> None:
    campaign = plan_campaign(tmp_path / "bg", latent_graph, format_name=format_name)
    make_parts(campaign, [1])
    output = tmp_path / f"bg{campaign.plan.suffix}"
    arguments = ["--model", str(latent_graph.path), "--provider", "cpu", "--seed", "7", "--min-charge", str(MIN_CHARGE)]
    events = ["--first-event", "7", "--events", "2", "--format", format_name]
    done = invoke("generate", *arguments, *events, "--output", str(output))
    assert done.exit_code == 0
    assert campaign.digits_path(1).read_bytes() == output.read_bytes()


def test_its_record_describes_it(campaign: Campaign) -> None:
    assert make(campaign, 3) == "made"
    status = campaign.examine(3, compare_hash=True)
    content = read_digits(campaign.digits_path(3))
    assert status.record is not None
    assert (status.state, status.record.part, status.record.first_event, status.record.events) == ("complete", 3, 11, 1)
    assert status.record.digits == len(content.digits) > 0
    assert status.record.size_bytes == campaign.digits_path(3).stat().st_size
    assert status.record.plan_sha256 == campaign.plan_sha256
    assert status.record.machine == campaign.plan.machine
    assert {path.name for path in campaign.folder.iterdir()} == {
        "graph.onnx", "plan.json", "part-000003.npz", "part-000003.json"
    }  # fmt: skip


def test_a_complete_partition_is_not_made_again(campaign: Campaign) -> None:
    make(campaign, 0)
    before = campaign.digits_path(0).stat()

    def fail() -> Generator:
        pytest.fail("a complete partition needs no generator")

    assert make_part(campaign, 0, fail).state == "complete"
    after = campaign.digits_path(0).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    done = invoke("campaign", "part", "0", str(campaign.folder))
    assert (done.exit_code, done.stderr) == (0, "")
    assert "is complete already" in done.stdout


def test_the_command_claims_no_file_that_another_process_wrote(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_while_another_makes_it(campaign: Campaign, *, allow_mixed_hardware: bool) -> Generator:
        make(campaign, 0)
        return open_generator(campaign, allow_mixed_hardware=allow_mixed_hardware)

    command = sys.modules["pxdbg_runtime.command_line.campaign"]  # the package has the Typer of this name
    monkeypatch.setattr(command, "open_generator", open_while_another_makes_it)
    done = invoke("campaign", "part", "0", str(campaign.folder))
    assert done.exit_code == 0
    assert done.stdout == f"{campaign.digits_path(0)} is complete already\n"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda campaign: cut(campaign.digits_path(0)), "by its record: it was cut or changed"),
        (lambda campaign: flip(campaign.digits_path(0)), "has another SHA-256 than its record: it was changed"),
        (lambda campaign: campaign.digits_path(0).unlink(), "cannot be read: No such file"),
        (lambda campaign: cut(campaign.record_path(0)), "part-000000.json is not a valid record"),
        (
            lambda campaign: campaign.record_path(0).write_bytes(campaign.record_path(1).read_bytes()),
            "has the record of 'part-000001.npz', partition 1",
        ),
    ],
    ids=["cut", "changed", "removed", "record cut", "record of another"],
)
def test_a_damaged_partition_is_made_again_after_saying_so(
    campaign: Campaign, spoil: Callable[[Campaign], None], sentence: str
) -> None:
    make_parts(campaign, [0, 1])
    before = read_parts(campaign)
    spoil(campaign)
    status = campaign.examine(0, compare_hash=True)
    assert status.state == "damaged"
    assert sentence in status.reason
    done = invoke("campaign", "part", "0", str(campaign.folder))
    assert done.exit_code == 0
    assert f"{status.reason} It is made again." in done.stderr
    assert read_parts(campaign) == before
    assert campaign.examine(0, compare_hash=True).state == "complete"


def test_a_file_without_a_record_is_made_again(campaign: Campaign) -> None:
    make_parts(campaign, [0])
    before = read_parts(campaign)
    campaign.record_path(0).unlink()
    assert campaign.examine(0, compare_hash=True).state == "unfinished"
    assert make(campaign, 0) == "made"
    assert read_parts(campaign) == before


def test_files_of_another_plan_are_not_replaced(campaign: Campaign, latent_graph: GraphFile, tmp_path: Path) -> None:
    other = plan_campaign(tmp_path / "other", latent_graph, seed=8)
    make_parts(other, [2])
    for path in (other.digits_path(2), other.record_path(2)):
        (campaign.folder / path.name).write_bytes(path.read_bytes())
    with pytest.raises(CampaignError, match=r"part-000002\.npz belongs to another plan .*: move it away"):
        make(campaign, 2)
    assert campaign.digits_path(2).read_bytes() == other.digits_path(2).read_bytes()


def test_a_held_partition_is_left_to_its_holder(campaign: Campaign) -> None:
    with hold_lock(campaign.lock_path(1)) as is_locked:
        assert is_locked
        assert campaign.is_being_made(1)
        assert not campaign.is_being_made(0)
        assert make(campaign, 1) == "busy"
        done = invoke("campaign", "part", "1", str(campaign.folder))
        assert done.exit_code == 75
        assert "is being made by another process" in done.stderr
    assert not campaign.lock_path(1).exists()
    assert not read_parts(campaign)
    assert make(campaign, 1) == "made"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not remove open files")
def test_a_lock_counts_only_on_the_file_that_has_the_name(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with hold_lock(path) as first:
        path.unlink()  # as its holder does at the end
        assert not is_held(path)
        with hold_lock(path) as second:
            assert first
            assert second
            assert is_held(path)
    assert not path.exists()


def test_another_graph_is_refused(campaign: Campaign, event_wide_graph: GraphFile) -> None:
    generator = open_generator(campaign, allow_mixed_hardware=False)
    planned = campaign.graph_path.read_bytes()
    campaign.graph_path.write_bytes(event_wide_graph.path.read_bytes())
    with pytest.raises(CampaignError, match=r"it was replaced\. Put the planned graph back"):
        open_generator(campaign, allow_mixed_hardware=True)
    with pytest.raises(CampaignError, match=r"it was replaced\. Put the planned graph back"):
        make_part(campaign, 0, lambda: generator)
    campaign.graph_path.unlink()
    with pytest.raises(CampaignError, match=r"graph\.onnx cannot be read: No such file"):
        make_part(campaign, 0, lambda: generator)
    assert not read_parts(campaign)
    campaign.graph_path.write_bytes(planned)
    assert make(campaign, 0) == "made"


def test_a_machine_that_differs_is_refused(campaign: Campaign) -> None:
    other = change_plan(campaign, machine=replace(campaign.plan.machine, device="another CPU"))
    with pytest.raises(MachineMismatchError, match=f"{UNFIT}.*device: another CPU in the plan"):
        open_generator(other, allow_mixed_hardware=False)
    refused = invoke("campaign", "part", "0", str(campaign.folder))
    assert refused.exit_code == 78
    assert "--allow-mixed-hardware" in refused.stderr
    assert not read_parts(other)
    assert other.read_failure(0) is None  # another machine makes it
    assert invoke("campaign", "part", "0", str(campaign.folder), "--allow-mixed-hardware").exit_code == 0
    assert len(read_parts(other)) == 1


def require_unfit(campaign: Campaign, sentence: str) -> None:
    refused = invoke("campaign", "part", "0", str(campaign.folder), "--allow-mixed-hardware")
    assert refused.exit_code == 78
    assert re.search(sentence, refused.stderr)
    assert "no-verify" not in refused.stderr
    assert campaign.read_failure(0) is None  # another machine makes it


def test_a_cpu_that_does_not_run_the_graph_is_unfit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_cpu(*dot_products: str) -> Cpu:
        return Cpu(name="One", dot_products=dot_products, features=frozenset())

    monkeypatch.setattr(session, "detect_cpu", lambda: find_cpu("avx512_vnni"))
    campaign = plan_campaign(tmp_path / "bg", write_int8_graph(tmp_path / "int8.onnx", 8))
    monkeypatch.setattr(session, "detect_cpu", find_cpu)
    require_unfit(
        campaign,
        r"run it on another machine, or plan again with what runs here \(.* has neither VNNI \(x86\) nor .*: .*\)\.",
    )


def test_a_machine_with_a_wrong_known_answer_is_unfit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "of-another-machine"))
    campaign = plan_campaign(tmp_path / "bg", write_graph(tmp_path / "a.onnx", latent_model(), build_latent_card()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(ImageSession, "compute_images", lambda *_: np.full((1, 250, 768), np.nan, np.float32))
    require_unfit(campaign, r"does not compute the known image of .*graph\.onnx: run the campaign on another machine\.")


def test_a_plan_whose_known_image_is_wrong_names_no_option_that_campaigns_lack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    graph = write_graph(tmp_path / "a.onnx", latent_model(), build_latent_card())
    monkeypatch.setattr(ImageSession, "compute_images", lambda *_: np.full((1, 250, 768), np.nan, np.float32))
    options: list[str | Path] = ["--model", graph.path, "--provider", "cpu", "--output", tmp_path / "bg"]
    refused = invoke("campaign", "plan", "--events", 1, *options)
    assert refused.exit_code == 78
    assert f"known image of {graph.path}: plan on another machine, or with another --provider." in refused.stderr
    assert "no-verify" not in refused.stderr


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (MemoryLimitError(7, "No memory: take a smaller batch_size."), "more memory, or .* a smaller --batch-size"),
        (ThreadLimitError(3, 1, "No threads."), "more threads, or .* smaller --nintra and --ninter"),
    ],
    ids=["memory", "threads"],
)
def test_limits_of_a_job_advise_what_a_campaign_takes(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch, error: PxdbgError, sentence: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("pxdbg_runtime.campaigns.making.Generator", fail)
    advice = rf"cannot run the plan in .*: run it on a machine, or in a job, with {sentence} \({error}"
    with pytest.raises(type(error), match=advice.removesuffix(".")) as caught:
        open_generator(campaign, allow_mixed_hardware=False)
    assert vars(caught.value) == vars(error)


def test_a_full_disk_leaves_nothing_half_written(campaign: Campaign) -> None:
    generator = open_generator(campaign, allow_mixed_hardware=False)
    generator.generate(0)  # compiles, which writes to numba's cache
    names = {path.name for path in campaign.folder.iterdir()}
    with limit_file_size(4096), pytest.raises(OutputError, match=r"part-000000\.npz cannot be written: File too large"):
        make_part(campaign, 0, lambda: generator)
    assert {path.name for path in campaign.folder.iterdir()} == names
    assert make_part(campaign, 0, lambda: generator).state == "made"


def test_a_failure_is_recorded_until_the_partition_is_made(campaign: Campaign) -> None:
    record_failure(campaign, 2, "A sentence.", "here")
    failure = campaign.read_failure(2)
    assert failure is not None
    assert (failure.part, failure.reason) == (2, "A sentence.")
    assert campaign.read_failure(1) is None
    assert make(campaign, 2) == "made"
    assert campaign.read_failure(2) is None
    assert not campaign.failure_path(2).exists()


def test_the_command_records_failures_and_refuses_unknown_numbers(campaign: Campaign) -> None:
    unknown = invoke("campaign", "part", "4", str(campaign.folder))
    assert unknown.exit_code == 2
    assert "has the partitions 0 to 3, but 4 was asked for" in unknown.stderr
    campaign.digits_path(0).mkdir()
    failed = invoke("campaign", "part", "0", str(campaign.folder))
    assert failed.exit_code == 1
    failure = open_campaign(campaign.folder).read_failure(0)
    assert failure is not None
    assert "is a folder" in failure.reason


def test_the_command_records_failures_before_the_first_event(campaign: Campaign) -> None:
    campaign.graph_path.unlink()
    failed = invoke("campaign", "part", "1", str(campaign.folder))
    assert failed.exit_code == 1
    failure = campaign.read_failure(1)
    assert failure is not None
    assert "graph.onnx cannot be read: No such file" in failure.reason
