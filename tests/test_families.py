"""The architectures against their tables: keys, shapes, counts, and a forward pass written out anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
import torch
from torch.nn import functional

from export.families import FAMILIES, LATENT_SIZE, ConvNet, GeneratorModule, ResNet
from tests.checkpoints import FAMILY_NAMES, random_model

if TYPE_CHECKING:
    from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
State = dict[str, "Tensor"]

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


def convolved(state: State, prefix: str, features: Tensor) -> Tensor:
    weight = state[f"{prefix}.weight"]
    return functional.conv2d(features, weight, state[f"{prefix}.bias"], padding=weight.shape[-1] // 2)


def normed(state: State, prefix: str, features: Tensor) -> Tensor:
    """Batch norm with running statistics, then ReLU."""
    mean, variance, weight, bias = (
        state[f"{prefix}.{name}"].view(1, -1, 1, 1) for name in ("running_mean", "running_var", "weight", "bias")
    )
    return functional.relu((features - mean) / torch.sqrt(variance + 1e-5) * weight + bias)


def doubled(features: Tensor) -> Tensor:
    return features.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def convnet_images(state: State, latent: Tensor) -> Tensor:
    features = (latent @ state["fc.weight"].T + state["fc.bias"]).reshape(-1, 512, 8, 24)
    for index, _, _ in CONVNET_STAGES:
        features = doubled(normed(state, f"features.{index + 1}", convolved(state, f"features.{index}", features)))
    return torch.tanh(convolved(state, "features.20", features))


def resnet_images(state: State, latent: Tensor) -> Tensor:
    features = (latent @ state["fc.weight"].T + state["fc.bias"]).reshape(-1, 256, 8, 24)
    for number in range(len(RESNET_BLOCKS)):
        prefix = f"blocks.{number}"
        main = convolved(state, f"{prefix}.conv1", doubled(normed(state, f"{prefix}.norm1", features)))
        main = convolved(state, f"{prefix}.conv2", normed(state, f"{prefix}.norm2", main))
        features = main + convolved(state, f"{prefix}.conv", doubled(features))
    return torch.tanh(convolved(state, "conv", normed(state, "norm", features)))


ORACLES: Final = {"convnet": convnet_images, "resnet": resnet_images}


def test_families_are_named_as_their_classes_say() -> None:
    assert dict(FAMILIES) == {"convnet": ConvNet, "resnet": ResNet}
    assert {name: model.family for name, model in FAMILIES.items()} == {name: name for name in FAMILY_NAMES}
    assert LATENT_SIZE == 96


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_parameter_count(family: str) -> None:
    assert sum(parameter.numel() for parameter in FAMILIES[family]().parameters()) == N_PARAMETERS[family]


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_state_dict_has_the_keys_and_shapes_of_the_table(family: str) -> None:
    assert {key: tuple(value.shape) for key, value in FAMILIES[family]().state_dict().items()} == SHAPES[family]


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_state_dict_of_the_table_loads_strictly(family: str) -> None:
    state = {key: torch.full(shape, 0.5) for key, shape in SHAPES[family].items()}
    model = FAMILIES[family]()
    model.load_state_dict(state, strict=True)
    assert all(bool((parameter == 0.5).all()) for parameter in model.parameters())


@pytest.mark.parametrize("family", FAMILY_NAMES)
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


def test_a_generator_must_say_how_it_makes_an_image() -> None:
    with pytest.raises(NotImplementedError, match="GeneratorModule does not say how it makes an image"):
        GeneratorModule()(torch.zeros(1, 96))
