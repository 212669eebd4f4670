"""A Dask cluster that answers at once."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, cast

from pxdbg_runtime.campaigns import PartOutcome
from pxdbg_runtime.campaigns.dask_maker import DaskMaker
from pxdbg_runtime.campaigns.dask_worker import WorkerAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from distributed import Client

    from pxdbg_runtime.campaigns import Campaign
    from pxdbg_runtime.campaigns.dask_worker import SessionPlugin

__all__ = ["Answer", "FakeClient", "FakeFuture", "made", "run_fake"]

Answer = PartOutcome | RuntimeError | TimeoutError | None


class FakeFuture:
    def __init__(self) -> None:
        self.status = "pending"
        self.callbacks: list[Callable[[FakeFuture], None]] = []
        self.outcome: Answer = None

    def add_done_callback(self, callback: Callable[[FakeFuture], None]) -> None:
        self.callbacks.append(callback)
        if self.status != "pending":
            callback(self)

    def finish(self, outcome: PartOutcome | RuntimeError | TimeoutError) -> None:
        self.status = "error" if isinstance(outcome, RuntimeError) else "finished"
        self.outcome = outcome
        for callback in self.callbacks:
            callback(self)

    def result(self, timeout: float) -> PartOutcome:
        assert timeout > 0
        if isinstance(self.outcome, TimeoutError):
            raise self.outcome
        assert isinstance(self.outcome, PartOutcome)
        return self.outcome

    def exception(self) -> RuntimeError:
        assert isinstance(self.outcome, RuntimeError)
        return self.outcome

    def cancel(self) -> None:
        self.status = "cancelled"


class FakeClient:
    """A cluster whose workers answer at once, by a function of worker and partition.

    `workers` has for each what it says when it is asked whether it can run the campaign, or only why it cannot.
    """

    def __init__(
        self,
        workers: Mapping[str, str | WorkerAnswer | Exception | None],
        answer: Callable[[FakeClient, str, int], Answer],
    ) -> None:
        self.answers = dict(workers)
        self.answer = answer
        self.status, self.scheduler = "running", "first"
        self.asked: dict[int, list[str]] = defaultdict(list)
        self.plugins: dict[str, SessionPlugin] = {}
        self.resources: set[Any] = set()

    def scheduler_info(self) -> dict[str, str]:
        return {"address": "tcp://fake", "id": self.scheduler}

    def register_plugin(self, plugin: SessionPlugin, name: str) -> None:
        assert plugin.answer is None
        self.plugins[name] = plugin

    def unregister_worker_plugin(self, name: str) -> None:
        del self.plugins[name]

    def nthreads(self) -> dict[str, int]:
        if self.status != "running":
            raise TimeoutError
        return dict.fromkeys(self.answers, 1)

    def run(
        self, _: object, plugin: str, *, workers: list[str], on_error: str
    ) -> dict[str, WorkerAnswer | Exception | None]:
        assert on_error == "return"
        assert plugin in self.plugins
        found = {worker: self.answers[worker] for worker in workers}
        return {
            worker: WorkerAnswer(refusal=answer, is_unfit_machine=True) if isinstance(answer, str) else answer
            for worker, answer in found.items()
        }

    def submit(
        self, _: object, __: object, part: int, *, workers: list[str], resources: object, **options: bool
    ) -> FakeFuture:
        assert options == {"allow_other_workers": False, "pure": False}
        self.resources.add(str(resources))
        (worker,) = workers
        self.asked[part].append(worker)
        future = FakeFuture()
        outcome = self.answer(self, worker, part)
        if outcome is not None:
            future.finish(outcome)
        return future

    def cancel(self, futures: list[FakeFuture]) -> None:
        for future in futures:
            future.cancel()


def made(worker: str, part: int) -> PartOutcome:
    return PartOutcome(part=part, state="made", host=worker)


def run_fake(
    campaign: Campaign, client: FakeClient, *, retries: int = 3
) -> tuple[list[PartOutcome], list[str], list[int]]:
    log: list[str] = []
    advanced: list[int] = []
    maker = DaskMaker(campaign=campaign, client=cast("Client", client), log=log.append, retries=retries)
    outcomes = list(maker.make(range(campaign.plan.n_parts), advanced.append))
    assert client.plugins == {}
    return outcomes, log, advanced
