"""What can go wrong, each with the built-in exception that a caller would expect as a base.

Every message is one sentence or two: what was expected, what came, what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = [
    "ArgumentTypeError",
    "ArgumentValueError",
    "BrokenPackageError",
    "CardError",
    "DigitFileError",
    "GraphFileError",
    "ImageError",
    "InferenceError",
    "JsonFieldError",
    "KnownAnswerError",
    "ManifestError",
    "MarginalsError",
    "MemoryLimitError",
    "MissingPackageError",
    "MissingReleaseError",
    "ModelNotFoundError",
    "ModuleStateError",
    "OutputError",
    "ProviderError",
    "PxdbgError",
    "ThreadLimitError",
]


class PxdbgError(Exception):
    """Base of every error that this package raises on purpose; it survives the way between processes."""

    def __reduce__(self) -> tuple[object, ...]:
        # Python would call the class with the message alone, which is not what its constructor takes.
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(kind: type[PxdbgError], args: tuple[object, ...], fields: dict[str, object]) -> PxdbgError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(fields)
    return error


class _ArgumentError(PxdbgError):
    """An error of one argument."""

    def __init__(self, argument: str, message: str) -> None:
        super().__init__(message)
        self.argument = argument


class _FileError(PxdbgError):
    """An error of one file."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path


class ArgumentValueError(_ArgumentError, ValueError):
    """An argument of the right type has a value that makes no sense.

    Attributes
    ----------
    argument : str
        Its name.
    """


class ArgumentTypeError(_ArgumentError, TypeError):
    """An argument has the wrong type.

    Attributes
    ----------
    argument : str
        Its name.
    """


class JsonFieldError(PxdbgError, ValueError):
    """A JSON object lacks a field, or a field holds what it cannot hold.

    Attributes
    ----------
    field : str
        Name of the field, dotted where it is nested; empty for the object itself.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class CardError(PxdbgError, ValueError):
    """A model card lacks a field, or a field holds what it cannot hold.

    Attributes
    ----------
    field : str
        Name of the field, dotted where it is nested.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"The model card is not valid: {message}")
        self.field = field


class GraphFileError(_FileError, ValueError):
    """A file is not a graph that this package can run.

    Attributes
    ----------
    path : Path
        The file.
    """


class ManifestError(_FileError, RuntimeError):
    """The list of shipped graphs is missing or does not agree with the files beside it.

    Attributes
    ----------
    path : Path
        The manifest.
    """


class ModelNotFoundError(PxdbgError, FileNotFoundError):
    """Neither a shipped model nor a file has this name.

    Attributes
    ----------
    model : str
        What was asked for.
    available : tuple of str
        Names of the shipped models.
    """

    def __init__(self, model: str, available: Sequence[str], message: str) -> None:
        super().__init__(message)
        self.model = model
        self.available = tuple(available)


class DigitFileError(_FileError, ValueError):
    """A file of digits cannot be read.

    Attributes
    ----------
    path : Path
        The file.
    """


class MarginalsError(_FileError, ValueError):
    """A file of published marginals cannot be read.

    Attributes
    ----------
    path : Path
        The file.
    """


class OutputError(_FileError, OSError):
    """A file could not be written; nothing was left behind.

    Attributes
    ----------
    path : Path
        Where it should have gone.
    """


class ImageError(PxdbgError, ValueError):
    """Images have the wrong shape or type, or hold values that are not numbers."""


class ProviderError(PxdbgError, RuntimeError):
    """An execution provider was asked for that cannot run here.

    Attributes
    ----------
    provider : str
        What was asked for.
    """

    def __init__(self, provider: str, message: str) -> None:
        super().__init__(message)
        self.provider = provider


class InferenceError(PxdbgError, RuntimeError):
    """ONNX Runtime could not make a session of a graph, or failed while it ran one."""


class KnownAnswerError(PxdbgError, RuntimeError):
    """The installed ONNX Runtime computes the known images of a graph wrongly on this machine.

    Attributes
    ----------
    provider : str
        ONNX Runtime's name of the execution provider.
    release : str
        Version of ONNX Runtime.
    largest_difference : float
        Of a tanh value, or of a charge in ADU.
    """

    def __init__(self, provider: str, release: str, largest_difference: float, message: str) -> None:
        super().__init__(message)
        self.provider = provider
        self.release = release
        self.largest_difference = largest_difference


class MemoryLimitError(MemoryError, PxdbgError):  # in this order, because MemoryError has a constructor of its own
    """There is less memory, or room for it in the address space, than the call needs.

    Attributes
    ----------
    needed_bytes : int or None
        What it needs beside what this process holds already; None if it is not known.
    """

    def __init__(self, needed_bytes: int | None, message: str) -> None:
        super().__init__(message)
        self.needed_bytes = needed_bytes


class ThreadLimitError(PxdbgError, RuntimeError):
    """The system starts fewer threads than were asked for.

    Attributes
    ----------
    asked : int
        Threads that were to be started.
    started : int
        Threads that could be.
    """

    def __init__(self, asked: int, started: int, message: str) -> None:
        super().__init__(message)
        self.asked = asked
        self.started = started


class MissingPackageError(PxdbgError, ImportError):
    """A package that this call needs is not installed.

    Attributes
    ----------
    package : str
        Its import name.
    extra : str
        The extra of pxdbg-runtime that brings it.
    """

    def __init__(self, package: str, extra: str, message: str) -> None:
        super().__init__(message)
        self.package = package
        self.extra = extra


class BrokenPackageError(MissingPackageError):
    """A package that this call needs is installed, but it does not import or is too old."""


class MissingReleaseError(PxdbgError, ImportError):
    """A Python module that comes with a release of basf2 is not there.

    Attributes
    ----------
    module : str
        Its name.
    """

    def __init__(self, module: str, message: str) -> None:
        super().__init__(message)
        self.module = module


class ModuleStateError(PxdbgError, RuntimeError):
    """The basf2 module was asked for something out of order."""
