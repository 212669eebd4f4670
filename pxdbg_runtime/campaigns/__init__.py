"""Campaigns: generate many events in partitions, on one machine, on Dask or on a batch system.

A campaign is a folder: a plan, a copy of the graph, and for each partition a digit file with a record of its SHA-256.
There is no other state, so a campaign that was stopped at any moment goes on with what is missing.
"""

from __future__ import annotations

from pxdbg_runtime.campaigns.folder import Campaign, PartStatus, open_campaign
from pxdbg_runtime.campaigns.making import PartOutcome, make_part, open_generator
from pxdbg_runtime.campaigns.plan import CampaignPlan, Partition
from pxdbg_runtime.campaigns.planning import write_plan
from pxdbg_runtime.campaigns.running import LocalMaker, find_work, run_parts
from pxdbg_runtime.campaigns.status import CampaignStatus, read_status

__all__ = [
    "Campaign",
    "CampaignPlan",
    "CampaignStatus",
    "LocalMaker",
    "PartOutcome",
    "PartStatus",
    "Partition",
    "find_work",
    "make_part",
    "open_campaign",
    "open_generator",
    "read_status",
    "run_parts",
    "write_plan",
]
