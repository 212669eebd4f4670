"""Run cases in a process of their own, with a watchdog for each: a hang and a crash are failures, too."""

from __future__ import annotations

import itertools
import multiprocessing
import shutil
import sys
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from tests.fuzz.cases import ENDINGS, FAILURES, Case, read_samples, run_cases

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess
    from pathlib import Path

    from tests.fuzz.reader import Reader

__all__ = ["Plan", "Tally", "fuzz"]

START_S: Final = 600.0
"""For the imports and the sound files."""
MAX_ALIKE: Final = 3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run of a reader.

    Attributes
    ----------
    name : str
        Of the reader.
    build : callable
        Builds it in a folder; it is pickled, and each worker imports its module.
    seed, first : int
        The cases are those of the seed from this number on.
    cases : int or None
        Number of cases; None if only the time ends them.
    time_s : float
        Time from the first case on after which no further case starts.
    case_limit_s : float
        Time that a case may take.
    """

    name: str
    build: Callable[[Path], Reader]
    seed: int
    first: int = 0
    cases: int | None = None
    time_s: float = float("inf")
    case_limit_s: float = 120.0


@dataclass(kw_only=True)
class Tally:
    """Outcomes of a reader: how many of each kind, the longest case in seconds, and failures with their files.

    Of failures that are alike only the first few are kept.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0
    used_s: float = 0.0
    failures: list[tuple[str, Path]] = field(default_factory=list)
    _alike: Counter[str] = field(default_factory=Counter)

    @property
    def n_cases(self) -> int:
        """Number of cases."""
        return self.kinds.total()


def fuzz(plan: Plan, folder: Path, saved: Path) -> Tally:
    """Run the cases of a plan; failing files are copied to `saved`.

    Parameters
    ----------
    plan : Plan
    folder : Path
        Of the files that are read; emptied before.
    saved : Path
    """
    tally = Tally()
    number = plan.first
    last = None if plan.cases is None else plan.first + plan.cases
    while (last is None or number < last) and tally.used_s < plan.time_s:
        number = _watch_worker(plan, number, last, folder, (tally, saved))
    return tally


def _watch_worker(plan: Plan, number: int, last: int | None, folder: Path, report: tuple[Tally, Path]) -> int:
    """Run cases in one process until it fails or all are done; returns the number of the next case."""
    tally, saved = report
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    worker, ours = _start_worker(plan, number, last, folder)
    try:
        if not ours.poll(START_S) or ours.recv() != "ready":
            message = f"the reader {plan.name} did not start"
            raise RuntimeError(message)
        before = time.monotonic()
        while last is None or number < last:
            if tally.used_s > plan.time_s:
                break
            try:
                case = ours.recv() if ours.poll(plan.case_limit_s) else _end(number, "hang", f"{plan.case_limit_s:g} s")
            except EOFError:
                worker.join()
                case = _end(number, "crash", f"exit code {worker.exitcode}")
            now = time.monotonic()
            tally.longest_s, tally.used_s, before = max(tally.longest_s, now - before), tally.used_s + now - before, now
            tally.kinds[case.kind] += 1
            if case.kind in FAILURES:
                _save(plan, case, folder, (tally, saved))
            number += 1
            if case.kind in ENDINGS:
                break
            ours.send("next")
    finally:
        worker.kill()
        worker.join()
        ours.close()
    return number


def _start_worker(plan: Plan, first: int, last: int | None, folder: Path) -> tuple[BaseProcess, Connection]:
    # A server imports once what the first plan needs, and each worker is a fork of it.
    context: Any = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    context.set_forkserver_preload([getattr(plan.build, "func", plan.build).__module__])  # that of a partial's function
    ours, theirs = context.Pipe()
    worker = context.Process(target=_work, args=(plan, first, last, folder, theirs), daemon=True)
    worker.start()
    theirs.close()
    return worker, ours


def _work(plan: Plan, first: int, last: int | None, folder: Path, parent: Connection) -> None:
    """Run cases; each waits until its outcome was taken, so that its file is still there."""
    warnings.simplefilter("ignore")  # of libraries about damaged files
    reader = plan.build(folder)
    numbers = itertools.count(first) if last is None else range(first, last)
    expected = read_samples(reader, folder)
    parent.send("ready")
    for case in run_cases(reader, plan.name, plan.seed, numbers, folder, expected):
        parent.send(case)
        if parent.recv() != "next":
            return


def _end(number: int, kind: Literal["hang", "crash"], detail: str) -> Case:
    return Case(number=number, kind=kind, summary=detail)


def _save(plan: Plan, case: Case, folder: Path, report: tuple[Tally, Path]) -> None:
    tally, saved = report
    tally._alike[f"{case.kind} {case.summary}"] += 1
    if tally._alike[f"{case.kind} {case.summary}"] > MAX_ALIKE:
        return
    kept = saved / f"{plan.name}-{plan.seed}-{case.number}"
    kept.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_file():
            shutil.copy(path, kept)
    if case.detail:
        (kept / "detail.txt").write_text(case.detail, encoding="utf-8", errors="backslashreplace")
    tally.failures.append((f"case {case.number}, {case.kind}: {case.summary}", kept))
