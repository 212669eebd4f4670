"""Read tensors and plain containers from pickled checkpoints; nothing that the file names is imported or run.

PyTorch's restricted unpickler (``weights_only=True``) refuses every name that it does not know. Training programs save
harmless objects beside the weights: NumPy scalars, paths, dates, configurations. Their names are read from the pickle
first, without unpickling it, and PyTorch gets a placeholder for each of them. Functions have no placeholder, so PyTorch
refuses them, except for the functions with which NumPy's and Python's own data are pickled.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import sys
import warnings
import zipfile
import zlib
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

import torch

from export.checkpoint.file_kinds import SAVE_ALONE
from export.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["LEGACY_MAGIC", "PickledContent", "explain_whole_model", "load_pickle"]

LEGACY_MAGIC: Final = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""The pickled number at the start of files of ``torch.save`` from before it wrote zip archives."""
_MODULES: Final = "torch.nn.modules."
_PROTOCOL: Final = 2
"""The pickle protocol that ``torch.save`` writes, and that PyTorch reads without running code."""
_N_LEGACY_PICKLES: Final = 4
"""Magic number, protocol, system, content; the names and the values of the storages follow."""

# Names of data. A class of any other package is also data if its name is capitalised: it is never imported, and is
# replaced by a placeholder.
_DATA: Final = re.compile(
    r"""
    numpy\.(core|_core)\.(multiarray\.(scalar|_reconstruct)|numeric\._frombuffer)
  | numpy\.(dtype|ndarray|generic|number|str_|bytes_|void|datetime64|timedelta64|bool_?|u?int\d*|float\d+|complex\d+)
  | numpy\.dtypes\.\w+
  | numpy\.random\.[\w.]+
  | torch\.(nn\.modules|optim|utils\.data|distributions)\.([\w.]+\.)?[A-Z]\w*
  | (builtins|types)\.(object|int|float|bool|str|bytes|list|tuple|dict|frozenset|range|slice|NoneType|SimpleNamespace)
  | collections\.(defaultdict|deque)
  | argparse\.Namespace
  | pathlib\.(_local\.)?(Pure)?(Posix|Windows)?Path
  | datetime\.(date|datetime|time|timedelta|timezone)
  | decimal\.Decimal | fractions\.Fraction | uuid\.\w+ | typing\.\w+ | functools\.partial
  | re\._compile | copyreg\._reconstructor
    """,
    re.VERBOSE,
)
_WITHOUT_ATTRIBUTES: Final = re.compile(r"numpy\.|functools\.|datetime\.|decimal\.|pathlib\.")
_PYTHON_2: Final = {
    "__builtin__ long": "builtins.int",
    "__builtin__ unicode": "builtins.str",
    "__builtin__ xrange": "builtins.range",
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
}
"""Names in pickles of protocol 2, and those of Python 3."""


@dataclass(frozen=True, kw_only=True)
class PickledContent:
    """The content of a checkpoint file.

    Attributes
    ----------
    content : object
        Tensors in dicts, lists and tuples; placeholders for all other objects.
    module : str or None
        Class of a pickled PyTorch module, if there is one.
    """

    content: object
    module: str | None = None


class _Placeholder:
    """Placeholder of an object that is not a tensor; the subclass has the name of its class."""

    def __new__(cls, *_arguments: object) -> _Placeholder:  # noqa: PYI034 - `cls` is not what a caller holds
        return super().__new__(cls)

    def __init__(self, *_arguments: object) -> None:
        """Ignore the arguments of the constructor."""

    def __setstate__(self, _state: object) -> None:
        """Ignore the state."""


class _Attributes:
    """Placeholder of an object or dictionary of some class: a dictionary that keeps the attributes.

    It also keeps what the class was called with, by number: the fields of a named tuple.
    """

    def __new__(cls, *arguments: object) -> OrderedDict[object, object]:  # type: ignore[misc]
        return OrderedDict(enumerate(arguments))


class _Items:
    """Placeholder of a queue: a list."""

    def __new__(cls, *_arguments: object) -> list[object]:  # type: ignore[misc]
        return []


