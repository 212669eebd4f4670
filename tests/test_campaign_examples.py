"""The examples that give the partitions of a campaign to batch systems, each run with what stands for the system."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import pytest

from pxdbg_runtime.campaigns import find_work
from tests.campaigns import plan_campaign
from tests.test_command_line import invoke

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pxdbg_runtime.campaigns import Campaign
    from pxdbg_runtime.model.graph_file import GraphFile

EXAMPLES: Final = Path(__file__).resolve().parent.parent / "examples"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="these systems run on Linux")


@pytest.fixture
def campaign(latent_graph: GraphFile, tmp_path: Path) -> Campaign:
    return plan_campaign(tmp_path / "bg", latent_graph, events=4)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put commands first in PATH that write down their arguments and end with the exit code PXDBG_CODE."""
    folder = tmp_path / "bin"
    folder.mkdir()
    log = tmp_path / "log"
    log.touch()
    for name, action in (("pxdbg", 'exit "${PXDBG_CODE:-0}"'), ("scontrol", "exit 0")):
        script = folder / name
        script.write_text(f'#!/bin/sh\necho {name} "$@" >> {shlex.quote(str(log))}\n{action}\n', encoding="utf-8")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("PXDBG_CODE", raising=False)
    return log


def run_logged(commands: Path) -> list[list[str]]:
    """Run what was written down in this process; returns the arguments."""
    lines = [shlex.split(line) for line in commands.read_text(encoding="utf-8").splitlines()]
    for name, *arguments in lines:
        assert name == "pxdbg"
        assert invoke(*arguments).exit_code == 0
    return [arguments for _, *arguments in lines]


def read_sections(path: Path) -> dict[str, str]:
    """Read a submit file of HTCondor: the values, and the number of jobs under "queue"."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    pairs = [re.split(r"\s*=\s*|\s+", line, maxsplit=1) for line in lines]
    return dict(pairs)


def test_slurm_makes_the_partition_of_the_task(campaign: Campaign, commands: Path) -> None:
    script = EXAMPLES / "campaign_slurm.sh"
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": "1", "SLURM_JOB_ID": "42"}
    assert subprocess.run([script, campaign.folder], env=environment).returncode == 0
    assert run_logged(commands) == [["campaign", "part", "1", str(campaign.folder)]]
    assert find_work(campaign, compare_hash=True)[0] == [0]


@pytest.mark.parametrize(
    ("code", "restarts", "expected", "is_requeued"),
    [(1, 0, 1, False), (75, 0, 0, False), (78, 0, 78, True), (78, 3, 78, False)],
)
def test_slurm_acts_on_the_exit_codes(
    commands: Path, code: int, restarts: int, expected: int, is_requeued: bool
) -> None:
    numbers = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_JOB_ID": "42", "SLURM_RESTART_COUNT": str(restarts)}
    environment = {**os.environ, **numbers, "PXDBG_CODE": str(code)}
    done = subprocess.run([EXAMPLES / "campaign_slurm.sh", "bg"], env=environment)
    assert done.returncode == expected
    assert ("scontrol requeue 42" in commands.read_text(encoding="utf-8")) == is_requeued


def test_htcondor_queues_a_job_for_each_partition(campaign: Campaign, commands: Path) -> None:
    submit = read_sections(EXAMPLES / "campaign_htcondor.sub")
    assert submit["queue"] == "$(parts)"
    assert (submit["transfer_executable"], submit["request_cpus"], submit["max_retries"]) == ("false", "1", "3")
    for process in range(campaign.plan.n_parts):
        arguments = submit["arguments"].strip('"')
        arguments = arguments.replace("$(Process)", str(process)).replace("$(campaign)", str(campaign.folder))
        assert "$(" not in arguments
        assert subprocess.run([submit["executable"], *shlex.split(arguments)]).returncode == 0
    assert len(run_logged(commands)) == 2
    assert find_work(campaign, compare_hash=True)[0] == []


def test_snakemake_makes_the_record_of_each_partition(campaign: Campaign, commands: Path) -> None:
    text = (EXAMPLES / "campaign_snakemake.smk").read_text(encoding="utf-8")
    head, _, rules = text.partition("\n\n\nrule ")
    names: dict[str, Any] = {"config": {"campaign": str(campaign.folder)}}
    exec(head, names)  # the part of the file that is Python
    assert names["PARTS"] == ["000000", "000001"]
    shell = re.search(r'shell:\s+"(.*)"', rules)
    outputs = re.findall(r'"(\{campaign\}/part-\{part\}\.json)"', rules)
    assert shell is not None
    assert len(outputs) == 2
    for part in names["PARTS"]:
        wildcards = SimpleNamespace(part=part, campaign=campaign.folder)
        assert subprocess.run(shell[1].format(wildcards=wildcards), shell=True).returncode == 0
    assert run_logged(commands)[1] == ["campaign", "part", "000001", str(campaign.folder)]
    assert all(Path(outputs[0].format(campaign=campaign.folder, part=part)).exists() for part in names["PARTS"])
    assert find_work(campaign, compare_hash=True)[0] == []


class StandInTask:
    """A task as b2luigi's: parameters are set by name."""

    def __init__(self, **parameters: object) -> None:
        vars(self).update(parameters)

    def requires(self) -> Iterable[StandInTask]:
        return ()

    def run(self) -> None:
        pass

    def output(self) -> Any:  # noqa: ANN401
        return None


def run_tasks(task: StandInTask, **options: object) -> None:
    """Run a task after those that it requires, as b2luigi does, unless its output exists."""
    assert options == {"workers": 100, "batch": True}
    for each in task.requires():
        run_tasks(each, **options)
    target = task.output()
    if target is None or not Path(target).exists():
        task.run()


def test_b2luigi_makes_what_has_no_record(campaign: Campaign, commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in: Any = ModuleType("b2luigi")
    stand_in.Task = stand_in.WrapperTask = StandInTask
    stand_in.Parameter = stand_in.IntParameter = lambda: None
    stand_in.LocalTarget = Path
    stand_in.process = run_tasks
    monkeypatch.setitem(sys.modules, "b2luigi", stand_in)
    monkeypatch.setattr(sys, "argv", ["campaign_b2luigi.py", str(campaign.folder)])
    for _ in range(2):
        runpy.run_path(str(EXAMPLES / "campaign_b2luigi.py"), run_name="__main__")
        assert run_logged(commands) == [["campaign", "part", str(part), str(campaign.folder)] for part in range(2)]
    assert find_work(campaign, compare_hash=True)[0] == []
