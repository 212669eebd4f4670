"""Make all missing partitions of a campaign, in this process or on Dask."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from pxdbg_runtime.campaigns.machine import name_host
from pxdbg_runtime.campaigns.making import PartOutcome, make_part, open_generator, record_failure
from pxdbg_runtime.errors import CampaignError, PxdbgError, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pxdbg_runtime.campaigns.folder import Campaign, PartStatus

__all__ = ["LocalMaker", "PartMaker", "find_work", "run_parts"]

_BUSY_PAUSE_S: Final = 1.0
_HOPELESS: Final = 5
"""Partitions that fail one after the other, without a success between them, at which a run gives up."""
_log = logging.getLogger(__name__)


class PartMaker(Protocol):
    """Makes partitions, here or elsewhere."""

    def make(self, parts: Sequence[int], advance: Callable[[int], None]) -> Iterator[PartOutcome]:
        """Make partitions.

        Parameters
        ----------
        parts : sequence of int
        advance : callable
            Called with numbers of events that were generated.

        Yields
        ------
        PartOutcome
            One for each partition, in any order.

        Raises
        ------
        PxdbgError
            If none of them can be made: the graph does not run, or the machines are not those of the plan.
        """


@dataclass(frozen=True, kw_only=True)
class LocalMaker:
    """Makes partitions in this process, one after the other."""

    campaign: Campaign
    allow_mixed_hardware: bool = False

    def make(self, parts: Sequence[int], advance: Callable[[int], None]) -> Iterator[PartOutcome]:
        """Make partitions; see `PartMaker`."""
        generator = open_generator(self.campaign, allow_mixed_hardware=self.allow_mixed_hardware)
        for part in parts:
            try:
                outcome = make_part(self.campaign, part, lambda: generator, lambda: advance(1))
            except PxdbgError as error:
                outcome = PartOutcome(part=part, state="failed", host=name_host(), reason=one_line(error))
            yield outcome


def find_work(
    campaign: Campaign,
    *,
    compare_hash: bool,
    watch: Callable[[Iterator[PartStatus]], Iterator[PartStatus]] = iter,
) -> tuple[list[int], list[PartStatus]]:
    """Find the partitions to make.

    Parameters
    ----------
    campaign : Campaign
    compare_hash : bool
        Also read each file and compare its SHA-256; without that, its size alone.
    watch : callable
        Passes the states on, and may show how many there were.

    Returns
    -------
    parts : list of int
        All that are not complete; those that failed before come last, so that they keep no others from being tried.
    damaged : list of PartStatus
        Those of them whose files are there, but damaged: say so before they are made again.

    Raises
    ------
    CampaignError
        If files belong to another plan.
    """
    statuses = list(watch(campaign.examine_all(compare_hash=compare_hash)))
    foreign = [status for status in statuses if status.state == "foreign"]
    if foreign:
        others = f" (and {len(foreign) - 1:,} more)" if len(foreign) > 1 else ""
        reason = foreign[0].reason.removesuffix(".")
        message = f"{reason}{others}: move such files away, or use the folder of their plan."
        raise CampaignError(campaign.digits_path(foreign[0].part), message)
    parts = [status.part for status in statuses if status.state != "complete"]
    parts.sort(key=lambda part: campaign.read_failure(part) is not None)
    return parts, [status for status in statuses if status.state == "damaged"]


def run_parts(
    campaign: Campaign,
    parts: Sequence[int],
    maker: PartMaker,
    *,
    advance: Callable[[int], None],
    report: Callable[[PartOutcome], None],
) -> list[int]:
    """Make partitions until each is complete or failed; wait for those that other processes make.

    Parameters
    ----------
    campaign : Campaign
    parts : sequence of int
    maker : PartMaker
    advance : callable
        Called with numbers of events that were generated.
    report : callable
        Called for each partition that is complete, was made or failed.

    Returns
    -------
    list of int
        The partitions that failed.

    Raises
    ------
    CampaignError
        If five partitions fail one after the other, and none in between is made.
    PxdbgError
        As `PartMaker.make`.
    """
    failed = []
    in_a_row = 0
    for outcome in _make_all(campaign, parts, maker, advance):
        report(outcome)
        in_a_row = in_a_row + 1 if outcome.state == "failed" else 0
        if outcome.state == "failed":
            failed.append(outcome.part)
            record_failure(campaign, outcome.part, outcome.reason, outcome.host)
        if in_a_row >= _HOPELESS:
            message = (
                f"{in_a_row} partitions failed one after the other, the last because: "
                f"{outcome.reason.removesuffix('.')}. Correct the cause, then run {campaign.run_command}, which tries "
                "the other partitions first."
            )
            raise CampaignError(campaign.digits_path(outcome.part), message)
    return failed


def _make_all(
    campaign: Campaign, parts: Sequence[int], maker: PartMaker, advance: Callable[[int], None]
) -> Iterator[PartOutcome]:
    """Make partitions, and wait for those that other processes make; yields each when it is no longer being made."""
    waiting = list(parts)
    while waiting:
        busy = []
        for outcome in maker.make(waiting, advance):
            if outcome.state == "busy":
                busy.append(outcome.part)
            else:
                yield outcome
        waiting = busy
        if waiting:
            _log.info("%d partitions are being made by other processes", len(waiting))
        # A maker creates sessions, which takes time from the other processes: call it only if there is work.
        has_work = False
        while waiting and not has_work:
            time.sleep(_BUSY_PAUSE_S)
            for part in [each for each in waiting if not campaign.is_being_made(each)]:
                if campaign.examine(part, compare_hash=True).state == "complete":
                    waiting.remove(part)
                    yield PartOutcome(part=part, state="complete", host=name_host())
                else:
                    has_work = True
