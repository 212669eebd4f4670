"""Recognise files that are not checkpoints of PyTorch, and say what to do with them."""

from __future__ import annotations

import os
import zipfile
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["N_START", "SAVE_ALONE", "describe_file", "describe_folder", "describe_zip"]

N_START: Final = 512
"""Number of first bytes that identify the kind of a file; the mark of a tar archive is at 257."""
SAVE_ALONE: Final = "save the state dict alone, torch.save(model.state_dict(), path)"
"""Advice that helps with nearly every file."""
_EXPECTED: Final = "expected a file written by torch.save or safetensors"
_FROM_KERAS: Final = f"convert its weights to the PyTorch model and {SAVE_ALONE}"
_UNPACK: Final = "unpack it and give the checkpoint in it"
_CHECKPOINT_SUFFIXES: Final = (".pt", ".pth", ".ckpt", ".safetensors", ".bin")
_TAR_MARK_AT: Final = 257
_MAX_ONNX_IR_VERSION: Final = 0x1F

_KINDS: Final = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras and TensorFlow write them", _FROM_KERAS),
    (b"\x93NUMPY", "a NumPy array (.npy)", f"put its values into the PyTorch model and {SAVE_ALONE}"),
    (b"\x1f\x8b", "compressed with gzip", "decompress it first (gunzip)"),
    (b"BZh", "compressed with bzip2", "decompress it first (bunzip2)"),
    (b"\xfd7zXZ\x00", "compressed with xz", "decompress it first (unxz)"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "decompress it first (unzstd)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!", "a rar archive", _UNPACK),
    (b"\x89PNG", "a PNG picture", _EXPECTED),
    (b"\xff\xd8\xff", "a JPEG picture", _EXPECTED),
    (b"GIF8", "a GIF picture", _EXPECTED),
    (b"%PDF", "a PDF document", _EXPECTED),
    (b"\x7fELF", "a program or compiled library", _EXPECTED),
    (b"PAR1", "a Parquet file", _EXPECTED),
    (b"root", "a ROOT file", _EXPECTED),
    (b"GGUF", "a GGUF model", f"convert it to the PyTorch model and {SAVE_ALONE}"),
    (b"\x08\x01\x12", "a TensorFlow SavedModel", _FROM_KERAS),
    (
        b"version https://git-lfs.github.com/spec/",
        "a Git LFS pointer to the checkpoint",
        "fetch the file itself, git lfs pull",
    ),
    (
        b"/annex/objects/",
        "a git-annex pointer to the checkpoint",
        "fetch the file itself, git annex get",
    ),
)
"""First bytes, what the file is, and what to do."""
_COMPRESSIONS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""Those of zip archives that PyTorch's reader knows; other programs write others."""
_WEB_PAGES: Final = (b"<!doctype html", b"<html", b"<?xml", b"<head", b"<script")


def describe_folder(path: Path) -> str:
    """Describe a folder, and what to give instead."""
    try:
        inside = sorted(child.name for child in path.iterdir() if child.suffix in _CHECKPOINT_SUFFIXES)
    except OSError:
        inside = []
    if inside:
        more = f" or another of its {len(inside)}" if len(inside) > 1 else ""
        return f"is a folder: give a file in it, {inside[0]}{more}."
    if os.path.exists(path / ".metadata"):  # noqa: PTH110  # Path raises for a folder that may not be entered
        return (
            "is a folder of torch.distributed.checkpoint: convert it to one file first, python -m "
            "torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE."
        )
    return f"is a folder: {_EXPECTED}."


