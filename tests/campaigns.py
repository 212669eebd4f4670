"""Small campaigns of a tiny graph."""

from __future__ import annotations

import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pxdbg_runtime import Generator
from pxdbg_runtime.campaigns import Campaign, LocalMaker, open_campaign, run_parts, write_plan

if TYPE_CHECKING:
    from pathlib import Path

    from pxdbg_runtime.model.graph_file import GraphFile

__all__ = ["MIN_CHARGE", "change_plan", "copy_made_campaign", "make_parts", "plan_campaign", "read_parts"]

MIN_CHARGE = 20
"""The tiny graph's images are full of smaller charges."""


def plan_campaign(
    folder: Path,
    graph: GraphFile,
    *,
    events: int = 7,
    events_per_part: int = 2,
    seed: int = 7,
    min_charge: int = MIN_CHARGE,
    **options: Any,  # noqa: ANN401
) -> Campaign:
    """Plan a campaign of the tiny graph."""
    generator = Generator(graph.path, provider="cpu", seed=seed, min_charge=min_charge)
    arguments: dict[str, Any] = {"format_name": "npz", "provider_options": {}, "nintra": 1, "ninter": 1} | options
    return write_plan(folder, generator, range(5, 5 + events), events_per_part=events_per_part, **arguments)


def make_parts(campaign: Campaign, parts: list[int] | None = None) -> Counter[str]:
    """Make partitions in this process, all by default; count them by the last state of each."""
    states: Counter[str] = Counter()
    run_parts(
        campaign,
        list(range(campaign.plan.n_parts)) if parts is None else parts,
        LocalMaker(campaign=campaign),
        advance=lambda _: None,
        report=lambda outcome: states.update([outcome.state]),
    )
    return states


def copy_made_campaign(graph: GraphFile, folder: Path) -> Campaign:
    """Copy a campaign of the tiny graph with all partitions, which the first call makes beside the graph."""
    made = graph.path.with_name("campaign")
    if not made.exists():
        partial = plan_campaign(made.with_name("partial-campaign"), graph)
        make_parts(partial)
        partial.folder.rename(made)
    return open_campaign(shutil.copytree(made, folder))


def read_parts(campaign: Campaign) -> dict[str, bytes]:
    """Read the bytes of all digit files."""
    return {path.name: path.read_bytes() for path in campaign.folder.glob(f"part-*{campaign.plan.suffix}")}


def change_plan(campaign: Campaign, **fields: Any) -> Campaign:  # noqa: ANN401
    """Write the plan again with other fields, before any partition is made."""
    (campaign.folder / "plan.json").write_text(replace(campaign.plan, **fields).to_json(), encoding="utf-8")
    return open_campaign(campaign.folder)
