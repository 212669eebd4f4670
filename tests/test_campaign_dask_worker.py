"""What a worker of Dask does for a campaign: one session, answers in text, and reasons why it cannot run it."""

from __future__ import annotations

import asyncio
import platform
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from pxdbg_runtime.campaigns import dask_worker, open_generator
from pxdbg_runtime.campaigns.dask_worker import (
    GPU_RESOURCE,
    SessionPlugin,
    WorkerAnswer,
    make_part_on_worker,
    read_answer,
)
from pxdbg_runtime.limits.address_space import estimate_process_memory
from tests.campaigns import change_plan, plan_campaign

if TYPE_CHECKING:
    from pathlib import Path

    from pxdbg_runtime import Generator
    from pxdbg_runtime.campaigns import Campaign
    from pxdbg_runtime.model.graph_file import GraphFile

pytest.importorskip("distributed")


@pytest.fixture
def campaign(latent_graph: GraphFile, tmp_path: Path) -> Campaign:
    return plan_campaign(tmp_path / "bg", latent_graph)


def set_up(campaign: Campaign, **resources: float) -> tuple[SessionPlugin, Any]:
    key = str(campaign.folder), campaign.plan_sha256, False
    plugin = SessionPlugin(key, is_local=False)
    worker: Any = SimpleNamespace(state=SimpleNamespace(total_resources=resources), plugins={"it": plugin})
    asyncio.run(plugin.setup(worker))
    return plugin, worker


def test_a_worker_keeps_one_session_and_answers_in_text(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def count(campaign: Campaign, *, allow_mixed_hardware: bool) -> Generator:
        opened.append(allow_mixed_hardware)
        return open_generator(campaign, allow_mixed_hardware=allow_mixed_hardware)

    monkeypatch.setattr(dask_worker, "open_generator", count)
    plugin, worker = set_up(campaign)
    key = str(campaign.folder), campaign.plan_sha256, False
    assert read_answer("it", worker) == WorkerAnswer()
    with pytest.raises(LookupError, match="did not get the campaign"):
        read_answer("another", worker)
    assert [make_part_on_worker(key, part).state for part in (0, 1, 1)] == ["made", "made", "complete"]
    assert opened == [False]
    campaign.digits_path(2).mkdir()
    outcome = make_part_on_worker(key, 2)
    assert (outcome.state, "is a folder" in outcome.reason) == ("failed", True)
    plugin.teardown(worker)
    assert make_part_on_worker(key, 3).state == "made"
    assert len(opened) == 2
    plugin.teardown(worker)


def ask(campaign: Campaign, **resources: float) -> WorkerAnswer:
    _, worker = set_up(campaign, **resources)
    answer = read_answer("it", worker)
    assert answer is not None
    return answer


def test_a_worker_refuses_what_its_machine_cannot_run(campaign: Campaign) -> None:
    on_gpu = change_plan(campaign, provider="CUDAExecutionProvider")
    without_gpu, other_gpu = ask(on_gpu), ask(on_gpu, **{GPU_RESOURCE: 1.0})
    other = ask(change_plan(campaign, machine=replace(campaign.plan.machine, onnxruntime="1.0.0")))
    assert "start it with dask worker --resources GPU=1" in without_gpu.refusal
    assert "are not known to be those of the plan" in other_gpu.refusal
    assert "onnxruntime: 1.0.0 in the plan" in other.refusal
    assert all(answer.is_unfit_machine for answer in (without_gpu, other_gpu, other))


def test_another_plan_graph_or_folder_is_no_fault_of_the_machine(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = campaign.graph_path.read_bytes()
    campaign.graph_path.write_bytes(content[:-1])
    answers = [ask(campaign)]
    assert "it was replaced. Put the planned graph back." in answers[-1].refusal
    campaign.graph_path.write_bytes(content)
    folder = campaign.folder.rename(campaign.folder.with_name("moved"))
    answers.append(ask(campaign))
    seen = f"{campaign.folder} is not visible on {platform.node()} under this path: share the folder"
    assert seen in answers[-1].refusal
    folder.rename(campaign.folder)
    change_plan(campaign, seed=8)
    answers.append(ask(campaign))
    assert "has another plan on " in answers[-1].refusal
    monkeypatch.setattr(dask_worker, "open_campaign", lambda _: 1 / 0)
    answers.append(ask(campaign))
    assert answers[-1].refusal == "ZeroDivisionError: division by zero"
    assert not any(answer.is_unfit_machine for answer in answers)


def test_the_memory_of_a_worker_grows_with_its_work() -> None:
    small = estimate_process_memory("int8", 1, 5000, 10**7)
    assert 600e6 < small < 1200e6
    assert estimate_process_memory("int8", 2, 5000, 10**7) - small == 40_000_000
    assert estimate_process_memory("int8", 1, 5000, 2 * 10**7) - small == 20_000_000
