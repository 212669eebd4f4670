"""The same path as basf2_background.py, with the argument pxd_background_generator of development states of basf2.

basf2 examples/basf2_specs.py -n 100
"""

from __future__ import annotations

import os

import basf2
from generators import add_evtgen_generator
from mdst import add_mdst_output
from reconstruction import add_reconstruction

from pxdbg_runtime.basf2 import Specs, add_simulation

specs = Specs(model="resnet", checkpoint="$PXDBG_CHECKPOINT")

basf2.set_random_seed("pxdbg example")
path = basf2.create_path()
path.add_module("EventInfoSetter", expList=[1003], runList=[0], evtNumList=[10])
add_evtgen_generator(path, finalstate="mixed")
add_simulation(path, bkgfiles=[os.environ["PXDBG_OVERLAY"]], pxd_background_generator=specs)
add_reconstruction(path)
add_mdst_output(path, filename="bbbar.root")
basf2.process(path)
