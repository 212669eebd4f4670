"""The families: registry, declarations, and those without conditions against tables and an independent forward pass."""

from __future__ import annotations

import io
import subprocess
import sys
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional

from export.families import FAMILIES, Family, load_family
from export.families.generator_module import GeneratorModule, draw_inputs
from export.inference import compute_images, draw_feeds
from export.parity import check_parity, compute_references, measure_parity
from export.torch_graph import export_to_onnx
from pxdbg_runtime.model.card import Draw, GraphInput
from tests.checkpoints import FAMILY_NAMES, random_model
from tests.tiny_models import THRESHOLDS

if TYPE_CHECKING:
    from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
State = dict[str, "Tensor"]

CHECKOUT: Final = Path(__file__).resolve().parent.parent

N_PARAMETERS: Final = {"convnet": 20_444_865, "resnet": 6_648_097}
CONVNET_STAGES: Final = ((0, 512, 512), (4, 512, 256), (8, 256, 128), (12, 128, 64), (16, 64, 32))
"""Index of the convolution (its batch norm follows), channels in, channels out."""
RESNET_BLOCKS: Final = ((256, 256), (256, 128), (128, 64), (64, 32), (32, 16))


def shapes_of_convolution(prefix: str, n_in: int, n_out: int, size: int) -> Shapes:
    return {f"{prefix}.weight": (n_out, n_in, size, size), f"{prefix}.bias": (n_out,)}


def shapes_of_norm(prefix: str, n: int) -> Shapes:
    vectors = ("weight", "bias", "running_mean", "running_var")
    return {f"{prefix}.{name}": (n,) for name in vectors} | {f"{prefix}.num_batches_tracked": ()}


def convnet_shapes() -> Shapes:
    shapes: Shapes = {"fc.weight": (98_304, 96), "fc.bias": (98_304,)}
    for index, n_in, n_out in CONVNET_STAGES:
        shapes |= shapes_of_convolution(f"features.{index}", n_in, n_out, 5)
        shapes |= shapes_of_norm(f"features.{index + 1}", n_out)
    return shapes | shapes_of_convolution("features.20", 32, 1, 5)


def resnet_shapes() -> Shapes:
    shapes: Shapes = {"fc.weight": (49_152, 96), "fc.bias": (49_152,)}
    for number, (n_in, n_out) in enumerate(RESNET_BLOCKS):
        prefix = f"blocks.{number}"
        shapes |= shapes_of_norm(f"{prefix}.norm1", n_in)
        shapes |= shapes_of_convolution(f"{prefix}.conv1", n_in, n_out, 3)
        shapes |= shapes_of_norm(f"{prefix}.norm2", n_out)
        shapes |= shapes_of_convolution(f"{prefix}.conv2", n_out, n_out, 3)
        shapes |= shapes_of_convolution(f"{prefix}.conv", n_in, n_out, 1)
    return shapes | shapes_of_norm("norm", 16) | shapes_of_convolution("conv", 16, 1, 3)


SHAPES: Final = {"convnet": convnet_shapes(), "resnet": resnet_shapes()}


