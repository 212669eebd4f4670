"""Options of an export are checked when they are given, and the family before any work."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from export.options import ExportOptions
from export.pipeline import export_checkpoint
from pxdbg_runtime.errors import ArgumentTypeError, ArgumentValueError
from tests.checkpoints import FlatNet, flat_checkpoint, register_family, use_known_flat_graph

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"precision": "bfloat16"}, "precision must be one of float32, float16, int8, but is 'bfloat16'."),
        ({"target": "rocm"}, "target must be one of cpu, cuda, but is 'rocm'."),
        ({"nature": "foo"}, "nature must be one of checkpoint, stand-in, demonstration, but is 'foo'."),
        ({"precision": "int8", "weight_bits": 4}, "weight_bits must lie between 7 and 8 bits, but is 4."),
        ({"weight_bits": 9}, "weight_bits must lie between 7 and 8 bits, but is 9."),
        ({"weight_bits": 8}, "weight_bits=8 is for int8, not for float32: use --precision int8."),
        (
            {"precision": "float16", "weight_bits": 8},
            "weight_bits=8 is for int8, not for float16: use --precision int8.",
        ),
        (
            {"accept_beyond_bounds": True},
            "accept_beyond_bounds is for float16 and int8, not for float32: leave out --accept-beyond-bounds.",
        ),
        ({"min_charge": 0}, "min_charge must lie between 1 and 255 ADU, but is 0."),
        (
            {"name": ""},
            (
                "--name must start with a letter or digit and hold only ASCII letters, digits, '.', '_' and '-', but "
                "is ''."
            ),
        ),
    ],
)
def test_a_value_that_is_not_offered_is_refused(options: dict[str, object], expected: str) -> None:
    with pytest.raises(ArgumentValueError, match=f"^{re.escape(expected)}$") as caught:
        ExportOptions(**options)  # type: ignore[arg-type]
    assert caught.value.argument == list(options)[-1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"name": 1}, r"^name must be text, but is 1 \(int\)\.$"),
        ({"state_key": 1}, r"^state_key must be text, but is 1 \(int\)\.$"),
        ({"provenance": b"x"}, r"^provenance must be text, but is b'x' \(bytes\)\.$"),
        ({"precision": None}, r"^precision must be text, but is None \(NoneType\)\.$"),
        ({"weight_bits": 7.0}, r"^weight_bits must be an integer, but is 7\.0 \(float\)\.$"),
        ({"accept_beyond_bounds": "no"}, r"^accept_beyond_bounds must be True or False, but is 'no'\.$"),
    ],
)
def test_a_value_of_another_type_is_refused(options: dict[str, object], expected: str) -> None:
    with pytest.raises(ArgumentTypeError, match=expected):
        ExportOptions(**options)  # type: ignore[arg-type]


def test_bits_of_numpy_become_an_integer() -> None:
    bits = ExportOptions(precision="int8", weight_bits=np.int64(8)).weight_bits  # type: ignore[arg-type]
    assert (bits, type(bits)) == (8, int)


@pytest.mark.parametrize("family", ["resnets", ""])
def test_an_unknown_family_is_refused(tmp_path: Path, family: str) -> None:
    with pytest.raises(ArgumentValueError, match=rf"^family must be one of .*resnet.*, but is '{family}'\.$"):
        export_checkpoint(tmp_path / "gone.pt", family, tmp_path / "graphs")
    assert not (tmp_path / "graphs").exists()


@pytest.mark.parametrize("given", [None, os.fsdecode(b"Trained at the \xff.")])
def test_a_provenance_that_is_not_utf_8_is_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    register_family(monkeypatch, "flat", FlatNet)
    use_known_flat_graph(monkeypatch)
    checkpoint = flat_checkpoint(tmp_path).rename(tmp_path / os.fsdecode(b"flat\xff.pt"))
    graph = export_checkpoint(checkpoint, "flat", tmp_path, ExportOptions(provenance=given))
    expected = r"Trained at the \udcff." if given else r"Weights of the checkpoint flat\udcff.pt."
    assert graph.card.provenance == expected
