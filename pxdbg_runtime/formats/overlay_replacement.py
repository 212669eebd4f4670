"""Replace the PXD digits of a complete overlay file; everything else is copied as it is.

ROOT copies the compressed baskets of a tree (fast cloning), so the classes of other detectors need no dictionary.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
from typing import TYPE_CHECKING, Any, Final

from pxdbg_runtime.errors import ArgumentValueError, DigitFileError, PxdbgError, one_line
from pxdbg_runtime.formats.digest import RowHasher
from pxdbg_runtime.formats.overlay_classes import (
    DIGIT_CLASS,
    DIGITS,
    FILE_CLASS,
    FILE_META_DATA,
    PERSISTENT,
    TREE,
    build_array,
    compile_classes,
    create_object,
)
from pxdbg_runtime.formats.overlay_writer import BASKET_BYTES, SPLIT_LEVEL, TREE_BYTES, set_texts
from pxdbg_runtime.formats.root_identity import derive_uuid, fix_uuids
from pxdbg_runtime.formats.root_library import (
    CRASH_SIGNALS,
    create_root_file,
    import_root,
    open_root_file,
    report_root_errors,
    run_in_fork,
)
from pxdbg_runtime.formats.whole_events import EventAssembler
from pxdbg_runtime.formats.writer import open_checked_writer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path
    from types import ModuleType

    from pxdbg_runtime.digits import Digits
    from pxdbg_runtime.formats.interface import DigitWriter
    from pxdbg_runtime.formats.metadata import FileMetadata

__all__ = ["check_replacement", "count_events", "open_replacement"]

_SUFFIX: Final = ".root"
_MIXING: Final = "BackgroundMetaData"
_PURPOSE: Final = "Replacing the digits of an overlay file"
_log = logging.getLogger(__name__)


def check_replacement(path: Path) -> None:
    """Check the name of a new overlay file; raises `ArgumentValueError` unless it ends in .root."""
    if path.suffix != _SUFFIX:
        raise ArgumentValueError("output", f"{path} must end in {_SUFFIX}, as overlay files do.")


def count_events(path: Path) -> int:
    """Count the events of an overlay file whose digits can be replaced.

    Raises
    ------
    DigitFileError
        If it cannot be read, is no overlay file, or has classes of other versions than those here.
    MissingPackageError
        If ROOT is not installed.
    """
    root = _prepare_root()
    exit_code = run_in_fork(lambda: _read_once(root, path))
    if -exit_code in CRASH_SIGNALS:
        raise DigitFileError(path, f"{path} is damaged: ROOT crashes when it reads it. Take another copy of it.")
    if exit_code:
        end = f"ended with status {exit_code}"
        if exit_code < 0:
            end = f"was ended by signal {-exit_code} ({signal.strsignal(-exit_code)})"
        message = (
            f"{path} cannot be read: the process in which ROOT tries it first {end}; run the command again, with more "
            "memory if the job has little."
        )
        raise DigitFileError(path, message)
    with _open_overlay(root, path) as file:
        return int(file.Get(TREE).GetEntries())


def _read_once(root: ModuleType, path: Path) -> None:
    """Read what ROOT interprets when digits are replaced; it copies the rest as bytes."""
    with _open_overlay(root, path) as file:
        _read_description(file.Get(PERSISTENT), create_object(root, FILE_CLASS))
        for key in file.GetListOfKeys():
            file.Get(key.GetName())


def open_replacement(source: Path, target: Path, metadata: FileMetadata) -> AbstractContextManager[DigitWriter]:
    """Open a copy of an overlay file to which new digits are written; it appears when the block ends without an error.

    Parameters
    ----------
    source : Path
        A complete overlay file.
    target : Path
        Another file.
    metadata : FileMetadata
        As many events as the source has. The k-th event gets the digits of the k-th event number.

    Raises
    ------
    ArgumentValueError
        If the target is the source, or the number of events differs.
    DigitFileError, MissingPackageError
        As `count_events`.
    OutputError
        If the file cannot be written; nothing is left behind then.
    """
    with contextlib.suppress(OSError):
        if source.samefile(target):
            raise ArgumentValueError("target", f"{target} is the file whose digits are replaced: name another file.")
    return open_checked_writer(target, metadata, functools.partial(_write_replacement, source))


class _ReplacementWriter:
    """Writes the new branch of digits, entry by entry."""

    def __init__(self, root: ModuleType, tree: Any, metadata: FileMetadata) -> None:  # noqa: ANN401  # of ROOT
        self._root = root
        self._assembler = EventAssembler(metadata.event_numbers)
        self.hasher = RowHasher()
        # The branch needs the array until the file is closed.
        self._array, self._fill_array = build_array(root)
        self._branch = tree.Branch(DIGITS, self._array, BASKET_BYTES, SPLIT_LEVEL)

    def write(self, digits: Digits) -> None:
        """Append digits; an event is written when a later one has digits."""
        self.hasher.update(digits)
        self._write_events(self._assembler.add(digits))

    def finish(self) -> None:
        """Write the last events."""
        self._write_events(self._assembler.finish())

    def _write_events(self, events: Iterable[tuple[int, Digits]]) -> None:
        for _number, digits in events:
            self._fill_array(digits)
            with report_root_errors(self._root):
                self._branch.Fill()


@contextlib.contextmanager
def _write_replacement(source: Path, path: Path, metadata: FileMetadata) -> Iterator[_ReplacementWriter]:
    root = _prepare_root()
    text = metadata.to_json()
    with _open_overlay(root, source) as old, create_root_file(root, path) as new:
        n_events, expected = old.Get(TREE).GetEntries(), len(metadata.event_numbers)
        if n_events != expected:
            message = f"{source} has {n_events:,} events, but digits of {expected:,} were announced."
            raise ArgumentValueError("metadata", message)
        _warn_of_relations(source, old.Get(TREE))
        description = create_object(root, FILE_CLASS)
        with _report_copying(source, new):
            tree = _copy_tree(root, old.Get(TREE), new, leave_out=DIGITS)
        writer = _ReplacementWriter(root, tree, metadata)
        yield writer
        writer.finish()
        with _report_copying(source, new), report_root_errors(root):
            _read_description(old.Get(PERSISTENT), description)
        digest = writer.hasher.compute_digest(text)
        set_texts(root, description, text, digest)
        with _report_copying(source, new):
            persistent = _copy_tree(root, old.Get(PERSISTENT), new, leave_out=FILE_META_DATA)
            _copy_keys(root, old, new, leave_out={TREE, PERSISTENT})
        with report_root_errors(root):
            persistent.Branch(FILE_META_DATA, description, BASKET_BYTES, SPLIT_LEVEL).Fill()
        uuid = derive_uuid(str(old.GetUUID().AsString()), digest.to_json())
    with path.open("r+b") as held:
        fix_uuids(held, uuid)


def _prepare_root() -> ModuleType:
    root = import_root(_PURPOSE)
    compile_classes(root)
    return root


@contextlib.contextmanager
def _open_overlay(root: ModuleType, path: Path) -> Iterator[Any]:
    """Open an overlay file, and check what is needed to replace its digits; raises as `count_events`."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open_root_file(root, path))
            with report_root_errors(root):
                problem = _find_problem(root, file)
        except OSError as error:
            raise DigitFileError(path, f"{path} cannot be read: {error.strerror}.") from None
        except Exception as error:  # noqa: BLE001  # of C++, or of Python where a damaged file gives no object
            raise _describe_damage(path, error) from None
        if problem:
            raise DigitFileError(path, f"{path} {problem}.")
        yield file


