"""Numbers of experiment and run, which overlay files for basf2 record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pxdbg_runtime.checks import check_integer
from pxdbg_runtime.errors import ArgumentValueError

__all__ = ["MAX_EXPERIMENT", "MAX_RUN", "RunNumbers", "choose_run_numbers"]

MAX_EXPERIMENT: Final = (1 << 11) - 1
MAX_RUN: Final = (1 << 20) - 1
"""The largest numbers that the basf2 module here accepts too (docs/basf2.md)."""
_RUN_DEPENDENT: Final = range(1, 1000)
"""Experiments whose jobs take background of their own run alone; 0 and those from 1000 on are run-independent."""


@dataclass(frozen=True, kw_only=True)
class RunNumbers:
    """The experiment and the run that all events of an overlay file belong to.

    Attributes
    ----------
    experiment : int
        0 to 2047. A job of BGOverlayInput must have the same.
    run : int
        0 to 2^20 - 1. A job of the experiments 1 to 999 must have the same; 0 in all other experiments.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a number is no integer or too large, or the run is not 0 although the experiment is run-independent.
    """

    experiment: int
    run: int = 0

    def __post_init__(self) -> None:
        check_integer("experiment", self.experiment, 0, MAX_EXPERIMENT)
        check_integer("run", self.run, 0, MAX_RUN)
        if self.run and self.experiment not in _RUN_DEPENDENT:
            message = (
                f"Experiment {self.experiment} is run-independent: expected run 0, but got {self.run}. Leave the run "
                "out, or choose one of the experiments 1 to 999."
            )
            raise ArgumentValueError("run", message)


def choose_run_numbers(format_name: str | None, experiment: int | None, run: int | None) -> RunNumbers | None:
    """Check the options ``--experiment`` and ``--run`` of a command that writes a file.

    Parameters
    ----------
    format_name : str or None
        Name of the format to write.
    experiment, run : int or None
        None if the option was not given.

    Returns
    -------
    RunNumbers or None
        None for formats that do not record them.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If the format needs a number that was not given, or does not record one that was; as `RunNumbers`.
    """
    if format_name != "overlay":
        for name, number in (("experiment", experiment), ("run", run)):
            if number is not None:
                message = f"--{name} {number} is recorded by overlay files only: add --format overlay."
                raise ArgumentValueError(name, message)
        return None
    if experiment is None:
        message = (
            "An overlay file needs --experiment, the experiment number of the basf2 jobs that read it, such as "
            "--experiment 1003 for run-independent simulation."
        )
        raise ArgumentValueError("experiment", message)
    if run is None and experiment in _RUN_DEPENDENT:
        message = (
            f"Experiment {experiment} is run-dependent, and basf2 uses the overlay files of a job's own run alone: "
            "add --run with its number."
        )
        raise ArgumentValueError("run", message)
    return RunNumbers(experiment=experiment, run=run or 0)
