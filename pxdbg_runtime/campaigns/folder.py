"""The folder of a campaign: its plan, its partitions, and what state they are in. What is on disk is the state."""

from __future__ import annotations

import hashlib
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from pxdbg_runtime.campaigns.part_lock import is_held
from pxdbg_runtime.campaigns.part_record import FailureRecord, PartRecord
from pxdbg_runtime.campaigns.plan import CampaignPlan
from pxdbg_runtime.checks import check_path
from pxdbg_runtime.errors import ArgumentValueError, CampaignError, JsonFieldError
from pxdbg_runtime.json_records import Record, decode_record
from pxdbg_runtime.regular_file import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pxdbg_runtime.checks import StrPath

__all__ = [
    "GRAPH_NAME",
    "PLAN_NAME",
    "Campaign",
    "PartState",
    "PartStatus",
    "format_command",
    "hash_file",
    "list_part_files",
    "open_campaign",
]

PLAN_NAME: Final = "plan.json"
GRAPH_NAME: Final = "graph.onnx"
_MAX_PLAN_BYTES: Final = 1 << 25
_MAX_RECORD_BYTES: Final = 1 << 16
_PART_NAME: Final = re.compile(r"part-\d{6,}(\.failure)?\.\w+")
R = TypeVar("R", bound=Record)

PartState = Literal["complete", "missing", "unfinished", "damaged", "foreign"]
"""``unfinished``: a file without a record; its process was stopped between the two. ``foreign``: of another plan."""


@dataclass(frozen=True, kw_only=True)
class PartStatus:
    """The state of a partition.

    Attributes
    ----------
    part : int
    state : PartState
    record : PartRecord or None
        Of a complete partition.
    reason : str
        What is wrong with a damaged or foreign one, as a sentence that names the file; else empty.
    """

    part: int
    state: PartState
    record: PartRecord | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """A campaign on disk.

    Attributes
    ----------
    folder : Path
    plan : CampaignPlan
    plan_sha256 : str
        Of the plan's file, which each partition's record names.
    """

    folder: Path
    plan: CampaignPlan
    plan_sha256: str

    @property
    def graph_path(self) -> Path:
        """The graph beside the plan."""
        return self.folder / self.plan.graph

    @property
    def run_command(self) -> str:
        """The command that makes what is missing, to copy into a shell."""
        return format_command("run", self.folder)

    def check_part(self, part: int) -> int:
        """Return the number of a partition; raises `ArgumentValueError` if the plan has none of that number."""
        if 0 <= part < self.plan.n_parts:
            return part
        message = f"{self.folder} has the partitions 0 to {self.plan.n_parts - 1}, but {part} was asked for."
        raise ArgumentValueError("part", message)

    def digits_path(self, part: int) -> Path:
        """Path of the digit file of a partition."""
        return self.folder / f"part-{part:06}{self.plan.suffix}"

    def record_path(self, part: int) -> Path:
        """Path of the record of a complete partition."""
        return self.folder / f"part-{part:06}.json"

    def failure_path(self, part: int) -> Path:
        """Path of the record of a partition's last failure."""
        return self.folder / f"part-{part:06}.failure.json"

    def lock_path(self, part: int) -> Path:
        """Path of the lock of a partition, which exists while it is made."""
        return self.folder / f".part-{part:06}.lock"

    def is_being_made(self, part: int) -> bool:
        """Whether a process of this machine, or of another that shares locks on this disk, makes a partition."""
        return is_held(self.lock_path(part))

    def examine(self, part: int, *, compare_hash: bool) -> PartStatus:
        """Find out the state of a partition.

        Parameters
        ----------
        part : int
        compare_hash : bool
            Also read the file and compare its SHA-256; without that, its size alone.
        """
        path = self.digits_path(part)
        if not self.record_path(part).exists():
            return PartStatus(part=part, state="unfinished" if path.exists() else "missing")
        try:
            record = _read_record(self.record_path(part), PartRecord)
        except CampaignError as error:
            return PartStatus(part=part, state="damaged", reason=str(error))
        if record.plan_sha256 != self.plan_sha256:
            shas = f"SHA-256 {record.plan_sha256[:12]}…, here {self.plan_sha256[:12]}…"
            return PartStatus(part=part, state="foreign", reason=f"{path} belongs to another plan ({shas}).")
        reason = self._explain_damage(part, record, compare_hash=compare_hash)
        if reason:
            return PartStatus(part=part, state="damaged", reason=f"{path} {reason}.")
        return PartStatus(part=part, state="complete", record=record)

    def examine_all(self, *, compare_hash: bool) -> Iterator[PartStatus]:
        """Find out the state of each partition, in order."""
        return (self.examine(part, compare_hash=compare_hash) for part in range(self.plan.n_parts))

    def read_failure(self, part: int) -> FailureRecord | None:
        """Read the last failure to make a partition; None if there was none since it was last made."""
        try:
            found = _read_record(self.failure_path(part), FailureRecord)
        except CampaignError:
            return None
        return found if (found.part, found.plan_sha256) == (part, self.plan_sha256) else None

    def find_strangers(self) -> list[Path]:
        """Find files that are named as partitions are, but are not of this plan; sorted."""
        own = {
            path.name
            for part in range(self.plan.n_parts)
            for path in (self.digits_path(part), self.record_path(part), self.failure_path(part))
        }
        return [path for path in list_part_files(self.folder) if path.name not in own]

    def _explain_damage(self, part: int, record: PartRecord, *, compare_hash: bool) -> str:
        """Explain as the end of a sentence how a file differs from its record; empty if it does not."""
        path, planned = self.digits_path(part), self.plan.partitions[part]
        if (record.part, record.file) != (part, path.name):
            return f"has the record of {record.file[:200]!r}, partition {record.part}"
        if (record.first_event, record.events) != (planned.first_event, planned.events):
            return (
                f"has {record.events} events from {record.first_event} by its record, but {planned.events} from "
                f"{planned.first_event} by the plan"
            )
        try:
            size = path.stat().st_size
            if size != record.size_bytes:
                return f"has {size} bytes, but {record.size_bytes} by its record: it was cut or changed"
            if compare_hash and hash_file(path) != record.sha256:
                return "has another SHA-256 than its record: it was changed"
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"
        return ""


