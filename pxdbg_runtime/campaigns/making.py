"""Make one partition of a campaign: idempotent, atomic, and by one process at a time."""

from __future__ import annotations

import datetime as dt
import shlex
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pxdbg_runtime.campaigns.folder import hash_file
from pxdbg_runtime.campaigns.machine import describe_machine, explain_mismatch, name_host
from pxdbg_runtime.campaigns.part_lock import hold_lock
from pxdbg_runtime.campaigns.part_record import FailureRecord, PartRecord, encode_record
from pxdbg_runtime.errors import (
    CampaignError,
    KnownAnswerError,
    MachineMismatchError,
    MemoryLimitError,
    OutputError,
    ProviderError,
    PxdbgError,
    ThreadLimitError,
    one_line,
)
from pxdbg_runtime.formats import FileMetadata, describe_generation, open_writer
from pxdbg_runtime.formats.atomic_write import atomic_write, check_target, report_file_errors
from pxdbg_runtime.generator import Generator

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pxdbg_runtime.campaigns.folder import Campaign

__all__ = [
    "PartOutcome",
    "check_graph",
    "check_machine",
    "describe_wrong_image",
    "make_part",
    "open_generator",
    "record_failure",
]


@dataclass(frozen=True, kw_only=True)
class PartOutcome:
    """What became of one try to make a partition.

    Attributes
    ----------
    part : int
    state : {"made", "complete", "busy", "failed"}
        ``complete``: it was there already. ``busy``: another process makes it.
    host : str
        Name of the machine.
    digits : int
        Of a partition that was made.
    reason : str
        Why it failed; else empty.
    """

    part: int
    state: Literal["made", "complete", "busy", "failed"]
    host: str
    digits: int = 0
    reason: str = ""


def check_machine(campaign: Campaign, *, allow_mixed_hardware: bool) -> None:
    """Check that this machine makes the digits of the plan.

    Raises
    ------
    MachineMismatchError
        If they are not known to be the same, unless mixed hardware is allowed.
    """
    plan = campaign.plan
    found = describe_machine(plan.provider, plan.provider_options)
    difference = explain_mismatch(plan.precision, plan.provider, plan.machine, found)
    if difference and not allow_mixed_hardware:
        message = (
            f"The digits of {name_host()} are not known to be those of the plan in {campaign.folder} "
            f"({difference}): run on a machine like the plan's, or accept a few different digits with "
            "--allow-mixed-hardware."
        )
        raise MachineMismatchError(message)


def check_graph(campaign: Campaign) -> None:
    """Check the graph beside the plan; raises `CampaignError` if it is missing or not that of the plan."""
    path = campaign.graph_path
    try:
        sha256 = hash_file(path)
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror or error}. Put the planned graph back."
        raise CampaignError(path, message) from None
    _check_sha256(campaign, sha256)


def open_generator(campaign: Campaign, *, allow_mixed_hardware: bool) -> Generator:
    """Create the generator of a campaign's plan, and run the known-answer test.

    Raises
    ------
    MachineMismatchError
        As `check_machine`, or if this machine does not run the graph, or computes the known image wrongly.
    CampaignError
        If the graph beside the plan is not that of the plan.
    MemoryLimitError, ThreadLimitError
        If the job may not use as much as the plan needs.
    PxdbgError
        As `Generator`.
    """
    check_machine(campaign, allow_mixed_hardware=allow_mixed_hardware)
    check_graph(campaign)
    plan = campaign.plan
    try:
        generator = Generator(
            campaign.graph_path,
            precision=plan.precision,
            provider=plan.provider,
            provider_options=plan.provider_options or None,
            seed=plan.seed,
            random_stream=plan.random_stream,
            nintra=plan.nintra,
            ninter=plan.ninter,
            batch_size=plan.batch_size,
            min_charge=plan.min_charge,
        )
    # What these errors advise, such as another precision, is not for the partitions of a plan.
    except ProviderError as error:
        message = (
            f"{name_host()} cannot run the plan in {campaign.folder}: run it on another machine, or plan again "
            f"with what runs here ({one_line(error).removesuffix('.')})."
        )
        raise MachineMismatchError(message) from error
    except KnownAnswerError as error:
        raise describe_wrong_image(error, campaign.graph_path, "run the campaign on another machine") from error
    except MemoryLimitError as error:
        message = _describe_limit(campaign, "more memory", "a smaller --batch-size", error)
        raise MemoryLimitError(error.needed_bytes, message) from error
    except ThreadLimitError as error:
        message = _describe_limit(campaign, "more threads", "smaller --nintra and --ninter", error)
        raise ThreadLimitError(error.asked, error.started, message) from error
    _check_sha256(campaign, generator.graph_sha256)  # someone may have replaced it since
    return generator


