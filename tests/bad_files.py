"""Write bad files: checkpoints and graphs, each with one thing wrong."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import onnx
import safetensors.torch
import torch

from export.families.resnet import ResNet
from pxdbg_runtime.model.builtin_models import find_artifacts_folder, find_graph
from pxdbg_runtime.model.graph_file import CARD_KEY, DIGEST_KEY, append_card

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pxdbg_runtime.model.card import ModelCard

BUILTIN_GRAPH = find_artifacts_folder() / "resnet-float32.onnx"


class Evil:
    """Makes a folder in the working directory if its pickle is run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("evil",)


def write_resnet(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    """Make a checkpoint of the ResNet with something changed."""

    def make(path: Path) -> None:
        state = dict(ResNet().state_dict())
        change(state)
        safetensors.torch.save_file(state, path)

    return make


def set_value(key: str, value: float) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(state: dict[str, torch.Tensor]) -> None:
        state[key].flatten()[0] = value

    return change


def replace(key: str, tensor: torch.Tensor) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda state: state.update({key: tensor})


def remove(key: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(state: dict[str, torch.Tensor]) -> None:
        del state[key]

    return change


def save_with_torch(
    content: Callable[[], object], *, legacy: bool = False, keep: float = 1.0
) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        torch.save(content(), path, _use_new_zipfile_serialization=not legacy)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * keep)])

    return make


def write_truncated_safetensors(path: Path) -> None:
    safetensors.torch.save_file(ResNet().state_dict(), path)
    path.write_bytes(path.read_bytes()[:1_000_000])


def change_graph(change: Callable[[bytearray], object]) -> Callable[[Path], None]:
    """Make a copy of the built-in graph with some bytes changed."""

    def make(path: Path) -> None:
        content = bytearray(BUILTIN_GRAPH.read_bytes())
        change(content)
        path.write_bytes(content)

    return make


def flip(place: int | bytes) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        at = place if isinstance(place, int) else content.index(place) + 2
        content[at] ^= 0x10

    return change


def bare_model() -> onnx.ModelProto:
    """Load the built-in graph without its card."""
    model = onnx.load(BUILTIN_GRAPH)
    for entry in list(model.metadata_props):
        if entry.key in (CARD_KEY, DIGEST_KEY):
            model.metadata_props.remove(entry)
    return model


def write_card(**changes: object) -> Callable[[Path], None]:
    """Write the built-in graph with a changed card and a digest that matches."""

    class OtherCard:
        def to_json(self) -> str:
            return json.dumps({**json.loads(read_builtin_card().to_json()), **changes})

    def make(path: Path) -> None:
        path.write_bytes(append_card(bare_model().SerializeToString(), OtherCard()))  # type: ignore[arg-type]  # same method

    return make


def read_builtin_card() -> ModelCard:
    return find_graph("resnet", None).card


def write_foreign_onnx(path: Path) -> None:
    onnx.save(bare_model(), path)


def write_bytes(content: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(content)

    return make
