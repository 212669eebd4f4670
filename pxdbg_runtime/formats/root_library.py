"""Import ROOT, open its files, and turn what it prints about failures into exceptions."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import threading
import warnings
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NoReturn

from pxdbg_runtime.errors import BrokenPackageError
from pxdbg_runtime.optional_imports import require
from pxdbg_runtime.regular_file import open_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import ModuleType

__all__ = ["CRASH_SIGNALS", "create_root_file", "import_root", "open_root_file", "report_root_errors", "run_in_fork"]

_HEADER_BYTES: Final = 20
_REPRODUCIBLE: Final = "?reproducible=pxdbg.root"
"""Lets ROOT write fixed dates, UUIDs and file names."""
_USED_HEADER_BYTES: Final = 63
_LARGE_FILE: Final = 1_000_000
"""Added to the version in the header of a file whose offsets have 64 bits."""
CRASH_SIGNALS: Final = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT)
"""Signals that end a process which crashes."""
_HELPERS: Final = """
#include <TError.h>
#include <TSystem.h>
#include <string>
namespace pxdbg_root {
  std::string error_message;
  int error_number = 0;
  ErrorHandlerFunc_t former_handler = nullptr;

  void keep_first_error(int level, Bool_t is_fatal, const char* location, const char* message)
  {
    if (level >= kFatal) return DefaultErrorHandler(level, is_fatal, location, message);
    // With this warning a tree is copied in another way than asked for, which needs the dictionaries of all classes.
    bool is_failure = level >= kError || (level >= kWarning && std::string(location) == "TTree::CopyEntries");
    if (!is_failure || !error_message.empty()) return;
    error_number = level >= kSysError ? TSystem::GetErrno() : 0;
    error_message = std::string(location) + ": " + message;
  }

  void begin_keeping()
  {
    error_message.clear();
    error_number = 0;
    former_handler = SetErrorHandler(keep_first_error);
  }

  void end_keeping() { SetErrorHandler(former_handler); }
}
"""


def import_root(purpose: str) -> ModuleType:
    """Import ROOT without its side effects: a warning, reading of arguments, a logon script, handlers of signals.

    Parameters
    ----------
    purpose : str
        What needs it; subject of the message if it is missing.

    Raises
    ------
    MissingPackageError, BrokenPackageError
        If it is not installed, or does not import.
    """
    root = require("ROOT", extra="root", purpose=purpose)
    # These act before the first use of ROOT alone, so that of basf2 stays as it is.
    root.PyConfig.IgnoreCommandLineOptions = True
    root.PyConfig.DisableRootLogon = True
    if hasattr(root, "pxdbg_root"):
        return root
    if not root.gInterpreter.Declare(_HELPERS):
        message = "ROOT's interpreter does not compile the handler of its errors: install ROOT again, or another one."
        raise BrokenPackageError("ROOT", "root", message)
    _restore_signal_handlers()
    return root


def _restore_signal_handlers() -> None:
    """Give Python's handlers back the signals that ROOT took, such as SIGUSR2."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        if isinstance(handler, (FunctionType, MethodType)):
            signal.signal(number, handler)


@contextlib.contextmanager
def report_root_errors(root: ModuleType) -> Iterator[None]:
    """Raise the first error that ROOT reports in the block, and print none of its messages.

    Raises
    ------
    OSError
        With the system's reason, where there is one, or with ROOT's message.
    """
    helpers = root.pxdbg_root
    helpers.begin_keeping()
    try:
        yield
    finally:
        helpers.end_keeping()
    message = str(helpers.error_message)
    if not message:
        return
    if "wrote" in message and "requested bytes" in message:
        text = "the disk took a part only: it is full, or a limit on the size of files is reached"
        raise OSError(0, text)
    number = int(helpers.error_number)
    if number:
        raise OSError(number, os.strerror(number))
    raise OSError(0, f"ROOT reports {message}")


