"""Other files than checkpoints are recognised, damaged ones are refused, and code is never run."""

from __future__ import annotations

import gzip
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx.helper
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from export.checkpoint import load_checkpoint, read_archive
from export.errors import CheckpointError
from export.families import FAMILIES
from tests.checkpoints import SmallNet, light_state, register_family, save, save_safetensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

State = dict[str, Tensor]

N_FLIPS: Final = 400
SMALL: Final[State] = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.ones(2, dtype=torch.float16)}
SAVE_ALONE: Final = r"save the state dict alone, torch\.save\(model\.state_dict\(\), path\)\.$"


@pytest.fixture(autouse=True)
def small_family(monkeypatch: pytest.MonkeyPatch) -> None:
    register_family(monkeypatch, "small", SmallNet)


def require_refused(path: Path, expected: str) -> None:
    with pytest.raises(CheckpointError, match=expected) as caught:
        load_checkpoint(path, "small")
    assert caught.value.path == path
    assert "\n" not in str(caught.value)


# The content tells what a file is, not its suffix


@pytest.mark.parametrize("name", ["generator.safetensors", "generator.pt", "generator"])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_any_file_of_torch_or_safetensors_is_read_under_any_name(tmp_path: Path, kind: str, name: str) -> None:
    path = Path(shutil.copy(small_file(tmp_path, kind), tmp_path / name))
    content = read_archive(path).content
    assert isinstance(content, dict)
    assert content.keys() == SMALL.keys()
    assert all(torch.equal(content[key], value) for key, value in SMALL.items())


def compress(path: Path, compression: int) -> Path:
    """Write a zip archive anew with another compression."""
    compressed = path.with_suffix(".compressed.pt")
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(compressed, "w", compression) as written:
        for name in archive.namelist():
            written.writestr(name, archive.read(name))
    return compressed


def test_a_deflated_archive_is_read(tmp_path: Path) -> None:
    content = read_archive(compress(small_file(tmp_path, "zip"), zipfile.ZIP_DEFLATED)).content
    assert isinstance(content, dict)
    assert torch.equal(content["fc.weight"], SMALL["fc.weight"])


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_with_another_compression_is_not_called_damaged(tmp_path: Path, compression: int) -> None:
    expected = r"is a zip archive with a compression that PyTorch cannot read: save it again with torch\.save\.$"
    require_refused(compress(small_file(tmp_path, "zip"), compression), expected)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems name files in UTF-8")
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_path_need_not_be_utf8(tmp_path: Path, kind: str) -> None:
    path = small_file(tmp_path, kind).rename(tmp_path / os.fsdecode(b"caf\xe9.pt"))
    content = read_archive(path).content
    assert isinstance(content, dict)
    assert torch.equal(content["fc.weight"], SMALL["fc.weight"])


# Code


class Mischief:
    """Runs a command as it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.path}",)


class Call:
    """Calls any function as it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def leave_proof(path: Path) -> None:
    path.touch()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, legacy: bool) -> None:
    proof = tmp_path / "it-ran"
    path = save(light_state("small") | {"fc.bias": Mischief(proof)}, tmp_path / "generator.pt", legacy=legacy)
    require_refused(path, rf"contains code \((posix|nt)\.system\), which is never run, or is truncated: {SAVE_ALONE}")
    path = save({"G": light_state("small"), "x": Mischief(proof)}, tmp_path / "generator.pt", legacy=legacy)
    require_refused(path, r"contains code \((posix|nt)\.system\), which is never run")
    assert not proof.exists()


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (eval, "eval"),
        (getattr, "getattr"),
        (__import__, "__import__"),
        (shutil.rmtree, r"shutil\.rmtree"),
        (torch.load, r"torch\.serialization\.load"),
        (np.load, r"numpy\.load"),
        (leave_proof, r"tests\.test_checkpoint_files\.leave_proof"),
    ],
)
def test_functions_beside_the_weights_are_refused_by_their_names(
    tmp_path: Path, function: Callable[..., object], name: str
) -> None:
    proof = tmp_path / "it-ran"
    path = save({"G": light_state("small"), "settings": [Call(function, proof)]}, tmp_path / "generator.pt")
    require_refused(path, rf"contains code \({name}\), which is never run, or is truncated: {SAVE_ALONE}")
    assert not proof.exists()


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code:UserWarning")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_pickled_module_is_refused(tmp_path: Path, legacy: bool) -> None:
    expected = (
        rf"contains code \(torch\.nn\.modules\.\w+\.\w+\), which is never run: it holds a whole model; {SAVE_ALONE}"
    )
    require_refused(save(SmallNet(), tmp_path / "module.pt", legacy=legacy), expected)
    require_refused(save({"epoch": 3, "model": SmallNet()}, tmp_path / "module.pt", legacy=legacy), expected)


