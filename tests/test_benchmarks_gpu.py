"""The benchmark of a GPU: PyTorch's whole events, computed on the CPU here, and the command without a GPU."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import pytest
import torch

from benchmarks import gpu
from benchmarks.graphs import Workspace
from benchmarks.pytorch_gpu import (
    build_event_generator,
    check_cuda,
    copy_hits,
    draw_event_inputs,
    prepare_model,
    time_events,
)
from benchmarks.pytorch_peers import find_hits
from export.charge import compute_charges
from export.families import Family
from export.families.generator_module import LATENT_DRAW, LATENT_INPUT
from pxdbg_runtime.inference.providers import CUDA
from tests.checkpoints import FlatNet, random_model
from tests.test_benchmarks_command import measure
from tests.test_benchmarks_kernels import lively_images
from tests.test_command_line import words
from tests.tiny_ieagan import TINY, TINY_VARIANTS, describe_variant

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.pytorch_gpu import Hits
    from pxdbg_runtime import Generator
    from pxdbg_runtime.model.graph_file import GraphFile

FLAT: Final = Family(
    name="flat", module_class=FlatNet, draws=(LATENT_DRAW,), inputs=(LATENT_INPUT,), cut=None, min_charge=1
)
OURS: Final = (
    "ours, float16, Generator.stream",
    "ours, float16, Generator.generate",
    "ours, float32, Generator.stream",
)
PYTORCH: Final = (
    "PyTorch, float16, torch.compile with CUDA graphs",
    "PyTorch, float16, torch.compile",
    "PyTorch, float16, eager",
)


def find_reasons(tmp_path: Path) -> dict[str, str]:
    """Run the command for a family; find the reason of each row that has no samples."""
    _, content = measure(tmp_path, "gpu", "--family", "resnet", "--quick")
    assert [each["labels"]["what"] for each in content["measurements"]] == [*OURS, *PYTORCH]
    return {each["labels"]["what"]: each["reason"] for each in content["measurements"] if not each["samples"]}


@pytest.mark.parametrize("cut", [None, -0.26])
def test_the_hits_of_a_device_are_those_of_the_original(cut: float | None) -> None:
    images = torch.from_numpy(lively_images(3))
    expected = find_hits(images, cut)
    found = copy_hits(compute_charges(images, cut))
    assert len(expected[0]) > 1000
    assert found[3].max() == 255
    assert np.array_equal(found, np.stack(expected))


@pytest.mark.parametrize("family", [FLAT, TINY_VARIANTS[1]], ids=describe_variant)
@pytest.mark.slow
def test_an_event_has_the_digits_of_its_images(family: Family) -> None:
    images: list[torch.Tensor] = []
    model = random_model(family.module_class)
    model.register_forward_hook(lambda _module, _inputs, output: images.append(output))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = build_event_generator(model, family, device="cpu", dtype=torch.float32, mode=None)()
    expected = find_hits(images[0], family.cut)
    assert len(expected[0]) > 1000
    assert np.array_equal(found, np.stack(expected))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items()), "the model has changed"


def test_the_inputs_of_an_event_are_those_of_its_variant() -> None:
    latent, sensor, noise = draw_event_inputs(TINY_VARIANTS[1], device="cpu", dtype=torch.float16)
    assert (latent.shape, latent.dtype) == ((40, 128), torch.float16)
    assert (noise.shape, noise.dtype) == ((40, 4), torch.float16)
    assert sensor.tolist() == list(range(40))
    again, *_ = draw_event_inputs(TINY_VARIANTS[1], device="cpu", dtype=torch.float16)
    assert not torch.equal(again, latent)


def test_the_weights_have_the_type_and_channels_last() -> None:
    model = prepare_model(random_model(TINY.module_class), device="cpu", dtype=torch.float16)
    convolutions = [each for each in model.modules() if isinstance(each, torch.nn.Conv2d)]
    assert all(each.weight.is_contiguous(memory_format=torch.channels_last) for each in convolutions)
    assert {each.dtype for each in (*model.parameters(), *model.buffers())} == {torch.float16}


def test_events_are_timed_as_a_rate() -> None:
    calls = []

    def generate() -> Hits:
        calls.append(1)
        return copy_hits(torch.ones((1, 250, 768), dtype=torch.uint8))

    run = time_events(generate, 5)
    assert len(calls) == 3
    (rate,) = run()
    assert len(calls) == 3 + 5
    assert 0 < rate < 1e5


def test_images_without_hits_are_not_timed() -> None:
    empty = torch.zeros((1, 250, 768), dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="PyTorch's images have no hits: they are empty, or their values"):
        time_events(lambda: copy_hits(empty), 5)


@pytest.mark.parametrize(
    ("cuda", "expected"),
    [
        (None, r"PyTorch \S+ is built without CUDA: install a build with CUDA \(https://pytorch\.org\)"),
        ("13.0", r"PyTorch \S+ with CUDA 13\.0 finds no NVIDIA GPU, or a driver that is too old for it"),
    ],
)
def test_pytorch_without_a_gpu_is_explained(cuda: str | None, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match=expected):
        check_cuda()


@pytest.fixture
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the GPU of this machine away, and refuse to make graphs and weights, which would take minutes."""

    def refuse(*_arguments: object, **_options: object) -> None:
        pytest.fail("something is exported without a GPU")

    monkeypatch.setattr(Workspace, "find_graph", refuse)
    monkeypatch.setattr(Workspace, "find_checkpoint", refuse)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu, "resolve_provider", lambda _name: CUDA)
    monkeypatch.setattr(gpu, "explain_unusable", lambda _name: "there is no NVIDIA driver here")
    monkeypatch.setattr(gpu, "name_device", lambda *_: None)