def describe_wrong_image(error: KnownAnswerError, graph: Path | str, advice: str) -> MachineMismatchError:
    """Describe a failed known-answer test; a campaign has no option that leaves it out."""
    message = (
        f"onnxruntime {error.release} on {name_host()} ({error.provider}) does not compute the known image of {graph}: "
        f"{advice}. pxdbg check {shlex.quote(str(graph))} shows the difference."
    )
    return MachineMismatchError(message)


def make_part(
    campaign: Campaign,
    part: int,
    get_generator: Callable[[], Generator],
    advance: Callable[[], None] = lambda: None,
) -> PartOutcome:
    """Make a partition, unless it is complete or another process makes it.

    Parameters
    ----------
    campaign : Campaign
    part : int
    get_generator : callable
        Gives the generator of `open_generator`; called if the partition is not complete.
    advance : callable
        Called after each event.

    Returns
    -------
    PartOutcome
        Never of the state ``failed``: failures raise.

    Raises
    ------
    CampaignError
        If the files of the partition belong to another plan, or the graph beside the plan is not that of the plan.
    OutputError
        If a file cannot be written.
    PxdbgError
        As `Generator.generate`.
    """
    host = name_host()
    with hold_lock(campaign.lock_path(part)) as is_locked:
        if not is_locked:
            return PartOutcome(part=part, state="busy", host=host)
        status = campaign.examine(part, compare_hash=True)
        if status.state == "complete":
            return PartOutcome(part=part, state="complete", host=host)
        if status.state == "foreign":
            message = f"{status.reason.removesuffix('.')}: move it away, or use the folder of its own plan."
            raise CampaignError(campaign.digits_path(part), message)
        check_target(campaign.digits_path(part))
        generator = get_generator()
        # Partitions of two graphs must not mix, even if someone replaced the file and its process is long-lived.
        check_graph(campaign)
        record = _generate(campaign, part, generator, advance)
        with atomic_write(campaign.record_path(part)) as partial:
            partial.write_text(encode_record(record), encoding="utf-8")
        with suppress(OSError):
            campaign.failure_path(part).unlink(missing_ok=True)
        return PartOutcome(part=part, state="made", host=host, digits=record.digits)


def record_failure(campaign: Campaign, part: int, reason: str, host: str) -> None:
    """Record beside a partition why it failed, and where; if the record cannot be written, nothing happens."""
    record = FailureRecord(
        part=part,
        plan_sha256=campaign.plan_sha256,
        reason=reason.encode(errors="backslashreplace").decode(),  # names of files in it need not be UTF-8
        failed=_format_now(),
        host=host,
    )
    with suppress(OutputError), atomic_write(campaign.failure_path(part)) as partial:
        partial.write_text(encode_record(record), encoding="utf-8")


def _generate(campaign: Campaign, part: int, generator: Generator, advance: Callable[[], None]) -> PartRecord:
    plan, path = campaign.plan, campaign.digits_path(part)
    numbers = plan.partitions[part].numbers
    provenance = describe_generation(generator, numbers, plan.sensors)
    metadata = FileMetadata(jobs=(provenance,), run_numbers=plan.run_numbers)
    start_s = time.monotonic()
    n_digits = 0
    with open_writer(path, metadata, format_name=plan.format) as writer:
        for digits in generator.stream(numbers, plan.sensors):
            writer.write(digits)
            n_digits += len(digits)
            advance()
    with report_file_errors(path):
        return PartRecord(
            part=part,
            plan_sha256=campaign.plan_sha256,
            file=path.name,
            sha256=hash_file(path),
            size_bytes=path.stat().st_size,
            first_event=numbers.start,
            events=len(numbers),
            digits=n_digits,
            seconds=round(time.monotonic() - start_s, 3),
            finished=_format_now(),
            host=name_host(),
            machine=describe_machine(plan.provider, plan.provider_options),
        )


def _describe_limit(campaign: Campaign, need: str, change: str, error: PxdbgError) -> str:
    """Describe a limit of this job; what its message advises is fixed by the plan."""
    return (
        f"{name_host()} cannot run the plan in {campaign.folder}: run it on a machine, or in a job, with {need}, or "
        f"plan again with {change} ({one_line(error).removesuffix('.')})."
    )


def _check_sha256(campaign: Campaign, sha256: str) -> None:
    if sha256 != campaign.plan.graph_sha256:
        message = (
            f"{campaign.graph_path} has the SHA-256 {sha256}, but the plan says {campaign.plan.graph_sha256}: it was "
            "replaced. Put the planned graph back."
        )
        raise CampaignError(campaign.graph_path, message)


def _format_now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