def load_pickle(path: Path) -> PickledContent:
    """Read a file of ``torch.save``, zip or legacy.

    Raises
    ------
    CheckpointError
        If it contains code, or objects that no placeholder can replace.
    Exception
        Nearly any built-in exception, if the file is damaged.
    """
    names, protocol = _read_names(path)
    replaced = [name for name in names if _is_data(name)]
    module = next((name for name in names if name.startswith(_MODULES)), None)
    try:
        with (
            warnings.catch_warnings(),
            torch.serialization.safe_globals([(_choose_placeholder(name), name) for name in replaced]),
            path.open("rb") as file,  # from a path, torch.load decides by the suffix
        ):
            warnings.simplefilter("ignore")  # advice on the way in which the file was pickled
            content: object = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(path, _explain_refusal(str(error), protocol, module)) from None
    except (TypeError, ValueError, AttributeError):
        if not replaced:
            raise
        message = f"is damaged, or holds objects that cannot be ignored ({', '.join(replaced[:3])}): {SAVE_ALONE}."
        raise CheckpointError(path, message) from None
    return PickledContent(content=content, module=module)


def explain_whole_model(module: str) -> str:
    """Explain that a whole model was pickled, and what to do."""
    return f"contains code ({module}), which is never run: it holds a whole model; {SAVE_ALONE}."


def _choose_placeholder(name: str) -> Callable[..., object]:
    if name == "collections.deque":
        return _Items
    if _WITHOUT_ATTRIBUTES.match(name):
        class_name = "ndarray" if name.endswith("._reconstruct") else name.rpartition(".")[2]
        return type(class_name, (_Placeholder,), {})
    return _Attributes


def _is_data(name: str) -> bool:
    package, _, rest = name.partition(".")
    if _DATA.fullmatch(name):
        return True
    if package in sys.stdlib_module_names or package in {"numpy", "torch"}:
        return False
    return rest.rpartition(".")[2][:1].isupper()


def _read_names(path: Path) -> tuple[list[str], int]:
    """Read the names and the protocol of a pickle without unpickling it; no names if the file is damaged."""
    names: dict[str, None] = {}
    protocol = 0
    try:
        with _open_pickle(path) as (file, n_pickles):
            for _ in range(n_pickles):
                for opcode, argument, _position in pickletools.genops(file):
                    if opcode.name == "GLOBAL":
                        names[_join_name(str(argument))] = None
                    elif opcode.name == "PROTO" and isinstance(argument, int):
                        protocol = argument
    except (ValueError, LookupError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return [], protocol  # PyTorch's reader reports the damage
    return list(names), protocol


@contextmanager
def _open_pickle(path: Path) -> Iterator[tuple[IO[bytes], int]]:
    """Open the pickle of a checkpoint; also yields the number of consecutive pickles."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            yield file, _N_LEGACY_PICKLES
        return
    with zipfile.ZipFile(path) as archive:
        member = next(name for name in archive.namelist() if name.endswith("data.pkl") and name.count("/") <= 1)
        # A member of a zip file reads single bytes, as pickletools asks for, in Python.
        with archive.open(member) as unbuffered, io.BufferedReader(unbuffered) as buffered:  # type: ignore[type-var]
            yield buffered, 1


def _join_name(argument: str) -> str:
    """Join module and name of a GLOBAL, which are separated by a space."""
    if argument in _PYTHON_2:
        return _PYTHON_2[argument]
    module, _, name = argument.partition(" ")
    return f"{_PYTHON_2.get(module, module)}.{name}"


def _explain_refusal(text: str, protocol: int, module: str | None) -> str:
    """Explain why PyTorch's unpickler refused a file."""
    found = re.search(r"(?:Unsupported global: )?GLOBAL (\w[\w.]*)", text)
    if found:
        return f"contains code ({found[1]}), which is never run, or is truncated: {SAVE_ALONE}."
    if module is not None:
        return explain_whole_model(module)
    if "torch.distributed" in text:
        return "holds weights distributed over processes (DTensor): gather them with .full_tensor(), and save again."
    if "Unsupported operand" in text and protocol > _PROTOCOL:
        return (
            f"is pickled with protocol {protocol}, which does not separate data from code: save it again with "
            "torch.save, without pickle_protocol."
        )
    if "Unsupported operand" in text or "Unsupported class" in text or "find class" in text or "Can only" in text:
        return f"contains more than tensors ({_first_sentence(text)}): {SAVE_ALONE}."
    return f"is truncated or damaged: {_first_sentence(text)}."


def _first_sentence(text: str) -> str:
    """Return the message of the unpickler, without the advice of PyTorch."""
    line = text.rsplit("WeightsUnpickler error:", maxsplit=1)[-1].strip().split("\n")[0]
    return line.split(". ")[0].strip().rstrip(".")
