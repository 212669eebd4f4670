"""Bad input, kind by kind: each ends in one clear sentence, the right exit code, and no file left behind.

A full disk is in test_wheel, which has a disk to fill.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
import torch
from typer.testing import CliRunner

from export.__main__ import app as export_app
from export.families.convnet import ConvNet
from export.families.resnet import ResNet
from pxdbg_runtime.command_line import app as pxdbg_app
from tests.bad_files import (
    Evil,
    bytes_of,
    flip,
    foreign_npz,
    foreign_onnx,
    foreign_parquet,
    graph_bytes,
    no_digits,
    remove,
    replace,
    resnet,
    set_value,
    torch_saved,
    truncated_safetensors,
    with_card,
)
from tests.checkpoints import light_state

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, kw_only=True)
class Bad:
    """A kind of bad input.

    Attributes
    ----------
    program : {"pxdbg", "export"}
    arguments : str
        Words of the command line; IN stands for the bad file, OUT for a file that must not appear.
    says : str
        What the message must say.
    exit_code : int
    make : callable or None
        Makes the bad file.
    """

    program: Literal["pxdbg", "export"]
    arguments: str
    says: str
    exit_code: int
    make: Callable[[Path], None] | None = None


EXPORT = "IN.pt --family resnet --output OUT"
EXPORT_ST = "IN.safetensors --family resnet --output OUT"
GENERATE = "generate --model IN.onnx --output OUT.npz"
OTHER_LATENT = {
    "latent_size": 32,
    "draws": [{"name": "latent", "shape": [40, 32]}],
}

BAD: dict[str, Bad] = {
    # Checkpoints
    "no such checkpoint": Bad(program="export", arguments=EXPORT, says="No such file", exit_code=1),
    "checkpoint is a folder": Bad(
        program="export", arguments=EXPORT, says="is a folder: expected a file", exit_code=1, make=Path.mkdir
    ),
    "checkpoint is empty": Bad(program="export", arguments=EXPORT, says="is empty", exit_code=1, make=bytes_of(b"")),
    "checkpoint is a text": Bad(
        program="export", arguments=EXPORT, says="is no checkpoint", exit_code=1, make=bytes_of(b"weights: none")
    ),
    "truncated zip": Bad(
        program="export",
        arguments=EXPORT,
        says="truncated",
        exit_code=1,
        make=torch_saved(lambda: ResNet().state_dict(), keep=0.5),
    ),
    "truncated legacy checkpoint": Bad(
        program="export",
        arguments=EXPORT,
        says="truncated or damaged",
        exit_code=1,
        make=torch_saved(lambda: ResNet().state_dict(), legacy=True, keep=0.5),
    ),
    "truncated safetensors": Bad(
        program="export",
        arguments=EXPORT_ST,
        says="truncated or damaged",
        exit_code=1,
        make=truncated_safetensors,
    ),
    "pickle that carries code": Bad(
        program="export",
        arguments=EXPORT,
        says="carries code (posix.mkdir)",
        exit_code=1,
        make=torch_saved(lambda: {"fc.weight": Evil()}),
    ),
    "pickled module": Bad(
        program="export",
        arguments=EXPORT,
        says="it holds a whole model; save the state dict alone",
        exit_code=1,
        make=torch_saved(ResNet),
    ),
    "missing key": Bad(
        program="export",
        arguments=EXPORT_ST,
        says="lacks fc.bias",
        exit_code=1,
        make=resnet(remove("fc.bias")),
    ),
    "unexpected key": Bad(
        program="export",
        arguments=EXPORT_ST,
        says="holds surplus",
        exit_code=1,
        make=resnet(replace("surplus", torch.zeros(1))),
    ),
    "wrong shape": Bad(
        program="export",
        arguments=EXPORT_ST,
        says="conv.weight of shape (1, 16, 5, 5): expected (1, 16, 3, 3)",
        exit_code=1,
        make=resnet(replace("conv.weight", torch.zeros(1, 16, 5, 5))),
    ),
    "value that is not a number": Bad(
        program="export",
        arguments=EXPORT_ST,
        says="holds nan in fc.bias",
        exit_code=1,
        make=resnet(set_value("fc.bias", float("nan"))),
    ),
    "negative running variance": Bad(
        program="export",
        arguments=EXPORT_ST,
        says="negative running variance, -2.0, in norm.running_var",
        exit_code=1,
        make=resnet(set_value("norm.running_var", -2.0)),
    ),
    "integer weights": Bad(
        program="export",
        arguments=EXPORT_ST,
        says="norm.weight as int64",
        exit_code=1,
        make=resnet(replace("norm.weight", torch.ones(16, dtype=torch.int64))),
    ),
    "checkpoint of the other model": Bad(
        program="export",
        arguments=EXPORT,
        says="is that of a convnet, not of a resnet: pass --family convnet",
        exit_code=1,
        make=torch_saved(lambda: {"state_dict": ConvNet().state_dict()}),
    ),
    "several state dicts": Bad(
        program="export",
        arguments=EXPORT,
        says="--state-key",
        exit_code=1,
        make=torch_saved(lambda: {key: light_state("resnet", value) for key, value in (("model", 0.25), ("ema", 0.5))}),
    ),
    "no state dict": Bad(
        program="export", arguments=EXPORT, says="it holds no tensors", exit_code=1, make=torch_saved(lambda: [1, 2])
    ),
    "unknown family": Bad(program="export", arguments="IN.pt --family gan --output OUT", says="--family", exit_code=2),
    "name that is a path": Bad(
        program="export", arguments=f"{EXPORT} --name ../../name", says="--name must hold only letters", exit_code=2
    ),
    # Graphs
    "no such graph": Bad(program="pxdbg", arguments=GENERATE, says="is not a file that exists", exit_code=1),
    "no such model": Bad(
        program="pxdbg",
        arguments="generate --model gan --output OUT.npz",
        says="expected convnet or resnet",
        exit_code=1,
    ),
    "graph is a folder": Bad(program="pxdbg", arguments=GENERATE, says="is a folder", exit_code=1, make=Path.mkdir),
    "graph is empty": Bad(program="pxdbg", arguments=GENERATE, says="is empty", exit_code=1, make=bytes_of(b"")),
    "graph is a text": Bad(
        program="pxdbg", arguments=GENERATE, says="is not an ONNX file", exit_code=1, make=bytes_of(b"a text" * 100)
    ),
    "truncated graph": Bad(
        program="pxdbg",
        arguments=GENERATE,
        says="is not an ONNX file, or is truncated",
        exit_code=1,
        make=graph_bytes(lambda content: content.__delitem__(slice(1_000_000, None))),
    ),
    "flipped byte in the weights": Bad(
        program="pxdbg", arguments=GENERATE, says="is damaged", exit_code=1, make=graph_bytes(flip(5_000_000))
    ),
    "flipped byte in the card": Bad(
        program="pxdbg", arguments=GENERATE, says="is damaged", exit_code=1, make=graph_bytes(flip(b'"thresholds"'))
    ),
    "foreign ONNX file": Bad(
        program="pxdbg", arguments=GENERATE, says="without a model card", exit_code=1, make=foreign_onnx
    ),
    "card of a newer release": Bad(
        program="pxdbg", arguments=GENERATE, says="upgrade pxdbg-runtime", exit_code=1, make=with_card(schema=3)
    ),
    "card with 254 thresholds": Bad(
        program="pxdbg",
        arguments=GENERATE,
        says="thresholds must be 255 numbers, but are 2",
        exit_code=1,
        make=with_card(thresholds=[0.0, 0.5]),
    ),
    "card with a wrong type": Bad(
        program="pxdbg", arguments=GENERATE, says="opset must be an integer", exit_code=1, make=with_card(opset="18")
    ),
    "graph that does not fit its card": Bad(
        program="pxdbg", arguments=GENERATE, says="does not fit its card", exit_code=1, make=with_card(**OTHER_LATENT)
    ),
    # Outputs
    "output of unknown format": Bad(
        program="pxdbg", arguments="generate --output OUT.root", says="must end in .parquet or .npz", exit_code=2
    ),
    "output in no folder": Bad(
        program="pxdbg", arguments="generate --output nowhere/OUT.npz", says="nowhere does not exist", exit_code=1
    ),
    "output where none can be written": Bad(
        program="pxdbg", arguments="generate --output /proc/OUT.npz", says="cannot be written", exit_code=1
    ),
    "picture of unknown format": Bad(
        program="pxdbg",
        arguments="plot IN.npz --output OUT.bmp",
        says="must end in the name of a picture format",
        exit_code=2,
        make=no_digits,
    ),
    # Arguments
    "no events": Bad(program="pxdbg", arguments="generate --events 0 --output OUT.npz", says="--events", exit_code=2),
    "negative event": Bad(
        program="pxdbg", arguments="generate --first-event -1 --output OUT.npz", says="--first-event", exit_code=2
    ),
    "events beyond the last": Bad(
        program="pxdbg",
        arguments=f"generate --first-event {2**63 - 1} --events 2 --output OUT.npz",
        says="beyond the last event number",
        exit_code=2,
    ),
    "seed of 64 bits and more": Bad(
        program="pxdbg", arguments=f"generate --seed {2**63} --output OUT.npz", says="--seed", exit_code=2
    ),
    "batch larger than an event": Bad(
        program="pxdbg", arguments="generate --batch-size 41 --output OUT.npz", says="--batch-size", exit_code=2
    ),
    "no threads": Bad(program="pxdbg", arguments="generate --nintra 0 --output OUT.npz", says="--nintra", exit_code=2),
    "charge above 8 bits": Bad(
        program="pxdbg", arguments="generate --min-charge 256 --output OUT.npz", says="--min-charge", exit_code=2
    ),
    "precision that is not shipped": Bad(
        program="pxdbg",
        arguments="generate --precision float16 --output OUT.npz",
        says="has no float16 graph",
        exit_code=2,
    ),
    "unknown stream": Bad(
        program="pxdbg", arguments="generate --random-stream mt --output OUT.npz", says="--random-stream", exit_code=2
    ),
    "unknown provider": Bad(
        program="pxdbg", arguments="generate --provider tpu --output OUT.npz", says="expected auto, ", exit_code=1
    ),
    "provider that is not installed": Bad(
        program="pxdbg", arguments="generate --provider cuda --output OUT.npz", says="onnxruntime-gpu", exit_code=1
    ),
    "provider that runs nothing": Bad(
        program="pxdbg",
        arguments="generate --provider azure --output OUT.npz",
        says="cannot run every node",
        exit_code=1,
    ),
    "option that is no pair": Bad(
        program="pxdbg", arguments="generate --provider-option a --output OUT.npz", says="KEY=VALUE", exit_code=2
    ),
    # Files of digits
    "no such digits": Bad(program="pxdbg", arguments="show IN.parquet", says="No such file", exit_code=1),
    "damaged digits": Bad(
        program="pxdbg", arguments="show IN.parquet", says="or is damaged", exit_code=1, make=bytes_of(b"PAR1" * 9)
    ),
    "foreign Parquet": Bad(
        program="pxdbg", arguments="show IN.parquet", says="not a file of digits", exit_code=1, make=foreign_parquet
    ),
    "foreign NPZ": Bad(
        program="pxdbg", arguments="show IN.npz", says="not a file of digits", exit_code=1, make=foreign_npz
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = BAD[kind]
    monkeypatch.chdir(tmp_path)
    arguments = bad.arguments.split()
    given = next((word for word in arguments if word.startswith("IN.")), None)
    if bad.make is not None and given is not None:
        bad.make(tmp_path / given)
    before = sorted(tmp_path.iterdir())

    app = {"pxdbg": pxdbg_app, "export": export_app}[bad.program]
    done = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, arguments)

    assert done.exit_code == bad.exit_code, done.output
    assert bad.says in " ".join(done.stderr.split())
    assert len(re.findall(r"^(?:Error: |╭─ Error )", done.stderr, re.MULTILINE)) == 1
    assert "Traceback" not in done.output
    assert sorted(tmp_path.iterdir()) == before
    assert not Path("/proc/OUT.npz").exists()
