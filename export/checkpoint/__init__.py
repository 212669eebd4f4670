"""Load checkpoints of PyTorch; the error of a file that cannot be loaded states the reason in one sentence.

`archives` reads the file, `pickles` the part of it that could contain code, `file_kinds` recognises other files,
`state_dicts` finds the state dict of the generator, `norms` folds spectral and weight norm, and `loading` checks the
weights.
"""

from __future__ import annotations

from export.checkpoint.archives import read_archive
from export.checkpoint.loading import load_checkpoint, load_with_path
from export.checkpoint.state_dicts import TOP

__all__ = ["TOP", "load_checkpoint", "load_with_path", "read_archive"]