def describe_file(start: bytes) -> str:
    """Describe a file that neither torch.save nor safetensors wrote, from its first bytes."""
    if not start:
        return "is empty: it was not completely written or copied; create or fetch it again."
    for mark, kind, advice in _KINDS:
        if start.startswith(mark):
            return _write_sentence(kind, advice)
    if start[_TAR_MARK_AT:].startswith(b"ustar"):
        return _write_sentence("a tar archive", _UNPACK)
    if start[4:8] == b"TFL3":
        return _write_sentence("a TensorFlow Lite model", _FROM_KERAS)
    if start.lstrip().lower().startswith(_WEB_PAGES):
        return _write_sentence(
            "a web page, as after a download that failed", "download the file itself, logged in if need be"
        )
    is_version = start[:1] == b"\x08" and len(start) > 2 and 3 <= start[1] <= _MAX_ONNX_IR_VERSION
    if is_version and start[2:3] in b"\x12\x1a\x22\x28\x32\x3a\x42":
        return _write_sentence(
            "an ONNX graph, which is the result of an export", f"give the PyTorch checkpoint; {SAVE_ALONE}"
        )
    if start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05" and len(start) > 2:
        return _write_sentence("a pickle that torch.save did not write", SAVE_ALONE)
    if _is_msgpack_map(start):
        return _write_sentence("a msgpack file, as JAX and Flax write them", _FROM_KERAS)
    if not any(start):
        return "contains only zeros: it was not completely written or copied; create or fetch it again."
    return f"is not a checkpoint: {_EXPECTED}{' (it is text)' if _is_text(start) else ''}."


def describe_zip(path: Path) -> str | None:
    """Describe a zip archive that PyTorch cannot read; None if torch.save wrote it, or if it cannot be opened."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            is_readable = {each.compress_type for each in archive.infolist()} <= _COMPRESSIONS
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None
    inner = [name.partition("/")[2] for name in names]
    if any(name.startswith(".data/extern_modules") for name in inner):
        return _write_sentence("a torch.package archive, which contains code", SAVE_ALONE)
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        return _write_sentence(
            "a TorchScript archive, which contains code",
            "save its weights alone, torch.save(torch.jit.load(path).state_dict(), other_path)",
        )
    if "serialized_exported_program.json" in names or any(name.endswith("archive_format") for name in names):
        return _write_sentence(
            "a torch.export archive (.pt2), which is a program",
            "save its weights alone, torch.save(torch.export.load(path).state_dict, other_path)",
        )
    if "data.pkl" in inner or "data.pkl" in names:
        kind = "a zip archive with a compression that PyTorch cannot read"
        return None if is_readable else _write_sentence(kind, "save it again with torch.save")
    return _describe_other_zip(names)


def _describe_other_zip(names: Sequence[str]) -> str:
    if {"config.json", "metadata.json"} <= set(names) and any(name.endswith(".h5") for name in names):
        return _write_sentence("a Keras model (.keras)", _FROM_KERAS)
    if names and all(name.endswith(".npy") for name in names):
        return _write_sentence("an archive of NumPy arrays (.npz)", f"put them into the PyTorch model and {SAVE_ALONE}")
    inside = next((name for name in names if name.endswith(_CHECKPOINT_SUFFIXES)), None)
    if inside is not None:
        return _write_sentence(f"a zip archive that contains {inside}", "unpack it and give that file")
    return _write_sentence(f"a zip archive of other files ({', '.join(names[:3]) or 'nothing'})", _EXPECTED)


def _write_sentence(kind: str, advice: str) -> str:
    return f"is {kind}: {advice}."


def _is_msgpack_map(start: bytes) -> bool:
    """Whether the bytes are the start of a map whose first key is text."""
    if 0x81 <= start[0] <= 0x8F:
        first_key = start[1:2]
    elif start[0] in {0xDE, 0xDF}:
        first_key = start[3:4] if start[0] == 0xDE else start[5:6]
    else:
        return False
    return bool(first_key) and (0xA0 <= first_key[0] <= 0xBF or first_key[0] in {0xD9, 0xDA, 0xDB})


def _is_text(start: bytes) -> bool:
    try:
        text = start.decode("ascii")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character.isspace() for character in text)
