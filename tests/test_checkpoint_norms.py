"""Spectral and weight norm: folded weights give the outputs of PyTorch's modules, and the export's parity holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from export.checkpoint import load_checkpoint
from export.checkpoint.norms import gather_weights
from export.errors import CheckpointError
from export.pipeline import export_checkpoint
from tests.checkpoints import SmallNet, light_state, random_model, register_family, save

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from export.families.generator_module import GeneratorModule

pytestmark = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")


@pytest.fixture(autouse=True)
def small_family(monkeypatch: pytest.MonkeyPatch) -> None:
    register_family(monkeypatch, "small", SmallNet)


def add_norms(model: GeneratorModule, norm: Callable[..., nn.Module], **options: object) -> GeneratorModule:
    """Put a norm on each layer, with vectors and magnitudes as after training.

    Seeded: with other vectors the norm may be so small that float32 amplifies its rounding beyond the tolerance.
    """
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(12)
        for layer in list(model.modules()):
            if isinstance(layer, nn.Linear | nn.Conv2d):
                norm(layer, **options)
        for key, value in model.state_dict(keep_vars=True).items():
            if key.endswith(("_u", "weight_g", "original0")):
                value.copy_(torch.rand_like(value) + 0.5)
    return model.eval()


def both(layer: nn.Module) -> nn.Module:
    return parametrizations.spectral_norm(parametrizations.weight_norm(layer))


def require_equal_outputs(expected: GeneratorModule, found: GeneratorModule) -> None:
    latents = torch.randn(2, 96, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(found(latents), expected(latents), rtol=0, atol=1e-5)  # of rounding
        assert expected(latents).std() > 0.001


@pytest.mark.parametrize(
    ("norm", "options", "stored"),
    [
        (nn.utils.spectral_norm, {}, "conv.weight_orig"),
        (nn.utils.spectral_norm, {"dim": 1}, "conv.weight_v"),
        (nn.utils.weight_norm, {}, "conv.weight_g"),
        (nn.utils.weight_norm, {"dim": 1}, "conv.weight_g"),
        (nn.utils.weight_norm, {"dim": None}, "conv.weight_g"),
        (parametrizations.spectral_norm, {}, "conv.parametrizations.weight.0._u"),
        (parametrizations.spectral_norm, {"dim": 1}, "conv.parametrizations.weight.0._v"),
        (parametrizations.weight_norm, {}, "conv.parametrizations.weight.original1"),
        (parametrizations.weight_norm, {"dim": 1}, "conv.parametrizations.weight.original0"),
        (both, {}, "conv.parametrizations.weight.1._u"),
    ],
)
def test_folded_weights_give_the_outputs_of_the_normed_model(
    tmp_path: Path, norm: Callable[..., nn.Module], options: dict[str, object], stored: str
) -> None:
    model = add_norms(random_model("small", seed=8), norm, **options)
    state = model.state_dict()
    assert stored in state
    told: list[str] = []
    path = save({"epoch": 3, "g": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "generator.pt")
    found = load_checkpoint(path, "small", log=told.append)
    require_equal_outputs(model, found)
    assert told == ["took the state dict at g.module", "folded spectral or weight norm into 3 weights"]
    assert all(not isinstance(layer, parametrize.ParametrizationList) for layer in found.modules())


def test_some_layers_may_be_normed_and_others_plain(tmp_path: Path) -> None:
    model = random_model("small", seed=9)
    nn.utils.spectral_norm(model.get_submodule("conv"))
    parametrizations.weight_norm(model.get_submodule("last"))
    require_equal_outputs(model.eval(), load_checkpoint(save(model.state_dict(), tmp_path / "a.pt"), "small"))


@pytest.mark.parametrize("norm", [nn.utils.spectral_norm, parametrizations.spectral_norm])
@pytest.mark.parametrize(
    ("build", "options"),
    [
        (lambda: nn.Conv2d(8, 8, 3), {}),
        (lambda: nn.Conv2d(8, 8, 3), {"dim": 1}),
        (lambda: nn.ConvTranspose2d(8, 8, 3), {}),  # dim=1, PyTorch's choice
        (lambda: nn.Linear(8, 8), {"dim": 1}),
        (lambda: nn.Conv2d(3, 3, 3), {"dim": 1}),
    ],
)
@pytest.mark.parametrize("n_steps", [3, 100])
def test_the_axis_of_a_spectral_norm_is_found_among_axes_of_the_same_size(
    norm: Callable[..., nn.Module], build: Callable[[], nn.Module], options: dict[str, object], n_steps: int
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(13)
        layer = build()
        n_channels = len(next(layer.parameters()))
        norm(layer, **options)
        images = torch.randn(4, n_channels) if isinstance(layer, nn.Linear) else torch.randn(4, n_channels, 5, 5)
        optimizer = torch.optim.Adam(layer.parameters())
        for _ in range(n_steps):
            optimizer.zero_grad()
            layer(images).square().mean().backward()
            optimizer.step()
    require_folded(layer.eval(), images)


def test_a_spectral_norm_that_never_ran_is_along_the_first_axis() -> None:
    """The vectors of a hook are random before the first step of the training."""
    with torch.random.fork_rng():
        torch.manual_seed(14)
        for _ in range(5):
            require_folded(nn.utils.spectral_norm(nn.Conv2d(32, 32, 3)).eval(), torch.randn(1, 32, 5, 5))


def require_folded(layer: nn.Module, images: Tensor) -> None:
    """Require that the folded weight is that with which a layer computes."""
    layer(images)
    tensors = {tuple(key.split(".")): value for key, value in layer.state_dict().items()}
    folded = gather_weights(tensors)["weight",].fold().float()
    torch.testing.assert_close(folded, layer.weight, rtol=1e-3, atol=0)  # random vectors amplify rounding


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_norms_of_other_types_are_folded(tmp_path: Path, dtype: torch.dtype) -> None:
    state = add_norms(random_model("small", seed=10), nn.utils.spectral_norm).to(dtype).state_dict()
    found = load_checkpoint(save(state, tmp_path / "a.pt"), "small").state_dict()["fc.weight"]
    weight, u, v = (state[f"fc.weight_{part}"].double() for part in ("orig", "u", "v"))
    assert torch.equal(found, (weight / torch.dot(u, torch.mv(weight, v))).float())


def test_the_graph_of_a_normed_model_gives_its_images(tmp_path: Path) -> None:
    model = random_model("small", seed=11)
    nn.utils.spectral_norm(model.get_submodule("fc"))
    parametrizations.weight_norm(model.get_submodule("conv"))
    parametrizations.spectral_norm(model.get_submodule("last"))
    graph = export_checkpoint(save(model.eval().state_dict(), tmp_path / "small.pt"), "small", tmp_path)
    assert graph.card.parity.max_abs_difference <= 1e-5
    latents = torch.randn(2, 96, generator=torch.Generator().manual_seed(4))
    session = onnxruntime.InferenceSession(graph.path, providers=["CPUExecutionProvider"])
    (images,) = session.run(None, {"latent": latents.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(images, model(latents).numpy(), rtol=0, atol=1e-5)


# What is refused


WITHOUT_FC: Final = {key: value for key, value in light_state("small").items() if key != "fc.weight"}


def spectral_state(**changes: Tensor) -> dict[str, Tensor]:
    """Build a state dict with a spectral norm of its first layer, and changed parts."""
    parts = {"weight_orig": torch.ones(12, 96), "weight_u": torch.ones(12), "weight_v": torch.ones(96)} | changes
    return WITHOUT_FC | {f"fc.{key}": value for key, value in parts.items()}


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (
            spectral_state(weight_u=torch.ones(11)),
            (
                r"holds fc\.weight with a spectral norm whose vectors, u \(11,\), v \(96,\), do not fit "
                r"a weight .* \(12, 96\)\.$"
            ),
        ),
        (
            spectral_state(weight_u=torch.zeros(12)),
            r"holds inf in fc\.weight once its norm is folded: every value must be finite in float32\.$",
        ),
        (spectral_state(weight_u=torch.ones(12).int()), r"holds fc\.weight as int32: expected dense float32"),
        (
            spectral_state(weight_orig=torch.ones(12, 95)),
            r"holds fc\.weight of shape \(12, 95\): expected \(12, 96\)\.$",
        ),
        (
            {key: value for key, value in spectral_state().items() if key != "fc.weight_v"},
            r"it lacks fc\.weight and holds fc\.weight_orig, fc\.weight_u, which are unknown\.$",
        ),
        (
            spectral_state(weight=torch.ones(12, 96)),
            r"it holds fc\.weight_orig, fc\.weight_u, fc\.weight_v, which are unknown\.$",
        ),
        (
            WITHOUT_FC | {"fc.weight_g": torch.ones(2, 1), "fc.weight_v": torch.ones(12, 96)},
            r"holds fc\.weight with a weight norm whose parts do not fit each other: g \(2, 1\), v \(12, 96\)\.$",
        ),
        (
            WITHOUT_FC | {"fc.parametrizations.weight.original": torch.ones(12, 96)},
            r"it lacks fc\.weight and holds fc\.parametrizations\.weight\.original, which is unknown\.$",
        ),
        (
            WITHOUT_FC
            | {
                "fc.parametrizations.weight.original": torch.ones(12, 96),
                "fc.parametrizations.weight.1._u": torch.ones(12),
                "fc.parametrizations.weight.1._v": torch.ones(96),
            },
            r"it lacks fc\.weight and holds fc\.parametrizations\.weight\.1\._u, .* which are unknown\.$",
        ),
    ],
    ids=["u", "zero", "type", "shape", "no-v", "both", "g", "unknown", "unknown-first"],
)
def test_parts_of_a_norm_that_do_not_belong_together_are_refused(
    tmp_path: Path, state: dict[str, Tensor], expected: str
) -> None:
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoint(save(state, tmp_path / "generator.pt"), "small")