def convolve(state: State, prefix: str, features: Tensor) -> Tensor:
    weight = state[f"{prefix}.weight"]
    return functional.conv2d(features, weight, state[f"{prefix}.bias"], padding=weight.shape[-1] // 2)


def norm_and_relu(state: State, prefix: str, features: Tensor) -> Tensor:
    """Batch norm with running statistics, then ReLU."""
    mean, variance, weight, bias = (
        state[f"{prefix}.{name}"].view(1, -1, 1, 1) for name in ("running_mean", "running_var", "weight", "bias")
    )
    return functional.relu((features - mean) / torch.sqrt(variance + 1e-5) * weight + bias)


def upsample(features: Tensor) -> Tensor:
    return features.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def convnet_images(state: State, latent: Tensor) -> Tensor:
    features = (latent @ state["fc.weight"].T + state["fc.bias"]).reshape(-1, 512, 8, 24)
    for index, _, _ in CONVNET_STAGES:
        features = upsample(
            norm_and_relu(state, f"features.{index + 1}", convolve(state, f"features.{index}", features))
        )
    return torch.tanh(convolve(state, "features.20", features))


def resnet_images(state: State, latent: Tensor) -> Tensor:
    features = (latent @ state["fc.weight"].T + state["fc.bias"]).reshape(-1, 256, 8, 24)
    for number in range(len(RESNET_BLOCKS)):
        prefix = f"blocks.{number}"
        main = convolve(state, f"{prefix}.conv1", upsample(norm_and_relu(state, f"{prefix}.norm1", features)))
        main = convolve(state, f"{prefix}.conv2", norm_and_relu(state, f"{prefix}.norm2", main))
        features = main + convolve(state, f"{prefix}.conv", upsample(features))
    return torch.tanh(convolve(state, "conv", norm_and_relu(state, "norm", features)))


ORACLES: Final = {"convnet": convnet_images, "resnet": resnet_images}


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_each_family_without_conditions_declares_itself(name: str) -> None:
    family = load_family(name)
    assert (family.name, family.module_class.__name__.lower()) == (name, name)
    assert [(each.name, each.role, each.draw) for each in family.inputs] == [("latent", "latent", "latent")]
    assert [(each.name, each.shape) for each in family.draws] == [("latent", (40, 96))]
    assert (family.latent_size, family.cut, family.min_charge) == (96, None, 1)


def test_the_registry_holds_three_families() -> None:
    assert tuple(FAMILIES) == (*FAMILY_NAMES, "ieagan")
    assert all(load_family(name).name == name for name in FAMILIES)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_state_dict_has_the_keys_and_shapes_of_the_table(family: str) -> None:
    model = load_family(family).module_class()
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == SHAPES[family]
    assert sum(parameter.numel() for parameter in model.parameters()) == N_PARAMETERS[family]
    model.load_state_dict({key: torch.full(shape, 0.5) for key, shape in SHAPES[family].items()}, strict=True)
    assert all(bool((parameter == 0.5).all()) for parameter in model.parameters())


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.slow
def test_forward_equals_the_table_written_out(family: str) -> None:
    model = random_model(family, seed=3)
    latent = torch.randn(2, 96, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        images = model(latent)
        full = ORACLES[family](model.state_dict(), latent)
    assert full.shape == (2, 1, 256, 768)
    assert images.shape == (2, 250, 768)
    assert images.dtype == torch.float32
    assert images.std() > 1e-3, "flat images would agree with anything"
    torch.testing.assert_close(images, full[:, 0, 3:253], rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_full_image_is_cropped_by_three_rows_at_both_ends(family: str) -> None:
    model = random_model(family, seed=5)
    latent = torch.randn(1, 96, generator=torch.Generator().manual_seed(6))
    with torch.inference_mode():
        full = model.full_image(latent)
        images = model(latent)
    assert full.shape == (1, 1, 256, 768)
    assert float(full.abs().max()) <= 1
    assert torch.equal(images[0], full[0, 0, 3:253])


def test_a_module_must_define_its_image() -> None:
    with pytest.raises(NotImplementedError, match=r"^GeneratorModule must define full_image\.$"):
        GeneratorModule()(torch.zeros(1, 96))


# Families with conditions


class Conditional(GeneratorModule):
    """A generator of flat images that depend on a latent, the sensor, and values of the whole event."""

    def __init__(self) -> None:
        super().__init__()
        self.latent, self.event = torch.nn.Linear(8, 768), torch.nn.Linear(4, 768)
        self.sensor = torch.nn.Embedding(40, 768)

    def full_image(self, latent: Tensor, sensor: Tensor, event: Tensor) -> Tensor:
        rows = self.latent(latent) + self.sensor(sensor) + self.event(event).mean(0)
        return torch.tanh(rows).view(-1, 1, 1, 768).expand(-1, 1, 256, 768)


CONDITIONAL: Final = Family(
    name="conditional",
    module_class=Conditional,
    draws=(Draw(name="latent", shape=(40, 8)), Draw(name="mood", shape=(40, 4))),
    inputs=(
        GraphInput(name="z", role="latent", draw="latent"),
        GraphInput(name="sensor", role="sensor", draw=None),
        GraphInput(name="e", role="event_latent", draw="mood"),
    ),
    cut=-0.26,
    min_charge=6,
)


def test_inputs_are_built_from_the_declaration() -> None:
    assert CONDITIONAL.latent_size == 8
    draws = {
        each.name: np.arange(np.prod(each.shape), dtype=np.float32).reshape(each.shape) for each in CONDITIONAL.draws
    }
    feed = CONDITIONAL.build_feed(draws, range(38, 40))
    assert list(feed) == ["z", "sensor", "e"]
    assert np.array_equal(feed["z"], draws["latent"][38:])
    assert (feed["sensor"].tolist(), feed["sensor"].dtype.name) == ([38, 39], "int64")
    assert np.array_equal(feed["e"], draws["mood"])


@pytest.mark.parametrize("n_images", [40, 3])
def test_inputs_are_drawn_as_the_original_does(n_images: int) -> None:
    latent, sensor, event = draw_inputs(CONDITIONAL, n_images, torch.Generator().manual_seed(9))
    generator = torch.Generator().manual_seed(9)
    assert torch.equal(latent, torch.randn(n_images, 8, generator=generator))
    assert torch.equal(sensor, torch.arange(n_images))
    assert torch.equal(event, torch.randn(40, 4, generator=generator))


def test_a_family_with_conditions_is_exported_and_compared() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Conditional().eval()
    graph = export_to_onnx(model, CONDITIONAL)
    shapes = [[axis.dim_value for axis in each.type.tensor_type.shape.dim] for each in graph.graph.input]
    assert [each.name for each in graph.graph.input] == ["z", "sensor", "e"]
    assert shapes == [[0, 8], [0], [40, 4]]
    assert graph.graph.input[1].type.tensor_type.elem_type == onnx.TensorProto.INT64
    check_parity(measure_parity(compute_references(model, CONDITIONAL), graph, THRESHOLDS, CONDITIONAL.min_charge))
    feeds = draw_feeds(CONDITIONAL, 5, 42, 8)
    assert [len(each) for each in compute_images(graph, feeds)] == [8, 8, 8, 8, 8, 2]
    assert feeds[-1]["sensor"].tolist() == [0, 1]
    assert not np.array_equal(feeds[-1]["e"], feeds[0]["e"])


# Names


def test_the_registry_is_read_without_pytorch() -> None:
    code = "import sys; sys.modules['torch'] = None; from export.families import FAMILIES; print(*FAMILIES)"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, list(FAMILIES)), done.stderr


@pytest.mark.parametrize(
    "path", sorted(path for folder in ("export", "benchmarks") for path in (CHECKOUT / folder).rglob("*.py")), ids=str
)
def test_no_module_outside_of_the_families_names_one(path: Path) -> None:
    """No identifier and no value; examples in help texts and docstrings may name a family."""
    if path.parent.name == "families":
        return
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
    words = {token.string.strip("\"'").lower() for token in tokens if token.type in (tokenize.NAME, tokenize.STRING)}
    assert not words & set(FAMILIES)
