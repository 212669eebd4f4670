"""The exceptions of this package; each subclasses the built-in one that a caller expects.

Every message is one sentence or two: what was expected, what came, what to do. An exception has the arguments of its
constructor, the message aside, as attributes. The docstring of a class says when it is raised and, in its second
paragraph, what to do: the documentation prints both (docs/conf.py).
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
    """An argument of the right type has an invalid value.

    Pass a value that the message admits; ``pxdbg COMMAND --help`` describes all options.
    """


class ArgumentTypeError(_ArgumentError, TypeError):
    """An argument has the wrong type.

    Pass an object of the type that the message names.
    """


class JsonFieldError(PxdbgError, ValueError):
    """A field of a JSON object is missing or invalid.

    Write the file again with the program that wrote it: such files are not for editing by hand.

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

    Export the checkpoint again; if the message calls the card newer, upgrade pxdbg-runtime.

    Attributes
    ----------
    field : str
        Name of the field, dotted where it is nested.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"The model card is not valid: {_cut(message)}")
        self.field = field


class GraphFileError(_FileError, ValueError):
    """A file is not a graph that this package can run.

    Pass a graph that ``python -m export`` wrote; if it is damaged or of an old release, export the checkpoint again.
    """


class ManifestError(_FileError, RuntimeError):
    """The manifest of the built-in graphs is missing or does not match the files beside it.

    Install pxdbg-runtime again; in a checkout, ``python -m export.manifest artifacts`` writes it anew.
    """

    docs_section = "graph-files.md#the-manifest"


class ModelNotFoundError(PxdbgError, FileNotFoundError):
    """Neither a built-in model nor a file has the name `model`; `available` are the names of the built-in models.

    Pass one of those names, or the path of a graph, which ends in ``.onnx``.
    """

    def __init__(self, model: str, available: Sequence[str], message: str) -> None:
        super().__init__(message)
        self.model = model
        self.available = tuple(available)


class DigitFileError(_FileError, ValueError):
    """A digit file cannot be read.

    If it is damaged, generate it again: ``pxdbg show`` of a sound copy prints model and seed. If another tool wrote
    it, give it the five columns as integers.
    """


class MarginalsError(_FileError, ValueError):
    """A file of published marginals cannot be read.

    Correct the field that the message names.
    """

    docs_section = "validation.md#a-file-of-published-marginals"


class OutputError(_FileError, OSError):
    """A file could not be written; nothing was left behind.

    Free disk space, correct the permissions, or choose another output; an older file of this name is intact.
    """


class CampaignError(_FileError, RuntimeError):
    """A campaign's plan, graph or partition at `path` is not what it should be, or its partitions cannot be made.

    ``pxdbg campaign status`` says what failed, and ``pxdbg campaign run`` makes damaged and missing partitions again.
    """

    docs_section = "campaigns.md#on-one-machine"


class SchedulerError(PxdbgError, ConnectionError):
    """No Dask scheduler answers at `address`, or its workers are lost one after the other.

    Start a scheduler (``dask scheduler``) and pass the address that it prints. Why workers are lost is in their logs.
    """

    docs_section = "campaigns.md#on-dask"

    def __init__(self, address: str, message: str) -> None:
        super().__init__(message)
        self.address = address


class MachineMismatchError(PxdbgError, RuntimeError):
    """Digits from this machine are not known to be the same as those from the machine of a campaign's plan.

    Also raised if the machine does not run the graph, or computes it wrongly. Run the partition on a machine like that
    of the plan, plan in int8, or accept small differences by ``--allow-mixed-hardware``.
    """

    docs_section = "campaigns.md#on-which-machines"


class ImageError(PxdbgError, ValueError):
    """Images have the wrong shape or type, or hold values that are not numbers.

    Images of a generator: the graph computes nonsense here, and ``pxdbg check`` says on which provider. Images of
    your own: pass (n, 250, 768), float32 within [-1, 1] or uint8.
    """

    docs_section = "running.md#digits"


class ProviderError(PxdbgError, RuntimeError):
    """An execution provider cannot run here.

    ``pxdbg providers`` says of each provider what is missing; ``provider="auto"`` takes one that runs.

    Attributes
    ----------
    provider : str
        ONNX Runtime's name of it; the requested name in lower case if ONNX Runtime offers no such provider.
    """

    docs_section = "running.md#providers"

    def __init__(self, provider: str, message: str) -> None:
        super().__init__(message)
        self.provider = provider


class InferenceError(PxdbgError, RuntimeError):
    """ONNX Runtime could not create a session for a graph, or failed while it ran one.

    ``pxdbg doctor GRAPH`` tries the graph on this machine. After a fork, create the generator in the process that
    uses it.
    """

    docs_section = "running.md#threads-processes-and-signals"


class KnownAnswerError(PxdbgError, RuntimeError):
    """The installed ONNX Runtime computes wrong outputs for the known images of a graph on this machine.

    Install another release of ONNX Runtime, or name another provider; ``pxdbg check`` computes all known images on
    all providers.

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

    Raise the limit of the job to what the message says, or take a smaller batch, fewer threads, or int8.

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
    """The system started only `started` of the `asked` threads.

    Raise the limit (``ulimit -u``), or ask for fewer threads: ``nintra``, ``ninter``.
    """

    docs_section = "running.md#grid-slots"

    def __init__(self, asked: int, started: int, message: str) -> None:
        super().__init__(message)
        self.asked = asked
        self.started = started


class MissingPackageError(PxdbgError, ImportError):
    """The package with the import name `package` is not installed; `extra` of pxdbg-runtime installs it.

    Run the command in the message.
    """

    def __init__(self, package: str, extra: str, message: str) -> None:
        super().__init__(message)
        self.package = package
        self.extra = extra


class BrokenPackageError(MissingPackageError):
    """A package that this call needs is installed, but does not import or is too old.

    Run the command in the message, which installs it again.
    """


class MissingReleaseError(PxdbgError, ImportError):
    """The Python module `module`, which comes with a release of basf2, is missing.

    Set up a release in this shell, and run the steering file by ``basf2``.
    """

    docs_section = "basf2.md#a-steering-file"

    def __init__(self, module: str, message: str) -> None:
        super().__init__(message)
        self.module = module


class ModuleStateError(PxdbgError, RuntimeError):
    """A method of the basf2 module was called in the wrong state.

    Add the module to a path: basf2 calls its methods in the right order.
    """


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
