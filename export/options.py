"""The options of an export, and the checks of their values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from export.int8.weights import WeightBits
from export.model_names import check_name
from pxdbg_runtime.checks import check_integer
from pxdbg_runtime.errors import ArgumentTypeError, ArgumentValueError
from pxdbg_runtime.model.card import N_THRESHOLDS, Nature, Precision, Target

__all__ = ["ExportOptions", "check_choice", "check_text"]


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of an export.

    Attributes
    ----------
    name : str or None
        Name of the model. None derives it from the name of the checkpoint file.
    state_key : str or None
        Path of the state dict in the checkpoint, such as ``g_ema`` or ``ema.shadow``, if several fit the family.
    nature : {"checkpoint", "stand-in", "demonstration"}
        Kind of the weights. A file that is marked as a demonstration or a stand-in is not called a checkpoint.
    provenance : str or None
        Origin of the weights, in words.
    precision : {"float32", "float16", "int8"}
    target : {"cpu", "cuda"}
        Execution provider that the graph is optimised for; int8 is for the CPU. A graph for CUDA outputs charges.
    rewrite : bool
        False keeps the graph of PyTorch's exporter, for comparisons, in float32 for the CPU.
    weight_bits : {7, 8}
        Bits of the weights of an int8 graph. With 7 every CPU computes the same digits, with 8 only CPUs with VNNI do.
    min_charge : int or None
        Smallest charge of a hit, ADU. None takes the family's, which is the original's.
    accept_beyond_bounds : bool
        Write a float16 or int8 graph even if its digits are too far from float32's; refused for float32.
    overwrite : bool
        Whether an existing graph may be replaced.
    explain : bool
        Log the changes and savings of each pass.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If an option has another type or is out of range, or two exclude each other.
    """

    name: str | None = None
    state_key: str | None = None
    nature: Nature = "checkpoint"
    provenance: str | None = None
    precision: Precision = "float32"
    target: Target = "cpu"
    rewrite: bool = True
    weight_bits: WeightBits = 7
    min_charge: int | None = None
    accept_beyond_bounds: bool = False
    overwrite: bool = False
    explain: bool = False

    def __post_init__(self) -> None:
        for argument, choices in (("nature", Nature), ("precision", Precision), ("target", Target)):
            check_choice(argument, getattr(self, argument), get_args(choices))
        for argument in ("name", "state_key", "provenance"):
            if getattr(self, argument) is not None:
                check_text(argument, getattr(self, argument))
        for argument in ("rewrite", "accept_beyond_bounds", "overwrite", "explain"):
            if not isinstance(flag := getattr(self, argument), bool):
                raise ArgumentTypeError(argument, f"{argument} must be True or False, but is {flag!r}.")
        if not self.rewrite and (self.precision, self.target) != ("float32", "cpu"):
            message = "rewrite=False is for float32 on the CPU: other precisions and targets need the rewriting passes."
            raise ArgumentValueError("rewrite", message)
        if (self.precision, self.target) == ("int8", "cuda"):
            message = "int8 graphs consist of operators that ONNX Runtime has only for the CPU: use --target cpu."
            raise ArgumentValueError("target", message)
        bits = check_integer("weight_bits", self.weight_bits, *get_args(WeightBits), unit="bits")
        object.__setattr__(self, "weight_bits", bits)
        if bits == 8 and self.precision != "int8":
            message = f"weight_bits=8 is for int8, not for {self.precision}: use --precision int8."
            raise ArgumentValueError("weight_bits", message)
        if self.accept_beyond_bounds and self.precision == "float32":
            message = "accept_beyond_bounds is for float16 and int8, not for float32: leave out --accept-beyond-bounds."
            raise ArgumentValueError("accept_beyond_bounds", message)
        if self.min_charge is not None:
            check_integer("min_charge", self.min_charge, 1, N_THRESHOLDS, unit="ADU")
        if self.name is not None:
            check_name(self.name)


def check_choice(argument: str, value: object, choices: tuple[str, ...]) -> None:
    """Check that an argument is one of some words.

    Raises
    ------
    ArgumentTypeError
        If it is not text.
    ArgumentValueError
        If it is another word.
    """
    check_text(argument, value)
    if value not in choices:
        raise ArgumentValueError(argument, f"{argument} must be one of {', '.join(choices)}, but is {value!r}.")


def check_text(argument: str, value: object) -> None:
    """Check that an argument is text; raises `ArgumentTypeError` if it is not."""
    if not isinstance(value, str):
        raise ArgumentTypeError(argument, f"{argument} must be text, but is {value!r} ({type(value).__name__}).")
