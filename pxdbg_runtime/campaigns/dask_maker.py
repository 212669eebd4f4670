"""Make the partitions of a campaign on the workers of a Dask cluster.

This process gives each worker one partition at a time. So a worker that does not fit the plan gets none, a partition
that failed goes to another worker, and workers may come and go.
"""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import shlex
import time
import uuid
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.campaigns.making import PartOutcome, check_machine
from pxdbg_runtime.errors import CampaignError, MachineMismatchError, SchedulerError, one_line
from pxdbg_runtime.inference.providers import CPU

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from distributed import Client, Future

    from pxdbg_runtime.campaigns.dask_worker import WorkerAnswer
    from pxdbg_runtime.campaigns.folder import Campaign

__all__ = ["DEFAULT_RETRIES", "DaskMaker"]

DEFAULT_RETRIES: Final = 3
_POLL_S: Final = 0.5
_RESULT_S: Final = 10
"""An outcome is some hundred bytes. It stays on its worker until it is fetched, and is lost with the worker."""
_UNANSWERED_S: Final = 60.0
"""The scheduler may be busy for so long before it counts as lost."""
_WITHOUT_PLUGIN_S: Final = 60.0
"""A worker that has not got the plugin after this time is refused."""
_MAX_LOST: Final = 5
"""Workers that are lost one after the other while they create their sessions, at which a run gives up."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DaskMaker:
    """Makes partitions on the workers of a Dask cluster.

    Attributes
    ----------
    campaign : Campaign
        Its folder has the same path on all workers.
    client : Client
    allow_mixed_hardware : bool
    retries : int
        How often a partition that failed, or whose worker was lost, is tried again, on another worker if there is one.
    is_local : bool
        Whether the workers share this terminal, and warn of nothing then.
    log : callable
        Called with sentences for the user.
    """

    campaign: Campaign
    client: Client
    log: Callable[[str], None]
    allow_mixed_hardware: bool = False
    retries: int = DEFAULT_RETRIES
    is_local: bool = False

    def make(self, parts: Sequence[int], advance: Callable[[int], None]) -> Iterator[PartOutcome]:
        """Make partitions; see `PartMaker`."""
        if self.is_local:
            check_machine(self.campaign, allow_mixed_hardware=self.allow_mixed_hardware)
        # Links are not resolved: what they lead to here may have another name on the workers' machines.
        key = str(self.campaign.folder.absolute()), self.campaign.plan_sha256, self.allow_mixed_hardware
        # A name for each run: the one that ends first leaves the plugin of another. Their sessions are the same.
        name = f"pxdbg-campaign-{self.campaign.plan_sha256[:16]}-{uuid.uuid4().hex}"
        dispatch = _Dispatch(self, key, name, parts)
        try:
            for outcome in dispatch.run():
                if outcome.state == "made":
                    advance(self.campaign.plan.partitions[outcome.part].events)
                yield outcome
        finally:
            dispatch.cancel()
            with contextlib.suppress(Exception):  # the scheduler may have gone; its workers end with it
                self.client.unregister_worker_plugin(name)


class _Dispatch:
    """The state of one call of `DaskMaker.make`."""

    def __init__(self, maker: DaskMaker, key: tuple[str, str, bool], plugin: str, parts: Sequence[int]) -> None:
        self._maker, self._client, self._key, self._plugin = maker, maker.client, key, plugin
        self._address = str(self._client.scheduler_info()["address"])
        self._scheduler = ""
        self._waiting = deque(parts)
        self._tries: Counter[int] = Counter()
        self._avoided: dict[int, str] = {}
        self._running: dict[str, tuple[int, Future[PartOutcome]]] = {}
        self._refusals: dict[str, WorkerAnswer] = {}
        self._unanswered: set[str] = set()
        self._without_plugin_since_s: dict[str, float] = {}
        self._n_lost = 0
        self._fit: set[str] = set()
        self._has_fitted = False
        self._finished: queue.SimpleQueue[tuple[str, Future[PartOutcome]]] = queue.SimpleQueue()
        self._next_look_s = -math.inf
        self._answered_s = time.monotonic()
        self._has_waited = False

    def run(self) -> Iterator[PartOutcome]:
        while self._waiting or self._running:
            if time.monotonic() >= self._next_look_s:
                yield from self._look_at_workers()
                # From its end: a worker that does not respond takes half a minute, and the others are served after it.
                self._next_look_s = time.monotonic() + _POLL_S
            self._submit()
            try:
                worker, future = self._finished.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            part, current = self._running.get(worker, (-1, None))
            if current is future:  # else its worker was lost, and the partition is somewhere else
                del self._running[worker]
                yield from self._settle(part, worker, future)

    def cancel(self) -> None:
        """Cancel what has not started; a worker finishes the partition that it makes."""
        with contextlib.suppress(Exception):
            self._client.cancel([future for _part, future in self._running.values()])

    def _look_at_workers(self) -> Iterator[PartOutcome]:
        """Find new workers and lost ones."""
        if self._client.status != "running":
            self._check_scheduler(None)
            return
        try:
            self._find_scheduler()
            present = set(self._client.nthreads())
            new = sorted(present - self._fit - self._refusals.keys())
            answers = self._ask(new) if new and not self._is_other_scheduler() else {}
            if self._is_other_scheduler():  # its workers wait for the plugin
                return
        # Lost connections and time-outs are OSError; a client that loses its connection meanwhile has no scheduler.
        except (OSError, ValueError, AttributeError, RuntimeError) as error:
            self._check_scheduler(error)
            return
        self._answered_s = time.monotonic()
        self._n_lost += len(self._unanswered - present)
        self._unanswered = set(new) - answers.keys()
        for worker, answer in answers.items():
            if answer.refusal:
                self._refusals[worker] = answer
                self._maker.log(f"worker {worker} gets no partitions: {answer.refusal}")
            else:
                self._fit.add(worker)
                self._has_fitted = True
                self._n_lost = 0
        self._fit &= present
        self._refusals = {worker: answer for worker, answer in self._refusals.items() if worker in present}
        for worker in self._running.keys() - present:
            part, future = self._running.pop(worker)
            future.cancel()
            yield from self._retry(part, worker, f"its worker {worker} was lost: killed, out of memory, or at its end")
        self._require_workers()

    def _find_scheduler(self) -> None:
        """Give the scheduler the plugin; one that was started again has neither the plugin nor the former workers."""
        from pxdbg_runtime.campaigns.dask_worker import SessionPlugin

        if not self._is_other_scheduler():
            return
        found = str(self._client.scheduler_info()["id"])
        if self._scheduler:
            self._maker.log("the scheduler was started again")
        self._waiting += [part for part, _future in self._running.values()]
        for state in (self._running, self._fit, self._refusals, self._unanswered, self._without_plugin_since_s):
            state.clear()
        plugin = SessionPlugin(self._key, is_local=self._maker.is_local)
        try:
            self._client.register_plugin(plugin, name=self._plugin)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001  # of any worker, such as one without this package; it gets nothing
            _log.info("a worker did not take the plugin: %s", one_line(error))
        self._scheduler = found

    def _is_other_scheduler(self) -> bool:
        return str(self._client.scheduler_info()["id"]) != self._scheduler

    def _ask(self, workers: list[str]) -> dict[str, WorkerAnswer]:
        """Ask workers whether they can run the campaign; those that do not know yet, or were lost, are left out."""
        from pxdbg_runtime.campaigns.dask_worker import WorkerAnswer, read_answer

        answers: dict[str, WorkerAnswer] = {}
        for worker, found in self._client.run(read_answer, self._plugin, workers=workers, on_error="return").items():
            if isinstance(found, OSError):  # no connection, or a time-out
                _log.info("worker %s does not answer: %s", worker, one_line(found))
            elif isinstance(found, LookupError) and self._may_get_plugin(worker):
                pass
            elif isinstance(found, BaseException):  # such as that of a worker without this package
                answers[worker] = WorkerAnswer(refusal=f"{type(found).__name__}: {one_line(found)}")
            elif found is not None:
                answers[worker] = found
        return answers

    def _may_get_plugin(self, worker: str) -> bool:
        """Whether a worker that lacks the plugin has not lacked it for long."""
        now_s = time.monotonic()
        return now_s - self._without_plugin_since_s.setdefault(worker, now_s) < _WITHOUT_PLUGIN_S

    def _require_workers(self) -> None:
        """Wait for workers, unless all that there ever were do not fit the plan."""
        if self._fit:
            self._has_waited = False
            return
        # A worker that has fitted may be about to start again.
        if self._refusals and not self._unanswered and not self._has_fitted:
            first = self._refusals[min(self._refusals)]
            message = (
                f"None of the {len(self._refusals)} workers can run the campaign, the first because: {first.refusal}"
            )
            if first.is_unfit_machine:
                raise MachineMismatchError(message)
            raise CampaignError(self._maker.campaign.folder, message)
        if self._n_lost >= _MAX_LOST:
            message = (
                f"{self._n_lost} workers were lost while they created their sessions: they crashed, were stopped, or "
                "were killed for want of memory. The log of a worker, its batch system or the kernel (dmesg) says why; "
                f"pxdbg doctor {shlex.quote(str(self._maker.campaign.graph_path))} tries the graph on a machine."
            )
            raise SchedulerError(self._address, message)
        if not self._has_waited:
            self._has_waited = True
            self._maker.log("waiting for workers that can run the campaign")

    def _check_scheduler(self, error: Exception | None) -> None:
        if self._client.status == "closed" or time.monotonic() - self._answered_s > _UNANSWERED_S:
            raise _describe_silence(self._maker.campaign, self._address, error)

    def _submit(self) -> None:
        from pxdbg_runtime.campaigns.dask_worker import GPU_RESOURCE, make_part_on_worker

        on_cpu = self._maker.campaign.plan.provider == CPU
        for worker in sorted(self._fit - self._running.keys()):
            part = self._take_part(worker)
            if part is None:
                continue
            future = self._client.submit(
                make_part_on_worker,
                self._key,
                part,
                workers=[worker],
                allow_other_workers=False,
                resources=None if on_cpu else {GPU_RESOURCE: 1},
                pure=False,
            )
            self._running[worker] = part, future
            future.add_done_callback(lambda done, worker=worker: self._finished.put((worker, done)))

    def _take_part(self, worker: str) -> int | None:
        """Take a waiting partition that did not fail on this worker, or any if there is no other worker."""
        for _ in range(len(self._waiting)):
            part = self._waiting.popleft()
            if self._avoided.get(part) != worker or self._fit == {worker}:
                return part
            self._waiting.append(part)
        return None

    def _settle(self, part: int, worker: str, future: Future[PartOutcome]) -> Iterator[PartOutcome]:
        if future.status == "finished":
            try:
                outcome = future.result(timeout=_RESULT_S)
            except TimeoutError:
                # Without a limit Dask waits for the lost worker for ever. The next worker finds the file, if complete.
                future.cancel()
                yield from self._retry(part, worker, f"on {worker}: its answer was lost with the worker")
                return
            if outcome.state != "failed":
                yield outcome
            else:
                yield from self._retry(part, worker, f"on {outcome.host}: {outcome.reason}", outcome.host)
        elif future.status == "error":
            error = future.exception()
            yield from self._retry(part, worker, f"on {worker}: {type(error).__name__}: {one_line(error)}")
        else:  # cancelled or lost: so are all futures if the scheduler has gone
            self._waiting.append(part)
            time.sleep(_POLL_S)

    def _retry(self, part: int, worker: str, reason: str, host: str = "") -> Iterator[PartOutcome]:
        """Queue a partition again, or give it up."""
        self._tries[part] += 1
        self._avoided[part] = worker
        if self._tries[part] <= self._maker.retries:
            self._maker.log(f"partition {part} failed (try {self._tries[part]} of {self._maker.retries + 1}) {reason}")
            self._waiting.append(part)
        else:
            yield PartOutcome(part=part, state="failed", host=host or worker, reason=reason)


def _describe_silence(campaign: Campaign, address: str, error: Exception | None) -> SchedulerError:
    reason = "" if error is None else f" ({one_line(error)})"
    message = (
        f"The Dask scheduler at {address} does not answer any more{reason}. Partitions that are complete stay so: "
        f"start a scheduler and go on with {campaign.run_command}."
    )
    return SchedulerError(address, message)
