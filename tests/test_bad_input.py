"""Bad checkpoints and graphs: each ends in one clear sentence, the right exit code, and no file left behind.

Bad arguments are in test_command_line, bad digit files in test_command_line_inspection and test_bad_digit_files; a
full disk is in test_wheel, which has a disk to fill.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from typer.testing import CliRunner

from export.__main__ import app as export_app
from export.families.convnet import ConvNet
from export.families.resnet import ResNet
from pxdbg_runtime.command_line import app as pxdbg_app
from tests.bad_files import (
    Evil,
    change_graph,
    flip,
    remove,
    replace,
    save_with_torch,
    set_value,
    write_bytes,
    write_card,
    write_foreign_onnx,
    write_resnet,
    write_truncated_safetensors,
)
from tests.checkpoints import light_state

EXPORT: Final = "IN.pt --family resnet --output OUT"
EXPORT_ST: Final = "IN.safetensors --family resnet --output OUT"
GENERATE: Final = "generate --model IN.onnx --output OUT.npz"
OTHER_LATENT: Final = {"latent_size": 32, "draws": [{"name": "latent", "shape": [40, 32]}]}

# Words of the command line, where IN stands for the bad file and OUT for a file that must not appear; what the message
# must say; the exit code; and the function that writes the bad file.
BAD_EXPORTS: Final[dict[str, tuple[Any, ...]]] = {
    "no such checkpoint": (EXPORT, "No such file", 1),
    "checkpoint is a folder": (EXPORT, "is a folder: expected a file", 1, Path.mkdir),
    "checkpoint is empty": (EXPORT, "is empty", 1, write_bytes(b"")),
    "checkpoint is a text": (EXPORT, "is not a checkpoint", 1, write_bytes(b"weights: none")),
    "truncated zip": (EXPORT, "truncated", 1, save_with_torch(lambda: ResNet().state_dict(), keep=0.5)),
    "truncated legacy checkpoint": (
        EXPORT,
        "truncated or damaged",
        1,
        save_with_torch(lambda: ResNet().state_dict(), legacy=True, keep=0.5),
    ),
    "truncated safetensors": (EXPORT_ST, "truncated or damaged", 1, write_truncated_safetensors),
    "pickle that contains code": (
        EXPORT,
        "contains code (posix.mkdir)",
        1,
        save_with_torch(lambda: {"fc.weight": Evil()}),
    ),
    "pickled module": (EXPORT, "it holds a whole model; save the state dict alone", 1, save_with_torch(ResNet)),
    "missing key": (EXPORT_ST, "lacks fc.bias", 1, write_resnet(remove("fc.bias"))),
    "unexpected key": (EXPORT_ST, "holds surplus", 1, write_resnet(replace("surplus", torch.zeros(1)))),
    "wrong shape": (
        EXPORT_ST,
        "conv.weight of shape (1, 16, 5, 5): expected (1, 16, 3, 3)",
        1,
        write_resnet(replace("conv.weight", torch.zeros(1, 16, 5, 5))),
    ),
    "value that is not a number": (
        EXPORT_ST,
        "holds nan in fc.bias",
        1,
        write_resnet(set_value("fc.bias", float("nan"))),
    ),
    "negative running variance": (
        EXPORT_ST,
        "negative running variance, -2.0, in norm.running_var",
        1,
        write_resnet(set_value("norm.running_var", -2.0)),
    ),
    "integer weights": (
        EXPORT_ST,
        "norm.weight as int64",
        1,
        write_resnet(replace("norm.weight", torch.ones(16, dtype=torch.int64))),
    ),
    "checkpoint of the other model": (
        EXPORT,
        "is of the family convnet, not resnet: pass --family convnet",
        1,
        save_with_torch(lambda: {"state_dict": ConvNet().state_dict()}),
    ),
    "several state dicts": (
        EXPORT,
        "--state-key",
        1,
        save_with_torch(lambda: {key: light_state("resnet", value) for key, value in (("model", 0.25), ("ema", 0.5))}),
    ),
    "no state dict": (EXPORT, "it holds no tensors", 1, save_with_torch(lambda: [1, 2])),
    "unknown family": ("IN.pt --family gan --output OUT", "--family", 2),
    "name that is a path": (f"{EXPORT} --name ../../name", "--name must start with a letter or digit", 2),
}
BAD_RUNS: Final[dict[str, tuple[Any, ...]]] = {
    # Graphs
    "no such graph": (GENERATE, "is not a file that exists", 1),
    "no such model": ("generate --model gan --output OUT.npz", "expected convnet or ieagan or resnet", 1),
    "graph is a folder": (GENERATE, "is a folder", 1, Path.mkdir),
    "graph is empty": (GENERATE, "is empty", 1, write_bytes(b"")),
    "graph is a text": (GENERATE, "is not an ONNX file", 1, write_bytes(b"a text" * 100)),
    "truncated graph": (
        GENERATE,
        "is not an ONNX file, or is truncated",
        1,
        change_graph(lambda content: content.__delitem__(slice(1_000_000, None))),
    ),
    "flipped byte in the weights": (GENERATE, "is damaged", 1, change_graph(flip(5_000_000))),
    "flipped byte in the card": (GENERATE, "is damaged", 1, change_graph(flip(b'"thresholds"'))),
    "foreign ONNX file": (GENERATE, "without a model card", 1, write_foreign_onnx),
    "card of a newer release": (GENERATE, "upgrade pxdbg-runtime", 1, write_card(schema=4)),
    "card with 254 thresholds": (
        GENERATE,
        "thresholds must be 255 numbers, but are 2",
        1,
        write_card(thresholds=[0.0, 0.5]),
    ),
    "card with a wrong type": (GENERATE, "opset must be an integer", 1, write_card(opset="18")),
    "graph that does not fit its card": (GENERATE, "does not fit its card", 1, write_card(**OTHER_LATENT)),
    # Outputs
    "output where none can be written": ("generate --output /proc/OUT.npz", "cannot be written", 1),
    "precision that is not shipped": ("generate --precision float16 --output OUT.npz", "has no float16 graph", 2),
}


@pytest.mark.parametrize("kind", [*BAD_EXPORTS, *BAD_RUNS])
def test_bad_input(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app, (words, says, exit_code, *make) = (
        (export_app, BAD_EXPORTS[kind]) if kind in BAD_EXPORTS else (pxdbg_app, BAD_RUNS[kind])
    )
    monkeypatch.chdir(tmp_path)
    arguments = words.split()
    for write in make:
        write(tmp_path / next(word for word in arguments if word.startswith("IN.")))
    before = sorted(tmp_path.iterdir())
    done = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, arguments)
    assert done.exit_code == exit_code, done.output
    assert says in " ".join(done.stderr.split())
    assert len(re.findall(r"^(?:Error: |╭─ Error )", done.stderr, re.MULTILINE)) == 1
    assert "Traceback" not in done.output
    assert sorted(tmp_path.iterdir()) == before
    assert not Path("/proc/OUT.npz").exists()
