"""BBbar events with generated PXD background, in the form of the releases: generate, simulate, reconstruct.

    basf2 examples/basf2_background.py -n 100

PXDBG_CHECKPOINT is the path of your graph (python -m export; docs/export.md), PXDBG_OVERLAY that of an overlay file,
whose PXD digits are replaced and whose other detectors' background stays.
"""

from __future__ import annotations

import os

import basf2
from generators import add_evtgen_generator
from mdst import add_mdst_output
from reconstruction import add_reconstruction

from pxdbg_runtime.basf2 import PXDBackgroundGenerator, inject_simulation

module = PXDBackgroundGenerator("resnet", checkpoint="$PXDBG_CHECKPOINT")
add_simulation = inject_simulation(module)

basf2.set_random_seed("pxdbg example")
path = basf2.create_path()
path.add_module("EventInfoSetter", expList=[1003], runList=[0], evtNumList=[10])
add_evtgen_generator(path, finalstate="mixed")
add_simulation(path, bkgfiles=[os.environ["PXDBG_OVERLAY"]])
add_reconstruction(path)
add_mdst_output(path, filename="bbbar.root")
basf2.process(path)