def _find_problem(root: ModuleType, file: Any) -> str:  # noqa: ANN401
    """Explain why a file is no overlay file, or one that is not known here; empty if it is one."""
    trees = {name: file.Get(name) for name in (TREE, PERSISTENT)}
    for name, tree in trees.items():
        if not isinstance(tree, root.TTree):
            return f"is no overlay file: it has no tree called {name}"
        if tree.GetBranch(_MIXING):
            return f"is a file for background mixing, not for overlay: it has a branch {_MIXING}"
    for name, branch in ((TREE, DIGITS), (PERSISTENT, FILE_META_DATA)):
        if not trees[name].GetBranch(branch):
            return f"is no overlay file with PXD background: its tree {name} has no branch {branch}"
    if not trees[TREE].GetEntries():
        return "has no events: expected one or more"
    n_entries = trees[PERSISTENT].GetEntries()
    if n_entries != 1:
        return (
            f"has {n_entries} entries in its tree {PERSISTENT}, but BGOverlayInput takes files with one: replace the "
            "digits of the files that it was joined from"
        )
    return _find_other_version(root, file)


def _find_other_version(root: ModuleType, file: Any) -> str:  # noqa: ANN401
    """Explain which class of a file has a version that cannot be handled here; empty if none."""
    found: dict[str, set[int]] = {DIGIT_CLASS: set(), FILE_CLASS: set()}
    infos = (each for each in file.GetStreamerInfoList() if each.InheritsFrom("TStreamerInfo"))
    for info in infos:
        found.get(str(info.GetName()), set()).add(info.GetClassVersion())
    for name, versions in found.items():
        if not versions:
            return f"has no {name}: it is no overlay file of basf2"
        known = int(root.TClass.GetClass(name).GetClassVersion())
        # The description is read, and ROOT reads older versions; of digits another version means another release.
        others = {each for each in versions if each > known or (each < known and name == DIGIT_CLASS)}
        if others:
            return (
                f"was written by another generation of basf2: its {name} has version {min(others)}, expected {known}. "
                "Replace its digits with pxdbg-runtime in a release that reads it"
            )
    return ""


