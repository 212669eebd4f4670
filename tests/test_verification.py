"""The known-answer test: what is computed wrongly is an error, and what passed is not computed again."""

from __future__ import annotations

import json
import logging
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnxruntime
import platformdirs
import pytest
from msgspec import structs
from onnx import numpy_helper
from typer.testing import CliRunner

from pxdbg_runtime import Generator
from pxdbg_runtime.command_line import app
from pxdbg_runtime.errors import KnownAnswerError
from pxdbg_runtime.inference import verification
from pxdbg_runtime.inference.devices import name_device
from pxdbg_runtime.inference.latents import PhiloxStream
from pxdbg_runtime.inference.providers import AZURE, CPU, CUDA
from pxdbg_runtime.inference.session import ImageSession
from pxdbg_runtime.inference.verification import check_known_answers, require_known_answer
from pxdbg_runtime.model.known_answers import KnownAnswers
from tests.graphs import (
    EVENT_WIDE_CARD,
    LATENT_CARD,
    THRESHOLDS,
    describe_graph,
    event_wide_images,
    event_wide_model,
    latent_images,
    latent_model,
    write_graph,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from pxdbg_runtime.model.card import ModelCard, Precision
    from pxdbg_runtime.model.graph_file import GraphFile
    from pxdbg_runtime.model.known_answers import OutputKind

PIXELS: Final = np.arange(0, 192_000, 37)
SENSORS: Final = (3, 17)


def add_known_answers(card: ModelCard, images: NDArray[np.float32], compared: OutputKind = "values") -> ModelCard:
    """Give a card the known answers of two sensors of an event with these forty images."""
    table = np.array(THRESHOLDS, np.float32)
    outputs: NDArray[np.generic] = images if compared == "values" else np.searchsorted(table, images, side="right")
    answers = KnownAnswers(
        compared=compared,
        seed=-3,
        event=0,
        tolerance=1e-6 if compared == "values" else 0.0,
        mean_tolerance=1e-7 if compared == "values" else 0.0,
        images=tuple(
            KnownAnswers.encode_image(compared, sensor, PIXELS, outputs[sensor].ravel()[PIXELS]) for sensor in SENSORS
        ),
    )
    return structs.replace(card, known_answers=answers)


def build_latent_card(compared: OutputKind = "values") -> ModelCard:
    (latent,) = PhiloxStream(-3, LATENT_CARD.draws).draw(0)
    return add_known_answers(LATENT_CARD, latent_images(latent), compared)


def shift_outputs(model: onnx.ModelProto, by: float) -> onnx.ModelProto:
    """Make all that a tiny graph computes larger by so much, in place: a stand-in for a release that is wrong."""
    (one,) = (each for each in model.graph.initializer if each.name == "one")
    clipped = next(node for node in model.graph.node if node.op_type == "Sub")
    assert clipped.input[1] == "one"
    lower = numpy_helper.from_array(np.asarray(numpy_helper.to_array(one) - np.float32(by)), "lower")
    model.graph.initializer.append(lower)
    clipped.input[1] = "lower"
    return model


@pytest.fixture
def right(tmp_path: Path) -> GraphFile:
    return write_graph(tmp_path / "right.onnx", latent_model(), build_latent_card())


@pytest.fixture
def wrong(tmp_path: Path) -> GraphFile:
    return write_graph(tmp_path / "wrong.onnx", shift_outputs(latent_model(), 1e-3), build_latent_card())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the user a cache folder that is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pxdbg_runtime" / "known-answers"


@pytest.fixture
def computations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the known images that are computed."""
    numbers: list[int] = []
    original = ImageSession.compute_images

    def count(self: ImageSession, sensors: Sequence[int], *arguments: object) -> object:
        numbers.append(sensors[0])
        return original(self, sensors, *arguments)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(ImageSession, "compute_images", count)
    return numbers


def test_a_right_graph_passes_with_all_its_images(right: GraphFile) -> None:
    assert right.card.known_answers is not None
    verdict = check_known_answers(ImageSession(right), right.card.known_answers)
    assert verdict.passed
    assert (verdict.images, verdict.largest_difference, verdict.mean_difference) == (2, 0.0, 0.0)


def test_a_graph_of_sensors_and_of_the_whole_event_passes(tmp_path: Path) -> None:
    latent, mood = PhiloxStream(-3, EVENT_WIDE_CARD.draws).draw(0)
    card = add_known_answers(EVENT_WIDE_CARD, event_wide_images(latent, mood))
    graph = write_graph(tmp_path / "event.onnx", event_wide_model(), card)
    assert card.known_answers is not None
    assert check_known_answers(ImageSession(graph), card.known_answers).largest_difference == 0.0


@pytest.mark.slow
def test_a_wrong_graph_is_an_error_that_names_the_release_and_what_to_do(wrong: GraphFile) -> None:
    with pytest.raises(KnownAnswerError, match=r"differs by up to 0\.001 \(1e-06 allowed\)") as caught:
        Generator(wrong.path, seed=1)
    release = onnxruntime.__version__
    assert (caught.value.provider, caught.value.release) == (CPU, release)
    assert caught.value.largest_difference == pytest.approx(1e-3, rel=0.01)
    message = str(caught.value)
    assert message.startswith(f"onnxruntime {release} computes the float32 graph {wrong.path} wrongly on this machine")
    assert "Upgrade it (pip install --upgrade onnxruntime). Generator(..., verify=False)" in message
    with pytest.raises(KnownAnswerError):  # a failure is not remembered as anything else
        Generator(wrong.path, seed=1)
    assert len(Generator(wrong.path, seed=1, verify=False).generate(0))


@pytest.mark.parametrize(("precision", "advice"), [("int8", r" or use another precision \(int8\)"), ("float16", "")])
def test_the_precisions_of_the_model_are_advised(
    wrong: GraphFile, monkeypatch: pytest.MonkeyPatch, precision: Precision, advice: str
) -> None:
    """A graph that is given by its path has no other, and a CPU runs none in float16."""
    own = structs.replace(describe_graph(wrong), file=wrong.path.name)
    listed = (own, structs.replace(own, precision=precision, file="b.onnx"), structs.replace(own, name="c", file="c"))
    monkeypatch.setattr(verification, "read_manifest", lambda: listed)
    monkeypatch.setattr(verification, "find_artifacts_folder", lambda: wrong.path.parent)
    with pytest.raises(KnownAnswerError, match=rf"Upgrade it \([^)]*\){advice}\. Generator"):
        require_known_answer(ImageSession(wrong))


def test_charges_are_compared_exactly(tmp_path: Path) -> None:
    exact = structs.replace(build_latent_card("charges"), name="charges")
    require_known_answer(ImageSession(write_graph(tmp_path / "right.onnx", latent_model(), exact)))
    with pytest.raises(KnownAnswerError, match=r"differs by up to \d+ ADU \(0 allowed\)"):
        require_known_answer(
            ImageSession(write_graph(tmp_path / "wrong.onnx", shift_outputs(latent_model(), 0.3), exact))
        )


def test_a_small_difference_everywhere_is_found_by_its_mean(tmp_path: Path) -> None:
    card = build_latent_card()
    assert card.known_answers is not None
    loose = structs.replace(card.known_answers, tolerance=2.0, mean_tolerance=1e-6)
    card = structs.replace(card, known_answers=loose)
    with pytest.raises(KnownAnswerError, match=r"on average by 0\.000\d+ \(1e-06 allowed\)"):
        require_known_answer(
            ImageSession(write_graph(tmp_path / "wrong.onnx", shift_outputs(latent_model(), 1e-3), card))
        )


def test_an_image_that_is_no_number_fails(right: GraphFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageSession, "compute_images", lambda *_: np.full((1, 250, 768), np.nan, np.float32))
    monkeypatch.setattr(verification, "name_device", lambda *_: None)
    session = ImageSession(right)
    session.provider = AZURE
    message = r"machine \(Azure\w+\): a known image holds NaN or infinite values\. Upgrade"
    with pytest.raises(KnownAnswerError, match=message):
        require_known_answer(session)


def test_one_image_is_computed_once_for_all_processes_of_a_machine(
    right: GraphFile, cache: Path, computations: list[int]
) -> None:
    Generator(right.path, seed=1)
    assert computations == [SENSORS[0]]
    (record,) = cache.iterdir()
    assert json.loads(record.read_text())["graph_sha256"] == right.sha256
    Generator(right.path, seed=2)
    assert computations == [SENSORS[0]]


@pytest.mark.parametrize("change", ["graph", "release", "device", "options", "record"])
def test_what_passed_elsewhere_is_computed_again(
    tmp_path: Path,
    right: GraphFile,
    cache: Path,
    computations: list[int],
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    require_known_answer(ImageSession(right))
    session = ImageSession(right)
    if change == "graph":
        card = structs.replace(right.card, provenance="Made for another test.")
        session = ImageSession(write_graph(tmp_path / "other.onnx", latent_model(), card))
    elif change == "release":
        monkeypatch.setattr(onnxruntime, "__version__", "1.99.0")
    elif change == "device":
        monkeypatch.setattr(verification, "name_device", lambda *_: "another CPU")
    elif change == "options":
        session.provider_options = {"use_tf32": "1"}
    else:
        (record,) = cache.iterdir()
        record.write_text("{")
    require_known_answer(session)
    assert computations == [SENSORS[0]] * 2


def test_a_device_that_is_not_known_is_checked_each_time(
    right: GraphFile, cache: Path, computations: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "name_device", lambda *_: None)
    for _ in range(2):
        require_known_answer(ImageSession(right))
    assert computations == [SENSORS[0]] * 2
    assert not cache.exists()


def refuse(*_: object, **_options: object) -> str:
    message = "could not determine the home directory"
    raise RuntimeError(message)


@pytest.mark.parametrize("place", ["a file", "no home", "a relative path"])
def test_without_a_cache_folder_it_is_checked_each_time(
    right: GraphFile, tmp_path: Path, computations: list[int], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    if place == "a file":
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    else:
        find = refuse if place == "no home" else lambda *_, **_options: "~/.cache/pxdbg_runtime"
        monkeypatch.setattr(platformdirs, "user_cache_dir", find)
        monkeypatch.chdir(tmp_path)
    for _ in range(2):
        require_known_answer(ImageSession(right))
    assert computations == [SENSORS[0]] * 2
    assert not (tmp_path / "~").exists()


def test_a_graph_without_known_answers_is_said_to_be_unchecked(
    latent_graph: GraphFile, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="pxdbg_runtime"):
        require_known_answer(ImageSession(latent_graph, provider="cpu"))
    assert caplog.messages == [
        f"The graph {latent_graph.path} has no known answers: its images are not checked on this machine."
    ]


def test_a_device_is_named_by_what_it_has_or_not_at_all() -> None:
    assert ", features " in (name_device(CPU, {}) or "")
    assert name_device(CUDA, {"device_id": "not a number"}) is None
    assert name_device("SomeExecutionProvider", {}) is None


@pytest.mark.parametrize(
    ("answer", "name"), [(0, "NVIDIA H200, driver for CUDA 13.0"), (100, None)], ids=["found", "no such GPU"]
)
def test_a_gpu_is_named_with_the_newest_cuda_of_its_driver(
    monkeypatch: pytest.MonkeyPatch, answer: int, name: str | None
) -> None:
    def set_integer(value: int, reference: Any, *_: object) -> int:  # noqa: ANN401
        reference._obj.value = value
        return 0

    def set_name(buffer: Any, *_: object) -> int:  # noqa: ANN401
        buffer.value = b"NVIDIA H200"
        return answer

    driver = SimpleNamespace(
        cuInit=lambda flags: flags,
        cuDriverGetVersion=partial(set_integer, 13000),
        cuDeviceGet=partial(set_integer, 0),
        cuDeviceGetName=set_name,
    )
    monkeypatch.setattr("ctypes.CDLL", lambda _: driver)
    assert name_device(CUDA, {}) == name


# The command


@pytest.mark.parametrize(
    ("graph", "exit_code", "expected"),
    [
        ("right", 0, [f"ONNX Runtime {onnxruntime.__version__}; CPU: ", "right", f"{AZURE} comes with ONNX Runtime"]),
        ("wrong", 1, ["wrong", "computes the float32 graph"]),
        ("latent_graph", 1, ["has no known answers: export the checkpoint again."]),
    ],
)
def test_the_command_checks_all_images_of_a_graph(
    graph: str, exit_code: int, expected: list[str], request: pytest.FixtureRequest
) -> None:
    result = CliRunner().invoke(app, ["check", str(request.getfixturevalue(graph).path)])
    assert result.exit_code == exit_code, result.output
    assert [text for text in expected if text not in result.stdout] == []
    assert ("wrong" in result.stdout) == (graph == "wrong")


def test_a_wrong_graph_is_generated_from_only_if_that_is_asked_for(wrong: GraphFile, tmp_path: Path) -> None:
    arguments = ["generate", "--model", str(wrong.path), "--output", str(tmp_path / "x.npz")]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 1
    assert not (tmp_path / "x.npz").exists()
    assert CliRunner().invoke(app, [*arguments, "--no-verify"]).exit_code == 0
    assert (tmp_path / "x.npz").exists()
