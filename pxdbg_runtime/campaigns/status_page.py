"""The page of a campaign: one HTML file with the picture of an event, which needs no network and no other file."""

from __future__ import annotations

import base64
import datetime as dt
import io
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.campaigns.folder import format_command
from pxdbg_runtime.errors import PxdbgError, one_line
from pxdbg_runtime.formats import open_events
from pxdbg_runtime.formats.atomic_write import atomic_write
from pxdbg_runtime.formats.provenance import has_random_weights
from pxdbg_runtime.optional_imports import require
from pxdbg_runtime.plots.event_display import draw_event
from pxdbg_runtime.sensors import READOUT_THRESHOLD_ADU
from pxdbg_runtime.version import __version__

if TYPE_CHECKING:
    from pxdbg_runtime.campaigns.folder import PartState
    from pxdbg_runtime.campaigns.status import CampaignStatus

__all__ = ["render_page", "write_page"]

_CELLS: Final = 400
"""Most partitions that get a cell of their own in the map; larger campaigns show groups."""
_ORDER: Final[tuple[PartState, ...]] = ("foreign", "damaged", "unfinished", "missing", "complete")
"""The worst state of a group is that of its cell."""


def write_page(found: CampaignStatus, path: Path) -> None:
    """Write the page.

    Raises
    ------
    MissingPackageError
        If jinja2 or matplotlib is not installed.
    OutputError
        If the file cannot be written.
    """
    text = render_page(found)
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")  # names of folders need not be UTF-8


def render_page(found: CampaignStatus) -> str:
    """Render the state of a campaign as HTML; raises `MissingPackageError` as `write_page`."""
    jinja2 = require("jinja2", extra="validate", purpose="The page of a campaign")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    title, picture, remark = _draw_sample(found)
    page: str = environment.get_template("status.html.jinja").render(
        found=found,
        verify_command=format_command("verify", found.campaign.folder),
        plan=found.campaign.plan,
        cells=_build_map(found),
        picture=picture,
        picture_title=title,
        picture_remark=remark,
        written=dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
    )
    return page


def _build_map(found: CampaignStatus) -> list[tuple[str, str]]:
    """Build the cells of the map: the state of a partition, or the worst of several, and the text about it."""
    n_parts = len(found.parts)
    size = -(-n_parts // _CELLS)
    failed, in_progress = set(found.failed), set(found.in_progress)
    cells = []
    for start in range(0, n_parts, size):
        group = found.parts[start : start + size]
        state: str = min((part.state for part in group), key=_ORDER.index)
        if state in {"missing", "unfinished"}:
            if failed.intersection(part.part for part in group):
                state = "failed"
            elif in_progress.intersection(part.part for part in group):
                state = "being made"
        name = f"partition {start}" if size == 1 else f"partitions {start} to {group[-1].part}"
        cells.append((state.replace(" ", "-"), f"{name}: {state}"))
    return cells


def _draw_sample(found: CampaignStatus) -> tuple[str, str, str]:
    """Draw the first event of the first complete partition: title, PNG in base64, and why there is none."""
    complete = next((part for part in found.parts if part.state == "complete"), None)
    if complete is None:
        return "", "", "No partition is complete yet."
    campaign = found.campaign
    try:
        reader = open_events(campaign.digits_path(complete.part))
        number, digits = next(iter(reader.read_events()))
    except PxdbgError as error:
        return "", "", one_line(error)
    others = ", ".join(sorted({job.nature for job in reader.jobs} - {"checkpoint"}))
    remark = f" ({others}, no real physics)" if others else ""
    title = f"Event {number}, seed {campaign.plan.seed}{remark}"
    figure = draw_event(
        digits,
        title=title,
        sensors=campaign.plan.generated_sensors,
        compare_geant4=not has_random_weights(reader.jobs) and campaign.plan.min_charge <= READOUT_THRESHOLD_ADU,
    )
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=90)
    return title, base64.b64encode(content.getvalue()).decode(), ""
