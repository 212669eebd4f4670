"""What runs in a worker process of Dask: one session for each campaign, never pickled or forked.

This module imports Dask; `dask_maker` imports it on first use.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from distributed import WorkerPlugin

from pxdbg_runtime.campaigns.folder import PLAN_NAME, open_campaign
from pxdbg_runtime.campaigns.machine import name_host
from pxdbg_runtime.campaigns.making import PartOutcome, make_part, open_generator
from pxdbg_runtime.errors import CampaignError, MachineMismatchError, PxdbgError, one_line
from pxdbg_runtime.inference.providers import CPU
from pxdbg_runtime.limits.heap import return_freed_memory

if TYPE_CHECKING:
    from distributed import Worker

    from pxdbg_runtime.campaigns.folder import Campaign
    from pxdbg_runtime.generator import Generator

__all__ = ["GPU_RESOURCE", "SessionPlugin", "WorkerAnswer", "make_part_on_worker", "read_answer"]

GPU_RESOURCE: Final = "GPU"
"""Name of the resource that workers with a GPU offer: ``dask worker --resources GPU=1``."""

Key = tuple[str, str, bool]
"""Folder, SHA-256 of the plan, whether mixed hardware is allowed."""
_sessions: dict[Key, Generator] = {}
_lock: Final = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class WorkerAnswer:
    """Whether a worker can run a campaign.

    Attributes
    ----------
    refusal : str
        Why it cannot; empty if it can.
    is_unfit_machine : bool
        Whether the reason is its machine, so that another one may make the digits of the plan.
    """

    refusal: str = ""
    is_unfit_machine: bool = False


class SessionPlugin(WorkerPlugin):
    """Creates the session of a campaign when a worker starts, so that each worker process has exactly one.

    A worker that cannot run the campaign keeps the reason and stays usable for others.
    """

    idempotent = True
    """A scheduler that has it already does not set it up again on all workers, if a worker was lost meanwhile."""

    def __init__(self, key: Key, *, is_local: bool) -> None:
        self._key = key
        self._is_local = is_local
        self.answer: WorkerAnswer | None = None

    async def setup(self, worker: Worker) -> None:
        """Create the session in a thread, so that the worker answers meanwhile."""
        if self._is_local:  # the worker shares a terminal with the command, which has shown the warnings
            logging.getLogger("pxdbg_runtime").setLevel(logging.ERROR)
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the command, which ends its workers
        try:
            campaign = _open_same_campaign(self._key)
            _check_resource(campaign, worker)
            if campaign.plan.provider == CPU:
                return_freed_memory()
            await asyncio.to_thread(_get_generator, self._key, campaign)
            self.answer = WorkerAnswer()
        except PxdbgError as error:
            is_unfit_machine = isinstance(error, MachineMismatchError)
            self.answer = WorkerAnswer(refusal=one_line(error), is_unfit_machine=is_unfit_machine)
        except Exception as error:  # noqa: BLE001  # without an answer it would be waited for
            self.answer = WorkerAnswer(refusal=f"{type(error).__name__}: {one_line(error)}")

    def teardown(self, worker: Worker) -> None:  # noqa: ARG002  # as Dask calls it
        """Drop the session."""
        with _lock:
            _sessions.pop(self._key, None)


def read_answer(plugin: str, dask_worker: Any = None) -> WorkerAnswer | None:  # noqa: ANN401  # Dask passes the worker
    """Read whether this worker can run the campaign of a plugin; None while it creates its session.

    Raises
    ------
    LookupError
        If it does not have the plugin: not yet, or the connection failed while it was to get it.
    """
    if plugin not in dask_worker.plugins:
        message = "it did not get the campaign from its scheduler; start it again"
        raise LookupError(message)
    answer: WorkerAnswer | None = dask_worker.plugins[plugin].answer
    return answer


def make_part_on_worker(key: Key, part: int) -> PartOutcome:
    """Make a partition; failures come back as outcomes, in plain text."""
    try:
        campaign = _open_same_campaign(key)
        return make_part(campaign, part, lambda: _get_generator(key, campaign))
    except PxdbgError as error:
        return PartOutcome(part=part, state="failed", host=name_host(), reason=one_line(error))


def _open_same_campaign(key: Key) -> Campaign:
    """Open the campaign, and refuse another plan than the client's."""
    folder, plan_sha256, _ = key
    path = Path(folder) / PLAN_NAME
    if not os.path.exists(path):  # noqa: PTH110  # Path raises where a disk is not mounted well
        message = f"{folder} is not visible on {name_host()} under this path: share the folder of the campaign."
        raise CampaignError(path, message)
    campaign = open_campaign(Path(folder))
    if campaign.plan_sha256 != plan_sha256:
        message = f"{folder} has another plan on {name_host()} than where the run was started: share one folder."
        raise CampaignError(campaign.folder, message)
    return campaign


def _check_resource(campaign: Campaign, worker: Worker) -> None:
    """Check that a worker offers a GPU if the plan needs one; raises `MachineMismatchError`."""
    if campaign.plan.provider != CPU and not worker.state.total_resources.get(GPU_RESOURCE):
        message = (
            f"it offers no resource {GPU_RESOURCE}, which the plan's {campaign.plan.provider} needs: start it with "
            f"dask worker --resources {GPU_RESOURCE}=1"
        )
        raise MachineMismatchError(message)


def _get_generator(key: Key, campaign: Campaign) -> Generator:
    with _lock:
        if key not in _sessions:
            _sessions[key] = open_generator(campaign, allow_mixed_hardware=key[2])
        return _sessions[key]
