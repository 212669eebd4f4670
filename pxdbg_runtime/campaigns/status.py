"""The state of a campaign as a whole: what is complete, how fast it was, and what failed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pxdbg_runtime.campaigns.folder import Campaign, PartStatus
    from pxdbg_runtime.campaigns.part_record import FailureRecord, PartRecord

__all__ = ["CampaignStatus", "HostRate", "read_status"]


@dataclass(frozen=True, kw_only=True)
class HostRate:
    """What one machine has made.

    Attributes
    ----------
    host : str
    device : str
        Model of its CPU or GPU.
    parts, events : int
    events_per_s : float
        Of one worker, without loading the graph.
    """

    host: str
    device: str
    parts: int
    events: int
    events_per_s: float


@dataclass(frozen=True, kw_only=True)
class CampaignStatus:
    """The state of a campaign.

    Attributes
    ----------
    campaign : Campaign
    parts : tuple of PartStatus
        By number.
    in_progress : tuple of int
        Partitions that a process makes now, as far as locks tell.
    failures : tuple of FailureRecord
        The last failures of partitions that are not complete.
    """

    campaign: Campaign
    parts: tuple[PartStatus, ...]
    in_progress: tuple[int, ...]
    failures: tuple[FailureRecord, ...]

    @property
    def failed(self) -> tuple[int, ...]:
        """Partitions whose last try failed and that no process makes again now."""
        in_progress = set(self.in_progress)
        return tuple(failure.part for failure in self.failures if failure.part not in in_progress)

    @property
    def records(self) -> tuple[PartRecord, ...]:
        """Records of the complete partitions."""
        return tuple(part.record for part in self.parts if part.record is not None)

    @property
    def counts(self) -> Counter[str]:
        """Number of partitions by state."""
        return Counter(part.state for part in self.parts)

    @property
    def events(self) -> int:
        """Events of the complete partitions."""
        return sum(record.events for record in self.records)

    @property
    def digits(self) -> int:
        """Digits of the complete partitions."""
        return sum(record.digits for record in self.records)

    @property
    def size_bytes(self) -> int:
        """Size of the complete partitions."""
        return sum(record.size_bytes for record in self.records)

    @property
    def worker_seconds_left(self) -> float | None:
        """Time that one worker of the mean rate needs for the rest; None before the first partition is complete."""
        seconds = sum(record.seconds for record in self.records)
        return seconds / self.events * (self.campaign.plan.n_events - self.events) if self.events else None

    @property
    def problems(self) -> tuple[PartStatus, ...]:
        """Damaged and foreign partitions."""
        return tuple(part for part in self.parts if part.reason)

    @property
    def failed_or_damaged(self) -> tuple[int, ...]:
        """Partitions of `failed` and of `problems`, each once."""
        return tuple(sorted({*self.failed, *(part.part for part in self.problems)}))

    def list_hosts(self) -> list[HostRate]:
        """List what each machine has made, ordered by name."""
        groups: dict[tuple[str, str], list[PartRecord]] = {}
        for record in self.records:
            groups.setdefault((record.host, record.machine.device), []).append(record)
        return [_measure_host(host, device, records) for (host, device), records in sorted(groups.items())]


def read_status(campaign: Campaign) -> CampaignStatus:
    """Read the state of a campaign from its folder; sizes of files are compared, not their hashes."""
    parts = tuple(campaign.examine_all(compare_hash=False))
    unmade = [part.part for part in parts if part.state != "complete"]
    failures = [campaign.read_failure(part) for part in unmade]
    return CampaignStatus(
        campaign=campaign,
        parts=parts,
        in_progress=tuple(part for part in unmade if campaign.is_being_made(part)),
        failures=tuple(failure for failure in failures if failure is not None),
    )


def _measure_host(host: str, device: str, records: Sequence[PartRecord]) -> HostRate:
    events = sum(record.events for record in records)
    seconds = sum(record.seconds for record in records)
    return HostRate(
        host=host, device=device, parts=len(records), events=events, events_per_s=events / seconds if seconds else 0.0
    )