@pytest.mark.usefixtures("_no_gpu")
def test_without_a_gpu_every_row_says_why(tmp_path: Path) -> None:
    result, content = measure(tmp_path, "gpu", "--family", "resnet", "--quick")
    reasons = {each["labels"]["what"]: each["reason"] for each in content["measurements"]}
    assert {reasons[what] for what in OURS} == {
        "CUDAExecutionProvider cannot run here: there is no NVIDIA driver here."
    }
    assert all(reasons[what].startswith("PyTorch ") for what in PYTORCH)
    assert {each["unit"] for each in content["measurements"]} == {"events/s"}
    assert content["remarks"][0] == "GPU: none that an NVIDIA driver names"
    assert "Events a second on one NVIDIA GPU, digits on the host included" in words(result.stdout)


@pytest.mark.usefixtures("_no_gpu")
def test_without_pytorch_its_rows_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    reasons = find_reasons(tmp_path)
    assert {reasons[what] for what in PYTORCH} == {"not installed: pip install torch"}


@pytest.mark.slow
def test_without_onnxruntime_for_cuda_our_rows_say_which_wheel_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    reasons = find_reasons(tmp_path)
    assert all(reasons[what].startswith("The provider cuda ") for what in OURS)


@pytest.mark.slow
def test_our_rows_are_measured_on_a_provider_that_runs(
    tmp_path: Path, latent_graph: GraphFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    precisions = []

    def find_graph(_workspace: Workspace, _family: str, precision: str, **_: object) -> GraphFile:
        precisions.append(precision)
        return latent_graph

    monkeypatch.setattr(gpu, "_PROVIDER", "cpu")
    monkeypatch.setattr(gpu, "_N_QUICK_EVENTS", 2)
    monkeypatch.setattr(Workspace, "find_graph", find_graph)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_reasons(tmp_path).keys() == set(PYTORCH)
    assert precisions == ["float16", "float32"]


def test_a_stream_is_warmed_up_by_a_stream_of_three_events() -> None:
    streams = []

    class Counted:
        def stream(self, events: range) -> Iterator[int]:
            streams.append(len(events))
            yield from events

    run = gpu._prepare_stream(lambda: cast("Generator", Counted()), 5)
    assert streams == [3]
    (rate,) = run()
    assert streams == [3, 5]
    assert rate > 0
