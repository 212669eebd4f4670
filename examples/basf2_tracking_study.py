"""Study of tracking: the same BBbar events with generated PXD background, with simulated, and with none in the PXD.

    PXDBG_BACKGROUND=generated PXDBG_OUTPUT=generated.root basf2 examples/basf2_tracking_study.py -n 1000
    PXDBG_BACKGROUND=simulated PXDBG_OUTPUT=simulated.root basf2 examples/basf2_tracking_study.py -n 1000
    PXDBG_BACKGROUND=none PXDBG_OUTPUT=none.root basf2 examples/basf2_tracking_study.py -n 1000

PXDBG_CHECKPOINT is the path of your graph (python -m export; docs/export.md), PXDBG_OVERLAY that of an overlay file.
The background of all other detectors is that of the overlay file in all three jobs; only the PXD digits of the
background differ. `simulated` keeps those of the file, `none` removes them.

The comparison is examples/compare_helices.py. It reads tables of the helix parameters, which your own code has to
write: see the marked place below. This file never ran in a release.
"""

from __future__ import annotations

import os

import basf2
import ROOT
from generators import add_evtgen_generator
from mdst import add_mdst_output
from reconstruction import add_reconstruction

from pxdbg_runtime.basf2 import PXDBackgroundGenerator, inject_simulation


class PXDBackgroundRemover(basf2.Module):
    """Removes the PXD digits that BGOverlayInput has read."""

    def initialize(self) -> None:
        """Find the array of the digits."""
        belle2 = ROOT.Belle2
        background_info = belle2.PyStoreObj("BackgroundInfo", belle2.DataStore.c_Persistent)
        self.array = belle2.PyStoreArray(
            belle2.PXDDigit.Class(), "PXDDigits" + str(background_info.obj().getExtensionName())
        )
        self.array.registerInDataStore(belle2.DataStore.c_DontWriteOut)

    def event(self) -> None:
        """Remove the digits of the event."""
        self.array.getPtr().Delete()


background = os.environ["PXDBG_BACKGROUND"]
if background == "generated":
    # Seed and event numbers fix the generated background, in whatever order the events come.
    module = PXDBackgroundGenerator("resnet", checkpoint="$PXDBG_CHECKPOINT")
elif background == "simulated":
    module = None
elif background == "none":
    module = PXDBackgroundRemover()
else:
    basf2.B2FATAL(f"PXDBG_BACKGROUND must be generated, simulated or none, but is {background}.")
add_simulation = inject_simulation(module)

basf2.set_random_seed("pxdbg tracking study")  # the same in all jobs
path = basf2.create_path()
path.add_module("EventInfoSetter", expList=[1003], runList=[0], evtNumList=[10])
add_evtgen_generator(path, finalstate="mixed")
add_simulation(path, bkgfiles=[os.environ["PXDBG_OVERLAY"]])
add_reconstruction(path)

# ---- YOUR PLACE ----------------------------------------------------------------------------------------------------
# Add here, or in a job of its own that reads the mdst file, what writes the helix parameters of the tracks in the way
# your group does it: one row for each track that was matched to a generated charged particle, as CSV with the columns
# event, particle, d0, phi0, omega, z0, tan_lambda. `event` and `particle` (your number of the particle within its
# event) must identify the same particle in all jobs: check that the generated particles are the same, as seed and event
# numbers are. The names of modules and variables for that are not given here, because none was tried.
# --------------------------------------------------------------------------------------------------------------------

add_mdst_output(path, filename=os.environ["PXDBG_OUTPUT"])
basf2.process(path)