def test_other_pickle_protocols_are_refused_by_their_number(tmp_path: Path) -> None:
    path = tmp_path / "generator.pt"
    torch.save(light_state("small"), path, pickle_protocol=4)
    require_refused(path, r"is pickled with protocol 4, .* save it again with torch\.save, without pickle_protocol\.$")


# What else a file can be


Writer = Callable[[Path], object]


def write(content: bytes) -> Writer:
    return lambda path: path.write_bytes(content)


def write_zip(*names: str) -> Writer:
    def writer(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, "nothing to see")

    return writer


def write_torchscript(path: Path) -> None:
    torch.jit.trace(nn.Linear(2, 3), torch.zeros(1, 2)).save(path)  # type: ignore[no-untyped-call]


def write_torch_export(path: Path) -> None:
    named = path.with_suffix(".pt2")
    torch.export.save(torch.export.export(nn.Linear(2, 3), (torch.zeros(1, 2),)), named)
    named.rename(path)


def write_onnx(path: Path) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "empty", [value], [value])), path)


def write_numpy(function: Callable[..., None], **arrays: NDArray[np.float64]) -> Writer:
    def writer(path: Path) -> None:
        with path.open("wb") as file:
            function(file, **arrays)

    return writer


def write_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(save(light_state("small"), path.with_suffix(".inner")).read_bytes()))


def write_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(save(light_state("small"), path.with_suffix(".inner")), "generator.pt")


WEB_PAGE: Final = b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>\n"
LFS: Final = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 82\n"
KERAS: Final = ("metadata.json", "config.json", "model.weights.h5")
PT2_OF_2_1: Final = ("serialized_exported_program.json", "serialized_state_dict.pt", "version")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("writer", "expected"),
    [
        (write_torchscript, r"is a TorchScript archive, .*torch\.jit\.load\(path\)\.state_dict\(\), other_path"),
        (write_torch_export, r"is a torch\.export archive .*torch\.export\.load\(path\)\.state_dict, other"),
        (write_zip(*PT2_OF_2_1), r"is a torch\.export archive \(\.pt2\), which is a program: save its"),
        (write_zip("p/.data/extern_modules", "p/data.pkl"), r"is a torch\.package archive, which contains code"),
        (write_onnx, r"is an ONNX graph, which is the result of an export: give the PyTorch checkpoint"),
        (write_zip(*KERAS), rf"is a Keras model \(\.keras\): convert its weights to .* and {SAVE_ALONE}"),
        (write(b"\x89HDF\r\n\x1a\n" + bytes(600)), r"is an HDF5 file, as Keras and TensorFlow write them: convert"),
        (write(b"\x08\x01\x12\xb1\x05*\x00"), r"is a TensorFlow SavedModel: convert"),
        (write(b" \x00\x00\x00TFL3" + bytes(90)), r"is a TensorFlow Lite model: convert"),
        (write(b"\x82\xa6params\x81\xa2fc\x90"), r"is a msgpack file, as JAX and Flax write them: convert"),
        (write_numpy(np.save, arr=np.zeros(3)), r"is a NumPy array \(\.npy\): put its values into the PyTorch model"),
        (write_numpy(np.savez, weight=np.zeros(3)), r"is an archive of NumPy arrays \(\.npz\): put them"),
        (write_gzip, r"is compressed with gzip: decompress it first \(gunzip\)\.$"),
        (write_tar, r"is a tar archive: unpack it and give the checkpoint in it\.$"),
        (write_zip("run/notes.txt", "run/g.ckpt"), r"is a zip archive that contains run/g\.ckpt: unpack it"),
        (write_zip("notes.txt"), r"is a zip archive of other files \(notes\.txt\): expected a file written"),
        (write(pickle.dumps({"fc.weight": [0.5]})), rf"is a pickle that torch\.save did not write: {SAVE_ALONE}"),
        (write(LFS), r"is a Git LFS pointer to the checkpoint: fetch the file itself, git lfs pull\.$"),
        (write(WEB_PAGE), r"is a web page, as after a download that failed: download the file itself"),
        (write(b"\x89PNG\r\n\x1a\n" + bytes(50)), r"is a PNG picture: expected a file written"),
        (write(b"root\x00\x00\xf7\x00" + bytes(50)), r"is a ROOT file: expected a file written by"),
        (write(b""), r"is empty: it was not completely written or copied"),
        (write(bytes(5000)), r"contains only zeros: it was not completely written or copied"),
        (write(b"\x08"), r"is not a checkpoint: expected a file written"),
        (write(b"Not a checkpoint.\n"), r"is not a checkpoint: expected a file written by .* \(it is text\)\.$"),
        (write(b'{"fc.weight": [0.5]}'), r"is not a checkpoint: expected a file .* \(it is text\)\.$"),
        (write(random.Random(5).randbytes(5000)), r"is not a checkpoint: expected a file written"),
    ],
)
@pytest.mark.parametrize("name", ["generator.pt", "generator.safetensors"])
def test_other_files_are_called_what_they_are(tmp_path: Path, writer: Writer, expected: str, name: str) -> None:
    writer(tmp_path / name)
    require_refused(tmp_path / name, expected)


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    require_refused(tmp_path, r"is a folder: expected a file written by torch\.save or safetensors\.$")
    (tmp_path / ".metadata").touch()
    require_refused(tmp_path, r"is a folder of torch\.distributed\.checkpoint: .* dcp_to_torch FOLDER FILE\.$")
    for name in ("b.ckpt", "a.pt", "c.txt"):
        (tmp_path / name).touch()
    require_refused(tmp_path, r"is a folder: give a file in it, a\.pt or another of its 2\.$")
    require_refused(tmp_path / "gone.pt", r"gone\.pt cannot be read: No such file or directory\.$")


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    require_refused(tmp_path / f"{'n' * 300}.pt", r"n\.pt cannot be read: File name too long\.$")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have shorter paths")
def test_a_folder_whose_path_leaves_no_space_for_a_file_is_refused(tmp_path: Path) -> None:
    folder = tmp_path
    while (n_left := 4090 - len(str(folder))) > 0:
        folder /= "n" * min(n_left, 200)
    folder.mkdir(parents=True)
    require_refused(folder, r"is a folder: expected a file written by torch\.save or safetensors\.$")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_and_a_device_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    for path in (tmp_path / "pipe.pt", Path("/dev/zero")):
        require_refused(path, r"cannot be read: it is a pipe, a device or a socket, expected a regular file\.$")


