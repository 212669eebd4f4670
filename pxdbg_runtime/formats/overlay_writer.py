"""Write overlay files, which BGOverlayInput of an unmodified basf2 reads, with ROOT itself."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.formats.digest import RowHasher
from pxdbg_runtime.formats.interface import DIGEST_KEY, METADATA_KEY
from pxdbg_runtime.formats.overlay_classes import (
    DIGITS,
    EVENT_CLASS,
    EVENT_META_DATA,
    FILE_CLASS,
    FILE_META_DATA,
    PERSISTENT,
    TREE,
    build_array,
    compile_classes,
    create_object,
    set_members,
)
from pxdbg_runtime.formats.root_identity import derive_uuid, fix_uuids
from pxdbg_runtime.formats.root_library import create_root_file, import_root, report_root_errors
from pxdbg_runtime.formats.whole_events import EventAssembler

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from types import ModuleType

    from pxdbg_runtime.digits import Digits
    from pxdbg_runtime.formats.digest import FileDigest
    from pxdbg_runtime.formats.metadata import FileMetadata
    from pxdbg_runtime.formats.run_numbers import RunNumbers

__all__ = ["BASKET_BYTES", "SPLIT_LEVEL", "TREE_BYTES", "create_tree", "set_texts", "write_overlay"]

MAX_OVERLAY_EVENT: Final = (1 << 32) - 1
"""basf2 stores event numbers in 32 bits."""
BASKET_BYTES: Final = 1 << 17
"""Size of the buffers that are compressed together, one for each member: about that of an event."""
SPLIT_LEVEL: Final = 99
TREE_BYTES: Final = 1 << 60
"""Size at which ROOT goes on in a second file, 100 GB unless it is set."""


class _OverlayWriter:
    def __init__(self, root: ModuleType, file: Any, metadata: FileMetadata, numbers: RunNumbers) -> None:  # noqa: ANN401
        self._root, self._file, self._metadata, self._numbers = root, file, metadata, numbers
        self._assembler = EventAssembler(metadata.event_numbers)
        self._hasher = RowHasher()
        self._array, self._fill_array = build_array(root)
        # The branches need these until the file is closed.
        self._event, self._description = create_object(root, EVENT_CLASS), create_object(root, FILE_CLASS)
        set_members(root, self._event, {"m_experiment": numbers.experiment, "m_run": numbers.run})
        self._tree = create_tree(root, file, TREE)
        self._tree.Branch(EVENT_META_DATA, self._event, BASKET_BYTES, SPLIT_LEVEL)
        self._tree.Branch(DIGITS, self._array, BASKET_BYTES, SPLIT_LEVEL)

    def write(self, digits: Digits) -> None:
        """Append digits; an event is written when a later one has digits."""
        self._hasher.update(digits)
        self._write_events(self._assembler.add(digits))

    def finish(self) -> str:
        """Write the last events, and what describes the file; returns the digest."""
        self._write_events(self._assembler.finish())
        metadata = self._metadata.to_json()
        set_members(self._root, self._description, _describe_file(self._metadata, self._numbers))
        digest = self._hasher.compute_digest(metadata)
        set_texts(self._root, self._description, metadata, digest)
        with report_root_errors(self._root):
            persistent = create_tree(self._root, self._file, PERSISTENT)
            persistent.Branch(FILE_META_DATA, self._description, BASKET_BYTES, SPLIT_LEVEL)
            persistent.Fill()
        return digest.to_json()

    def _write_events(self, events: Iterable[tuple[int, Digits]]) -> None:
        for number, digits in events:
            self._fill_array(digits)
            set_members(self._root, self._event, {"m_event": number})
            with report_root_errors(self._root):
                self._tree.Fill()


@contextlib.contextmanager
def write_overlay(path: Path, metadata: FileMetadata) -> Iterator[_OverlayWriter]:
    """Write an overlay file; it is complete when the block ends without an error.

    Parameters
    ----------
    path : Path
        An empty file.
    metadata : FileMetadata
        With `run_numbers`.

    Raises
    ------
    ArgumentValueError
        If the numbers of experiment and run are missing, or the number of an event has more than 32 bits.
    MissingPackageError
        If ROOT is not installed.
    OSError
        If the file cannot be written.
    """
    numbers = metadata.run_numbers
    if numbers is None:
        message = (
            "An overlay file needs the experiment of its events: expected run_numbers in its metadata, but got none."
        )
        raise ArgumentValueError("experiment", message)
    last_event = int(metadata.event_numbers[-1])
    if last_event > MAX_OVERLAY_EVENT:
        message = (
            f"An overlay file holds event numbers up to {MAX_OVERLAY_EVENT}, as basf2 does, but the last event is "
            f"{last_event}: generate the events with a smaller --first-event."
        )
        raise ArgumentValueError("events", message)
    root = import_root("An overlay file")
    compile_classes(root)
    with create_root_file(root, path) as file:
        writer = _OverlayWriter(root, file, metadata, numbers)
        yield writer
        digest = writer.finish()
    with path.open("r+b") as held:
        fix_uuids(held, derive_uuid(digest, str(numbers)))


def create_tree(root: ModuleType, file: Any, name: str) -> Any:  # noqa: ANN401  # of ROOT
    """Create a TTree in a file, which owns it."""
    tree = root.TTree(name, name, SPLIT_LEVEL, file)
    root.SetOwnership(tree, False)
    tree.SetAutoSave(0)  # an unfinished file is of no use
    root.TTree.SetMaxTreeSize(TREE_BYTES)
    return tree


def set_texts(root: ModuleType, description: Any, metadata: str, digest: FileDigest) -> None:  # noqa: ANN401
    """Set the texts of a digit file in the data description of a FileMetaData."""
    for key, text in ((METADATA_KEY, metadata), (DIGEST_KEY, digest.to_json())):
        root.pxdbg_overlay.set_entry(description, "m_dataDescription", key, text)


def _describe_file(metadata: FileMetadata, numbers: RunNumbers) -> dict[str, float | str]:
    """List the members of FileMetaData. The file has no logical name; date, site and user are not recorded."""
    n_events = len(metadata.event_numbers)
    members: dict[str, float | str] = {
        "m_nEvents": n_events,
        "m_nFullEvents": n_events,
        "m_isMC": True,
        "m_mcEvents": n_events,
        "m_randomSeed": ", ".join(dict.fromkeys(str(job.seed) for job in metadata.jobs)),
        "m_release": ", ".join(dict.fromkeys(f"pxdbg-runtime {job.version}" for job in metadata.jobs)),
    }
    for end, event in (("Low", metadata.event_numbers[0]), ("High", metadata.event_numbers[-1])):
        members[f"m_experiment{end}"] = numbers.experiment
        members[f"m_run{end}"] = numbers.run
        members[f"m_event{end}"] = int(event)
    return members
