"""The state of a campaign where locks are another user's, names are not UTF-8, or this machine lacks something."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, Final

import pytest
from matplotlib.figure import Figure

from pxdbg_runtime.campaigns import open_campaign, open_generator, read_status
from pxdbg_runtime.campaigns.making import record_failure
from pxdbg_runtime.campaigns.part_lock import hold_lock
from pxdbg_runtime.campaigns.status_page import render_page, write_page
from pxdbg_runtime.campaigns.verifying import compare_sample
from pxdbg_runtime.errors import MemoryLimitError, MissingPackageError, PxdbgError
from tests.campaigns import copy_made_campaign
from tests.test_command_line import invoke

if TYPE_CHECKING:
    from pathlib import Path

    from pxdbg_runtime.campaigns import Campaign
    from pxdbg_runtime.model.graph_file import GraphFile

NOT_UTF_8: Final = os.fsdecode(b"bg\xff")


@pytest.fixture
def campaign(latent_graph: GraphFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Campaign:
    monkeypatch.setattr("pxdbg_runtime.campaigns.status_page.draw_event", lambda *_, **__: Figure())
    return copy_made_campaign(latent_graph, tmp_path / "bg")


@pytest.mark.parametrize("error_number", [errno.EACCES, errno.EROFS])
def test_a_lock_that_cannot_be_written_is_seen(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch, error_number: int
) -> None:
    """It is another user's, or on a disk that is mounted for reading alone."""
    open_descriptor = os.open

    def open_for_reading_alone(path: Any, flags: int, *arguments: Any, **options: Any) -> int:  # noqa: ANN401
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(error_number, os.strerror(error_number), path)
        return open_descriptor(path, flags, *arguments, **options)

    path = campaign.lock_path(1)
    with hold_lock(path), monkeypatch.context() as patched:
        patched.setattr(os, "open", open_for_reading_alone)
        assert campaign.is_being_made(1)
    path.touch()
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", open_for_reading_alone)
        assert not campaign.is_being_made(1)


def test_the_page_of_a_folder_whose_name_is_not_utf_8(campaign: Campaign, tmp_path: Path) -> None:
    folder = campaign.folder.rename(tmp_path / NOT_UTF_8)
    write_page(read_status(open_campaign(folder)), tmp_path / "bg.html")
    assert r"<h1>Campaign bg\udcff</h1>" in (tmp_path / "bg.html").read_text(encoding="utf-8")


def test_a_failure_that_names_such_a_file_is_kept(campaign: Campaign) -> None:
    record_failure(campaign, 1, f"{NOT_UTF_8}/part-000001.npz cannot be written.", "here")
    failure = campaign.read_failure(1)
    assert failure is not None
    assert failure.reason == r"bg\udcff/part-000001.npz cannot be written."


def test_a_damaged_partition_that_failed_counts_once(campaign: Campaign) -> None:
    for part in (1, 2):
        campaign.digits_path(part).write_bytes(b"damaged")
        record_failure(campaign, part, "A sentence.", "here")
    record_failure(campaign, 3, "A sentence.", "here")
    campaign.record_path(3).unlink()
    found = read_status(campaign)
    assert found.failed == found.failed_or_damaged == (1, 2, 3)
    assert "<b>3</b>failed or damaged" in render_page(found)


@pytest.mark.parametrize(
    "error",
    [MissingPackageError("pyarrow", "parquet", "No pyarrow."), MemoryLimitError(None, "No memory.")],
    ids=["package", "memory"],
)
def test_what_this_machine_lacks_is_no_fault_of_a_file(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch, error: PxdbgError
) -> None:
    def fail(_path: Path) -> None:
        raise error

    monkeypatch.setattr("pxdbg_runtime.campaigns.verifying.open_events", fail)
    done = invoke("campaign", "verify", campaign.folder)
    assert (done.exit_code, done.stdout) == (1, "")
    assert str(error) in done.stderr
    generator = open_generator(campaign, allow_mixed_hardware=False)
    with pytest.raises(type(error), match=rf"^{error}$"):
        next(compare_sample(campaign, generator, [(0, 5)], allow_mixed_hardware=False))