def format_command(action: str, folder: Path) -> str:
    """Format a command of ``pxdbg campaign`` on a folder, to copy into a shell."""
    return f"pxdbg campaign {action} {shlex.quote(str(folder))}"


def list_part_files(folder: Path) -> list[Path]:
    """List the files that are named as partitions and their records are, sorted; raises `OSError`."""
    return sorted(path for path in folder.iterdir() if _PART_NAME.fullmatch(path.name))


def open_campaign(folder: StrPath) -> Campaign:
    """Read the plan of a campaign.

    Raises
    ------
    CampaignError
        If there is no plan, or it is not valid.
    """
    folder = check_path("folder", folder)
    path = folder / PLAN_NAME
    try:
        with open_regular(path) as file:
            content = file.read(_MAX_PLAN_BYTES + 1)
    except FileNotFoundError:
        message = f"{folder} is not the folder of a campaign, it has no {PLAN_NAME}: make one with pxdbg campaign plan."
        raise CampaignError(path, message) from None
    except OSError as error:
        raise CampaignError(path, f"{path} cannot be read: {error.strerror or error}.") from None
    try:
        plan = CampaignPlan.from_json(_decode(content, _MAX_PLAN_BYTES))
    except JsonFieldError as error:
        raise CampaignError(path, f"{path} is not a valid plan: {error}") from None
    return Campaign(folder=folder, plan=plan, plan_sha256=hashlib.sha256(content).hexdigest())


def hash_file(path: Path) -> str:
    """Compute the SHA-256 of a file's bytes; raises `OSError` if it cannot be read."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_record(path: Path, kind: type[R]) -> R:
    try:
        with open_regular(path) as file:
            return decode_record(_decode(file.read(_MAX_RECORD_BYTES + 1), _MAX_RECORD_BYTES), kind)
    except OSError as error:
        raise CampaignError(path, f"{path} cannot be read: {error.strerror or error}.") from None
    except JsonFieldError as error:
        raise CampaignError(path, f"{path} is not a valid record: {error}") from None


def _decode(content: bytes, limit: int) -> str:
    if len(content) > limit:
        raise JsonFieldError("", f"it has more than {limit:,} bytes.")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise JsonFieldError("", "it is not text in UTF-8.") from None
