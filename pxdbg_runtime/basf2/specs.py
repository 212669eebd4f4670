"""What a steering file says of the generator: the original's container, checked when it is made."""

from __future__ import annotations

import os
import shlex
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Final, Literal, TypedDict, get_args

from pxdbg_runtime.basf2.payloads import graph_payload_name
from pxdbg_runtime.errors import ArgumentTypeError, ArgumentValueError
from pxdbg_runtime.generator import PrecisionChoice
from pxdbg_runtime.inference.latents import RANDOM_STREAMS, RandomStreamName, check_seed
from pxdbg_runtime.limits.threads import check_thread_count
from pxdbg_runtime.model.builtin_models import read_manifest

__all__ = ["GLOBALTAG", "MODELS", "SHIPPED", "ModelName", "Specs", "SpecsFields"]

ModelName = Literal["convnet", "resnet", "ieagan"]
MODELS: Final[tuple[ModelName, ...]] = get_args(ModelName)
GLOBALTAG: Final = "PXDBackgroundGenerator"
"""The global tag that holds the payloads, if no other is named."""
SHIPPED: Final = "shipped:"
"""What a checkpoint begins with that is the name of a graph of this package."""

_PICKLE: Final = b"\x80"
_ZIP: Final = b"PK\x03\x04"
_SAFETENSORS: Final = ".safetensors"


class SpecsFields(TypedDict, total=False):
    """The arguments of `Specs`, for what passes them on."""

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
    """Which generator, and how it runs. Needs neither basf2 nor ROOT.

    Attributes
    ----------
    model : {"convnet", "resnet", "ieagan"}
        Family of the generator; a graph of another one is refused.
    checkpoint : str or Path, optional
        Path of a graph made by ``python -m export``; environment variables in it are replaced. A shipped graph must be
        asked for by its name: ``"shipped:resnet"``. If None, the payload ``PXDBackgroundGenerator_<model>_onnx`` of
        the global tag is used.
    seed : int, optional
        In [-2^63, 2^63 - 1]; derived from basf2's seed if None.
    nintra, ninter : int
        Threads within an operator, and operators at a time.
    globaltag : str
        Appended to basf2's global tags where the payload is used.
    precision : {"auto", "float32", "float16", "int8"}
        Of a shipped graph; any other has the one that it was exported with.
    provider : str
        ``auto``, ``cpu``, ``cuda``, or another execution provider of ONNX Runtime, by its name.
    random_stream : {"philox", "torch"}
        ``philox``: the background of an event depends on the seed and on the numbers of experiment, run and event.
        ``torch``: the original's sequence, which depends on how a job is split.

    Raises
    ------
    ArgumentTypeError
        If an argument has the wrong type.
    ArgumentValueError
        If a value makes no sense, there is no such file, or it is a checkpoint of PyTorch.

    Examples
    --------
    >>> Specs(model="resnet", checkpoint="shipped:resnet", seed=7).random_stream
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
            object.__setattr__(self, "checkpoint", _checked_checkpoint(self.checkpoint, self.model))

    @property
    def payload(self) -> str:
        """Name of the graph's payload in the conditions database."""
        return graph_payload_name(self.model)

    @property
    def given_model(self) -> str | Path | None:
        """What `pxdbg_runtime.Generator` takes: a graph's path, a shipped model's name, or None for the payload."""
        if isinstance(self.checkpoint, str):
            return self.checkpoint.removeprefix(SHIPPED)
        return self.checkpoint


def _check_choice(argument: str, value: object, choices: tuple[str, ...]) -> None:
    _check_text(argument, value)
    if value not in choices:
        message = f"{argument} must be one of {', '.join(choices)}, but is {value!r}."
        raise ArgumentValueError(argument, message)


def _check_text(argument: str, value: object) -> None:
    if not isinstance(value, str):
        message = f"{argument} must be a text, but is {value!r} ({type(value).__name__})."
        raise ArgumentTypeError(argument, message)
    if not value:
        message = f"{argument} must not be empty."
        raise ArgumentValueError(argument, message)


def _checked_checkpoint(checkpoint: object, model: str) -> str | Path:
    """Return the path of a graph, variables replaced, or the name of a shipped one as it is."""
    if not isinstance(checkpoint, (str, Path)):
        message = f"checkpoint must be the path of a graph, but is {checkpoint!r} ({type(checkpoint).__name__})."
        raise ArgumentTypeError("checkpoint", message)
    if isinstance(checkpoint, str) and checkpoint.startswith(SHIPPED):
        names = sorted({graph.name for graph in read_manifest()})
        if checkpoint.removeprefix(SHIPPED) not in names:
            message = (
                f"checkpoint {checkpoint!r} names no shipped graph: expected {SHIPPED}{f' or {SHIPPED}'.join(names)}."
            )
            raise ArgumentValueError("checkpoint", message)
        return checkpoint
    path = Path(os.path.expandvars(checkpoint))
    if not os.path.isfile(path):  # noqa: PTH113  # Path.is_file raises for a name that is too long
        message = f"checkpoint must be the path of a graph, but there is no file {path} (given as {str(checkpoint)!r})."
        raise ArgumentValueError("checkpoint", message)
    if _is_of_pytorch(path):
        message = (
            f"checkpoint {path} is a checkpoint of PyTorch, and this module runs graphs: where PyTorch is installed, "
            f"run `python -m export {shlex.quote(str(path))} --model {model} --output graphs` in a checkout of "
            "pxdbg_runtime once, and give the path of the graph that it writes."
        )
        raise ArgumentValueError("checkpoint", message)
    return path


def _is_of_pytorch(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(len(_ZIP))
    except OSError as error:
        message = f"checkpoint {path} cannot be read: {error.strerror}."
        raise ArgumentValueError("checkpoint", message) from None
    return start == _ZIP or start.startswith(_PICKLE) or path.suffix == _SAFETENSORS
