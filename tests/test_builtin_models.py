"""The built-in models: files that do not match the manifest are refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from msgspec import structs

import pxdbg_runtime
from pxdbg_runtime.errors import (
    ArgumentTypeError,
    ArgumentValueError,
    CardError,
    GraphFileError,
    ManifestError,
    ModelNotFoundError,
)
from pxdbg_runtime.inference import cpu, session
from pxdbg_runtime.inference.cpu import Cpu
from pxdbg_runtime.model import builtin_models
from pxdbg_runtime.model.builtin_models import (
    MANIFEST_NAME,
    find_artifacts_folder,
    find_graph,
    format_manifest,
    is_best_for_cpu,
    read_manifest,
)
from tests.graphs import (
    FIDELITY,
    LATENT_CARD,
    THRESHOLDS,
    append_text_card,
    describe_graph,
    latent_model,
    write_graph,
)

if TYPE_CHECKING:
    from pxdbg_runtime.model.card import Fidelity, Precision, Target
    from pxdbg_runtime.model.graph_file import GraphFile

FILE: Final = "tiny-float32.onnx"


@pytest.fixture
def folder(tmp_path: Path, latent_graph: GraphFile, monkeypatch: pytest.MonkeyPatch, _manifest_read_anew: None) -> Path:
    """Put a folder with a tiny graph and its manifest in place of the built-in graphs."""
    made = tmp_path / "artifacts"
    made.mkdir()
    shutil.copy(latent_graph.path, made / FILE)
    listed = structs.replace(describe_graph(latent_graph), file=FILE)
    (made / MANIFEST_NAME).write_text(format_manifest((listed,)))
    monkeypatch.setattr(builtin_models, "find_artifacts_folder", lambda: made)
    return made


def test_the_manifest_of_the_package_agrees_with_its_files() -> None:
    listed = read_manifest()
    assert {graph.name for graph in listed} >= {"resnet"}
    assert len({(graph.name, graph.precision, graph.target) for graph in listed}) == len(listed)
    for graph in listed:
        content = (find_artifacts_folder() / graph.file).read_bytes()
        assert len(content) == graph.size
        assert hashlib.sha256(content).hexdigest() == graph.sha256
    assert {path.name for path in find_artifacts_folder().glob("*.onnx")} == {graph.file for graph in listed}


def test_the_cards_of_the_package_agree_with_the_manifest() -> None:
    for listed in read_manifest():
        graph = find_graph(listed.name, listed.precision, listed.target)
        assert (graph.card.name, graph.card.precision) == (listed.name, listed.precision)
        assert graph.card.target == listed.target
        assert (graph.sha256, graph.size) == (listed.sha256, listed.size)
        assert graph.path.parent == find_artifacts_folder()
        moved = np.abs(np.array(graph.card.thresholds) - THRESHOLDS)[graph.card.min_charge - 1 :]
        assert moved.max() < (1e-6 if graph.card.precision == "float32" else 0.05)


def test_the_folder_lies_in_the_package_or_beside_it() -> None:
    package = Path(pxdbg_runtime.__file__).resolve().parent
    assert find_artifacts_folder() in (package / "artifacts", package.parent / "artifacts")


def test_the_folder_in_an_installed_package_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin_models, "__file__", str(tmp_path / "pxdbg_runtime" / "model" / "builtin_models.py"))
    assert find_artifacts_folder() == tmp_path / "artifacts"
    (tmp_path / "pxdbg_runtime" / "artifacts").mkdir(parents=True)
    assert find_artifacts_folder() == tmp_path / "pxdbg_runtime" / "artifacts"


def change_manifest(folder: Path, **changes: object) -> None:
    """Change fields of the manifest."""
    path = folder / MANIFEST_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    read_manifest.cache_clear()


def rewrite(folder: Path, **changes: str | int) -> None:
    """Change fields of the manifest's one entry."""
    (entry,) = json.loads((folder / MANIFEST_NAME).read_text())["graphs"]
    change_manifest(folder, graphs=[entry | changes])


