"""``pxdbg campaign merge``: one file of all partitions, or the list of their files."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from pxdbg_runtime.formats.metadata import join_consecutive_jobs
from pxdbg_runtime.formats.run_numbers import RunNumbers
from tests.campaigns import MIN_CHARGE, copy_made_campaign, make_parts, plan_campaign
from tests.digit_files import PROVENANCE
from tests.test_command_line import invoke, require_failure, words

if TYPE_CHECKING:
    from pathlib import Path

    from pxdbg_runtime.campaigns import Campaign
    from pxdbg_runtime.model.graph_file import GraphFile


@pytest.fixture
def campaign(latent_graph: GraphFile, tmp_path: Path) -> Campaign:
    return copy_made_campaign(latent_graph, tmp_path / "bg")


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_merge_writes_the_file_of_one_job(
    campaign: Campaign, latent_graph: GraphFile, tmp_path: Path, suffix: str
) -> None:
    output, expected = tmp_path / f"merged{suffix}", tmp_path / f"generated{suffix}"
    assert invoke("campaign", "merge", campaign.folder, "--output", output).exit_code == 0
    arguments = ["--model", str(latent_graph.path), "--provider", "cpu", "--seed", "7", "--min-charge", str(MIN_CHARGE)]
    generated = invoke("generate", *arguments, "--first-event", 5, "--events", 7, "--output", expected)
    assert generated.exit_code == 0
    assert output.read_bytes() == expected.read_bytes()


@pytest.mark.parametrize(
    ("format_name", "suffix", "written"),
    [
        ("parquet-events", ".parquet", "parquet-events"),
        ("parquet-compact", ".parquet", "parquet-compact"),
        ("parquet-events", ".npz", "npz"),
        ("rntuple", ".root", "rntuple"),
        ("overlay", ".root", "overlay"),
    ],
)
def test_merge_writes_the_format_of_the_plan_if_the_suffix_allows(
    latent_graph: GraphFile, tmp_path: Path, format_name: str, suffix: str, written: str
) -> None:
    numbers = RunNumbers(experiment=1003) if format_name == "overlay" else None
    if numbers is not None and importlib.util.find_spec("ROOT") is None:
        pytest.skip("ROOT is not installed: pip install root")
    folder = tmp_path / "bg"
    campaign = plan_campaign(folder, latent_graph, events=3, format_name=format_name, run_numbers=numbers)
    make_parts(campaign)
    outputs = [tmp_path / f"{name}{suffix}" for name in ("by-default", "by-name")]
    for output, options in zip(outputs, ((), ("--format", written)), strict=True):
        assert invoke("campaign", "merge", campaign.folder, "--output", output, *options).exit_code == 0
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_jobs_are_joined_only_if_one_job_could_have_been_both() -> None:
    one = replace(PROVENANCE, first_event=5, events=2)
    following = replace(one, first_event=7, events=3)
    assert join_consecutive_jobs([one, following]) == (replace(one, events=5),)
    for other in (replace(following, first_event=8), replace(following, seed=8), replace(following, version="0")):
        assert join_consecutive_jobs([one, other, replace(other, first_event=100)])[:2] == (one, other)
    assert join_consecutive_jobs([]) == ()


def test_merge_lists_the_files_of_a_complete_campaign_alone(campaign: Campaign) -> None:
    done = invoke("campaign", "merge", campaign.folder, "--list")
    assert done.stdout.splitlines() == [str(campaign.digits_path(part)) for part in range(4)]
    assert invoke("campaign", "merge", campaign.folder).exit_code == 2
    unnumbered = invoke("campaign", "merge", campaign.folder, "--output", "all.root", "--format", "overlay")
    assert (unnumbered.exit_code, "names no experiment" in unnumbered.stderr) == (2, True)
    campaign.record_path(2).unlink()
    refused = invoke("campaign", "merge", campaign.folder, "--list")
    assert refused.exit_code == 1
    assert f"part-000002.npz is unfinished. Make it first: pxdbg campaign run {campaign.folder}" in refused.stderr


def test_the_output_is_checked_before_the_partitions(
    campaign: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign.record_path(2).unlink()
    output = tmp_path / "all.npz"
    reports = sys.modules["pxdbg_runtime.command_line.campaign_reports"]
    output.touch()
    require_failure(invoke("campaign", "merge", campaign.folder, "--output", output), 1, "all.npz exists: name another")
    require_failure(invoke("campaign", "merge", campaign.folder, "--output", "all.txt"), 2, "all.txt must end in ")
    output.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(reports, "MAX_FILE_EVENTS", 6)
        too_many = "at most 6 events, but the campaign has 7: print its files with --list"
        require_failure(invoke("campaign", "merge", campaign.folder, "--output", output), 2, too_many)
    unfinished = "partitions checked: 0/4 .*part-000002.npz is unfinished"
    require_failure(invoke("campaign", "merge", campaign.folder, "--output", output), 1, unfinished)


@pytest.mark.parametrize("option", [["--format", "npz"], ["--overwrite"]], ids=" ".join)
def test_options_of_a_file_are_refused_for_a_list(campaign: Campaign, option: list[str]) -> None:
    refused = invoke("campaign", "merge", campaign.folder, "--list", *option)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "--list writes no file: leave --format and --overwrite out." in refused.stderr


def test_the_help_names_options_of_the_command_alone() -> None:
    """The overlay files of a campaign have the experiment of its plan."""
    assert "--experiment" not in words(invoke("campaign", "merge", "--help").stdout)
    assert "--format overlay needs it" in words(invoke("merge", "--help").stdout).replace("│ ", "")
