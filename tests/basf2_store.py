"""Runs paths on the double of basf2, and reads the digits that ROOT holds at their end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime import Digits
from pxdbg_runtime.basf2 import Specs, add_simulation

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

_READER: Final = """
namespace pxdbg_tests {
  void read_digits(const TClonesArray& digits, unsigned short* values) {
    for (int i = 0; i < digits.GetEntriesFast(); ++i) {
      const auto& digit = static_cast<const Belle2::PXDDigit&>(*digits.At(i));
      for (unsigned short value :
           {digit.getSensorID().getID(), digit.getUCellID(), digit.getVCellID(), digit.getCharge()})
        *values++ = value;
    }
  }
}
"""

PARALLEL: Final = """
import json
import sys
from pathlib import Path
import numpy as np
import basf2
from pxdbg_runtime.basf2 import Specs, add_pxd_background_generator, add_simulation
from tests.basf2_store import process_events, reader

folder, graph = Path(sys.argv[1]), sys.argv[2]
# PyROOT compiles a function when it is called first: in one process here, not in each of the forks.
process_events(basf2, Specs(model="resnet", checkpoint=graph, seed=7), {(1003, 5): 1})
basf2.set_nprocesses(2)
for kind, stream in (("simulation", "philox"), ("path", "philox"), ("simulation", "torch"), ("path", "torch")):
    job = folder / f"{kind}-{stream}"
    job.mkdir()
    basf2.logged.clear()
    path = basf2.create_path()
    path.add_module("EventInfoSetter", expList=[1003], runList=[5], evtNumList=[4])
    specs = Specs(model="resnet", checkpoint=graph, seed=7, random_stream=stream)
    if kind == "simulation":
        add_simulation(path, bkgfiles=["overlay.root"], pxd_background_generator=specs)
    else:
        path.add_module("BGOverlayInput", inputFileNames=["overlay.root"])
        add_pxd_background_generator(path, specs)
    path.add_module(reader(basf2, lambda at, digits: np.save(job / f"{at[2]}.npy", digits.to_structured())))
    before, workers, after = ([module.name() for module in stage] for stage in basf2.split_path(path.modules()))
    basf2.process(path)
    warnings = [text for level, text in basf2.logged if level == "WARNING"]
    found = {"before": before, "workers": workers, "after": after, "warnings": warnings}
    (job / "job.json").write_text(json.dumps(found))
"""
"""Four jobs with two parallel processes each; arguments: a folder for what is found, and a graph."""


def read_store(root: ModuleType, array: object, event: int = 0) -> Digits:
    """Read a TClonesArray of PXDDigit."""
    if not hasattr(root, "pxdbg_tests"):
        assert root.gInterpreter.Declare(_READER)
    n_digits: int = array.GetEntriesFast()  # type: ignore[attr-defined]  # of ROOT
    table = np.empty((n_digits + 1, 4), dtype=np.uint16)  # PyROOT makes no pointer of an empty array
    root.pxdbg_tests.read_digits(array, table)
    table = table[:n_digits]
    sensor_id, u_cell, v_cell, charge = (np.ascontiguousarray(column) for column in table.T)
    assert np.all(charge < 256)
    return Digits(
        event=np.full(n_digits, event, dtype=np.int64),
        sensor_id=sensor_id,
        u_cell=u_cell,
        v_cell=v_cell,
        charge=charge.astype(np.uint8),
    )


def reader(
    basf2: ModuleType, take: Callable[[tuple[int, int, int], Digits], None], *, extension: str = "_beamBG"
) -> object:
    """Make a module that takes the numbers of each event and its digits out of the data store."""
    root = basf2.ROOT

    class Reader(basf2.Module):  # type: ignore[name-defined,misc]  # known at run time alone
        def __init__(self) -> None:
            super().__init__()
            self.set_property_flags(basf2.ModulePropFlags.PARALLELPROCESSINGCERTIFIED)

        def initialize(self) -> None:
            self.event_meta_data = root.Belle2.PyStoreObj("EventMetaData")
            self.array = root.Belle2.PyStoreArray(root.Belle2.PXDDigit.Class(), "PXDDigits" + extension)
            self.array.isRequired()

        def event(self) -> None:
            of = self.event_meta_data.obj()
            take((of.getExperiment(), of.getRun(), of.getEvent()), read_store(root, self.array.getPtr()))

    return Reader()


def build_path(basf2: ModuleType, specs: Specs, runs: dict[tuple[int, int], int]) -> object:
    """Make a path with so many events in each (experiment, run)."""
    path = basf2.create_path()
    experiments, run_numbers = zip(*runs, strict=True)
    path.add_module("EventInfoSetter", expList=experiments, runList=run_numbers, evtNumList=list(runs.values()))
    add_simulation(path, bkgfiles=["overlay.root"], pxd_background_generator=specs)
    return path


def process_events(
    basf2: ModuleType, specs: Specs, runs: dict[tuple[int, int], int]
) -> dict[tuple[int, int, int], Digits]:
    """Run a path, and return the digits of each event."""
    found: dict[tuple[int, int, int], Digits] = {}
    path = build_path(basf2, specs, runs)
    path.add_module(reader(basf2, found.__setitem__))  # type: ignore[attr-defined]  # of the double
    basf2.process(path)
    return found


def find_messages(basf2: ModuleType, level: str) -> list[str]:
    return [text.removeprefix("PXDBackgroundGenerator: ") for each, text in basf2.logged if each == level]
