"""What reads digit files, without PyTorch and ONNX, which a process of its own would import for seconds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import structs

from pxdbg_runtime import Digits
from pxdbg_runtime.formats import FORMATS, read_digits
from pxdbg_runtime.formats.overlay_replacement import count_events, open_replacement
from pxdbg_runtime.optional_imports import require
from tests.digit_files import COLUMNS, METADATA, PROVENANCE, SAMPLE, build_metadata, random_digits, write
from tests.fuzz.mutations import mutate_bytes, mutate_json_or_bytes, mutate_zip
from tests.fuzz.reader import Reader

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["build_digit_reader", "build_provenance_reader", "build_replacement_reader"]


def build_digit_reader(folder: Path, *, format_name: str) -> Reader:
    each = FORMATS[format_name]
    if each.package is not None and each.extra is not None:
        require(each.package, extra=each.extra, purpose=each.title)
    path = folder / f"digits{each.suffixes[0]}"
    rng = np.random.default_rng(1)
    many = [random_digits(rng, size, event) for event, size in ((3, 200), (4, 0), (5, 900), (6, 1))]
    second = structs.replace(PROVENANCE, first_event=7, events=2, seed=8)
    files = [
        write(path, [SAMPLE], format_name=format_name).read_bytes(),
        write(path, many, format_name=format_name).read_bytes(),
        write(path, [SAMPLE, random_digits(rng, 30, 8)], build_metadata(PROVENANCE, second), format_name).read_bytes(),
        write(path, [Digits.empty()], format_name=format_name).read_bytes(),
    ]
    return Reader(
        samples=tuple(files),
        read=_read_checked_digits,
        file_name=path.name,
        mutate=mutate_zip if path.suffix == ".npz" else mutate_bytes,
    )


def build_replacement_reader(folder: Path) -> Reader:
    """A complete overlay file, with more than its digits, whose digits are replaced."""
    root: Any = require("ROOT", extra="root", purpose="Replacing the digits of an overlay file")
    root.gEnv.SetValue("Root.Stacktrace", "no")  # which takes half a minute if ROOT crashes
    path = folder / "overlay.root"
    rng = np.random.default_rng(1)
    write(path, [random_digits(rng, 30, number) for number in range(3, 7)], build_metadata(PROVENANCE), "overlay")
    file = root.TFile(str(path), "UPDATE")
    file.WriteObject(root.TObjString("of another detector"), "text")
    runs = root.TNtuple("runs", "of another detector", "x:y")
    for number in range(9):
        runs.Fill(number, -number)
    file.mkdir("monitor").WriteObject(runs, "runs")
    file.Close()

    def read(altered: Path) -> object:
        metadata = build_metadata(structs.replace(PROVENANCE, events=count_events(altered)))
        target = folder / "new.root"
        try:
            with open_replacement(altered, target, metadata) as writer:
                writer.write(SAMPLE)
            found = read_digits(target)
            return found.digits, found.is_checked
        finally:
            target.unlink(missing_ok=True)

    return Reader(samples=(path.read_bytes(),), read=read, file_name="altered.root")


def _read_checked_digits(path: Path) -> object:
    """Read digits; those without a digest are as other tools write them, and say that they are not checked."""
    found = read_digits(path)
    return (found.digits, found.jobs, found.n_events) if found.is_checked else None


def build_provenance_reader(_folder: Path) -> Reader:
    """Provenance in a file without a digest, as other tools write it."""
    import io

    def seal(text: bytes) -> bytes:
        written = io.BytesIO()
        content: dict[str, Any] = {**COLUMNS, "pxdbg": np.array(text.decode(errors="surrogateescape"))}
        np.savez(written, **content)
        return written.getvalue()

    job = {key: value for key, value in METADATA.items() if key != "schema"}
    jobs = {"schema": 1, "jobs": [job, {**job, "first_event": 7, "seed": 8}]}
    return Reader(
        samples=(json.dumps(METADATA).encode(), json.dumps(jobs).encode()),
        read=_read_checked_digits,
        file_name="digits.npz",
        mutate=mutate_json_or_bytes,
        seal=seal,
    )