def run_in_fork(read: Callable[[], None]) -> int:
    """Run a function in a fork of this process, because ROOT may crash on a damaged file.

    Exceptions count as success: where they come again, the caller handles them. If an exception ends the waiting, as
    handlers of signals raise, the fork is killed.

    Returns
    -------
    int
        0, or minus the signal that ended the fork, one of `CRASH_SIGNALS` if ROOT crashed; or the positive status with
        which a library ended it.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # until both processes handle exceptions
    child = 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which the fork does not need
            child = os.fork()
        if child == 0:
            _read_and_exit(read, mask)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _child, status = os.waitpid(child, 0)
    except BaseException:
        if child:
            with contextlib.suppress(OSError):  # it has ended already
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return os.waitstatus_to_exitcode(status)


def _read_and_exit(read: Callable[[], None], mask: set[int | signal.Signals]) -> NoReturn:
    with contextlib.suppress(BaseException):
        # A crash ends the fork at once: ROOT's own handlers write a trace for half a minute, and then run the exit
        # functions of all libraries, which may wait for threads that the fork does not have.
        for number in CRASH_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        read()
    os._exit(0)


@contextlib.contextmanager
def open_root_file(root: ModuleType, path: Path) -> Iterator[Any]:
    """Open a ROOT file to read; yields a TFile.

    Raises
    ------
    OSError
        If it cannot be opened, or is not a ROOT file.
    """
    with open_regular(path) as held:
        _check_end(held)
        with contextlib.closing(_RootFile(root, held.fileno(), "READ")) as opened:
            yield opened.file


def _check_end(file: BinaryIO) -> None:
    """Check that a file is as long as its header says; ROOT tries to recover one that is cut, and may crash."""
    header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES or not header.startswith(b"root"):
        raise OSError(0, "it is not a ROOT file, or is damaged")
    (version,) = struct.unpack_from(">i", header, 4)
    (expected,) = struct.unpack_from(">q" if version >= _LARGE_FILE else ">i", header, 12)
    n_bytes = file.seek(0, os.SEEK_END)
    if n_bytes < expected:
        raise OSError(0, f"it was cut: it has {n_bytes:,} bytes, expected {expected:,}")


@contextlib.contextmanager
def create_root_file(root: ModuleType, path: Path) -> Iterator[Any]:
    """Open an existing empty file as a new ROOT file; yields a TFile, which is complete when the block ends.

    ROOT's own way to create a file removes one that exists, and with it the lock that protects an unfinished file.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    path.write_bytes(_build_empty_file(root))
    with path.open("r+b") as held:
        opened = _RootFile(root, held.fileno(), "UPDATE")
        try:
            yield opened.file
            with report_root_errors(root):
                opened.file.Write("", root.TObject.kOverwrite)
                opened.close()
        finally:
            with contextlib.suppress(OSError), report_root_errors(root):
                opened.close()


class _RootFile:
    """A TFile on the descriptor of an open file, because ROOT interprets ``$``, ``~``, ``#`` and ``?`` in paths."""

    def __init__(self, root: ModuleType, descriptor: int, mode: str) -> None:
        try:
            with report_root_errors(root), root.TDirectory.TContext():
                self.file = root.TFile(f"/proc/self/fd/{descriptor}{_REPRODUCIBLE if mode == 'UPDATE' else ''}", mode)
        except OSError as error:
            raise OSError(0, "it is not a ROOT file, or is damaged") from error
        if self.file.IsZombie():
            raise OSError(0, "it is not a ROOT file, or is damaged")
        self._is_open = True

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self.file.Close()


def _build_empty_file(root: ModuleType) -> bytes:
    with root.TDirectory.TContext():
        file = root.TMemFile(f"pxdbg.root{_REPRODUCIBLE}", "RECREATE")
        file.Close()
        content = bytearray(file.GetSize())
        file.CopyTo(content, len(content))
        end = file.GetEND()
    (begin,) = struct.unpack_from(">i", content, 8)
    content[_USED_HEADER_BYTES:begin] = bytes(begin - _USED_HEADER_BYTES)  # which ROOT leaves as the memory was
    return bytes(content[:end])