def test_a_model_is_found_by_its_name(folder: Path) -> None:
    for precision in (None, "float32"):
        graph = find_graph("tiny", precision)
        assert graph.path == folder / FILE
        assert graph.card == LATENT_CARD


def test_a_graph_is_found_by_its_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_path = find_graph(folder / FILE, None)
    assert find_graph(str(folder / FILE), "float32") == by_path
    monkeypatch.chdir(folder)
    assert find_graph(FILE, None).sha256 == by_path.sha256
    assert find_graph(f"./{FILE}", None).sha256 == by_path.sha256
    (folder / "other-suffix").write_bytes((folder / FILE).read_bytes())
    assert find_graph(Path("other-suffix"), None).sha256 == by_path.sha256


UNFAITHFUL: Final = structs.replace(FIDELITY, charge_w1_adu=0.31)


def add_graph(
    folder: Path, precision: Precision, target: Target, fidelity: Fidelity = FIDELITY, weight_bits: int = 7
) -> str:
    """Put another graph of the same model in the folder and in its manifest; return the file's name."""
    card = structs.replace(
        LATENT_CARD,
        precision=precision,
        target=target,
        weight_bits=weight_bits if precision == "int8" else None,
        fidelity=None if precision == "float32" else fidelity,
    )
    graph = write_graph(folder / f"tiny-{precision}-{target}.onnx", latent_model(), card)
    (folder / MANIFEST_NAME).write_text(format_manifest((*read_manifest(), describe_graph(graph))))
    read_manifest.cache_clear()
    return graph.path.name


@pytest.mark.parametrize("dot_products", [("avx512_vnni",), ()])
def test_int8_is_taken_whatever_the_cpu_has(
    folder: Path, monkeypatch: pytest.MonkeyPatch, dot_products: tuple[str, ...]
) -> None:
    some = Cpu(name="Some CPU", dot_products=dot_products, features=frozenset(dot_products))
    for module in (cpu, session):
        monkeypatch.setattr(module, "detect_cpu", lambda: some)
    int8 = add_graph(folder, "int8", "cpu")
    assert find_graph("tiny", None).path.name == int8
    assert find_graph("tiny", "float32").path.name == FILE


@pytest.mark.parametrize(("fidelity", "weight_bits"), [(FIDELITY, 8), (UNFAITHFUL, 7)])
def test_int8_that_some_cpus_lack_or_beyond_the_bounds_is_taken_by_name_or_if_alone(
    folder: Path, fidelity: Fidelity, weight_bits: int
) -> None:
    int8 = add_graph(folder, "int8", "cpu", fidelity, weight_bits)
    assert find_graph("tiny", None).path.name == FILE
    assert find_graph("tiny", "int8").path.name == int8
    (folder / MANIFEST_NAME).write_text(format_manifest(read_manifest()[1:]))
    read_manifest.cache_clear()
    assert find_graph("tiny", None).path.name == int8


def test_cuda_takes_float16_and_the_form_made_for_it(folder: Path) -> None:
    int8 = add_graph(folder, "int8", "cpu")
    assert find_graph("tiny", None, "cuda").path.name == FILE
    float32 = add_graph(folder, "float32", "cuda")
    assert find_graph("tiny", None, "cuda").path.name == float32
    float16 = add_graph(folder, "float16", "cuda")
    assert find_graph("tiny", None, "cuda").path.name == float16
    assert find_graph("tiny", "float32", "cuda").path.name == float32
    assert find_graph("tiny", "float32").path.name == FILE
    assert find_graph("tiny", None).path.name == int8


def test_another_provider_takes_float32_for_the_cpu(folder: Path) -> None:
    add_graph(folder, "int8", "cpu")
    add_graph(folder, "float16", "cuda")
    add_graph(folder, "float32", "cuda")
    assert find_graph("tiny", None, None).path.name == FILE


@pytest.mark.parametrize("model", ["convnet", "ieagan", "resnet"])
def test_built_in_models_run_in_float32_on_cuda(model: str) -> None:
    """As docs/running.md and docs/choosing-hardware.md say."""
    assert find_graph(model, None, "cuda").card.precision == "float32"


