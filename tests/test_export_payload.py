"""``python -m export payload``: graphs become payloads that the basf2 module, and our own client, can read."""

from __future__ import annotations

import hashlib
import re
import shutil
from typing import TYPE_CHECKING

import pytest
from msgspec import structs
from typer.testing import CliRunner

from export.conditions.fetching import fetch_payload
from export.payload import app, write_payloads, write_testing_payloads
from pxdbg_runtime.errors import ArgumentValueError, GraphFileError, OutputError
from pxdbg_runtime.model.card import Fidelity
from pxdbg_runtime.model.graph_file import read_graph_file
from tests.conditions_server import TAG, ConditionsServer, answer_json, files
from tests.graphs import LATENT_CARD, latent_model, write_graph

if TYPE_CHECKING:
    from pathlib import Path

    from pxdbg_runtime.model.card import ModelCard
    from pxdbg_runtime.model.graph_file import GraphFile

RESNET = structs.replace(LATENT_CARD, name="mine", family="resnet")
CONVNET = structs.replace(LATENT_CARD, name="mine", family="convnet")
FIDELITY = Fidelity(images=800, charge_w1_adu=0.125, occupancy_ratio=1.0, identical_digits=0.75)
INT8 = structs.replace(RESNET, precision="int8", weight_bits=7, fidelity=FIDELITY)
NAME = "PXDBackgroundGenerator_resnet_onnx"


def graph(path: Path, card: ModelCard) -> GraphFile:
    return write_graph(path, latent_model(), card)