READ_WITHIN_LIMITS: Final = """
import resource, sys
from pathlib import Path
from export.checkpoint.archives import read_archive
from pxdbg_runtime.errors import MemoryLimitError
soft, hard = resource.getrlimit(resource.RLIMIT_AS)
for name in sys.argv[1:]:
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + 50_000_000, hard))
    try:
        read_archive(Path(name))
    except MemoryLimitError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
"""


@pytest.mark.slow
def test_too_little_memory_is_not_blamed_on_the_checkpoint(tmp_path: Path) -> None:
    """In a process of its own: one that ran for long has memory left that it freed."""
    pytest.importorskip("resource", reason="this platform has no such limits")
    if not Path("/proc/self/statm").exists():
        pytest.skip("this platform does not say how much address space is in use")
    content, paths = {"a": torch.zeros(25_000_000)}, [tmp_path / name for name in ("zip", "legacy", "safetensors")]
    for path in paths[:2]:
        torch.save(content, path, _use_new_zipfile_serialization=path.name == "zip")
    safetensors.torch.save_file(content, paths[2])
    command = [sys.executable, "-W", "ignore", "-c", READ_WITHIN_LIMITS, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(paths), done.stdout
    for path, line in zip(paths, lines, strict=True):
        assert re.match(
            rf"There is not enough memory to read .*{path.name}: .*[Cc]an\S* allocate memory.*address space", line
        ), line


# Damage


def small_file(folder: Path, kind: str) -> Path:
    if kind == "safetensors":
        return save_safetensors(SMALL, folder / "small.safetensors")
    return save(SMALL, folder / "small.pt", legacy=kind == "legacy")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_truncated_file_is_refused_at_any_length(tmp_path: Path, kind: str) -> None:
    path = small_file(tmp_path, kind)
    whole = path.read_bytes()
    for length in {*range(1, len(whole), max(1, len(whole) // 60)), 1, 2, 3, 4, 8, len(whole) - 1}:
        path.write_bytes(whole[:length])
        require_refused(
            path, r"is truncated or damaged|, or is truncated|is not a checkpoint: expected a file|contains only zeros"
        )


def test_damaged_deflated_data_are_refused(tmp_path: Path) -> None:
    path = compress(small_file(tmp_path, "zip"), zipfile.ZIP_DEFLATED)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start = archive.infolist()[0].header_offset + 30 + len(archive.namelist()[0])
    path.write_bytes(whole[:start] + bytes(each ^ 255 for each in whole[start : start + 20]) + whole[start + 20 :])
    require_refused(path, r"is truncated or damaged|contains more than tensors")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_flipped_bytes_are_refused_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    for other in [name for name in reversed(FAMILIES) if name != "small"]:  # so that undoing this restores the order
        monkeypatch.delitem(FAMILIES, other)
    path = small_file(tmp_path, kind)
    whole = path.read_bytes()
    rng = random.Random(f"flips of {kind}")
    refusals: list[CheckpointError] = []
    for _ in range(N_FLIPS):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 1, 1, 2, 8))):
            damaged[rng.randrange(len(damaged))] ^= rng.randrange(1, 256)
        path.write_bytes(damaged)
        try:
            load_checkpoint(path, "small")
        except CheckpointError as error:
            refusals.append(error)
    assert len(refusals) == N_FLIPS
    assert all(error.path == path and "\n" not in str(error) for error in refusals)
