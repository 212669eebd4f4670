"""Checkpoints: a file becomes one of the models, or one sentence says why not.

`archives` reads the file, `pickles` the part of it that could carry code, `file_kinds` names what is no checkpoint,
`state_dicts` finds the generator among what a training program saved, `norms` folds spectral and weight norm, and
`weights` checks each value.
"""

from __future__ import annotations

from export.checkpoint.archives import read_archive
from export.checkpoint.loading import load_checkpoint

__all__ = ["load_checkpoint", "read_archive"]
