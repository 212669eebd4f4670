"""The exceptions of this package; each subclasses the built-in one that a caller expects.

Every message is one sentence or two: what was expected, what came, what to do. An exception has the arguments of its
constructor, the message aside, as attributes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = [
    "ArgumentTypeError",
    "ArgumentValueError",
    "BrokenPackageError",
    "CampaignError",
    "CardError",
    "DigitFileError",
    "GraphFileError",
    "ImageError",
    "InferenceError",
    "JsonFieldError",
    "KnownAnswerError",
    "MachineMismatchError",
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
    "SchedulerError",
    "ThreadLimitError",
    "one_line",
]


class PxdbgError(Exception):
    """Base of every error that this package raises; it can be pickled.

    Attributes
    ----------
    docs_section : str or None
        Section of the documentation that says more than the message, as page and anchor below ``docs``; of the class.
    """

    docs_section: ClassVar[str | None] = None

    def __reduce__(self) -> tuple[object, ...]:
        # By default, unpickling calls the class with the message alone, and the constructors take more than that.
        return _rebuild_error, (type(self), self.args, self.__dict__)


def _rebuild_error(kind: type[PxdbgError], args: tuple[object, ...], fields: dict[str, object]) -> PxdbgError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(fields)
    return error


class _ArgumentError(PxdbgError):
    """An error of the argument with the name `argument`."""

    def __init__(self, argument: str, message: str) -> None:
        super().__init__(message)
        self.argument = argument


class _FileError(PxdbgError):
    """An error of the file `path`."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path


class ArgumentValueError(_ArgumentError, ValueError):
    """An argument of the right type has an invalid value."""


class ArgumentTypeError(_ArgumentError, TypeError):
    """An argument has the wrong type."""


class JsonFieldError(PxdbgError, ValueError):
    """A field of a JSON object is missing or invalid.

    Attributes
    ----------
    field : str
        Name of the field, dotted where it is nested; empty for the object itself.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(_cut(message))
        self.field = field


class CardError(PxdbgError, ValueError):
    """A field of a model card is missing or invalid.

    Attributes
    ----------
    field : str
        Name of the field, dotted where it is nested.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"The model card is not valid: {_cut(message)}")
        self.field = field


class GraphFileError(_FileError, ValueError):
    """A file is not a graph that this package can run."""


class ManifestError(_FileError, RuntimeError):
    """The manifest of the built-in graphs is missing or does not match the files beside it."""


class ModelNotFoundError(PxdbgError, FileNotFoundError):
    """Neither a built-in model nor a file has the name `model`; `available` are the names of the built-in models."""

    def __init__(self, model: str, available: Sequence[str], message: str) -> None:
        super().__init__(message)
        self.model = model
        self.available = tuple(available)


class DigitFileError(_FileError, ValueError):
    """A digit file cannot be read."""


class MarginalsError(_FileError, ValueError):
    """A file of published marginals cannot be read."""

    docs_section = "validation.md#a-file-of-published-marginals"


class OutputError(_FileError, OSError):
    """A file could not be written; nothing was left behind."""


class CampaignError(_FileError, RuntimeError):
    """A campaign's plan, graph or partition at `path` is not what it should be, or its partitions cannot be made."""


class SchedulerError(PxdbgError, ConnectionError):
    """No Dask scheduler answers at `address`."""

    def __init__(self, address: str, message: str) -> None:
        super().__init__(message)
        self.address = address


class MachineMismatchError(PxdbgError, RuntimeError):
    """Digits from this machine are not known to be the same as those from the machine of a campaign's plan."""


class ImageError(PxdbgError, ValueError):
    """Images have the wrong shape or type, or hold values that are not numbers."""


class ProviderError(PxdbgError, RuntimeError):
    """The execution provider `provider`, named as requested, cannot run here."""

    docs_section = "running.md#providers"

    def __init__(self, provider: str, message: str) -> None:
        super().__init__(message)
        self.provider = provider


class InferenceError(PxdbgError, RuntimeError):
    """ONNX Runtime could not create a session for a graph, or failed while it ran one."""


class KnownAnswerError(PxdbgError, RuntimeError):
    """The installed ONNX Runtime computes wrong outputs for the known images of a graph on this machine.

    Attributes
    ----------
    provider : str
        ONNX Runtime's name of the execution provider.
    release : str
        Version of ONNX Runtime.
    largest_difference : float
        Of a tanh value, or of a charge in ADU.
    """

    docs_section = "graph-files.md#known-answers"

    def __init__(self, provider: str, release: str, largest_difference: float, message: str) -> None:
        super().__init__(message)
        self.provider = provider
        self.release = release
        self.largest_difference = largest_difference


class MemoryLimitError(MemoryError, PxdbgError):  # in this order, because MemoryError has a constructor of its own
    """The call needs more memory or address space than is available.

    Attributes
    ----------
    needed_bytes : int or None
        Beside what this process holds already; None if it is unknown.
    """

    docs_section = "running.md#grid-slots"

    def __init__(self, needed_bytes: int | None, message: str) -> None:
        super().__init__(message)
        self.needed_bytes = needed_bytes


class ThreadLimitError(PxdbgError, RuntimeError):
    """The system started only `started` of the `asked` threads."""

    docs_section = "running.md#grid-slots"

    def __init__(self, asked: int, started: int, message: str) -> None:
        super().__init__(message)
        self.asked = asked
        self.started = started


class MissingPackageError(PxdbgError, ImportError):
    """The package with the import name `package` is not installed; `extra` of pxdbg-runtime installs it."""

    def __init__(self, package: str, extra: str, message: str) -> None:
        super().__init__(message)
        self.package = package
        self.extra = extra


class BrokenPackageError(MissingPackageError):
    """A package that this call needs is installed, but does not import or is too old."""


class MissingReleaseError(PxdbgError, ImportError):
    """The Python module `module`, which comes with a release of basf2, is missing."""

    docs_section = "basf2.md#a-steering-file"

    def __init__(self, module: str, message: str) -> None:
        super().__init__(message)
        self.module = module


class ModuleStateError(PxdbgError, RuntimeError):
    """A method of the basf2 module was called in the wrong state."""


_MAX_LINE_CHARACTERS: Final = 1000
"""Longer than any message of a library that says something; names in a hostile file may have megabytes."""


def one_line(error: BaseException) -> str:
    """Write the message of an exception on one line, cut if it is long; the name of its class if empty."""
    text = str(error)
    shown = " ".join(text[:_MAX_LINE_CHARACTERS].split()) or type(error).__name__
    return shown if len(text) <= _MAX_LINE_CHARACTERS else f"{shown}…"


def _cut(message: str) -> str:
    """Cut a long message: texts of a file are part of it."""
    return message if len(message) <= _MAX_LINE_CHARACTERS else f"{message[:_MAX_LINE_CHARACTERS]}…"
