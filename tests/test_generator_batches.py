"""The generator: batches computed ahead, and which graph it opens."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from msgspec import structs

from export.graph import append_charges
from pxdbg_runtime import SENSORS, Generator
from pxdbg_runtime.errors import ArgumentValueError, InferenceError
from pxdbg_runtime.inference.session import ImageSession
from pxdbg_runtime.model.builtin_models import MANIFEST_NAME, format_manifest
from pxdbg_runtime.model.graph_file import read_graph_file
from tests.graphs import (
    FIDELITY,
    LATENT_CARD,
    THRESHOLDS,
    describe_graph,
    latent_model,
    write_graph,
)
from tests.test_generator import compute_images_of_card

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from pxdbg_runtime.model.graph_file import GraphFile


def test_the_next_batch_is_computed_while_one_is_in_use(
    latent_graph: GraphFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = Generator(latent_graph.path, seed=1, batch_size=20)
    expected = compute_images_of_card(latent_graph.card, 1, 0)
    second_done = threading.Event()
    compute = generator._session.compute_images

    def compute_and_note(sensors: list[int], *rest: Any) -> NDArray[np.float32] | NDArray[np.uint8]:  # noqa: ANN401
        images = compute(sensors, *rest)
        if sensors[0] == 20:
            second_done.set()
        return images

    monkeypatch.setattr(generator._session, "compute_images", compute_and_note)
    batches = generator._compute_batches([0], SENSORS)
    batch, images = next(batches)
    assert second_done.wait(timeout=60), "the second batch waits for the first one's consumer"
    assert (batch.sensors, next(batches)[0].sensors) == (list(range(20)), list(range(20, 40)))
    assert np.array_equal(images, expected[:20])
    assert list(batches) == []


def test_a_stream_on_a_gpu_computes_the_next_event_while_one_is_used(
    latent_graph: GraphFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = Generator(latent_graph.path, seed=1, batch_size=16)
    expected = [generator.generate(event) for event in (4, 2, 2)]
    monkeypatch.setitem(vars(generator), "provider", "CUDAExecutionProvider")
    read = []

    def list_events() -> Iterator[int]:
        for event in (4, 2, 2, -1):
            read.append(event)
            yield event

    stream = generator.stream(list_events())
    assert next(stream) == expected[0]
    assert read == [4, 2]
    assert [next(stream), next(stream)] == expected[1:]
    with pytest.raises(ArgumentValueError, match="event"):
        next(stream)
    assert list(generator.stream([])) == []


def test_a_failure_in_a_later_batch_is_raised(latent_graph: GraphFile, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = Generator(latent_graph.path, seed=1, batch_size=8)
    compute = generator._session.compute_images

    def compute_and_fail(sensors: list[int], *rest: Any) -> NDArray[np.float32] | NDArray[np.uint8]:  # noqa: ANN401
        if sensors[0] == 16:
            message = "the third batch"
            raise InferenceError(message)
        return compute(sensors, *rest)

    monkeypatch.setattr(generator._session, "compute_images", compute_and_fail)
    with pytest.raises(InferenceError, match="the third batch"):
        generator.generate(0)


@pytest.mark.parametrize("batch_size", [1, 3, 40])
def test_graphs_that_give_charges_give_the_digits_of_those_that_give_values(
    tmp_path: Path, latent_graph: GraphFile, batch_size: int
) -> None:
    model = append_charges(latent_model(), np.array(THRESHOLDS, dtype=np.float32))
    card = structs.replace(LATENT_CARD, output_kind="charges")
    of_charges = Generator(write_graph(tmp_path / "charges.onnx", model, card).path, seed=2, batch_size=batch_size)
    of_values = Generator(latent_graph.path, seed=2)
    assert of_charges.generate(0) == of_values.generate(0)
    assert np.array_equal(of_charges.generate_images(1), of_values.generate_images(1))


@pytest.mark.usefixtures("_manifest_read_anew")
def test_a_graph_for_cuda_gives_way_where_cuda_does_not_come_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda_card = structs.replace(LATENT_CARD, precision="float16", target="cuda", fidelity=FIDELITY)
    listed = [
        describe_graph(write_graph(tmp_path / f"tiny-{card.precision}.onnx", latent_model(), card))
        for card in (LATENT_CARD, cuda_card)
    ]
    (tmp_path / MANIFEST_NAME).write_text(format_manifest(tuple(listed)))
    monkeypatch.setattr("pxdbg_runtime.model.builtin_models.find_artifacts_folder", lambda: tmp_path)
    assert Generator("tiny", seed=1).card.precision == "float32"
    monkeypatch.setattr("pxdbg_runtime.inference.providers.guess_target", lambda _: "cuda")
    sessions: weakref.WeakSet[ImageSession] = weakref.WeakSet()
    n_alive: list[int] = []
    make = ImageSession.__init__

    def make_and_count(session: ImageSession, graph: GraphFile, **options: Any) -> None:  # noqa: ANN401
        n_alive.append(len(sessions))
        make(session, graph, **options)
        sessions.add(session)

    monkeypatch.setattr(ImageSession, "__init__", make_and_count)
    generator = Generator("tiny", seed=1)
    assert n_alive == [0, 0]
    assert (generator.card.precision, generator.provider) == ("float32", "CPUExecutionProvider")
    assert Generator("tiny", seed=1, provider="cpu", precision="float16").card.precision == "float16"


def test_integers_come_in_larger_batches() -> None:
    sizes = {
        precision: Generator("resnet", seed=1, precision=precision).batch_size for precision in ("float32", "int8")
    }
    assert sizes == {"float32": 1, "int8": 2}


def test_a_graph_that_stays_the_same_on_the_cpu_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def read_and_note(path: Path) -> GraphFile:
        read.append(path)
        return read_graph_file(path)

    int8 = structs.replace(LATENT_CARD, precision="int8", weight_bits=7, fidelity=FIDELITY)
    path = write_graph(tmp_path / "tiny-int8.onnx", latent_model(), int8).path
    monkeypatch.setattr("pxdbg_runtime.model.builtin_models.read_graph_file", read_and_note)
    monkeypatch.setattr("pxdbg_runtime.inference.providers.guess_target", lambda _: "cuda")
    for precision in ("auto", "int8"):
        assert Generator(path, seed=1, precision=precision).provider == "CPUExecutionProvider"
    assert read == [path, path]
