"""The layout of digits in HDF5.

As in the files of the CaloChallenge, the datasets lie in the root group, have the event along their first axis, and are
compressed by gzip. Those files store every voxel of a shower; of the PXD's pixels one in a hundred has a charge, so
that this one stores a sparse event:

======================================= ========= =============== ==================================================
dataset                                 type      shape           content
======================================= ========= =============== ==================================================
``event``                               int64     (events,)       numbers of all events, those without digits too
``offset``                              int64     (events + 1,)   the digits of event i are offset[i] to offset[i + 1]
``sensor_id``, ``u_cell``, ``v_cell``   uint16    (digits,)       as in `Digits`
``charge``                              uint8     (digits,)       ADU
======================================= ========= =============== ==================================================

Chunks are shuffled, compressed, and have a Fletcher-32 checksum. The metadata and the digest are attributes of the root
group, ``pxdbg`` and ``pxdbg_digest``. To read an event with h5py::

    start, stop = file["offset"][i : i + 2]
    charge = file["charge"][start:stop]

The version of the format is that of HDF5 1.10, whose own structures have checksums.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from pxdbg_runtime.digits import COLUMN_DTYPES

__all__ = ["DIGIT_COLUMNS", "EVENT", "OFFSET", "OFFSET_DTYPE"]

EVENT: Final = "event"
OFFSET: Final = "offset"
OFFSET_DTYPE: Final = np.dtype(np.int64)
DIGIT_COLUMNS: Final = tuple(name for name in COLUMN_DTYPES if name != EVENT)
"""Datasets with an element for each digit."""
