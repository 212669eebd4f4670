"""The convolution in float64 against PyTorch's own."""

from __future__ import annotations

import pytest
import torch

from export.convolution import FastConvolutions, convolve

CASES = [
    pytest.param((2, 3, 9, 40), (4, 3, 3, 3), {"padding": 1}, id="same size"),
    pytest.param((1, 3, 60, 80), (4, 3, 5, 3), {"padding": (2, 1)}, id="several blocks of pixels"),
    pytest.param((2, 3, 9, 41), (4, 3, 3, 2), {}, id="no pads"),
    pytest.param((2, 3, 21, 43), (4, 3, 6, 5), {"stride": (4, 3), "padding": (1, 2)}, id="stride"),
    pytest.param((2, 3, 21, 43), (4, 3, 3, 3), {"stride": 2, "dilation": (3, 2)}, id="dilation"),
    pytest.param((2, 3, 9, 32), (4, 3, 9, 32), {}, id="one pixel"),
    pytest.param((2, 3, 9, 31), (4, 3, 3, 3), {"padding": 1}, id="narrow"),
    pytest.param((2, 3, 9, 40), (4, 3, 1, 1), {"stride": 2}, id="pointwise"),
    pytest.param((2, 4, 9, 40), (4, 2, 3, 3), {"groups": 2}, id="groups"),
    pytest.param((2, 3, 9, 40), (4, 3, 3, 3), {"padding": "same"}, id="pads by name"),
    pytest.param((3, 9, 40), (4, 3, 3, 3), {"padding": 1}, id="one image"),
]


@pytest.mark.parametrize(("image_shape", "weight_shape", "options"), CASES)
@pytest.mark.parametrize("has_bias", [True, False])
def test_the_result_is_pytorchs(
    image_shape: tuple[int, ...], weight_shape: tuple[int, ...], options: dict[str, int], has_bias: bool
) -> None:
    generator = torch.Generator().manual_seed(1)
    images, weight, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in (image_shape, weight_shape, weight_shape[:1])
    )
    expected = torch.conv2d(images, weight, bias if has_bias else None, **options)
    found = convolve(images, weight, bias if has_bias else None, **options)
    assert found.shape == expected.shape
    assert found.dtype == torch.float64
    assert found.is_contiguous()
    assert (found - expected).abs().max() < 1e-12


def test_modules_use_it_within_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, images = torch.nn.Conv2d(3, 4, 3, padding=1).double(), torch.ones(1, 3, 8, 40, dtype=torch.float64)
    expected = layer(images)
    monkeypatch.setattr("export.convolution.convolve", lambda *_: torch.zeros(1))
    with FastConvolutions():
        assert layer(images).shape == (1,)
    assert torch.equal(layer(images), expected)
