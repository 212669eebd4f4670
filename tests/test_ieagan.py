"""IEA-GAN: keys, shapes and forward pass against its specification, written out here; spectral norms and folding."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
import torch
from torch.nn import functional

from export.families.generator_module import draw_inputs
from export.families.ieagan import FAMILY, divide_by_spectral_norm
from tests.checkpoints import random_model
from tests.tiny_ieagan import TINY, TINY_VARIANTS, describe_variant

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from export.families import Family
    from export.families.generator_module import GeneratorModule

Shapes = dict[str, tuple[int, ...]]
Inputs = tuple["Tensor", ...]

VARIANTS: Final = FAMILY.list_variants()
BLOCKS: Final = (
    (512, 512),
    (512, 512),
    (512, 512),
    (512, 256),
    (256, 256),
    (256, 256),
    (256, 256),
    (256, 128),
    (128, 128),
    (128, 64),
    (64, 64),
    (64, 32),
)
"""Channels in and out; every second block upsamples."""
EPS: Final = (1e-6, 1e-12)
"""Of the spectral norms of the two variants."""


# Keys and shapes


def shapes_of_linear(prefix: str, n_in: int, n_out: int) -> Shapes:
    return {f"{prefix}.weight": (n_out, n_in), f"{prefix}.bias": (n_out,)}


def shapes_of_spectral(prefix: str, weight: tuple[int, ...], *, bias: bool = True) -> Shapes:
    shapes: Shapes = {f"{prefix}.weight": weight, f"{prefix}.u0": (1, weight[0]), f"{prefix}.sv0": (1,)}
    return shapes | ({f"{prefix}.bias": (weight[0],)} if bias else {})


def shapes_of_statistics(prefix: str, n: int) -> Shapes:
    return {f"{prefix}.stored_mean": (n,), f"{prefix}.stored_var": (n,)}


def block_shapes(prefix: str, n_in: int, n_out: int) -> Shapes:
    shapes: Shapes = {}
    hidden = n_in // 4
    convolutions = ((n_in, hidden, 1), (hidden, hidden, 3), (hidden, hidden, 3), (hidden, n_out, 1))
    for number, (channels, n, size) in enumerate(convolutions, start=1):
        norm = f"{prefix}.bn{number}"
        for name in ("gain", "bias"):
            shapes |= shapes_of_spectral(f"{norm}.{name}", (channels, 256), bias=False)
        shapes |= shapes_of_statistics(norm, channels)
        shapes |= shapes_of_spectral(f"{prefix}.conv{number}", (n, channels, size, size))
    return shapes


def ieagan_shapes() -> Shapes:
    shapes: Shapes = {"shared.weight": (40, 128)}
    for norm in ("RR_G.layers.0.norm1", "RR_G.layers.0.norm2", "RR_G.norm"):
        shapes |= {f"{norm}.weight": (128,), f"{norm}.bias": (128,)}
    shapes |= shapes_of_linear("RR_G.layers.0.self_attn.qkv_proj", 128, 384)
    for name in ("self_attn.o_proj", "linear_net.0", "linear_net.3"):
        shapes |= shapes_of_linear(f"RR_G.layers.0.{name}", 128, 128)
    shapes |= shapes_of_spectral("linear", (24_576, 256))
    for number, (n_in, n_out) in enumerate(BLOCKS):
        shapes |= block_shapes(f"blocks.{number}.0", n_in, n_out)
    shapes |= {"output_layer.0.gain": (32,), "output_layer.0.bias": (32,)}
    shapes |= shapes_of_statistics("output_layer.0", 32)
    return shapes | shapes_of_spectral("output_layer.2", (1, 32, 3, 3))


SHAPES: Final = (ieagan_shapes(), ieagan_shapes() | shapes_of_spectral("linear_f", (128, 132)))


@pytest.mark.parametrize("variant", [0, 1])
def test_state_dict_has_the_keys_and_shapes_of_the_table(variant: int) -> None:
    with torch.device("meta"):
        model = VARIANTS[variant].module_class()
    shapes = SHAPES[variant]
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == shapes
    assert len(shapes) == (603, 607)[variant]
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_676_449 + (132 + 1) * 128 * variant
    buffers = {key for key, _ in model.named_buffers()}
    assert buffers == {key for key in shapes if key.endswith(("u0", "sv0", "stored_mean", "stored_var"))}


def test_each_group_has_as_many_keys_as_in_the_table() -> None:
    groups = {"shared": 1, "RR_G": 14, "linear": 4, "blocks": 576, "output_layer": 8, "linear_f": 4}
    assert {name: sum(key.startswith(f"{name}.") for key in SHAPES[1]) for name in groups} == groups


def test_both_variants_declare_themselves() -> None:
    sensors, noise = VARIANTS
    latent, sensor = ("latent", "latent", "latent"), ("sensor", "sensor", None)
    event = ("event_latent", "event_latent", "event_latent")
    assert [(each.name, each.role, each.draw) for each in sensors.inputs] == [latent, sensor]
    assert [(each.name, each.role, each.draw) for each in noise.inputs] == [latent, sensor, event]
    assert [(each.name, each.shape) for each in sensors.draws] == [("latent", (40, 128))]
    assert [(each.name, each.shape) for each in noise.draws] == [("latent", (40, 128)), ("event_latent", (40, 4))]
    for each in VARIANTS:
        assert (each.name, each.latent_size, each.cut, each.min_charge) == ("ieagan", 128, -0.26, 6)


# The forward pass, from the specification


class Oracle:
    """Computes images from a state dict; spectral norms in NumPy."""

    def __init__(self, model: GeneratorModule, eps: float, dtype: torch.dtype) -> None:
        self.state = {key: value.to(dtype) for key, value in model.state_dict().items()}
        self.eps = eps

    def images(self, latent: Tensor, sensor: Tensor, *event_latent: Tensor) -> Tensor:
        y = self.relate(*event_latent)[sensor]
        zy = torch.hstack([y, latent])
        features = self.linear("linear", zy, spectral=True).reshape(len(zy), -1, 4, 12)
        for number in range(12):
            features = self.block(f"blocks.{number}.0", features, zy, upsamples=number % 2 == 1)
        scale, offset = self.state["output_layer.0.gain"], self.state["output_layer.0.bias"]
        features = self.standardise("output_layer.0", features) * scale[:, None, None] + offset[:, None, None]
        return torch.tanh(self.convolve("output_layer.2", features.relu()))

    def relate(self, *event_latent: Tensor) -> Tensor:
        rows = self.state["shared.weight"]
        if event_latent:
            rows = self.linear("linear_f", torch.hstack([rows, *event_latent]), spectral=True)
        prefix = "RR_G.layers.0"
        qkv = self.linear(f"{prefix}.self_attn.qkv_proj", self.layer_norm(f"{prefix}.norm1", rows))
        heads = []
        for head in (0, 1):
            query, key, value = qkv[:, 192 * head : 192 * (head + 1)].chunk(3, dim=1)
            heads.append(torch.softmax(query @ key.T / math.sqrt(64), dim=1) @ value)
        rows = rows + self.linear(f"{prefix}.self_attn.o_proj", torch.hstack(heads))
        hidden = self.linear(f"{prefix}.linear_net.0", self.layer_norm(f"{prefix}.norm2", rows)).relu()
        return self.layer_norm("RR_G.norm", rows + self.linear(f"{prefix}.linear_net.3", hidden))

    def block(self, prefix: str, features: Tensor, zy: Tensor, *, upsamples: bool) -> Tensor:
        main = self.convolve(f"{prefix}.conv1", self.norm_and_relu(f"{prefix}.bn1", features, zy))
        main = self.norm_and_relu(f"{prefix}.bn2", main, zy)
        if upsamples:
            main, features = (each.repeat_interleave(2, 2).repeat_interleave(2, 3) for each in (main, features))
        main = self.norm_and_relu(f"{prefix}.bn3", self.convolve(f"{prefix}.conv2", main), zy)
        main = self.norm_and_relu(f"{prefix}.bn4", self.convolve(f"{prefix}.conv3", main), zy)
        main = self.convolve(f"{prefix}.conv4", main)
        return torch.add(main, features[:, : main.shape[1]])

    def norm_and_relu(self, prefix: str, features: Tensor, zy: Tensor) -> Tensor:
        scale, offset = 1 + zy @ self.weight(f"{prefix}.gain").T, zy @ self.weight(f"{prefix}.bias").T
        return (self.standardise(prefix, features) * scale[:, :, None, None] + offset[:, :, None, None]).relu()

    def standardise(self, prefix: str, features: Tensor) -> Tensor:
        mean, variance = (self.state[f"{prefix}.{name}"][:, None, None] for name in ("stored_mean", "stored_var"))
        return torch.div(features - mean, torch.sqrt(variance + 1e-5))

    def convolve(self, prefix: str, features: Tensor) -> Tensor:
        weight = self.weight(prefix)
        return functional.conv2d(features, weight, self.state[f"{prefix}.bias"], padding=weight.shape[-1] // 2)

    def linear(self, prefix: str, values: Tensor, *, spectral: bool = False) -> Tensor:
        weight = self.weight(prefix) if spectral else self.state[f"{prefix}.weight"]
        return torch.add(values @ weight.T, self.state[f"{prefix}.bias"])

    def layer_norm(self, prefix: str, rows: Tensor) -> Tensor:
        centred = rows - rows.mean(1, keepdim=True)
        unit = centred / torch.sqrt(centred.square().mean(1, keepdim=True) + 1e-5)
        return torch.add(unit * self.state[f"{prefix}.weight"], self.state[f"{prefix}.bias"])

    def weight(self, prefix: str) -> Tensor:
        weight, u0 = self.state[f"{prefix}.weight"], self.state[f"{prefix}.u0"]
        return torch.div(weight, compute_spectral_norm(weight.double().numpy(), u0.double().numpy(), self.eps))


def compute_spectral_norm(weight: NDArray[np.float64], u0: NDArray[np.float64], eps: float) -> float:
    """Compute the estimate of one power iteration in plain NumPy."""
    matrix = weight.reshape(len(weight), -1)
    v = u0[0] @ matrix
    v /= max(float(np.linalg.norm(v)), eps)
    u = matrix @ v
    return float(matrix @ v @ u / max(float(np.linalg.norm(u)), eps))


def draw(family: Family, n_images: int, seed: int = 4) -> Inputs:
    return draw_inputs(family, n_images, torch.Generator().manual_seed(seed))


def with_dtype(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    return tuple(each.to(dtype) if each.is_floating_point() else each for each in inputs)


def compute(model: GeneratorModule, inputs: Inputs) -> Tensor:
    with torch.inference_mode():
        images: Tensor = model(*inputs)
    return images


def compute_exactly(model: GeneratorModule, inputs: Inputs) -> Tensor:
    return compute(copy.deepcopy(model).double(), with_dtype(inputs, torch.float64))


@pytest.mark.parametrize("variant", [0, 1])
def test_forward_equals_the_specification_at_full_size(variant: int) -> None:
    model, inputs = random_model(VARIANTS[variant].module_class, seed=3), draw(VARIANTS[variant], 1)
    images = compute(model, inputs)
    with torch.inference_mode():
        full = Oracle(model, EPS[variant], torch.float32).images(*inputs)
    assert full.shape == (1, 1, 256, 768)
    assert (images.shape, images.dtype) == ((1, 250, 768), torch.float32)
    assert images.std() > 1e-2, "flat images would agree with anything"
    torch.testing.assert_close(images, full[:, 0, 3:253], rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("variant", [0, 1])
def test_forward_equals_the_specification_exactly_in_float64(variant: int, seed: int) -> None:
    model, inputs = random_model(TINY_VARIANTS[variant].module_class, seed), draw(TINY_VARIANTS[variant], 3, seed)
    with torch.inference_mode():
        full = Oracle(model, EPS[variant], torch.float64).images(*with_dtype(inputs, torch.float64))
    exact = compute_exactly(model, inputs)
    assert exact.std() > 1e-2
    torch.testing.assert_close(exact, full[:, 0, 3:253], rtol=0, atol=1e-9)
    torch.testing.assert_close(compute(model, inputs).double(), exact, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", TINY_VARIANTS, ids=describe_variant)
def test_an_image_depends_on_its_own_latent_its_sensor_and_the_event_alone(family: Family) -> None:
    model = random_model(family.module_class, seed=5)
    latent, sensor, *event = draw(family, 40)
    whole = compute(model, (latent[:6], sensor[:6], *event))
    some = compute(model, (latent[2:4], sensor[2:4], *event))
    torch.testing.assert_close(some, whole[2:4], rtol=0, atol=1e-5)
    changes: list[Inputs] = [(latent[:6].roll(1, 0), sensor[:6], *event), (latent[:6], sensor[:6].roll(1), *event)]
    if event:
        changed = event[0].clone()
        changed[39] += 1.0  # of a sensor whose image is not computed
        changes.append((latent[:6], sensor[:6], changed))
    for inputs in changes:
        assert (compute(model, inputs) - whole).abs().amax((1, 2)).min() > 1e-4


# Spectral norm


@pytest.mark.parametrize("scale", [1.0, 1e-9])
@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize("shape", [(8, 256), (1, 32, 3, 3), (16, 4, 1, 1), (128, 132)], ids=str)
def test_spectral_norm_is_that_of_one_power_iteration(shape: tuple[int, ...], eps: float, scale: float) -> None:
    random = np.random.default_rng(len(shape))
    weight, u0 = random.normal(size=shape) * scale, random.normal(size=(1, shape[0]))
    expected = weight / compute_spectral_norm(weight, u0, eps)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        found = divide_by_spectral_norm(torch.from_numpy(weight).to(dtype), torch.from_numpy(u0).to(dtype), eps)
        assert found.dtype == dtype
        assert np.abs(found.numpy() - expected).max() <= tolerance * np.abs(expected).max()


def test_the_two_eps_differ_for_small_weights() -> None:
    weight, u0 = torch.full((2, 3), 1e-9), torch.ones(1, 2)
    assert divide_by_spectral_norm(weight, u0, EPS[0]).max() > 100 * divide_by_spectral_norm(weight, u0, EPS[1]).max()


def test_spectral_norm_is_the_largest_singular_value_for_its_vector() -> None:
    weight = torch.randn(6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    u, values, _ = torch.linalg.svd(weight)
    found = divide_by_spectral_norm(weight, u[:, :1].T, 1e-12)
    torch.testing.assert_close(found, weight / values[0])


# Folding


def make_odd(model: GeneratorModule, inputs: Inputs) -> None:
    """Give every third channel a tiny variance, others a large mean, and gains and vectors all sizes and signs."""
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for key, value in (*model.named_buffers(), *model.named_parameters()):
            factor = 10.0 ** float(torch.randn(1, generator=generator))
            if key.endswith("output_layer.0.gain"):
                value[::2].neg_()
            elif key.endswith(("gain.weight", ".bias.weight", "u0", "linear_f.weight")):
                value.mul_(factor)
            elif "conv" in key and key.endswith("weight"):
                value[::3].mul_(0.01)
            elif "conv" in key and key.endswith("bias"):
                value[1::3].add_(5.0)
        model.train()
        model(*inputs)
        model.eval()


def keep(_model: GeneratorModule, _inputs: Inputs) -> None:
    """Change nothing."""


@pytest.mark.parametrize("change", [keep, make_odd])
@pytest.mark.parametrize("seed", [11, 12])
@pytest.mark.parametrize("family", TINY_VARIANTS, ids=describe_variant)
def test_the_folded_module_is_as_near_to_float64(
    family: Family, seed: int, change: Callable[[GeneratorModule, Inputs], None]
) -> None:
    model, inputs = random_model(family.module_class, seed), draw(family, 3, seed)
    change(model, inputs)
    state = model.state_dict()
    if change is make_odd:
        variances = torch.cat([value for key, value in state.items() if key.endswith("stored_var")])
        means = torch.cat([value for key, value in state.items() if key.endswith("stored_mean")])
        assert variances.min() < 1e-5
        assert means.abs().max() > 4
    unfolded, exact = compute(model, inputs), compute_exactly(model, inputs)
    assert unfolded.std() > 1e-2
    folded_model = copy.deepcopy(model)
    gains: list[Tensor] = []
    gain = folded_model.get_submodule("blocks.3.0.bn2.gain")
    hook = gain.register_forward_hook(lambda *each: gains.append(each[-1]))
    assert folded_model.fold() is folded_model
    assert (folded_model.table is None) == (family is not TINY)
    folded = compute(folded_model, inputs)
    hook.remove()
    assert (1 + gains[0]).min() < -0.1 < 1.1 < (1 + gains[0]).max()
    assert (folded - unfolded).abs().max() <= 1e-5
    assert (folded - exact).abs().max() <= 1.2 * (unfolded - exact).abs().max()
    assert torch.equal(compute(folded_model.fold(), inputs), folded), "folding twice is folding once"
    changed = {key for key, value in folded_model.state_dict().items() if not torch.equal(value, state[key])}
    assert changed == {key.replace("u0", "weight") for key in state if key.endswith("u0")}


@pytest.mark.slow
@pytest.mark.parametrize("family", VARIANTS, ids=describe_variant)
def test_the_folded_module_equals_the_unfolded_one_at_full_size(family: Family) -> None:
    model, inputs = random_model(family.module_class, seed=13), draw(family, 1)
    unfolded = compute(model, inputs)
    assert (compute(model.fold(), inputs) - unfolded).abs().max() <= 1e-5


@pytest.mark.parametrize("family", TINY_VARIANTS, ids=describe_variant)
def test_the_output_is_scaled_before_the_tanh(family: Family) -> None:
    model, inputs = random_model(family.module_class, seed=14), draw(family, 2)
    before = torch.arctanh(compute_exactly(model, inputs))
    model.scale_output(0.25, -0.5)
    torch.testing.assert_close(torch.arctanh(compute_exactly(model, inputs)), before * 0.25 - 0.5, rtol=0, atol=1e-6)
