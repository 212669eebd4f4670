"""Verify a campaign: hashes, event counts, foreign files, and a sample of events that are generated again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pxdbg_runtime.campaigns.machine import describe_machine, explain_mismatch
from pxdbg_runtime.campaigns.making import check_graph
from pxdbg_runtime.errors import CampaignError, DigitFileError
from pxdbg_runtime.formats import open_events

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pxdbg_runtime.campaigns.folder import Campaign, PartStatus
    from pxdbg_runtime.digits import Digits
    from pxdbg_runtime.formats import EventReader, Provenance
    from pxdbg_runtime.generator import Generator

__all__ = [
    "Comparison",
    "choose_sample",
    "compare_sample",
    "find_graph_finding",
    "find_stranger_findings",
    "verify_part",
]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What came of generating an event again.

    Attributes
    ----------
    part : int
        Partition of the event.
    finding : str
        A sentence as of `verify_part`; empty if the digits are equal.
    is_wrong : bool
        Whether the file is not as planned: its digits differ, and not because other hardware may make them.
    """

    part: int
    finding: str = ""
    is_wrong: bool = False


def verify_part(campaign: Campaign, part: int) -> tuple[PartStatus, str | None]:
    """Verify the files of one partition: hash, digest, event count, and that the digits are of the plan.

    Parameters
    ----------
    campaign : Campaign
    part : int

    Returns
    -------
    status : PartStatus
    finding : str or None
        A sentence that names the file and says what is wrong; None if the partition is complete and as planned.

    Raises
    ------
    MissingPackageError, MemoryLimitError
        If its file cannot be read here, whatever it holds.
    """
    status = campaign.examine(part, compare_hash=True)
    path = campaign.digits_path(part)
    if status.state == "missing":
        return status, f"{path} is missing."
    if status.state == "unfinished":
        return status, f"{path} has no record: its process was stopped before the end."
    if status.record is None:
        return status, status.reason
    try:
        reader = open_events(path)
        n_digits = sum(len(digits) for digits in reader.read_blocks())
    except DigitFileError as error:
        return status, str(error)
    difference = _explain_origin(campaign, part, reader)
    if not difference and n_digits != status.record.digits:
        difference = f"it holds {n_digits:,} digits, but {status.record.digits:,} by its record"
    return status, f"{path} is not of the plan: {difference}." if difference else None


def find_stranger_findings(campaign: Campaign) -> list[str]:
    """Find files that are named as partitions are, but are not of this plan."""
    return [f"{path} is no file of this plan: move it away." for path in campaign.find_strangers()]


def find_graph_finding(campaign: Campaign) -> str | None:
    """Find whether the graph beside the plan is missing or was replaced; None if not."""
    try:
        check_graph(campaign)
    except CampaignError as error:
        return str(error)
    return None


def choose_sample(campaign: Campaign, parts: Sequence[int], n_events: int) -> list[tuple[int, int]]:
    """Choose events to generate again, evenly over partitions and differently within them.

    Parameters
    ----------
    campaign : Campaign
    parts : sequence of int
        Partitions that may be chosen.
    n_events : int

    Returns
    -------
    list of tuple of int
        Partition and event number; at most one event of each partition, the same in every call.
    """
    if not parts or n_events < 1:
        return []
    n_chosen = min(n_events, len(parts))
    chosen = [parts[round(place * (len(parts) - 1) / max(n_chosen - 1, 1))] for place in range(n_chosen)]
    sample = []
    for place, part in enumerate(chosen):
        numbers = campaign.plan.partitions[part].numbers
        # The golden ratio's multiples are spread evenly, so first, last and middle events all occur.
        sample.append((part, numbers[int((place * 0.6180339887498949) % 1 * len(numbers))]))
    return sample


def compare_sample(
    campaign: Campaign, generator: Generator, sample: Sequence[tuple[int, int]], *, allow_mixed_hardware: bool
) -> Iterator[Comparison]:
    """Generate events again and compare them with the files.

    Parameters
    ----------
    campaign : Campaign
    generator : Generator
        Of `open_generator`.
    sample : sequence of tuple of int
        From `choose_sample`.
    allow_mixed_hardware : bool
        Whether the digits of a partition may differ if its machine is not known to make those of this one.

    Yields
    ------
    Comparison
        For each event.

    Raises
    ------
    MissingPackageError, MemoryLimitError
        As `verify_part`.
    PxdbgError
        As `Generator.generate`.
    """
    for part, event in sample:
        path = campaign.digits_path(part)
        expected = generator.generate(event, campaign.plan.sensors)
        try:
            found = next((digits for number, digits in open_events(path).read_events() if number == event), None)
        except DigitFileError as error:
            yield Comparison(part=part, finding=str(error), is_wrong=True)
            continue
        if found is None:
            yield Comparison(part=part, finding=f"{path} has no event {event}.", is_wrong=True)
        elif found == expected:
            yield Comparison(part=part)
        elif allow_mixed_hardware and _is_of_other_hardware(campaign, part):
            n_cells = _count_differing_cells(found, expected)
            digits = "1 digit" if n_cells == 1 else f"{n_cells:,} digits"
            finding = f"{path} differs by {digits} of event {event} from what is generated now, as other hardware may."
            yield Comparison(part=part, finding=finding)
        else:
            counts = f"{len(found):,} digits, generated now {len(expected):,}"
            finding = f"{path} holds other digits of event {event} than those that are generated now ({counts})."
            yield Comparison(part=part, finding=finding, is_wrong=True)


def _is_of_other_hardware(campaign: Campaign, part: int) -> bool:
    """Whether the machine that made a partition is not known to make the digits of this one."""
    plan, record = campaign.plan, campaign.examine(part, compare_hash=False).record
    here = describe_machine(plan.provider, plan.provider_options)
    return record is not None and bool(explain_mismatch(plan.precision, plan.provider, record.machine, here))


def _count_differing_cells(one: Digits, other: Digits) -> int:
    """Count the cells whose charge differs, or that one of two events lacks."""
    rows = set(one.to_structured().tolist()) ^ set(other.to_structured().tolist())
    return len({row[:-1] for row in rows})


def _explain_origin(campaign: Campaign, part: int, reader: EventReader) -> str:
    """Explain how the provenance of a file differs from the plan; empty if it does not."""
    plan, numbers = campaign.plan, campaign.plan.partitions[part].numbers
    job: Provenance | None = reader.provenance
    if job is None:
        if reader.jobs:
            return "it has the digits of several jobs"
        return f"how its digits were generated is unknown ({reader.remark})"
    if not reader.is_checked:
        return "it has no digest"
    expected = {
        "graph_sha256": plan.graph_sha256,
        "precision": plan.precision,
        "provider": plan.provider,
        "seed": plan.seed,
        "random_stream": plan.random_stream,
        "min_charge": plan.min_charge,
        "sensors": plan.sensors,
        "first_event": numbers.start,
        "events": len(numbers),
    }
    return "; ".join(
        f"its {name} is {getattr(job, name)}, planned was {value}"
        for name, value in expected.items()
        if getattr(job, name) != value
    )
