"""The specification of the generator in a steering file: the original's container, with checks."""

from __future__ import annotations

import os
import shlex
import stat
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Final, Literal, TypedDict, get_args

from pxdbg_runtime.basf2.payloads import graph_payload_name
from pxdbg_runtime.checks import check_seed
from pxdbg_runtime.errors import ArgumentTypeError, ArgumentValueError
from pxdbg_runtime.generator import PrecisionChoice
from pxdbg_runtime.inference.latents import RANDOM_STREAMS, RandomStreamName
from pxdbg_runtime.limits.threads import check_thread_count
from pxdbg_runtime.model.builtin_models import read_manifest

__all__ = ["BUILTIN_PREFIX", "GLOBALTAG", "MODELS", "ModelName", "Specs", "SpecsFields"]

ModelName = Literal["convnet", "resnet", "ieagan"]
MODELS: Final[tuple[ModelName, ...]] = get_args(ModelName)
"""The families that basf2's interface names."""
GLOBALTAG: Final = "PXDBackgroundGenerator"
"""Default global tag of the payloads."""
BUILTIN_PREFIX: Final = "builtin:"
"""Prefix of a checkpoint that is the name of a built-in model."""

_PICKLE: Final = b"\x80"
_ZIP: Final = b"PK\x03\x04"
_SAFETENSORS: Final = ".safetensors"


class SpecsFields(TypedDict, total=False):
    """The arguments of `Specs`, for functions that pass them on."""

    model: ModelName
    checkpoint: str | Path | None
    seed: int | None
    nintra: int
    ninter: int
    globaltag: str
    precision: PrecisionChoice
    provider: str
    random_stream: RandomStreamName


@dataclass(frozen=True)
class Specs:
    """Which generator to run, and how. Needs neither basf2 nor ROOT.

    Attributes
    ----------
    model : {"convnet", "resnet", "ieagan"}
        Family of the generator; a graph of another family is refused.
    checkpoint : str or Path, optional
        Path of a graph from ``python -m export``; environment variables in it are expanded. A built-in model must be
        named explicitly: ``"builtin:resnet"``. If None, the payload ``PXDBackgroundGenerator_<model>_onnx`` of the
        global tag is used.
    seed : int, optional
        In [-2^63, 2^63 - 1]; derived from basf2's seed if None.
    nintra, ninter : int
        Threads within an operator, and operators at a time.
    globaltag : str
        Appended to basf2's global tags if the payload is used.
    precision : {"auto", "float32", "float16", "int8"}
        Of a built-in model; any other graph has the precision of its export.
    provider : str
        ``auto``, ``cpu``, ``cuda``, or the name of another execution provider of ONNX Runtime.
    random_stream : {"philox", "torch"}
        ``philox``: the background of an event depends on the seed and the numbers of experiment, run and event.
        ``torch``: the original's sequence, which depends on how a production is split into jobs.

    Raises
    ------
    ArgumentTypeError
        If an argument has the wrong type.
    ArgumentValueError
        If a value is not valid, the file does not exist, or it is a checkpoint of PyTorch.

    Examples
    --------
    >>> Specs(model="resnet", checkpoint="builtin:resnet", seed=7).random_stream
    'philox'
    """

    model: ModelName = "convnet"
    checkpoint: str | Path | None = None
    seed: int | None = None
    nintra: int = 1
    ninter: int = 1
    globaltag: str = GLOBALTAG
    _: KW_ONLY
    precision: PrecisionChoice = "auto"
    provider: str = "auto"
    random_stream: RandomStreamName = "philox"

    def __post_init__(self) -> None:
        _check_choice("model", self.model, MODELS)
        _check_choice("precision", self.precision, get_args(PrecisionChoice))
        _check_choice("random_stream", self.random_stream, RANDOM_STREAMS)
        _check_text("provider", self.provider)
        _check_text("globaltag", self.globaltag)
        check_thread_count("nintra", self.nintra)
        check_thread_count("ninter", self.ninter)
        if self.seed is not None:
            object.__setattr__(self, "seed", check_seed(self.seed))
        if self.checkpoint is not None:
            object.__setattr__(self, "checkpoint", _parse_checkpoint(self.checkpoint, self.model))

    @property
    def payload(self) -> str:
        """Name of the graph's payload in the conditions database."""
        return graph_payload_name(self.model)

    @property
    def given_model(self) -> str | Path | None:
        """Model for `pxdbg_runtime.Generator`: path of a graph, name of a built-in model, or None for the payload."""
        if isinstance(self.checkpoint, str):
            return self.checkpoint.removeprefix(BUILTIN_PREFIX)
        return self.checkpoint


def _check_choice(argument: str, value: object, choices: tuple[str, ...]) -> None:
    _check_text(argument, value)
    if value not in choices:
        raise ArgumentValueError(argument, f"{argument} must be one of {', '.join(choices)}, but is {value!r}.")


def _check_text(argument: str, value: object) -> None:
    if not isinstance(value, str):
        raise ArgumentTypeError(argument, f"{argument} must be text, but is {value!r} ({type(value).__name__}).")
    if not value:
        raise ArgumentValueError(argument, f"{argument} must not be empty.")


def _parse_checkpoint(checkpoint: object, model: str) -> str | Path:
    """Return the path of a graph with variables expanded, or an explicit built-in model unchanged."""
    if not isinstance(checkpoint, (str, Path)):
        message = f"checkpoint must be the path of a graph, but is {checkpoint!r} ({type(checkpoint).__name__})."
        raise ArgumentTypeError("checkpoint", message)
    if isinstance(checkpoint, str) and checkpoint.startswith(BUILTIN_PREFIX):
        names = sorted({graph.name for graph in read_manifest()})
        if checkpoint.removeprefix(BUILTIN_PREFIX) not in names:
            expected = " or ".join(f"{BUILTIN_PREFIX}{name}" for name in names)
            message = f"checkpoint {checkpoint!r} names no built-in model: expected {expected}."
            raise ArgumentValueError("checkpoint", message)
        return checkpoint
    path = Path(os.path.expandvars(checkpoint))
    if not _is_file(path):
        message = f"checkpoint must be the path of a graph, but there is no file {path} (given as {str(checkpoint)!r})."
        raise ArgumentValueError("checkpoint", message)
    if _is_pytorch_checkpoint(path):
        message = (
            f"checkpoint {path} is a checkpoint of PyTorch, but this module runs graphs: where PyTorch is installed, "
            f"run `python -m export {shlex.quote(str(path))} --family {model} --output graphs` once in a checkout of "
            "pxdbg_runtime, and pass the path of the graph that it writes."
        )
        raise ArgumentValueError("checkpoint", message)
    return path


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:  # which reading it reports
        return True


def _is_pytorch_checkpoint(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(len(_ZIP))
    except OSError as error:
        raise ArgumentValueError("checkpoint", f"checkpoint {path} cannot be read: {error.strerror}.") from None
    return start == _ZIP or start.startswith(_PICKLE) or path.suffix == _SAFETENSORS