def md5_of(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_each_family_becomes_a_payload_byte_for_byte(tmp_path: Path) -> None:
    paths = {
        "convnet": graph(tmp_path / "a-float32.onnx", CONVNET).path,
        "resnet": graph(tmp_path / "b-float32.onnx", RESNET).path,
    }
    graph(tmp_path / "b-int8.onnx", INT8)
    (tmp_path / "notes.txt").write_text("no graph")
    made = write_payloads(tmp_path, tmp_path / "out", revision=4)
    assert [each.name for each in made] == ["PXDBackgroundGenerator_convnet_onnx", NAME]
    for family, each in zip(paths, made, strict=True):
        md5 = md5_of(paths[family])
        assert each.md5 == md5
        assert each.path == tmp_path / "out" / md5[:2] / f"PXDBackgroundGenerator_{family}_onnx_r4.root"
        assert each.path.read_bytes() == paths[family].read_bytes()
        assert read_graph_file(each.path).card.family == family
    assert len(files(tmp_path / "out")) == 2


def test_a_payload_is_what_was_checked_even_if_the_file_is_replaced_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = graph(tmp_path / "mine.onnx", RESNET).path.read_bytes()

    def read_and_replace(path: Path) -> GraphFile:
        read = read_graph_file(path)
        path.write_bytes(b"another file")
        return read

    monkeypatch.setattr("export.payload.read_graph_file", read_and_replace)
    (made,) = write_payloads(tmp_path, tmp_path / "out")
    assert made.path.read_bytes() == whole
    assert made.md5 == hashlib.md5(whole).hexdigest()


def test_the_command_says_what_it_wrote(tmp_path: Path) -> None:
    path = graph(tmp_path / "mine-int8.onnx", INT8).path
    result = CliRunner().invoke(app, [str(tmp_path), "--precision", "int8"])
    md5 = md5_of(path)
    place = tmp_path / "payloads" / md5[:2] / f"{NAME}_r1.root"
    assert (result.exit_code, result.stderr) == (0, "")
    index = tmp_path / "testing-payloads" / "database.txt"
    assert result.stdout == (
        f"wrote {place}: payload {NAME} revision 1, MD5 {md5}, from mine-int8.onnx\n"
        f"wrote {index}: testing payloads for all runs\n"
    )
    assert place.exists()
    assert index.read_text() == f"dbstore/{NAME} 1 0,0,-1,-1\n"
    assert md5_of(index.with_name(f"dbstore_{NAME}_rev_1.root")) == md5


def test_float16_graphs_are_those_for_cuda_unless_told_otherwise(tmp_path: Path) -> None:
    for target in ("cpu", "cuda"):
        card = structs.replace(RESNET, precision="float16", fidelity=FIDELITY, target=target)
        graph(tmp_path / f"{target}.onnx", card)
    results = [
        CliRunner().invoke(app, [str(tmp_path), "--precision", "float16", *options]).stdout.splitlines()[0].split()[-1]
        for options in ((), ("--target", "cpu"))
    ]
    assert results == ["cuda.onnx", "cpu.onnx"]


def test_the_layout_is_that_of_a_cache(server: ConditionsServer, tmp_path: Path) -> None:
    graph(tmp_path / "mine.onnx", RESNET)
    (made,) = write_payloads(tmp_path, tmp_path / "cache")
    server.steps["list"] = [answer_json([server.entry(name=NAME, revision=1, checksum=made.md5)])]
    found = fetch_payload(NAME, TAG, sources=(server.url,), cache=tmp_path / "cache")
    assert (found.path, found.url) == (made.path, None)
    assert server.n_files() == 0


def test_testing_payloads_are_read_in_the_layout_of_basf2(server: ConditionsServer, tmp_path: Path) -> None:
    graph(tmp_path / "mine.onnx", RESNET)
    (made,) = write_payloads(tmp_path, tmp_path / "out", revision=7)
    index = write_testing_payloads((made,), tmp_path / "new" / "testing")
    flat = tmp_path / "new" / "testing" / f"dbstore_{NAME}_rev_7.root"
    assert files(index.parent) == ["database.txt", flat.name]
    server.steps["list"] = [answer_json([server.entry(name=NAME, revision=7, checksum=made.md5)])]
    locations = (str(index.parent),)
    found = fetch_payload(NAME, TAG, sources=(server.url,), cache=tmp_path / "cache", payload_locations=locations)
    assert found.path == flat
    assert read_graph_file(flat).card.family == "resnet"


def test_a_testing_payload_with_other_content_is_replaced_if_told_so(tmp_path: Path) -> None:
    arguments = [str(tmp_path), "--testing-output", str(tmp_path / "testing")]
    flat = tmp_path / "testing" / f"dbstore_{NAME}_rev_1.root"
    graph(tmp_path / "mine.onnx", RESNET)
    assert [CliRunner().invoke(app, arguments).exit_code for _ in range(2)] == [0, 0], "the same content is no harm"
    first = flat.read_bytes()
    graph(tmp_path / "mine.onnx", structs.replace(RESNET, name="other"))
    refused = CliRunner().invoke(app, arguments)
    expected = f"Error: {flat} exists: name another file to write, or replace it with --overwrite.\n"
    assert (refused.exit_code, refused.stderr, flat.read_bytes()) == (1, expected, first)
    assert CliRunner().invoke(app, [*arguments, "--overwrite"]).exit_code == 0
    assert flat.read_bytes() == (tmp_path / "mine.onnx").read_bytes() != first


def test_the_lines_of_other_testing_payloads_stay(tmp_path: Path) -> None:
    for family, card in (("resnet", RESNET), ("convnet", CONVNET)):
        graph(tmp_path / f"{family}.onnx", card)
    convnet, resnet = write_payloads(tmp_path, tmp_path / "out", revision=2)
    index = tmp_path / "database.txt"
    other = b"# dbstore/BeamParameters\r\n\ndbstore/BeamParameters 3 7,0,7,-1\ndbstore/caf\xe9 1 0,0,-1,-1"
    index.write_bytes(other + f"\ndbstore/{NAME} 1 0,0,5,-1".encode())
    assert write_testing_payloads((resnet,), tmp_path) == index
    assert write_testing_payloads((convnet, resnet), tmp_path) == index
    assert index.read_bytes().splitlines() == [
        *other.splitlines(),
        b"dbstore/PXDBackgroundGenerator_convnet_onnx 2 0,0,-1,-1",
        f"dbstore/{NAME} 2 0,0,-1,-1".encode(),
    ]


def test_a_folder_for_testing_payloads_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    graph(tmp_path / "mine.onnx", RESNET)
    (tmp_path / "testing").write_text("a file")
    result = CliRunner().invoke(app, [str(tmp_path), "--testing-output", str(tmp_path / "testing")])
    assert result.exit_code == 1
    assert result.stderr == f"Error: The folder {tmp_path / 'testing'} cannot be made: File exists.\n"


def test_two_graphs_of_a_family_are_one_too_many(tmp_path: Path) -> None:
    graph(tmp_path / "a.onnx", RESNET)
    graph(tmp_path / "b.onnx", RESNET)
    expected = rf"two resnet graphs in float32 for cpu, a\.onnx and b\.onnx: expected one, .* the payload {NAME}\.$"
    with pytest.raises(ArgumentValueError, match=expected):
        write_payloads(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("revision", [-1, 2**63])
def test_a_revision_that_no_payload_has_is_refused(tmp_path: Path, revision: int) -> None:
    graph(tmp_path / "mine.onnx", RESNET)
    with pytest.raises(ArgumentValueError, match=rf"^revision must lie between 0 and \d+, but is {revision}\.$"):
        write_payloads(tmp_path, tmp_path / "out", revision=revision)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("folder", [".", "gone"])
def test_a_folder_without_such_a_graph_is_refused(tmp_path: Path, folder: str) -> None:
    graph(tmp_path / "mine.onnx", INT8)
    result = CliRunner().invoke(app, [str(tmp_path / folder)])
    assert (result.exit_code, result.stdout) == (2, "")
    expected = r"Error: \S+ holds no graph in float32 for cpu: expected a folder that .* --precision and --target\.\n"
    assert re.fullmatch(expected, result.stderr)


def test_a_family_that_climbs_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    graph(tmp_path / "mine.onnx", structs.replace(RESNET, family="../../x"))
    with pytest.raises(
        GraphFileError, match=r"mine\.onnx is of the family '\.\./\.\./x': expected a name of small letters"
    ):
        write_payloads(tmp_path, tmp_path / "out")
    assert files(tmp_path) == ["mine.onnx"]


def test_a_damaged_graph_is_refused(tmp_path: Path) -> None:
    whole = graph(tmp_path / "a.onnx", RESNET).path
    shutil.copy(whole, tmp_path / "b.onnx")
    whole.write_bytes(whole.read_bytes()[:-1])
    with pytest.raises(GraphFileError, match=r"a\.onnx"):
        write_payloads(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    graph(tmp_path / "mine.onnx", RESNET)
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match=r"^The folder \S+ cannot be made: Not a directory\.$"):
        write_payloads(tmp_path, tmp_path / "out")


def test_a_folder_whose_name_is_too_long_is_one_sentence(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path / ("a" * 300))])
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(r"Error: The folder \S+ cannot be read: .*\.\n", result.stderr)