def test_a_precision_that_a_model_has_not_is_refused(folder: Path) -> None:
    add_graph(folder, "int8", "cpu")
    with pytest.raises(
        ArgumentValueError, match=r"graph\. It has float32 and int8 alone: choose one of them, or auto\.$"
    ) as caught:
        find_graph("tiny", "float16")
    assert caught.value.argument == "precision"


def test_a_precision_that_a_file_has_not_is_refused(folder: Path) -> None:
    with pytest.raises(
        ArgumentValueError, match=rf"^The graph .*{FILE} is float32, not int8: choose float32, or auto\.$"
    ):
        find_graph(folder / FILE, "int8")


@pytest.mark.parametrize(
    ("model", "what"),
    [
        ("unknown", "not a built-in model"),
        ("Tiny", "not a built-in model"),
        ("", "not a built-in model"),
        ("gone.onnx", "not a file that exists"),
        ("gone/tiny", "not a file that exists"),
        ("tiny/", "not a file that exists"),
        ("/", "a folder"),
        ("a\0b.onnx", "not a file that exists"),
    ],
)
def test_a_model_that_is_not_there_is_told_what_is(folder: Path, model: str, what: str) -> None:
    assert folder.is_dir()
    with pytest.raises(ModelNotFoundError, match=rf" is {what}: expected tiny, or the path of a graph from") as caught:
        find_graph(model, None)
    assert caught.value.available == ("tiny",)
    assert caught.value.model.rstrip("/") == model.rstrip("/")
    assert isinstance(caught.value, FileNotFoundError)


def test_a_file_that_cannot_be_looked_at_is_not_called_missing(tmp_path: Path) -> None:
    """Such as one in a folder that may not be entered; here a link to itself, for root may enter all."""
    (tmp_path / "loop.onnx").symlink_to("loop.onnx")
    for path in (tmp_path / "loop.onnx", Path("x" * 300 + ".onnx")):
        with pytest.raises(GraphFileError, match=r"cannot be read: (Too many levels|File name too long)"):
            find_graph(path, None)


@pytest.mark.parametrize("model", [3, None, b"tiny"])
def test_a_model_that_is_neither_text_nor_a_path_is_refused(model: object) -> None:
    with pytest.raises(ArgumentTypeError, match="model must be") as caught:
        find_graph(model, None)  # type: ignore[arg-type]  # the point of the test
    assert caught.value.argument == "model"


def test_a_file_that_is_missing(folder: Path) -> None:
    (folder / FILE).unlink()
    with pytest.raises(
        GraphFileError, match=r"float32\.onnx cannot be read: No such file or directory; install pxdbg-runtime again"
    ) as caught:
        find_graph("tiny", None)
    assert caught.value.path == folder / FILE


@pytest.mark.parametrize("more", [b"", b"\0"])
def test_a_file_of_another_size(folder: Path, more: bytes) -> None:
    content = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(content + more if more else content[:-1])
    with pytest.raises(GraphFileError, match=rf"has \d+ bytes, but the manifest says {len(content)}: install"):
        find_graph("tiny", None)


