"""
A validated sample, and an overlay
==================================

From nothing to a sample of background that has been looked at, compared with a simulation, and added to a signal.
It takes one to two minutes on one core, without a GPU and without PyTorch.

You need a checkout, and there ``pip install '.[cpu,parquet,plot,validate]'``. Lines after a dollar sign are typed in a
shell; this page runs them by a little function, ``run``.
"""


# %%
# Generate
# --------
#
# Twelve events of the built-in model, a stand-in for the collaboration's IEA-GAN. With a graph of your own
# checkpoint, add ``--model graphs/mine.onnx``.

# sphinx_gallery_start_ignore
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pxdbg_runtime

CHECKOUT = Path(pxdbg_runtime.__file__).resolve().parent.parent
folder = tempfile.TemporaryDirectory()  # sphinx-gallery starts each block in the folder of this file


def run(command):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(CHECKOUT), "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(shlex.split(command), cwd=folder.name, env=environment, capture_output=True, text=True)
    print(f"$ {command}\n{done.stdout}" + ("" if done.returncode == 0 else done.stderr))
    done.check_returncode()


# sphinx_gallery_end_ignore

run("pxdbg generate --events 12 --seed 7 --output background.parquet")

# %%
# The file says how its digits were generated. Its events can be read one after another, or at once.

# sphinx_gallery_start_ignore
os.chdir(folder.name)
# sphinx_gallery_end_ignore
import pxdbg_runtime

sample = pxdbg_runtime.open("background.parquet")
print(sample.jobs[0].model, sample.jobs[0].precision, sample.jobs[0].seed, sample.jobs[0].nature)
events = list(sample)
print([len(each) for each in events], "digits")

# %%
# Look
# ----
#
# One event: every hit at its cell, coloured by its charge.

from pxdbg_runtime.plots.event_display import draw_event

figure = draw_event(events[0], title="stand-in of IEA-GAN, seed 7, event 0")

# %%
# The mean occupancy of each sensor, beside what Geant4 gives: the published means of 10,000 events.

import json

import numpy as np

from pxdbg_runtime.plots.figures import draw_charges, draw_occupancies

published = json.loads((CHECKOUT / "docs" / "geant4-occupancies.json").read_text())
geant4 = np.array(published["occupancies"])
occupancies = draw_occupancies(events, reference=geant4, reference_name="Geant4, published", title="twelve events")

# %%
# Validate
# --------
#
# A reference of digits says more than means: clusters, charges hit by hit, whole images. Simulated events of the
# real detector are not public. The checkout has a crude simulation of clusters, fitted to the published
# histograms; in its place give your own sample of simulated background.

run("python -m artifacts.standins simulate --events 12 --seed 1 --output simulation.parquet")
run("pxdbg validate background.parquet --reference simulation.parquet --report report.html")

# %%
# ``report.html`` has all figures; what each number means is in :doc:`validation </validation>`. The means agree within
# a few percent. A classifier nevertheless tells every image of this stand-in from a simulated one: it is no substitute
# for the physics.

# sphinx_gallery_start_ignore
os.chdir(folder.name)
# sphinx_gallery_end_ignore
spectrum = draw_charges(events, label="generated")
simulated = list(pxdbg_runtime.open("simulation.parquet"))
spectrum = draw_charges(simulated, label="simulated", axes=spectrum, title="charge spectrum, twelve events each")

# %%
# Overlay
# -------
#
# Background is added to a signal. Here the signal is a made-up particle that crosses one sensor under a small angle: a
# line of 300 cells of 60 ADU. Where a background digit is in a cell of the signal, the charges add up: the digits are
# then fewer than those of both.

from pxdbg_runtime import Digits, overlay, sensor_of

cells = np.arange(300)
sensor_id = sensor_of("1.4.1").vxd_id
signal = Digits(
    event=np.zeros(300, np.int64),
    sensor_id=np.full(300, sensor_id, np.uint16),
    u_cell=(100 + cells // 8).astype(np.uint16),
    v_cell=(250 + cells).astype(np.uint16),
    charge=np.full(300, 60, np.uint8),
)
both = overlay(signal, events[0])
print(f"{len(signal)} and {len(events[0])} digits give {len(both)}")

# %%
# The part of the sensor around the particle, without and with background:

from matplotlib.figure import Figure

figure = Figure(figsize=(9, 5.4), layout="constrained")
rows = figure.subplots(2, 1, sharex=True)
for axes, digits, title in zip(rows, (signal, both), ("signal", "signal and background"), strict=True):
    chosen = digits.sensor_id == sensor_id
    image = np.zeros((250, 768))
    image[digits.u_cell[chosen], digits.v_cell[chosen]] = digits.charge[chosen]
    shown = axes.imshow(image, origin="lower", vmax=120, cmap="magma", interpolation="nearest", aspect="auto")
    axes.set(title=title, ylabel="u cell", xlim=(240, 400), ylim=(95, 125))
rows[1].set_xlabel("v cell")
colours = figure.colorbar(shown, ax=rows, label="charge (ADU)")

# %%
# Files do the same: ``pxdbg overlay signal.parquet background.parquet --output both.parquet`` (:doc:`overlay
# </overlay>`). Overlay files for basf2 are described in :doc:`overlay files </overlay-files>`.
#
# Where to go on
# --------------
#
# - :doc:`Run a production </production-on-a-grid>` of many such files.
# - :doc:`Export your checkpoint </export>`.
# - :doc:`Is this for production? </is-this-for-production>`

# sphinx_gallery_start_ignore
os.chdir(CHECKOUT)
folder.cleanup()
# sphinx_gallery_end_ignore