def _warn_of_relations(source: Path, tree: Any) -> None:  # noqa: ANN401
    """Log which branches refer to the digits by their index, by the names that basf2 gives relations."""
    names = [str(branch.GetName()) for branch in tree.GetListOfBranches()]
    related = [name for name in names if name.startswith(f"{DIGITS}To") or name.endswith(f"To{DIGITS}")]
    if related:
        _log.warning(
            "%s holds %s, which refers to the digits that are replaced: it is copied as it is, but is wrong in the new "
            "file.",
            source,
            ", ".join(related),
        )


@contextlib.contextmanager
def _report_copying(source: Path, new: Any) -> Iterator[None]:  # noqa: ANN401
    """Blame the source for a failed copy, unless the new file could not be written."""
    try:
        yield
    except OSError as error:
        if new.TestBit(new.kWriteError):
            raise
        raise DigitFileError(source, f"{source} cannot be copied: {error.strerror}.") from None
    except PxdbgError:
        raise
    except Exception as error:  # noqa: BLE001  # as above
        raise _describe_damage(source, error) from None


def _describe_damage(path: Path, error: Exception) -> DigitFileError:
    reason = one_line(error) or type(error).__name__
    return DigitFileError(path, f"{path} is damaged ({reason}): take another copy of it.")


def _copy_tree(root: ModuleType, tree: Any, directory: Any, leave_out: str = "") -> Any:  # noqa: ANN401
    """Copy the baskets of a tree, but for those of one branch."""
    if leave_out:
        _disable(root, tree.GetBranch(leave_out))
    root.TTree.SetMaxTreeSize(TREE_BYTES)
    with report_root_errors(root), root.TDirectory.TContext(directory):
        copy = tree.CloneTree(-1, "fast")
        if copy:
            root.SetOwnership(copy, False)
            copy.SetAutoSave(0)
    return copy


def _disable(root: ModuleType, branch: Any) -> None:  # noqa: ANN401
    branch.SetBit(root.kDoNotProcess)
    for each in branch.GetListOfBranches():
        _disable(root, each)


def _read_description(persistent: Any, description: Any) -> None:  # noqa: ANN401
    """Read the FileMetaData of a file; ROOT converts it from older versions of the class."""
    persistent.SetBranchAddress(FILE_META_DATA, description)
    persistent.GetBranch(FILE_META_DATA).GetEntry(0)
    persistent.ResetBranchAddresses()


def _copy_keys(root: ModuleType, old: Any, new: Any, leave_out: set[str]) -> None:  # noqa: ANN401
    """Copy what else a directory holds: trees and folders, and other objects byte for byte."""
    for key in old.GetListOfKeys():
        name, kind = str(key.GetName()), str(key.GetClassName())
        if name in leave_out or kind == "TProcessID":  # ROOT copies these with the trees that refer to them
            continue
        leave_out.add(name)  # the keys of one name are sorted by cycle, the newest first
        if kind == "TDirectoryFile":
            with report_root_errors(root):
                folder = new.mkdir(name, str(key.GetTitle()))
            _copy_keys(root, old.Get(name), folder, set())
        elif kind in {"TTree", "TNtuple", "TNtupleD"}:
            _copy_tree(root, old.Get(name), new)
        else:
            with report_root_errors(root):
                copy = root.TKey(new, key, 0)
                root.SetOwnership(copy, False)
                copy.WriteFile(0)