def test_a_damaged_file_of_the_right_size(folder: Path) -> None:
    content = bytearray((folder / FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / FILE).write_bytes(content)
    with pytest.raises(GraphFileError, match="is damaged or was changed after it was exported"):
        find_graph("tiny", None)


def test_a_foreign_file_that_the_manifest_lists(folder: Path) -> None:
    content = latent_model().SerializeToString()
    (folder / FILE).write_bytes(content)
    rewrite(folder, size=len(content), sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(GraphFileError, match="is an ONNX file without a model card"):
        find_graph("tiny", None)


def test_another_whole_graph_of_the_same_size(folder: Path) -> None:
    rewrite(folder, sha256="0" * 64)
    with pytest.raises(GraphFileError, match=rf"has the SHA-256 [0-9a-f]{{64}}, but the manifest says {'0' * 64}"):
        find_graph("tiny", None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "it is not JSON"),
        ("[]", r"it must be an object, but is \[\]"),
        ("{}", "the field schema is missing"),
        ('{"schema": 1}', "the field graphs is missing"),
        ('{"schema": 1, "graphs": []}', "graphs must be a list of length >= 1"),
        ('{"schema": 1, "graphs": {}}', "graphs must be a list, but is"),
        ('{"schema": "1", "graphs": [{}]}', 'schema must be an integer, but is "1"'),
        ('{"schema": 1, "graphs": [{}]}', r"the field graphs\[0\]\.name is missing"),
        (b"\xff\xfe{", "'utf-8' codec can't decode"),
    ],
)
def test_a_broken_manifest(folder: Path, content: str | bytes, message: str) -> None:
    (folder / MANIFEST_NAME).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ManifestError, match=rf"cannot be read \({message}.*\): install pxdbg-runtime again") as caught:
        find_graph("tiny", None)
    assert caught.value.path == folder / MANIFEST_NAME


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", ""), ("precision", "float64"), ("size", 0), ("size", "1"), ("sha256", "abc"), ("file", "")],
)
def test_a_manifest_with_a_wrong_field(folder: Path, field: str, value: str | int) -> None:
    rewrite(folder, **{field: value})
    with pytest.raises(ManifestError, match=rf"graphs\[0\]\.{field} must be "):
        read_manifest()


def test_no_manifest_at_all(folder: Path) -> None:
    (folder / MANIFEST_NAME).unlink()
    with pytest.raises(ManifestError, match=r"cannot be read \(.*No such file or directory"):
        find_graph("unknown", None)
    assert find_graph(folder / FILE, None).card == LATENT_CARD


@pytest.mark.parametrize("changes", [{}, {"graphs": {"tiny": FILE}}], ids=["as they are", "in another layout"])
def test_a_manifest_of_another_schema(folder: Path, changes: dict[str, object]) -> None:
    change_manifest(folder, schema=2, **changes)
    message = r"manifest\.json cannot be read \(schema must be an integer <= 1, but is 2\.\)"
    with pytest.raises(ManifestError, match=message):
        find_graph("tiny", None)


@pytest.mark.parametrize("climbing", [f"../{FILE}", "/{outside}", f"sub/{FILE}", "..", "."])
def test_a_file_name_that_leads_out_of_the_folder_is_refused(folder: Path, climbing: str) -> None:
    outside = folder.parent / FILE
    shutil.copy(folder / FILE, outside)
    (folder / "sub").mkdir()
    shutil.copy(folder / FILE, folder / "sub" / FILE)
    rewrite(folder, file=climbing.format(outside=str(outside).lstrip("/")))
    with pytest.raises(ManifestError, match=r"graphs\[0\]\.file must be") as caught:
        find_graph("tiny", None)
    assert caught.value.path == folder / MANIFEST_NAME


def test_a_card_error_of_a_given_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "older.onnx"
    path.write_bytes(append_text_card('{"schema": 7}'))
    with pytest.raises(CardError, match=r"older\.onnx: The model card is not valid: it has schema 7"):
        find_graph(path, None)


def test_the_manifest_is_read_once(folder: Path) -> None:
    first = read_manifest()
    (folder / MANIFEST_NAME).unlink()
    assert read_manifest() is first


@pytest.mark.parametrize(
    ("model", "precision", "target", "is_best"),
    [
        ("tiny.onnx", None, "cuda", True),
        ("tiny", "int8", "cpu", True),
        ("tiny", "float32", "cuda", False),
        ("tiny", None, "cpu", False),
    ],
)
def test_another_graph_is_looked_for_only_where_there_may_be_one(
    model: str, precision: Precision | None, target: Target, is_best: bool
) -> None:
    card = structs.replace(LATENT_CARD, target=target)
    assert is_best_for_cpu(model, precision, card) is is_best


def test_a_file_that_is_no_graph_is_not_a_missing_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "event.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    monkeypatch.chdir(tmp_path)
    expected = r"'event\.png' is not a built-in model, but a file whose name does not end in \.onnx: expected "
    with pytest.raises(ModelNotFoundError, match=expected):
        find_graph("event.png", None)
